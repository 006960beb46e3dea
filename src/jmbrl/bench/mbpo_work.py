"""The sizes of ``jmbrl bench mbpo``, the arithmetic of its parts counted, and what they run on."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import envs, models
from jmbrl.bench.measure import flops_per_row
from jmbrl.types import Array, Continuous, Env, Key, Model, Params, Transition


class Work(NamedTuple):
    """``part``: ``"sac"`` (``updates`` in one scan), ``"rollout"`` (``rollouts`` of ``horizon`` steps) or ``"run"``
    (periods of ``fit_every`` environment steps, ``updates`` a step, after ``warmup`` random ones)."""

    part: str = "sac"
    policy_hidden: tuple[int, ...] = (256, 256)
    updates: int = 20
    batch_size: int = 256
    rollouts: int = 100_000
    horizon: int = 1
    obs: int = 17
    action: int = 6
    members: int = 7
    elites: int = 5
    hidden: tuple[int, ...] = (200, 200, 200, 200)
    fit_every: int = 250
    warmup: int = 5000


WORK = {
    "sac_64": Work(policy_hidden=(64, 64)),
    "sac_256": Work(),
    "sac_512": Work(policy_hidden=(512, 512)),
    "rollout": Work("rollout"),
    "rollout_512": Work("rollout", policy_hidden=(512, 512)),
    "rollout_of_5": Work("rollout", rollouts=20_000, horizon=5),
    "rollout_of_5_512": Work("rollout", policy_hidden=(512, 512), rollouts=20_000, horizon=5),
    "run": Work("run", updates=40),
}


# ---------------------------------------------------------------------------------------------- the arithmetic


def multiply_adds(inputs: int, hidden: Sequence[int], outputs: int) -> int:
    """Of a dense network on one row."""
    return sum(a * b for a, b in pairwise((inputs, *hidden, outputs)))


def update_flops(obs: int, action: int, hidden: Sequence[int]) -> int:
    """Of one update of soft actor-critic, per row of its batch; two operations a multiply-add.

    Critics: policy forward at the next state (1 P), targets forward (2 C), critics forward (2 C), backward to their
    weights (2 C) and their layers' inputs (2 C, but not to the data: first layer, ``obs + action`` inputs each).
    Policy: forward (1 P), critics forward (2 C), backward through them to the action (2 C, but not to ``obs``),
    backward to its weights (1 P) and its layers' inputs (1 P, but not to ``obs``).
    """
    policy = multiply_adds(obs, hidden, 2 * action)
    critic = multiply_adds(obs + action, hidden, 1)
    not_needed = 2 * (obs + action) + 2 * obs + obs
    return 2 * (4 * policy + 12 * critic - not_needed * hidden[0])


def transition_flops(work: Work, params: Params) -> int:
    """Of one imagined transition: one member of the ensemble and the policy, forward."""
    policy = 2 * multiply_adds(work.obs, work.policy_hidden, 2 * work.action)
    return flops_per_row(params, work.members) + policy


def fit_flops(work: Work, params: Params, batch_size: int) -> int:
    """Of one gradient step of the ensemble: forward, backward to weights and inputs, not to the data."""
    first = 2 * (work.obs + work.action) * work.hidden[0]
    return work.members * batch_size * (3 * flops_per_row(params, work.members) - first)


# ------------------------------------------------------------------------------------------------- what is used


def space(work: Work) -> Continuous:
    return Continuous((-1.0,) * work.action, (1.0,) * work.action)


def ensemble(work: Work) -> Model:
    return models.ensemble(models.gaussian_mlp(world(work).spec, work.hidden), work.members, elites=work.elites)


def world(work: Work) -> Env:
    """A world of these shapes that costs nothing: leaky, pushed by the actions, a little noisy."""
    push = jnp.asarray(np.random.default_rng(0).normal(size=(work.action, work.obs)), jnp.float32)

    def reset(key: Key) -> tuple[Array, Array]:
        obs = 0.1 * jax.random.normal(key, (work.obs,))
        return obs, obs

    def step(key: Key, obs: Array, action: Array) -> tuple:
        noise = 0.01 * jax.random.normal(key, obs.shape)
        obs = 0.9 * obs + 0.1 * jnp.tanh(action @ push + jnp.roll(obs, 1)) + noise
        return obs, obs, obs[0] - 0.1 * jnp.sum(action**2), jnp.asarray(False)

    return envs.from_functions(reset, step, action=space(work), max_steps=1000, name="bench", obs_shape=(work.obs,))


def batch(work: Work, rows: int) -> Transition:
    """Made-up rows."""
    rng = np.random.default_rng(0)
    obs, following = rng.normal(size=(2, rows, work.obs)).astype(np.float32)
    action = rng.uniform(-1, 1, (rows, work.action)).astype(np.float32)
    ends = np.zeros(rows, bool)
    return Transition(*map(jnp.asarray, (obs, action, obs[:, 0], following, ends, ends)))


def batches(work: Work) -> Transition:
    """``[updates, batch_size, ...]``."""
    rows = batch(work, work.updates * work.batch_size)
    return jax.tree.map(lambda x: x.reshape(work.updates, work.batch_size, *x.shape[1:]), rows)
