"""Worlds that change while they are lived in, and rewards put into a world."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.envs.vector import select
from jmbrl.types import Array, Env, Key, PyTree, TimeStep, VectorEnv

_AGREE = ("obs_shape", "obs_dtype", "action", "max_steps", "players")
# Kept where all environments have the same object: true throughout. Else nobody could know which one holds.
_SHARED = ("reward_fn", "termination_fn", "render", "cells", "legal")


class Aged(NamedTuple):
    """The state of the environment in force, and ``age: int32``, the real steps of the world's life so far."""

    inner: PyTree
    age: Array


class Watched(NamedTuple):
    """An environment's own state and what it shows now."""

    inner: PyTree
    obs: Array


def changing(environments: Sequence[Env], at: int | Sequence[int]) -> Env:
    """One environment whose dynamics or reward change after so many real steps: ``environments[i + 1]`` takes over at
    step ``at[i]``.

    Steps are counted over all episodes of a copy's life: ``env.reset`` sets the count to 0, the restart between
    episodes keeps it. The change may come in the middle of an episode, which goes on from the state where it stands
    (walls that must not close around an agent: the native ``blocking_maze`` waits for the episode's end). Of
    ``num_envs`` copies each has its own count, so that the change comes after ``num_envs * at`` steps of a run.

    ``reward_fn``, ``termination_fn``, ``render``, ``cells`` and ``legal`` are kept where all environments share the
    same object, and dropped elsewhere: give what holds throughout by ``env._replace(reward_fn=...)``. Every step
    computes all environments and keeps one. Test a policy in ``environments[i]`` itself: here a new world begins with
    the first.

    Args:
      environments: two or more, in JAX, which agree in shapes, actions, time limit and what their state is made of:
        one task with other parameters, or one environment under several rewards (``with_reward``).
      at: steps, rising, each at least 1; one number for two environments.

    Raises:
      ValueError: fewer than two environments, one on the host, specs or states that differ, or ``at`` out of order.

    >>> from jmbrl import envs
    >>> light, heavy = envs.make("gymnax:Pendulum-v1"), envs.make("gymnax:Pendulum-v1", m=2.0)
    >>> changing((light, heavy), at=1_000).spec.name
    'gymnax:Pendulum-v1/changing'
    """
    first, *others = _alike(environments)
    starts = _rising((at,) if isinstance(at, int) else tuple(at), len(others))

    def in_force(age: Array, options: list[PyTree]) -> PyTree:
        out, *later = options
        for start, option in zip(starts, later, strict=True):
            out = select(age >= start, option, out)
        return out

    def stepped(steps: list[Callable]) -> Callable:
        def step(key: Key, state: Aged, action: Array) -> tuple[Aged, TimeStep]:
            inner, seen = in_force(state.age, [each(key, state.inner, action) for each in steps])
            return Aged(inner, state.age + 1), seen

        return step

    def reset(key: Key) -> tuple[Aged, Array]:
        inner, obs = first.reset(key)
        return Aged(inner, jnp.zeros((), jnp.int32)), obs

    spec = dataclasses.replace(first.spec, name=f"{first.spec.name}/changing")

    def vector(num_envs: int) -> VectorEnv:
        worlds = [env.vector(num_envs) for env in environments]
        _same_states([(world.spec.name, world.reset) for world in worlds])

        def reset_many(key: Key) -> tuple[Aged, Array]:
            inner, obs = worlds[0].reset(key)
            return Aged(inner, jnp.zeros(num_envs, jnp.int32)), obs

        def restart(key: Key, done: Array, states: Aged, obs: Array) -> tuple[Aged, Array]:
            begun = [world.restart(key, done, states.inner, obs) for world in worlds]
            inner, obs = in_force(states.age, begun)
            return Aged(inner, states.age), obs

        return VectorEnv(spec, num_envs, reset_many, stepped([world.step for world in worlds]), restart)

    same = {name: _shared([getattr(env, name) for env in environments]) for name in _SHARED}
    no_gradient = next((env.no_gradient for env in environments if env.no_gradient), "")
    step = stepped([env.step for env in environments])
    return first._replace(spec=spec, reset=reset, step=step, vector=vector, no_gradient=no_gradient, **same)


def with_reward(env: Env, reward_fn: Callable) -> Env:
    """The same world with another reward, for which planners ask: a further task for a model that knows the world.

    Args:
      env: in JAX.
      reward_fn: ``(obs, action, next_obs) -> float32``, one row, the action in ``[-1, 1]``; what its episodes pay.

    Raises:
      ValueError: an environment on the host, or a function that does not return one number for one row.
    """
    if env.spec.host:
        raise ValueError(f"with_reward needs a JAX environment, but {env.spec.name} runs on the host")
    checks.row_function("reward_fn", reward_fn, env.spec)

    def stepped(inner_step: Callable, pay: Callable) -> Callable:
        def step(key: Key, state: Watched, action: Array) -> tuple[Watched, TimeStep]:
            inner, seen = inner_step(key, state.inner, action)
            reward = jnp.asarray(pay(state.obs, action, seen.obs), jnp.float32)
            return Watched(inner, seen.obs), seen._replace(reward=reward)

        return step

    def begun(inner_reset: Callable) -> Callable:
        def reset(key: Key) -> tuple[Watched, Array]:
            inner, obs = inner_reset(key)
            return Watched(inner, obs), obs

        return reset

    def vector(num_envs: int) -> VectorEnv:
        world = env.vector(num_envs)

        def restart(key: Key, done: Array, states: Watched, obs: Array) -> tuple[Watched, Array]:
            inner, obs = world.restart(key, done, states.inner, obs)
            return Watched(inner, obs), obs

        step = stepped(world.step, jax.vmap(reward_fn))
        return world._replace(reset=begun(world.reset), step=step, restart=restart)

    return env._replace(reset=begun(env.reset), step=stepped(env.step, reward_fn), vector=vector, reward_fn=reward_fn)


# ------------------------------------------------------------------------------------------ checks


def _alike(environments: Sequence[Env]) -> Sequence[Env]:
    if isinstance(environments, Env) or len(environments) < 2:
        raise ValueError("environments must be two or more of them, in a tuple")
    first = environments[0]
    for env in environments:
        if env.spec.host:
            raise ValueError(f"environments must be in JAX, but {env.spec.name} runs on the host")
        for field in _AGREE:
            got, wanted = getattr(env.spec, field), getattr(first.spec, field)
            if got != wanted:
                who = f"{first.spec.name} has {wanted}, {env.spec.name} has {got}"
                raise ValueError(f"environments must agree in spec.{field}: {who}")
    _same_states([(env.spec.name, env.reset) for env in environments])
    return environments


def _same_states(resets: list[tuple[str, Callable]]) -> None:
    found = [(name, jax.eval_shape(reset, jax.random.key(0))[0]) for name, reset in resets]
    (first_name, first), *others = found
    for name, state in others:
        if _layout(state) != _layout(first):
            raise ValueError(
                f"environments must have states made alike: {first_name} has {_layout(first)}, {name} {_layout(state)}"
            )


def _layout(state: PyTree) -> tuple:
    return jax.tree.structure(state), tuple((x.shape, str(x.dtype)) for x in jax.tree.leaves(state))


def _rising(at: tuple[int, ...], changes: int) -> tuple[int, ...]:
    if len(at) != changes:
        raise ValueError(f"at must have a step for each of the {changes} changes, got {len(at)}")
    steps = tuple(checks.integer(f"at[{i}]", step, 1, 2**31 - 1) for i, step in enumerate(at))
    if any(later <= before for before, later in itertools.pairwise(steps)):
        raise ValueError(f"at must rise, got {steps}")
    return steps


def _shared(values: list[Any]) -> Any:
    return values[0] if all(value is values[0] for value in values) else None
