"""The benchmark's cart pole: keep the pole upright with a force of fixed size to either side."""

import jax
import jax.numpy as jnp

from jmbrl.envs import render, rewards
from jmbrl.envs.functions import from_functions
from jmbrl.envs.native.wang import MAX_STEPS, THRESHOLDED
from jmbrl.types import Array, Continuous, Env, Key

GRAVITY = 9.8
CART_MASS, POLE_MASS = 1.0, 0.1  # kg
HALF_LENGTH = 0.5  # m, pivot to the pole's middle
FORCE = 10.0  # N
TIMESTEP = 0.02  # s
START = 0.05  # every coordinate starts within this of zero


def make(max_steps: int = MAX_STEPS) -> Env:
    r"""The benchmark's ``gym_cartpole``.

    .. math:: r(s_t, a_t) = \cos\theta_t - 0.01 x_t^2

    Observation ``float32[4]``: ``[x (m), xdot, theta (rad), thetadot]``, ``theta = 0`` upright. Action: one number in
    ``[-1, 1]``; above 0 it is a force of +10 N, else of -10 N, so that it has no derivative (``no_gradient``). Euler at
    0.02 s. The reward is that of the state before the step, at most 1. Gym's end at 12 degrees is ignored: the pole
    falls on, and never terminates.

    Source: Wang et al. 2019 (arXiv 1907.02057) and its code; Gymnasium's ``CartPole-v1`` for the dynamics.
    """
    return from_functions(
        _reset,
        _step,
        action=Continuous((-1.0,), (1.0,)),
        max_steps=max_steps,
        name="wang/cartpole",
        obs_shape=(4,),
        obs_names=("x", "x_dot", "theta", "theta_dot"),
        reward_fn=reward_fn,
        termination_fn=rewards.never,
        render=render.cartpole,
        dt=TIMESTEP,
        no_gradient=THRESHOLDED,
    )


def reward_fn(obs: Array, action: Array, next_obs: Array) -> Array:
    """The benchmark's reward."""
    del action, next_obs
    return jnp.cos(obs[..., 2]) - 0.01 * obs[..., 0] ** 2


def _reset(key: Key) -> tuple[Array, Array]:
    state = jax.random.uniform(key, (4,), minval=-START, maxval=START)
    return state, state


def _step(key: Key, state: Array, action: Array) -> tuple[Array, Array, Array, bool]:
    del key
    new = state + TIMESTEP * velocity(state, jnp.where(action[0] > 0, FORCE, -FORCE))
    return new, new, reward_fn(state, action, new), False


def velocity(state: Array, force: Array) -> Array:
    r"""``[xdot, xddot, thetadot, thetaddot]`` of a uniform pole on a cart without friction (Barto et al. 1983).

    .. math:: \ddot\theta = \frac{g\sin\theta - \cos\theta\,(F + m l\dot\theta^2\sin\theta)/M}
              {l\,(4/3 - m\cos^2\theta/M)}, \quad
              \ddot x = (F + m l(\dot\theta^2\sin\theta - \ddot\theta\cos\theta))/M
    """
    _, x_dot, angle, spin = state
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    total, lever = CART_MASS + POLE_MASS, POLE_MASS * HALF_LENGTH
    push = (force + lever * spin**2 * sin) / total
    spin_dot = (GRAVITY * sin - cos * push) / (HALF_LENGTH * (4 / 3 - POLE_MASS * cos**2 / total))
    return jnp.stack([x_dot, push - lever * spin_dot * cos / total, spin, spin_dot])
