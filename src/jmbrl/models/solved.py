"""Fitting models that are solved in one go (a table, a regression, a mixture) rather than trained step by step."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jmbrl import data
from jmbrl.health import all_finite
from jmbrl.types import Array, Key, Model, Params, PyTree, Transition


def solver(model: Model) -> tuple[Callable, Callable]:
    """``init`` and ``fit`` of a ``Trainer`` for a model with a ``fit`` of its own; there is nothing to optimise.

    Weights that come out with a number that is not finite are refused, member by member in an ensemble, and counted
    as ``diverged``; the statistics then stay too, unless some member could use the new ones. On an empty replay
    nothing changes.
    """

    def init(params: Params) -> PyTree:
        del params
        return ()

    def fit(key: Key, params: Params, opt: PyTree, replay: data.Replay) -> tuple[Params, PyTree, dict[str, Array]]:
        rows, count = data.rows(replay)
        mask = jnp.arange(rows.reward.shape[0]) < count
        new, info = model.fit(key, model.set_stats(params, rows, mask), rows, mask.astype(jnp.float32))
        finite = jax.vmap(all_finite)(new.weights) if model.members else all_finite(new.weights)
        use = finite & (count > 0)
        weights = jax.tree.map(lambda a, b: _where(use, a, b), new.weights, params.weights)
        stats = jax.tree.map(lambda a, b: jnp.where(jnp.any(use), a, b), new.stats, params.stats)
        info = {**info, "diverged": jnp.sum(~finite), "updates": jnp.ones(())}
        info = {name: jnp.where(count > 0, jnp.asarray(value, jnp.float32), 0.0) for name, value in info.items()}
        return Params(weights, stats), opt, info

    return init, fit


def counted(rows: Transition, weight: Array) -> Transition:
    """``rows`` with zeros where ``weight`` is 0, so that whatever stood there stays out of sums."""
    return jax.tree.map(lambda x: _where(weight > 0, x, jnp.zeros_like(x)), rows)


def bootstrap(key: Key, weight: Array) -> Array:
    """``float32[N]``: how often each row is drawn in ``round(sum weight)`` draws with replacement (at most ``N``).

    A row's chance is proportional to its ``weight``.
    """
    total = jnp.sum(weight)
    n = weight.shape[0]
    edges = jnp.cumsum(weight)
    point = jax.random.uniform(key, (n,)) * edges[-1]
    index = jnp.searchsorted(edges, jnp.minimum(point, jnp.nextafter(edges[-1], jnp.float32(0.0))), side="right")
    draw = jnp.arange(n) < jnp.round(total)
    return jnp.zeros(n).at[index].add(draw.astype(jnp.float32), mode="drop")


def _where(pick: Array, new: Array, old: Array) -> Array:
    return jnp.where(pick.reshape(pick.shape + (1,) * (new.ndim - pick.ndim)), new, old)
