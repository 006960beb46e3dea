"""Dyna-Q and Dyna-Q+: learning, model learning and planning by imagined steps, in a table (Sutton 1990, 1991)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks, learners, models
from jmbrl.agents import tabular
from jmbrl.agents.system import System
from jmbrl.data import visits
from jmbrl.learners.q_learning import back_up, bellman_error, summary
from jmbrl.models.transition_table import successors
from jmbrl.types import Agent, Array, Env, Key, Params, PyTree, Successors, Transition

BACKUPS = ("sample", "expected", "full")


@dataclasses.dataclass(frozen=True)
class DynaQConfig(tabular.TabularConfig):
    """Settings; defaults are those of the textbook's Dyna maze (Sutton & Barto 2018, Example 8.1)."""

    planning_steps: int = 5  # imagined updates per real step; 0: Q-learning alone
    alpha: float = 0.1
    gamma: float = 0.95
    epsilon: float = 0.1
    initial: float = 0.0
    kappa: float = 0.0  # above 0: Dyna-Q+
    untried: bool | None = None  # whether untried actions of visited states are imagined too; None: in Dyna-Q+
    outcomes: int = 1  # next states remembered per pair; 1: a deterministic world
    backup: str = "sample"  # of an imagined update: "sample", "expected", or "full" (planning_steps sweeps over all)
    planning_alpha: float | None = None  # step size of imagined updates; None: alpha


class DynaQState(NamedTuple):
    """``params``: of the model; ``learner``: its ``values`` are ``float32[S, A]``."""

    params: Params
    learner: learners.QState
    visits: visits.Visits


def dyna_q(env: Env, config: DynaQConfig = DynaQConfig()) -> Agent:
    r"""Q-learning from every real step, then ``planning_steps`` updates from a learned model of the pairs visited.

    Dyna-Q+ adds :math:`\kappa \sqrt{\tau}` to an imagined reward, :math:`\tau` the real steps since the pair was last
    tried; an action that never was tried counts as if it were at step 1, led back to its state and paid nothing.

    Args:
      env: with discrete actions and ``cells`` (or ``low``, ``high``, ``bins`` in ``config``: ``agents.tabular``).

    Raises:
      ValueError: no numbering of the states, continuous actions, a setting outside its range.

    Metrics: ``plan/...`` of the learner, per period.

    Source: Sutton & Barto 2018, the boxes of sections 8.2 (Dyna-Q) and 8.3 (Dyna-Q+); 8.5 for expected updates.
    """
    cells, actions = tabular.numbered("dyna_q", env)
    steps = checks.integer("planning_steps", config.planning_steps, 0)
    kappa = checks.number("kappa", config.kappa, 0.0)
    backup = checks.choice("backup", config.backup, BACKUPS)
    plain = isinstance(kappa, int | float) and kappa == 0  # an array may be anything
    untried = not plain if config.untried is None else config.untried
    alpha = config.alpha if config.planning_alpha is None else config.planning_alpha
    checks.number("planning_alpha", alpha, 0.0, 1.0)
    model = models.transition_table(env.spec, cells, outcomes=config.outcomes)
    learner = tabular.learner(env, cells, config)

    def init(key: Key, num_envs: int) -> DynaQState:
        del num_envs
        key_model, key_learner = jax.random.split(key)
        nothing = visits.no_visits(cells.count, actions)
        return DynaQState(model.init(key_model), learner.init(key_learner), nothing)

    def record(state: DynaQState, carry: PyTree, rows: Transition, valid: Array) -> DynaQState:
        numbered = tabular.numbered_rows(cells, rows, valid)
        learned, _ = learner.update(jax.random.key(0), state.learner, numbered)  # draws nothing
        params = model.observe(state.params, rows, valid)
        return DynaQState(params, learned, visits.visit(state.visits, numbered.obs, rows.action))

    def bonus(state: DynaQState, pair: tuple) -> Array:
        if plain:
            return jnp.zeros(pair[0].shape)
        elapsed = state.visits.now - state.visits.last[pair]
        return kappa * jnp.sqrt(jnp.maximum(elapsed, 0).astype(jnp.float32))

    def imagined(key: Key, state: DynaQState) -> tuple[Array, Array, Successors]:
        """Pairs ``[n]`` and what the model says of them: one outcome drawn, or all of them."""
        key_pairs, key_step = jax.random.split(key)
        pair = states, chosen = visits.sample_visited(key_pairs, state.visits, steps, untried)
        if backup == "expected":
            after = jax.vmap(successors, in_axes=(None, 0, 0))(state.params.weights, *pair)
        else:
            following, outcome = model.step_many(key_step, state.params, *pair)
            sure = jnp.ones_like(outcome.reward)
            after = Successors(sure, following, outcome.reward, outcome.discount)
            after = jax.tree.map(lambda x: x[:, None], after)
        return states, chosen, after._replace(reward=after.reward + bonus(state, pair)[:, None])

    def plan(key: Key, state: DynaQState, step: Array) -> tuple[DynaQState, dict]:
        states, chosen, after = imagined(key, state)
        values, delta = back_up(state.learner.values, states, chosen, after, alpha, config.gamma)
        info = summary(states, delta)
        return state._replace(learner=learners.QState(values)), {f"plan/{k}": v for k, v in info.items()}

    def sweep(key: Key, state: DynaQState, step: Array) -> tuple[DynaQState, dict]:
        """Value iteration on the learned model, ``planning_steps`` synchronous sweeps."""
        known = jnp.any(state.visits.tried, axis=1, keepdims=True) if untried else state.visits.tried
        pairs = jnp.indices((cells.count, actions))
        after = successors(state.params.weights, *pairs)
        after = after._replace(reward=after.reward + bonus(state, tuple(pairs))[..., None])

        def one(i: int, values: Array) -> Array:
            return values + jnp.where(known, alpha * bellman_error(values, values, after, config.gamma), 0.0)

        values = jax.lax.fori_loop(0, steps, one, state.learner.values)
        left = jnp.where(known, bellman_error(values, values, after, config.gamma), 0.0)
        info = {"plan/backups": steps * jnp.sum(known, dtype=jnp.float32), "plan/residual": jnp.max(jnp.abs(left))}
        return state._replace(learner=learners.QState(values)), info

    phases = ((1, sweep if backup == "full" else plan),) if steps else ()
    return tabular.agent(model, learner, cells, init, record, phases)


SYSTEMS = (
    System(
        "dyna_q",
        DynaQConfig,
        dyna_q,
        "Dyna-Q and Dyna-Q+ (kappa): Q-learning and a learned table",
        tabular.wrap,
        tabular.learned,
    ),
)
