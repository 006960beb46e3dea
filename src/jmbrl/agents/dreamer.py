"""What Dreamer v1, v2 and v3 share: one update that learns a latent model and, in its imagination, how to act.

The pages of the three choose a model, a behaviour and an optimiser (``dreamer_v1.py``, ``dreamer_v2.py``,
``dreamer_v3.py``).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jmbrl import checks, data
from jmbrl.agents.mpc import explored
from jmbrl.data import LatentReplay
from jmbrl.health import is_counter
from jmbrl.learners import Behaviour, BehaviourMemory
from jmbrl.models.guarded import guarded_update
from jmbrl.progress import amount
from jmbrl.rollout import no_action
from jmbrl.types import Agent, Array, Critic, Env, Key, Model, Params, PyTree, Spec, Transition

REFIT_EVERY = 500  # environment steps, at least, between two looks at the data's statistics, where a model has any


class DreamerState(NamedTuple):
    """``weights``: ``{"model", "actor", "critic"}``, one optimiser's. ``stats``: the model's."""

    weights: PyTree
    stats: PyTree
    opt: PyTree
    memory: BehaviourMemory
    replay: LatentReplay


class DreamerCarry(NamedTuple):
    """The belief, and the action that is taken in it."""

    belief: PyTree
    action: Array


class Schedule(NamedTuple):
    """``period``: environment steps between turns of learning; ``updates``: gradient steps in each."""

    period: int
    updates: int


def schedule(train_ratio: float, batch_size: int, length: int, every: int | None = None) -> Schedule:
    r"""How often to update so that ``train_ratio`` frames are replayed for each environment step.

    .. math:: \frac{\text{updates} \cdot B \cdot T}{\text{period}} = \text{train ratio}

    Args:
      train_ratio: above 0. batch_size, length: :math:`B` windows of :math:`T` frames in an update.
      every: environment steps between turns, whose updates are then as many as the ratio asks for; None: single updates
        as evenly as whole numbers allow.

    Raises:
      ValueError: a ratio that no whole number of updates or steps comes within a tenth of.

    >>> schedule(256, 16, 64), schedule(2048, 16, 64), schedule(250, 50, 50, every=1000)
    (Schedule(period=4, updates=1), Schedule(period=1, updates=2), Schedule(period=1000, updates=100))
    """
    ratio = checks.number("train_ratio", train_ratio, 1e-6)
    frames = checks.integer("batch_size", batch_size, 1) * checks.integer("length", length, 1)
    if every is None:
        period = max(1, round(frames / ratio))
        updates = max(1, round(ratio * period / frames))
    else:
        period = checks.integer("every", every, 1)
        updates = max(1, round(ratio * period / frames))
    real = updates * frames / period
    if abs(real / ratio - 1) > 0.1:
        raise ValueError(
            f"train_ratio must be near a whole number of updates of {batch_size} x {length} frames, got {ratio}; "
            f"{updates} every {period} steps is {real:g}"
        )
    return Schedule(period, updates)


def cost(env: Env, config: Any, steps: int, num_envs: int) -> str:
    """What a run will do, in a line: ``System.cost`` of the three."""
    del env, num_envs
    turns = schedule(config.train_ratio, config.batch_size, config.length, config.train_every)
    updates = -(-max(0, steps - warmup_of(config)) // turns.period) * turns.updates
    frames = updates * config.batch_size * config.length
    every = f"{turns.updates} updates" if turns.updates > 1 else "one update"
    imagined = frames // config.length * min(config.start_frames or config.length, config.length) * config.horizon
    return (
        f"train ratio {config.train_ratio:g}: {every} of {config.batch_size} x {config.length} frames every "
        f"{turns.period} steps, {updates:,} updates in {steps:,} steps; {amount(frames)} frames replayed, "
        f"{amount(imagined)} steps imagined"
    )


def warmup_of(config: Any) -> int:
    """Environment steps before the first update: as many as an update's frames where nothing is said."""
    return config.batch_size * config.length if config.warmup is None else config.warmup


def dreamer(
    spec: Spec,
    model: Model,
    behaviour: Behaviour,
    optimizer: optax.GradientTransformation,
    turns: Schedule,
    *,
    batch_size: int,
    length: int,
    start_frames: int | None = None,
    context: bool = True,
    replay_value: float = 0.0,
    action_noise: float = 0.0,
    warmup: int,
    capacity: int = 1_000_000,
) -> Agent:
    """Act with an actor on a model's beliefs; in every update learn the model from real sequences, and actor and critic
    in its imagination from the beliefs found there.

    Args:
      spec: the environment's.
      model: with ``watch``. behaviour: on its features.
      optimizer: of ``{"model", "actor", "critic"}``, for the sum of all losses.
      turns: from ``schedule``.
      batch_size, length: windows of ``length`` learned frames.
      start_frames: imagination begins at the last so many frames of each window, where beliefs have seen most (the
        released code's ``imag_last``); None: at all of them. What follows costs in proportion.
      context: begin windows at stored beliefs, which are written back after each update, and give fresh windows first
        (v3); otherwise each window begins at nothing.
      replay_value: weight of the critic's loss on real rewards.
      action_noise: as in ``mpc.explored``, beside the policy's own spread.
      warmup: environment steps of random actions before the first update.
      capacity: rows of replay per environment, above ``length``.

    Raises:
      ValueError: a model without ``watch``, or a number outside its range.

    Metrics: ``model/...`` (its losses and what it reports), ``behaviour/...``, and ``nonfinite_loss``,
    ``nonfinite_grad``, ``skipped`` of the joint update.
    """
    if model.watch is None:
        raise ValueError("model has no watch: Dreamer needs one that filters sequences, such as models.rssm")
    watch: Callable = model.watch
    warmup = checks.integer("warmup", warmup, 1)
    starts = length if start_frames is None else checks.integer("start_frames", start_frames, 1, length)
    rows = length if context else checks.integer("length", length, 2) - 1  # frames are one more
    capacity = checks.integer("capacity", capacity, rows)

    def params_of(weights: PyTree, stats: PyTree) -> Params:
        return Params(weights["model"], stats)

    def init(key: Key, num_envs: int) -> DreamerState:
        key_model, key_behaviour = jax.random.split(key)
        params = model.init(key_model)
        learned = behaviour.init(key_behaviour)
        weights = {"model": params.weights, **learned}
        replay = data.empty_latent(spec, model.initial(params), capacity, num_envs)
        return DreamerState(weights, params.stats, optimizer.init(weights), behaviour.remember(learned), replay)

    def reset(state: DreamerState) -> DreamerCarry:
        return DreamerCarry(model.initial(params_of(state.weights, state.stats)), no_action(spec))

    def act(key: Key, state: DreamerState, carry: DreamerCarry, obs: PyTree, is_first: Array, explore: bool) -> tuple:
        key_encode, key_act, key_noise = jax.random.split(key, 3)
        params = params_of(state.weights, state.stats)
        belief = model.encode(key_encode, params, carry.belief, carry.action, obs, is_first)
        action = behaviour.act(key_act, state.weights, model.features(params, belief), explore)
        if explore:
            action = explored(key_noise, spec, action, action_noise)
        return action, DreamerCarry(belief, action), {}

    def record(state: DreamerState, carry: DreamerCarry, seen: Transition, valid: Array) -> DreamerState:
        return state._replace(replay=data.add_latent(state.replay, carry.belief, seen, valid))

    def joint(weights: PyTree, key: Key, state: DreamerState, frames: data.Frames, start: PyTree | None) -> tuple:
        """The sum of all losses, and what else an update needs."""
        key_watch, key_imagine = jax.random.split(key)
        params = params_of(weights, state.stats)
        watched = watch(key_watch, params, frames, start)
        fixed = jax.lax.stop_gradient(params)
        look = lambda belief: model.features(fixed, belief)  # noqa: E731
        seen, frames = jax.tree.map(lambda x: x[:, -starts:], (watched.beliefs, watched.frames))
        alive = frames.mask & ~frames.terminated
        beliefs, alive = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (seen, alive))
        step_many = lambda key, beliefs, actions: model.step_many(key, fixed, beliefs, actions)  # noqa: E731
        losses, imagined, info = behaviour.losses(
            key_imagine, weights, state.memory, step_many, look, beliefs, alive.astype(jnp.float32)
        )
        if replay_value > 0:
            returns = imagined.returns.reshape(frames.mask.shape)
            x = model.features(params, seen)
            losses["replay_critic"] = replay_value * behaviour.replayed(weights, state.memory, x, frames, returns)
        total = sum(watched.losses.values(), start=jnp.zeros(())) + sum(losses.values(), start=jnp.zeros(()))
        report = {f"model/{k}": v for k, v in {**watched.losses, **watched.info}.items()}
        report |= {f"behaviour/{k}": v for k, v in {**losses, **info}.items()}
        return total, (report, imagined, watched.beliefs)

    def gradient_step(state: DreamerState, key: Key) -> tuple[DreamerState, dict]:
        key_batch, key_loss = jax.random.split(key)
        replay, window = state.replay, None
        if context:
            replay, window = data.sample_latent(key_batch, replay, batch_size, rows)
            sequence, start = window.sequence, window.context
        else:
            sequence, start = data.sample_sequences(key_batch, replay.replay, batch_size, rows), None
        frames, place = data.frames(sequence)
        loss = lambda weights: joint(weights, key_loss, state, frames, start)  # noqa: E731
        weights, opt, total, (report, imagined, beliefs), health = guarded_update(
            optimizer, loss, state.weights, state.opt, None
        )
        memory = behaviour.settle(state.memory, weights, imagined)
        memory = jax.tree.map(lambda new, old: jnp.where(health.skipped > 0, old, new), memory, state.memory)
        if window is not None:
            known = jax.tree.map(lambda a, b: jnp.concatenate([a[:, None], b], axis=1), start, beliefs)
            replay = data.write_latent(replay, window, place, known)
        report = {"loss": total, **report, **health._asdict(), "updates": jnp.float32(1)}
        return DreamerState(weights, state.stats, opt, memory, replay), report

    def update(key: Key, state: DreamerState, step: Array) -> tuple[DreamerState, dict]:
        del step
        if turns.updates == 1:
            return gradient_step(state, key)
        state, report = jax.lax.scan(gradient_step, state, jax.random.split(key, turns.updates))
        return state, {k: (jnp.sum if is_counter(k) else jnp.mean)(v) for k, v in report.items()}

    def refit(key: Key, state: DreamerState, step: Array) -> tuple[DreamerState, dict]:
        del key, step
        seen, count = data.rows(state.replay.replay)
        mask = jnp.arange(state.replay.replay.valid.size) < count
        params = model.set_stats(params_of(state.weights, state.stats), seen, mask)
        return state._replace(stats=params.stats), {}

    phases = ((turns.period, update),)
    if jax.tree.leaves(jax.eval_shape(lambda key: model.init(key).stats, jax.random.key(0))):
        # A pass over all that was seen, which need not follow every update.
        phases = ((turns.period * -(-REFIT_EVERY // turns.period), refit), *phases)

    def look(state: DreamerState, beliefs: PyTree) -> Array:
        return model.features(params_of(state.weights, state.stats), beliefs)

    critic = Critic(
        act=lambda key, state, beliefs: behaviour.act(key, state.weights, look(state, beliefs), False),
        value=lambda state, beliefs: behaviour.value(state.weights, look(state, beliefs)),
        gamma=behaviour.gamma,
        lam=behaviour.lam,
        horizon=behaviour.horizon,
        reward_scale=behaviour.reward_scale,
    )
    params = lambda state: params_of(state.weights, state.stats)  # noqa: E731
    return Agent(init, reset, act, record, phases, warmup, model, params, critic=critic)


def separate_adam(
    model: float, actor: float, critic: float, *, max_grad_norm: float = 100.0, eps: float = 1e-8, decay: float = 0.0
) -> optax.GradientTransformation:
    """Adam for model, actor and critic, each with its own rate and its own gradient's norm (v1, v2).

    ``decay``: decoupled weight decay, not scaled by the rate.
    """

    def one(rate: float) -> optax.GradientTransformation:
        clipped = optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.adam(rate, eps=eps))
        return optax.chain(clipped, optax.add_decayed_weights(-decay)) if decay else clipped

    def labels(weights: PyTree) -> PyTree:
        return {name: jax.tree.map(lambda _, name=name: name, part) for name, part in weights.items()}

    return optax.partition({"model": one(model), "actor": one(actor), "critic": one(critic)}, labels)
