"""The pendulum as a picture: one frame shows where it is, not where it is going."""

import jax.numpy as jnp

from jmbrl.envs import gymnax
from jmbrl.envs.native import pole_views
from jmbrl.types import Array, Env


def make(size: int = 32, channels: int = 1, frames: int = 1, max_steps: int | None = None) -> Env:
    """``gymnax:Pendulum-v1`` seen as ``uint8[size, size, channels]``: the rod, and neither velocity nor torque.

    The reward depends on the hidden velocity, so there is no ``reward_fn``.

    Args:
      size: pixels a side, at least 16.
      channels: 1 (grey) or 3 (colours).
      frames: how many of the last pictures are seen, one after the other along the channels; two show the velocity.
      max_steps: the time limit; None takes gymnax's 200.

    Raises:
      ValueError: arguments out of their range.
    """
    env = gymnax.make("Pendulum-v1", max_steps=max_steps)
    return pole_views.pixels(
        "pendulum_pixels", env, pole_views.pendulum, size=size, channels=channels, frames=frames, termination_fn=never
    )


def never(obs: Array, action: Array, next_obs: Array) -> Array:
    """False, always."""
    del obs, action
    return jnp.zeros(next_obs.shape[:-3], jnp.bool_)
