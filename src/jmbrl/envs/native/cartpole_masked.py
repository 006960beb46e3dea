"""Cart pole without its velocities: a task of discrete actions that needs a memory."""

import jax.numpy as jnp

from jmbrl.envs import gymnax, render, rewards
from jmbrl.envs.partial import masked
from jmbrl.envs.wrappers import rename
from jmbrl.types import Array, Env


def make(max_steps: int | None = None) -> Env:
    """``gymnax:CartPole-v1`` seen as ``[x, theta]`` only; 500 steps.

    Reward and end read nothing that is hidden, so both are still known.
    """
    env = masked(gymnax.make("CartPole-v1", max_steps=max_steps), keep=("x", "theta"))
    env = env._replace(
        reward_fn=rewards.constant(1.0),
        termination_fn=lambda obs, action, next_obs: rewards.cart_pole_end(obs, action, _with_zeros(next_obs)),
        render=lambda obs: render.cartpole(_with_zeros(jnp.asarray(obs))),
    )
    return rename(env, "cartpole_masked")


def _with_zeros(obs: Array) -> Array:
    """``[x, 0, theta, 0]``."""
    still = jnp.zeros_like(obs[..., 0])
    return jnp.stack([obs[..., 0], still, obs[..., 1], still], axis=-1)
