"""The sizes of ``jmbrl bench world_models``, the arithmetic of its parts counted from shapes, and what they run on."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from jmbrl import agents, envs
from jmbrl.agents import world_models_stages as stages
from jmbrl.networks.conv import KERNEL, ConvStack
from jmbrl.types import Env

ENDLESS = 1000  # generations, of which only the last is followed by a check
EPISODE = 256  # frames of a made-up one


class Work(NamedTuple):
    """``part``: ``"encode"`` (``frames`` through V), ``"vision"`` and ``"memory"`` (``updates`` of V and of M),
    ``"world"`` and ``"dream"`` (a generation of C, episodes of ``steps``) or ``"env"`` (``steps`` of ``copies``)."""

    part: str
    env: str = "car_racing"
    size: int = 64
    depth: int = 3  # 1: grey
    channels: tuple[int, ...] = (32, 64, 128, 256)
    latent: int = 32
    hidden: int = 256
    mixtures: int = 5
    frames: int = 1024
    batch_size: int = 100
    updates: int = 4
    length: int = 100
    population: int = 64
    rollouts: int = 16
    steps: int = 100
    copies: int = 64


SMALL = {"env": "dodge", "size": 32, "depth": 1, "channels": (16, 32, 64)}
WORK = {
    "encode_64": Work("encode"),
    "encode_32": Work("encode", **SMALL, frames=8192),
    "vision_64": Work("vision"),
    "vision_32": Work("vision", **SMALL, updates=40),
    "memory": Work("memory"),
    "world_64": Work("world", steps=5),
    "world_32": Work("world", **SMALL, steps=50),
    "dream": Work("dream", **SMALL),
    "env_dodge_32": Work("env", **SMALL, steps=200),
    "env_car_racing_64": Work("env"),
    "env_gymnasium_car_racing": Work("env", "gymnasium:CarRacing-v3", copies=4, steps=25),
}


# ---------------------------------------------------------------------------------------------- the arithmetic


def narrowing(stack: ConvStack) -> list[int]:
    """Multiply-adds of each layer of the encoder on one image: a kernel at every place where it is put."""
    found, (high, wide, depth) = [], stack.shape
    for out in stack.channels:
        high, wide = high // 2 - 1, wide // 2 - 1
        found.append(KERNEL * KERNEL * depth * out * high * wide)
        depth = out
    return found


def widening(stack: ConvStack) -> list[int]:
    """Multiply-adds of each layer of the decoder on one image: a stamp for every pixel that goes in."""
    found, high, wide, depth = [], 1, 1, stack.units
    for (rows, columns), out in zip(stack.kernels, (*stack.channels[-2::-1], stack.shape[2]), strict=True):
        found.append(depth * rows * columns * out * high * wide)
        high, wide, depth = 2 * (high - 1) + rows, 2 * (wide - 1) + columns, out
    return found


def encode_flops(stack: ConvStack, latent: int) -> int:
    """Of an image's mean and standard deviation; two operations a multiply-add, here and below."""
    return 2 * (sum(narrowing(stack)) + stack.units * 2 * latent)


def vision_flops(stack: ConvStack, latent: int) -> int:
    """Of an image in a gradient step: forward, backward to weights and to inputs, but not to the image."""
    forward = encode_flops(stack, latent) + 2 * (latent * stack.units + sum(widening(stack)))
    return 3 * forward - 2 * narrowing(stack)[0]


def recur_flops(work: Work, actions: int) -> int:
    """Of a step of M's memory."""
    return 2 * (work.latent + actions + work.hidden) * 4 * work.hidden


def mixture_flops(work: Work) -> int:
    """Of what M says after a step: mixtures, the reward and the end."""
    return 2 * work.hidden * (3 * work.latent * work.mixtures + 2)


def memory_flops(work: Work, actions: int) -> int:
    """Of a row in a gradient step: forward, backward to weights and to inputs, but not to latents and actions."""
    data = 2 * (work.latent + actions) * 4 * work.hidden
    return 3 * (recur_flops(work, actions) + mixture_flops(work)) - data


def control_flops(work: Work, actions: int) -> int:
    """Of a linear controller on z and h."""
    return 2 * (work.latent + work.hidden) * actions


# ------------------------------------------------------------------------------------------------- what is used


def world(work: Work) -> Env:
    """The environment; in generations episodes last ``steps``: a ``dodge`` without balls draws as much."""
    if work.env.startswith("gymnasium:"):
        return envs.car_racing_frames(envs.make(work.env))
    options = {"size": work.size, "channels": work.depth}
    if work.part == "world":
        options["max_steps"] = work.steps
        if work.env == "dodge":
            options |= {"launch": (0.0, 0.0), "growth": 0.0}
    return envs.make(work.env, **options)


def config(work: Work) -> agents.WorldModelsConfig:
    return agents.WorldModelsConfig(
        episodes=1 + work.frames // EPISODE, collector="held", channels=work.channels, latent=work.latent,
        hidden=work.hidden, mixtures=work.mixtures, vision_batch_size=work.batch_size,
        memory_batch_size=work.batch_size, length=work.length, population=work.population, rollouts=work.rollouts,
        generations=ENDLESS, check_every=ENDLESS, test_episodes=0,
        train_in="world" if work.part == "world" else "dream", dream_horizon=work.steps,
    )  # fmt: skip


def write(folder: Path, env: Env, work: Work) -> None:
    """Made-up episodes and latents, ``frames`` of them."""
    rng, count = np.random.default_rng(0), work.frames
    place = np.arange(count) % EPISODE
    stages.frames(folder, env.spec).append(
        obs=rng.integers(256, size=(count, *env.spec.obs_shape), dtype=np.uint8),
        action=rng.uniform(-1, 1, (count, *env.spec.action.shape)),
        reward=rng.normal(size=count),
        terminated=np.zeros(count, bool),
        is_first=place == 0,
        is_last=(place == EPISODE - 1) | (np.arange(count) == count - 1),
    )
    latents = rng.normal(size=(count, work.latent))
    stages.latents(folder, work.latent).append(mean=latents, std=np.full_like(latents, 0.1))
