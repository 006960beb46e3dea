"""Random shooting: draw action sequences uniformly, keep the best."""

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.planners.sampling import ranked, shift
from jmbrl.types import Array, Continuous, Key, Objective, Planner, Spec


def random_shooting(spec: Spec, *, horizon: int, population: int = 1000, keep: bool = False) -> Planner:
    r"""Uniform candidates, first action of the best one.

    .. math:: a^{(i)}_{0:H-1} \sim \mathcal U, \qquad a = \arg\max_i J(a^{(i)})

    Args:
      spec: the environment's; continuous or discrete actions.
      horizon: steps looked ahead, at least 1.
      population: candidates, at least 2.
      keep: make the plan before, shifted by the executed actions, one of the candidates (not in the paper).

    Returns:
      A ``Planner``; ``info`` holds ``return`` (the winner's), ``nonfinite`` (broken returns) and the objective's means.

    Raises:
      ValueError: ``horizon`` below 1 or ``population`` below 2.

    Source: Nagabandi et al. 2018 (arXiv 1708.02596) section IV-C; PETS' random variant uses 2000-2500.
    """
    horizon = checks.integer("horizon", horizon, 1)
    population = checks.integer("population", population, 2)
    actions = spec.action
    shape = (horizon, *spec.action.shape)

    def init() -> Array:
        return jnp.zeros(shape, jnp.float32 if isinstance(actions, Continuous) else jnp.int32)

    def draw(key: Key) -> Array:
        if isinstance(actions, Continuous):
            return jax.random.uniform(key, (population, *shape), minval=-1.0, maxval=1.0)
        return jax.random.randint(key, (population, *shape), 0, actions.n)

    def plan(key: Key, state: Array, objective: Objective) -> tuple[Array, Array, dict]:
        key_draw, key_eval = jax.random.split(key)
        candidates = draw(key_draw)
        if keep:
            candidates = candidates.at[0].set(state)
        returns, _, info = objective.returns(key_eval, candidates)
        safe, broken = ranked(returns)
        best = candidates[jnp.argmax(safe)]
        chosen = jnp.where(jnp.any(jnp.isfinite(safe)), best, state)
        return chosen, chosen, {**info, "return": jnp.max(safe), "nonfinite": broken}

    return Planner(init, plan, lambda state, k: shift(state, k, 0), horizon)
