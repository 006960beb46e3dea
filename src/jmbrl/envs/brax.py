"""Brax tasks. Imports brax only when an environment is made (it takes seconds)."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.envs import rewards
from jmbrl.envs.functions import from_functions
from jmbrl.types import Array, Continuous, Env, Key

BACKENDS = ("spring", "generalized", "positional", "mjx")
NAMES = (
    "ant",
    "fast",
    "halfcheetah",
    "hopper",
    "humanoid",
    "humanoidstandup",
    "inverted_double_pendulum",
    "inverted_pendulum",
    "pusher",
    "reacher",
    "walker2d",
)
OPEN = True  # names brax itself registered later, and "task/backend"


def make(
    name: str,
    backend: str | None = None,
    max_steps: int = 1000,
    reset_pool: int | None = 64,
    **options: Any,
) -> Env:
    """A brax task, without brax's own episode and auto-reset wrappers (those lose the last observation).

    Args:
      name: one of ``NAMES``, or ``"reacher/mjx"`` with the backend.
      backend: ``"spring"`` (the default: the quickest to run and compile on a CPU), ``"generalized"``,
        ``"positional"`` or ``"mjx"``. Dynamics, time step and returns differ between them, so the backend is part
        of ``spec.name``: ``"brax:reacher/spring"``.
      max_steps: the time limit.
      reset_pool: a brax reset costs about as much as a step; copies made by ``vector`` start their episodes from
        this many states sampled at the first reset. None: a true reset each time.
      options: passed to the brax class, such as ``exclude_current_positions_from_observation=False``; a known
        reward or end is then not given.

    Actions are clipped to ``[-1, 1]``; brax does not. Where the simulation diverges observations are NaN and never
    end the episode by themselves.
    """
    name, _, suffix = name.partition("/")
    if backend is not None and suffix and backend != suffix:
        raise ValueError(f"backend must agree with the name brax:{name}/{suffix}, got {backend!r}")
    backend = checks.choice("backend", suffix or backend or "spring", BACKENDS)
    if name == "swimmer":
        raise ValueError(
            "brax:swimmer cannot run: brax/fluid.py calls jax.numpy.clip(a_min=...), which JAX removed (a bug in brax "
            "0.14); use gymnasium:Swimmer-v5 or playground:SwimmerSwimmer6"
        )
    env = _create(name, backend, options)

    def reset(key: Key) -> tuple[Any, Any]:
        state = env.reset(key)
        return state, state.obs

    def step(key: Key, state: Any, action: Array) -> tuple[Any, Any, Array, Array]:
        del key  # brax's dynamics have no noise
        # A copy: brax writes into the state's dictionaries while it steps, the caller's included.
        state = env.step(jax.tree.map(lambda x: x, state), action)
        return state, state.obs, state.reward, state.done

    size = int(env.action_size)
    known = {} if options else _known(name, env)
    return from_functions(
        reset,
        step,
        action=Continuous((-1.0,) * size, (1.0,) * size),
        max_steps=max_steps,
        name=f"brax:{name}/{backend}",
        dt=float(env.dt) if name != "fast" else None,
        reset_pool=reset_pool,
        reward_fn=known.get("reward_fn"),
        termination_fn=known.get("termination_fn"),
    )


def _create(name: str, backend: str, options: dict[str, Any]) -> Any:
    from brax import envs

    try:
        return envs.get_environment(name, backend=backend, **options)
    except KeyError:
        from jmbrl.envs.registry import unknown

        raise unknown(f"brax:{name}") from None


# ------------------------------------------------------------------- rewards and ends, in brax's own terms


_WALKERS = {"ant": (0.2, 1.0), "humanoid": (1.0, 2.0), "hopper": (0.7, math.inf, 0.2), "walker2d": (0.8, 2.0, 1.0)}


def _known(name: str, env: Any) -> dict[str, Callable]:
    """``reward_fn`` and ``termination_fn`` where they are exact functions of the observations."""
    if name == "inverted_pendulum":
        return {"reward_fn": rewards.constant(1.0), "termination_fn": _outside(1, -0.2, 0.2)}
    if name == "reacher":
        return {"reward_fn": rewards.reacher(), "termination_fn": rewards.never}
    if name == "pusher":
        return {"reward_fn": _pusher(_half_range(env)), "termination_fn": rewards.never}
    if name == "humanoidstandup":
        return {"reward_fn": _stand_up(_half_range(env), float(env.dt)), "termination_fn": rewards.never}
    if name == "halfcheetah":
        return {"termination_fn": rewards.never}
    if name in _WALKERS:
        return {"termination_fn": rewards.fallen(*_WALKERS[name])}
    return {}


def _half_range(env: Any) -> Array:
    return env.sys.actuator.ctrl_range[:, 1]


def _outside(index: int, low: float, high: float) -> Callable:
    def end(obs: Array, action: Array, next_obs: Array) -> Array:
        del obs, action
        return (next_obs[..., index] < low) | (next_obs[..., index] > high)

    return end


def _pusher(limit: Array) -> Callable:
    """Distances of the observation *before* the step, and the action in motor units."""

    def reward(obs: Array, action: Array, next_obs: Array) -> Array:
        del next_obs
        tip, thing, goal = obs[..., 14:17], obs[..., 17:20], obs[..., 20:23]
        control = jnp.clip(action, -1.0, 1.0) * limit
        near, far = jnp.linalg.norm(thing - tip, axis=-1), jnp.linalg.norm(thing - goal, axis=-1)
        return -far - 0.1 * jnp.sum(control**2, axis=-1) - 0.5 * near

    return reward


def _stand_up(limit: Array, dt: float) -> Callable:
    """The torso's height over one time step, and a control cost."""

    def reward(obs: Array, action: Array, next_obs: Array) -> Array:
        del obs
        control = jnp.clip(action, -1.0, 1.0) * limit
        return next_obs[..., 0] / dt + 1.0 - 0.01 * jnp.sum(control**2, axis=-1)

    return reward
