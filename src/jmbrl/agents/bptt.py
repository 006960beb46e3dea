"""Policies by derivatives through a learned model: collect, fit, climb the imagined return, repeat."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import optax

from jmbrl import checks, data, learners, models
from jmbrl.agents.imagination import ImaginationState, beliefs_of, features, features_shape, imagination, watched
from jmbrl.agents.off_policy import summary
from jmbrl.agents.slbo import ornstein_uhlenbeck
from jmbrl.agents.system import System
from jmbrl.data import running
from jmbrl.learners import BPTT, World
from jmbrl.types import Agent, Array, Ascent, Env, Key, Learner, Model, Params, PyTree, Spec

# What a climber is given of a system's settings by the same names.
CLIMBER = (
    "stochastic", "initial_std", "horizon", "truncation", "gamma", "terminal_value", "lam", "slow_rate", "reward_scale",
    "learning_rate", "value_learning_rate", "max_grad_norm", "rematerialise",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """An ensemble of Gaussian networks and how it is fitted: half of the settings of ``bptt`` and ``svg``."""

    members: int = 5
    hidden: tuple[int, ...] = (200, 200)
    weight_decay: tuple[float, ...] = (2.5e-5, 5e-5, 1e-4)  # one per layer, the output's last
    probabilistic: bool = True
    learn_reward: bool = False  # else the environment's own, where it has one
    normalize_targets: bool = True
    model_learning_rate: float = 1e-3
    model_batch_size: int = 256
    epochs: int = 50  # at most
    holdout: float = 0.2
    patience: int | None = 5


@dataclasses.dataclass(frozen=True)
class BPTTConfig(ModelConfig):
    """Settings. The optimiser is that of ME-TRPO's BPTT baseline (reference sheet 2.11): Adam at 1e-3, gradients cut at
    10. Its horizon of 100 on batches of 500 is for tasks whose gradients bear it.

    SVG(H) in imagination is ``stochastic=True, terminal_value=True, horizon=3`` or so.
    """

    # policy
    policy_hidden: tuple[int, ...] = (64, 64)
    stochastic: bool = False
    initial_std: float = 0.5
    horizon: int = 20
    truncation: int | None = None
    gamma: float = 0.99
    terminal_value: bool = False
    lam: float = 0.95
    slow_rate: float = 0.02
    reward_scale: float = 1.0
    learning_rate: float = 1e-3
    value_learning_rate: float = 1e-3
    max_grad_norm: float = 10.0
    rematerialise: bool = False
    batch_size: int = 128  # imagined trajectories
    updates: int = 200  # per fit
    branch: bool = True  # from any real state; False: from those that episodes began with
    # exploration
    action_noise: float = 0.2  # of a policy without a spread; in units of the box [-1, 1]
    # schedule, in environment steps; None is one episode
    fit_every: int | None = None
    warmup: int | None = None
    capacity: int = 100_000


def bptt(env: Env, config: BPTTConfig = BPTTConfig()) -> Agent:
    """An ensemble refitted every so often, and a policy that climbs the return it imagines in it."""
    model = ensemble_of(env, config)
    agent = climbing(env.spec, model, climber(env.spec, model, config), config, trainer=trainer_of(model, config))
    world, starts = imagined(model, env.spec, config.branch)
    learner = learner_of(env.spec, model, config)
    return agent._replace(ascent=Ascent(learner, world, starts, lambda state: state.learner))


def ensemble_of(env: Env, config: ModelConfig) -> Model:
    """The ensemble that the settings name."""
    network = models.gaussian_mlp if config.probabilistic else models.deterministic_mlp
    member = network(
        env.spec,
        hidden=config.hidden,
        weight_decay=config.weight_decay,
        reward=None if config.learn_reward else env.reward_fn,
        termination=env.termination_fn,
        normalize_targets=config.normalize_targets,
    )
    return models.ensemble(member, config.members)


def trainer_of(model: Model, config: ModelConfig) -> models.Trainer:
    """Its fit."""
    return models.trainer(
        model,
        optimizer=optax.adam(config.model_learning_rate),
        epochs=config.epochs,
        batch_size=config.model_batch_size,
        holdout=config.holdout,
        patience=config.patience if config.holdout else None,
    )


def climber(spec: Spec, model: Model, config: Any) -> BPTT:
    """The learner that the settings name, on the model's features."""
    settings = {name: getattr(config, name) for name in CLIMBER}
    return learners.bptt(spec.action, features_shape(model)[0], hidden=config.policy_hidden, **settings)


def learner_of(spec: Spec, model: Model, config: Any) -> Callable[..., BPTT]:
    """``(horizon, **changes)``: the learner that the settings name, with another horizon and other changes."""

    def learner(horizon: int, **changes: Any) -> BPTT:
        cut = None if config.truncation is None else min(config.truncation, horizon)
        return climber(spec, model, dataclasses.replace(config, **{"horizon": horizon, "truncation": cut, **changes}))

    return learner


def world_in(model: Model, params: Params, seen: running.Running | None = None) -> World:
    """A model with its parameters as a world; ``seen``: what its features are normalised by."""
    step = lambda key, beliefs, actions: model.step_many(key, params, beliefs, actions)  # noqa: E731
    return World(step, lambda belief: features(model, params, seen, belief))


def imagined(model: Model, spec: Spec, branch: bool) -> tuple[Callable, Callable]:
    """The model itself as a world, ``(state) -> World``, and real observations to begin with, ``(key, state, count) ->
    beliefs``."""

    def world(state: ImaginationState) -> World:
        return world_in(model, state.params, state.seen)

    def starts(key: Key, state: ImaginationState, count: int) -> PyTree:
        key_draw, key_encode = jax.random.split(key)
        if branch:
            obs = data.sample(key_draw, state.replay, count).obs
        else:
            obs = data.sample_starts(key_draw, state.replay, count)
        return beliefs_of(key_encode, model, spec, state.params, obs)

    return world, starts


def climbing(
    spec: Spec,
    model: Model,
    learner: BPTT,
    config: Any,
    *,
    trainer: models.Trainer,
    experience: Callable | None = None,
) -> Agent:
    """Every ``fit_every`` steps fit the model on all real rows and improve the policy by ``updates`` gradient steps.

    Args:
      spec: the environment's. model: its belief must be a function of one observation.
      learner: on the model's features, normalised by the real rows' mean and spread.
      config: with ``updates``, ``batch_size``, ``branch``, ``stochastic``, ``action_noise``, ``fit_every``, ``warmup``
        and ``capacity``.
      trainer: of the model.
      experience: ``(key, state, policy) -> (World, beliefs[N], Record | None)``, for each gradient step; ``policy`` is
        as it is by then, ``state`` as the phase began. None: the model itself, from real observations.

    Metrics, one row a phase: ``model/...`` and ``policy/...``, means over its updates, counters summed.

    Raises:
      ValueError: a number outside its range.
    """
    updates = checks.integer("updates", config.updates, 1)
    batch = checks.integer("batch_size", config.batch_size, 1)
    fit_every = checks.integer("fit_every", spec.max_steps if config.fit_every is None else config.fit_every, 1)
    space = checks.continuous("bptt", spec.action, "mbpo or me_trpo")
    world_of, starts = imagined(model, spec, config.branch)
    given = experience or (lambda key, state, policy: (world_of(state), starts(key, state, batch), None))

    def iterate(key: Key, state: ImaginationState, step: Array) -> tuple[ImaginationState, dict]:
        del step
        key_fit, key_watch, key_climb = jax.random.split(key, 3)
        params, opt, fitted = trainer.fit(key_fit, state.params, state.opt, state.replay)
        state = watched(key_watch, model, spec, state._replace(params=params, opt=opt))

        def improve(learned: learners.BPTTState, key: Key) -> tuple[learners.BPTTState, dict]:
            key_given, key_update = jax.random.split(key)
            world, beliefs, record = given(key_given, state, learned.policy)
            return learner.update(key_update, learned, world, beliefs, record)

        learned, info = jax.lax.scan(improve, state.learner, jax.random.split(key_climb, updates))
        info = {f"policy/{name}": summary(name, x) for name, x in info.items()}
        return state._replace(learner=learned), info | {f"model/{name}": x for name, x in fitted.items()}

    noise = None if config.stochastic else ornstein_uhlenbeck(space, theta=1.0, sigma=config.action_noise)
    return imagination(
        spec,
        model,
        trainer,
        Learner(learner.init, learner.act, learner.update),
        ((fit_every, iterate),),
        noise=noise,
        normalize_features=True,
        warmup=config.warmup,
        capacity=config.capacity,
    )


SYSTEMS = (System("bptt", BPTTConfig, bptt, "a policy by the derivative of the return imagined in an ensemble"),)
