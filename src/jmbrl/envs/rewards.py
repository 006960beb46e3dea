"""Rewards and ends that are known functions of ``(obs, action, next_obs)``.

Actions are in ``[-1, 1]``; each function scales them as the adapter does. Sources: the packages' own step
functions, checked against them step by step in ``tests/envs``.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp

from jmbrl.types import Array


def never(obs: Array, action: Array, next_obs: Array) -> Array:
    """The end of a task that has none."""
    del obs, action
    return jnp.zeros(next_obs.shape[:-1], jnp.bool_)


def constant(value: float) -> Callable:
    """A reward that is the same number every step."""
    return lambda obs, action, next_obs: jnp.full(next_obs.shape[:-1], value, jnp.float32)


def pendulum(max_torque: float = 2.0) -> Callable:
    """``-(theta^2 + 0.1 thetadot^2 + 0.001 u^2)`` of the state *before* the step; obs ``[cos, sin, thetadot]``."""

    def reward(obs: Array, action: Array, next_obs: Array) -> Array:
        del next_obs
        angle = jnp.arctan2(obs[..., 1], obs[..., 0])
        torque = max_torque * jnp.clip(action[..., 0], -1.0, 1.0)
        return -(angle**2 + 0.1 * obs[..., 2] ** 2 + 0.001 * torque**2)

    return reward


def mountain_car_end(obs: Array, action: Array, next_obs: Array) -> Array:
    """At the goal, 0.45, and not rolling back; obs ``[position, velocity]``."""
    del obs, action
    return (next_obs[..., 0] >= 0.45) & (next_obs[..., 1] >= 0.0)


def mountain_car(obs: Array, action: Array, next_obs: Array) -> Array:
    """``100`` at the goal, ``-0.1 u^2`` for the action."""
    goal = mountain_car_end(obs, action, next_obs)
    return 100.0 * goal - 0.1 * jnp.clip(action[..., 0], -1.0, 1.0) ** 2


def discrete_mountain_car_end(obs: Array, action: Array, next_obs: Array) -> Array:
    """As ``mountain_car_end`` for ``MountainCar-v0``, whose goal is at 0.5."""
    del obs, action
    return (next_obs[..., 0] >= 0.5) & (next_obs[..., 1] >= 0.0)


def cart_pole_end(obs: Array, action: Array, next_obs: Array) -> Array:
    """The cart beyond 2.4 or the pole beyond 12 degrees; obs ``[x, xdot, theta, thetadot]``."""
    del obs, action
    return (jnp.abs(next_obs[..., 0]) > 2.4) | (jnp.abs(next_obs[..., 2]) > 12 * 2 * math.pi / 360)


def acrobot_end(obs: Array, action: Array, next_obs: Array) -> Array:
    """The tip above the bar; obs ``[cos1, sin1, cos2, sin2, v1, v2]``."""
    del obs, action
    cos1, sin1, cos2, sin2 = (next_obs[..., i] for i in range(4))
    return -cos1 - (cos1 * cos2 - sin1 * sin2) > 1.0


def acrobot(obs: Array, action: Array, next_obs: Array) -> Array:
    """``-1`` a step until the tip is up."""
    return jnp.where(acrobot_end(obs, action, next_obs), 0.0, -1.0)


def fallen(low: float, high: float, angle: float | None = None) -> Callable:
    """The end of a body that walks: its height beyond ``(low, high)``, its tilt beyond ``angle`` (rad), or a state that
    is not finite; obs ``[height, tilt, ...]`` (without ``angle`` the second entry may be anything)."""

    def end(obs: Array, action: Array, next_obs: Array) -> Array:
        del obs, action
        height = next_obs[..., 0]
        up = jnp.all(jnp.isfinite(next_obs), axis=-1) & (height >= low) & (height <= high)
        return ~up if angle is None else ~(up & (jnp.abs(next_obs[..., 1]) < angle))

    return end


def inverted_pendulum_end(obs: Array, action: Array, next_obs: Array) -> Array:
    """The pole beyond 0.2 rad, or a state that is not finite; obs ``[x, theta, xdot, thetadot]``."""
    del obs, action
    return ~(jnp.all(jnp.isfinite(next_obs), axis=-1) & (jnp.abs(next_obs[..., 1]) <= 0.2))


def inverted_pendulum(obs: Array, action: Array, next_obs: Array) -> Array:
    """``1`` while the pole is up; the last step of an episode pays nothing (gymnasium v5)."""
    return jnp.where(inverted_pendulum_end(obs, action, next_obs), 0.0, 1.0)


def reacher(control_weight: float = 1.0, distance_at: int = -3, distance_weight: float = 1.0) -> Callable:
    """``-|fingertip - target| - |a|^2``; the distance is read from the observation's last entries."""

    def reward(obs: Array, action: Array, next_obs: Array) -> Array:
        del obs
        distance = jnp.linalg.norm(next_obs[..., distance_at:], axis=-1)
        return -distance_weight * distance - control_weight * jnp.sum(jnp.clip(action, -1.0, 1.0) ** 2, axis=-1)

    return reward
