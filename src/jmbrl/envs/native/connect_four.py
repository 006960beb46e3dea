"""Connect Four: a board of six rows and seven columns, in which stones fall and four in a line win."""

from collections.abc import Callable

from jmbrl.envs.native.boards import board_game
from jmbrl.types import Env

ROWS, COLUMNS, LENGTH = 6, 7, 4


def make(opponent: str | Callable | None = None) -> Env:
    """The game; a move is a column, 0 to 6. ``opponent`` and all else as in ``boards.board_game``.

    Whoever moves first wins with perfect play (Allis 1988, A Knowledge-based Approach of Connect-Four).
    """
    return board_game("connect_four", ROWS, COLUMNS, LENGTH, drop=True, opponent=opponent)
