"""Dyna: imagined trials beside real ones (Sutton 1991), with MBPO's short branched rollouts (Janner et al. 2019)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jmbrl import checks, data, learners, models
from jmbrl.agents.off_policy import summary
from jmbrl.agents.system import System
from jmbrl.rollout import imagine
from jmbrl.types import Agent, Array, Discrete, Env, Key, Learner, Model, Params, PyTree, Spec, Trajectory, Transition


@dataclasses.dataclass(frozen=True)
class DynaConfig:
    """Settings; defaults are MBPO's (reference sheet 2.9) at a rollout length of 1.

    The environment's own termination function is used where it has one, and the reward is learned, as in the paper.
    """

    # model
    members: int = 7
    elites: int = 5
    hidden: tuple[int, ...] = (200, 200, 200, 200)
    weight_decay: tuple[float, ...] = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4)  # one per layer, the output's last
    probabilistic: bool = True  # False: deterministic networks, whose imagined steps carry no noise
    learn_reward: bool = True
    learn_termination: bool = False
    model_learning_rate: float = 1e-3
    model_batch_size: int = 256
    epochs: int = 100  # at most; the fit stops early
    holdout: float = 0.2
    patience: int = 5
    # imagination
    rollouts: int = 100_000  # per fit
    rollout_length: int = 1
    retain: int = 4  # fits whose imagined rows are kept
    real_ratio: float = 0.05  # of a batch; 1: no imagination
    # policy
    policy_hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    batch_size: int = 256
    updates: int = 20  # per environment step
    gamma: float = 0.99
    tau: float = 0.005
    alpha: float = 1.0
    target_entropy: float | None = None
    # schedule, in environment steps
    fit_every: int = 250
    warmup: int | None = None  # None: one episode
    capacity: int = 1_000_000


class DynaState(NamedTuple):
    """``imagined``: a ring per rollout, its rows hold features; None without imagination."""

    params: Params
    opt: PyTree
    replay: data.Replay
    imagined: data.Replay | None
    learner: PyTree


class DynaCarry(NamedTuple):
    """The belief and the action that led to it."""

    belief: PyTree
    action: Array


def dyna(env: Env, config: DynaConfig = DynaConfig()) -> Agent:
    """An ensemble refitted every ``fit_every`` steps, rollouts of the policy in it, soft actor-critic on both."""
    network = models.gaussian_mlp if config.probabilistic else models.deterministic_mlp
    member = network(
        env.spec,
        hidden=config.hidden,
        weight_decay=config.weight_decay,
        reward=None if config.learn_reward else env.reward_fn,
        termination="learned" if config.learn_termination else env.termination_fn,
    )
    model = models.ensemble(member, config.members, elites=config.elites)
    trainer = models.trainer(
        model,
        optimizer=optax.adam(config.model_learning_rate),
        epochs=config.epochs,
        batch_size=config.model_batch_size,
        holdout=config.holdout,
        patience=config.patience if config.holdout else None,
    )
    learner = learners.sac(
        env.spec.action,
        features_shape(model)[0],
        hidden=config.policy_hidden,
        learning_rate=config.learning_rate,
        gamma=config.gamma,
        tau=config.tau,
        alpha=config.alpha,
        target_entropy=config.target_entropy,
    )
    own = ("rollouts", "rollout_length", "retain", "real_ratio", "batch_size", "updates")
    schedule = ("fit_every", "warmup", "capacity")
    settings = {name: getattr(config, name) for name in own + schedule}
    return imagined_trials(env.spec, model, trainer, learner, **settings)


def imagined_trials(
    spec: Spec,
    model: Model,
    trainer: models.Trainer,
    learner: Learner,
    *,
    rollouts: int = 400,
    rollout_length: int = 1,
    retain: int = 4,
    real_ratio: float = 0.05,
    batch_size: int = 256,
    updates: int = 1,
    fit_every: int = 250,
    warmup: int | None = None,
    capacity: int = 100_000,
) -> Agent:
    """Act with a learner that is improved on a mix of real rows and rows imagined from replayed states.

    Every ``fit_every`` environment steps the model is refitted to all real rows and the current policy, exploring,
    imagines ``rollouts`` trajectories from real states drawn uniformly. Before each environment step the learner does
    ``updates`` updates.

    Args:
      spec: the environment's.
      model: its belief must be a function of one observation: replayed states are encoded on their own.
      trainer: ``models.trainer(model, ...)``.
      learner: off-policy, learns from ``Transition[B]`` of features.
      rollouts: imagined trajectories per fit.
      rollout_length: their steps; fewer where the model says that the episode ends.
      retain: the imagined rows of this many fits are kept.
      real_ratio: share of real rows in a batch, in ``[0, 1]``; 1 fits no model and imagines nothing.
      batch_size: rows per update.
      updates: per environment step.
      fit_every, warmup, capacity: as in ``agents.mpc``.

    Raises:
      ValueError: a number outside its range; a warm-up that leaves nothing to fit.

    Metrics: ``model/...`` and ``imagine/...`` (fractions ``clipped``, ``terminated``, ``nonfinite`` of imagined rows)
    per fit; ``learner/...`` per environment step.
    """
    warmup = checks.integer("warmup", spec.max_steps if warmup is None else warmup, 1)
    for name, value in (("rollouts", rollouts), ("rollout_length", rollout_length), ("retain", retain)):
        checks.integer(name, value, 1)
    for name, value in (("batch_size", batch_size), ("updates", updates), ("fit_every", fit_every)):
        checks.integer(name, value, 1)
    checks.number("real_ratio", real_ratio, 0.0, 1.0)
    real = int(real_ratio * batch_size)  # MBPO: 12 of 256
    no_action = jnp.zeros(spec.action.shape, jnp.int32 if isinstance(spec.action, Discrete) else jnp.float32)
    feature_spec = dataclasses.replace(spec, obs_shape=features_shape(model), obs_dtype="float32", obs_names=())

    def init(key: Key, num_envs: int) -> DynaState:
        key_model, key_learner = jax.random.split(key)
        params = model.init(key_model)
        imagined = None if real == batch_size else data.empty(feature_spec, retain * rollout_length, rollouts)
        replay = data.empty(spec, capacity, num_envs)
        return DynaState(params, trainer.init(params), replay, imagined, learner.init(key_learner))

    def reset(state: DynaState) -> DynaCarry:
        return DynaCarry(model.initial(state.params), no_action)

    def act(key: Key, state: DynaState, carry: DynaCarry, obs: PyTree, is_first: Array, explore: bool) -> tuple:
        key_encode, key_act = jax.random.split(key)
        belief = model.encode(key_encode, state.params, carry.belief, carry.action, obs, is_first)
        action, _ = learner.act(key_act, state.learner, model.features(state.params, belief), explore)
        return action, DynaCarry(belief, action), {}

    def record(state: DynaState, rows: Transition, valid: Array) -> DynaState:
        return state._replace(replay=data.add(state.replay, rows, valid))

    def beliefs_of(key: Key, params: Params, obs: PyTree) -> PyTree:
        """Beliefs ``[N]`` of observations ``[N]`` seen on their own."""
        one = lambda obs: model.encode(key, params, model.initial(params), no_action, obs, jnp.asarray(True))  # noqa: E731
        return jax.vmap(one)(obs)

    def as_features(params: Params, beliefs: PyTree) -> Array:
        return jax.vmap(model.features, in_axes=(None, 0))(params, beliefs)

    def fit_and_imagine(key: Key, state: DynaState, step: Array) -> tuple[DynaState, dict]:
        key_fit, key_start, key_encode, key_imagine = jax.random.split(key, 4)
        assert state.imagined is not None  # this phase runs only with imagination
        params, opt, info = trainer.fit(key_fit, state.params, state.opt, state.replay)
        starts = beliefs_of(key_encode, params, data.sample(key_start, state.replay, rollouts).obs)

        def choose(key: Key, beliefs: PyTree, t: Array) -> tuple[Array, tuple]:
            keys = jax.random.split(key, rollouts)
            choose_one = jax.vmap(learner.act, in_axes=(0, None, 0, None))
            return choose_one(keys, state.learner, as_features(params, beliefs), True)[0], ()

        def step_many(key: Key, beliefs: PyTree, actions: Array) -> tuple:
            return model.step_many(key, params, beliefs, actions)

        key_path, key_end = jax.random.split(key_imagine)
        _, path = imagine(key_path, step_many, starts, choose, rollout_length)
        rows, alive = imagined_rows(key_end, path, jax.vmap(as_features, in_axes=(None, 0)), params)
        imagined, _ = jax.lax.scan(lambda ring, new: (data.add(ring, *new), None), state.imagined, (rows, alive))
        share = lambda flag: jnp.sum(flag & alive) / jnp.sum(alive)  # noqa: E731
        info = {f"model/{name}": value for name, value in info.items()} | {
            "imagine/clipped": share(path.outcome.clipped),
            "imagine/terminated": share(rows.terminated),
            "imagine/nonfinite": share(~jax.vmap(data.finite)(rows)),
        }
        return state._replace(params=params, opt=opt, imagined=imagined), info

    def improve(key: Key, state: DynaState, step: Array) -> tuple[DynaState, dict]:
        key_rows, key_encode, key_updates = jax.random.split(key, 3)
        rows = mixed(key_rows, key_encode, state)
        by_update = jax.tree.map(lambda x: x.reshape(updates, batch_size, *x.shape[1:]), rows)

        def body(learned: PyTree, inputs: tuple) -> tuple[PyTree, dict]:
            return learner.update(inputs[0], learned, inputs[1])

        learned, info = jax.lax.scan(body, state.learner, (jax.random.split(key_updates, updates), by_update))
        return state._replace(learner=learned), {f"learner/{name}": summary(name, x) for name, x in info.items()}

    def mixed(key: Key, key_encode: Key, state: DynaState) -> Transition:
        """Rows of all updates of a step, drawn at once."""
        key_real, key_imagined = jax.random.split(key)
        parts = []
        if real:
            rows = data.sample(key_real, state.replay, updates * real)
            see = lambda obs: as_features(state.params, beliefs_of(key_encode, state.params, obs))  # noqa: E731
            parts.append(rows._replace(obs=see(rows.obs), next_obs=see(rows.next_obs)))
        if real < batch_size:
            assert state.imagined is not None  # as made by init
            parts.append(data.sample(key_imagined, state.imagined, updates * (batch_size - real)))
        shaped = [jax.tree.map(lambda x: x.reshape(updates, -1, *x.shape[1:]), part) for part in parts]
        both = jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *shaped)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), both)

    phases = ((1, improve),) if real == batch_size else ((fit_every, fit_and_imagine), (1, improve))
    return Agent(init, reset, act, record, phases, warmup, model, lambda state: state.params)


def imagined_rows(key: Key, path: Trajectory, features, params: Params) -> tuple[Transition, Array]:
    """Rows ``[H, N]`` of an imagined trajectory and which of them happened: none after the end of an episode.

    A continuation probability (a learned termination) is drawn once per row. The last step is marked truncated: the
    row after it in a ring belongs to another trajectory, and its value still bootstraps.
    """
    ended = jax.random.uniform(key, path.outcome.discount.shape) < 1.0 - path.outcome.discount
    going = jnp.cumprod(~ended, axis=0, dtype=jnp.int32).astype(bool)
    alive = jnp.concatenate([jnp.ones_like(going[:1]), going[:-1]])
    last = (jnp.arange(len(ended)) == len(ended) - 1)[:, None]
    obs, next_obs = features(params, path.belief), features(params, path.next_belief)
    return Transition(obs, path.action, path.outcome.reward, next_obs, ended, last & ~ended), alive


def features_shape(model: Model) -> tuple[int, ...]:
    """Shape of a model's features, ``(F,)``, without computing anything."""

    def look(key: Key) -> Array:
        params = model.init(key)
        return model.features(params, model.initial(params))

    return jax.eval_shape(look, jax.random.key(0)).shape


SYSTEMS = (System("dyna", DynaConfig, dyna, "soft actor-critic on real and imagined rows (Dyna; MBPO's rollouts)"),)
