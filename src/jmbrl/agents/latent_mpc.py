"""Planning in a learned memory: a recurrent state-space model of vector observations, and CEM through it.

The same ``mpc`` as PETS; only the model and its trainer differ. PlaNet proper (images, its schedule) is a
system of its own.
"""

import dataclasses

import optax

from jmbrl import models, planners
from jmbrl.agents.mpc import mpc
from jmbrl.agents.system import System
from jmbrl.types import Agent, Env


@dataclasses.dataclass(frozen=True)
class LatentMPCConfig:
    """Settings; defaults follow PlaNet (reference sheet for latent models) with networks sized for a CPU."""

    # model
    deter: int = 64
    stoch: int = 8
    hidden: int = 64
    free_nats: float = 0.0
    kl_scale: float = 0.1
    learn_termination: bool = False
    learning_rate: float = 1e-3
    max_grad_norm: float = 100.0  # PlaNet: 1000, for sums over pixels
    updates: int = 200  # PlaNet: 100 per episode, of 50 windows
    batch_size: int = 32
    length: int = 32
    # planner
    horizon: int = 15
    population: int = 200  # PlaNet: 1000
    elites: int = 20  # PlaNet: 100
    iterations: int = 6  # PlaNet: 10
    particles: int = 1
    replan_every: int = 1
    action_noise: float = 0.3
    # schedule, in environment steps; None is one episode
    fit_every: int | None = None
    warmup: int | None = None
    capacity: int = 50_000


def latent_mpc(env: Env, config: LatentMPCConfig = LatentMPCConfig()) -> Agent:
    """CEM through a recurrent latent model whose belief is filtered from partial observations."""
    model = models.rssm(
        env.spec,
        deter=config.deter,
        stoch=config.stoch,
        hidden=config.hidden,
        free_nats=config.free_nats,
        kl_scale=config.kl_scale,
        learn_termination=config.learn_termination,
    )
    trainer = models.sequence_trainer(
        model,
        optimizer=optax.adam(config.learning_rate),
        updates=config.updates,
        batch_size=config.batch_size,
        length=config.length,
        max_grad_norm=config.max_grad_norm,
    )
    planner = planners.cem(
        env.spec,
        horizon=config.horizon,
        population=config.population,
        elites=config.elites,
        iterations=config.iterations,
        alpha=0.0,
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


SYSTEMS = (System("latent_mpc", LatentMPCConfig, latent_mpc, "recurrent latent model + CEM, for partial observation"),)
