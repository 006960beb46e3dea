"""MBPO: short rollouts branched from real states train an off-policy learner (Janner et al. 2019, arXiv 1906.08253)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jmbrl import checks, data, learners, models
from jmbrl.agents.imagination import (
    ImaginationState,
    beliefs_of,
    feature_spec,
    features,
    features_of,
    features_shape,
    health,
    imagination,
    imagined_paths,
)
from jmbrl.agents.off_policy import schedule, summary
from jmbrl.agents.system import System, numbered_actions
from jmbrl.types import Agent, Array, Continuous, Env, Key, Learner, Model, PyTree, Spec, Transition


class RolloutLength(NamedTuple):
    r"""How many steps a rollout has after :math:`e` epochs of ``epoch`` environment steps (warm-up excluded):

    .. math:: k = \left\lfloor k_0 + (k_1 - k_0) \min(1, \max(0, (e - e_0) / (e_1 - e_0))) \right\rfloor

    Source: Janner et al. 2019, table 1 (``[20, 150, 1, 15]`` for Hopper); floored as in their code.
    """

    e0: float = 0.0
    e1: float = 1.0
    k0: int = 1
    k1: int = 1
    epoch: int = 1000

    def __call__(self, step: Array) -> Array:
        """``int32``: the length after ``step`` environment steps."""
        done = jnp.clip((step // self.epoch - self.e0) / (self.e1 - self.e0), 0.0, 1.0)
        # 0.1 + 0.2 in float32 must not fall below the whole number that it stands for.
        return jnp.floor(self.k0 + (self.k1 - self.k0) * done + 1e-4).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class MBPOConfig:
    """Settings; defaults are the paper's for HalfCheetah and Walker2d but for the updates (reference sheet 2.9).

    The environment's own termination function is used where it has one, and the reward is learned, as in the paper.
    Dyna's shape is ``rollout=(0, 1, 1, 1)``: one imagined step from each real state.
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
    epochs: int = 1000  # at most; the fit stops early
    holdout: float = 0.2
    patience: int = 5
    # imagination
    rollouts: int = 100_000  # per fit
    rollout: tuple[float, float, int, int] = (20, 150, 1, 1)  # length: k0 until epoch e0, k1 from epoch e1 on
    epoch: int = 1000  # environment steps
    branch: bool = True  # from any real state; False: only from those that episodes began with
    retain: int = 4  # fits whose imagined rows are kept: an epoch
    real_ratio: float = 0.05  # of a batch
    # policy: soft actor-critic, or double deep Q-learning where actions are discrete
    policy_hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    batch_size: int = 256
    updates: float = 20  # per environment step
    gamma: float = 0.99
    tau: float = 0.005
    alpha: float = 1.0  # soft actor-critic
    target_entropy: float | None = None
    action_bins: int | tuple[int, ...] | None = None  # values per dimension, to use Q-learning on continuous actions
    epsilon: tuple[float, float] = (1.0, 0.05)  # Q-learning: exploration, first and last
    epsilon_updates: int = 25_000
    # schedule, in environment steps
    fit_every: int = 250
    warmup: int | None = 5000  # None: one episode
    capacity: int = 1_000_000


def mbpo(env: Env, config: MBPOConfig = MBPOConfig()) -> Agent:
    """Algorithm 2: an ensemble refitted every ``fit_every`` steps, rollouts of the policy in it, and an off-policy
    learner that mostly sees those."""
    model, trainer = learned_model(env, config)
    own = ("branch", "rollouts", "retain", "real_ratio", "batch_size", "updates", "fit_every", "warmup", "capacity")
    settings = {name: getattr(config, name) for name in own}
    lengths = RolloutLength(*config.rollout, config.epoch)
    return imagined_trials(env.spec, model, trainer, policy_learner(env.spec, model, config), lengths, **settings)


def learned_model(env: Env, config: MBPOConfig) -> tuple[Model, models.Trainer]:
    """The ensemble and what fits it."""
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
    return model, trainer


def policy_learner(spec: Spec, model: Model, config: MBPOConfig) -> Learner:
    """Soft actor-critic for continuous actions, double deep Q-learning with the same networks for discrete ones."""
    shared = {"hidden": config.policy_hidden, "learning_rate": config.learning_rate}
    shared |= {"gamma": config.gamma, "tau": config.tau}
    width = features_shape(model)[0]
    if isinstance(spec.action, Continuous):
        settings = {"alpha": config.alpha, "target_entropy": config.target_entropy}
        return learners.sac(spec.action, width, **shared, **settings)
    settings = {"epsilon": config.epsilon, "epsilon_updates": config.epsilon_updates}
    return learners.dqn(spec.action, width, **shared, **settings, double=True, target_every=1)


def imagined_trials(
    spec: Spec,
    model: Model,
    trainer: models.Trainer,
    learner: Learner,
    length: RolloutLength | int = 1,
    *,
    branch: bool = True,
    rollouts: int = 400,
    retain: int = 4,
    real_ratio: float = 0.05,
    batch_size: int = 256,
    updates: float = 1,
    fit_every: int = 250,
    warmup: int | None = None,
    capacity: int = 100_000,
) -> Agent:
    """Act with a learner that is improved on a mix of real rows and rows imagined from replayed states.

    Every ``fit_every`` environment steps the model is refitted to all real rows and the current policy, exploring,
    imagines ``rollouts`` trajectories from real states drawn uniformly, all in one batch. The learner does ``updates``
    updates per environment step.

    Args:
      spec: the environment's.
      model: its belief must be a function of one observation: replayed states are encoded on their own.
      trainer: ``models.trainer(model, ...)``.
      learner: off-policy, learns from ``Transition[B]`` of features.
      length: steps of a rollout, or how they grow; a rollout ends earlier where the model says that the episode does.
      branch: rollouts begin at real states drawn uniformly; False: at those that episodes began with, as whole
        imagined episodes do.
      rollouts: imagined trajectories per fit.
      retain: the imagined rows of this many fits are kept.
      real_ratio: share of real rows in a batch, in ``[0, 1)``.
      batch_size: rows per update.
      updates: per environment step; below 1 the reciprocal of a whole number.
      fit_every: environment steps between fits, a multiple of those between updates.
      warmup, capacity: as in ``agents.imagination``.

    Raises:
      ValueError: a number outside its range; a ``real_ratio`` that leaves no imagined row; a schedule that shrinks.

    Metrics: ``model/...``, ``imagine/...`` (``length``; shares ``clipped``, ``terminated``, ``nonfinite`` of imagined
    rows) per fit; ``learner/...`` per environment step.
    """
    length = RolloutLength(k0=length, k1=length) if isinstance(length, int) else length
    shortest = checks.integer("rollout k0", length.k0, 1)
    longest = checks.integer("rollout k1", length.k1, shortest)
    checks.integer("epoch", length.epoch, 1)
    if not length.e1 > length.e0:
        raise ValueError(f"rollout must have e0 < e1, got {length.e0} and {length.e1}")
    for name, value in (("rollouts", rollouts), ("retain", retain), ("batch_size", batch_size)):
        checks.integer(name, value, 1)
    checks.integer("fit_every", fit_every, 1)
    period, per_period = schedule(updates)
    checks.number("real_ratio", real_ratio, 0.0, 1.0)
    real = int(real_ratio * batch_size)  # MBPO: 12 of 256
    if real == batch_size:
        raise ValueError(
            f"real_ratio must leave imagined rows, got {real_ratio} of {batch_size}; without them it is sac"
        )
    start = spec.max_steps if warmup is None else warmup

    def fit_and_imagine(key: Key, state: ImaginationState, step: Array) -> tuple[ImaginationState, dict]:
        key_fit, key_start, key_encode, key_imagine = jax.random.split(key, 4)
        params, opt, info = trainer.fit(key_fit, state.params, state.opt, state.replay)
        state = state._replace(params=params, opt=opt)
        where = (
            data.sample(key_start, state.replay, rollouts).obs
            if branch
            else data.sample_starts(key_start, state.replay, rollouts)
        )
        beliefs = beliefs_of(key_encode, model, spec, params, where)
        steps = length(step - start)
        ring, seen = rolled_out(key_imagine, state, beliefs, steps)
        info = {f"model/{name}": value for name, value in info.items()}
        return state._replace(memory=ring), info | seen | {"imagine/length": steps.astype(jnp.float32)}

    def rolled_out(key: Key, state: ImaginationState, beliefs: PyTree, steps: Array) -> tuple[data.Replay, dict]:
        """The ring with ``steps`` more imagined rows of each rollout, and their health."""

        def step_many(key: Key, beliefs: PyTree, actions: Array) -> tuple:
            return model.step_many(key, state.params, beliefs, actions)

        def body(t: Array, loop: tuple) -> tuple:
            beliefs, going, ring, total = loop
            paths = imagined_paths(
                jax.random.fold_in(key, t),
                step_many,
                lambda belief: features(model, state.params, None, belief),
                lambda key, x: learner.act(key, state.learner, x, True)[0],
                beliefs,
                1,
            )
            paths = paths._replace(alive=paths.alive & going)
            rows = jax.tree.map(lambda x: x[0], paths.rows)
            rows = rows._replace(truncated=rows.truncated & (t == steps - 1))
            ring = data.add(ring, rows, paths.alive[0], retain * steps)
            count = jnp.sum(paths.alive)
            total = jax.tree.map(lambda sum, share: sum + share * count, total, health(paths) | {"rows": 1.0})
            return paths.last, going & ~rows.terminated, ring, total

        names = ("imagine/clipped", "imagine/terminated", "imagine/nonfinite", "rows")
        empty = {name: jnp.zeros(()) for name in names}
        # A loop of as many turns as there are steps: the schedule is not mapped over seeds, so none is wasted.
        end = jax.lax.fori_loop(0, steps, body, (beliefs, jnp.ones(rollouts, bool), state.memory, empty))
        rows = jnp.maximum(end[3].pop("rows"), 1)
        return end[2], {name: total / rows for name, total in end[3].items()}

    def improve(key: Key, state: ImaginationState, step: Array) -> tuple[ImaginationState, dict]:
        key_rows, key_encode, key_updates = jax.random.split(key, 3)
        rows = mixed(key_rows, key_encode, state)

        def body(learned: PyTree, inputs: tuple) -> tuple[PyTree, dict]:
            return learner.update(inputs[0], learned, inputs[1])

        learned, info = jax.lax.scan(body, state.learner, (jax.random.split(key_updates, per_period), rows))
        return state._replace(learner=learned), {f"learner/{name}": summary(name, x) for name, x in info.items()}

    def mixed(key: Key, key_encode: Key, state: ImaginationState) -> Transition:
        """Rows of all updates of a step, ``[updates, batch_size]``, drawn at once."""
        key_real, key_imagined = jax.random.split(key)
        parts = [data.sample(key_imagined, state.memory, per_period * (batch_size - real))]
        if real:
            rows = data.sample(key_real, state.replay, per_period * real)
            see = lambda obs: features_of(key_encode, model, spec, state.params, obs)  # noqa: E731
            parts.append(rows._replace(obs=see(rows.obs), next_obs=see(rows.next_obs)))
        shaped = [jax.tree.map(lambda x: x.reshape(per_period, -1, *x.shape[1:]), part) for part in parts]
        return jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *shaped)

    return imagination(
        spec,
        model,
        trainer,
        learner,
        ((fit_every, fit_and_imagine), (period, improve)),
        memory=lambda key: data.empty(feature_spec(spec, model), retain * longest, rollouts),
        warmup=warmup,
        capacity=capacity,
    )


SYSTEMS = (
    System(
        "mbpo",
        MBPOConfig,
        mbpo,
        "short imagined rollouts for soft actor-critic (Janner et al. 2019)",
        numbered_actions,
    ),
)
