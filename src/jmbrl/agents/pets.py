"""PETS: probabilistic ensembles with trajectory sampling (Chua et al. 2018, arXiv 1805.12114)."""

import dataclasses

import optax

from jmbrl import checks, envs, models, planners
from jmbrl.agents.mpc import mpc
from jmbrl.agents.system import System, stacked
from jmbrl.types import Agent, Env, Planner, Spec


@dataclasses.dataclass(frozen=True)
class PETSConfig:
    """Settings of PETS; defaults are the paper's half-cheetah model with its usual planner (reference sheet 2.1, 2.2).

    The environment's own reward function is used where it has one (as in the paper) unless ``learn_reward``.
    """

    frames: int = 1  # observations stacked into one, where one does not tell the state
    # model
    members: int = 5
    hidden: tuple[int, ...] = (200, 200, 200, 200)
    weight_decay: tuple[float, ...] = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4)  # one per layer, the output's last
    probabilistic: bool = True  # False: the ablation's deterministic networks
    propagation: str = "tsinf"  # or ts1, mean
    learn_reward: bool = False
    normalize_targets: bool = False  # PETS: no
    learning_rate: float = 1e-3
    batch_size: int = 32
    epochs: int = 5
    # planner
    planner: str = "cem"  # or random_shooting
    horizon: int = 30
    population: int = 500
    elites: int = 50
    iterations: int = 5
    alpha: float = 0.1
    min_variance: float = 1e-3
    particles: int = 20
    replan_every: int = 1
    # schedule, in environment steps; None is one episode
    fit_every: int | None = None
    warmup: int | None = None
    capacity: int = 100_000
    # worlds that change: "cusum" forgets old rows at an alarm, "always" at every fit; the rest as in agents.mpc
    change: str | None = None
    change_options: dict = dataclasses.field(default_factory=dict)
    old_share: float = 0.0
    fewest: int = 100
    reset_weights: bool = False


def pets(env: Env, config: PETSConfig = PETSConfig()) -> Agent:
    """Algorithm 1: an ensemble of Gaussian networks, refitted every episode, and CEM over sampled trajectories."""
    network = models.gaussian_mlp if config.probabilistic else models.deterministic_mlp
    reward = None if config.learn_reward else env.reward_fn
    member = network(
        env.spec,
        hidden=config.hidden,
        weight_decay=config.weight_decay,
        reward=reward,
        termination=env.termination_fn,
        normalize_targets=config.normalize_targets,
    )
    model = models.ensemble(member, config.members, propagation=config.propagation)
    trainer = models.trainer(
        model, optimizer=optax.adam(config.learning_rate), epochs=config.epochs, batch_size=config.batch_size
    )
    return mpc(
        env.spec,
        model,
        make_planner(env.spec, config),
        trainer=trainer,
        particles=config.particles,
        replan_every=config.replan_every,
        fit_every=config.fit_every,
        warmup=config.warmup,
        capacity=config.capacity,
        change=models.change_detector(config.change, **config.change_options),
        old_share=config.old_share,
        fewest=config.fewest,
        reset_weights=config.reset_weights,
    )


def make_planner(spec: Spec, config: PETSConfig) -> Planner:
    """The search that ``config.planner`` names."""
    checks.choice("planner", config.planner, ("cem", "random_shooting"))
    if config.planner == "random_shooting":
        return planners.random_shooting(spec, horizon=config.horizon, population=config.population)
    return planners.cem(
        spec,
        horizon=config.horizon,
        population=config.population,
        elites=config.elites,
        iterations=config.iterations,
        alpha=config.alpha,
        min_variance=config.min_variance,
    )


def true_model(env: Env, config: PETSConfig = PETSConfig()) -> Agent:
    """The upper bound of a PETS table: the same planner through the true simulator. ``env`` shows its state
    (``envs.with_state``)."""
    return mpc(
        env.spec, models.simulator(env), make_planner(env.spec, config), particles=1, replan_every=config.replan_every
    )


def _with_state(env: Env, config: PETSConfig) -> Env:
    del config
    return envs.with_state(env)


SYSTEMS = (
    System("pets", PETSConfig, pets, "probabilistic ensemble + CEM, trajectory sampling (Chua et al. 2018)", stacked),
    System("gt_cem", PETSConfig, true_model, "PETS' planner through the true simulator: the upper bound", _with_state),
)
