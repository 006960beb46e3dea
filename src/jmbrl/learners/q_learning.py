"""Q-learning on a table (Watkins 1989), from single rows and from a model's expectation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.types import ActionSpace, Array, Key, Learner, Successors, Transition


class QState(NamedTuple):
    """``values``: ``float32[S, A]``."""

    values: Array


def bellman_error(values: Array, current: Array, after: Successors, gamma: float | Array) -> Array:
    r"""How far pairs are from what the values of their successors say.

    .. math:: \delta = \sum_k p_k \left[ r_k + \gamma d_k \max_{a'} Q(s_k, a') \right] - Q(s, a)

    Args:
      values: ``float32[S, A]``.
      current: the pairs' own values, any shape ``[...]``.
      after: leaves ``[..., K]``.
      gamma: discount.

    Source: Sutton & Barto 2018, equations 6.8 (one sample) and 8.1 (expected update).
    """
    following = jnp.max(values[after.state], axis=-1)
    return jnp.sum(after.chance * (after.reward + gamma * after.discount * following), axis=-1) - current


def back_up(
    values: Array, states: Array, actions: Array, after: Successors, alpha: float | Array, gamma: float | Array
) -> tuple[Array, Array]:
    r"""One update after another, each on what the last one left: :math:`Q(s, a) \leftarrow Q(s, a) + \alpha \delta`.

    Args:
      values: ``float32[S, A]``.
      states, actions: ``int32[B]``; a row whose state is negative is skipped.
      after: leaves ``[B, K]``.
      alpha: step size.
      gamma: discount.

    Returns:
      The new values, and each row's error before its update ``[B]``, 0 where it was skipped.
    """

    def one(values: Array, row: tuple) -> tuple[Array, Array]:
        state, action, after = row
        error = bellman_error(values, values[state, action], after, gamma)
        delta = jnp.where(state >= 0, error, 0.0)
        return values.at[jnp.maximum(state, 0), action].add(alpha * delta), delta

    return jax.lax.scan(one, values, (states, actions, after))


def q_learning(
    action: ActionSpace,
    states: int,
    *,
    alpha: float | Array = 0.1,
    gamma: float | Array = 0.95,
    epsilon: float | Array = 0.1,
    initial: float | Array = 0.0,
) -> Learner:
    r"""One-step tabular Q-learning with an :math:`\epsilon`-greedy policy.

    .. math:: Q(s, a) \leftarrow Q(s, a) + \alpha \left[ r + \gamma \max_{a'} Q(s', a') - Q(s, a) \right]

    Features are states' numbers, ``int32`` in ``[0, states)``. ``update`` takes the rows of a ``Transition[B]`` one
    after another, in their order; a row whose state is negative is skipped. Its key is not used. Exploring, ties are
    broken at random; otherwise the lowest of the best actions is taken.

    Args:
      action: discrete.
      states: how many.
      alpha: step size, in ``[0, 1]``.
      gamma: discount, in ``[0, 1]``.
      epsilon: chance of a uniformly random action when exploring, in ``[0, 1]``.
      initial: the values at first; large ones explore.

    Raises:
      ValueError: continuous actions, or a number outside its range.

    Info: ``backups`` (rows used), ``td_error`` (mean size of their errors), ``updates`` (1), ``skipped`` and
    ``nonfinite_loss`` (1 where a reward was not finite: nothing is learned from such a batch), ``nonfinite_grad`` (0).

    Source: Watkins 1989; Sutton & Barto 2018, section 6.5.
    """
    choices = checks.discrete("q_learning", action, "sac, or envs.discretise with action_bins").n
    states = checks.integer("states", states, 1)
    for name, value in (("alpha", alpha), ("gamma", gamma), ("epsilon", epsilon)):
        checks.number(name, value, 0.0, 1.0)
    checks.number("initial", initial)

    def init(key: Key) -> QState:
        del key
        return QState(jnp.full((states, choices), initial, jnp.float32))

    def act(key: Key, state: QState, features: Array, explore: bool) -> tuple[Array, Array]:
        values = state.values[features]
        if not explore:
            return jnp.argmax(values).astype(jnp.int32), jnp.zeros(())
        noise, chance = jnp.split(jax.random.uniform(key, (choices + 1,)), [choices])
        best = values == jnp.max(values)
        # One noise serves twice: its largest entry is a random action, its largest among the best a random best one.
        candidates = best | (chance[0] < epsilon)
        chosen = jnp.argmax(jnp.where(candidates, noise, -1.0)).astype(jnp.int32)
        return chosen, jnp.log(epsilon / choices + (1 - epsilon) * best[chosen] / jnp.sum(best))

    def update(key: Key, state: QState, data: Transition) -> tuple[QState, dict[str, Array]]:
        del key
        finite = jnp.all(jnp.isfinite(data.reward))
        rows = jnp.where(finite, data.obs, -1)
        sure = Successors(
            jnp.ones_like(data.reward)[:, None],
            data.next_obs[:, None],
            jnp.where(finite, data.reward, 0.0)[:, None],
            1.0 - data.terminated.astype(jnp.float32)[:, None],
        )
        values, delta = back_up(state.values, rows, data.action, sure, alpha, gamma)
        return QState(values), {**summary(rows, delta), **health(~finite)}

    return Learner(init, act, update)


def summary(states: Array, delta: Array) -> dict[str, Array]:
    """``backups`` and ``td_error`` of what ``back_up`` was given and returned."""
    count = jnp.sum(states >= 0, dtype=jnp.float32)
    return {"backups": count, "td_error": jnp.sum(jnp.abs(delta)) / jnp.maximum(count, 1.0)}


def health(refused: Array) -> dict[str, Array]:
    """The counters that every learner reports."""
    flag = refused.astype(jnp.float32)
    return {"updates": 1.0 - flag, "skipped": flag, "nonfinite_loss": flag, "nonfinite_grad": jnp.zeros(())}
