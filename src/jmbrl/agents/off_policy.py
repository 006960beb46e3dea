"""Model-free agents that learn from a replay: soft actor-critic and deep Q-learning, the baselines of every table."""

import dataclasses
import math
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jmbrl import checks, data, learners
from jmbrl.agents.system import System, numbered_actions
from jmbrl.data import prioritized_replay as priority
from jmbrl.data.windows import windows_at
from jmbrl.envs.wrappers import vector_size
from jmbrl.health import is_counter
from jmbrl.types import ActionSpace, Agent, Array, Env, Key, Learner, PyTree, Sequence, Spec, Transition


class Priority(NamedTuple):
    """How rows are preferred: ``alpha`` as in ``data.prioritized_replay``; ``beta`` grows to 1 within ``beta_steps``
    environment steps."""

    alpha: float | Array = 0.5
    beta: float | Array = 0.4
    beta_steps: int | Array = 100_000


class OffPolicyState(NamedTuple):
    """``priorities``: of the rows, None where they are drawn uniformly."""

    replay: data.Replay
    priorities: priority.Priorities | None
    learner: PyTree


def off_policy(
    spec: Spec,
    learner: Learner,
    *,
    batch_size: int = 256,
    updates: float = 1,
    warmup: int | None = None,
    capacity: int = 1_000_000,
    n_step: int = 1,
    gamma: float | Array = 0.99,
    prioritized: Priority | None = None,
    window: int = 0,
) -> Agent:
    """Act with a learner that is improved on batches of rows seen earlier. What it sees are the observations, images as
    vectors of numbers in ``[0, 1]`` where they are bytes.

    Args:
      spec: the environment's.
      learner: takes ``Transition[B]`` (``learners.sac``, ``learners.dqn``).
      batch_size: rows per update.
      updates: per environment step; below 1 the reciprocal of a whole number, ``0.25`` is one update every 4 steps.
      warmup: environment steps of random actions before the first update, at least 1; None: one episode.
      capacity: rows kept per environment.
      n_step: steps in a return. Above 1, and with ``prioritized``, the learner must take ``data.NStepRows``.
      gamma: discount in these returns, the learner's own.
      prioritized: draw rows by the ``priority`` that the learner reports; None: uniformly.
      window: above 0 the learner's ``update`` is also given the so many rows that begin with each row of the batch,
        ``Sequence[B, window]``, for its auxiliary losses.

    Raises:
      ValueError: a number outside its range.

    Metrics: ``learner/...``, per update period.
    """
    batch_size = checks.integer("batch_size", batch_size, 1)
    period, per_period = schedule(updates)
    warmup = checks.integer("warmup", spec.max_steps if warmup is None else warmup, 1)
    capacity = checks.integer("capacity", capacity, 1)
    n_step = checks.integer("n_step", n_step, 1, capacity)
    window = checks.integer("window", window, 0, capacity)
    checks.number("gamma", gamma, 0.0, 1.0)
    for name, value, high in zip(("alpha", "beta", "beta_steps"), prioritized or (), (None, 1.0, None), strict=False):
        checks.number(name, value, 0.0, high)

    def init(key: Key, num_envs: int) -> OffPolicyState:
        priorities = None if prioritized is None else priority.no_priorities(capacity * num_envs)
        return OffPolicyState(data.empty(spec, capacity, num_envs), priorities, learner.init(key))

    def vectors(obs: Array) -> Array:
        if len(spec.obs_shape) != 1:
            obs = obs.reshape(*obs.shape[: obs.ndim - len(spec.obs_shape)], -1)
        return obs.astype(jnp.float32) / 255.0 if spec.obs_dtype == "uint8" else obs

    def seen(rows: Transition) -> Transition:
        return rows._replace(obs=vectors(rows.obs), next_obs=vectors(rows.next_obs))

    def act(key: Key, state: OffPolicyState, carry: tuple, obs: PyTree, is_first: Array, explore: bool) -> tuple:
        del is_first
        action, _ = learner.act(key, state.learner, vectors(obs), explore)
        return action, carry, {}

    def record(state: OffPolicyState, carry: PyTree, rows: Transition, valid: Array) -> OffPolicyState:
        replay, priorities = data.add(state.replay, rows, valid), state.priorities
        if priorities is not None:
            places = state.replay.cursor * replay.num_envs + jnp.arange(replay.num_envs)
            priorities = priority.arrived(priorities, places, replay.valid[state.replay.cursor])
        return state._replace(replay=replay, priorities=priorities)

    def draw(key: Key, state: OffPolicyState, step: Array) -> tuple[Array, Transition | data.NStepRows]:
        if prioritized is None or state.priorities is None:
            places = data.sample_places(key, state.replay, batch_size)
            rows = data.take(state.replay, places)
            return places, seen(rows) if n_step == 1 else longer(state, places)
        places, chance = priority.sample_by_priority(key, state.priorities, batch_size)
        done = jnp.minimum(step / jnp.maximum(prioritized.beta_steps, 1), 1.0)
        weight = priority.importance(chance, prioritized.beta + (1.0 - prioritized.beta) * done)
        return places, longer(state, places)._replace(weight=weight)

    def longer(state: OffPolicyState, places: Array) -> data.NStepRows:
        batch = data.n_step(state.replay, places, n_step, gamma)
        return batch._replace(rows=seen(batch.rows))

    def following(state: OffPolicyState, places: Array) -> Sequence:
        windows = windows_at(state.replay, places, window)
        return windows._replace(transition=seen(windows.transition))

    def improve(key: Key, state: OffPolicyState, step: Array) -> tuple[OffPolicyState, dict]:
        def one(state: OffPolicyState, key: Key) -> tuple[OffPolicyState, dict]:
            key_rows, key_update = jax.random.split(key)
            places, rows = draw(key_rows, state, step)
            windows = (following(state, places),) if window else ()
            learned, info = learner.update(key_update, state.learner, rows, *windows)
            errors, priorities = info.pop("priority", None), state.priorities
            if prioritized is not None and priorities is not None and errors is not None:
                priorities = priority.learned(priorities, places, errors, prioritized.alpha)
            return state._replace(learner=learned, priorities=priorities), info

        state, info = jax.lax.scan(one, state, jax.random.split(key, per_period))
        return state, {f"learner/{name}": summary(name, x) for name, x in info.items()}

    return Agent(init, lambda state: (), act, record, ((period, improve),), warmup)


def schedule(updates: float) -> tuple[int, int]:
    """``(period, per_period)``: environment steps between updates, and how many are made then.

    >>> schedule(20), schedule(0.25)
    ((1, 20), (4, 1))
    """
    checks.number("updates", updates, 0.0)
    period = 1 if updates >= 1 or updates == 0 else round(1 / updates)
    per_period = round(updates * period)
    if per_period < 1 or abs(per_period / period - updates) > 1e-6 * updates:
        raise ValueError(f"updates must be a whole number or 1 divided by one, got {updates}")
    return period, per_period


def summary(name: str, values: Array) -> Array:
    """What becomes of a metric over several updates: counters are added up, the rest is averaged."""
    return jnp.sum(values) if is_counter(name) else jnp.mean(values)


# --------------------------------------------------------------------------------------------- the systems


class Encoded(Protocol):
    """Settings that say how a learner's encoder and its losses are."""

    @property
    def encoder(self) -> tuple[int, ...]: ...
    @property
    def auxiliary(self) -> dict: ...
    @property
    def auxiliary_steps(self) -> int: ...


def encoder_of(config: Encoded, action: ActionSpace, features: int, **sight: Any) -> learners.Auxiliary | None:
    """The ``learners.auxiliary`` that the settings ask for; None where they ask for none.

    Raises:
      ValueError: losses without an encoder.
    """
    if config.encoder:
        losses, steps = config.auxiliary, config.auxiliary_steps
        return learners.auxiliary(action, features, hidden=config.encoder, losses=losses, steps=steps, **sight)
    if config.auxiliary:
        raise ValueError(
            f"auxiliary losses need an encoder, such as encoder=(256,), got {config.auxiliary} without one"
        )
    return None


@dataclasses.dataclass(frozen=True)
class SACConfig:
    """Settings; defaults are the paper's (Haarnoja et al. 2018, arXiv 1812.05905, table 1)."""

    hidden: tuple[int, ...] = (256, 256)
    learning_rate: float = 3e-4
    gamma: float = 0.99
    tau: float = 0.005
    alpha: float = 1.0  # temperature at the start
    learn_alpha: bool = True
    target_entropy: float | None = None  # nats; None: -dim
    reward_scale: float = 1.0
    batch_size: int = 256
    updates: float = 1  # per environment step
    warmup: int | None = 5000  # environment steps; None: one episode
    capacity: int = 1_000_000
    encoder: tuple[int, ...] = ()  # widths of an encoder that all networks read through; (): none
    auxiliary: dict = dataclasses.field(default_factory=dict)  # weights of the losses on its latent, "spr" and others
    auxiliary_steps: int = 5  # rows in a window of these losses


def sac(env: Env, config: SACConfig = SACConfig()) -> Agent:
    """Soft actor-critic alone: a stochastic policy, twin critics, a learned temperature."""
    own = ("hidden", "learning_rate", "gamma", "tau", "alpha", "learn_alpha", "target_entropy", "reward_scale")
    settings = {name: getattr(config, name) for name in own}
    width = vector_size("sac", env.spec)
    part = encoder_of(config, env.spec.action, width)
    learner = learners.sac(env.spec.action, width, auxiliary=part, **settings)
    rest = {name: getattr(config, name) for name in ("batch_size", "updates", "warmup", "capacity")}
    return off_policy(env.spec, learner, window=part.steps if part else 0, **rest)


@dataclasses.dataclass(frozen=True)
class DQNConfig:
    """Settings; defaults are those of CleanRL's ``dqn.py`` for CartPole-v1 and 500,000 steps.

    Rainbow is ``double``, ``dueling``, ``noisy``, ``prioritized``, ``atoms=51``, ``n_step=3`` and ``epsilon=None``; the
    numbers of these parts are those of Hessel et al. 2018 (table 1).
    """

    action_bins: int | tuple[int, ...] | None = None  # values per dimension of continuous actions
    conv: int = 0  # filters of a 3 x 3 convolution that reads an image first
    hidden: tuple[int, ...] = (120, 84)
    learning_rate: float = 2.5e-4
    adam_eps: float = 1e-8
    gamma: float = 0.99
    double: bool = False
    dueling: bool = False
    noisy: bool = False
    sigma: float = 0.5
    atoms: int = 1  # 51: a distribution of the return between v_min and v_max
    v_min: float = -10.0
    v_max: float = 10.0
    loss: str = "squared"  # or huber
    tau: float = 1.0
    target_every: int = 50  # updates
    epsilon: tuple[float, float] | None = (1.0, 0.05)  # None: noisy layers explore
    epsilon_updates: int = 25_000
    n_step: int = 1
    prioritized: bool = False
    priority_alpha: float = 0.5
    priority_beta: float = 0.4
    beta_steps: int = 100_000  # environment steps
    batch_size: int = 128
    updates: float = 0.1  # per environment step
    warmup: int | None = 10_000  # environment steps; None: one episode
    capacity: int = 10_000
    encoder: tuple[int, ...] = ()  # widths of an encoder in front, to which conv then belongs; (): none
    auxiliary: dict = dataclasses.field(default_factory=dict)  # weights of the losses on its latent, "spr" and others
    auxiliary_steps: int = 5  # rows in a window of these losses


def dqn(env: Env, config: DQNConfig = DQNConfig()) -> Agent:
    """Deep Q-learning, with as much of Rainbow as the settings say."""
    own = ("hidden", "learning_rate", "adam_eps", "gamma", "double", "dueling", "noisy", "sigma", "atoms", "v_min")
    own += ("v_max", "loss", "tau", "target_every", "epsilon", "epsilon_updates")
    settings = {name: getattr(config, name) for name in own}
    shape = env.spec.obs_shape
    image = (shape[0], shape[1], shape[2]) if len(shape) == 3 else None
    sight = {"conv": config.conv, "image": image}
    part = encoder_of(config, env.spec.action, math.prod(shape), **sight)
    settings |= {"auxiliary": part} if part else sight
    learner = learners.dqn(env.spec.action, math.prod(shape), **settings)
    rest = {name: getattr(config, name) for name in ("batch_size", "updates", "warmup", "capacity", "n_step", "gamma")}
    preferred = Priority(config.priority_alpha, config.priority_beta, config.beta_steps)
    rest |= {"prioritized": preferred if config.prioritized else None, "window": part.steps if part else 0}
    return off_policy(env.spec, learner, **rest)


SYSTEMS = (
    System("sac", SACConfig, sac, "soft actor-critic, model-free (Haarnoja et al. 2018)"),
    System("dqn", DQNConfig, dqn, "deep Q-learning up to Rainbow, model-free (Mnih et al. 2015)", numbered_actions),
)
