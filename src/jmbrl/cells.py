"""Numbering: a vector by its cell of a grid, one-hots by their places, an action by itself or the nearest of some
points, anything by a given function."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.types import ActionSpace, Array, Cells, Discrete, Spec

MOST = 2**31 - 1  # numbers are int32


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
    sizes, strides = _radix(names[2], bins)

    def index(x: Array) -> Array:
        # In floats, as an integer could overflow far outside; a NaN counts as the lowest.
        place = jnp.clip(jnp.nan_to_num((x - low) / width, nan=0.0), 0.0, sizes - 1)
        return jnp.sum(place.astype(jnp.int32) * strides, axis=-1, dtype=jnp.int32)

    def centre(i: Array) -> Array:
        return low + (_digits(i, sizes, strides) + 0.5) * width

    return Cells(math.prod(bins), index, centre, tuple(bins))


def levels(dim: int, bins: Any, name: str = "action_bins") -> Cells:
    """Evenly spaced points of ``[-1, 1]``, the ends among them, the last dimension counting fastest.

    ``centre(i)`` is a point and ``index(x)`` the nearest one. One point is 0, two are -1 and 1; 0 is among them where
    ``bins`` is odd.

    Args:
      dim: of the vectors.
      bins: points per dimension, or one number for all.
      name: what the caller calls ``bins``.
    """
    bins = _per_dimension(name, bins, dim, lambda name, x: checks.integer(name, x, 1))
    sizes, strides = _radix(name, bins)
    gaps = np.maximum(sizes - 1, 1).astype(np.float32)
    first = jnp.where(sizes > 1, -1.0, 0.0)

    def index(x: Array) -> Array:
        place = jnp.clip(jnp.round(jnp.nan_to_num((x - first) * gaps / 2.0, nan=0.0)), 0.0, sizes - 1)
        return jnp.sum(place.astype(jnp.int32) * strides, axis=-1, dtype=jnp.int32)

    def centre(i: Array) -> Array:
        return first + 2.0 * _digits(i, sizes, strides) / gaps

    return Cells(math.prod(bins), index, centre, tuple(bins))


def one_hots(sizes: Sequence[int]) -> Cells:
    """Vectors made of one-hots side by side, ``sizes[k]`` entries each; the last one counts fastest.

    ``index`` reads the largest entry of each, so what a model predicts has a number too. ``shape`` is ``sizes`` where
    there are several one-hots, else ``()``: a single number has no neighbours.
    """
    sizes = tuple(checks.integer("sizes[k]", n, 1) for n in sizes)
    _, strides = _radix("sizes", sizes)
    starts = np.cumsum((0, *sizes)).tolist()

    def index(obs: Array) -> Array:
        number = jnp.zeros((), jnp.int32)
        for size, start in zip(sizes, starts, strict=False):
            number = number * size + jax.lax.argmax(obs[start : start + size], 0, jnp.int32)
        return number

    def centre(i: Array) -> Array:
        places = [(i // int(stride)) % size for size, stride in zip(sizes, strides, strict=True)]
        return jnp.concatenate([jnp.arange(n) == k for n, k in zip(sizes, places, strict=True)]).astype(jnp.float32)

    return Cells(math.prod(sizes), index, centre, sizes if len(sizes) > 1 else ())


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


def behind(cells: Cells | None, seen_of: Callable, show: Callable) -> Cells | None:
    """The numbering of observations that are shown otherwise: ``seen_of`` undoes ``show``."""
    if cells is None:
        return None
    return cells._replace(index=lambda obs: cells.index(seen_of(obs)), centre=lambda i: show(cells.centre(i)))


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
    check_action_bins(spec.action, bins)
    if isinstance(spec.action, Discrete):
        return Cells(spec.action.n, lambda a: jnp.asarray(a, jnp.int32), lambda i: i)
    return grid(spec.action.dim, -1.0, 1.0, bins, ("low", "high", "action_bins"))


def check_action_bins(action: ActionSpace, bins: Any) -> None:
    """Refuse ``action_bins`` where actions are discrete already, and its absence where they are not."""
    if isinstance(action, Discrete):
        if bins is not None:
            raise ValueError(f"action_bins is for continuous actions, got {bins!r} for {action}")
    elif bins is None:
        raise ValueError(f"action_bins must be given for continuous actions ({action.dim} dimensions)")


def _radix(name: str, sizes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """``sizes`` and what one step along each axis adds to the number, the last axis counting fastest."""
    if math.prod(sizes) > MOST:
        raise ValueError(f"{name} must give at most {MOST} numbers, got {math.prod(sizes)} ({list(sizes)})")
    strides = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
    return np.asarray(sizes, np.int32), np.asarray(strides, np.int32)


def _digits(i: Array, sizes: np.ndarray, strides: np.ndarray) -> Array:
    """Where the number ``i`` lies along each axis, ``[..., dim]``."""
    return (jnp.asarray(i)[..., None] // strides) % sizes


def _per_dimension(name: str, value: Any, dim: int, check: Callable) -> list:
    if np.ndim(value) > 1 or (np.ndim(value) == 1 and len(value) != dim):
        raise ValueError(f"{name} must be one number or {dim}, one per dimension, got shape {np.shape(value)}")
    if np.ndim(value) == 0:
        return [check(name, value)] * dim
    return [check(name, x) for x in (value.tolist() if hasattr(value, "tolist") else value)]
