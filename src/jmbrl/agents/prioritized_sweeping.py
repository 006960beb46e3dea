"""Prioritized sweeping: imagined updates in the order of how much they would change (Moore & Atkeson 1993)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks, learners, models
from jmbrl.agents import tabular
from jmbrl.agents.system import System
from jmbrl.data import predecessors, priority_queue
from jmbrl.learners.q_learning import bellman_error
from jmbrl.models.transition_table import successors
from jmbrl.types import Agent, Array, Env, Key, Params, PyTree, Transition


@dataclasses.dataclass(frozen=True)
class PrioritizedSweepingConfig(tabular.TabularConfig):
    """Settings; defaults are those of the textbook's comparison (Sutton & Barto 2018, Example 8.4; reference code)."""

    planning_steps: int = 5  # updates per real step at most
    alpha: float = 0.5
    gamma: float = 0.95
    epsilon: float = 0.1
    initial: float = 0.0
    threshold: float = 1e-4  # smaller changes are not queued
    outcomes: int = 1  # next states remembered per pair; 1: a deterministic world
    predecessors: int = 16  # pairs remembered per state that lead there; rows without room are counted


class SweepingState(NamedTuple):
    """``params``: of the model; ``learner``: its ``values`` are ``float32[S, A]``."""

    params: Params
    learner: learners.QState
    queue: priority_queue.PriorityQueue
    known: predecessors.Predecessors


def prioritized_sweeping(env: Env, config: PrioritizedSweepingConfig = PrioritizedSweepingConfig()) -> Agent:
    r"""A queue of the pairs whose value would change by more than ``threshold``, the largest change first.

    After each real step its pair is queued by its Bellman error under the learned model; then up to
    ``planning_steps`` times the first pair is updated, and the known predecessors of its state are queued by theirs. A
    pair is queued once, with its latest priority. There is no other learning: a real step works through the queue.

    .. math:: P = \left| \sum_k p_k [r_k + \gamma d_k \max_{a'} Q(s_k, a')] - Q(s, a) \right|

    With ``outcomes`` above 1 updates are expected ones by the estimated probabilities (stochastic worlds).

    Args:
      env: with discrete actions and ``cells`` (or ``low``, ``high``, ``bins`` in ``config``: ``agents.tabular``).

    Raises:
      ValueError: no numbering of the states, continuous actions, a setting outside its range.

    Metrics: per period, ``sweep/backups``, ``sweep/queue`` (pairs left), ``sweep/dropped`` (predecessors without room
    so far), ``sweep/change`` (the largest priority that was worked on).

    Source: Moore & Atkeson 1993; Sutton & Barto 2018, section 8.4.
    """
    cells, actions = tabular.numbered("prioritized_sweeping", env)
    steps = checks.integer("planning_steps", config.planning_steps, 1)
    threshold = checks.number("threshold", config.threshold, 0.0)
    most = checks.integer("predecessors", config.predecessors, 1)
    model = models.transition_table(env.spec, cells, outcomes=config.outcomes)
    learner = tabular.learner(env, cells, config)

    def init(key: Key, num_envs: int) -> SweepingState:
        del num_envs
        key_model, key_learner = jax.random.split(key)
        queue = priority_queue.empty_queue(cells.count * actions)
        known = predecessors.no_predecessors(cells.count, most)
        return SweepingState(model.init(key_model), learner.init(key_learner), queue, known)

    def record(state: SweepingState, carry: PyTree, rows: Transition, valid: Array) -> SweepingState:
        numbered = tabular.numbered_rows(cells, rows, valid)
        pairs = jnp.where(valid, numbered.obs * actions + rows.action, -1)
        params = model.observe(state.params, rows, valid)
        queue = consider(state.queue, state.learner.values, params.weights, pairs, config.gamma, threshold)
        return SweepingState(params, state.learner, queue, predecessors.remember(state.known, pairs, numbered.next_obs))

    def sweep(key: Key, state: SweepingState, step: Array) -> tuple[SweepingState, dict]:
        del key, step
        options = {"alpha": config.alpha, "gamma": config.gamma, "threshold": threshold}

        def goes_on(loop: tuple) -> Array:
            return (loop[0] < steps) & (loop[2].count > 0)

        def one(loop: tuple) -> tuple:
            done, values, queue, largest = loop
            values, queue, swept = sweep_once(values, queue, state.params.weights, state.known.pairs, **options)
            return done + 1, values, queue, jnp.maximum(largest, swept.priority)

        start = (jnp.zeros((), jnp.int32), state.learner.values, state.queue, jnp.zeros(()))
        done, values, queue, largest = jax.lax.while_loop(goes_on, one, start)
        info = {
            "sweep/backups": done.astype(jnp.float32),
            "sweep/queue": queue.count.astype(jnp.float32),
            "sweep/dropped": state.known.dropped.astype(jnp.float32),
            "sweep/change": largest,
        }
        return state._replace(learner=learners.QState(values), queue=queue), info

    return tabular.agent(model, learner, cells, init, record, ((1, sweep),))


class Swept(NamedTuple):
    """One update: the pair's number, its priority (0: the queue was empty, nothing was done), what was added to it."""

    pair: Array
    priority: Array
    change: Array


def sweep_once(
    values: Array,
    queue: priority_queue.PriorityQueue,
    table: models.Outcomes,
    leads: Array,
    *,
    alpha: float | Array,
    gamma: float | Array,
    threshold: float | Array,
) -> tuple[Array, priority_queue.PriorityQueue, Swept]:
    """Update the queue's first pair by ``alpha`` times its Bellman error and queue what leads to its state.

    Args:
      values: ``float32[S, A]``.
      queue: over ``S * A`` pairs.
      table: the weights of a ``transition_table``.
      leads: ``int32[S, P]``, the pairs known to lead to each state, -1 where there is none.
      alpha, gamma, threshold: step size, discount, and the smallest change that is queued.
    """
    actions = values.shape[1]
    queue, pair, priority = priority_queue.pop(queue)
    busy = priority > 0
    change = jnp.where(busy, alpha * _errors(values, table, pair, gamma), 0.0)
    values = values.at[jnp.divmod(pair, actions)].add(change)
    before = jnp.where(busy, leads[pair // actions], -1)
    return values, consider(queue, values, table, before, gamma, threshold), Swept(pair, priority, change)


def consider(
    queue: priority_queue.PriorityQueue,
    values: Array,
    table: models.Outcomes,
    pairs: Array,
    gamma: float | Array,
    threshold: float | Array,
) -> priority_queue.PriorityQueue:
    """Queue those of ``pairs[P]``, all different (negative: none), whose Bellman error exceeds ``threshold``."""
    priority = jnp.abs(_errors(values, table, pairs, gamma))
    return priority_queue.push(queue, pairs, priority, (pairs >= 0) & (priority > threshold))


def _errors(values: Array, table: models.Outcomes, pairs: Array, gamma: float | Array) -> Array:
    place = jnp.divmod(jnp.maximum(pairs, 0), values.shape[1])
    return bellman_error(values, values[place], successors(table, *place), gamma)


SYSTEMS = (
    System(
        "prioritized_sweeping",
        PrioritizedSweepingConfig,
        prioritized_sweeping,
        "prioritized sweeping: a learned table, updated where values would change most",
        tabular.wrap,
        tabular.learned,
    ),
)
