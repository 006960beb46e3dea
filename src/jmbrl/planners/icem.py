"""iCEM: the cross-entropy method with coloured noise, memory of its elites and shrinking populations."""

import itertools
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.networks.noise import coloured_noise
from jmbrl.planners.sampling import entropy, moments, ranked, shift
from jmbrl.types import Array, Continuous, Key, Objective, Planner, Spec


class ICEMState(NamedTuple):
    """What one decision leaves to the next.

    ``mean``: ``float32[H, A]``, or a table of probabilities ``[H, n]``. ``elites``: ``[k, H, ...]``; their last
    ``tail`` steps (``int32``) hold nothing yet, and rows that are not ``valid`` (``bool[k]``) hold nothing at all.
    """

    mean: Array
    elites: Array
    valid: Array
    tail: Array


class _Loop(NamedTuple):
    """Between iterations: the distribution, the elites kept, the best candidate of the last one and its return."""

    search: tuple
    kept: Array
    valid: Array
    best: Array
    value: Array


def icem(
    spec: Spec,
    *,
    horizon: int = 30,
    population: int = 40,
    elites: int = 10,
    iterations: int = 3,
    decay: float = 1.25,
    alpha: float = 0.1,
    std: float = 0.5,
    beta: float | Array = 2.0,
    keep: float = 0.3,
) -> Planner:
    r"""CEM for few samples: correlated along time, never forgetting good sequences, executing the best one.

    .. math:: N_i = \max(2K, \lfloor N_{i-1} / \text{decay} \rfloor), \qquad
              a = \operatorname{clip}(\mu + \sigma\,\epsilon), \quad \epsilon \text{ of spectrum } f^{-\beta}

    and :math:`\mu \leftarrow \alpha\mu + (1-\alpha)\mu_e`, :math:`\sigma \leftarrow \alpha\sigma + (1-\alpha)\sigma_e`
    from the ``K`` elites. The share ``keep`` of the elites joins the candidates of the next iteration and, shifted
    and completed by a fresh end, of the next decision. The last iteration's first candidate is the mean. What is
    returned is the *best* candidate of the last iteration, unlike CEM's mean.

    Discrete actions use a table of probabilities per step, mixed half and half with the uniform table at every
    decision, with kept and shifted elites; ``std`` and ``beta`` mean nothing there, for categories have no colour.

    Args:
      spec: the environment's; continuous or discrete actions.
      horizon: steps looked ahead, at least 1.
      population: candidates of the first iteration, at least 2; kept elites come on top.
      elites: best candidates refitted to, in ``[1, population]``.
      iterations: exactly this many, at least 1; those of one size are compiled together.
      decay: by which the population shrinks, at least 1.
      alpha: weight of the old distribution, in ``[0, 1]``.
      std: initial standard deviation of every decision, in units of the action box ``[-1, 1]``.
      beta: colour of the noise, at least 0: 0 white; 0.25 (running) to 3.5 (reaching) in the paper.
      keep: share of the elites that is kept, in ``[0, 1]``. A decision without a past has fresh samples in their place.

    Returns:
      A ``Planner``; ``info`` holds ``return`` (of the plan), ``spread`` (final mean standard deviation or, for discrete
      actions, mean entropy), ``nonfinite`` (broken returns) and the objective's means.

    Raises:
      ValueError: a number outside its range.

    Source: Pinneri et al. 2020 (arXiv 2008.06389), algorithm 1, and the released code.
    """
    horizon = checks.integer("horizon", horizon, 1)
    population = checks.integer("population", population, 2)
    elites = checks.integer("elites", elites, 1, population)
    iterations = checks.integer("iterations", iterations, 1)
    decay = float(checks.number("decay", decay, 1.0))
    alpha = checks.number("alpha", alpha, 0.0, 1.0)
    std = checks.number("std", std, 1e-6)
    beta = checks.number("beta", beta, 0.0)
    kept = int(float(checks.number("keep", keep, 0.0, 1.0)) * elites)
    sizes = [population]
    while len(sizes) < iterations:
        sizes.append(max(2 * elites, int(sizes[-1] / decay)))
    # Iterations of one size share one compiled loop.
    groups = [(size, len(list(same))) for size, same in itertools.groupby(sizes)]
    family = (
        _gaussian(horizon, spec.action.dim, alpha, std, beta)
        if isinstance(spec.action, Continuous)
        else _categorical(horizon, spec.action.n, alpha)
    )
    blank, start, noise, place, refit, mode, spread = family

    def init() -> ICEMState:
        rows = jnp.zeros((kept, *mode(blank()).shape), mode(blank()).dtype)
        return ICEMState(blank(), rows, jnp.zeros(kept, bool), jnp.zeros((), jnp.int32))

    def remembered(state: ICEMState, fresh: Array) -> Array:
        """The kept elites, with fresh samples where they hold nothing."""
        empty = (jnp.arange(horizon) >= horizon - state.tail) | ~state.valid[:, None]
        return jnp.where(empty.reshape(*empty.shape, *(1,) * (fresh.ndim - 2)), fresh, state.elites)

    def iterate(objective: Objective, loop: _Loop, inputs: tuple) -> tuple[_Loop, tuple]:
        key, drawn, last = inputs
        candidates = place(loop.search, drawn)
        candidates = candidates.at[0].set(jnp.where(last, mode(loop.search[0]), candidates[0]))
        candidates = jnp.concatenate([candidates, loop.kept])
        returns, _, info = objective.returns(key, candidates)
        safe, broken = ranked(returns)
        top, index = jax.lax.top_k(safe, elites)
        best, usable = candidates[index], jnp.isfinite(top)
        some = jnp.any(usable)  # without one usable elite there is nothing to refit to
        refitted = refit(loop.search, best, usable)
        search = jax.tree.map(lambda new, old: jnp.where(some, new, old), refitted, loop.search)
        return _Loop(search, best[:kept], usable[:kept], best[0], top[0]), (broken, info)

    def plan(key: Key, state: ICEMState, objective: Objective) -> tuple[Array, ICEMState, dict]:
        key_draw, key_eval = jax.random.split(key)
        keys = jax.random.split(key_eval, iterations)
        drawn = noise(key_draw, kept + sum(sizes))  # at once: random bits and transforms compile slowly
        search = start(state.mean)
        good = remembered(state, place(search, drawn[:kept]))
        loop = _Loop(search, good, jnp.ones(kept, bool), mode(search[0]), jnp.asarray(-jnp.inf))
        outs, at, i = [], kept, 0
        for size, count in groups:
            rows = drawn[at : at + size * count].reshape(count, size, *drawn.shape[1:])
            last = jnp.arange(i, i + count) == iterations - 1
            loop, out = jax.lax.scan(partial(iterate, objective), loop, (keys[i : i + count], rows, last))
            outs, at, i = [*outs, out], at + size * count, i + count
        broken, info = jax.tree.map(lambda *x: sum(jnp.sum(part, axis=0) for part in x), *outs)
        chosen = jnp.where(jnp.isfinite(loop.value), loop.best, mode(loop.search[0]))
        info = {name: x / iterations for name, x in info.items()}
        info |= {"return": loop.value, "spread": spread(loop.search), "nonfinite": broken}
        return chosen, ICEMState(loop.search[0], loop.kept, loop.valid, jnp.zeros((), jnp.int32)), info

    def shift_state(state: ICEMState, k: int) -> ICEMState:
        rows = jnp.swapaxes(shift(jnp.swapaxes(state.elites, 0, 1), k, 0), 0, 1)
        return ICEMState(shift(state.mean, k, state.mean[-1]), rows, state.valid, jnp.minimum(state.tail + k, horizon))

    return Planner(init, plan, shift_state, horizon)


def _gaussian(horizon: int, dim: int, alpha: float, std: float, beta: float | Array) -> tuple:
    """The search is ``(mean, standard deviation)``, ``float32[H, A]`` each."""
    shape = (horizon, dim)

    def start(mean: Array) -> tuple[Array, Array]:
        return mean, jnp.full(shape, std)

    def noise(key: Key, count: int) -> Array:
        return jnp.swapaxes(coloured_noise(key, beta, (count, dim, horizon)), 1, 2)

    def place(search: tuple, drawn: Array) -> Array:
        return jnp.clip(search[0] + search[1] * drawn, -1.0, 1.0)

    def refit(search: tuple, best: Array, usable: Array) -> tuple[Array, Array]:
        mean, var = moments(best, usable)
        return alpha * search[0] + (1 - alpha) * mean, alpha * search[1] + (1 - alpha) * jnp.sqrt(var)

    return lambda: jnp.zeros(shape), start, noise, place, refit, lambda mean: mean, lambda search: jnp.mean(search[1])


def _categorical(horizon: int, n: int, alpha: float) -> tuple:
    """The search is ``(table,)``, ``float32[H, n]``."""

    def start(table: Array) -> tuple[Array]:
        return (0.5 * table + 0.5 / n,)  # a table that has settled could not be left again

    def noise(key: Key, count: int) -> Array:
        return jax.random.gumbel(key, (count, horizon, n))

    def place(search: tuple, drawn: Array) -> Array:
        return jnp.argmax(jnp.log(search[0] + 1e-8) + drawn, axis=-1).astype(jnp.int32)

    def refit(search: tuple, best: Array, usable: Array) -> tuple[Array]:
        return (alpha * search[0] + (1 - alpha) * moments(jax.nn.one_hot(best, n), usable)[0],)

    def mode(table: Array) -> Array:
        return jnp.argmax(table, axis=-1).astype(jnp.int32)

    return lambda: jnp.full((horizon, n), 1.0 / n), start, noise, place, refit, mode, lambda search: entropy(search[0])
