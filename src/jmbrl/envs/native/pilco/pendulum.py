"""PILCO's pendulum: swing a hanging rod up with a torque too weak to lift it at once."""

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.envs import rewards
from jmbrl.envs.functions import from_functions
from jmbrl.envs.native.pilco import DT, GRAVITY, MAX_STEPS, integrated
from jmbrl.types import Array, Continuous, Env, Key

MASS, LENGTH = 1.0, 1.0  # kg, m
FRICTION = 0.01  # N m s/rad
MAX_TORQUE = 2.5  # N m
WIDTH = 0.5  # m, of the cost


def make(max_steps: int = MAX_STEPS, spread: float = 0.1) -> Env:
    r"""The swing-up of a uniform rod in a hinge.

    .. math:: \ddot\theta = \frac{u - b \dot\theta - m g l \sin(\theta) / 2}{m l^2 / 3}, \qquad
              r = \exp\left(-\frac{l^2 \sin^2\theta + l^2 (1 + \cos\theta)^2}{2 \cdot 0.5^2}\right)

    which is 1 less PILCO's cost. Observation ``float32[2]``: ``[thetadot (rad/s), theta (rad)]``, 0 hanging. Action:
    the torque in ``[-2.5, 2.5]`` N m. The reward is that of the state after the step. Never terminates; truncated at
    ``max_steps`` of 0.1 s. Starts hanging, both entries ``N(0, spread^2)``.

    Source: Deisenroth & Rasmussen's code, ``settings_pendulum``, ``dynamics_pendulum`` and ``loss_pendulum``.
    """
    checks.number("spread", spread, 0.0)

    def reset(key: Key) -> tuple[Array, Array]:
        state = spread * jax.random.normal(key, (2,), jnp.float32)
        return state, state

    return from_functions(
        reset,
        _step,
        action=Continuous((-MAX_TORQUE,), (MAX_TORQUE,)),
        max_steps=max_steps,
        name="pilco/pendulum",
        obs_shape=(2,),
        obs_names=("theta_dot", "theta"),
        reward_fn=reward_fn,
        termination_fn=rewards.never,
        dt=DT,
    )


def miss(obs: Array) -> Array:
    """The tip's distance (m) from the point above the hinge; ``obs[..., 2]``."""
    return jnp.sqrt(_square_miss(obs))


def _square_miss(obs: Array) -> Array:
    angle = obs[..., 1]
    return LENGTH**2 * (jnp.sin(angle) ** 2 + (1 + jnp.cos(angle)) ** 2)


def reward_fn(obs: Array, action: Array, next_obs: Array) -> Array:
    """The task's reward."""
    del obs, action
    return jnp.exp(-_square_miss(next_obs) / (2 * WIDTH**2))


def slope(state: Array, torque: Array) -> Array:
    """Time derivative of the state under a torque (N m)."""
    spin, angle = state
    pull = torque - FRICTION * spin - 0.5 * MASS * GRAVITY * LENGTH * jnp.sin(angle)
    return jnp.stack([pull / (MASS * LENGTH**2 / 3), spin])


def _step(key: Key, state: Array, action: Array) -> tuple[Array, Array, Array, bool]:
    del key
    following = integrated(lambda s: slope(s, action[0]), state)
    return following, following, reward_fn(state, action, following), False
