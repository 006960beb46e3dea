"""Rod maneuvering: push and turn a rod through narrow passages, on a map of our own."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.cells import grid
from jmbrl.envs import render_grid
from jmbrl.envs.finite import best_actions, steps_to_go, tables, world
from jmbrl.types import Array, Cells, Env

POSITIONS, ROTATIONS = 20, 36
SHAPE = (POSITIONS, POSITIONS, ROTATIONS)
LENGTH = 0.32  # of the rod, in widths of the workspace
# Polygons. Walls are 0.1 thick or more and a step is at most 0.071, so that the rod cannot jump through one.
OBSTACLES = (
    ((0.25, 0.0), (0.4, 0.0), (0.45, 0.7), (0.35, 0.7)),
    ((0.3, 0.9), (0.45, 0.9), (0.4, 1.0), (0.3, 1.0)),
    ((0.65, 0.3), (0.75, 0.3), (0.75, 1.0), (0.65, 1.0)),
    ((0.6, 0.0), (0.8, 0.0), (0.7, 0.1)),
    ((1.0, 0.4), (1.0, 0.7), (0.9, 0.55)),
)
START = (2, 4, 9)  # column, row, tens of degrees
GOAL = (17, 16, 9)
MAX_STEPS = 100_000
_TOUCH = 1e-12  # what counts as nothing: rounding must not open a wall, nor close the square


def make(
    obstacles: Sequence = OBSTACLES,
    length: float = LENGTH,
    start: Sequence[int] = START,
    goal: Sequence[int] = GOAL,
    max_steps: int = MAX_STEPS,
) -> Env:
    r"""A rod in a unit square with obstacles: 1 for reaching the goal, which ends the episode, 0 for every other step.

    The middle of the rod is on one of 20 x 20 places, ``((i + 1/2)/20, (j + 1/2)/20)``, its angle one of 36, ``10 k``
    degrees: 14,400 configurations. Actions: 0 forward and 1 back along the rod, 2 and 3 across it (to its left, to its
    right), 4 and 5 turn it by 10 degrees (counter-clockwise, clockwise). A push by 1/20 goes to the nearest place,

    .. math:: (i, j)' = (i + \operatorname{round}\cos\varphi, j + \operatorname{round}\sin\varphi)

    with halves rounded away from zero, so that back undoes forward. A move that would end in an obstacle, or beyond the
    square, leaves the rod where it is; touching counts as being in it. Only the end of a move is looked at.

    The goal is one configuration: its place and its angle count, and which end is which. On the map given here 3,008
    configurations can be reached, and the shortest way takes 56 steps; without turning there is none.

    Observation ``float32[3]``: ``[x, y, angle]`` in widths and radians, the angle in ``[0, 2 pi)``. ``cells`` number
    ``(i, j, k)``, ``k`` counting fastest; an angle beyond a turn counts as the one within.

    Args:
      obstacles: polygons, each a sequence of at least three points ``(x, y)``; convex or not.
      length: of the rod, in ``(0, 1)``.
      start, goal: ``(i, j, k)``.
      max_steps: time limit. A random walk takes about 44,000 steps to the goal.

    Raises:
      ValueError: arguments out of their range, a start or goal that collides, or no way between them.

    Source: Moore and Atkeson 1993, Prioritized Sweeping; Sutton and Barto 2018, section 8.4. Their obstacles were
      never published as numbers, so lengths of paths cannot be compared.
    """
    obstacles = _polygons(obstacles)
    length = float(checks.number("length", length, 1e-6, 1.0))
    open_ = free(obstacles, length)
    first, last = (_number(name, place, open_) for name, place in (("start", start), ("goal", goal)))
    goals = np.arange(open_.size) == last
    moves = _moves(open_)
    if steps_to_go(moves, goals[moves])[first] < 0:
        raise ValueError(f"goal {tuple(goal)} must be reachable from start {tuple(start)}, but obstacles are between")
    return world(
        moves[None],
        goals,
        first,
        _cells(),
        name="rod",
        obs_names=("x", "y", "angle"),
        max_steps=max_steps,
        render=render_grid.rod(obstacles, length, _place(last)),
    )


def free(obstacles: Sequence = OBSTACLES, length: float = LENGTH) -> np.ndarray:
    """Which configurations touch neither an obstacle nor leave the square, ``bool[14400]``."""
    x, y, angle = _place(np.arange(POSITIONS * POSITIONS * ROTATIONS)).T
    half = length / 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    middle = np.stack([x, y], axis=1)
    tail, head = middle - half, middle + half
    ends = np.concatenate([tail, head], axis=1)
    out = np.all((ends >= -_TOUCH) & (ends <= 1 + _TOUCH), axis=1)
    for polygon in obstacles:
        out &= ~touches(tail, head, polygon)
    return out


def touches(tail: np.ndarray, head: np.ndarray, polygon: Sequence) -> np.ndarray:
    """Whether the segments ``tail[N, 2]``-``head[N, 2]`` have a point in common with a polygon and its inside."""
    corners = np.asarray(polygon, np.float64)
    crossed = np.zeros(len(tail), bool)
    inside = np.zeros(len(tail), bool)
    for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        crossed |= _crosses(tail, head, a, b)
        # Even and odd numbers of edges to the right of the tail; if no edge is crossed the whole rod is on one side.
        if a[1] != b[1]:
            edge_x = a[0] + (tail[:, 1] - a[1]) * (b[0] - a[0]) / (b[1] - a[1])
            inside ^= ((a[1] > tail[:, 1]) != (b[1] > tail[:, 1])) & (tail[:, 0] < edge_x)
    return crossed | inside


def picture(size: int = 480) -> np.ndarray:
    """The map and a shortest path, ``uint8[size, size, 3]``."""
    env = make()
    table, state = tables(env), int(np.ravel_multi_index(START, SHAPE))
    path = [state]
    for action in best_actions(env):
        path.append(int(table.next_state[path[-1], action]))
    return render_grid.rod_path(OBSTACLES, LENGTH, _place(np.asarray(path)), size)


def _crosses(tail: np.ndarray, head: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether segments meet the segment ``a``-``b``: each straddles the other's line, and their boxes overlap."""

    def side(origin: np.ndarray, along: np.ndarray, point: np.ndarray) -> np.ndarray:
        return along[..., 0] * (point - origin)[..., 1] - along[..., 1] * (point - origin)[..., 0]

    straddles = side(tail, head - tail, a) * side(tail, head - tail, b) <= _TOUCH
    straddled = side(a, b - a, tail) * side(a, b - a, head) <= _TOUCH
    low, high = np.minimum(tail, head), np.maximum(tail, head)
    overlap = np.all((low <= np.maximum(a, b) + _TOUCH) & (high >= np.minimum(a, b) - _TOUCH), axis=1)
    return straddles & straddled & overlap


def _place(number: Any) -> np.ndarray:
    """``[x, y, angle]`` of configurations by number."""
    i, j, k = np.unravel_index(number, SHAPE)
    return np.stack([(i + 0.5) / POSITIONS, (j + 0.5) / POSITIONS, k * (2 * np.pi / ROTATIONS)], axis=-1)


def _moves(open_: np.ndarray) -> np.ndarray:
    """Where each action leads, ``int32[14400, 6]``."""
    here = np.arange(open_.size)
    i, j, k = np.unravel_index(here, SHAPE)
    quarter = ROTATIONS // 4
    out = []
    for direction in (k, k + 2 * quarter, k + quarter, k - quarter):
        angle = direction * (2 * np.pi / ROTATIONS)
        out.append((i + _nearest(np.cos(angle)), j + _nearest(np.sin(angle)), k))
    out += [(i, j, (k + 1) % ROTATIONS), (i, j, (k - 1) % ROTATIONS)]
    moves = []
    for new_i, new_j, new_k in out:
        within = (new_i >= 0) & (new_i < POSITIONS) & (new_j >= 0) & (new_j < POSITIONS)
        there = np.ravel_multi_index((new_i, new_j, new_k), SHAPE, mode="clip")
        moves.append(np.where(within & open_[there] & open_, there, here))
    return np.stack(moves, axis=1).astype(np.int32)


def _nearest(x: np.ndarray) -> np.ndarray:
    """Rounded, halves away from zero; cos 60 degrees is a half that floats may miss."""
    return (np.sign(x) * np.floor(np.abs(x) + 0.5 + 1e-9)).astype(int)


def _cells() -> Cells:
    turn = np.float32(2 * np.pi)
    step = turn / ROTATIONS
    boxes = grid(3, (0.0, 0.0, -step / 2), (1.0, 1.0, turn - step / 2), SHAPE)

    def index(obs: Array) -> Array:
        angle = (obs[..., 2] + step / 2) % turn - step / 2
        return boxes.index(jnp.stack([obs[..., 0], obs[..., 1], angle], axis=-1))

    return boxes._replace(index=index)


def _polygons(obstacles: Sequence) -> tuple[np.ndarray, ...]:
    out = []
    for i, polygon in enumerate(obstacles):
        points = np.asarray(polygon, np.float64)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3 or not np.isfinite(points).all():
            raise ValueError(f"obstacles[{i}] must be at least three finite points (x, y), got {polygon!r}")
        out.append(points)
    return tuple(out)


def _number(name: str, place: Sequence[int], open_: np.ndarray) -> int:
    if len(place) != len(SHAPE):
        raise ValueError(f"{name} must be (i, j, k), got {place!r}")
    for axis, (value, size) in enumerate(zip(place, SHAPE, strict=True)):
        checks.integer(f"{name}[{axis}]", value, 0, size - 1)
    number = int(np.ravel_multi_index(tuple(place), SHAPE))
    if not open_[number]:
        raise ValueError(
            f"{name} {tuple(place)} must be free, but a rod there touches an obstacle or leaves the square"
        )
    return number
