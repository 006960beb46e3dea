"""Real windows to hold a model against, and the model's own continuation of them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jmbrl import checks, data
from jmbrl.models import one_member
from jmbrl.rollout import imagine, tile
from jmbrl.types import Array, Key, Model, Outcome, Params, PyTree, Sequence, Transition

CANDIDATES = 4  # windows drawn for each one kept


def real_windows(key: Key, source: data.Replay | Sequence, length: int, count: int) -> tuple[Transition, Array]:
    """Windows of consecutive real rows, time-major, and which of their rows belong to the first row's episode.

    Args:
      key: consumed.
      source: a replay, from which ``count`` windows are drawn, those that an episode's end cuts least; or sequences
        ``[B, T]``, whose first ``length`` rows are taken.
      length: rows per window.
      count: windows to draw.

    Returns:
      ``Transition[length, W]`` and ``alive``: ``bool[length, W]``, False from the first row on that is invalid or
      begins another episode. What the other rows hold means nothing.

    Raises:
      ValueError: ``length`` is more than the source holds in a row.
    """
    length = checks.integer("length", length, 1)
    if isinstance(source, Sequence):
        stored = source.mask.shape[1]
        if length > stored:
            raise ValueError(f"sequences must have at least {length} rows for this horizon and context, got {stored}")
        windows = jax.tree.map(lambda x: x[:, :length], source)
        alive = _alive(windows)
    else:
        candidates = data.sample_sequences(key, source, CANDIDATES * checks.integer("windows", count, 1), length)
        alive = _alive(candidates)
        longest = jnp.argsort(-jnp.sum(alive, axis=1), stable=True)[:count]
        windows, alive = jax.tree.map(lambda x: x[longest], (candidates, alive))
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), (windows.transition, alive))


def _alive(windows: Sequence) -> Array:
    begins = windows.is_first.at[:, 0].set(False)
    return jnp.cumprod(windows.mask & ~begins, axis=1, dtype=jnp.int32).astype(bool)


def watch(key: Key, model: Model, params: Params, rows: Transition) -> PyTree:
    """The beliefs ``[W]`` after the observations of ``rows[context, W]``, which begin an episode or a window."""
    context, count = rows.reward.shape
    see = jax.vmap(model.encode, in_axes=(0, None, 0, 0, 0, None))

    def body(carry: tuple, inputs: tuple) -> tuple[tuple, None]:
        belief, action = carry
        key, row, is_first = inputs
        belief = see(jax.random.split(key, count), params, belief, action, row.obs, is_first)
        return (belief, row.action), None

    start = jax.tree.map(jnp.asarray, tile(model.initial(params), count)), jnp.zeros_like(rows.action[0])
    inputs = jax.random.split(key, context), rows, jnp.arange(context) == 0
    return jax.lax.scan(body, start, inputs)[0][0]


def open_loop(key: Key, model: Model, params: Params, beliefs: PyTree, actions: Array) -> tuple[Array, Outcome]:
    """What a model says will be seen, from ``beliefs[W]`` on under ``actions[H, W]``, without seeing anything more.

    Every (elite) member of an ensemble goes its own way. Noise is left out where the model can
    (``Model.expect``).

    Returns:
      Observations as vectors ``float32[M, H, W, D]`` and outcomes ``[M, H, W]``; ``M`` is 1 without an ensemble.
    """
    if not model.members:
        return jax.tree.map(lambda x: x[None], _path(key, model, params, beliefs, actions))
    member, elites = model.member, params.stats.elites
    assert member is not None  # an ensemble has one
    one = lambda key, index: _path(key, member, one_member(params, index), beliefs, actions)  # noqa: E731
    return jax.vmap(one)(jax.random.split(key, elites.shape[0]), elites)


def particles(key: Key, model: Model, params: Params, belief: PyTree, actions: Array, count: int) -> Array:
    """``float32[H, count, D]``: sampled futures of one belief under ``actions[H]``, noise and members included."""
    along = jnp.broadcast_to(actions[:, None], (actions.shape[0], count, *actions.shape[1:]))
    step_many = lambda key, beliefs, actions: model.step_many(key, params, beliefs, actions)  # noqa: E731
    return _roll(key, model, params, step_many, tile(belief, count), along)[0]


def particle_fan(
    key: Key, model: Model, params: Params, beliefs: PyTree, actions: Array, count: int, look: Callable, real: Array
) -> PyTree:
    """Sampled futures of ``beliefs[W]`` under ``actions[H, W]``, looked at step by step and not kept.

    Args:
      count: particles of each belief; rows are particle-major, as the planners' are.
      look: ``(fan[count, W, D], real_h) -> PyTree``, what to keep of a step.
      real: leaves ``[H, ...]``.

    Returns:
      What ``look`` returned, with a leading axis ``[H]``.
    """
    windows = actions.shape[1]

    def rows(x: Array) -> Array:
        return jnp.broadcast_to(x, (count, *x.shape)).reshape(count * windows, *x.shape[1:])

    def body(beliefs: PyTree, inputs: tuple) -> tuple[PyTree, PyTree]:
        key, action, truth = inputs
        beliefs, _ = model.step_many(key, params, beliefs, rows(action))
        seen = vectors(jax.vmap(model.decode, in_axes=(None, 0))(params, beliefs), 1)
        return beliefs, look(seen.reshape(count, windows, -1), truth)

    start = jax.tree.map(rows, beliefs)
    return jax.lax.scan(body, start, (jax.random.split(key, actions.shape[0]), actions, real))[1]


def mean_alive(x: Array, alive: Array) -> Array:
    """Mean over the windows that are alive, ``[H, W, ...] -> [H, ...]``; NaN where there is none."""
    keep = alive.reshape(alive.shape + (1,) * (x.ndim - 2))
    count = jnp.sum(keep, axis=1)
    total = jnp.sum(jnp.where(keep, x, 0.0), axis=1)
    return jnp.where(count > 0, total / jnp.maximum(count, 1), jnp.nan)


def vectors(obs: PyTree, axes: int) -> Array:
    """Observations with ``axes`` leading axes as ``float32[..., D]``. A state shown beside the observation
    (``envs.with_state``) is left out: no model predicts it."""
    obs = getattr(obs, "obs", obs)
    flat = [jnp.asarray(x, jnp.float32).reshape(*x.shape[:axes], -1) for x in jax.tree.leaves(obs)]
    return jnp.concatenate(flat, axis=-1)


def _path(key: Key, model: Model, params: Params, beliefs: PyTree, actions: Array) -> tuple[Array, Outcome]:
    def step_many(key: Key, beliefs: PyTree, actions: Array) -> tuple[PyTree, Outcome]:
        if model.expect is not None:
            return model.expect(params, beliefs, actions)
        return model.step_many(key, params, beliefs, actions)

    return _roll(key, model, params, step_many, beliefs, actions)


def _roll(
    key: Key, model: Model, params: Params, step_many: Callable, beliefs: PyTree, actions: Array
) -> tuple[Array, Outcome]:
    _, path = imagine(key, step_many, beliefs, lambda key, beliefs, t: (actions[t], ()), actions.shape[0])
    decode = jax.vmap(jax.vmap(model.decode, in_axes=(None, 0)), in_axes=(None, 0))
    return vectors(decode(params, path.next_belief), 2), path.outcome
