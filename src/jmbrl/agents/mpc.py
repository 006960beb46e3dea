"""Model-predictive control: learn a model, plan through it, execute the first actions, plan again."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks, data
from jmbrl.models import ChangeDetector, Trainer, surprise
from jmbrl.models.change import watch
from jmbrl.rollout import mean_return, no_action, objective
from jmbrl.types import Agent, Array, Continuous, Key, Model, Params, Planner, PyTree, Spec, Transition


class MPCState(NamedTuple):
    """``opt`` and ``replay`` are None where the model does not learn, ``watched`` where nobody looks for changes: the
    detector's state, and whether the model was ever fitted."""

    params: Params
    opt: PyTree
    replay: data.Replay | None
    watched: tuple[PyTree, Array] | None = None


class MPCCarry(NamedTuple):
    """What acting remembers: the belief, the action that led here, the plan under way and its age in steps."""

    belief: PyTree
    action: Array
    plan_state: PyTree
    plan: Array
    age: Array


def mpc(
    spec: Spec,
    model: Model,
    planner: Planner,
    *,
    trainer: Trainer | None = None,
    particles: int = 1,
    gamma: float | Array = 1.0,
    terminal_value: Callable | None = None,
    reduce: Callable = mean_return,
    budget: tuple[float, ...] | None = None,
    replan_every: int = 1,
    action_noise: float | Array = 0.0,
    fit_every: int | None = None,
    warmup: int | None = None,
    capacity: int = 100_000,
    change: ChangeDetector | None = None,
    old_share: float | Array = 0.0,
    fewest: int = 100,
    reset_weights: bool = False,
) -> Agent:
    """Plan with a planner through a model; refit the model to all data every so often.

    With ``change`` the new rows are compared, before each fit, with what the model predicted of them. Where the
    detector sounds an alarm and at least ``fewest`` rows lie after the estimated change, the older ones are forgotten
    and the detector begins anew. A fit then reports ``change/alarm`` (1 where it forgot), ``change/surprise`` (mean of
    the new rows, ``models.surprise``) and ``change/since`` (steps after the estimated change).

    Args:
      spec: the environment's.
      model: any ``Model``; whatever its belief is, the planner does not see it.
      planner: any ``Planner``.
      trainer: ``models.trainer(model, ...)`` or ``models.sequence_trainer(model, ...)``; None for a model that is not
        learned (the simulator).
      particles: imagined rollouts per candidate.
      gamma, terminal_value, reduce, budget: as in ``rollout.objective``.
      replan_every: actions executed per plan, in ``[1, planner.horizon]``; 1 is MPC, the horizon is open loop.
      action_noise: standard deviation of Gaussian noise on explored actions, in units of the action box (continuous),
        or the probability of a uniform action (discrete).
      fit_every: environment steps between fits; one episode by default.
      warmup: environment steps of random actions before the first fit; one episode by default.
      capacity: rows of replay per environment.
      change: ``models.cusum(...)``, for worlds that change, with a model that predicts a spread; it reads one number a
        step, the mean over environments. ``models.always()``: no detection, old rows fade. None: all data are kept.
      old_share: of the rows before the change, how many still count, in ``[0, 1]``: 0 drops them.
      fewest: rows per environment after the change before older ones are forgotten, in ``[1, capacity]``: a fit to a
        handful spoils networks and normalisers.
      reset_weights: at an alarm the network starts anew too; False: what it is goes on learning (fine-tuning).

    Raises:
      ValueError: a number outside its range; a warm-up that leaves nothing to fit; ``change`` for a model that is not
        learned or predicts nothing.

    Source: Nagabandi et al. 2018 (arXiv 1708.02596); Chua et al. 2018 (arXiv 1805.12114), algorithm 1.
    """
    learns = trainer is not None
    replan_every = checks.integer("replan_every", replan_every, 1, planner.horizon)
    fit_every = checks.integer("fit_every", spec.max_steps if fit_every is None else fit_every, 1)
    warmup = checks.integer(
        "warmup", (spec.max_steps if learns else 0) if warmup is None else warmup, 1 if learns else 0
    )
    capacity = checks.integer("capacity", capacity, 1)
    checks.number("old_share", old_share, 0.0, 1.0)
    if change is not None:
        fewest = checks.integer("fewest", fewest, 1, capacity)
        if not learns or model.predict is None:
            raise ValueError("change needs a model that is learned and has predict: its errors are what is watched")
    nothing = no_action(spec)

    def init(key: Key, num_envs: int) -> MPCState:
        params = model.init(key)
        if not learns:
            return MPCState(params, None, None)
        watched = None if change is None else (change.init(), jnp.zeros((), bool))
        return MPCState(params, trainer.init(params), data.empty(spec, capacity, num_envs), watched)

    def reset(state: MPCState) -> MPCCarry:
        plan = jnp.zeros((planner.horizon, *nothing.shape), nothing.dtype)
        return MPCCarry(model.initial(state.params), nothing, planner.init(), plan, jnp.zeros((), jnp.int32))

    def act(key: Key, state: MPCState, carry: MPCCarry, obs: PyTree, is_first: Array, explore: bool) -> tuple:
        key_encode, key_plan, key_noise = jax.random.split(key, 3)
        fresh = reset(state)
        carry = jax.tree.map(lambda new, old: jnp.where(is_first, new, old), fresh, carry)
        belief = model.encode(key_encode, state.params, carry.belief, carry.action, obs, is_first)

        def replan(plan_state: PyTree) -> tuple[Array, PyTree, dict]:
            goal = objective(
                model,
                state.params,
                belief,
                particles=particles,
                gamma=gamma,
                terminal_value=terminal_value,
                reduce=reduce,
                budget=budget,
            )
            plan, plan_state, info = planner.plan(key_plan, plan_state, goal)
            return plan, planner.shift(plan_state, replan_every), {f"plan_{name}": x for name, x in info.items()}

        if replan_every == 1:
            plan, plan_state, info = replan(carry.plan_state)
        else:
            shapes = jax.eval_shape(replan, carry.plan_state)[2]
            keep = (carry.plan, carry.plan_state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes))
            due = carry.age % replan_every == 0
            plan, plan_state, info = jax.lax.cond(due, lambda: replan(carry.plan_state), lambda: keep)
        action = plan[carry.age % replan_every]
        if explore:
            action = explored(key_noise, spec, action, action_noise)
        return action, MPCCarry(belief, action, plan_state, plan, carry.age + 1), info

    def record(state: MPCState, carry: PyTree, rows: Transition, valid: Array) -> MPCState:
        if not learns:
            return state
        assert state.replay is not None  # as made by init
        return state._replace(replay=data.add(state.replay, rows, valid))

    def adapt(key: Key, state: MPCState) -> tuple[MPCState, dict]:
        """Look at the rows since the last fit, and forget what is older than a change."""
        assert change is not None and state.watched is not None and state.replay is not None  # noqa: PT018
        key_forget, key_init = jax.random.split(key)
        detector, fitted = state.watched
        rows, valid = data.newest(state.replay, max(1, fit_every // state.replay.num_envs))
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)
        each = jnp.where(valid, surprise(model, state.params, flat).reshape(valid.shape), 0.0)
        mean = jnp.sum(each, axis=1) / jnp.maximum(jnp.sum(valid, axis=1), 1)
        known = jnp.any(valid, axis=1)
        detector, alarm = watch(change, detector, mean, known)
        since = change.since(detector)
        alarm = fitted & alarm & (since >= fewest)
        pick = lambda flag, new, old: jax.tree.map(lambda a, b: jnp.where(flag, a, b), new, old)  # noqa: E731
        replay = pick(alarm, data.forget(key_forget, state.replay, since, old_share), state.replay)
        params, opt = state.params, state.opt
        if reset_weights:
            fresh = model.init(key_init)
            params, opt = pick(alarm, (fresh, trainer.init(fresh)), (params, opt))
        detector = pick(alarm | ~fitted, change.init(), detector)
        info = {
            "change/alarm": alarm.astype(jnp.float32),
            "change/surprise": jnp.sum(mean) / jnp.maximum(jnp.sum(known), 1),
            "change/since": since.astype(jnp.float32),
        }
        return MPCState(params, opt, replay, (detector, jnp.ones_like(fitted))), info

    def fit(key: Key, state: MPCState, step: Array) -> tuple[MPCState, dict]:
        seen = {}
        if change is not None:
            key, key_adapt = jax.random.split(key)
            state, seen = adapt(key_adapt, state)
        params, opt, info = trainer.fit(key, state.params, state.opt, state.replay)
        info = {f"model/{name}": value for name, value in info.items()}
        return state._replace(params=params, opt=opt), info | seen

    phases = ((fit_every, fit),) if learns else ()
    return Agent(init, reset, act, record, phases, warmup, model, lambda state: state.params)


def explored(key: Key, spec: Spec, action: Array, noise: float | Array) -> Array:
    """The action with exploration noise: Gaussian and clipped in a box, else uniform with probability ``noise``."""
    if isinstance(noise, float | int) and noise == 0:
        return action
    if isinstance(spec.action, Continuous):
        return jnp.clip(action + noise * jax.random.normal(key, action.shape), -1.0, 1.0)
    key_coin, key_action = jax.random.split(key)
    other = jax.random.randint(key_action, action.shape, 0, spec.action.n)
    return jnp.where(jax.random.bernoulli(key_coin, noise), other, action)
