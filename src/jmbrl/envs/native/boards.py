"""Board games of two players who place stones in turn until one has a line of them."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jmbrl.envs.functions import from_functions
from jmbrl.envs.versus import random_player, versus
from jmbrl.types import Array, Discrete, Env, Key

DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))
_BOARD, _EMPTY, _OWN, _OTHER = (52, 101, 164), (255, 255, 255), (214, 69, 65), (240, 200, 60)


def board_game(
    name: str, rows: int, columns: int, length: int, *, drop: bool, opponent: str | Callable | None = None
) -> Env:
    """Two players, one board, ``length`` own stones in a row, column or diagonal win.

    Observation ``float32[rows, columns, 2]``: the stones of the player to move, and those of the other. The reward is
    that of the player who has just moved: 1 for a line, -1 for a move that is not allowed, which ends the game, else 0;
    a full board is a draw. So what is good for one player is bad for the next: ``spec.players`` is 2, and
    ``legal(obs)`` tells the moves that are allowed.

    Args:
      name: of the environment.
      rows, columns: of the board; row 0 is the uppermost.
      length: of a line.
      drop: a move is a column, in which the stone falls to the lowest free place; otherwise it is a place, numbered
        ``row * columns + column``.
      opponent: None: both players are the agent (self-play). ``"random"`` or a function ``(key, state, obs) -> action``
        plays the other side, which makes it an environment of one player (``envs.versus``).

    Raises:
      ValueError: an unknown opponent.
    """
    moves = columns if drop else rows * columns

    def legal(obs: Array) -> Array:
        """``bool[moves]``, of an observation."""
        free = ~jnp.any(obs > 0, axis=-1)
        return free[0] if drop else free.ravel()

    def reset(key: Key) -> tuple[Array, Array]:
        del key
        board = jnp.zeros((rows, columns), jnp.int8)
        return board, observe(board)

    def place(board: Array, move: Array) -> tuple[Array, Array]:
        if not drop:
            return move // columns, move % columns
        return jnp.sum(board[:, move] == 0) - 1, move

    def step(key: Key, board: Array, move: Array) -> tuple[Array, Array, Array, Array]:
        del key
        allowed = legal(observe(board))[move]
        after = jnp.where(allowed, board.at[place(board, move)].set(1), board)
        won = allowed & has_line(after == 1, length)
        reward = jnp.where(won, 1.0, jnp.where(allowed, 0.0, -1.0))
        board = -after  # the other player's view
        return board, observe(board), reward, won | ~allowed | jnp.all(board != 0)

    env = from_functions(
        reset, step, action=Discrete(moves), max_steps=rows * columns, name=name, obs_shape=(rows, columns, 2),
        render=_picture, no_gradient="its moves are numbers", players=2, legal=legal,
    )  # fmt: skip
    if opponent is None:
        return env
    if opponent != "random" and not callable(opponent):
        raise ValueError(f"opponent must be None, random or a function (key, state, obs) -> action, got {opponent!r}")
    return versus(env, opponent if callable(opponent) else random_player(env))


def observe(board: Array) -> Array:
    """What the player to move sees of a board, ``int8[rows, columns]``, whose stones are 1 and the other's -1."""
    return jnp.stack([board == 1, board == -1], axis=-1).astype(jnp.float32)


def has_line(stones: Array, length: int) -> Array:
    """Whether ``length`` of ``stones``, ``bool[rows, columns]``, lie in a line: a bool scalar."""
    rows, columns = stones.shape
    found = jnp.zeros((), bool)
    for down, right in DIRECTIONS:
        high, wide = rows - down * (length - 1), columns - abs(right) * (length - 1)
        if high < 1 or wide < 1:
            continue
        starts = [(i * down, i * right if right >= 0 else (length - 1 - i)) for i in range(length)]
        parts = [stones[r : r + high, c : c + wide] for r, c in starts]
        found |= jnp.any(jnp.all(jnp.stack(parts), axis=0))
    return found


def _picture(obs: Any) -> np.ndarray:
    """``uint8[H, W, 3]``: red stones belong to the player to move, yellow ones to the other."""
    stones, side = np.asarray(obs), 32
    rows, columns = stones.shape[:2]
    middle = np.arange(side) - (side - 1) / 2
    disc = middle[:, None] ** 2 + middle**2 <= (0.4 * side) ** 2
    image = np.full((rows * side, columns * side, 3), _BOARD, np.uint8)
    for row, column in np.ndindex(rows, columns):
        own, other = stones[row, column] > 0.5
        colour = _OWN if own else _OTHER if other else _EMPTY
        image[row * side : (row + 1) * side, column * side : (column + 1) * side][disc] = colour
    return image
