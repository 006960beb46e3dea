"""The benchmark's pendulum, which is paid for *hanging down*.

Gym's ``theta = 0`` is upright, and the reward contains ``-cos theta``: it is largest at ``theta = pi``, at rest at the
bottom. It is no swing-up; the controller ``u = -2 thetadot`` (damping alone) is as good as the table's best row, and
the +-30 that rows share is the spread of starting states. For swinging up use ``gymnax:Pendulum-v1``.
"""

import math

import jax
import jax.numpy as jnp

from jmbrl.envs import render, rewards
from jmbrl.envs.functions import from_functions
from jmbrl.envs.native.wang import MAX_STEPS
from jmbrl.types import Array, Continuous, Env, Key

GRAVITY, MASS, LENGTH = 10.0, 1.0, 1.0
TIMESTEP = 0.05  # s
MAX_SPEED = 8.0  # rad/s
MAX_TORQUE = 2.0  # Nm


def make(max_steps: int = MAX_STEPS) -> Env:
    r"""The benchmark's ``gym_pendulum``: bring a rotating rod to rest at the bottom.

    .. math:: \ddot\theta = \tfrac{3g}{2l}\sin\theta + \tfrac{3}{ml^2}u, \qquad
              r(s_t, u_t) = -\cos\theta - 0.1|\sin\theta| - 0.1\dot\theta^2 - 0.001u^2

    Observation ``float32[3]``: ``[cos theta, sin theta, thetadot (rad/s)]`` with ``theta = 0`` upright. Action: the
    torque in ``[-2, 2]`` Nm. Semi-implicit Euler at 0.05 s; ``|thetadot| <= 8``. Starts at a uniform angle with
    ``|thetadot| <= 1``. The reward is that of the state before the step, at most 1 a step. Never terminates.

    Source: Wang et al. 2019 (arXiv 1907.02057) and its code; Gymnasium's ``Pendulum-v1`` for the dynamics.
    """
    return from_functions(
        _reset,
        _step,
        action=Continuous((-MAX_TORQUE,), (MAX_TORQUE,)),
        max_steps=max_steps,
        name="wang/pendulum",
        obs_shape=(3,),
        obs_names=("cos_theta", "sin_theta", "theta_dot"),
        reward_fn=reward_fn,
        termination_fn=rewards.never,
        render=render.pendulum,
        dt=TIMESTEP,
    )


def reward_fn(obs: Array, action: Array, next_obs: Array) -> Array:
    """The benchmark's reward; ``action`` in ``[-1, 1]``."""
    del next_obs
    return _reward(obs, MAX_TORQUE * jnp.clip(action[..., 0], -1.0, 1.0))


def _reward(obs: Array, torque: Array) -> Array:
    cos, sin, speed = obs[..., 0], obs[..., 1], obs[..., 2]
    return -cos - 0.1 * jnp.abs(sin) - 0.1 * speed**2 - 0.001 * torque**2


def _observe(state: Array) -> Array:
    return jnp.stack([jnp.cos(state[0]), jnp.sin(state[0]), state[1]])


def _reset(key: Key) -> tuple[Array, Array]:
    state = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0) * jnp.asarray([math.pi, 1.0])
    return state, _observe(state)


def _step(key: Key, state: Array, action: Array) -> tuple[Array, Array, Array, bool]:
    del key
    angle, speed = state
    torque = action[0]
    push = 3 * GRAVITY / (2 * LENGTH) * jnp.sin(angle) + 3 / (MASS * LENGTH**2) * torque
    new_speed = jnp.clip(speed + TIMESTEP * push, -MAX_SPEED, MAX_SPEED)
    new = jnp.stack([angle + TIMESTEP * new_speed, new_speed])
    return new, _observe(new), _reward(_observe(state), torque), False
