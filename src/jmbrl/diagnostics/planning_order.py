"""In which order planning works through a learned table: by priority, and at random."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.agents.prioritized_sweeping import consider, sweep_once
from jmbrl.data import predecessors, priority_queue, visits
from jmbrl.learners.q_learning import back_up, bellman_error
from jmbrl.models.transition_table import Outcomes, seen, successors
from jmbrl.types import Array, Key

MOST = 256  # predecessors per state at most: a state where everything ends up would need a table of S x S A


class Order(NamedTuple):
    """Updates one after another.

    Attributes:
      pairs: ``int32[N]``, numbers ``state * actions + action``, -1 where nothing was left to do.
      change: ``float32[N]``, what was added to the pair's value.
    """

    pairs: Array
    change: Array


def sweeping_order(
    table: Outcomes, *, gamma: float, initial: float = 0.0, threshold: float = 1e-4, updates: int = 1000
) -> Order:
    r"""Prioritized sweeping of a learned table from equal values: the largest Bellman error first.

    The queue begins with every pair that was tried and whose error exceeds ``threshold``; an update is the full step
    :math:`Q(s, a) \leftarrow \sum_k p_k [r_k + \gamma d_k \max_{a'} Q(s_k, a')]` and queues the predecessors of ``s``.

    Args:
      table: the weights of a ``transition_table``.
      gamma: discount, in ``[0, 1]``.
      initial: the values at first.
      threshold: smaller changes are not queued; at least 0.
      updates: ``N``, at least 1.

    Raises:
      ValueError: a number outside its range.

    Source: Moore & Atkeson 1993; Sutton & Barto 2018, section 8.4.
    """
    _check(gamma, initial, updates)
    checks.number("threshold", threshold, 0.0)
    return _sweep(table, _predecessors(table), gamma, initial, threshold, updates)


@partial(jax.jit, static_argnames="updates")
def random_order(key: Key, table: Outcomes, *, gamma: float, initial: float = 0.0, updates: int = 1000) -> Order:
    """Dyna-Q's search control from equal values: a visited state and an action tried there, uniformly; full steps.

    Args:
      table, gamma, initial, updates: as in ``sweeping_order``.

    Source: Sutton & Barto 2018, the box of section 8.2, steps (f); equation 8.1 for the update.
    """
    _check(gamma, initial, updates)
    tried = seen(table)
    met = jnp.any(tried, axis=1)
    known = visits.no_visits(*tried.shape)._replace(
        order=jnp.argsort(~met).astype(jnp.int32), states=jnp.sum(met, dtype=jnp.int32), tried=tried
    )
    states, chosen = visits.sample_visited(key, known, updates, untried=False)
    start = jnp.full(tried.shape, initial, jnp.float32)
    _, change = back_up(start, states, chosen, successors(table, jnp.maximum(states, 0), chosen), 1.0, gamma)
    return Order(jnp.where(states >= 0, states * tried.shape[1] + chosen, -1), change)


def useful(order: Order, threshold: float = 1e-4) -> int:
    """Updates until the last one that changed a value by more than ``threshold``."""
    found = np.flatnonzero(np.abs(np.asarray(order.change)) > threshold)
    return int(found[-1]) + 1 if len(found) else 0


def residual(values: np.ndarray, table: Outcomes, gamma: float) -> float:
    """The largest Bellman error of the pairs that were tried, 0 where there are none."""
    after = successors(table, *jnp.indices(values.shape))
    errors = np.abs(np.asarray(bellman_error(jnp.asarray(values), jnp.asarray(values), after, gamma)))
    return float(errors.max(initial=0.0, where=np.asarray(seen(table))))


def values_after(order: Order, start: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """The values ``[F, S, A]`` from ``start[S, A]`` after each number of updates; ``counts[F]`` does not fall."""
    pairs, change = np.asarray(order.pairs), np.asarray(order.change)
    flat = np.array(start, np.float32).ravel()
    out, done = [], 0
    for count in counts:
        now = slice(done, count)
        np.add.at(flat, np.maximum(pairs[now], 0), np.where(pairs[now] >= 0, change[now], 0))
        out.append(flat.reshape(np.shape(start)).copy())
        done = count
    return np.stack(out)


def _check(gamma: float, initial: float, updates: int) -> None:
    checks.number("gamma", gamma, 0.0, 1.0)
    checks.number("initial", initial)
    checks.integer("updates", updates, 1)


def _predecessors(table: Outcomes) -> predecessors.Predecessors:
    """Of every state, from the whole table."""
    known = np.asarray(table.count) > 0
    states, actions, _ = known.shape
    pairs = np.where(known, np.arange(states * actions).reshape(states, actions, 1), -1).ravel()
    following = np.asarray(table.state)[known]
    most = int(np.bincount(following).max()) if len(following) else 1
    nothing = predecessors.no_predecessors(states, min(most, MOST))
    return jax.jit(predecessors.remember)(nothing, jnp.asarray(pairs, jnp.int32), table.state.ravel())


@partial(jax.jit, static_argnames="updates")
def _sweep(
    table: Outcomes, known: predecessors.Predecessors, gamma: Array, initial: Array, threshold: Array, updates: int
) -> Order:
    tried = seen(table)
    states, actions = tried.shape

    def one(loop: tuple) -> tuple:
        i, queue, values, order = loop
        values, queue, swept = sweep_once(
            values, queue, table, known.pairs, alpha=1.0, gamma=gamma, threshold=threshold
        )
        return i + 1, queue, values, Order(order.pairs.at[i].set(swept.pair), order.change.at[i].set(swept.change))

    start = jnp.full((states, actions), initial, jnp.float32)
    everything = jnp.where(tried.ravel(), jnp.arange(states * actions), -1)
    queue = consider(priority_queue.empty_queue(states * actions), start, table, everything, gamma, threshold)
    nothing = Order(jnp.full(updates, -1, jnp.int32), jnp.zeros(updates))
    loop = (jnp.zeros((), jnp.int32), queue, start, nothing)
    return jax.lax.while_loop(lambda loop: (loop[0] < updates) & (loop[1].count > 0), one, loop)[-1]
