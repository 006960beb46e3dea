"""PlaNet: planning in the latents of a model learned from images (Hafner et al. 2019).

The same ``mpc`` as PETS; only the model and its trainer differ.
"""

import dataclasses

import optax

from jmbrl import models, planners
from jmbrl.agents.mpc import mpc
from jmbrl.agents.system import System
from jmbrl.models import Scales
from jmbrl.types import Agent, Env


@dataclasses.dataclass(frozen=True)
class PlaNetConfig:
    """Settings; defaults are the released code's."""

    # model
    deter: int = 200
    stoch: int = 30
    hidden: int = 200
    depth: int = 32
    units: int = 300
    free_nats: float = 3.0
    kl_scale: float = 1.0
    reward_scale: float = 10.0
    learn_termination: bool = False
    overshooting: int = 1
    overshooting_scale: float = 1.0
    paths: str = "both"
    learning_rate: float = 1e-3
    max_grad_norm: float = 1000.0
    updates: int = 100  # per fit
    batch_size: int = 50
    length: int = 50
    # planner
    horizon: int = 12
    population: int = 1000
    elites: int = 100
    iterations: int = 10
    particles: int = 1
    replan_every: int = 1
    action_noise: float = 0.3
    # schedule, in environment steps; None is one episode
    fit_every: int | None = None
    warmup: int | None = None  # PlaNet: 5 episodes
    capacity: int = 100_000


def planet(env: Env, config: PlaNetConfig = PlaNetConfig()) -> Agent:
    """CEM through a Gaussian latent model that filters images or vectors.

    Deviations from the code: rewards are normalised by the data for the model's head; vectors are normalised by the
    data; images keep their eight bits.
    """
    model = models.rssm(
        env.spec,
        deter=config.deter,
        stoch=config.stoch,
        hidden=config.hidden,
        paths=config.paths,
        sight={
            "style": "stride",
            "depth": config.depth,
            "units": config.units,
            "vectors": "normalized",
            "pixels": "unit",
        },
        reward_layers=3,
        reward_units=config.units,
        learn_termination=config.learn_termination,
        scales=Scales(
            reward=config.reward_scale,
            dynamics=config.kl_scale,
            representation=config.kl_scale,
            overshooting=config.overshooting_scale,
        ),
        free_nats=config.free_nats,
        overshooting=config.overshooting,
    )
    trainer = models.sequence_trainer(
        model,
        optimizer=optax.adam(config.learning_rate, eps=1e-4),
        updates=config.updates,
        batch_size=config.batch_size,
        length=config.length - 1,  # rows: frames are one more
        max_grad_norm=config.max_grad_norm,
    )
    planner = planners.cem(
        env.spec,
        horizon=config.horizon,
        population=config.population,
        elites=config.elites,
        iterations=config.iterations,
        alpha=0.0,
        std=1.0,
        min_variance=0.0,
        bounded=False,
        warm_start=False,
    )
    return mpc(
        env.spec,
        model,
        planner,
        trainer=trainer,
        particles=config.particles,
        replan_every=config.replan_every,
        action_noise=config.action_noise,
        fit_every=config.fit_every,
        warmup=config.warmup,
        capacity=config.capacity,
    )


SYSTEMS = (System("planet", PlaNetConfig, planet, "latent model of images + CEM through it (Hafner et al. 2019)"),)
