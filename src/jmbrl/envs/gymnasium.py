"""Gymnasium environments, and anything that has Gymnasium's ``reset`` and ``step``: a robot, a plant."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback

from jmbrl import checks
from jmbrl.envs import host_spaces, render, rewards, spaces
from jmbrl.envs.host import Border, Host
from jmbrl.types import Array, Env, Key, Spec, TimeStep, VectorEnv

NAMES = (
    "Acrobot-v1",
    "Ant-v5",
    "Blackjack-v1",
    "CartPole-v1",
    "CliffWalking-v1",
    "FrozenLake-v1",
    "FrozenLake8x8-v1",
    "HalfCheetah-v5",
    "Hopper-v5",
    "Humanoid-v5",
    "HumanoidStandup-v5",
    "InvertedDoublePendulum-v5",
    "InvertedPendulum-v5",
    "MountainCar-v0",
    "MountainCarContinuous-v0",
    "Pendulum-v1",
    "Pusher-v5",
    "Reacher-v5",
    "Swimmer-v5",
    "Taxi-v4",
    "Walker2d-v5",
)
OPEN = True  # any id that Gymnasium has registered

# Given only where the environment is made with no arguments of its own.
KNOWN: dict[str, dict[str, Any]] = {
    "Pendulum-v1": {
        "reward_fn": rewards.pendulum(),
        "termination_fn": rewards.never,
        "obs_names": ("cos_theta", "sin_theta", "theta_dot"),
        "dt": 0.05,
        "render": render.pendulum,
    },
    "CartPole-v1": {
        "reward_fn": rewards.constant(1.0),
        "termination_fn": rewards.cart_pole_end,
        "obs_names": ("x", "x_dot", "theta", "theta_dot"),
        "dt": 0.02,
    },
    "MountainCarContinuous-v0": {
        "reward_fn": rewards.mountain_car,
        "termination_fn": rewards.mountain_car_end,
        "obs_names": ("position", "velocity"),
    },
    "InvertedPendulum-v5": {
        "reward_fn": rewards.inverted_pendulum,
        "termination_fn": rewards.inverted_pendulum_end,
        "obs_names": ("x", "theta", "x_dot", "theta_dot"),
        "dt": 0.04,
    },
    "Reacher-v5": {"reward_fn": rewards.reacher(distance_at=-2), "termination_fn": rewards.never, "dt": 0.02},
    "HalfCheetah-v5": {"termination_fn": rewards.never, "dt": 0.05},
    # Also where a hidden velocity passes 100, which no observation shows (they are cut at 10).
    "Hopper-v5": {"termination_fn": rewards.fallen(0.7, math.inf, 0.2), "dt": 0.008},
    "Walker2d-v5": {"termination_fn": rewards.fallen(0.8, 2.0, 1.0), "dt": 0.008},
    "Ant-v5": {"termination_fn": rewards.fallen(0.2, 1.0), "dt": 0.05},
    "Humanoid-v5": {"termination_fn": rewards.fallen(1.0, 2.0), "dt": 0.015},
}


def make(name: str, max_steps: int | None = None, **options: Any) -> Env:
    """``from_gymnasium`` of a registered id; see there."""
    return from_gymnasium(name, max_steps=max_steps, **options)


def from_gymnasium(
    source: Any,
    *,
    max_steps: int | None = None,
    act_limit: float | None = None,
    action_repeat: int = 1,
    name: str | None = None,
    reward_fn: Callable | None = None,
    termination_fn: Callable | None = None,
    **options: Any,
) -> Env:
    """A Gymnasium environment, or any object or function that makes one, as an ``Env``.

    Args:
      source: a registered id, a function that makes an environment, or one environment (``vector`` is then
        limited to one copy).
      max_steps: the time limit, in raw steps; None takes the environment's own.
      act_limit: bounds for action dimensions that have none.
      action_repeat: raw steps for one action, rewards summed, stopping at an episode's end.
      name: what messages call it.
      reward_fn, termination_fn: ``(obs, action, next_obs)`` with the action in ``[-1, 1]``, where known.
      options: passed to ``gymnasium.make`` or to the function.

    Every copy is stepped in one call out of the compiled program. Resets are seeded from the key, so the same key
    gives the same episodes, as far as the environment honours its seed. No environment resets itself: the last
    observation of an episode is the true one. Observations: images stay ``uint8``, dictionaries and tuples are
    flattened with names, discrete ones become one-hot, all else is ``float32``. Discrete observations, also of several
    parts (the last counts fastest), are numbered by ``Env.cells`` if there are at most 2^24.

    Raises:
      ValueError: no time limit, infinite action bounds without ``act_limit``, an unsupported space, or an unknown
        id. While running: what the environment raised, in full; ``host_error()`` has the exception itself. Under
        ``jax.vmap``: always, since lanes cannot share one environment.
    """
    checks.integer("action_repeat", action_repeat, low=1)
    create, label, known, copies = _source(source, max_steps, options)
    first = create()
    label = name or label
    limit = _time_limit(label, first, max_steps)
    action_space, to_raw = host_spaces.action(label, first.action_space, act_limit)
    observation = host_spaces.observation(label, first.observation_space)
    if action_repeat > 1:  # the reward of several steps is not a function of their two ends
        known = {k: v for k, v in known.items() if k in ("obs_names", "render")}
    spec = Spec(
        label,
        observation.shape,
        action_space,
        -(-limit // action_repeat),
        observation.dtype,
        known.pop("obs_names", observation.names),
        host=True,
        dt=known.pop("dt", None),
        obs_parts=observation.parts,
    )
    border = Border(label, to_raw, observation.read, observation.shape, observation.dtype, limit, action_repeat)
    host = Host(create, border, first, copies)
    known |= {k: v for k, v in (("reward_fn", reward_fn), ("termination_fn", termination_fn)) if v}
    cells = host_spaces.laid_out(observation.cells, getattr(first, "unwrapped", first))
    return _env(spec, host)._replace(cells=cells, **known)


def _source(source: Any, max_steps: int | None, options: dict) -> tuple[Callable, str, dict, int | None]:
    """``(create, name, known functions, most copies)``."""
    if isinstance(source, str):
        import gymnasium

        if source not in gymnasium.registry:
            from jmbrl.envs.registry import unknown

            raise unknown(f"gymnasium:{source}", tuple(f"gymnasium:{n}" for n in gymnasium.registry))
        arguments = dict(options) if max_steps is None else {**options, "max_episode_steps": max_steps}
        known = {} if options else dict(KNOWN.get(source, {}))
        # The checker's asserts repeat ours on every step.
        return (
            lambda: gymnasium.make(source, disable_env_checker=True, **arguments),
            f"gymnasium:{source}",
            known,
            None,
        )
    made = not isinstance(source, type) and all(callable(getattr(source, n, None)) for n in ("reset", "step"))
    if made:
        if options:
            raise ValueError(f"options {sorted(options)} cannot be applied to an environment that is made already")
        return lambda: source, type(source).__name__, {}, 1
    if callable(source):
        return lambda: source(**options), getattr(source, "__name__", type(source).__name__), {}, None
    raise ValueError(f"source must be an id, an environment or a function that makes one, got {source!r}")


def _time_limit(name: str, env: Any, max_steps: int | None) -> int:
    own = getattr(getattr(env, "spec", None), "max_episode_steps", None)
    if max_steps is None and own is None:
        raise ValueError(f"max_steps must be given for {name}: it has no time limit of its own")
    limits = [checks.integer("max_steps", v, low=1) for v in (max_steps, own) if v is not None]
    return min(limits)


# ------------------------------------------------------------------------------------------ the JAX side


def _env(spec: Spec, host: Host) -> Env:
    def vector(num_envs: int) -> VectorEnv:
        return _vector(spec, host, checks.integer("num_envs", num_envs, low=1))

    one = vector(1)

    def first(tree: Any) -> Any:
        return jax.tree.map(lambda x: x[0], tree)

    def reset(key: Key) -> tuple[Array, Array]:
        return first(one.reset(key))

    def step(key: Key, state: Array, action: Array) -> tuple[Array, TimeStep]:
        return first(one.step(key, state[None], jnp.asarray(action)[None]))

    return Env(spec, reset, step, vector, close=host.close)


def _vector(spec: Spec, host: Host, num_envs: int) -> VectorEnv:
    rows = (num_envs,)
    handle = jax.ShapeDtypeStruct(rows, jnp.int32)
    obs = jax.ShapeDtypeStruct((num_envs, *spec.obs_shape), jnp.dtype(spec.obs_dtype))
    flag = jax.ShapeDtypeStruct(rows, jnp.bool_)
    reward = jax.ShapeDtypeStruct(rows, jnp.float32)

    # Not `ordered`: each call takes the handle that the last one returned, which orders them well enough.
    call_reset = _refuse_vmap(
        lambda seeds: io_callback(lambda s: host.reset(num_envs, np.asarray(s)), (handle, obs), seeds)
    )
    call_step = _refuse_vmap(
        lambda state, actions: io_callback(
            lambda h, a: host.step(np.asarray(h), np.asarray(a)), (handle, obs, reward, flag, flag), state, actions
        )
    )
    call_restart = _refuse_vmap(
        lambda state, done, seeds: io_callback(
            lambda h, d, s: host.restart(np.asarray(h), np.asarray(d), np.asarray(s)), (handle, obs), state, done, seeds
        )
    )

    def seeds(key: Key) -> Array:
        return jax.random.bits(key, rows, jnp.uint32)

    def reset(key: Key) -> tuple[Array, Array]:
        return call_reset(seeds(key))

    def step(key: Key, states: Array, actions: Array) -> tuple[Array, TimeStep]:
        del key  # the environments' own generators, seeded at reset, draw the noise
        actions = jnp.asarray(actions)
        checks.same_shape("actions", actions.shape, rows + spec.action.shape, f"{num_envs} x the spec of {spec.name}")
        actions = jax.vmap(lambda a: spaces.check_action(spec.name, spec.action, a))(actions)
        states, *timestep = call_step(states, jax.lax.stop_gradient(actions))
        return states, TimeStep(*timestep)

    def restart(key: Key, done: Array, states: Array, last: Array) -> tuple[Array, Array]:
        def some() -> tuple[Array, Array]:
            new, fresh = call_restart(states, done, seeds(key))
            return new, jnp.where(done.reshape(rows + (1,) * len(spec.obs_shape)), fresh, last)

        return jax.lax.cond(jnp.any(done), some, lambda: (states, last))

    return VectorEnv(spec, num_envs, reset, step, restart)


def _refuse_vmap(call: Callable) -> Callable:
    """``call`` that raises under ``vmap``, where JAX would run it once a lane on one and the same environment."""
    guarded = jax.custom_batching.custom_vmap(call)

    @guarded.def_vmap
    def rule(axis_size: int, in_batched: list, *args: Any) -> Any:
        raise ValueError("a host environment cannot be vmapped over seeds; use num_envs or one process per seed")

    return guarded
