"""Many copies of a JAX environment side by side."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.types import Array, Env, Key, PyTree, VectorEnv


def select(flag: Array, yes: PyTree, no: PyTree) -> PyTree:
    """``yes`` where ``flag`` else ``no``, leaf by leaf; ``flag`` has the leaves' leading axes."""

    def leaf(a: Array, b: Array) -> Array:
        return jnp.where(flag.reshape(flag.shape + (1,) * (a.ndim - flag.ndim)), a, b)

    return jax.tree.map(leaf, yes, no)


def vectorize(env: Env, num_envs: int, restart: Callable | None = None) -> VectorEnv:
    """``num_envs`` copies by ``jax.vmap``; finished copies restart by a select against fresh starts.

    Args:
      env: what is copied.
      num_envs: how many copies.
      restart: ``(key, env_state) -> (env_state, obs)``, how one copy begins anew from the state in which its last
        episode ended; called for all copies at every step, so cheap and pure. None: ``env.reset(key)``.
        ``env.vector`` knows an environment's own.

    Raises:
      ValueError: ``num_envs`` is below one, or ``env`` lives on the host (it brings its own ``vector``).
    """
    checks.integer("num_envs", num_envs, low=1)
    if env.spec.host:
        raise ValueError(f"{env.spec.name} runs on the host: use env.vector(num_envs), one call for all copies")

    def reset(key: Key) -> tuple[PyTree, PyTree]:
        return jax.vmap(env.reset)(jax.random.split(key, num_envs))

    def step(key: Key, states: PyTree, actions: Array) -> tuple[PyTree, PyTree]:
        return jax.vmap(env.step)(jax.random.split(key, num_envs), states, actions)

    def begin(key: Key, state: PyTree) -> tuple[PyTree, PyTree]:
        return env.reset(key) if restart is None else restart(key, state)

    def restart_done(key: Key, done: Array, states: PyTree, obs: PyTree) -> tuple[PyTree, PyTree]:
        fresh = jax.vmap(begin)(jax.random.split(key, num_envs), states)
        return select(done, fresh, (states, obs))

    return VectorEnv(env.spec, num_envs, reset, step, restart_done)


class Pooled(NamedTuple):
    """The copies' states, and each copy's share of the start states: leaves ``[num_envs, share, ...]``."""

    current: PyTree
    starts: PyTree


def vectorize_pooled(env: Env, num_envs: int, pool: int) -> VectorEnv:
    """As ``vectorize``, but episodes start from at least ``pool`` states sampled once, at ``reset``.

    For environments whose reset costs as much as a step: a select would pay for one every step. Each restart
    draws one of the states uniformly. The pool travels in the states, spread over the copies, so that every
    array keeps its leading axis ``num_envs``.
    """
    checks.integer("num_envs", num_envs, low=1)
    checks.integer("reset_pool", pool, low=1)
    share = -(-pool // num_envs)
    inner = vectorize(env, num_envs)

    def reset(key: Key) -> tuple[Pooled, PyTree]:
        starts = jax.vmap(env.reset)(jax.random.split(key, num_envs * share))
        starts = jax.tree.map(lambda x: x.reshape(num_envs, share, *x.shape[1:]), starts)
        states, obs = jax.tree.map(lambda x: x[:, 0], starts)
        return Pooled(states, starts), obs

    def step(key: Key, states: Pooled, actions: Array) -> tuple[Pooled, PyTree]:
        current, timestep = inner.step(key, states.current, actions)
        return Pooled(current, states.starts), timestep

    def restart(key: Key, done: Array, states: Pooled, obs: PyTree) -> tuple[Pooled, PyTree]:
        rows = jax.random.randint(key, (num_envs,), 0, num_envs * share)
        fresh = jax.tree.map(lambda x: x.reshape(num_envs * share, *x.shape[2:])[rows], states.starts)
        current, obs = select(done, fresh, (states.current, obs))
        return Pooled(current, states.starts), obs

    return VectorEnv(env.spec, num_envs, reset, step, restart)


def vector_factory(env: Env, pool: int | None = None, restart: Callable | None = None) -> Callable[[int], VectorEnv]:
    """The ``Env.vector`` of a JAX environment, whose episodes begin from a pool, by ``restart``, or by a reset."""
    if pool is not None and restart is not None:
        raise ValueError(f"reset_pool={pool} and restart of {env.spec.name} exclude each other: both begin an episode")
    if pool is None:
        return lambda num_envs: vectorize(env, num_envs, restart)
    checks.integer("reset_pool", pool, low=1)
    return lambda num_envs: vectorize_pooled(env, num_envs, pool)
