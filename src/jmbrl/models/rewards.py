"""Wrappers that put a given reward, termination or cost into any model."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.types import Array, Key, Model, Outcome, Params, PyTree


def with_reward(model: Model, reward_fn: Callable) -> Model:
    """``model`` with its imagined reward replaced by ``reward_fn`` on decoded beliefs.

    Args:
      model: any model whose ``decode`` gives what ``reward_fn`` reads.
      reward_fn: ``(obs, action, next_obs) -> float32``, one row.
    """

    def change(outcome: Outcome, obs: PyTree, action: Array, following: PyTree) -> Outcome:
        reward = checks.pure("reward_fn", reward_fn, obs, action, following)
        return outcome._replace(reward=jnp.asarray(reward, jnp.float32))

    return _on_outcome(model, change)


def with_termination(model: Model, termination_fn: Callable) -> Model:
    """``model`` with its imagined continuation replaced: 0 where ``termination_fn`` says that the episode ends.

    Args:
      model: any model whose ``decode`` gives what ``termination_fn`` reads.
      termination_fn: ``(obs, action, next_obs) -> bool``, one row.
    """

    def change(outcome: Outcome, obs: PyTree, action: Array, following: PyTree) -> Outcome:
        ended = jnp.asarray(checks.pure("termination_fn", termination_fn, obs, action, following))
        return outcome._replace(discount=1.0 - ended.astype(jnp.float32))

    return _on_outcome(model, change)


def with_cost(model: Model, cost_fn: Callable) -> Model:
    """``model`` with its imagined costs replaced by ``cost_fn`` on decoded beliefs, for ``objective(..., budget=)``.

    Args:
      model: any model whose ``decode`` gives what ``cost_fn`` reads.
      cost_fn: ``(obs, action, next_obs) -> float32[C]``, or one number for ``C`` = 1; one row. A cost that counts
        forbidden states, 1 where one is entered, has no slope for planners that differentiate.

    Raises:
      ValueError: when traced, a cost that is neither a number nor a vector.
    """

    def change(outcome: Outcome, obs: PyTree, action: Array, following: PyTree) -> Outcome:
        cost = jnp.asarray(checks.pure("cost_fn", cost_fn, obs, action, following), jnp.float32)
        if cost.ndim > 1:
            raise ValueError(f"cost_fn must return one number or a vector for one row, got shape {cost.shape}")
        return outcome._replace(cost=jnp.atleast_1d(cost))

    return _on_outcome(model, change)


def _on_outcome(model: Model, change: Callable) -> Model:
    """``model`` with ``change(outcome, obs, action, next_obs) -> outcome`` after every imagined step."""

    def one(params: Params, belief: PyTree, action: Array, following: PyTree, outcome: Outcome) -> Outcome:
        return change(outcome, model.decode(params, belief), action, model.decode(params, following))

    many = jax.vmap(one, in_axes=(None, 0, 0, 0, 0))

    def step(key: Key, params: Params, belief: PyTree, action: Array) -> tuple[PyTree, Outcome]:
        following, outcome = model.step(key, params, belief, action)
        return following, one(params, belief, action, following, outcome)

    def step_many(key: Key, params: Params, beliefs: PyTree, actions: Array) -> tuple[PyTree, Outcome]:
        following, outcome = model.step_many(key, params, beliefs, actions)
        return following, many(params, beliefs, actions, following, outcome)

    def expect(params: Params, beliefs: PyTree, actions: Array) -> tuple[PyTree, Outcome]:
        following, outcome = model.expect(params, beliefs, actions)
        return following, many(params, beliefs, actions, following, outcome)

    member = model.member and _on_outcome(model.member, change)  # diagnostics roll members one by one
    return model._replace(step=step, step_many=step_many, expect=model.expect and expect, member=member)
