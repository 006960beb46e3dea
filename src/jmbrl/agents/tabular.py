"""What the tabular systems share: numbered states, the learner that acts, the agent around both."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks, envs, learners
from jmbrl.models.transition_table import Outcomes
from jmbrl.types import Agent, Array, Cells, Env, Key, Learner, Model, PyTree, Transition


@dataclasses.dataclass(frozen=True)
class TabularConfig:
    """A grid over the observations (``envs.discretise``); all None where the environment numbers its own."""

    low: float | tuple[float, ...] | None = None
    high: float | tuple[float, ...] | None = None
    bins: int | tuple[int, ...] | None = None  # per dimension, or one for all
    action_bins: int | tuple[int, ...] | None = None  # likewise, of continuous actions


def wrap(env: Env, config: Any) -> Env:
    """The environment as the tabular systems see it: with the grid of ``config``, where it has one.

    Raises:
      ValueError: only a part of ``low``, ``high``, ``bins`` is given.
    """
    given = {name: getattr(config, name) for name in ("low", "high", "bins")}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given) and config.action_bins is None:
        return env
    if missing:
        raise ValueError(f"a grid over the observations needs low, high and bins; {', '.join(missing)} not given")
    return envs.discretise(env, **given, action_bins=config.action_bins)


def numbered(user: str, env: Env) -> tuple[Cells, int]:
    """The environment's numbering and how many actions it has, or ValueError."""
    actions = checks.discrete(user, env.spec.action, "envs.discretise with action_bins").n
    if env.cells is None:
        raise ValueError(
            f"{user} needs numbered states, but {env.spec.name} has no cells: give low, high and bins of a grid over "
            "its observations (envs.discretise)"
        )
    return env.cells, actions


def learner(env: Env, cells: Cells, config: Any) -> Learner:
    """The Q-learner of a configuration."""
    names = ("alpha", "gamma", "epsilon", "initial")
    return learners.q_learning(env.spec.action, cells.count, **{name: getattr(config, name) for name in names})


def numbered_rows(cells: Cells, rows: Transition, valid: Array) -> Transition:
    """Rows of states' numbers, -1 where a row is not valid."""
    index = jax.vmap(cells.index)
    return rows._replace(obs=jnp.where(valid, index(rows.obs), -1), next_obs=index(rows.next_obs))


class Learned(NamedTuple):
    """What a tabular system has learned: ``values[S, A]``, the weights of its model, and how it looks at them.

    ``initial``: the values at first.
    """

    values: Array
    table: Outcomes
    gamma: float
    initial: float


def learned(state: Any, config: Any) -> Learned:
    """Of the state of a system whose ``learner`` is ``learner(...)`` and whose model is a ``transition_table``."""
    return Learned(state.learner.values, state.params.weights, config.gamma, config.initial)


def agent(model: Model, learner: Learner, cells: Cells, init: Callable, record: Callable, phases: tuple) -> Agent:
    """Acts by its learner; what a step taught is all in the state, there is nothing to carry along an episode.

    ``init``'s state has ``params`` (the model's) and ``learner``.
    """

    def act(key: Key, state: Any, carry: tuple, obs: PyTree, is_first: Array, explore: bool) -> tuple:
        del is_first
        action, _ = learner.act(key, state.learner, cells.index(obs), explore)
        return action, carry, {}

    return Agent(init, lambda state: (), act, record, phases, model=model, params=lambda state: state.params)


def greedy_steps(env: Env, values: Array, limit: int, key: Key) -> Array:
    """Steps of the first-best policy from a fresh start until the episode terminates; -1 where it does not.

    Args:
      env: with ``cells``; a JAX environment.
      values: ``float32[S, A]``; equal values: the lowest action.
      limit: steps at most.
    """
    key_reset, key_step = jax.random.split(key)
    state, obs = env.reset(key_reset)

    def body(loop: tuple) -> tuple:
        state, obs, t, _ = loop
        action = jnp.argmax(values[env.cells.index(obs)]).astype(jnp.int32)
        state, seen = env.step(jax.random.fold_in(key_step, t), state, action)
        return state, seen.obs, t + 1, seen.terminated

    start = (state, obs, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    end = jax.lax.while_loop(lambda loop: (loop[2] < limit) & ~loop[3], body, start)
    return jnp.where(end[3], end[2], -1)
