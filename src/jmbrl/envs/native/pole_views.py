"""Pendulum and cart pole as small pictures, drawn in JAX: no velocity, no action, soft edges.

A pixel's share of a shape is ``clip(1/2 + d, 0, 1)``, ``d`` the number of pixels by which its middle lies within the
shape's edge, so that a movement of a hundredth of a pixel still changes a grey.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.envs.partial import rendered
from jmbrl.envs.wrappers import frame_stack, rename
from jmbrl.types import Array, Env

PENDULUM_REACH = 1.25  # m from the middle of the picture to its edges; the rod is 1 m long
CART_REACH = 3.0  # m; an episode ends where the cart is beyond 2.4
POLE = 4.5  # m as drawn, of 1 m in truth: 32 pixels would not show a tilt of a degree
_CART, _RAIL = (0.4, 0.3), -2.4  # m, half a width and half a height; the height of its middle in the picture
_BRIGHT = {1: (255.0,), 3: (255.0, 170.0, 40.0)}  # colours by the number of channels, on black
_DIM = {1: (140.0,), 3: (70.0, 140.0, 255.0)}


def pixels(
    name: str,
    env: Env,
    view: Callable,
    *,
    size: int,
    channels: int,
    frames: int,
    reward_fn: Callable | None = None,
    termination_fn: Callable | None = None,
) -> Env:
    """``env`` seen through ``view(obs, size, channels)``, the last ``frames`` pictures along the channels.

    Raises:
      ValueError: ``size`` below 16, ``channels`` other than 1 or 3, ``frames`` below 1.
    """
    checks.integer("size", size, low=16)
    checks.integer("channels", channels)
    if channels not in _BRIGHT:
        raise ValueError(f"channels must be 1 (grey) or 3 (colours), got {channels}")
    checks.integer("frames", frames, low=1)
    env = rendered(env, lambda obs: view(obs, size, channels))
    env = env._replace(reward_fn=reward_fn, termination_fn=termination_fn)
    return rename(frame_stack(env, frames) if frames > 1 else env, name)


def pendulum(obs: Array, size: int, channels: int) -> Array:
    """``uint8[size, size, channels]`` of ``[cos theta, sin theta, ...]``: a rod from the middle, upright at 0."""
    tip = jnp.stack([-obs[1], obs[0]])
    rod = segment(size, PENDULUM_REACH, jnp.zeros(2), tip, 0.1)
    return picture((rod, _BRIGHT[channels]))


def cartpole(obs: Array, size: int, channels: int) -> Array:
    """``uint8[size, size, channels]`` of ``[x, x_dot, theta, ...]``: a cart and its pole, upright at 0.

    Places and the angle are true, the pole's length is not.
    """
    middle = jnp.stack([obs[0], jnp.full_like(obs[0], _RAIL)])
    tip = middle + POLE * jnp.stack([jnp.sin(obs[2]), jnp.cos(obs[2])])
    pole = segment(size, CART_REACH, middle, tip, 0.15)
    return picture((box(size, CART_REACH, middle, _CART), _DIM[channels]), (pole, _BRIGHT[channels]))


# -------------------------------------------------------------------------------------------- drawing


def places(size: int, reach: float) -> np.ndarray:
    """The pixels' middles from left to right, ``float32[size]`` in ``[-reach, reach]``; negated, from top to bottom."""
    return ((2 * np.arange(size) + 1 - size) * (reach / size)).astype(np.float32)


def segment(size: int, reach: float, start: Array, end: Array, radius: float) -> Array:
    """Each pixel's share of the points nearer than ``radius`` to a line from ``start`` to ``end``, ``[size, size]``."""
    across = places(size, reach)
    right, up = across[None, :] - start[0], -across[:, None] - start[1]
    way = end - start
    along = (right * way[0] + up * way[1]) / jnp.maximum(way[0] ** 2 + way[1] ** 2, 1e-12)
    along = jnp.clip(along, 0.0, 1.0)
    distance = jnp.sqrt((right - along * way[0]) ** 2 + (up - along * way[1]) ** 2)
    return _share(size, reach, radius - distance)


def box(size: int, reach: float, middle: Array, half: tuple[float, float]) -> Array:
    """Each pixel's share of an upright rectangle, ``[size, size]``; ``half`` a width and a height."""
    across = places(size, reach)
    columns = _share(size, reach, half[0] - jnp.abs(across - middle[0]))
    rows = _share(size, reach, half[1] - jnp.abs(-across - middle[1]))
    return rows[:, None] * columns


def picture(*layers: tuple[Array, tuple[float, ...]]) -> Array:
    """Layers ``(share[H, W], colour)`` over each other on black, the last on top: ``uint8[H, W, C]``."""
    image = jnp.float32(0)
    for share, colour in layers:
        image = image + share[..., None] * (jnp.asarray(colour, jnp.float32) - image)
    return jnp.round(image).astype(jnp.uint8)


def _share(size: int, reach: float, inside: Array) -> Array:
    return jnp.clip(0.5 + inside * (size / (2 * reach)), 0.0, 1.0)
