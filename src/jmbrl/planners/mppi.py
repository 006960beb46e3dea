"""Model-predictive path integral control, and its filtered form from PDDM."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.planners.sampling import draw_table, ranked, shift
from jmbrl.types import Array, Continuous, Discrete, Key, Objective, Planner, Spec


class MPPIState(NamedTuple):
    """``mean``: ``float32[H, A]``, or a table of probabilities ``[H, n]``. ``before``: the action executed last."""

    mean: Array
    before: Array


def mppi(
    spec: Spec,
    *,
    horizon: int = 30,
    population: int = 350,
    iterations: int = 1,
    temperature: float | Array = 1.0,
    sigma: float | Array = 0.5,
    filter: float | Array | None = None,
) -> Planner:
    r"""Average noisy action sequences, weighted by the exponential of their return.

    With :math:`\epsilon_k \sim \mathcal N(0, \sigma^2 I)`, :math:`v_k = \operatorname{clip}(U + \epsilon_k)`,
    :math:`\epsilon_k \leftarrow v_k - U`:

    .. math:: S_k = -R_k + \lambda \sum_t U_t^\top \Sigma^{-1} \epsilon_{k,t}, \qquad
              U \leftarrow U + \sum_k \omega_k \epsilon_k, \quad \omega_k \propto e^{-(S_k - \min S)/\lambda}

    The second term of :math:`S` makes it a control cost of weight :math:`\lambda/\sigma^2`, part of the method: plans
    are drawn towards 0. With ``filter`` (PDDM's form) the noise is smoothed along time and that term is left out:

    .. math:: n_t = \beta(U_t + u_t) + (1-\beta) n_{t-1}, \qquad U \leftarrow \sum_k \omega_k n_k, \quad
              \omega_k \propto e^{(R_k - \max R)/\lambda}

    with :math:`n_{-1}` the action executed last and ``temperature`` the inverse of PDDM's :math:`\gamma`.

    Discrete actions use a table of probabilities per step :math:`p`: candidates are drawn from
    :math:`(1-\sigma)p + \sigma/n` and :math:`p \leftarrow \sum_k \omega_k \operatorname{onehot}(a_k)`, whose mode is
    the plan.

    The first candidate is the plan itself, without noise (not in the sources): where every noisy one is broken or over
    the budget, the plan stays.

    Args:
      spec: the environment's; continuous or discrete actions.
      horizon: steps looked ahead, at least 1.
      population: candidates per iteration, at least 2.
      iterations: updates per decision, at least 1.
      temperature: :math:`\lambda > 0`, in units of the return: a return lower by this much weighs ``1/e``.
      sigma: standard deviation of the noise in units of the action box ``[-1, 1]``, above 0; for discrete actions the
        probability of a uniform action, in ``(0, 1]``.
      filter: :math:`\beta` in ``(0, 1]``, 1 is unfiltered; None for MPPI.

    Returns:
      A ``Planner``; ``info`` holds ``return`` (best seen), ``effective`` (effective number of candidates, 1 to
      ``population``, mean over iterations), ``nonfinite`` (broken returns, of weight 0) and the objective's means.

    Raises:
      ValueError: a number outside its range; ``filter`` with discrete actions.

    Source: Williams et al. 2017 (arXiv 1707.02342), algorithm 1; Nagabandi et al. 2019 (PDDM, arXiv 1909.11652),
    section 3.2.
    """
    actions = spec.action
    box = isinstance(actions, Continuous)
    horizon = checks.integer("horizon", horizon, 1)
    population = checks.integer("population", population, 2)
    iterations = checks.integer("iterations", iterations, 1)
    temperature = checks.number("temperature", temperature, 1e-9)
    sigma = checks.number("sigma", sigma, 1e-6, None if box else 1.0)
    if filter is not None:
        filter = checks.number("filter", filter, 1e-6, 1.0)
        if not box:
            raise ValueError(f"filter smooths continuous actions, got {actions}; leave it None")
    shape = (horizon, *actions.shape)

    def init() -> MPPIState:
        if isinstance(actions, Discrete):
            return MPPIState(jnp.full((horizon, actions.n), 1.0 / actions.n), jnp.zeros((), jnp.int32))
        return MPPIState(jnp.zeros(shape), jnp.zeros(shape[1:]))

    def draw(key: Key, mean: Array, before: Array) -> Array:
        if isinstance(actions, Discrete):
            return draw_table(key, (1 - sigma) * mean + sigma / actions.n, population)
        noisy = mean + sigma * jax.random.normal(key, (population, *shape))
        if filter is not None:
            noisy = smoothed(noisy, before, filter)
        return jnp.clip(noisy, -1.0, 1.0)

    def improve(objective: Objective, before: Array, mean: Array, key: Key) -> tuple[Array, tuple]:
        key_draw, key_eval = jax.random.split(key)
        candidates = draw(key_draw, mean, before).at[0].set(mode(mean))
        returns, _, info = objective.returns(key_eval, candidates)
        gain = returns
        if box and filter is None:
            gain = gain - temperature / sigma**2 * jnp.sum(mean * (candidates - mean), axis=(1, 2))
        usable = jnp.isfinite(gain)
        weight = jax.nn.softmax(jnp.where(usable, gain, -jnp.inf) / temperature)
        weight = jnp.where(jnp.any(usable), weight, 0.0)  # a softmax of nothing is NaN
        rows = jax.nn.one_hot(candidates, actions.n) if isinstance(actions, Discrete) else candidates
        improved = jnp.where(jnp.any(usable), jnp.tensordot(weight, rows, axes=1), mean)
        safe, broken = ranked(returns)
        effective = 1.0 / jnp.maximum(jnp.sum(weight**2), 1e-12) * jnp.any(usable)
        return improved, (jnp.max(safe), broken, {**info, "effective": effective})

    def plan(key: Key, state: MPPIState, objective: Objective) -> tuple[Array, MPPIState, dict]:
        mean, (best, broken, infos) = jax.lax.scan(
            lambda mean, key: improve(objective, state.before, mean, key),
            state.mean,
            jax.random.split(key, iterations),
        )
        info = jax.tree.map(lambda x: jnp.mean(x, axis=0), infos)
        info |= {"return": jnp.max(best), "nonfinite": jnp.sum(broken, dtype=jnp.int32)}
        return mode(mean), MPPIState(mean, state.before), info

    def mode(mean: Array) -> Array:
        return jnp.clip(mean, -1.0, 1.0) if box else jnp.argmax(mean, axis=-1).astype(jnp.int32)

    def shift_state(state: MPPIState, k: int) -> MPPIState:
        executed = mode(state.mean)[min(k, horizon) - 1]
        return MPPIState(shift(state.mean, k, init().mean[0]), executed)

    return Planner(init, plan, shift_state, horizon)


def smoothed(noisy: Array, before: Array, weight: float | Array) -> Array:
    """``n_t = weight * noisy_t + (1 - weight) * n_{t-1}`` along the second axis, from ``n_{-1} = before``."""

    def body(last: Array, now: Array) -> tuple[Array, Array]:
        last = weight * now + (1 - weight) * last
        return last, last

    first = jnp.broadcast_to(before, (noisy.shape[0], *before.shape))
    return jnp.moveaxis(jax.lax.scan(body, first, jnp.moveaxis(noisy, 1, 0))[1], 0, 1)
