"""Pendulum without its velocity: the smallest task that needs a memory."""

from jmbrl.envs import gymnax
from jmbrl.envs.wrappers import mask_obs, rename
from jmbrl.types import Env


def make(max_steps: int | None = None) -> Env:
    """``gymnax:Pendulum-v1`` seen as ``[cos theta, sin theta]`` only.

    The reward depends on the hidden velocity, so there is no ``reward_fn``.
    """
    env = mask_obs(gymnax.make("Pendulum-v1", max_steps=max_steps), keep=(0, 1))
    return rename(env, "pendulum_masked")
