"""What the planners share: ranking returns, clean-up of broken ones, the warm start, refusals."""

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.types import Array, Objective


def ranked(returns: Array) -> tuple[Array, Array]:
    """Returns with NaN made ``-inf``, so that a broken plan is never preferred, and how many were not finite.

    ``top_k`` and ``argmax`` rank NaN *first*; replacing it by a finite number fails too where rewards are negative.
    """
    broken = ~jnp.isfinite(returns)
    safe = jnp.where(jnp.isnan(returns), -jnp.inf, returns)
    return safe, jnp.sum(broken, dtype=jnp.int32)


def shift(plan: Array, k: int, fill: Array | float) -> Array:
    """The warm start after ``k`` actions were executed: drop them, append ``fill``."""
    k = checks.integer("k", k, 1)
    if k >= plan.shape[0]:
        return jnp.broadcast_to(jnp.asarray(fill, plan.dtype), plan.shape)
    tail = jnp.broadcast_to(jnp.asarray(fill, plan.dtype), (k, *plan.shape[1:]))
    return jnp.concatenate([plan[k:], tail])


def truncated_normal(key: jax.Array, mean: Array, std: Array, population: int) -> Array:
    """``[population, *mean.shape]``: a normal cut at two standard deviations, clipped to the action box."""
    noise = jax.random.truncated_normal(key, -2.0, 2.0, (population, *mean.shape))
    return jnp.clip(mean + std * noise, -1.0, 1.0)


def moments(rows: Array, usable: Array) -> tuple[Array, Array]:
    """Mean and biased variance of the ``usable`` rows ``[E, ...]``; zeros when there are none."""
    weight = (usable / jnp.maximum(jnp.sum(usable), 1)).reshape(-1, *(1,) * (rows.ndim - 1))
    mean = jnp.sum(weight * rows, axis=0)
    return mean, jnp.sum(weight * (rows - mean) ** 2, axis=0)


def draw_table(key: jax.Array, table: Array, population: int) -> Array:
    """``int32[population, H]`` discrete actions from a table of probabilities per step ``[H, n]``."""
    shape = (population, table.shape[0])
    return jax.random.categorical(key, jnp.log(table + 1e-8), shape=shape).astype(jnp.int32)


def entropy(table: Array) -> Array:
    """Mean entropy of a table of probabilities per step, in nats."""
    return jnp.mean(-jnp.sum(table * jnp.log(table + 1e-8), axis=-1))


def refuse_no_gradient(planner: str, objective: Objective, derivative: str) -> None:
    """Refuse exact derivatives of a model that has none worth following, naming what would work."""
    if derivative == "exact" and objective.no_gradient:
        raise ValueError(
            f"{planner} would follow derivatives that mean nothing here: {objective.no_gradient}; use "
            'derivative="differences", a planner without derivatives (cem, icem, mppi), or a learned model'
        )
