"""MPPI around a policy's proposals: TD-MPC2's search over short plans."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.networks.noise import fast_normal
from jmbrl.planners.sampling import ranked, shift
from jmbrl.types import Array, Key, Objective, Planner, Spec


class PolicyMPPIState(NamedTuple):
    """``mean, std``: ``float32[H, A]`` of the last plan's candidates; each plan begins with ``max_std`` again."""

    mean: Array
    std: Array


def policy_mppi(
    spec: Spec,
    *,
    horizon: int = 3,
    population: int = 512,
    proposals: int = 24,
    elites: int = 64,
    iterations: int = 6,
    temperature: float | Array = 0.5,
    min_std: float | Array = 0.05,
    max_std: float | Array = 2.0,
) -> Planner:
    r"""Fit a Gaussian over action sequences to the best of its samples and of a policy's, each weighted by its return.

    The same ``proposals`` of the policy (``objective.propose``) are among the candidates of every iteration, the
    others are drawn: :math:`a = \operatorname{clip}(\mu + \sigma \epsilon)`. With :math:`E` the ``elites`` best,

    .. math:: \omega_i \propto e^{\tau (R_i - \max R)}, \qquad \mu \leftarrow \sum_{i \in E} \omega_i a_i, \qquad
              \sigma \leftarrow \operatorname{clip}\Big(\sqrt{\textstyle\sum_{i \in E} \omega_i (a_i - \mu)^2},\
              \sigma_{\min}, \sigma_{\max}\Big)

    starting from the last plan's mean, shifted, and :math:`\sigma_{\max}`. The plan is one of the last elites, drawn
    with its weight (by Gumbel's trick); ``plan_state.std`` is what it may be explored with. Where the objective
    proposes nothing all candidates are drawn. Where every candidate is broken the mean stays, and is the plan.

    Args:
      spec: the environment's; continuous actions.
      horizon: steps looked ahead, at least 1; what follows them is the objective's ``terminal_value``.
      population: candidates per iteration, proposals included.
      proposals: how many the policy makes, in ``[0, population]``.
      elites: in ``[1, population]``.
      iterations: at least 1.
      temperature: :math:`\tau > 0`, per unit of return: a *high* one follows the best.
      min_std, max_std: of an action, in units of the action box ``[-1, 1]``, above 0.

    Returns:
      A ``Planner``; ``info`` holds ``return`` (best seen), ``std`` (mean of the last), ``nonfinite`` (broken returns)
      and the objective's means.

    Raises:
      ValueError: discrete actions, or a number outside its range.

    Source: Hansen et al. 2024 (TD-MPC2, arXiv 2310.16828), section 3.2 and the released code; Hansen et al. 2022
    (TD-MPC, arXiv 2203.04955), algorithm 1.
    """
    box = checks.continuous("policy_mppi", spec.action, "mppi, cem or icem")
    horizon = checks.integer("horizon", horizon, 1)
    population = checks.integer("population", population, 1)
    proposals = checks.integer("proposals", proposals, 0, population)
    elites = checks.integer("elites", elites, 1, population)
    iterations = checks.integer("iterations", iterations, 1)
    temperature = checks.number("temperature", temperature, 1e-9)
    min_std = checks.number("min_std", min_std, 1e-6)
    max_std = checks.number("max_std", max_std, 1e-6)
    if isinstance(min_std, float | int) and isinstance(max_std, float | int) and min_std > max_std:
        raise ValueError(f"min_std must be at most max_std={max_std}, got {min_std}")
    shape = (horizon, box.dim)

    def init() -> PolicyMPPIState:
        return PolicyMPPIState(jnp.zeros(shape), jnp.full(shape, jnp.asarray(max_std, jnp.float32)))

    def improve(objective: Objective, proposed: Array, state: PolicyMPPIState, key: Key) -> tuple:
        """A new Gaussian; the elites ``[E, H, A]`` and their weights ``[E]``; what to report."""
        key_draw, key_eval = jax.random.split(key)
        noise = fast_normal(key_draw, (population - len(proposed), *shape))
        drawn = jnp.clip(state.mean + state.std * noise, -1.0, 1.0)
        candidates = jnp.concatenate([proposed, drawn])
        returns, _, info = objective.returns(key_eval, candidates)
        best, chosen = jax.lax.top_k(jnp.where(jnp.isfinite(returns), returns, -jnp.inf), elites)
        some = jnp.isfinite(best[0])
        # The best is finite, so that what is not weighs nothing; a softmax of nothing would be NaN.
        weight = jnp.where(some, jax.nn.softmax(temperature * jnp.where(some, best, 0.0)), 0.0)
        rows = candidates[chosen]
        mean = jnp.tensordot(weight, rows, axes=1)
        std = jnp.clip(jnp.sqrt(jnp.tensordot(weight, (rows - mean) ** 2, axes=1)), min_std, max_std)
        fitted = PolicyMPPIState(jnp.where(some, mean, state.mean), jnp.where(some, std, state.std))
        return fitted, rows, weight, (best[0], ranked(returns)[1], info)

    def plan(key: Key, state: PolicyMPPIState, objective: Objective) -> tuple[Array, PolicyMPPIState, dict]:
        key_propose, key_search, key_choose = jax.random.split(key, 3)
        proposed = jnp.zeros((0, *shape))
        if proposals and objective.propose is not None:
            # A candidate of weight 0 must not make the mean NaN.
            proposed = jnp.nan_to_num(objective.propose(key_propose, proposals, horizon))

        def body(loop: tuple, key: Key) -> tuple[tuple, tuple]:
            fitted, rows, weight, seen = improve(objective, proposed, loop[0], key)
            return (fitted, rows, weight), seen

        start = state._replace(std=init().std), jnp.zeros((elites, *shape)), jnp.zeros(elites)
        end, (best, broken, infos) = jax.lax.scan(body, start, jax.random.split(key_search, iterations))
        fitted, rows, weight = end
        chosen = rows[jax.random.categorical(key_choose, jnp.log(weight))]
        info = jax.tree.map(lambda x: jnp.mean(x, axis=0), infos)
        info |= {"return": jnp.max(best), "std": jnp.mean(fitted.std), "nonfinite": jnp.sum(broken, dtype=jnp.int32)}
        return jnp.where(jnp.any(weight > 0), chosen, fitted.mean), fitted, info

    def shift_state(state: PolicyMPPIState, k: int) -> PolicyMPPIState:
        return PolicyMPPIState(shift(state.mean, k, 0.0), init().std)

    return Planner(init, plan, shift_state, horizon)
