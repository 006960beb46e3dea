"""What the sampling planners share: ranking returns, clean-up of broken ones, the warm start."""

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.types import Array


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
