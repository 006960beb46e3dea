"""Numbering: a vector by its cell of a grid, a discrete action by itself, anything by a given function."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.types import Array, Discrete, Spec


class Cells(NamedTuple):
    """``index(x) -> int32`` in ``[0, count)`` and ``centre(i) -> float32 x``."""

    count: int
    index: Callable
    centre: Callable


def grid(dim: int, low: Any, high: Any, bins: Any, names: tuple[str, str, str] = ("low", "high", "bins")) -> Cells:
    """Equal cells between ``low`` and ``high``, the last dimension counting fastest; outside is the outermost cell.

    Args:
      dim: of the vectors.
      low, high, bins: one per dimension or one for all.
      names: what the caller calls them.
    """
    low, high = (_per_dimension(name, x, dim, checks.number) for name, x in zip(names, (low, high), strict=False))
    bins = _per_dimension(names[2], bins, dim, lambda name, x: checks.integer(name, x, 1))
    for i, (a, b) in enumerate(zip(low, high, strict=True)):
        if a >= b:
            raise ValueError(f"{names[0]} must be below {names[1]}, got [{a}, {b}] in dimension {i}")
    low, width = np.float32(low), np.float32((np.asarray(high) - np.asarray(low)) / np.asarray(bins))
    sizes = np.asarray(bins, np.int32)
    strides = np.asarray([math.prod(bins[i + 1 :]) for i in range(dim)], np.int32)

    def index(x: Array) -> Array:
        # In floats, as an integer could overflow far outside; a NaN counts as the lowest.
        place = jnp.clip(jnp.nan_to_num((x - low) / width, nan=0.0), 0.0, sizes - 1)
        return jnp.sum(place.astype(jnp.int32) * strides, dtype=jnp.int32)

    def centre(i: Array) -> Array:
        return low + ((i // strides) % sizes + 0.5) * width

    return Cells(math.prod(bins), index, centre)


def numbered(index: Callable, count: int | None, centre: Callable | None, spec: Spec) -> Cells:
    """States by a function of the observation."""
    if count is None:
        raise ValueError("num_states must be given with index")
    size = checks.integer("num_states", count, 1)

    def label(obs: Array) -> Array:
        return jnp.clip(jnp.asarray(checks.pure("index", index, obs)).astype(jnp.int32), 0, size - 1)

    def middle(i: Array) -> Array:
        if centre is None:
            return jnp.zeros(spec.obs_shape)
        obs = jnp.asarray(checks.pure("centre", centre, i), jnp.float32)
        checks.same_shape("centre", obs.shape, spec.obs_shape, "the spec")
        return obs

    return Cells(size, label, middle)


def state_cells(spec: Spec, low: Any, high: Any, bins: Any, index: Any, num_states: Any, centre: Any) -> Cells:
    """Of a grid over the observation, or of ``index``: one of them, not both."""
    given = [name for name, x in (("low", low), ("high", high), ("bins", bins)) if x is not None]
    if index is not None:
        if given:
            raise ValueError(f"give either a grid (low, high, bins) or index, got index and {', '.join(given)}")
        return numbered(index, num_states, centre, spec)
    if len(given) < 3:
        raise ValueError(f"tabular needs low, high and bins, or index and num_states; got {', '.join(given) or 'none'}")
    if num_states is not None or centre is not None:
        raise ValueError("num_states and centre belong to index: a grid has its own")
    if len(spec.obs_shape) != 1:
        raise ValueError(f"a grid needs a vector observation, got shape {spec.obs_shape}; give index and num_states")
    return grid(spec.obs_shape[0], low, high, bins)


def action_cells(spec: Spec, bins: Sequence[int] | int | None) -> Cells:
    """Of the actions: a discrete one's own number, a continuous one's cell in ``[-1, 1]``."""
    if isinstance(spec.action, Discrete):
        if bins is not None:
            raise ValueError(f"action_bins is for continuous actions, got {bins!r} for {spec.action}")
        return Cells(spec.action.n, lambda a: jnp.asarray(a, jnp.int32), lambda i: i)
    if bins is None:
        raise ValueError(f"action_bins must be given for continuous actions ({spec.action.dim} dimensions)")
    return grid(spec.action.dim, -1.0, 1.0, bins, ("low", "high", "action_bins"))


def _per_dimension(name: str, value: Any, dim: int, check: Callable) -> list:
    if np.ndim(value) > 1 or (np.ndim(value) == 1 and len(value) != dim):
        raise ValueError(f"{name} must be one number or {dim}, one per dimension, got shape {np.shape(value)}")
    return [check(name, x) for x in (np.asarray(value).tolist() if np.ndim(value) else [value] * dim)]
