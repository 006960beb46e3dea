"""The gradient trainer of models that learn from sequences: recurrent and latent ones."""

import jax
import jax.numpy as jnp
import optax

from jmbrl import checks, data
from jmbrl.health import all_finite
from jmbrl.models.ensemble import rank_elites
from jmbrl.models.fit import Trainer
from jmbrl.models.guarded import Health, guarded_update
from jmbrl.types import Array, DataKind, Key, Model, Params, PyTree


def sequence_trainer(
    model: Model,
    *,
    optimizer: optax.GradientTransformation | None = None,
    updates: int = 100,
    batch_size: int = 50,
    length: int = 50,
    max_grad_norm: float | None = None,
) -> Trainer:
    """``updates`` gradient steps per fit, each on windows drawn uniformly from the replay.

    Each member of an ensemble draws windows of its own and has its own gradient and optimiser; one whose loss or
    gradient is not finite keeps its weights for that step, and the others do not notice. Elites are the members of
    least mean loss in the last quarter of the updates.

    Args:
      model: with ``loss`` and ``data_kind`` SEQUENCES, alone or in an ensemble.
      optimizer: any optax transformation, one copy per member; None: ``adam(1e-3)``.
      updates: steps per fit.
      batch_size: windows per step and member.
      length: rows per window; at most the replay's capacity.
      max_grad_norm: clip each member's gradient to this norm; None: no clip. PlaNet: 1000, Dreamer: 100.

    Returns:
      A ``Trainer``. ``info``: the means over steps and members of ``loss`` and of what ``model.loss`` reports,
      ``updates`` (per member), ``nonfinite_loss``, ``nonfinite_grad``, ``skipped`` (summed over members) and
      ``diverged`` (members whose weights are not finite or that skipped every step). While the replay holds no row
      nothing changes.

    Raises:
      ValueError: a model without a loss or for rows, or an option outside its range.
    """
    if model.loss is None:
        raise ValueError("model has no loss: it is not trained by gradient")
    if model.data_kind is not DataKind.SEQUENCES:
        raise ValueError("model learns from rows: use trainer")
    optimizer = optax.adam(1e-3) if optimizer is None else optimizer
    updates = checks.integer("updates", updates, 1)
    batch_size = checks.integer("batch_size", batch_size, 1)
    length = checks.integer("length", length, 1)
    if max_grad_norm is not None:
        checks.number("max_grad_norm", max_grad_norm, 0.0)

    members = model.members
    single = model.member if members else model

    def init(params: Params) -> PyTree:
        return jax.vmap(optimizer.init)(params.weights) if members else optimizer.init(params.weights)

    def fit(key: Key, params: Params, opt: PyTree, replay: data.Replay) -> tuple[Params, PyTree, dict[str, Array]]:
        rows, count = data.rows(replay)
        params = model.set_stats(params, rows, jnp.arange(replay.valid.size) < count)
        stats = params.stats.member if members else params.stats

        def one(key: Key, weights: PyTree, opt: PyTree) -> tuple:
            key_batch, key_loss = jax.random.split(key)
            batch = data.sample_sequences(key_batch, replay, batch_size, length)
            loss = lambda w: single.loss(key_loss, Params(w, stats), batch)  # noqa: E731
            return guarded_update(optimizer, loss, weights, opt, max_grad_norm)

        def update(carry: tuple, key: Key) -> tuple[tuple, tuple]:
            if members:
                new, new_opt, *seen = jax.vmap(one)(jax.random.split(key, members), *carry)
            else:
                new, new_opt, *seen = one(key, *carry)
            keep = lambda a, b: jnp.where(count > 0, a, b)  # noqa: E731
            return jax.tree.map(keep, (new, new_opt), carry), tuple(seen)

        (weights, opt), (loss, info, health) = jax.lax.scan(
            update, (params.weights, opt), jax.random.split(key, updates)
        )
        info = {name: jnp.mean(value.astype(jnp.float32)) for name, value in {**info, "loss": loss}.items()}
        params = params._replace(weights=weights)
        if members:
            late = jnp.mean(loss[-max(updates // 4, 1) :], axis=0)
            params = params._replace(stats=rank_elites(params.stats, late, count > 0))
        return params, opt, {**info, **_counters(weights, health, updates, members)}

    return Trainer(init, fit)


def _counters(weights: PyTree, health: Health, updates: int, members: int) -> dict[str, Array]:
    """``health``: per update, and per member of an ensemble."""
    each = jax.tree.map(lambda x: jnp.sum(x, axis=0), health)
    finite = jax.vmap(all_finite)(weights) if members else all_finite(weights)
    broken = jnp.sum(~finite | (each.skipped >= updates))
    total = jax.tree.map(jnp.sum, each)
    return {**total._asdict(), "updates": jnp.float32(updates), "diverged": broken.astype(jnp.float32)}
