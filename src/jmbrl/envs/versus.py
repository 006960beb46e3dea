"""A game of two as an environment of one: the opponent answers inside the step."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jmbrl.envs import spaces
from jmbrl.envs.vector import select, vectorize
from jmbrl.envs.with_state import StateObs
from jmbrl.types import Agent, Array, Env, Key, PyTree, TimeStep

_NEVER = -1e9  # a logit


def versus(env: Env, opponent: Callable) -> Env:
    """The game as one player meets it. Who moves first is drawn at every reset.

    The state is the game's own, so ``with_state`` and ``models.simulator(env)`` of the *game* fit together. The reward
    is one's own less the opponent's. The observation after one's own last move is the opponent's view of the end.

    Args:
      env: of two players, in JAX.
      opponent: ``(key, state, obs) -> action``: ``random_player(env)``, ``player(agent, state)``,
        ``tictactoe.perfect``.

    Raises:
      ValueError: a game of one player, or on the host.
    """
    if env.spec.players != 2 or env.spec.host:
        raise ValueError(f"versus needs a JAX game of two players, got {env.spec.name} of {env.spec.players}")

    def answered(key: Key, state: PyTree, obs: Array) -> tuple[PyTree, TimeStep]:
        key_move, key_step = jax.random.split(key)
        return env.step(key_step, state, opponent(key_move, state, obs))

    def reset(key: Key) -> tuple[PyTree, Array]:
        key_reset, key_coin, key_answer = jax.random.split(key, 3)
        state, obs = env.reset(key_reset)
        after, seen = answered(key_answer, state, obs)
        return select(jax.random.bernoulli(key_coin), (after, seen.obs), (state, obs))

    def step(key: Key, state: PyTree, action: Array) -> tuple[PyTree, TimeStep]:
        key_own, key_answer = jax.random.split(key)
        state, own = env.step(key_own, state, action)
        after, theirs = answered(key_answer, state, own.obs)
        theirs = theirs._replace(reward=own.reward - theirs.reward)
        return select(own.terminated | own.truncated, (state, own), (after, theirs))

    spec = dataclasses.replace(env.spec, name=f"{env.spec.name}/versus", players=1)
    single = env._replace(spec=spec, reset=reset, step=step, reward_fn=None, termination_fn=None)
    return single._replace(vector=lambda num_envs: vectorize(single, num_envs))


def random_player(env: Env) -> Callable:
    """Any allowed action with the same chance: ``(key, state, obs) -> action``."""

    def play(key: Key, state: PyTree, obs: Array) -> Array:
        del state
        if env.legal is None:
            return spaces.sample(key, env.spec.action)
        return jax.random.categorical(key, jnp.where(env.legal(obs), 0.0, _NEVER)).astype(jnp.int32)

    return play


def player(agent: Agent, state: PyTree) -> Callable:
    """An agent without memory as a player, ``(key, state, obs) -> action``; it does not explore.

    It is shown ``StateObs(obs, state)``, which agents that search the true game need.
    """

    def play(key: Key, game: PyTree, obs: Array) -> Array:
        return agent.act(key, state, agent.reset(state), StateObs(obs, game), jnp.asarray(True), False)[0]

    return play
