"""Windows of data cut into short paths, and the likeliest first state of a path."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl.types import Array, Sequence


class Paths(NamedTuple):
    """``N`` paths of ``k`` steps: ``first [N, D]``, ``actions [N, k, ...]``, ``later [N, k, D]``, and which of the
    later readings continue the path, ``alive [N, k]``."""

    first: Array
    actions: Array
    later: Array
    alive: Array


def cut(batch: Sequence, steps: int, fill: Array) -> Paths:
    """``Sequence[B, T]`` into paths of ``steps`` rows, the last of each window filled up with dead rows.

    Dead rows may hold anything, NaN included: they become ``fill``, so that the derivatives around them stay finite.
    """
    length = batch.mask.shape[1]
    count = -(-length // steps)

    def split(x: Array) -> Array:
        x = jnp.pad(x, [(0, 0), (0, count * steps - length)] + [(0, 0)] * (x.ndim - 2))
        return x.reshape(-1, steps, *x.shape[2:])

    rows = batch.transition
    goes_on = split(batch.mask) & ~split(batch.is_first).at[:, 0].set(False)
    alive = jnp.cumprod(goes_on, axis=1).astype(bool)
    action = split(rows.action)
    keep = alive.reshape(alive.shape + (1,) * (action.ndim - 2))
    return Paths(
        jnp.where(alive[:, :1], split(rows.obs)[:, 0], fill),
        jnp.where(keep, action, jnp.zeros_like(action)),
        jnp.where(alive[..., None], split(rows.next_obs), fill),
        alive,
    )


def likeliest(state: Array, errors: Callable) -> Array:
    """Two Gauss-Newton steps on ``sum(errors(state)^2)`` from ``state [S]``; a step that does not improve is not taken.

    ``errors`` are in standard deviations and linear enough near a measured state: two steps are then at the minimum.
    """

    def better(state: Array, _: None) -> tuple[Array, None]:
        slope, now = jax.jacfwd(lambda s: (errors(s),) * 2, has_aux=True)(state)
        normal = slope.T @ slope
        normal = normal + (1e-6 * jnp.trace(normal) + 1e-12) * jnp.eye(state.shape[0])
        tried = state - jnp.linalg.solve(normal, slope.T @ now)
        accept = jnp.sum(errors(tried) ** 2) < jnp.sum(now**2)  # False for NaN
        return jnp.where(accept, tried, state), None

    return jax.lax.scan(better, state, length=2)[0]
