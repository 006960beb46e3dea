"""Sutton's windy gridworld: a wind blows upwards in some columns."""

import jax
import numpy as np

from jmbrl.envs import render_grid
from jmbrl.envs.finite import world
from jmbrl.envs.native.maze import MOVES, grid_cells
from jmbrl.types import Array, Env, Key

ROWS, COLUMNS = 7, 10
START, GOAL = (3, 0), (3, 7)
WIND = (0, 0, 0, 1, 1, 1, 2, 2, 1, 0)
DIAGONALS = ((-1, -1), (-1, 1), (1, -1), (1, 1))


def make(kings: bool = False, stochastic: bool = False, max_steps: int = 10_000) -> Env:
    r"""A gridworld with a wind: -1 a step until the goal is reached.

    .. math:: row' = \operatorname{clip}(row + \Delta row_a - w_{col}, 0, 6), \quad
              col' = \operatorname{clip}(col + \Delta col_a, 0, 9)

    The wind ``w`` is that of the column that is left: 0 0 0 1 1 1 2 2 1 0 cells upwards. Start ``(3, 0)``, goal
    ``(3, 7)``. Observation ``float32[2]``: ``[row, column]``. The optimum is 15 steps, 7 with ``kings``.

    Args:
      kings: 8 actions: 0 up, 1 down, 2 left, 3 right, 4 up and left, 5 up and right, 6 down and left, 7 down and right.
        Otherwise the first four.
      stochastic: where a wind blows it is one cell more, or one less, in a third of the steps each.
      max_steps: time limit. The textbook has none.

    Source: Sutton and Barto 2018, Reinforcement Learning, example 6.5; exercises 6.9 (kings) and 6.10 (stochastic).
    """
    shape = (ROWS, COLUMNS)
    goals = np.zeros(shape, bool)
    goals[GOAL] = True
    actions = (*MOVES, *DIAGONALS) if kings else MOVES

    def gust(key: Key, since: Array) -> Array:
        del since
        return jax.random.randint(key, (), 0, 3)

    return world(
        np.stack([_moves(actions, change) for change in ((-1, 0, 1) if stochastic else (0,))]),
        goals.ravel(),
        int(np.ravel_multi_index(START, shape)),
        grid_cells(*shape),
        name="windy_gridworld",
        obs_names=("row", "col"),
        max_steps=max_steps,
        rewards=(-1.0, -1.0),
        variant=gust if stochastic else None,
        render=render_grid.windy(WIND, START, goals),
    )


def _moves(actions: tuple[tuple[int, int], ...], change: int) -> np.ndarray:
    """Where each action leads, ``int32[70, A]``, while every wind blows ``change`` cells more."""
    rows, columns = np.indices((ROWS, COLUMNS))
    wind = np.asarray(WIND)
    wind = np.where(wind > 0, wind + change, 0)[columns]
    out = [
        np.ravel_multi_index((rows + down - wind, columns + right), (ROWS, COLUMNS), mode="clip").ravel()
        for down, right in actions
    ]
    return np.stack(out, axis=1).astype(np.int32)
