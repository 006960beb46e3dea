"""OPAX: explore by planning for what an ensemble does not know, without any reward (Sukhija et al. 2023)."""

import dataclasses

import optax

from jmbrl import checks, models, planners
from jmbrl.agents.mpc import mpc
from jmbrl.agents.system import System, stacked
from jmbrl.types import Agent, Env, Model, Planner, Spec


@dataclasses.dataclass(frozen=True)
class OPAXConfig:
    """Settings; the network and the planner are sized as the paper's for its small tasks where it says so.

    Plans are for ``intrinsic`` times what is unknown, plus ``extrinsic`` times the reward, which is 0: what was learned
    serves any reward afterwards (``docs/exploration.md``). The ablations of the paper: ``optimism=0`` (the mean of the
    members), ``sampled=True`` (trajectory sampling as in PETS).
    """

    frames: int = 1  # observations stacked into one, where one does not tell the state
    # model
    members: int = 5
    hidden: tuple[int, ...] = (128, 128)
    weight_decay: tuple[float, ...] = (1e-4, 2.5e-4, 5e-4)  # one per layer, the output's last
    learn_reward: bool = False  # where the environment has a function of its own
    learning_rate: float = 1e-3
    batch_size: int = 32
    epochs: int = 25
    # exploration
    curiosity: str = "information_gain"  # or disagreement
    intrinsic: float = 1.0
    extrinsic: float = 0.0
    noise: float = 1e-3  # least standard deviation of what a step adds, in the observation's units
    optimism: float = 1.0  # beta; how far plans may choose within the spread of the members
    sampled: bool = False  # True: members drawn at each step in the place of optimism
    # planner: iCEM
    horizon: int = 25
    population: int = 100
    elites: int = 10
    iterations: int = 5
    particles: int = 1
    replan_every: int = 1
    # schedule, in environment steps; None is one episode
    fit_every: int | None = None
    warmup: int | None = None
    capacity: int = 100_000


def opax(env: Env, config: OPAXConfig = OPAXConfig()) -> Agent:
    """Algorithm 1: in every episode, plan through the most informative world that the data allow; refit after it.

    Deviation: plans are made anew at every step (MPC) rather than one policy an episode.
    """
    model = explored_model(env, config)
    trainer = models.trainer(
        model, optimizer=optax.adam(config.learning_rate), epochs=config.epochs, batch_size=config.batch_size
    )
    wanted = models.curious(
        model, config.curiosity, intrinsic=config.intrinsic, extrinsic=config.extrinsic, noise=config.noise
    )
    checks.number("optimism", config.optimism, 0.0)
    spec = env.spec
    if config.sampled:
        planner = make_planner(spec, config)
    else:
        wanted = models.hallucinated(wanted, spec, config.optimism)
        planner = models.hallucinated_planner(make_planner(models.hallucinated_spec(spec), config), spec)
    return mpc(
        spec,
        wanted,
        planner,
        trainer=trainer,
        particles=config.particles,
        replan_every=config.replan_every,
        fit_every=config.fit_every,
        warmup=config.warmup,
        capacity=config.capacity,
    )


def explored_model(env: Env, config: OPAXConfig) -> Model:
    """The ensemble that is learned, with the environment's own reward: what tasks are planned in afterwards."""
    member = models.gaussian_mlp(
        env.spec,
        hidden=config.hidden,
        weight_decay=config.weight_decay,
        reward=None if config.learn_reward else env.reward_fn,
        termination=env.termination_fn,
    )
    return models.ensemble(member, config.members)


def make_planner(spec: Spec, config: OPAXConfig) -> Planner:
    """iCEM of the settings."""
    return planners.icem(
        spec,
        horizon=config.horizon,
        population=config.population,
        elites=config.elites,
        iterations=config.iterations,
    )


SYSTEMS = (
    System("opax", OPAXConfig, opax, "optimistic active exploration without a reward (Sukhija et al. 2023)", stacked),
)
