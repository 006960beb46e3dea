"""The range of the returns seen so far, by which DreamerV3 divides advantages."""

from typing import NamedTuple

import jax.numpy as jnp

from jmbrl.types import Array

_RATE = 0.01
_LEVELS = (0.05, 0.95)


class ReturnScale(NamedTuple):
    """Running 5th and 95th percentiles of the returns, ``float32`` scalars, in the reward's units."""

    low: Array
    high: Array


def none_seen() -> ReturnScale:
    """Both at 0, from where they rise without a correction."""
    return ReturnScale(jnp.zeros(()), jnp.zeros(()))


def observe(state: ReturnScale, returns: Array, weight: Array | None = None) -> ReturnScale:
    r"""One step of each towards the percentile of a batch: :math:`p \leftarrow 0.99\,p + 0.01\,\mathrm{Per}(R)`.

    Percentiles are interpolated linearly between the sorted returns.

    Args:
      returns: ``float32[...]``, any shape.
      weight: of the same shape; entries of 0 (or False) are left out, all others count alike. With none left the
        state stays as it was.

    Source: Hafner et al. 2023 (arXiv 2301.04104), actor learning; no correction of the start, as in their code.
    """
    flat = returns.reshape(-1)
    counts = jnp.ones_like(flat, bool) if weight is None else weight.reshape(-1) > 0
    ordered = jnp.sort(jnp.where(counts, flat, jnp.inf))
    last = jnp.sum(counts) - 1
    place = jnp.asarray(_LEVELS) * last
    below = jnp.clip(jnp.floor(place).astype(jnp.int32), 0)
    left, right = ordered[below], ordered[jnp.clip(below + 1, 0, last)]
    now = left + (place - below) * (right - left)
    old = jnp.stack(state)
    low, high = jnp.where(last >= 0, old + _RATE * (now - old), old)
    return ReturnScale(low, high)


def scale(state: ReturnScale) -> Array:
    """``max(1, high - low)``: large returns are scaled down, small ones (and the noise on them) not up."""
    return jnp.maximum(1.0, state.high - state.low)
