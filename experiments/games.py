"""Games that are played out to the end: every line of tic-tac-toe against a player, and duels of many games."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jmbrl import agents, envs
from jmbrl.envs.native.boards import observe
from jmbrl.envs.native.tictactoe import LINES
from jmbrl.rollout import evaluate
from jmbrl.types import Agent, Env

BATCH = 256  # positions judged at once


def duel(game: Env, agent: Agent, opponent: Callable, games: int) -> Callable:
    """``(key, state) -> returns[games]`` of an agent that searches the true game against ``opponent``; who begins is
    drawn for each."""
    world = envs.with_state(envs.versus(game, opponent))
    return lambda key, state: evaluate(key, world, agent, state, games)["returns"]


def searcher(game: Env, simulations: int) -> Callable:
    """Plain Monte-Carlo tree search as an opponent."""
    agent = agents.mcts(envs.with_state(game), agents.MCTSConfig(simulations=simulations))
    return envs.player(agent, ())


def lost_lines(game: Env, agent: Agent, state: Any) -> dict[str, int]:
    """Every game of tic-tac-toe that can be played against an agent that does not explore, from both sides.

    Returns:
      ``positions``, how many it was asked for a move in; ``lost``, how many of the other's replies won.
    """
    timed = game.reset(jax.random.key(0))[0]

    def move(board: jax.Array) -> jax.Array:
        return envs.player(agent, state)(jax.random.key(0), timed._replace(inner=board), observe(board))

    moves = jax.jit(jax.vmap(move))
    empty = (0,) * 9
    todo = {empty} | {tuple(-1 if i == j else 0 for j in range(9)) for i in range(9)}
    positions, lost = 0, 0
    while todo:
        boards = np.asarray(sorted(todo), np.int8)
        positions, todo = positions + len(boards), set()
        for start in range(0, len(boards), BATCH):
            part = boards[start : start + BATCH]
            padded = np.zeros((BATCH, 3, 3), np.int8)
            padded[: len(part)] = part.reshape(-1, 3, 3)
            for board, choice in zip(part, np.asarray(moves(padded)), strict=False):
                after = board.copy()
                if after[choice]:  # not allowed
                    lost += 1
                    continue
                after[choice] = 1
                if line(after, 1):
                    continue
                for reply in np.flatnonzero(after == 0):
                    answered = after.copy()
                    answered[reply] = -1
                    lost += line(answered, -1)
                    if not line(answered, -1) and np.any(answered == 0):
                        todo.add(tuple(answered.tolist()))
    return {"positions": positions, "lost": int(lost)}


def line(board: np.ndarray, stone: int) -> bool:
    """Whether ``stone`` has a line of three on a board of nine places."""
    return bool(np.any(np.all(board[np.asarray(LINES)] == stone, axis=1)))
