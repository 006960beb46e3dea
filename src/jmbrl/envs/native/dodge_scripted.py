"""Policies for ``dodge`` that read its true state, how long each survives, and a film.

A policy is ``(key, memory, state) -> (memory, move)`` with a move of -1, 0 or 1. ``memory`` is two integers that begin
as zeros; only ``random`` and ``sweep`` use them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.envs.native import dodge
from jmbrl.envs.native.dodge import Rules, State
from jmbrl.types import Array, Key

_LOW_HALF = 0.6  # from here on downwards a ball is near


def _random(key: Key, memory: Array, state: State) -> tuple[Array, Array]:
    """A move drawn evenly from the three, held for 1 to 10 steps: how World Models gathers its data."""
    del state
    move_key, held_key = jax.random.split(key)
    fresh = jnp.stack([jax.random.randint(move_key, (), -1, 2), jax.random.randint(held_key, (), 1, 11)])
    move, left = jnp.where(memory[1] > 0, memory, fresh)
    return jnp.stack([move, left - 1]), move


def _still(key: Key, memory: Array, state: State) -> tuple[Array, Array]:
    del key, state
    return memory, jnp.int32(0)


def _sweep(rules: Rules) -> Callable:
    """From wall to wall, whatever comes."""

    def policy(key: Key, memory: Array, state: State) -> tuple[Array, Array]:
        del key
        left, right = rules.walls
        onward = jnp.where(memory[0] == 0, 1, memory[0])
        move = jnp.where(state.agent <= left, 1, jnp.where(state.agent >= right, -1, onward))
        return memory.at[0].set(move), move

    return policy


def _nearest(rules: Rules) -> Callable:
    """Away from the x of the nearest ball in the lower part; back to the middle where there is none."""

    def policy(key: Key, memory: Array, state: State) -> tuple[Array, Array]:
        del key
        across, down = state.ball[:, 0] - state.agent, state.ball[:, 1] - rules.row
        near = state.flying & (state.ball[:, 1] > _LOW_HALF)
        first = jnp.argmin(jnp.where(near, jnp.hypot(across, down), jnp.inf))
        away = jnp.where(across[first] > 0, -1, 1)
        home = jnp.where(jnp.abs(0.5 - state.agent) > rules.agent_speed, jnp.sign(0.5 - state.agent), 0)
        return memory, jnp.where(near.any(), away, home).astype(jnp.int32)

    return policy


def _plan(rules: Rules, velocities: Callable[[State], Array], margin: float) -> Callable:
    """Go left or right for some steps, then stay: of these plans the one that is hit last, if at all.

    Among equals the one that ends nearest to the middle. ``margin`` is added to the agent at both sides.
    """
    ahead = min(int(np.ceil(rules.row / rules.ball_speed[0])), 60)  # the slowest ball's fall
    across = min(int(np.ceil(1.0 / rules.agent_speed)), ahead)
    steps = np.arange(1, ahead + 1)
    go = np.arange(-across, across + 1)
    moved = jnp.asarray(np.sign(go)[:, None] * np.minimum(steps, np.abs(go)[:, None]))  # [plans, ahead]
    wide = rules._replace(agent_width=rules.agent_width + 2 * margin)

    def policy(key: Key, memory: Array, state: State) -> tuple[Array, Array]:
        del key
        agent = jnp.clip(state.agent + rules.agent_speed * moved, *rules.walls)
        ball = state.ball[:, None] + velocities(state)[:, None] * steps[:, None]  # [K, ahead, 2]
        hit = jnp.any(dodge.touching(wide, agent[:, None], ball) & state.flying[:, None], axis=1)
        safe = jnp.where(hit.any(axis=1), jnp.argmax(hit, axis=1), ahead)
        best = jnp.argmax(safe - 0.3 * jnp.abs(agent[:, -1] - 0.5))
        return memory, jnp.sign(best - across).astype(jnp.int32)

    return policy


def _guessed(rules: Rules) -> Callable[[State], Array]:
    """Velocities from places alone: the mean speed, half way between straight down and at the agent."""

    def velocities(state: State) -> Array:
        across = 0.5 * (state.agent - state.ball[:, 0])
        # Beside or below the agent there is nothing left to guess.
        way = jnp.stack([across, jnp.maximum(rules.row - state.ball[:, 1], 0.1)], axis=1)
        return sum(rules.ball_speed) / 2 * way / jnp.linalg.norm(way, axis=1, keepdims=True)

    return velocities


POLICIES: dict[str, Callable[[Rules], Callable]] = {
    "still": lambda rules: _still,
    "random": lambda rules: _random,
    "sweep": _sweep,
    "nearest": _nearest,
    "guess": lambda rules: _plan(rules, _guessed(rules), margin=0.0),
    "know": lambda rules: _plan(rules, lambda state: state.velocity, margin=0.005),
}


def survival(name: str, *, episodes: int = 1024, max_steps: int = 250, seed: int = 0, **options: Any) -> np.ndarray:
    """How many steps each of some episodes of a policy lasts, ``int[episodes]``.

    Args:
      name: of ``POLICIES``. ``still``; ``random``; ``sweep``, from wall to wall; ``nearest``, away from the nearest
        ball; ``guess``, plans with guessed velocities; ``know``, plans with the true ones.
      episodes: how many, side by side.
      max_steps: time limit.
      seed: of the episodes.
      options: fields of ``dodge.Rules``.

    Raises:
      ValueError: an unknown name, or what ``dodge.make`` refuses.
    """
    checks.choice("name", name, tuple(POLICIES))
    checks.integer("episodes", episodes, low=1)
    keys = jax.random.split(checks.key(seed), episodes)
    return np.asarray(jax.jit(jax.vmap(_episode(name, max_steps, 16, options)))(keys)[0].sum(axis=1))


def film(name: str = "know", *, frames: int = 80, size: int = 64, seed: int = 0, **options: Any) -> np.ndarray:
    """What is seen in the first steps of one episode, ``uint8[frames, size, size, 3]``."""
    checks.choice("name", name, tuple(POLICIES))
    checks.integer("frames", frames, low=1)
    return np.asarray(jax.jit(_episode(name, frames, size, options))(checks.key(seed))[1])


def _episode(name: str, max_steps: int, size: int, options: dict) -> Callable:
    """``(key) -> (alive[max_steps], pictures)``; pictures that nobody reads are not drawn."""
    env = dodge.make(size, max_steps=max_steps, discrete=True, **options)
    policy = POLICIES[name](dodge.make_rules(**options))

    def body(carry: tuple, key: Key) -> tuple[tuple, tuple]:
        state, memory, alive = carry
        policy_key, step_key = jax.random.split(key)
        memory, move = policy(policy_key, memory, state.inner)
        state, seen = env.step(step_key, state, move + 1)
        # A step taken alive counts, that of the hit too, as the reward does.
        return (state, memory, alive & ~seen.terminated), (alive, seen.obs)

    def episode(key: Key) -> tuple[Array, Array]:
        state, _ = env.reset(key)
        first = (state, jnp.zeros(2, jnp.int32), jnp.bool_(True))
        return jax.lax.scan(body, first, jax.random.split(key, max_steps))[1]

    return episode
