"""Mazes drawn as text, at any resolution, that may change while they are lived in; Sutton's Dyna maze by default."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.cells import grid
from jmbrl.envs import render_grid
from jmbrl.envs.finite import steps_to_go, world
from jmbrl.types import Cells, Env

DYNA = (
    ".......#G",
    "..#....#.",
    "S.#....#.",
    "..#......",
    ".....#...",
    ".........",
)
MAX_STEPS = 10_000  # at resolution 1
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))  # up, down, left, right: rows count downwards


class Grid(NamedTuple):
    """A maze: ``walls, goals: bool[rows, columns]``, ``start: (row, column)``."""

    walls: np.ndarray
    goals: np.ndarray
    start: tuple[int, int]


def make(layout: Sequence[str] = DYNA, resolution: int = 1, max_steps: int | None = None) -> Env:
    """A deterministic maze: 1 for reaching the goal, which ends the episode, 0 for every other step.

    Observation ``float32[2]``: ``[row, column]``, counted from the upper left. Actions: 0 up, 1 down, 2 left, 3 right;
    a move into a wall or off the grid stays where it is. ``cells`` number the whole grid by ``row * columns + column``,
    walls too. The Dyna maze's optimum is 14 steps, and ``13 k + 1`` at resolution ``k``.

    Args:
      layout: rows of text of one length: ``#`` wall, ``S`` start (one), ``G`` goal (one or more), ``.`` free.
      resolution: every cell becomes ``resolution x resolution`` cells. The start is the upper left one of its block,
        goals are all of theirs.
      max_steps: time limit; None: ``10_000 * resolution**2``. The textbook has none.

    Raises:
      ValueError: a layout with other characters, rows of different lengths, not one ``S``, no ``G``, or no way there.

    Source: Sutton and Barto 2018, Reinforcement Learning, example 8.1 and (finer mazes) example 8.4.
    """
    return changing((layout,), None, name="maze", resolution=resolution, max_steps=max_steps)


def changing(
    layouts: Sequence[Sequence[str]],
    change_at: int | None,
    *,
    name: str,
    resolution: int = 1,
    max_steps: int | None = None,
) -> Env:
    """A maze whose walls change once: ``layouts[0]`` at first, ``layouts[1]`` after ``change_at`` steps of its life.

    The walls change only when an episode begins, never around the agent: at the first beginning after which at least
    ``change_at`` steps have been taken, over all episodes. Every copy of the environment has its own clock, in its
    state; ``env.reset`` sets it to 0, the restart between episodes keeps it.

    Args:
      layouts: one or two, with the same start and goals.
      change_at: at least 0, which is from the beginning; None: never.
      name: of the environment.
      resolution, max_steps: as in ``make``.

    Raises:
      ValueError: as ``make``, or two layouts that do not fit each other.
    """
    checks.integer("resolution", resolution, low=1)
    if change_at is not None:
        checks.integer("change_at", change_at, low=0, high=2**31 - 1)  # the clock is int32
    if len(layouts) not in (1, 2):
        raise ValueError(f"layouts of {name} must be one or two, got {len(layouts)}")
    if max_steps is None:
        max_steps = MAX_STEPS * resolution**2
    grids = [_refined(read(layout), resolution) for layout in layouts]
    first, last = grids[0], grids[-1]
    if first.walls.shape != last.walls.shape or first.start != last.start or (first.goals != last.goals).any():
        raise ValueError(f"layouts of {name} must have the same size, start and goals")

    at = change_at if len(grids) == 2 else None
    variant = None if at is None else (lambda key, since: (since >= at).astype(jnp.int32))
    return world(
        np.stack([_moves(g.walls) for g in grids]),
        first.goals.ravel(),
        int(np.ravel_multi_index(first.start, first.walls.shape)),
        grid_cells(*first.walls.shape),
        name=name,
        obs_names=("row", "col"),
        max_steps=max_steps,
        variant=variant,
        render=render_grid.maze(first.walls & last.walls, first.walls ^ last.walls, first.start, first.goals),
    )


def shortest_path(layout: Sequence[str] = DYNA, resolution: int = 1) -> int:
    """Fewest steps from the start to a goal, by breadth-first search."""
    checks.integer("resolution", resolution, low=1)
    return _fewest_steps(_refined(read(layout), resolution))


def read(layout: Sequence[str]) -> Grid:
    """A maze from its drawing, or ValueError that says what is wrong with it."""
    if isinstance(layout, str) or not layout or not all(isinstance(row, str) and row for row in layout):
        raise ValueError(f"layout must be rows of text, like ('S.#', '..G'), got {layout!r}")
    for i, row in enumerate(layout):
        if len(row) != len(layout[0]):
            raise ValueError(f"layout must have rows of one length, got {len(layout[0])} in row 0, {len(row)} in {i}")
        for j, mark in enumerate(row):
            if mark not in "#SG.":
                raise ValueError(f"layout must be drawn with # S G and ., got {mark!r} in row {i}, column {j}")
    marks = np.array([list(row) for row in layout])
    starts = np.argwhere(marks == "S")
    if len(starts) != 1:
        raise ValueError(f"layout must have one start S, got {len(starts)}")
    if not (marks == "G").any():
        raise ValueError("layout must have a goal G, got none")
    found = Grid(marks == "#", marks == "G", (int(starts[0, 0]), int(starts[0, 1])))
    if _fewest_steps(found) < 0:
        raise ValueError("layout must have a way from S to a G, got walls between them")
    return found


def grid_cells(rows: int, columns: int) -> Cells:
    """Numbers of ``[row, column]``: the centre of a number is exactly its row and column."""
    return grid(2, -0.5, (rows - 0.5, columns - 0.5), (rows, columns))


def _refined(coarse: Grid, resolution: int) -> Grid:
    block = np.ones((resolution, resolution), bool)
    row, column = coarse.start
    return Grid(
        np.kron(coarse.walls, block), np.kron(coarse.goals, block), (row * resolution, column * resolution)
    )  # fmt: skip


def _moves(walls: np.ndarray) -> np.ndarray:
    """Where each action leads, ``int32[rows * columns, 4]``; nothing leaves a wall."""
    rows, columns = np.indices(walls.shape)
    here = np.ravel_multi_index((rows, columns), walls.shape)
    out = []
    for down, right in MOVES:
        there = np.ravel_multi_index((rows + down, columns + right), walls.shape, mode="clip")
        out.append(np.where(walls | walls.ravel()[there], here, there).ravel())
    return np.stack(out, axis=1).astype(np.int32)


def _fewest_steps(maze: Grid) -> int:
    moves = _moves(maze.walls)
    steps = steps_to_go(moves, maze.goals.ravel()[moves])
    return int(steps[np.ravel_multi_index(maze.start, maze.walls.shape)])
