"""MB-MF: plan in a model, imitate the plans, go on without the model (Nagabandi et al. 2018, arXiv 1708.02596)."""

import dataclasses
import inspect
import math
from collections.abc import Callable

import jax
import optax

from jmbrl import checks, learners, models, planners
from jmbrl.agents.imitated_controller import imitated_controller
from jmbrl.agents.mpc import mpc
from jmbrl.agents.on_policy import on_policy
from jmbrl.agents.system import System
from jmbrl.types import Agent, Env, Learner, Spec


@dataclasses.dataclass(frozen=True)
class MBMFConfig:
    """Settings; defaults are the paper's half-cheetah for networks and TRPO, and the 2019 benchmark's for the planner
    and the stages' lengths (reference sheet 2.4).

    The environment's own reward is used where it has one (as in the paper) unless ``learn_reward``. Deviations: batches
    of the model's fit are drawn from all rows alike (paper: 90 % new ones), its normalisation is refitted with it
    (paper: frozen after the random stage), and its inputs get no noise (the paper's code adds some where the mean is
    above 0). The model learns from the action that was executed, noise and all (paper's code: the one that was
    planned). What keeps the last stage from undoing the imitation: ``agents.imitated_controller``.
    """

    # model
    hidden: tuple[int, ...] = (500,)
    learn_reward: bool = False
    learning_rate: float = 1e-3
    batch_size: int = 512
    epochs: int = 60
    # planner
    horizon: int = 20
    population: int = 5000
    action_noise: float = 0.005
    # policy
    policy_hidden: tuple[int, ...] = (64, 64)
    initial_std: float = 0.5  # after imitation, in units of the box
    normalize_observations: bool = True
    # imitation
    imitation_epochs: int = 300
    imitation_batch_size: int = 512
    imitation_learning_rate: float = 1e-3
    imitation_weight_decay: float = 1e-3
    # model-free
    learner: str = "trpo"  # or ppo (the benchmark)
    learner_options: dict = dataclasses.field(default_factory=dict)  # of learners.trpo or learners.ppo
    batch: int = 50_000  # environment steps per update
    gamma: float = 0.995
    lam: float = 0.95
    # schedule, in environment steps
    warmup: int | None = 10_000  # None: one episode
    fit_every: int = 250
    mpc_steps: int = 7000
    dagger_iterations: int = 3
    dagger_steps: int = 1750  # per iteration
    capacity: int = 100_000


# What the paper (TRPO) and the benchmark (PPO) set apart from their learner's usual numbers.
MODEL_FREE_OPTIONS = {"trpo": {"max_kl": 0.05, "baseline": "linear"}, "ppo": {"clip": 0.1}}


def mb_mf(env: Env, config: MBMFConfig = MBMFConfig()) -> Agent:
    """Random shooting in one network, a policy cloned from it, and that policy improved by TRPO or PPO."""
    spec, width = env.spec, math.prod(env.spec.obs_shape)
    model = models.deterministic_mlp(
        spec,
        hidden=config.hidden,
        reward=None if config.learn_reward else env.reward_fn,
        termination=env.termination_fn,
        normalize_targets=True,
        activation=jax.nn.relu,
        weight_decay=0.0,
    )
    trainer = models.trainer(
        model, optimizer=optax.adam(config.learning_rate), epochs=config.epochs, batch_size=config.batch_size
    )
    controller = mpc(
        spec,
        model,
        planners.random_shooting(spec, horizon=config.horizon, population=config.population),
        trainer=trainer,
        action_noise=config.action_noise,
        fit_every=config.fit_every,
        warmup=config.warmup,
        capacity=config.capacity,
    )
    actor = on_policy(
        spec,
        model_free_learner(spec, config),
        batch=config.batch,
        normalize_observations=config.normalize_observations,
    )
    cloner = learners.cloning(
        spec.action,
        width,
        hidden=config.policy_hidden,
        learning_rate=config.imitation_learning_rate,
        weight_decay=config.imitation_weight_decay,
    )
    return imitated_controller(
        spec,
        controller,
        actor,
        cloner,
        mpc_steps=config.mpc_steps,
        dagger_iterations=config.dagger_iterations,
        dagger_steps=config.dagger_steps,
        epochs=config.imitation_epochs,
        batch_size=config.imitation_batch_size,
        initial_std=config.initial_std,
    )


def model_free_learner(spec: Spec, config: MBMFConfig) -> Learner:
    """The learner of the last stage, whose policy has the shape of the one that is cloned."""
    name = checks.choice("learner", config.learner, tuple(MODEL_FREE_OPTIONS))
    make: Callable = getattr(learners, name)
    own = {"hidden", "initial_std", "gamma", "lam"}
    known = [option for option in list(inspect.signature(make).parameters)[2:] if option not in own | {"activation"}]
    for option in config.learner_options:
        checks.choice("learner_options", option, tuple(known))
    return make(
        spec.action,
        math.prod(spec.obs_shape),
        hidden=config.policy_hidden,
        initial_std=config.initial_std,
        gamma=config.gamma,
        lam=config.lam,
        **MODEL_FREE_OPTIONS[name] | config.learner_options,
    )


SYSTEMS = (
    System("mb_mf", MBMFConfig, mb_mf, "random shooting, then its clone, then TRPO or PPO (Nagabandi et al. 2018)"),
)
