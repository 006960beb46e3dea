"""What every system with a learned model and a learned policy shares: its state, how it acts, what it imagines."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks, data
from jmbrl.data import running
from jmbrl.models import Trainer
from jmbrl.rollout import imagine, no_action
from jmbrl.types import Agent, Array, Key, Learner, Model, Params, PyTree, Spec, Trajectory, Transition


class ImaginationState(NamedTuple):
    """``seen``: mean and spread of the real features, None where the learner sees them as they are. ``memory``: what a
    system keeps besides, ``()`` where nothing."""

    params: Params
    opt: PyTree
    replay: data.Replay
    seen: running.Running | None
    learner: PyTree
    memory: PyTree


class ImaginationCarry(NamedTuple):
    """The belief, the action that led to it, and the state of the exploration noise."""

    belief: PyTree
    action: Array
    noise: PyTree


class Noise(NamedTuple):
    """Exploration beside the learner's own.

    Attributes:
      init: ``() -> noise_state``, at the start of each episode.
      apply: ``(key, state, noise_state, features, action) -> (action, noise_state)``; ``state`` is the agent's.
    """

    init: Callable
    apply: Callable


def imagination(
    spec: Spec,
    model: Model,
    trainer: Trainer,
    learner: Learner,
    phases: tuple,
    *,
    memory: Callable = lambda key: (),
    noise: Noise | None = None,
    normalize_features: bool = False,
    warmup: int | None = None,
    capacity: int = 100_000,
) -> Agent:
    """An agent that acts with a learner's policy and keeps every real row; its ``phases`` fit the model and improve
    the policy.

    Args:
      spec: the environment's.
      model: its belief must be a function of one observation: replayed states are encoded on their own.
      trainer: of the model.
      learner: its features are the model's.
      phases: as in ``Agent``, on ``ImaginationState``.
      memory: ``(key) -> pytree``, ``state.memory`` at the start.
      noise: added to explored actions; None: the learner's own exploration alone.
      normalize_features: the learner sees features less their mean, in standard deviations of the real rows (clipped
        to ``[-10, 10]``), as of the last ``watched``.
      warmup: environment steps of random actions before the first phase; None: one episode.
      capacity: rows of replay per environment.

    Raises:
      ValueError: a warm-up that leaves nothing to fit, or a capacity below 1.
    """
    warmup = checks.integer("warmup", spec.max_steps if warmup is None else warmup, 1)
    capacity = checks.integer("capacity", capacity, 1)

    def init(key: Key, num_envs: int) -> ImaginationState:
        key_model, key_learner, key_memory = jax.random.split(key, 3)
        params = model.init(key_model)
        seen = running.nothing_seen(features_shape(model)[0]) if normalize_features else None
        replay = data.empty(spec, capacity, num_envs)
        return ImaginationState(
            params, trainer.init(params), replay, seen, learner.init(key_learner), memory(key_memory)
        )

    def reset(state: ImaginationState) -> ImaginationCarry:
        return ImaginationCarry(model.initial(state.params), no_action(spec), () if noise is None else noise.init())

    def act(
        key: Key, state: ImaginationState, carry: ImaginationCarry, obs: PyTree, is_first: Array, explore: bool
    ) -> tuple:
        key_encode, key_act, key_noise = jax.random.split(key, 3)
        belief = model.encode(key_encode, state.params, carry.belief, carry.action, obs, is_first)
        x = features(model, state.params, state.seen, belief)
        action, _ = learner.act(key_act, state.learner, x, explore)
        left = carry.noise
        if noise is not None:
            left = jax.tree.map(lambda new, old: jnp.where(is_first, new, old), noise.init(), left)
            if explore:
                action, left = noise.apply(key_noise, state, left, x, action)
        return action, ImaginationCarry(belief, action, left), {}

    def record(state: ImaginationState, carry: PyTree, rows: Transition, valid: Array) -> ImaginationState:
        return state._replace(replay=data.add(state.replay, rows, valid))

    return Agent(init, reset, act, record, phases, warmup, model, lambda state: state.params)


# ------------------------------------------------------------------------------------------ what is seen


def beliefs_of(key: Key, model: Model, spec: Spec, params: Params, obs: PyTree) -> PyTree:
    """Beliefs ``[N]`` of observations ``[N]`` seen on their own."""
    one = lambda obs: model.encode(key, params, model.initial(params), no_action(spec), obs, jnp.asarray(True))  # noqa: E731
    return jax.vmap(one)(obs)


def features(model: Model, params: Params, seen: running.Running | None, belief: PyTree) -> Array:
    """``float32[F]``: what the learner sees of one belief."""
    x = model.features(params, belief)
    return x if seen is None else running.standardise(seen, x)


def features_of(key: Key, model: Model, spec: Spec, params: Params, obs: PyTree) -> Array:
    """``float32[N, F]``: the model's features of observations ``[N]`` seen on their own."""
    beliefs = beliefs_of(key, model, spec, params, obs)
    return jax.vmap(model.features, in_axes=(None, 0))(params, beliefs)


def features_shape(model: Model) -> tuple[int, ...]:
    """Shape of a model's features, ``(F,)``, without computing anything."""

    def look(key: Key) -> Array:
        params = model.init(key)
        return model.features(params, model.initial(params))

    return jax.eval_shape(look, jax.random.key(0)).shape


def feature_spec(spec: Spec, model: Model) -> Spec:
    """``spec`` for rows of features in the place of observations."""
    return dataclasses.replace(spec, obs_shape=features_shape(model), obs_dtype="float32", obs_names=(), obs_parts=())


def watched(key: Key, model: Model, spec: Spec, state: ImaginationState) -> ImaginationState:
    """``state`` whose ``seen`` is that of all real rows, where it is kept."""
    if state.seen is None:
        return state
    rows, count = data.rows(state.replay)
    real = features_of(key, model, spec, state.params, rows.obs)
    mask = jnp.arange(len(real)) < count
    return state._replace(seen=running.observe(running.nothing_seen(real.shape[1]), real, mask))


# ------------------------------------------------------------------------------------------ what is imagined


class Paths(NamedTuple):
    """Imagined trajectories.

    Attributes:
      rows: ``Transition[H, N]`` of features, what an on-policy learner takes.
      alive: ``bool[H, N]``, which rows happened: none after the end of an episode.
      last: the beliefs ``[N]`` after the last step.
      clipped: ``bool[H, N]``, predictions pulled back into the data's range.
    """

    rows: Transition
    alive: Array
    last: PyTree
    clipped: Array


def imagined_paths(
    key: Key,
    step_many: Callable,
    look: Callable,
    act: Callable,
    beliefs: PyTree,
    horizon: int,
) -> Paths:
    """Roll a policy through a model.

    Args:
      key: consumed.
      step_many: ``(key, beliefs[N], actions[N]) -> (beliefs[N], Outcome[N])``, a model with its parameters bound.
      look: ``(belief) -> float32[F]``, one row: ``features`` with everything else bound.
      act: ``(key, features[F]) -> action``, one row.
      beliefs: where to start, leaves ``[N, ...]``.
      horizon: static, at least 1.
    """

    def choose(key: Key, beliefs: PyTree, t: Array) -> tuple[Array, tuple]:
        x = jax.vmap(look)(beliefs)
        return jax.vmap(act)(jax.random.split(key, len(x)), x), ()

    key_path, key_end = jax.random.split(key)
    last, path = imagine(key_path, step_many, beliefs, choose, horizon)
    rows, alive = imagined_rows(key_end, path, look)
    return Paths(rows, alive, last, path.outcome.clipped)


def imagined_rows(key: Key, path: Trajectory, look: Callable) -> tuple[Transition, Array]:
    """Rows ``[H, N]`` of an imagined trajectory and which of them happened: none after the end of an episode.

    A continuation probability (a learned termination) is drawn once per row. The last step is marked truncated: the
    row after it in a ring belongs to another trajectory, and its value still bootstraps.
    """
    ended = jax.random.uniform(key, path.outcome.discount.shape) < 1.0 - path.outcome.discount
    going = jnp.cumprod(~ended, axis=0, dtype=jnp.int32).astype(bool)
    alive = jnp.concatenate([jnp.ones_like(going[:1]), going[:-1]])
    last = (jnp.arange(len(ended)) == len(ended) - 1)[:, None]
    obs, next_obs = (jax.vmap(jax.vmap(look))(beliefs) for beliefs in (path.belief, path.next_belief))
    return Transition(obs, path.action, path.outcome.reward, next_obs, ended, last & ~ended), alive


def health(paths: Paths) -> dict[str, Array]:
    """Shares of the imagined rows that happened: ``imagine/clipped``, ``imagine/terminated``, ``imagine/nonfinite``."""
    flags = {
        "clipped": paths.clipped,
        "terminated": paths.rows.terminated,
        "nonfinite": ~jax.vmap(data.finite)(paths.rows),
    }
    happened = jnp.maximum(jnp.sum(paths.alive), 1)
    return {f"imagine/{name}": jnp.sum(flag & paths.alive) / happened for name, flag in flags.items()}
