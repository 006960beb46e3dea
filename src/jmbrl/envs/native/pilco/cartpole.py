"""PILCO's cart pole: swing a hanging pole up and keep its tip above where the cart began."""

import jax.numpy as jnp

from jmbrl.envs.native.pilco import GRAVITY, MAX_STEPS, swing_up
from jmbrl.types import Array, Env

CART = POLE = 0.5  # kg
LENGTH = 0.5  # m
FRICTION = 0.1  # N s/m, of the cart
MAX_FORCE = 10.0  # N
WIDTH = 0.25  # m, of the cost


def make(max_steps: int = MAX_STEPS, spread: float = 0.1) -> Env:
    r"""The swing-up of a uniform rod on a cart.

    .. math:: r = \exp\left(-\frac{(x + l \sin\theta)^2 + (l + l \cos\theta)^2}{2 \cdot 0.25^2}\right)

    which is 1 less PILCO's cost: of the distance between the rod's tip and the point ``l`` above ``x = 0``. Observation
    ``float32[4]``: ``[x (m), xdot (m/s), thetadot (rad/s), theta (rad)]``. Action: the force in ``[-10, 10]`` N. The
    reward is that of the state after the step. Never terminates; truncated at ``max_steps`` of 0.1 s. Starts hanging,
    every entry ``N(0, spread^2)``.

    Source: Deisenroth & Rasmussen 2011, section 3.2; the code's ``settings_cp``, ``dynamics_cp`` and ``loss_cp``.
    """
    names = ("x", "x_dot", "theta_dot", "theta")
    return swing_up("pilco/cartpole", names, slope, MAX_FORCE, reward_fn, max_steps, spread)


def miss(obs: Array) -> Array:
    """Distance of the tip from the goal, in metres."""
    return jnp.sqrt(_square_miss(obs))


def _square_miss(obs: Array) -> Array:
    x, angle = obs[..., 0], obs[..., 3]
    return (x + LENGTH * jnp.sin(angle)) ** 2 + (LENGTH + LENGTH * jnp.cos(angle)) ** 2


def reward_fn(obs: Array, action: Array, next_obs: Array) -> Array:
    """The task's reward."""
    del obs, action
    return jnp.exp(-_square_miss(next_obs) / (2 * WIDTH**2))


def slope(state: Array, force: Array) -> Array:
    """Time derivative of the state under a force (N) on the cart."""
    _, speed, spin, angle = state
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    total, push = CART + POLE, force - FRICTION * speed
    moment = POLE * LENGTH * spin**2 * sin
    acceleration = (2 * moment + 3 * POLE * GRAVITY * sin * cos + 4 * push) / (4 * total - 3 * POLE * cos**2)
    twist = -3 * moment * cos - 6 * total * GRAVITY * sin - 6 * push * cos
    return jnp.stack([speed, acceleration, twist / (LENGTH * (4 * total - 3 * POLE * cos**2)), spin])
