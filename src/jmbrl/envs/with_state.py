"""The true state beside the observation: for planning with the simulator itself."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from jmbrl.cells import behind
from jmbrl.envs.vector import Pooled
from jmbrl.types import Array, Env, Key, PyTree, TimeStep, VectorEnv


class StateObs(NamedTuple):
    """An observation together with the true state it came from."""

    obs: Array
    state: PyTree


def with_state(env: Env) -> Env:
    """Observations become ``StateObs(obs, state)``: what the true simulator needs in order to plan.

    ``spec`` still describes ``obs``; ``reward_fn``, ``termination_fn`` and ``render`` read ``.obs``. ``cells.index``
    and ``legal`` take a ``StateObs`` or its ``.obs``, and ``cells.centre`` gives an ``.obs``: no state belongs to a
    number.
    """
    if env.spec.host:
        raise ValueError(f"with_state needs a JAX environment: the state of {env.spec.name} lives on the host")

    def reset(key: Key) -> tuple[PyTree, StateObs]:
        state, obs = env.reset(key)
        return state, StateObs(obs, state)

    def step(key: Key, state: PyTree, action: Array) -> tuple[PyTree, TimeStep]:
        state, timestep = env.step(key, state, action)
        return state, timestep._replace(obs=StateObs(timestep.obs, state))

    def inside(fn: Callable | None) -> Callable | None:
        return fn and (lambda obs, action, next_obs: fn(obs.obs, action, next_obs.obs))

    def vector(num_envs: int) -> VectorEnv:
        inner = env.vector(num_envs)

        def reset_many(key: Key) -> tuple[PyTree, StateObs]:
            states, obs = inner.reset(key)
            return states, StateObs(obs, _without_pool(states))

        def step_many(key: Key, states: PyTree, actions: Array) -> tuple[PyTree, TimeStep]:
            states, timestep = inner.step(key, states, actions)
            return states, timestep._replace(obs=StateObs(timestep.obs, _without_pool(states)))

        def restart(key: Key, done: Array, states: PyTree, seen: StateObs) -> tuple[PyTree, StateObs]:
            states, obs = inner.restart(key, done, states, seen.obs)
            return states, StateObs(obs, _without_pool(states))

        return inner._replace(reset=reset_many, step=step_many, restart=restart)

    return env._replace(
        reset=reset,
        step=step,
        vector=vector,
        reward_fn=inside(env.reward_fn),
        termination_fn=inside(env.termination_fn),
        render=env.render and (lambda obs: env.render(obs.obs)),
        cells=behind(env.cells, lambda seen: getattr(seen, "obs", seen), lambda obs: obs),
        legal=env.legal and (lambda obs: env.legal(getattr(obs, "obs", obs))),
    )


def _without_pool(states: PyTree) -> PyTree:
    """What ``Env.step`` takes, of the states of copies whose episodes start from a pool (``vectorize_pooled``)."""
    is_pooled = lambda x: isinstance(x, Pooled)  # noqa: E731
    return jax.tree.map(lambda x: x.current if is_pooled(x) else x, states, is_leaf=is_pooled)
