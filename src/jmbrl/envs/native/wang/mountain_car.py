"""The benchmark's mountain car: as far to the right as possible, all the time."""

import jax
import jax.numpy as jnp

from jmbrl.envs import render, rewards
from jmbrl.envs.functions import from_functions
from jmbrl.envs.native.wang import MAX_STEPS
from jmbrl.types import Array, Continuous, Env, Key

POWER, SLOPE = 0.0015, 0.0025
LOW, HIGH = -1.2, 0.6  # walls
MAX_SPEED = 0.07


def make(max_steps: int = MAX_STEPS) -> Env:
    r"""The benchmark's ``gym_mountain``: a weak car in a valley, paid its position.

    .. math:: v' = \operatorname{clip}(v + 0.0015a - 0.0025\cos 3x, \pm 0.07), \quad
              x' = \operatorname{clip}(x + v', -1.2, 0.6), \quad r(s_t, a_t) = x_t

    Observation ``float32[2]``: ``[x, v]``. Action: the engine in ``[-1, 1]``. The reward is the position before the
    step: no bonus at the goal and no cost of the action, unlike Gym's. Never terminates. Starts at rest with ``x``
    uniform in ``[-0.6, -0.4]``.

    Source: Wang et al. 2019 (arXiv 1907.02057) and its code; Gymnasium's ``MountainCarContinuous-v0`` for the dynamics.
    """
    return from_functions(
        _reset,
        _step,
        action=Continuous((-1.0,), (1.0,)),
        max_steps=max_steps,
        name="wang/mountain_car",
        obs_shape=(2,),
        obs_names=("position", "velocity"),
        reward_fn=reward_fn,
        termination_fn=rewards.never,
        render=render.mountain_car,
    )


def reward_fn(obs: Array, action: Array, next_obs: Array) -> Array:
    """The benchmark's reward."""
    del action, next_obs
    return obs[..., 0]


def _reset(key: Key) -> tuple[Array, Array]:
    state = jnp.stack([jax.random.uniform(key, (), minval=-0.6, maxval=-0.4), 0.0])
    return state, state


def _step(key: Key, state: Array, action: Array) -> tuple[Array, Array, Array, bool]:
    del key
    x, v = state
    v = jnp.clip(v + POWER * action[0] - SLOPE * jnp.cos(3 * x), -MAX_SPEED, MAX_SPEED)
    x_new = jnp.clip(x + v, LOW, HIGH)
    # The left wall stops the car; the right one, as in Gym, leaves it its speed.
    new = jnp.stack([x_new, jnp.where((x_new <= LOW) & (v < 0), 0.0, v)])
    return new, new, x, False
