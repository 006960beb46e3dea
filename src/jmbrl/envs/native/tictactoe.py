"""Tic-tac-toe, small enough to be solved: a draw, if nobody errs."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl.envs.native.boards import board_game
from jmbrl.types import Array, Env, Key, PyTree

SIDE = 3
LINES = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))  # of places


def make(opponent: str | Callable | None = None) -> Env:
    """The game; a move is a place, 0 to 8 row by row. All else as in ``boards.board_game``.

    ``opponent`` may also be ``"perfect"``: whoever plays against it cannot win.
    """
    player = perfect if opponent == "perfect" else opponent
    return board_game("tictactoe", SIDE, SIDE, SIDE, drop=False, opponent=player)


def perfect(key: Key, state: PyTree, obs: Array) -> Array:
    """A player that draws one of the best moves, all with the same chance: ``(key, state, obs) -> action``."""
    del state
    best = jnp.asarray(solution()[1])[code(obs)]
    return jax.random.categorical(key, jnp.where(best, 0.0, -jnp.inf)).astype(jnp.int32)


def code(obs: Array) -> Array:
    """The number of a position, ``int32`` in ``[0, 3^9)``: place ``i`` counts ``3^i`` times 1 (own stone) or 2."""
    digits = obs[..., 0] + 2 * obs[..., 1]
    return jnp.sum(digits.ravel().astype(jnp.int32) * jnp.asarray(3 ** np.arange(9), jnp.int32))


@functools.cache
def solution() -> tuple[np.ndarray, np.ndarray]:
    """Every position's worth for the player to move, ``int8[3^9]`` (1 won, 0 drawn, -1 lost), and the moves that keep
    it, ``bool[3^9, 9]``; by going through all games. Numbers of impossible positions mean nothing."""
    values, best = np.zeros(3**9, np.int8), np.zeros((3**9, 9), bool)

    @functools.cache
    def worth(board: tuple[int, ...]) -> int:
        if any(all(board[i] == 2 for i in line) for line in LINES):
            return -1  # the other player has just made a line
        free = [i for i in range(9) if not board[i]]
        if not free:
            return 0
        flipped = tuple((0, 2, 1)[x] for x in board)
        after = {i: -worth((*flipped[:i], 2, *flipped[i + 1 :])) for i in free}
        number = sum(x * 3**i for i, x in enumerate(board))
        values[number] = max(after.values())
        best[number, [i for i, value in after.items() if value == values[number]]] = True
        return int(values[number])

    worth((0,) * 9)
    return values, best
