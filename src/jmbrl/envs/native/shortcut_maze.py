"""Sutton's shortcut maze: a better way opens, and nothing tells the agent."""

from jmbrl.envs.native import maze
from jmbrl.envs.native.blocking_maze import LEFT
from jmbrl.types import Env

BOTH = (*LEFT[:3], ".#######.", *LEFT[4:])


def make(change_at: int | None = 3000, resolution: int = 1, max_steps: int | None = None) -> Env:
    """A maze that gets a second gap, near the goal, after ``change_at`` steps.

    6 x 9 cells, start ``(5, 3)``, goal ``(0, 8)``, a wall along row 3 with a gap in column 0, then in column 8 too: the
    optimum is 16 steps, then 10. Observations, actions and rewards as in ``maze``; when walls change as in
    ``maze.changing``.

    Args:
      change_at: steps of the world's life, over all its episodes; 0: open from the beginning, None: never.
      resolution, max_steps: as in ``maze``.

    Source: Sutton and Barto 2018, Reinforcement Learning, example 8.3.
    """
    return maze.changing((LEFT, BOTH), change_at, name="shortcut_maze", resolution=resolution, max_steps=max_steps)
