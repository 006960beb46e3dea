"""MB-MPO: a policy that adapts to any member of an ensemble in one step (Clavera et al. 2018, arXiv 1809.05214)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jmbrl import checks, data, learners, models
from jmbrl.agents.imagination import (
    ImaginationCarry,
    ImaginationState,
    Paths,
    beliefs_of,
    features,
    features_shape,
    health,
    imagination,
    imagined_paths,
    watched,
)
from jmbrl.agents.off_policy import summary
from jmbrl.agents.system import System
from jmbrl.learners.meta_policy import MetaState
from jmbrl.models.ensemble import one_member
from jmbrl.types import Agent, Array, Env, Key, Learner, Model, PyTree, Spec


@dataclasses.dataclass(frozen=True)
class MBMPOConfig:
    """Settings; defaults are the paper's and its code's (reference sheet 2.10).

    The environment's own reward and termination are used where it has them; else the reward is learned and nothing
    ends. Not as in the code: its networks are weight-normalised and a member's fit stops when a moving average of its
    held-out error rises, which is two ways to the same end as the trainer's hold-out and early stop; the policy sees
    standardised features, so that no world's units need settings of their own.
    """

    # model
    members: int = 5
    hidden: tuple[int, ...] = (512, 512)
    weight_decay: float = 0.0
    learn_reward: bool = False
    learn_termination: bool = False
    model_learning_rate: float = 1e-3
    model_batch_size: int = 500
    epochs: int = 500  # at most; the fit stops early
    holdout: float = 0.2
    patience: int = 5
    # imagination
    tasks: int = 20  # per meta step, a multiple of the members
    paths: int = 50  # of each task, before adaptation and after
    horizon: int = 200
    from_replay: bool = False  # paths begin where an episode began; True: at any real state
    meta_steps: int = 30  # per fit
    # policy
    policy_hidden: tuple[int, ...] = (32, 32)
    initial_std: float = 1.0
    inner_learning_rate: float = 1e-3
    gamma: float = 0.99
    lam: float = 1.0
    max_kl: float = 0.01
    slack: float = 1.0
    damping: float = 1e-5
    cg_iterations: int = 10
    shrink: float = 0.8
    backtracks: int = 15
    normalize_features: bool = True
    # schedule, in environment steps
    fit_every: int = 4000  # the code: a path of 200 steps by each of 20 adapted policies
    warmup: int | None = 5000  # None: one episode
    capacity: int = 100_000


def mb_mpo(env: Env, config: MBMPOConfig = MBMPOConfig()) -> Agent:
    """Algorithm 1: an ensemble refitted every ``fit_every`` steps, and meta steps of a policy with a member a task."""
    member = models.deterministic_mlp(
        env.spec,
        hidden=config.hidden,
        activation=jax.nn.relu,
        weight_decay=config.weight_decay,
        normalize_targets=True,
        reward=None if config.learn_reward else env.reward_fn,
        termination="learned" if config.learn_termination else env.termination_fn,
    )
    model = models.ensemble(member, config.members)
    trainer = models.trainer(
        model,
        optimizer=optax.adam(config.model_learning_rate),
        epochs=config.epochs,
        batch_size=config.model_batch_size,
        holdout=config.holdout,
        patience=config.patience if config.holdout else None,
    )
    shared = ("initial_std", "inner_learning_rate", "gamma", "lam", "max_kl", "slack", "damping", "cg_iterations")
    settings = {name: getattr(config, name) for name in (*shared, "shrink", "backtracks")}
    width = features_shape(model)[0]
    learner = learners.meta_policy(env.spec.action, width, config.tasks, hidden=config.policy_hidden, **settings)
    own = ("tasks", "paths", "horizon", "from_replay", "meta_steps", "normalize_features", "fit_every", "warmup")
    settings = {name: getattr(config, name) for name in (*own, "capacity")}
    return meta_imagination(env.spec, model, trainer, learner, **settings)


class MetaCarry(NamedTuple):
    """``turn``: the adapted policy of this episode, -1 before the first."""

    turn: Array
    carry: ImaginationCarry


def meta_imagination(
    spec: Spec,
    model: Model,
    trainer: models.Trainer,
    learner: Learner,
    *,
    tasks: int,
    paths: int = 50,
    horizon: int = 200,
    from_replay: bool = False,
    meta_steps: int = 30,
    normalize_features: bool = True,
    fit_every: int = 4000,
    warmup: int | None = None,
    capacity: int = 100_000,
) -> Agent:
    """Refit an ensemble and meta-train a policy in it; real episodes are explored by the adapted policies in turn.

    Without exploration the agent acts with the policy before adaptation, at its mode: what the paper's curves are of.

    Args:
      spec: the environment's.
      model: an ensemble; its belief must be a function of one observation.
      trainer: ``models.trainer(model, ...)``.
      learner: ``learners.meta_policy(..., tasks)``.
      tasks: a multiple of the members; task ``k`` is a world of member ``k`` modulo their number.
      paths: imagined paths of each task, in each half of a meta step.
      horizon: steps of an imagined path.
      from_replay: paths begin at any real state; else where real episodes began.
      meta_steps: per fit.
      fit_every: environment steps between fits.
      normalize_features, warmup, capacity: as in ``agents.imagination``.

    Raises:
      ValueError: a model that is not an ensemble, tasks that do not divide among its members, a number below 1.

    Metrics, per fit: ``model/...``; of all its meta steps ``learner/...`` and ``imagine/...`` (shares ``clipped``,
    ``terminated``, ``nonfinite`` of the rows imagined by adapted policies).
    """
    if not model.members:
        raise ValueError("model must be an ensemble, whose members are the tasks; got a single model")
    for name, value in (("tasks", tasks), ("paths", paths), ("horizon", horizon), ("meta_steps", meta_steps)):
        checks.integer(name, value, 1)
    checks.integer("fit_every", fit_every, 1)
    if tasks % model.members:
        raise ValueError(f"tasks must be a multiple of the {model.members} members, got {tasks}")
    member = jnp.arange(tasks) % model.members
    world = model.member

    def fit_and_improve(key: Key, state: ImaginationState, step: Array) -> tuple[ImaginationState, dict]:
        del step
        key_fit, key_watch, key_meta = jax.random.split(key, 3)
        params, opt, info = trainer.fit(key_fit, state.params, state.opt, state.replay)
        state = watched(key_watch, model, spec, state._replace(params=params, opt=opt))

        def meta_step(policies: MetaState, key: Key) -> tuple[MetaState, dict]:
            key_start, key_update = jax.random.split(key)
            beliefs = starts(key_start, state)
            return learner.update(key_update, policies, lambda key, chosen: imagined(key, state, beliefs, chosen))

        policies, found = jax.lax.scan(meta_step, state.learner, jax.random.split(key_meta, meta_steps))
        info = {f"model/{name}": value for name, value in info.items()}
        for name, values in found.items():
            info[name if name.startswith("imagine/") else f"learner/{name}"] = summary(name, values)
        return state._replace(learner=policies), info

    def starts(key: Key, state: ImaginationState) -> PyTree:
        """Where the paths of all tasks begin, ``[tasks, paths, ...]``; the same for both halves of a meta step."""
        key_draw, key_encode = jax.random.split(key)
        draw = (lambda *args: data.sample(*args).obs) if from_replay else data.sample_starts
        beliefs = beliefs_of(key_encode, model, spec, state.params, draw(key_draw, state.replay, tasks * paths))
        return jax.tree.map(lambda x: x.reshape(tasks, paths, *x.shape[1:]), beliefs)

    def imagined(key: Key, state: ImaginationState, beliefs: PyTree, policies: PyTree) -> tuple:
        """``Transition[tasks, horizon, paths]`` of features, which rows count, and their health."""

        def one(key: Key, index: Array, weights: PyTree, beliefs: PyTree) -> Paths:
            params = one_member(state.params, index)
            return imagined_paths(
                key,
                lambda key, beliefs, actions: world.step_many(key, params, beliefs, actions),
                lambda belief: features(model, state.params, state.seen, belief),
                lambda key, x: learner.act(key, MetaState(weights, ()), x, True)[0],
                beliefs,
                horizon,
            )

        found = jax.vmap(one)(jax.random.split(key, tasks), member, policies, beliefs)
        finite = jax.vmap(jax.vmap(data.finite))(found.rows)
        return found.rows, found.alive & finite, jax.tree.map(jnp.mean, jax.vmap(health)(found))

    def reset(state: ImaginationState) -> MetaCarry:
        return MetaCarry(jnp.full((), -1, jnp.int32), base.reset(state))

    def act(
        key: Key, state: ImaginationState, carry: MetaCarry, obs: PyTree, is_first: Array, explore: bool
    ) -> tuple[Array, MetaCarry, dict]:
        key_first, key_act = jax.random.split(key)
        # Environments side by side begin with different policies.
        first = jax.random.randint(key_first, (), 0, tasks)
        turn = jnp.where(carry.turn < 0, first, (carry.turn + is_first) % tasks)
        if explore:
            mine = jax.tree.map(lambda w: w[turn], state.learner.adapted)
            state = state._replace(learner=state.learner._replace(policy=mine))
        action, inner, info = base.act(key_act, state, carry.carry, obs, is_first, explore)
        return action, MetaCarry(turn, inner), info

    base = imagination(
        spec,
        model,
        trainer,
        learner,
        ((fit_every, fit_and_improve),),
        normalize_features=normalize_features,
        warmup=warmup,
        capacity=capacity,
    )
    return base._replace(reset=reset, act=act)


SYSTEMS = (
    System(
        "mb_mpo",
        MBMPOConfig,
        mb_mpo,
        "meta-learning a policy that adapts to any model of an ensemble (Clavera et al. 2018)",
    ),
)
