"""Model-free agents that learn from what they just did: PPO, with a memory or without, and TRPO."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks, data, learners
from jmbrl.agents.off_policy import encoder_of
from jmbrl.agents.system import System
from jmbrl.data import running
from jmbrl.learners.recurrent_policy import Past, RecurrentLearner
from jmbrl.rollout import no_action
from jmbrl.types import Agent, Array, Discrete, Env, Key, Learner, PyTree, Spec, Transition


class OnPolicyState(NamedTuple):
    """``rows``: the batch under way, ``[batch / num_envs, num_envs, ...]``; ``valid``: what of it is there, up to
    ``cursor``. ``past``: what was remembered before each row, ``()`` without a memory. ``seen``: the observations' mean
    and spread, None where they are not normalised."""

    learner: PyTree
    rows: Transition
    valid: Array
    cursor: Array
    seen: running.Running | None
    past: Past | tuple = ()


class Remembered(NamedTuple):
    """What an environment's loop remembers: the ``memory`` of all observations so far and the last ``action``; and
    what both were before the last observation, for the batch."""

    memory: PyTree
    action: Array
    past: Past


def on_policy(
    spec: Spec, learner: Learner | RecurrentLearner, *, batch: int = 2048, normalize_observations: bool = False
) -> Agent:
    """Act for ``batch`` environment steps, improve from them, forget them.

    Updates come before their period, so the first finds no rows and changes nothing (its ``updates`` is 0), and what
    the last period brings is not learned from.

    Args:
      spec: the environment's.
      learner: on-policy: ``update(key, state, data[T, B], mask[T, B])``, of observations as one vector; a
        ``RecurrentLearner``'s memory is empty where an episode begins, and goes on from batch to batch.
      batch: environment steps between updates, over all environments: each gives ``batch / num_envs`` in a row.
      normalize_observations: the learner sees observations less their mean, in standard deviations of all so far,
        clipped to ``[-10, 10]``. Both stay fixed while a batch is collected and in evaluation, so that the policy that
        acted is the one that is improved; the first batch is seen as it is.

    Raises:
      ValueError: ``batch`` is no positive integer or, when the state is made, no multiple of ``num_envs``.

    Metrics: ``learner/...`` per update. Rows that are not finite are left out, and the trace is cut before them.
    """
    batch = checks.integer("batch", batch, 1)
    width = math.prod(spec.obs_shape)

    def init(key: Key, num_envs: int) -> OnPolicyState:
        if batch % num_envs:
            raise ValueError(f"batch must be a multiple of num_envs={num_envs}, got {batch}")
        lead = (batch // num_envs, num_envs)
        action = jnp.zeros((*lead, *spec.action.shape), jnp.int32 if isinstance(spec.action, Discrete) else jnp.float32)
        obs, flag = jnp.zeros((*lead, width)), jnp.zeros(lead, bool)
        rows = jax.tree.map(jnp.copy, Transition(obs, action, jnp.zeros(lead), obs, flag, flag))
        seen = running.nothing_seen(width) if normalize_observations else None
        remembered = reset(None)
        past = remembered.past if isinstance(remembered, Remembered) else ()
        past = jax.tree.map(lambda x: jnp.zeros((*lead, *x.shape), x.dtype), past)
        return OnPolicyState(learner.init(key), rows, jnp.copy(flag), jnp.zeros((), jnp.int32), seen, past)

    def reset(state: OnPolicyState | None) -> Remembered | tuple:
        del state
        if not isinstance(learner, RecurrentLearner):
            return ()
        before = Past(learner.initial(), no_action(spec), jnp.ones((), bool))
        return Remembered(learner.initial(), no_action(spec), before)

    def features(state: OnPolicyState, obs: Array) -> Array:
        return obs if state.seen is None else running.standardise(state.seen, obs)

    def vector(obs: Array) -> Array:
        return obs.reshape(-1).astype(jnp.float32)

    def act(key: Key, state: OnPolicyState, carry: PyTree, obs: PyTree, is_first: Array, explore: bool) -> tuple:
        x = features(state, vector(obs))
        if not isinstance(learner, RecurrentLearner):
            return learner.act(key, state.learner, x, explore)[0], carry, {}
        past = Past(carry.memory, carry.action, is_first)
        memory = learner.encode(state.learner, past, x)
        action, _ = learner.act(key, state.learner, memory, x, explore)
        return action, Remembered(memory, action, past), {}

    def record(state: OnPolicyState, carry: PyTree, rows: Transition, valid: Array) -> OnPolicyState:
        ok = valid & data.finite(rows)
        past = carry.past if isinstance(learner, RecurrentLearner) else ()
        rows = rows._replace(obs=jax.vmap(vector)(rows.obs), next_obs=jax.vmap(vector)(rows.next_obs))

        def write(ring: Array, new: Array) -> Array:
            keep = ok.reshape(ok.shape + (1,) * (new.ndim - 1))
            return ring.at[state.cursor].set(jnp.where(keep, new, jnp.zeros_like(new)).astype(ring.dtype))

        return state._replace(
            rows=jax.tree.map(write, state.rows, rows),
            valid=state.valid.at[state.cursor].set(ok),
            cursor=state.cursor + 1,
            past=jax.tree.map(lambda ring, new: ring.at[state.cursor].set(new), state.past, past),
        )

    def update(key: Key, state: OnPolicyState, step: Array) -> tuple[OnPolicyState, dict]:
        del step
        rows = state.rows._replace(obs=features(state, state.rows.obs), next_obs=features(state, state.rows.next_obs))
        past = (state.past,) if isinstance(learner, RecurrentLearner) else ()
        learned, info = learner.update(key, state.learner, rows, state.valid, *past)
        seen = state.seen
        if seen is not None:
            seen = running.observe(seen, state.rows.obs.reshape(-1, width), state.valid.reshape(-1))
        start = jnp.zeros_like(state.cursor)
        state = OnPolicyState(learned, state.rows, jnp.zeros_like(state.valid), start, seen, state.past)
        return state, {f"learner/{name}": value for name, value in info.items()}

    return Agent(init, reset, act, record, ((batch, update),))


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """Settings of PPO; defaults are the paper's for MuJoCo (Schulman et al. 2017, table 3)."""

    hidden: tuple[int, ...] = (64, 64)
    initial_std: float = 1.0
    batch: int = 2048  # environment steps per update, over all environments
    epochs: int = 10
    minibatches: int = 32
    learning_rate: float = 3e-4
    decay_updates: int | None = None  # the learning rate falls to 0 over so many updates
    gamma: float = 0.99
    lam: float = 0.95
    clip: float = 0.2
    value_clip: float | None = None
    value_weight: float = 0.5
    entropy: float = 0.0
    max_grad_norm: float = 0.5
    normalize_advantages: bool = True
    normalize_observations: bool = True
    reward_scale: float = 1.0
    encoder: tuple[int, ...] = ()  # widths of an encoder that both networks read through; (): none
    auxiliary: dict = dataclasses.field(default_factory=dict)  # weights of the losses on its latent, "spr" and others
    auxiliary_steps: int = 5  # rows in a window of these losses


@dataclasses.dataclass(frozen=True)
class RecurrentPPOConfig(PPOConfig):
    """Settings of PPO with a memory; what is not PPO's is ours. ``length`` divides ``batch / num_envs``. An ``encoder``
    is for PPO without a memory."""

    minibatches: int = 8  # of whole segments
    memory: int = 64  # entries of the policy's and of the value's; 0: none, PPO
    length: int | None = 32  # steps in a segment; None: all that an environment gives to a batch


@dataclasses.dataclass(frozen=True)
class TRPOConfig:
    """Settings of TRPO; defaults are those of SLBO's policy updates (reference sheet 2.8)."""

    hidden: tuple[int, ...] = (32, 32)
    initial_std: float = 1.0
    batch: int = 4000  # environment steps per update, over all environments
    gamma: float = 0.99
    lam: float = 0.95
    max_kl: float = 0.01
    slack: float = 1.5
    damping: float = 0.1
    cg_iterations: int = 10
    backtracks: int = 10
    entropy: float = 0.0
    normalize_advantages: bool = True
    baseline: str = "network"  # or linear
    value_hidden: tuple[int, ...] = (64, 64)
    value_learning_rate: float = 1e-3
    value_epochs: int = 5
    value_batch_size: int = 128
    normalize_observations: bool = True


def _agent(env: Env, config: PPOConfig | TRPOConfig) -> Agent:
    settings, action, width = dataclasses.asdict(config), env.spec.action, math.prod(env.spec.obs_shape)
    own = {name: settings.pop(name) for name in ("batch", "normalize_observations")}
    make = learners.trpo
    if isinstance(config, PPOConfig):
        make, part = learners.ppo, encoder_of(config, action, width)
        del settings["encoder"], settings["auxiliary_steps"]
        settings["auxiliary"] = part
    if isinstance(config, RecurrentPPOConfig):
        if config.memory:
            make = learners.recurrent_ppo
            if settings.pop("auxiliary") is not None:
                raise ValueError(f"encoder must be () with a memory, got {config.encoder}: set memory=0 or take ppo")
        else:
            del settings["memory"], settings["length"]
    return on_policy(env.spec, make(action, width, **settings), **own)


def ppo(env: Env, config: PPOConfig = PPOConfig()) -> Agent:
    """Proximal policy optimisation from the environment alone; any action space."""
    return _agent(env, config)


def recurrent_ppo(env: Env, config: RecurrentPPOConfig = RecurrentPPOConfig()) -> Agent:
    """Proximal policy optimisation of a policy and a value that remember, for worlds that do not show everything."""
    return _agent(env, config)


def trpo(env: Env, config: TRPOConfig = TRPOConfig()) -> Agent:
    """Trust region policy optimisation from the environment alone; any action space."""
    return _agent(env, config)


SYSTEMS = (
    System("ppo", PPOConfig, ppo, "proximal policy optimisation, model-free (Schulman et al. 2017)"),
    System("recurrent_ppo", RecurrentPPOConfig, recurrent_ppo, "PPO with a memory, model-free (Ni et al. 2022)"),
    System("trpo", TRPOConfig, trpo, "trust region policy optimisation, model-free (Schulman et al. 2015)"),
)
