"""Worlds with finitely many states: made from tables of moves, and their true tables back again."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl.envs.functions import Timed, from_functions
from jmbrl.types import Array, Cells, Discrete, Env, Key


class Place(NamedTuple):
    """Where the agent is and how old the world is, ``int32`` scalars.

    ``clock`` counts the steps of one copy over all its episodes; ``since`` is what it was when this episode began.
    """

    cell: Array
    clock: Array
    since: Array


class Tables(NamedTuple):
    """A deterministic world in NumPy: ``next_state int32[S, A]``, ``reward float32[S, A]``, ``terminated bool[S, A]``.

    Rows of states that are never visited (walls, goals) are there too and mean nothing.
    """

    next_state: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray


def world(
    moves: np.ndarray,
    goals: np.ndarray,
    start: int,
    cells: Cells,
    *,
    name: str,
    obs_names: tuple[str, ...],
    max_steps: int,
    rewards: tuple[float, float] = (0.0, 1.0),
    variant: Callable | None = None,
    render: Callable | None = None,
) -> Env:
    """A world that looks its steps up: ``s' = moves[v, s, a]``, which ends it where ``goals[s']``.

    Args:
      moves: ``int[V, S, A]``, where an action leads, in each of ``V`` variants of the world.
      goals: ``bool[S]``.
      start: the state in which every episode begins.
      cells: of the states; the observation is ``cells.centre(s)``.
      name, obs_names, max_steps, render: as in ``from_functions``.
      rewards: of a step, and of a step that reaches a goal.
      variant: ``(key, since) -> int32`` in ``[0, V)``: the variant in which a step happens, where ``since`` is how many
        steps the world had lived when the episode began. None: always the first.
    """
    ordinary, final = map(np.float32, rewards)

    def begin(clock: Array) -> tuple[Place, Array]:
        cell = jnp.asarray(start, jnp.int32)
        return Place(cell, clock, clock), cells.centre(cell)

    def step(key: Key, state: Place, action: Array) -> tuple[Place, Array, Array, Array]:
        which = 0 if variant is None else variant(key, state.since)
        cell = jnp.asarray(moves, jnp.int32)[which, state.cell, action]
        reached = jnp.asarray(goals)[cell]
        state = state._replace(cell=cell, clock=state.clock + 1)
        return state, cells.centre(cell), jnp.where(reached, final, ordinary), reached

    def termination_fn(obs: Array, action: Array, next_obs: Array) -> Array:
        del obs, action
        return jnp.asarray(goals)[cells.index(next_obs)]

    def reward_fn(obs: Array, action: Array, next_obs: Array) -> Array:
        return jnp.where(termination_fn(obs, action, next_obs), final, ordinary)

    return from_functions(
        lambda key: begin(jnp.zeros((), jnp.int32)),
        step,
        restart=lambda key, state: begin(state.clock),
        action=Discrete(moves.shape[2]),
        max_steps=max_steps,
        name=name,
        obs_names=obs_names,
        reward_fn=reward_fn,
        termination_fn=termination_fn,
        render=render,
        cells=cells,
    )


def tables(env: Env) -> Tables:
    """The true tables of a deterministic world made by ``world``, by one step from every state with every action.

    Of a world that changes over its life: as it is at first.

    Raises:
      ValueError: ``env`` is another kind of environment, or its steps are random.
    """
    state = None if env.spec.host else env.reset(jax.random.key(0))[0]
    if not isinstance(state, Timed) or not isinstance(state.inner, Place) or not isinstance(env.spec.action, Discrete):
        raise ValueError(f"tables needs a world made from a table of moves, unwrapped; got {env.spec.name}")
    cells, start = env.cells, state

    def one(key: Key, cell: Array, action: Array) -> tuple[Array, Array, Array]:
        here = Timed(start.inner._replace(cell=cell), start.time)
        _, seen = env.step(key, here, action)
        return cells.index(seen.obs), seen.reward, seen.terminated

    over_actions = jax.vmap(one, (None, None, 0))
    every = jax.jit(jax.vmap(over_actions, (0, 0, None)))
    states, actions = jnp.arange(cells.count, dtype=jnp.int32), jnp.arange(env.spec.action.n, dtype=jnp.int32)
    # Every state with a key of its own, twice: a random world would have to agree by chance everywhere.
    first, second = (
        Tables(*map(np.asarray, every(jax.random.split(jax.random.key(seed), cells.count), states, actions)))
        for seed in (0, 1)
    )
    if not np.array_equal(first.next_state, second.next_state):
        raise ValueError(f"tables needs a deterministic world, but the steps of {env.spec.name} are random")
    return first


def steps_to_go(next_state: np.ndarray, terminated: np.ndarray) -> np.ndarray:
    """Fewest steps to an end of the episode from every state, ``int32[S]``; -1 where none can be reached.

    A breadth-first search backwards over the tables ``[S, A]``, one layer a sweep.
    """
    none = len(next_state) + 1  # longer than any path
    steps = np.full(len(next_state), none, np.int32)
    while True:
        shorter = np.minimum(np.where(terminated, 1, 1 + steps[next_state]).min(axis=1), none)
        if np.array_equal(shorter, steps):
            return np.where(steps == none, -1, steps).astype(np.int32)
        steps = shorter.astype(np.int32)


def best_actions(env: Env) -> np.ndarray:
    """The actions of a shortest episode from where ``env`` begins, ``int32[T]``.

    Raises:
      ValueError: as ``tables``, or no end can be reached.
    """
    table = tables(env)
    steps = steps_to_go(table.next_state, table.terminated)
    state = int(env.cells.index(env.reset(jax.random.key(0))[1]))
    if steps[state] < 0:
        raise ValueError(f"no end of {env.spec.name} can be reached from its start")
    far = np.where(steps < 0, len(steps), steps)
    remaining = np.where(table.terminated, 0, far[table.next_state])
    actions = []
    for _ in range(steps[state]):
        actions.append(int(np.argmin(remaining[state])))
        state = table.next_state[state, actions[-1]]
    return np.asarray(actions, np.int32)
