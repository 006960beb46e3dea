"""The cross-entropy method, as PETS uses it, for continuous and for discrete actions."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.networks import fast_normal
from jmbrl.planners.sampling import draw_table, entropy, moments, ranked, shift, truncated_normal
from jmbrl.types import Array, Continuous, Key, Objective, Planner, Spec


class _Search(NamedTuple):
    """The search distribution between iterations; ``spread`` is unused for discrete actions."""

    mean: Array
    spread: Array
    best: Array
    nonfinite: Array
    info: dict


def cem(
    spec: Spec,
    *,
    horizon: int = 25,
    population: int = 400,
    elites: int = 40,
    iterations: int = 5,
    alpha: float = 0.1,
    std: float = 0.5,
    min_variance: float = 1e-3,
    bounded: bool = True,
    warm_start: bool = True,
) -> Planner:
    r"""Refit a search distribution to its best samples, a few times; return its mean.

    Continuous actions, with the elites' mean :math:`\mu_e` and biased variance :math:`v_e`:

    .. math:: \mu \leftarrow \alpha\mu + (1-\alpha)\mu_e, \quad v \leftarrow \alpha v + (1-\alpha) v_e

    and samples :math:`\mu + \sqrt{\min(v, ((\mu-l)/2)^2, ((u-\mu)/2)^2)}\,\mathcal N_{[-2,2]}`. The variance starts
    anew at every decision at :math:`(u-l)^2/16`; the mean starts from the plan before, shifted. The search stops early
    once the largest variance is below ``min_variance``. Discrete actions use a table of probabilities per step instead,
    mixed half and half with the uniform table at every decision; the result is its mode.

    The *mean* of the final distribution is returned, not the best sample, which would over-fit the model.

    Args:
      spec: the environment's.
      horizon: steps looked ahead, at least 1.
      population: candidates per iteration, at least 2.
      elites: best candidates refitted to, in ``[1, population]``.
      iterations: at most this many, at least 1.
      alpha: weight of the old distribution, in ``[0, 1]``.
      std: initial standard deviation in units of the action box ``[-1, 1]``; 0.5 = the formula above.
      min_variance: early stop; 0 never stops.
      bounded: keep the spread inside the box as above. False: samples :math:`\mu + \sqrt v \mathcal N`, clipped
        to the box (PlaNet; continuous actions).
      warm_start: False: every decision starts from the middle of the box (from even chances), not from the last plan.

    Returns:
      A ``Planner``; ``info`` holds ``return`` (best seen), ``spread`` (final mean standard deviation or, for
      discrete actions, mean entropy), ``nonfinite`` (broken returns) and the objective's means.

    Raises:
      ValueError: a number outside its range.

    Source: Chua et al. 2018 (arXiv 1805.12114) section 5 and the released optimiser; Hafner et al. 2019 (arXiv
    1811.04551), algorithm 2, without bounds and warm start.
    """
    horizon = checks.integer("horizon", horizon, 1)
    population = checks.integer("population", population, 2)
    elites = checks.integer("elites", elites, 1, population)
    iterations = checks.integer("iterations", iterations, 1)
    alpha = checks.number("alpha", alpha, 0.0, 1.0)
    std = checks.number("std", std, 1e-6)
    family = (
        _gaussian(horizon, spec.action.dim, population, alpha, std, bounded)
        if isinstance(spec.action, Continuous)
        else (_categorical(horizon, spec.action.n, population, alpha))
    )
    init, start, draw, refit, mode, spread = family

    def iterate(key: Key, objective: Objective, i: Array, search: _Search) -> _Search:
        key_draw, key_eval = jax.random.split(jax.random.fold_in(key, i))  # fresh samples every iteration
        candidates = draw(key_draw, search)
        returns, _, info = objective.returns(key_eval, candidates)
        safe, broken = ranked(returns)
        top, index = jax.lax.top_k(safe, elites)
        usable = jnp.isfinite(top)
        mean, var = refit(search, candidates[index], usable)
        # Without one usable elite there is nothing to refit to: keep the plan.
        mean, var = jax.tree.map(
            lambda new, old: jnp.where(jnp.any(usable), new, old), (mean, var), (search.mean, search.spread)
        )
        info = jax.tree.map(lambda a, b: a + b / iterations, search.info, info)
        return _Search(mean, var, jnp.maximum(search.best, top[0]), search.nonfinite + broken, info)

    def plan(key: Key, state: Array, objective: Objective) -> tuple[Array, Array, dict]:
        mean, var = start(state)
        search = _Search(mean, var, jnp.asarray(-jnp.inf), jnp.asarray(0, jnp.int32), {})
        shapes = jax.eval_shape(lambda a, b: objective.returns(a, draw(b, search))[2], key, key)
        search = search._replace(info=jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), shapes))

        def going(loop: tuple[Array, _Search]) -> Array:
            i, search = loop
            return (i < iterations) & (jnp.max(search.spread) > min_variance)

        def body(loop: tuple[Array, _Search]) -> tuple[Array, _Search]:
            i, search = loop
            return i + 1, iterate(key, objective, i, search)

        used, search = jax.lax.while_loop(going, body, (jnp.asarray(0), search))
        # Iterations saved by the early stop count as if they had looked like the others.
        info = jax.tree.map(lambda x: x * iterations / jnp.maximum(used, 1), search.info)
        extra = {"return": search.best, "spread": spread(search), "nonfinite": search.nonfinite}
        return mode(search), search.mean, {**info, **extra}

    def shift_state(state: Array, k: int) -> Array:
        return shift(state, k, init()[0]) if warm_start else init()

    return Planner(init, plan, shift_state, horizon)


def _gaussian(horizon: int, dim: int, population: int, alpha: float, std: float, bounded: bool) -> tuple:
    def init() -> Array:
        return jnp.zeros((horizon, dim))

    def start(state: Array) -> tuple[Array, Array]:
        return state, jnp.full((horizon, dim), std**2)

    def draw(key: Key, search: _Search) -> Array:
        if not bounded:
            noise = fast_normal(key, (population, horizon, dim))
            return jnp.clip(search.mean + jnp.sqrt(search.spread) * noise, -1.0, 1.0)
        to_bounds = jnp.minimum((search.mean + 1) / 2, (1 - search.mean) / 2) ** 2
        return truncated_normal(key, search.mean, jnp.sqrt(jnp.minimum(to_bounds, search.spread)), population)

    def refit(search: _Search, best: Array, usable: Array) -> tuple[Array, Array]:
        mean, var = moments(best, usable)
        return alpha * search.mean + (1 - alpha) * mean, alpha * search.spread + (1 - alpha) * var

    return init, start, draw, refit, lambda s: s.mean, lambda s: jnp.mean(jnp.sqrt(s.spread))


def _categorical(horizon: int, n: int, population: int, alpha: float) -> tuple:
    def init() -> Array:
        return jnp.full((horizon, n), 1.0 / n)

    def start(state: Array) -> tuple[Array, Array]:
        # Half-way back to uniform: a warm start that has settled could not be left again.
        mean = 0.5 * state + 0.5 / n
        return mean, jnp.ones(())

    def draw(key: Key, search: _Search) -> Array:
        return draw_table(key, search.mean, population)

    def refit(search: _Search, best: Array, usable: Array) -> tuple[Array, Array]:
        frequency, _ = moments(jax.nn.one_hot(best, n), usable)
        return alpha * search.mean + (1 - alpha) * frequency, search.spread

    def spread(search: _Search) -> Array:
        return entropy(search.mean)

    return init, start, draw, refit, lambda s: jnp.argmax(s.mean, axis=-1).astype(jnp.int32), spread
