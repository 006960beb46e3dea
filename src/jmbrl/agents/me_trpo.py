"""ME-TRPO: a policy improved in an ensemble until its members no longer agree (Kurutach et al. 2018, 1802.10592)."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from jmbrl import checks, data, learners, models
from jmbrl.agents.imagination import (
    ImaginationState,
    Noise,
    beliefs_of,
    features,
    features_shape,
    imagination,
    watched,
)
from jmbrl.agents.system import System
from jmbrl.agents.validated import policy_in_ensemble
from jmbrl.types import Agent, Array, Continuous, Env, Key, Learner, Spec


@dataclasses.dataclass(frozen=True)
class METRPOConfig:
    """Settings; defaults are the paper's code for HalfCheetah (reference sheet 2.7).

    The environment's own reward and termination function are used where it has them, as in the paper. Rows are held
    out one by one, where the paper holds out trajectories, and judged after each epoch, where it does after each fifth.
    The 2019 benchmark's variant is ``hidden=(1000,) * 4, epochs=200, updates=20, gamma=0.99, lam=0.95,
    bootstrap=True, baseline="network"`` (a line fitted to its own bootstrapped values stays where it is).
    """

    # model
    members: int = 5
    hidden: tuple[int, ...] = (1024, 1024)
    model_learning_rate: float = 1e-3
    model_batch_size: int = 1000
    epochs: int = 2000  # at most; the fit stops early
    holdout: float = 1 / 3
    patience: int = 25  # epochs without improvement in any member
    improvement: float = 0.0  # of the held-out error, relative, that counts
    resample: bool = False  # True: each member sees a bootstrap of the rows; else they differ by start and order alone
    reinitialize: int = 5  # new weights every so many fits
    # policy
    policy_hidden: tuple[int, ...] = (32, 32)
    initial_std: float = 1.0  # and at the start of each policy phase
    normalize_observations: bool = True  # as the benchmark does
    gamma: float = 1.0
    lam: float = 1.0
    max_kl: float = 0.01
    baseline: str = "linear"  # or network
    bootstrap: bool = False  # whether something follows the last imagined step
    # imagination
    horizon: int | None = None  # steps of an imagined path; None: an episode's
    batch: int = 50_000  # imagined steps per update
    updates: int = 400  # per phase, at most
    validate_every: int = 5  # updates
    validation: int = 500  # start states
    tolerated: float = 0.3  # share of members in which an accepted policy may be worse
    stop_after: int = 25  # updates since the last accepted policy
    # exploration, around the mean action
    action_noise: float = 3.0  # largest standard deviation, in units of the box [-1, 1]
    parameter_noise: float = 3.0  # times the policy's last change
    # schedule, in environment steps
    fit_every: int = 3000
    warmup: int | None = 3000  # None: one episode
    capacity: int = 200_000


def me_trpo(env: Env, config: METRPOConfig = METRPOConfig()) -> Agent:
    """Algorithm 2: refit the ensemble, improve the policy in it with validation, collect with the policy, and so on."""
    spec = env.spec
    member = models.deterministic_mlp(
        spec,
        hidden=config.hidden,
        reward=env.reward_fn,
        termination=env.termination_fn,
        normalize_targets=True,
        activation=jax.nn.relu,
        weight_decay=0.0,
    )
    model = models.ensemble(member, config.members)
    trainer = models.trainer(
        model,
        optimizer=optax.adam(config.model_learning_rate),
        epochs=config.epochs,
        batch_size=config.model_batch_size,
        holdout=config.holdout,
        patience=config.patience if config.holdout else None,
        improvement=config.improvement,
        bootstrap=config.resample,
    )
    own = ("initial_std", "gamma", "lam", "max_kl", "baseline", "bootstrap")
    settings = {name: getattr(config, name) for name in own}
    learner = learners.trpo(spec.action, features_shape(model)[0], hidden=config.policy_hidden, **settings)
    horizon = spec.max_steps if config.horizon is None else config.horizon
    batch = checks.integer("batch", config.batch, checks.integer("horizon", horizon, 1))
    own = ("updates", "validate_every", "validation", "tolerated", "stop_after")
    improve = policy_in_ensemble(
        model, learner, horizon=horizon, paths=batch // horizon, **{name: getattr(config, name) for name in own}
    )
    fit_every = checks.integer("fit_every", config.fit_every, 1)
    again = checks.integer("reinitialize", config.reinitialize, 1)
    start = spec.max_steps if config.warmup is None else config.warmup

    def iterate(key: Key, state: ImaginationState, step: Array) -> tuple[ImaginationState, dict]:
        key_init, key_fit, key_watch, key_improve = jax.random.split(key, 4)
        fresh = model.init(key_init)
        due = (step - start) // fit_every % again == 0
        renewed = jax.tree.map(
            lambda a, b: jnp.where(due, a, b), (fresh, trainer.init(fresh)), (state.params, state.opt)
        )
        params, opt, info = trainer.fit(key_fit, *renewed, state.replay)
        state = watched(key_watch, model, spec, state._replace(params=params, opt=opt))
        look = lambda belief: features(model, params, state.seen, belief)  # noqa: E731
        starts = lambda key, n: beliefs_of(key, model, spec, params, data.sample_starts(key, state.replay, n))  # noqa: E731
        learned, seen = improve(key_improve, params, look, starts, restarted(state.learner, config.initial_std))
        change = jax.tree.map(lambda a, b: jnp.abs(a - b), learned.policy["net"], state.learner.policy["net"])
        moved = jnp.any(jnp.asarray([jnp.any(x > 0) for x in jax.tree.leaves(change)]))
        memory = jax.tree.map(lambda a, b: jnp.where(moved, a, b), change, state.memory)
        info = {f"model/{name}": value for name, value in info.items()}
        return state._replace(learner=learned, memory=memory), info | seen

    return imagination(
        spec,
        model,
        trainer,
        learner,
        ((fit_every, iterate),),
        memory=lambda key: jax.tree.map(jnp.zeros_like, learner.init(key).policy["net"]),
        noise=around_the_mean(spec, learner, config.action_noise, config.parameter_noise),
        normalize_features=config.normalize_observations,
        warmup=config.warmup,
        capacity=config.capacity,
    )


def restarted(state: learners.TRPOState, std: float) -> learners.TRPOState:
    """The policy with the standard deviation it began with, where it has one."""
    weights = dict(state.policy)
    if "log_std" in weights:
        weights["log_std"] = jnp.full_like(weights["log_std"], jnp.log(std))
    return state._replace(policy=weights)


def around_the_mean(spec: Spec, learner: Learner, action: float, parameter: float) -> Noise:
    r"""Exploration by a shaken policy and shaken actions, in place of the policy's own standard deviation.

    .. math:: a_t = \mu_{\theta + \epsilon}(s_t) + \sigma u_t z_t, \quad u_t \sim U(0, 1),\; z_t \sim N(0, I),\;
              \epsilon_i \sim N(0, (p\,\Delta_i)^2)

    :math:`\epsilon` is drawn for an episode; :math:`\Delta` (``state.memory``) is how far the last policy phase that
    moved the weights moved each. Discrete actions are drawn from the shaken policy.

    Args:
      action: :math:`\sigma`, in units of the box ``[-1, 1]``, at least 0. The result is clipped to the box.
      parameter: :math:`p`, at least 0.

    Source: the code of Kurutach et al. 2018.
    """
    checks.number("action_noise", action, 0.0)
    checks.number("parameter_noise", parameter, 0.0)

    def apply(key: Key, state: ImaginationState, seed: Array, x: Array, chosen: Array) -> tuple[Array, Array]:
        del chosen
        key_seed, key_act, key_scale, key_action = jax.random.split(key, 4)
        seed = jnp.where(seed == 0, jax.random.bits(key_seed) | 1, seed)
        change, structure = jax.tree.flatten(state.memory)
        keys = jax.random.split(jax.random.key(seed), len(change))
        noise = [parameter * d * jax.random.normal(k, d.shape) for d, k in zip(change, keys, strict=True)]
        net = jax.tree.map(jnp.add, state.learner.policy["net"], jax.tree.unflatten(structure, noise))
        shaken = state.learner._replace(policy=state.learner.policy | {"net": net})
        if not isinstance(spec.action, Continuous):
            return learner.act(key_act, shaken, x, True)[0], seed
        mean = learner.act(key_act, shaken, x, False)[0]
        scale = action * jax.random.uniform(key_scale)
        return jnp.clip(mean + scale * jax.random.normal(key_action, mean.shape), -1.0, 1.0), seed

    # The episode's seed, 0 until its first action.
    return Noise(lambda: jnp.zeros((), jnp.uint32), apply)


SYSTEMS = (
    System("me_trpo", METRPOConfig, me_trpo, "a policy improved while an ensemble agrees (Kurutach et al. 2018)"),
)
