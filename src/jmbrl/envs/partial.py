"""Environments that show less than the truth: entries left out, whole observations lost, pictures for numbers."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.envs import render
from jmbrl.envs.vector import select
from jmbrl.envs.wrappers import map_obs, vector_size
from jmbrl.types import Array, Env, Key, PyTree, Spec, TimeStep, VectorEnv


def masked(env: Env, keep: Sequence[int | str]) -> Env:
    """Only what ``keep`` names of the last axis, in that order: entries of a vector, channels of an image.

    ``reward_fn``, ``termination_fn``, ``render`` and ``cells`` are dropped, as they may read what is hidden. Host
    environments too: their observations are cut outside the call.

    Args:
      env: an environment, or a host environment.
      keep: numbers in ``[0, obs_shape[-1])`` or, where the entries have names, ``spec.obs_names``; each once.

    Raises:
      ValueError: nothing kept, something kept twice, a number out of range, or a name that there is not.
    """
    index = _numbers(env.spec, keep)
    names = tuple(env.spec.obs_names[i] for i in index) if env.spec.obs_names else ()
    spec = dataclasses.replace(env.spec, obs_shape=(*env.spec.obs_shape[:-1], len(index)), obs_names=names)
    return map_obs(env, spec, lambda obs: obs[..., index])


def _numbers(spec: Spec, keep: Sequence[int | str]) -> np.ndarray:
    """Where on the last axis the entries ``keep`` are."""
    if isinstance(keep, str) or not isinstance(keep, Sequence | np.ndarray):
        raise ValueError(f"keep must be a sequence of numbers or names, got {keep!r}")
    known = ", ".join(spec.obs_names) or "no names"
    for entry in keep:
        if isinstance(entry, str) and entry not in spec.obs_names:
            raise ValueError(f"keep must name entries of {spec.name}, which has {known}; got {entry!r}")
    last = spec.obs_shape[-1] - 1
    index = [
        spec.obs_names.index(entry) if isinstance(entry, str) else checks.integer("keep[i]", entry, low=0, high=last)
        for entry in keep
    ]
    if not index or len(set(index)) != len(index):
        raise ValueError(f"keep must name at least one entry, each once; got {tuple(keep)}")
    return np.asarray(index)


def flickering(env: Env, p: float = 0.5) -> Env:
    """With probability ``p`` an observation, the first one too, is lost: zeros are seen in its place.

    Whether it is lost is drawn anew for each observation from the key that ``reset``, ``step`` and ``restart`` get, so
    host environments flicker too. The state goes on as it is. ``reward_fn``, ``termination_fn`` and ``cells`` are
    dropped, as zeros tell nothing. Stack frames outside: ``frame_stack(flickering(env), 4)`` loses single frames.

    Args:
      env: an environment, or a host environment.
      p: the probability, in ``[0, 1]``.

    Raises:
      ValueError: ``p`` is no number in ``[0, 1]``.

    Source: Hausknecht and Stone 2015 (arXiv 1507.06527), section 5, with ``p = 0.5``.
    """
    p = checks.number("p", p, 0.0, 1.0)
    axes = len(env.spec.obs_shape)

    def seen(key: Key, obs: Array) -> Array:
        lost = jax.random.bernoulli(key, p, obs.shape[: obs.ndim - axes])
        return select(lost, jnp.zeros_like(obs), obs)

    def reset_of(reset: Callable) -> Callable:
        def flickering_reset(key: Key) -> tuple[PyTree, Array]:
            key, key_seen = jax.random.split(key)
            state, obs = reset(key)
            return state, seen(key_seen, obs)

        return flickering_reset

    def step_of(step: Callable) -> Callable:
        def flickering_step(key: Key, state: PyTree, action: Array) -> tuple[PyTree, TimeStep]:
            key, key_seen = jax.random.split(key)
            state, timestep = step(key, state, action)
            return state, timestep._replace(obs=seen(key_seen, timestep.obs))

        return flickering_step

    def vector(num_envs: int) -> VectorEnv:
        inner = env.vector(num_envs)

        def restart(key: Key, done: Array, states: PyTree, obs: Array) -> tuple[PyTree, Array]:
            key, key_seen = jax.random.split(key)
            states, fresh = inner.restart(key, done, states, obs)
            return states, select(done, seen(key_seen, fresh), obs)

        return inner._replace(reset=reset_of(inner.reset), step=step_of(inner.step), restart=restart)

    return env._replace(
        reset=reset_of(env.reset), step=step_of(env.step), vector=vector, reward_fn=None, termination_fn=None,
        cells=None, legal=None,
    )  # fmt: skip


def rendered(env: Env, view: Callable) -> Env:
    """A picture of each vector observation in its place; the last one of an episode is still the true successor.

    ``reward_fn``, ``termination_fn`` and ``cells`` are dropped; ``render`` shows the picture itself. Host environments
    too: the picture is drawn outside the call.

    Args:
      env: an environment, or a host environment, of vector observations.
      view: ``(obs) -> uint8[H, W, C]`` in JAX, unbatched.

    Raises:
      ValueError: images already, or ``view`` does not return such an array.
    """
    vector_size("rendered", env.spec)
    obs = jax.ShapeDtypeStruct(env.spec.obs_shape, jnp.dtype(env.spec.obs_dtype))
    picture = jax.eval_shape(lambda obs: checks.pure("view", view, obs), obs)
    shape, dtype = getattr(picture, "shape", None), getattr(picture, "dtype", None)
    if shape is None or len(shape) != 3 or dtype != jnp.uint8:
        raise ValueError(f"view of {env.spec.name} must return uint8[H, W, C], got {picture}")
    spec = dataclasses.replace(env.spec, obs_shape=tuple(shape), obs_dtype="uint8", obs_names=())
    return map_obs(env, spec, view)._replace(render=render.image if shape[2] in (1, 3) else None)
