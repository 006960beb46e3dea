"""Environments made from environments. Each wrapper keeps the spec true and drops what no longer holds."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.cells import behind
from jmbrl.envs.vector import select
from jmbrl.types import Array, Env, Key, PyTree, Spec, TimeStep, VectorEnv


class Stacked(NamedTuple):
    """A wrapped environment's state and its last observations, oldest first: ``[frames, ...]``."""

    inner: PyTree
    frames: Array


def mask_obs(env: Env, keep: Sequence[int]) -> Env:
    """Only the entries ``keep`` of a vector observation, in that order: a task that needs a memory.

    ``reward_fn`` and ``termination_fn`` are dropped, as they may read what is hidden; ``render``, ``cells`` likewise.
    """
    size = vector_size("mask_obs", env.spec)
    keep = tuple(checks.integer("keep[i]", i, low=0, high=size - 1) for i in keep)
    if not keep or len(set(keep)) != len(keep):
        raise ValueError(f"keep must name at least one entry, each once; got {keep}")
    names = tuple(env.spec.obs_names[i] for i in keep) if env.spec.obs_names else ()
    spec = dataclasses.replace(env.spec, obs_shape=(len(keep),), obs_names=names)
    index = np.asarray(keep)
    return map_obs(env, spec, lambda obs: obs[index])


def flatten_obs(env: Env) -> Env:
    """Observations as one ``float32`` vector; pixels (uint8) become ``[0, 1]``. Drops functions of observations.

    ``cells`` and ``legal`` are kept, as nothing is lost.
    """
    size = int(np.prod(env.spec.obs_shape, dtype=int))
    names = env.spec.obs_names if len(env.spec.obs_shape) == 1 else ()
    spec = dataclasses.replace(env.spec, obs_shape=(size,), obs_dtype="float32", obs_names=names)
    scale = 255.0 if env.spec.obs_dtype == "uint8" else 1.0

    def flatten(obs: Array) -> Array:
        return jnp.ravel(obs).astype(jnp.float32) / scale

    def restore(obs: Array) -> Array:
        obs = jnp.round(obs * scale) if scale != 1.0 else obs
        return obs.astype(env.spec.obs_dtype).reshape(env.spec.obs_shape)

    allowed = env.legal and (lambda obs: env.legal(restore(obs)))
    return map_obs(env, spec, flatten)._replace(cells=behind(env.cells, restore, flatten), legal=allowed)


def frame_stack(env: Env, frames: int) -> Env:
    """The last ``frames`` observations along the last axis, oldest first; at a reset all are the first one.

    ``reward_fn``, ``termination_fn`` and ``legal`` still hold: they are given the newest frame. ``cells`` number the
    newest too.
    """
    checks.integer("frames", frames, low=1)
    *lead, last = env.spec.obs_shape
    names = tuple(f"{n}[t-{frames - 1 - i}]" for i in range(frames) for n in env.spec.obs_names)
    spec = dataclasses.replace(env.spec, obs_shape=(*lead, frames * last), obs_names=names, obs_parts=())

    def join(stack: Array) -> Array:
        return jnp.concatenate(list(stack), axis=-1)

    def start(inner: PyTree, obs: Array) -> tuple[Stacked, Array]:
        stack = jnp.stack([obs] * frames)
        return Stacked(inner, stack), join(stack)

    def advance(state: Stacked, inner: PyTree, timestep: TimeStep) -> tuple[Stacked, TimeStep]:
        stack = jnp.concatenate([state.frames[1:], timestep.obs[None]])
        return Stacked(inner, stack), timestep._replace(obs=join(stack))

    def newest(fn: Callable | None) -> Callable | None:
        return fn and (lambda obs, action, next_obs: fn(obs[..., -last:], action, next_obs[..., -last:]))

    def still(obs: Array) -> Array:
        return jnp.concatenate([obs] * frames, axis=-1)

    wrapped = _wrap(env, spec, start, advance, lambda state: state.inner)
    draw = env.render and (lambda obs: env.render(obs[..., -last:]))
    cells = behind(env.cells, lambda obs: obs[..., -last:], still)
    allowed = env.legal and (lambda obs: env.legal(obs[..., -last:]))
    return wrapped._replace(
        reward_fn=newest(env.reward_fn), termination_fn=newest(env.termination_fn), render=draw, cells=cells,
        legal=allowed,
    )  # fmt: skip


def action_repeat(env: Env, times: int) -> Env:
    """Each action is applied ``times`` times; rewards add up, and repetition stops where the episode ends.

    ``max_steps`` shrinks to ``ceil(max_steps / times)``. ``reward_fn`` is dropped (it would need the steps in
    between), ``termination_fn`` too. A host environment repeats inside its callback: give
    ``from_gymnasium(..., action_repeat=times)``.
    """
    checks.integer("times", times, low=1)
    if env.spec.host:
        raise ValueError(f"action_repeat of {env.spec.name}: give action_repeat={times} where it is made")
    spec = env.spec
    dt = None if spec.dt is None else spec.dt * times
    spec = dataclasses.replace(spec, max_steps=-(-spec.max_steps // times), dt=dt)

    def repeat(step: Callable) -> Callable:
        def repeated(key: Key, state: PyTree, action: Array) -> tuple[PyTree, TimeStep]:
            first_key, *keys = jax.random.split(key, times)
            state, timestep = step(first_key, state, action)
            for again in keys:
                ended = timestep.terminated | timestep.truncated
                later_state, later = step(again, state, action)
                later = later._replace(reward=timestep.reward + later.reward)
                state, timestep = select(ended, (state, timestep), (later_state, later))
            return state, timestep

        return repeated

    def vector(num_envs: int) -> VectorEnv:
        inner = env.vector(num_envs)
        return inner._replace(spec=spec, step=repeat(inner.step))

    return env._replace(spec=spec, step=repeat(env.step), vector=vector, reward_fn=None, termination_fn=None)


def noisy(env: Env, action: float = 0.0, obs: float = 0.0) -> Env:
    """Uniform noise of ``+-action`` on every continuous action (in units of the action box, clipped to it) and of
    ``+-obs`` on every entry of what is seen; the true state stays as it is.

    ``reward_fn`` and ``termination_fn`` are dropped: they would read noisy values that did not decide the reward; so
    are ``cells`` and ``spec.obs_parts`` where ``obs`` is not 0 (a grid may be laid over what is seen by ``discretise``,
    outside of this).

    Source: Wang et al. 2019 (arXiv 1907.02057), section 4.4: observations 0.1 and 0.01, actions 0.1 and 0.03.
    """
    action, obs = checks.number("action", action, 0.0), checks.number("obs", obs, 0.0)
    if env.spec.host:
        raise ValueError(f"noisy needs a JAX environment, but {env.spec.name} runs on the host: add the noise there")
    checks.continuous("noisy", env.spec.action, "noise on the observations of a task with continuous actions")

    spec = env.spec if obs == 0.0 else dataclasses.replace(env.spec, obs_parts=())

    def shaken(key: Key, x: Array, width: float) -> Array:
        return x if width == 0.0 else x + jax.random.uniform(key, jnp.shape(x), minval=-width, maxval=width)

    def reset_of(reset: Callable) -> Callable:
        def noisy_reset(key: Key) -> tuple[PyTree, Array]:
            key, key_obs = jax.random.split(key)
            state, seen = reset(key)
            return state, shaken(key_obs, seen, obs)

        return noisy_reset

    def step_of(step: Callable) -> Callable:
        def noisy_step(key: Key, state: PyTree, chosen: Array) -> tuple[PyTree, TimeStep]:
            key, key_obs, key_action = jax.random.split(key, 3)
            state, seen = step(key, state, jnp.clip(shaken(key_action, chosen, action), -1.0, 1.0))
            return state, seen._replace(obs=shaken(key_obs, seen.obs, obs))

        return noisy_step

    def vector(num_envs: int) -> VectorEnv:
        inner = env.vector(num_envs)

        def restart(key: Key, done: Array, states: PyTree, seen: Array) -> tuple[PyTree, Array]:
            key, key_obs = jax.random.split(key)
            states, fresh = inner.restart(key, done, states, seen)
            return states, select(done, shaken(key_obs, fresh, obs), seen)

        return inner._replace(spec=spec, reset=reset_of(inner.reset), step=step_of(inner.step), restart=restart)

    return env._replace(
        spec=spec, reset=reset_of(env.reset), step=step_of(env.step), vector=vector, reward_fn=None,
        termination_fn=None, cells=env.cells if obs == 0.0 else None,
    )  # fmt: skip


def rename(env: Env, name: str) -> Env:
    """The same environment under another name."""
    spec = dataclasses.replace(env.spec, name=name)
    return env._replace(spec=spec, vector=lambda num_envs: env.vector(num_envs)._replace(spec=spec))


# ------------------------------------------------------------------------------------------ machinery


def map_obs(env: Env, spec: Spec, fn: Callable) -> Env:
    """``fn`` of every observation; what reads observations is dropped, ``spec`` is the new one (less ``obs_parts``)."""
    spec = dataclasses.replace(spec, obs_parts=())
    return _wrap(
        env,
        spec,
        lambda inner, obs: (inner, fn(obs)),
        lambda state, inner, timestep: (inner, timestep._replace(obs=fn(timestep.obs))),
        lambda state: state,
    )._replace(reward_fn=None, termination_fn=None, render=None, cells=None, legal=None)


def _wrap(env: Env, spec: Spec, start: Callable, advance: Callable, inner_of: Callable) -> Env:
    """One copy and many copies from the same unbatched pieces.

    ``start(inner, obs) -> (state, obs)``, ``advance(state, new_inner, timestep) -> (state, timestep)``,
    ``inner_of(state) -> inner``.
    """

    def reset(key: Key) -> tuple[PyTree, PyTree]:
        return start(*env.reset(key))

    def step(key: Key, state: PyTree, action: Array) -> tuple[PyTree, TimeStep]:
        return advance(state, *env.step(key, inner_of(state), action))

    def vector(num_envs: int) -> VectorEnv:
        inner = env.vector(num_envs)
        starts, advances = jax.vmap(start), jax.vmap(advance)

        def reset_many(key: Key) -> tuple[PyTree, PyTree]:
            return starts(*inner.reset(key))

        def step_many(key: Key, states: PyTree, actions: Array) -> tuple[PyTree, TimeStep]:
            return advances(states, *inner.step(key, inner_of(states), actions))

        def restart(key: Key, done: Array, states: PyTree, obs: PyTree) -> tuple[PyTree, PyTree]:
            # The wrapped environment's own observations are not kept; the unfinished copies' are not read.
            shapes = jax.eval_shape(inner.reset, key)[1]
            blank = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
            fresh = starts(*inner.restart(key, done, inner_of(states), blank))
            return select(done, fresh, (states, obs))

        return VectorEnv(spec, num_envs, reset_many, step_many, restart)

    return env._replace(spec=spec, reset=reset, step=step, vector=vector)


def vector_size(user: str, spec: Spec) -> int:
    """How long a vector observation is; ValueError for an image."""
    if len(spec.obs_shape) != 1:
        raise ValueError(f"{user} needs a vector observation, but {spec.name} has shape {spec.obs_shape}: flatten_obs")
    return spec.obs_shape[0]
