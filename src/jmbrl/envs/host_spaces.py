"""Gymnasium's spaces, by what they have rather than by class, so that an object of one's own may use look-alikes."""

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jmbrl import checks
from jmbrl.cells import one_hots
from jmbrl.envs.spaces import centre_and_half
from jmbrl.types import ActionSpace, Cells, Discrete

MOST_NUMBERS = 2**24  # more observations than this get no numbering: no table would hold them


class Observation(NamedTuple):
    """How one observation is read: ``read(obs) -> array`` of ``shape`` and ``dtype``, a name per entry or ``()``.

    ``cells`` numbers the observations where all of it is discrete; ``parts`` are those of ``Spec.obs_parts``.
    """

    shape: tuple[int, ...]
    dtype: str
    names: tuple[str, ...]
    read: Callable
    cells: Cells | None = None
    parts: tuple[tuple[str, tuple[int, ...], str], ...] = ()


class _Flat(NamedTuple):
    """A space as part of a vector; ``counts``: of its one-hots, None where there are other entries; ``parts``: its
    arrays, ``(name, shape, dtype)``."""

    size: int
    names: tuple[str, ...]
    read: Callable
    parts: tuple[tuple[str, tuple[int, ...], str], ...]
    counts: tuple[int, ...] | None = None


def action(name: str, space: Any, act_limit: float | None = None) -> tuple[ActionSpace, Callable]:
    """Our action space for theirs, and ``(library action) -> theirs``.

    Raises:
      ValueError: bounds are infinite and ``act_limit`` is None, or the space is neither Box nor Discrete.
    """
    kind = _kind(space)
    if kind == "Discrete":
        n, start = int(space.n), int(getattr(space, "start", 0))

        def pick(index: np.ndarray) -> int:
            if not 0 <= int(index) < n:
                raise ValueError(f"action of {name} must be in [0, {n}), got {int(index)}")
            return int(index) + start

        return Discrete(n), pick
    if kind != "Box" or not np.issubdtype(space.dtype, np.floating):
        raise ValueError(f"action space of {name} must be a Box of floats or Discrete, got {space}")
    low, high = (np.ravel(np.asarray(bound, np.float64)) for bound in (space.low, space.high))
    if act_limit is not None:
        checks.number("act_limit", act_limit, low=0)
        low, high = np.where(np.isfinite(low), low, -act_limit), np.where(np.isfinite(high), high, act_limit)
    ours = checks.action_bounds(low, high)
    centre, half = centre_and_half(ours)

    def scale(value: np.ndarray) -> np.ndarray:
        if not np.isfinite(value).all():
            raise ValueError(f"action of {name} must be finite, got {value}")
        raw = np.clip(centre + half * np.clip(value, -1.0, 1.0), low, high)
        return raw.astype(space.dtype).reshape(space.shape)

    return ours, scale


def observation(name: str, space: Any) -> Observation:
    """How observations of ``space`` become one array."""
    if _kind(space) == "Box" and _is_image(space):
        shape = tuple(space.shape) if len(space.shape) == 3 else (*space.shape, 1)
        dtype = "uint8" if space.dtype == np.uint8 else "float32"
        return Observation(shape, dtype, (), lambda obs: _image(np.asarray(obs), len(space.shape), dtype))
    flat = _flat(name, space, "")
    parts = flat.parts if _kind(space) in ("Dict", "Tuple") else ()
    return Observation((flat.size,), "float32", flat.names, flat.read, _numbering(flat.counts), parts)


def _numbering(counts: tuple[int, ...] | None) -> Cells | None:
    return one_hots(counts) if counts and math.prod(counts) <= MOST_NUMBERS else None


def laid_out(cells: Cells | None, env: Any) -> Cells | None:
    """With the grid on which ``env`` says its states lie, row by row: ``nrow`` and ``ncol``, or ``shape``."""
    if cells is None or cells.shape:
        return cells
    rows, columns = getattr(env, "nrow", None), getattr(env, "ncol", None)
    shapes: tuple[Any, ...] = (getattr(env, "shape", None), (rows, columns))
    for shape in shapes:
        try:
            shape = tuple(operator.index(n) for n in shape)
        except TypeError:  # something else by that name, or nothing
            continue
        if shape and math.prod(shape) == cells.count:
            return cells._replace(shape=shape)
    return cells


def _is_image(space: Any) -> bool:
    return len(space.shape) == 3 or (len(space.shape) == 2 and space.dtype == np.uint8)


def _image(obs: np.ndarray, dims: int, dtype: str) -> np.ndarray:
    obs = obs.astype(dtype)
    return obs if dims == 3 else obs[..., None]


def _flat(name: str, space: Any, label: str) -> _Flat:
    """A space as a float32 vector."""
    kind = _kind(space)
    if kind in ("Dict", "Tuple"):
        parts = list(space.spaces.items()) if kind == "Dict" else list(enumerate(space.spaces))
        flat = {key: _flat(name, part, f"{label}.{key}" if label else str(key)) for key, part in parts}
        counts: tuple[int, ...] | None = ()
        for part in flat.values():
            counts = None if counts is None or part.counts is None else counts + part.counts
        return _Flat(
            sum(part.size for part in flat.values()),
            tuple(n for part in flat.values() for n in part.names),
            lambda obs: np.concatenate([part.read(obs[key]) for key, part in flat.items()]),
            tuple(p for part in flat.values() for p in part.parts),
            counts,
        )
    if kind in ("Discrete", "MultiDiscrete"):
        sizes = np.ravel(space.n if kind == "Discrete" else space.nvec)
        start = np.ravel(getattr(space, "start", 0))
        size = int(sizes.sum())
        parts, counts = ((label, (size,), "float32"),), tuple(sizes.tolist())
        return _Flat(size, _names(label, size), lambda obs: _one_hot(name, obs, sizes, start), parts, counts)
    if kind in ("Box", "MultiBinary"):
        size = int(np.prod(space.shape, dtype=int))
        grey = len(space.shape) == 2 and space.dtype == np.uint8
        shape = tuple(space.shape) + (1,) * grey  # as where it is all there is
        parts = ((label, shape, str(space.dtype)),)
        return _Flat(size, _names(label, size), lambda obs: np.ravel(np.asarray(obs, np.float32)), parts)
    raise ValueError(f"observation space of {name} must be made of Box, Discrete, Dict or Tuple spaces, got {space}")


def _one_hot(name: str, obs: Any, counts: np.ndarray, start: np.ndarray) -> np.ndarray:
    index = np.ravel(np.asarray(obs)) - start
    if not ((index >= 0) & (index < counts)).all():
        raise ValueError(f"observation of {name} must be in [{start}, {start + counts}), got {obs}")
    return np.concatenate([np.arange(n) == i for n, i in zip(counts, index, strict=True)]).astype(np.float32)


def _names(label: str, size: int) -> tuple[str, ...]:
    return tuple(f"{label}[{i}]" for i in range(size)) if label else ()


def _kind(space: Any) -> str:
    """``"Box"``, ``"Discrete"``, ...: the first known class name among the space's classes, else what it is."""
    known = ("MultiDiscrete", "MultiBinary", "Discrete", "Box", "Dict", "Tuple")
    for cls in type(space).__mro__:
        if cls.__name__ in known:
            return cls.__name__
    return type(space).__name__
