"""Dreamer v3: one set of numbers for all tasks (Hafner et al. 2023)."""

import dataclasses

import jax

from jmbrl import learners, models
from jmbrl.agents.dreamer import cost, dreamer, schedule, warmup_of
from jmbrl.agents.imagination import features_shape
from jmbrl.agents.system import System
from jmbrl.models import Scales
from jmbrl.types import Agent, Env, Model

DISCOUNT = 1 - 1 / 333


@dataclasses.dataclass(frozen=True)
class DreamerV3Config:
    """Settings; defaults are the released code's with its size of one million weights."""

    # size: what the presets size_xs to size_200m choose
    deter: int = 512
    hidden: int = 64
    classes: int = 4
    depth: int = 4
    units: int = 64
    stoch: int = 32
    blocks: int = 8
    # learning
    train_ratio: float = 32.0  # frames replayed for each environment step
    train_every: int | None = None  # environment steps between turns of learning; None: as often as there is an update
    batch_size: int = 16
    length: int = 64
    learning_rate: float = 4e-5
    rate_warmup: int = 1000
    clipping: float = 0.3
    # model
    free_nats: float = 1.0
    dynamics_scale: float = 1.0
    representation_scale: float = 0.1
    reconstruction_scale: float = 1.0  # 0: a decoder that is taught and teaches nothing
    overshooting: int = 1
    paths: str = "both"
    mix: float = 0.01
    vectors: str = "symlog"  # or normalized, by the data
    small_images: str = "flat"  # conv: 3x3 filters for images too small to be halved
    # behaviour
    horizon: int = 15
    start_frames: int | None = None  # imagine from the last so many frames of each window; None: from all
    gamma: float = DISCOUNT
    lam: float = 0.95
    entropy: float = 3e-4
    dynamics_gradient: float = 0.0
    slow_rate: float = 0.02
    replay_value: float = 0.3
    # schedule, in environment steps
    warmup: int | None = None  # of random actions; None: as many as an update's frames
    capacity: int = 100_000  # the code: 5e6, in the host's memory


def dreamer_v3(env: Env, config: DreamerV3Config = DreamerV3Config()) -> Agent:
    """A categorical latent model, and an actor and a critic in its imagination, learned by one sum of losses.

    As in the code, evaluation draws from the policy: its mode can rest where only the noise would have moved it on.
    Deviations from the code: a start's continuation is the recorded one (there: the predicted one); the replay is
    smaller.
    """
    return learned_in(env, latent_model(env, config), config)


def latent_model(env: Env, config: DreamerV3Config, task_gradient: bool = True) -> Model:
    """Its recurrent state-space model. ``task_gradient`` as in ``models.rssm``."""
    return models.rssm(
        env.spec,
        memory_kind="block_gru",
        deter=config.deter,
        stoch=config.stoch,
        classes=config.classes,
        hidden=config.hidden,
        blocks=config.blocks,
        prior_layers=2,
        posterior_layers=1,
        norm="rms",
        activation="silu",
        mix=config.mix,
        paths=config.paths,
        sight={"depth": config.depth, "units": config.units, "small_images": config.small_images}
        | {"vectors": config.vectors},
        reward_kind="two_hot",
        reward_layers=1,
        reward_units=config.units,
        learn_termination=True,
        end_smoothing=1 - config.gamma,
        scales=Scales(
            reconstruction=config.reconstruction_scale,
            dynamics=config.dynamics_scale,
            representation=config.representation_scale,
        ),
        free_nats=config.free_nats,
        overshooting=config.overshooting,
        task_gradient=task_gradient,
    )


def learned_in(env: Env, model: Model, config: DreamerV3Config) -> Agent:
    """Its actor and critic, its optimiser and its schedule, on a model."""
    behaviour = learners.behaviour(
        env.spec.action,
        features_shape(model)[0],
        units=config.units,
        horizon=config.horizon,
        gamma=config.gamma,
        lam=config.lam,
        entropy=config.entropy,
        dynamics=config.dynamics_gradient,
        slow_rate=config.slow_rate,
        draws=True,
        activation=jax.nn.silu,
    )
    return dreamer(
        env.spec,
        model,
        behaviour,
        learners.laprop(config.learning_rate, warmup=config.rate_warmup, clipping=config.clipping),
        schedule(config.train_ratio, config.batch_size, config.length, config.train_every),
        batch_size=config.batch_size,
        length=config.length,
        start_frames=config.start_frames,
        replay_value=config.replay_value,
        warmup=warmup_of(config),
        capacity=config.capacity,
    )


SYSTEMS = (
    System(
        "dreamer_v3",
        DreamerV3Config,
        dreamer_v3,
        "categorical latent model, imagined actor-critic, one set of numbers (Hafner et al. 2023)",
        cost=cost,
    ),
)
