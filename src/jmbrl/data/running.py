"""Mean and spread of a stream of rows, one batch after another, safe in float32."""

from typing import NamedTuple

import jax.numpy as jnp

from jmbrl.data.normalizer import never_changed
from jmbrl.types import Array


class Running(NamedTuple):
    """``count``: rows seen. ``mean``: ``float32[D]``. ``squares``: summed squared deviations from it."""

    count: Array
    mean: Array
    squares: Array


def nothing_seen(dim: int) -> Running:
    """Before any row: ``standardise`` changes nothing but the range."""
    return Running(jnp.zeros(()), jnp.zeros(dim), jnp.zeros(dim))


def observe(seen: Running, rows: Array, mask: Array) -> Running:
    """``seen`` and the rows ``float32[N, D]`` where ``mask[N]``; the others may hold anything.

    Source: Chan, Golub & LeVeque 1983, equation 2.1, whose batch is summed around one of its rows.
    """
    keep = mask[:, None]
    more = jnp.sum(mask).astype(jnp.float32)
    n = jnp.maximum(more, 1.0)
    origin = jnp.where(more > 0, rows[jnp.argmax(mask)], 0.0)
    offset = jnp.sum(jnp.where(keep, rows - origin, 0.0), axis=0) / n
    deviation = jnp.where(keep, rows - origin - offset, 0.0)
    count = seen.count + more
    total = jnp.maximum(count, 1.0)
    shift = origin + offset - seen.mean
    return Running(
        count,
        seen.mean + jnp.where(more > 0, shift * (more / total), 0.0),
        seen.squares + jnp.sum(deviation**2, axis=0) + jnp.where(more > 0, shift**2 * (seen.count / total * more), 0.0),
    )


def standardise(seen: Running, x: Array, limit: float = 10.0) -> Array:
    """``(x - mean) / std`` over the last axis, clipped to ``[-limit, limit]``.

    Columns that never changed (to within the rounding of their mean) and those of fewer than two rows are centred only.
    """
    std = jnp.sqrt(seen.squares / jnp.maximum(seen.count, 1.0))
    constant = (seen.count < 2) | never_changed(seen.mean, std)
    return jnp.clip((x - seen.mean) / jnp.where(constant, 1.0, std), -limit, limit)
