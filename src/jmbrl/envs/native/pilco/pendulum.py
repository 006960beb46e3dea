"""PILCO's pendulum: swing a hanging rod up with a torque too weak to lift it at once."""

import jax.numpy as jnp

from jmbrl.envs.native.pilco import GRAVITY, MAX_STEPS, swing_up
from jmbrl.types import Array, Env

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
    return swing_up("pilco/pendulum", ("theta_dot", "theta"), slope, MAX_TORQUE, reward_fn, max_steps, spread)


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
