"""The cart pole as a picture: one frame shows where things are, not where they are going."""

from jmbrl.envs import gymnax
from jmbrl.envs.native import pole_views
from jmbrl.envs.native.dodge import reward_fn
from jmbrl.types import Env


def make(size: int = 32, channels: int = 1, frames: int = 1, max_steps: int | None = None) -> Env:
    """``gymnax:CartPole-v1`` seen as ``uint8[size, size, channels]``: cart and pole, and no velocity.

    The end is a threshold on numbers that a picture shows to some hundredths only, so there is no ``termination_fn``.

    Args:
      size: pixels a side, at least 16.
      channels: 1 (grey) or 3 (colours).
      frames: how many of the last pictures are seen, one after the other along the channels; two show the velocities.
      max_steps: the time limit; None takes gymnax's 500.

    Raises:
      ValueError: arguments out of their range.
    """
    env = gymnax.make("CartPole-v1", max_steps=max_steps)
    return pole_views.pixels(
        "cartpole_pixels", env, pole_views.cartpole, size=size, channels=channels, frames=frames, reward_fn=reward_fn
    )
