"""Dreamer v1: an actor that climbs the derivatives of imagined returns (Hafner et al. 2020)."""

import dataclasses

import jax

from jmbrl import learners, models
from jmbrl.agents.dreamer import cost, dreamer, schedule, separate_adam, warmup_of
from jmbrl.agents.imagination import features_shape
from jmbrl.agents.system import System
from jmbrl.models import Scales
from jmbrl.types import Agent, Env


@dataclasses.dataclass(frozen=True)
class DreamerV1Config:
    """Settings; defaults are the released code's for the control suite."""

    # model
    deter: int = 200
    stoch: int = 30
    hidden: int = 200
    depth: int = 32
    units: int = 400
    free_nats: float = 3.0
    learn_termination: bool = False
    continuation_scale: float = 10.0
    overshooting: int = 1
    paths: str = "both"
    # learning
    train_ratio: float = 250.0  # 100 updates of 50 x 50 frames every 1000 steps
    train_every: int | None = 1000
    batch_size: int = 50
    length: int = 50
    model_rate: float = 6e-4
    actor_rate: float = 8e-5
    critic_rate: float = 8e-5
    max_grad_norm: float = 100.0
    # behaviour
    horizon: int = 15
    start_frames: int | None = None  # imagine from the last so many frames of each window; None: from all
    gamma: float = 0.99
    lam: float = 0.95
    reward_scale: float = 1.0
    action_noise: float = 0.3
    # schedule, in environment steps
    warmup: int | None = 5000
    capacity: int = 100_000


def dreamer_v1(env: Env, config: DreamerV1Config = DreamerV1Config()) -> Agent:
    """A Gaussian latent model, and an actor improved by backpropagation through it. Continuous actions.

    Deviations from the code: an imagined reward belongs to the step that earned it (there: to the state it was earned
    in, so that returns begin one step late); rewards are normalised by the data for the model's head; rewards and
    values begin at exactly 0; vectors are normalised by the data.
    """
    model = models.rssm(
        env.spec,
        memory_kind="gru",
        deter=config.deter,
        stoch=config.stoch,
        hidden=config.hidden,
        activation="elu",
        paths=config.paths,
        sight={
            "style": "stride",
            "depth": config.depth,
            "units": config.units,
            "vectors": "normalized",
            "pixels": "unit",
        },
        reward_layers=2,
        reward_units=config.units,
        learn_termination=config.learn_termination,
        end_layers=3,
        scales=Scales(continuation=config.continuation_scale),
        free_nats=config.free_nats,
        free_mean=True,
        overshooting=config.overshooting,
    )
    behaviour = learners.behaviour(
        env.spec.action,
        features_shape(model)[0],
        policy="tanh_normal",
        layers=4,
        critic_layers=3,
        units=config.units,
        norm="none",
        activation=jax.nn.elu,
        actor_scale=1.0,
        critic="normal",
        horizon=config.horizon,
        gamma=config.gamma,
        lam=config.lam,
        dynamics=1.0,
        entropy=0.0,
        normalise=False,
        slow_weight=0.0,
        reward_scale=config.reward_scale,
    )
    return dreamer(
        env.spec,
        model,
        behaviour,
        separate_adam(config.model_rate, config.actor_rate, config.critic_rate, max_grad_norm=config.max_grad_norm),
        schedule(config.train_ratio, config.batch_size, config.length, config.train_every),
        batch_size=config.batch_size,
        length=config.length,
        start_frames=config.start_frames,
        context=False,
        action_noise=config.action_noise,
        warmup=warmup_of(config),
        capacity=config.capacity,
    )


SYSTEMS = (
    System(
        "dreamer_v1",
        DreamerV1Config,
        dreamer_v1,
        "Gaussian latent model, actor by backpropagation through it (Hafner et al. 2020)",
        cost=cost,
    ),
)
