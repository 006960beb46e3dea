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
from jmbrl.types import Agent, Array, Env, Key, Params, Transition


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
    predecessors: int = 32  # pairs remembered per state that lead there; rows without room are counted


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

    def record(state: SweepingState, rows: Transition, valid: Array) -> SweepingState:
        numbered = tabular.numbered_rows(cells, rows, valid)
        pairs = jnp.where(valid, numbered.obs * actions + rows.action, -1)
        known = predecessors.remember(state.known, pairs, numbered.next_obs)
        state = state._replace(params=model.observe(state.params, rows, valid), known=known)
        return jax.lax.scan(lambda state, pair: (consider(state, pair[None]), None), state, pairs)[0]

    def errors(state: SweepingState, pairs: Array) -> Array:
        place = jnp.divmod(jnp.maximum(pairs, 0), actions)
        values = state.learner.values
        return bellman_error(values, values[place], successors(state.params.weights, *place), config.gamma)

    def consider(state: SweepingState, pairs: Array) -> SweepingState:
        """Queue those of ``pairs[P]`` (negative: none) that would change enough."""
        priority = jnp.abs(errors(state, pairs))
        wanted = (pairs >= 0) & (priority > threshold)
        return state._replace(queue=priority_queue.push(state.queue, pairs, priority, wanted))

    def one(state: SweepingState, _: None) -> tuple[SweepingState, tuple]:
        queue, pair, priority = priority_queue.pop(state.queue)
        busy = priority > 0
        place = jnp.divmod(pair, actions)
        change = jnp.where(busy, config.alpha * errors(state, pair[None])[0], 0.0)
        learned = learners.QState(state.learner.values.at[place].add(change))
        state = state._replace(queue=queue, learner=learned)
        return consider(state, jnp.where(busy, state.known.pairs[place[0]], -1)), (busy, priority)

    def sweep(key: Key, state: SweepingState, step: Array) -> tuple[SweepingState, dict]:
        del key, step
        state, (busy, priority) = jax.lax.scan(one, state, None, steps)
        info = {
            "sweep/backups": jnp.sum(busy, dtype=jnp.float32),
            "sweep/queue": priority_queue.length(state.queue).astype(jnp.float32),
            "sweep/dropped": state.known.dropped.astype(jnp.float32),
            "sweep/change": jnp.max(priority),
        }
        return state, info

    return tabular.agent(model, learner, cells, init, record, ((1, sweep),))


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
