"""Means, spreads and ranges of data, safe in float32."""

from typing import NamedTuple

import jax.numpy as jnp

from jmbrl.types import Array

_EPS = 1.1920929e-07  # float32: one unit in the last place at 1.0


class Normalizer(NamedTuple):
    """``mean, std, low, high``: ``float32[D]``, one entry per column. ``std`` is positive."""

    mean: Array
    std: Array
    low: Array
    high: Array


def identity(dim: int) -> Normalizer:
    """The normaliser before any data: changes nothing, range ``(-inf, inf)``."""
    infinite = jnp.full(dim, jnp.inf, jnp.float32)
    return Normalizer(jnp.zeros(dim), jnp.ones(dim), -infinite, infinite)


def fit(rows: Array, mask: Array, otherwise: Normalizer | None = None) -> Normalizer:
    """Statistics of the rows where ``mask``.

    Two passes around one of the rows, ``x - x_0``, so that data of large offset (1e4 +- 0.01) keep their spread in
    float32, where ``E[x^2] - E[x]^2`` would give noise. A column whose standard deviation is below ``1e-5``, or below
    the rounding of its own mean (two units in the last place), counts as constant and gets ``std = 1``: it is then
    centred and otherwise left alone (mbrl-lib#99, #110).

    Args:
      rows: ``float32[N, D]``; the rows outside ``mask`` may hold anything, NaN included.
      mask: ``bool[N]``.
      otherwise: what to return when ``mask`` has no row; None: ``identity``.
    """
    otherwise = identity(rows.shape[1]) if otherwise is None else otherwise
    count = jnp.sum(mask)
    n = jnp.maximum(count, 1).astype(jnp.float32)
    keep = mask[:, None]
    origin = rows[jnp.argmax(mask)]
    shifted = jnp.where(keep, rows - origin, 0.0)
    offset = jnp.sum(shifted, axis=0) / n
    deviation = jnp.where(keep, shifted - offset, 0.0)
    # The second term removes what rounding left in the first pass's mean (Chan et al. 1983, eq. 1.7).
    variance = (jnp.sum(deviation * deviation, axis=0) - jnp.sum(deviation, axis=0) ** 2 / n) / n
    mean, std = origin + offset, jnp.sqrt(jnp.maximum(variance, 0.0))
    constant = never_changed(mean, std)
    low = jnp.min(jnp.where(keep, rows, jnp.inf), axis=0)
    high = jnp.max(jnp.where(keep, rows, -jnp.inf), axis=0)
    new = Normalizer(mean, jnp.where(constant, 1.0, std), low, high)
    return Normalizer(*(jnp.where(count > 0, a, b) for a, b in zip(new, otherwise, strict=True)))


def never_changed(mean: Array, std: Array) -> Array:
    """Which columns count as constant: their spread is below ``1e-5`` or the rounding of their mean."""
    return std < jnp.maximum(1e-5, 2.0 * _EPS * jnp.abs(mean))


def normalize(normalizer: Normalizer, x: Array) -> Array:
    """``(x - mean) / std`` over the last axis."""
    return (x - normalizer.mean) / normalizer.std


def denormalize(normalizer: Normalizer, x: Array) -> Array:
    """The inverse of ``normalize``."""
    return x * normalizer.std + normalizer.mean


def bounds(normalizer: Normalizer, ranges: float) -> tuple[Array, Array]:
    """``low - ranges * (high - low)`` and ``high + ranges * (high - low)``: how far a prediction may leave the data.

    A column that never changed counts as one of unit range; without data the bounds are infinite.
    """
    width = normalizer.high - normalizer.low
    width = jnp.where(width < 1e-5, 1.0, width)
    known = jnp.isfinite(width)
    margin = ranges * jnp.where(known, width, 0.0)
    return normalizer.low - margin, normalizer.high + margin
