"""Sutton's blocking maze: the short way is closed while the agent uses it, a long one opens."""

from jmbrl.envs.native import maze
from jmbrl.types import Env

_OPEN = (".........", ".........")
_REST = (".........", "...S.....")
RIGHT = ("........G", *_OPEN, "########.", *_REST)  # the gap is on the right
LEFT = ("........G", *_OPEN, ".########", *_REST)


def make(change_at: int | None = 1000, resolution: int = 1, max_steps: int | None = None) -> Env:
    """A maze whose gap, near the goal, is walled up after ``change_at`` steps, while one far from it opens.

    6 x 9 cells, start ``(5, 3)``, goal ``(0, 8)``, a wall along row 3 with its gap in column 8, then in column 0: the
    optimum is 10 steps, then 16. Observations, actions and rewards as in ``maze``; when walls change as in
    ``maze.changing``.

    Args:
      change_at: steps of the world's life, over all its episodes; 0: closed from the beginning, None: never.
      resolution, max_steps: as in ``maze``.

    Source: Sutton and Barto 2018, Reinforcement Learning, example 8.2.
    """
    return maze.changing((RIGHT, LEFT), change_at, name="blocking_maze", resolution=resolution, max_steps=max_steps)
