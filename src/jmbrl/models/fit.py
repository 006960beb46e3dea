"""The gradient trainer: every model with a ``loss``, alone or in an ensemble, learns here."""

import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jmbrl import checks, data, devices
from jmbrl.health import all_finite
from jmbrl.models.ensemble import rank_elites
from jmbrl.models.guarded import Health, guarded_update
from jmbrl.models.shuffle import drawn, permuted, salts
from jmbrl.models.solved import solver
from jmbrl.types import Array, DataKind, Key, Model, Params, PyTree, Transition


class Trainer(NamedTuple):
    """``init(params) -> opt``; ``fit(key, params, opt, replay) -> (params, opt, info)``, ``info`` scalars."""

    init: Callable
    fit: Callable


class _Split(NamedTuple):
    """Which rows train and which are held out: the ``order`` of all (held out first), and each member's ``boot``."""

    rows: Transition
    count: Array
    train: Array
    held: Array
    order: Array
    boot: Array


class _Loop(NamedTuple):
    """What the epochs carry; every leaf but the counters has a leading axis of members."""

    weights: PyTree
    opt: PyTree
    best: PyTree
    best_mse: Array
    stale: Array
    epoch: Array
    loss: Array
    mse: Array
    health: Health


def trainer(
    model: Model,
    *,
    optimizer: optax.GradientTransformation | None = None,
    epochs: int = 5,
    batch_size: int = 32,
    holdout: float = 0.0,
    holdout_max: int = 5000,
    patience: int | None = None,
    improvement: float = 0.01,
    max_grad_norm: float | None = None,
    bootstrap: bool = True,
) -> Trainer:
    """Fits a model to all rows of a replay, from where the last fit ended.

    Each member of an ensemble has its own rows (drawn with replacement, once per fit), its own order of them in each
    epoch, its own optimiser and its own gradient; their losses are summed, never averaged. A member whose loss or
    gradient is not finite keeps its weights for that step and the others do not notice. A model that is not an
    ensemble is one member that sees every row once per epoch.

    With ``holdout`` the members' errors on held-out rows are measured after each epoch, in the targets' units and
    without bootstrap: a member that improved by more than ``improvement`` (relative) is remembered, the fit ends when
    none has for more than ``patience`` epochs, and each returns to what was remembered (all of its weights; MBPO's code
    forgets the log-variance bounds there). Elites are the members of least held-out error; without ``holdout``, of
    least training error in the last epoch.

    A model with a ``fit`` of its own is solved, not trained: it takes none of the options below, has no optimiser state
    and reports what its ``fit`` reports, ``updates`` (1) and ``diverged`` (members whose result is not finite; they
    keep what they had).

    Args:
      model: with ``fit``, or with ``loss`` and ``data_kind`` ROWS.
      optimizer: any optax transformation; one copy per member. None: ``adam(1e-3)``.
      epochs: passes over the data, at most, in one fit.
      batch_size: rows per member and step. The last batch of an epoch wraps around.
      holdout: fraction of the rows held out, in ``[0, 1)``; MBPO: 0.2.
      holdout_max: at most this many rows are held out.
      patience: epochs without improvement that are accepted; None: never stop early. MBPO: 5.
      improvement: the relative decrease of the held-out error that counts; MBPO: 0.01.
      max_grad_norm: clip each member's gradient to this norm; None: no clip.
      bootstrap: False gives every member of an ensemble every row.

    Returns:
      A ``Trainer``. ``info``: ``loss`` and ``mse`` (last epoch, mean over members), ``holdout_mse`` (with
      ``holdout``: of what was kept), ``epochs``, ``updates`` (steps per member), ``nonfinite_loss``,
      ``nonfinite_grad``, ``skipped`` (summed over members) and ``diverged`` (members whose weights are not finite or
      that skipped every step); ``logvar_saturated`` where the loss reports it (after the fit, on one batch). On an
      empty replay nothing changes.

    Raises:
      ValueError: a model without a loss or for sequences, an option outside its range, or any option for a model that
        is solved.

    Source: Chua et al. 2018, PETS (``holdout=0``); Janner et al. 2019, MBPO (the early stop).
    """
    given = dict(locals())
    if model.fit is not None:
        _no_options(given)
        return Trainer(*solver(model))
    if model.loss is None:
        raise ValueError("model has no loss: it is not trained by gradient")
    if model.data_kind is not DataKind.ROWS:
        raise ValueError("model learns from sequences: use sequence_trainer")
    optimizer = optax.adam(1e-3) if optimizer is None else optimizer
    epochs = checks.integer("epochs", epochs, 1)
    batch_size = checks.integer("batch_size", batch_size, 1)
    checks.number("holdout", holdout, 0.0, 0.999)
    holdout_max = checks.integer("holdout_max", holdout_max, 1)
    checks.number("improvement", improvement, 0.0)
    if patience is not None:
        patience = checks.integer("patience", patience, 0)
        if not holdout:
            raise ValueError("patience needs holdout > 0: there is nothing to judge improvement by")
    if max_grad_norm is not None:
        checks.number("max_grad_norm", max_grad_norm, 0.0)
    members = max(model.members, 1)
    member = model.member if model.members else model
    resample = bootstrap and model.members > 0

    def split_data(key: Key, replay: data.Replay) -> _Split:
        rows, count = data.rows(replay)
        key_split, key_boot = jax.random.split(key)
        held = jnp.minimum(jnp.floor(holdout * count).astype(jnp.int32), holdout_max)
        boot = jax.vmap(salts)(jax.random.split(key_boot, members))
        return _Split(rows, count, count - held, held, salts(key_split), boot)

    def row_index(split: _Split, position: Array) -> Array:
        """The row of a position in ``[0, count)``: held-out rows come first."""
        return permuted(split.order, position, split.count) if holdout else position

    def held_rows(split: _Split, total: int) -> tuple[Array, Array]:
        size = min(holdout_max, total)
        position = jnp.arange(size)
        return row_index(split, jnp.minimum(position, split.count - 1)), position < split.held

    def batch_rows(split: _Split, order: Array, boot: Array, step: Array) -> Transition:
        """One member's batch number ``step`` of an epoch."""
        slot = (step * batch_size + jnp.arange(batch_size)) % jnp.maximum(split.train, 1)
        slot = permuted(order, slot, split.train)
        slot = drawn(boot, slot, split.train) if resample else slot
        index = row_index(split, split.held + slot)
        return devices.split(jax.tree.map(lambda x: x[index], split.rows), devices.ROW)

    def epoch_of(split: _Split, stats: PyTree, key: Key, loop: _Loop) -> _Loop:
        batches = -(-split.train // batch_size)
        key_order, key_loss = jax.random.split(key)
        orders = jax.vmap(salts)(jax.random.split(key_order, members))

        def one(order: Array, boot: Array, weights: PyTree, opt: PyTree, key: Key, step: Array):
            batch = batch_rows(split, order, boot, step)
            loss = lambda w: member.loss(key, Params(w, stats), batch)  # noqa: E731
            weights, opt, value, info, health = guarded_update(optimizer, loss, weights, opt, max_grad_norm)
            return weights, opt, value, info.get("mse", value), health

        def update(step: Array, carry: tuple) -> tuple:
            weights, opt, loss, mse, health = carry
            keys = jax.random.split(jax.random.fold_in(key_loss, step), members)
            weights, opt, value, error, seen = jax.vmap(one, in_axes=(0, 0, 0, 0, 0, None))(
                orders, split.boot, weights, opt, keys, step
            )
            health = jax.tree.map(jnp.add, health, seen)
            return weights, opt, loss + value, mse + error, health

        start = (loop.weights, loop.opt, jnp.zeros(members), jnp.zeros(members), loop.health)
        weights, opt, loss, mse, health = jax.lax.fori_loop(0, batches, update, start)
        scale = 1.0 / jnp.maximum(batches, 1)
        return loop._replace(
            weights=weights, opt=opt, loss=loss * scale, mse=mse * scale, health=health, epoch=loop.epoch + 1
        )

    def holdout_errors(split: _Split, stats: PyTree, key: Key, weights: PyTree) -> Array:
        """``float32[members]``: mean squared error, row by row so that the padding can be left out."""
        index, mask = held_rows(split, split.rows.reward.shape[0])
        rows = jax.tree.map(lambda x: x[index][:, None], split.rows)

        def error(weights: PyTree) -> Array:
            def one(row: Transition) -> Array:
                loss, info = member.loss(key, Params(weights, stats), row)
                return info.get("mse", loss)

            return jnp.sum(jnp.where(mask, jax.vmap(one)(rows), 0.0)) / jnp.maximum(split.held, 1)

        return jax.vmap(error)(weights)

    def judge(split: _Split, stats: PyTree, key: Key, loop: _Loop) -> _Loop:
        """Remember the members that improved (the first epoch always does)."""
        error = holdout_errors(split, stats, key, loop.weights)
        better = (error < loop.best_mse * (1.0 - improvement)) | (split.held == 0)
        best = jax.tree.map(lambda new, old: _where_member(better, new, old), loop.weights, loop.best)
        stale = jnp.where(jnp.any(better), 0, loop.stale + 1)
        return loop._replace(best=best, best_mse=jnp.where(better, error, loop.best_mse), stale=stale)

    def saturation(split: _Split, stats: PyTree, key: Key, weights: PyTree) -> dict[str, Array]:
        """``logvar_saturated`` of the final weights on one batch, for models whose loss reports it."""
        key_rows, key_loss = jax.random.split(key)
        index = jax.random.randint(key_rows, (batch_size,), 0, jnp.maximum(split.count, 1))
        batch = jax.tree.map(lambda x: x[index], split.rows)
        info = jax.vmap(lambda w: member.loss(key_loss, Params(w, stats), batch)[1])(weights)
        return {name: jnp.mean(info[name]) for name in ("logvar_saturated",) if name in info}

    def training_stats(params: Params, split: _Split) -> Params:
        total = split.rows.reward.shape[0]
        mask = jnp.arange(total) < split.count
        if holdout:
            index, held = held_rows(split, total)
            mask = mask.at[jnp.where(held, index, total)].set(False, mode="drop")
        return model.set_stats(params, split.rows, mask)

    def init(params: Params) -> PyTree:
        return jax.vmap(optimizer.init)(params.weights) if model.members else optimizer.init(params.weights)

    def fit(key: Key, params: Params, opt: PyTree, replay: data.Replay) -> tuple[Params, PyTree, dict[str, Array]]:
        key_split, key_epochs = jax.random.split(key)
        split = split_data(key_split, replay)
        params = training_stats(params, split)
        stats = params.stats.member if model.members else params.stats
        weights = params.weights
        if not model.members:
            weights, opt = jax.tree.map(lambda x: x[None], (weights, opt))
        zero, per_member = jnp.zeros((), jnp.int32), jnp.zeros(members)
        loop = _Loop(
            weights, opt, weights if holdout else (), per_member + jnp.inf, zero, zero, per_member, per_member,
            Health.zeros(members),
        )  # fmt: skip

        def going(loop: _Loop) -> Array:
            more = (loop.epoch < epochs) & (split.train > 0)
            return more if patience is None else more & (loop.stale <= patience)

        def body(loop: _Loop) -> _Loop:
            key_epoch, key_judge = jax.random.split(jax.random.fold_in(key_epochs, loop.epoch))
            loop = epoch_of(split, stats, key_epoch, loop)
            return judge(split, stats, key_judge, loop) if holdout else loop

        loop = jax.lax.while_loop(going, body, loop._replace(weights=devices.split(loop.weights, devices.MEMBER)))
        weights = loop.best if holdout else loop.weights
        info = _report(loop, weights, -(-split.train // batch_size) * loop.epoch, bool(holdout))
        info |= saturation(split, stats, jax.random.fold_in(key_epochs, epochs), weights)
        ranking = loop.best_mse if holdout else loop.mse
        if not model.members:
            weights, opt = jax.tree.map(lambda x: x[0], (weights, loop.opt))
            return params._replace(weights=weights), opt, info
        params = params._replace(weights=weights, stats=rank_elites(params.stats, ranking, loop.epoch > 0))
        return params, loop.opt, info

    return Trainer(init, fit)


def _no_options(given: dict) -> None:
    """Refuse options that a solved model would silently not use."""
    for name, parameter in inspect.signature(trainer).parameters.items():
        if name != "model" and given[name] != parameter.default:
            raise ValueError(f"{name} is for models trained by gradient; this model is solved and has no such option")


def _report(loop: _Loop, weights: PyTree, updates: Array, with_holdout: bool) -> dict[str, Array]:
    broken = ~jax.vmap(all_finite)(weights) | ((loop.health.skipped >= updates) & (updates > 0))
    info = {
        "loss": jnp.mean(loop.loss),
        "mse": jnp.mean(loop.mse),
        "epochs": loop.epoch,
        "updates": updates,
        "nonfinite_loss": jnp.sum(loop.health.nonfinite_loss),
        "nonfinite_grad": jnp.sum(loop.health.nonfinite_grad),
        "skipped": jnp.sum(loop.health.skipped),
        "diverged": jnp.sum(broken),
    }
    if with_holdout:
        info["holdout_mse"] = jnp.mean(loop.best_mse)
    return {name: jnp.asarray(value, jnp.float32) for name, value in info.items()}


def _where_member(pick: Array, new: Array, old: Array) -> Array:
    return jnp.where(pick.reshape(pick.shape + (1,) * (new.ndim - 1)), new, old)
