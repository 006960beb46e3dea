"""Gymnax tasks. Imports gymnax only when an environment is made (it takes seconds)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.cells import one_hots
from jmbrl.envs import render, rewards
from jmbrl.envs.functions import from_functions
from jmbrl.envs.host_spaces import laid_out
from jmbrl.types import ActionSpace, Array, Discrete, Env, Key

NAMES = (
    "Acrobot-v1",
    "CartPole-v1",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Pendulum-v1",
    "Asterix-MinAtar",
    "Breakout-MinAtar",
    "Freeway-MinAtar",
    "Seaquest-MinAtar",
    "SpaceInvaders-MinAtar",
    "BernoulliBandit-misc",
    "FourRooms-misc",
    "FrozenLake-misc",
    "GaussianBandit-misc",
    "MetaMaze-misc",
    "PointRobot-misc",
    "Pong-misc",
    "Reacher-misc",
    "Swimmer-misc",
    "Catch-bsuite",
    "DeepSea-bsuite",
    "DiscountingChain-bsuite",
    "MNISTBandit-bsuite",
    "MemoryChain-bsuite",
    "SimpleBandit-bsuite",
    "UmbrellaChain-bsuite",
)

# reward_fn, termination_fn, obs_names, dt. Given only while the task's parameters are the default ones.
KNOWN: dict[str, dict[str, Any]] = {
    "Pendulum-v1": {
        "reward_fn": rewards.pendulum(),
        "termination_fn": rewards.never,
        "obs_names": ("cos_theta", "sin_theta", "theta_dot"),
        "dt": 0.05,
        "render": render.pendulum,
    },
    "MountainCarContinuous-v0": {
        "reward_fn": rewards.mountain_car,
        "termination_fn": rewards.mountain_car_end,
        "obs_names": ("position", "velocity"),
    },
    "MountainCar-v0": {
        "reward_fn": rewards.constant(-1.0),
        "termination_fn": rewards.discrete_mountain_car_end,
        "obs_names": ("position", "velocity"),
    },
    "CartPole-v1": {
        "reward_fn": rewards.constant(1.0),
        "termination_fn": rewards.cart_pole_end,
        "obs_names": ("x", "x_dot", "theta", "theta_dot"),
        "dt": 0.02,
    },
    "Acrobot-v1": {
        "reward_fn": rewards.acrobot,
        "termination_fn": rewards.acrobot_end,
        "obs_names": ("cos_1", "sin_1", "cos_2", "sin_2", "velocity_1", "velocity_2"),
        "dt": 0.2,
    },
}

# How long every episode is, where gymnax's own time limit lies far beyond: schedules count in episodes.
LENGTHS = {
    "MemoryChain-bsuite": lambda params: checks.integer("memory_length", params.memory_length, low=1) + 1,
}


def make(name: str, max_steps: int | None = None, gradients: bool = True, **params: Any) -> Env:
    """A gymnax task by its id, without gymnax's auto-reset.

    Args:
      name: ``"Pendulum-v1"`` and so on, ``NAMES``.
      max_steps: the time limit; None takes gymnax's own ``max_steps_in_episode``, or what ``LENGTHS`` says.
      gradients: let observations and states carry gradients where the task supports it (gymnax stops them),
        for planners that differentiate through the simulator.
      params: changes to the task's parameters, such as ``g=9.0``; a known reward is then given only where no
        parameter was changed.

    Observations that are not images are flattened to a vector; a discrete observation becomes one-hot and is numbered
    by ``Env.cells``.
    """
    import gymnax

    env, defaults = gymnax.make(name)
    unknown = set(params) - set(vars(defaults))
    if unknown:
        raise ValueError(f"gymnax:{name} has no parameter {sorted(unknown)}, only {sorted(vars(defaults))}")
    values = defaults.replace(**params)
    if max_steps is None:
        max_steps = LENGTHS[name](values) if name in LENGTHS else values.max_steps_in_episode
    limit = checks.integer("max_steps", max_steps, low=1)
    if gradients and getattr(env, "supports_transition_gradients", False):
        env = env.with_transition_gradients()
    space = env.observation_space(values)
    observe, shape = _observer(space)
    cells = laid_out(one_hots(shape), env) if hasattr(space, "n") else None

    def reset(key: Key) -> tuple[Any, Array]:
        obs, state = env.reset_env(key, values)
        return state, observe(obs)

    def step(key: Key, state: Any, action: Array) -> tuple[Any, Array, Array, Array]:
        obs, state, reward, terminated, _ = env.step_env(key, state, action, values)
        return state, observe(obs), reward, terminated

    known = {} if params else KNOWN.get(name, {})
    return from_functions(
        reset, step, action=_action(env, values), max_steps=limit, name=f"gymnax:{name}", obs_shape=shape,
        cells=cells, **known,
    )  # fmt: skip


def _action(env: Any, params: Any) -> ActionSpace:
    space = env.action_space(params)
    if hasattr(space, "n"):
        return Discrete(int(space.n))
    low, high = (np.broadcast_to(np.asarray(bound, np.float64), space.shape) for bound in (space.low, space.high))
    return checks.action_bounds(np.ravel(low), np.ravel(high))


def _observer(space: Any) -> tuple[Any, tuple[int, ...]]:
    """How one observation becomes a vector or an image, and its shape."""
    if hasattr(space, "n"):
        return lambda obs: jax.nn.one_hot(obs, space.n), (int(space.n),)
    if len(space.shape) == 3:
        return jnp.asarray, tuple(space.shape)
    return jnp.ravel, (int(np.prod(space.shape, dtype=int)),)
