"""Dreamer v2: categorical latents, a slow critic, REINFORCE for discrete actions (Hafner et al. 2021)."""

import dataclasses

import jax

from jmbrl import learners, models
from jmbrl.agents.dreamer import cost, dreamer, schedule, separate_adam, warmup_of
from jmbrl.agents.imagination import features_shape
from jmbrl.agents.system import System
from jmbrl.models import Scales
from jmbrl.types import Agent, Discrete, Env


@dataclasses.dataclass(frozen=True)
class DreamerV2Config:
    """Settings; defaults are the released code's own, the presets its changes for Atari and the control suite."""

    # model
    deter: int = 1024
    stoch: int = 32
    classes: int = 32
    hidden: int = 1024
    depth: int = 48
    units: int = 400
    free_nats: float = 0.0
    kl_scale: float = 1.0
    kl_balance: float = 0.8
    learn_termination: bool = True
    continuation_scale: float = 1.0
    overshooting: int = 1
    paths: str = "both"
    small_images: str = "flat"
    # learning
    train_ratio: float = 160.0  # an update of 16 x 50 frames every 5 steps
    train_every: int | None = None
    batch_size: int = 16
    length: int = 50
    model_rate: float = 1e-4
    actor_rate: float = 8e-5
    critic_rate: float = 2e-4
    max_grad_norm: float = 100.0
    decay: float = 1e-6
    # behaviour
    horizon: int = 15
    start_frames: int | None = None  # imagine from the last so many frames of each window; None: from all
    gamma: float = 0.99
    lam: float = 0.95
    entropy: float = 2e-3
    dynamics_gradient: float | None = None  # None: 1 for continuous actions, 0 for discrete ones
    slow_every: int = 100
    reward_scale: float = 1.0
    # schedule, in environment steps
    warmup: int | None = 10_000
    capacity: int = 100_000  # the code: 2e6, in the host's memory


def dreamer_v2(env: Env, config: DreamerV2Config = DreamerV2Config()) -> Agent:
    """A categorical latent model, and an actor and a critic in its imagination.

    Deviations from the code: rewards are normalised by the data for the model's head (there: squashed by tanh, or raw)
    and multiplied by ``reward_scale`` in imagination; rewards and values begin at exactly 0; vectors are normalised by
    the data; the replay is smaller.
    """
    discrete = isinstance(env.spec.action, Discrete)
    model = models.rssm(
        env.spec,
        memory_kind="layer_norm_gru",
        deter=config.deter,
        stoch=config.stoch,
        classes=config.classes,
        hidden=config.hidden,
        activation="elu",
        paths=config.paths,
        sight={"style": "stride", "depth": config.depth, "units": config.units, "layers": 4}
        | {"vectors": "normalized", "pixels": "unit", "conv_activation": jax.nn.elu}
        | {"small_images": config.small_images},
        reward_layers=4,
        reward_units=config.units,
        learn_termination=config.learn_termination,
        end_layers=4,
        scales=Scales(
            continuation=config.continuation_scale,
            dynamics=config.kl_scale * config.kl_balance,
            representation=config.kl_scale * (1.0 - config.kl_balance),
        ),
        free_nats=config.free_nats,
        free_mean=True,
        overshooting=config.overshooting,
    )
    dynamics = config.dynamics_gradient
    behaviour = learners.behaviour(
        env.spec.action,
        features_shape(model)[0],
        policy="truncated_normal",
        layers=4,
        units=config.units,
        norm="none",
        activation=jax.nn.elu,
        actor_scale=1.0,
        critic="normal",
        horizon=config.horizon,
        gamma=config.gamma,
        lam=config.lam,
        dynamics=(0.0 if discrete else 1.0) if dynamics is None else dynamics,
        entropy=config.entropy,
        normalise=False,
        slow_rate=1.0,
        slow_every=config.slow_every,
        slow_target=True,
        slow_weight=0.0,
        reward_scale=config.reward_scale,
    )
    return dreamer(
        env.spec,
        model,
        behaviour,
        separate_adam(
            config.model_rate,
            config.actor_rate,
            config.critic_rate,
            max_grad_norm=config.max_grad_norm,
            eps=1e-5,
            decay=config.decay,
        ),
        schedule(config.train_ratio, config.batch_size, config.length, config.train_every),
        batch_size=config.batch_size,
        length=config.length,
        start_frames=config.start_frames,
        context=False,
        warmup=warmup_of(config),
        capacity=config.capacity,
    )


SYSTEMS = (
    System(
        "dreamer_v2",
        DreamerV2Config,
        dreamer_v2,
        "categorical latent model, imagined actor-critic with a slow critic (Hafner et al. 2021)",
        cost=cost,
    ),
)
