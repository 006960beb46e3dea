"""The gradient trainer of models that learn from sequences: recurrent and latent ones."""

import jax
import jax.numpy as jnp
import optax

from jmbrl import checks, data
from jmbrl.health import all_finite
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

    Args:
      model: with ``loss`` and ``data_kind`` SEQUENCES, not an ensemble.
      optimizer: any optax transformation; None: ``adam(1e-3)``.
      updates: steps per fit.
      batch_size: windows per step.
      length: rows per window; at most the replay's capacity.
      max_grad_norm: clip the gradient to this norm; None: no clip. PlaNet: 1000, Dreamer: 100.

    Returns:
      A ``Trainer``. ``info``: the means over the steps of ``loss`` and of what ``model.loss`` reports, ``updates``,
      ``nonfinite_loss``, ``nonfinite_grad``, ``skipped`` and ``diverged``. A step that is not finite is skipped. While
      the replay holds no row nothing changes.

    Raises:
      ValueError: a model without a loss, for rows or an ensemble, or an option outside its range.
    """
    if model.loss is None:
        raise ValueError("model has no loss: it is not trained by gradient")
    if model.data_kind is not DataKind.SEQUENCES:
        raise ValueError("model learns from rows: use trainer")
    if model.members:
        raise ValueError(f"model must be a single model, got an ensemble of {model.members} members")
    optimizer = optax.adam(1e-3) if optimizer is None else optimizer
    updates = checks.integer("updates", updates, 1)
    batch_size = checks.integer("batch_size", batch_size, 1)
    length = checks.integer("length", length, 1)
    if max_grad_norm is not None:
        checks.number("max_grad_norm", max_grad_norm, 0.0)

    def init(params: Params) -> PyTree:
        return optimizer.init(params.weights)

    def fit(key: Key, params: Params, opt: PyTree, replay: data.Replay) -> tuple[Params, PyTree, dict[str, Array]]:
        rows, count = data.rows(replay)
        params = model.set_stats(params, rows, jnp.arange(replay.valid.size) < count)

        def update(carry: tuple, key: Key) -> tuple[tuple, tuple]:
            weights, opt = carry
            key_batch, key_loss = jax.random.split(key)
            batch = data.sample_sequences(key_batch, replay, batch_size, length)
            loss = lambda w: model.loss(key_loss, Params(w, params.stats), batch)  # noqa: E731
            new, new_opt, value, info, health = guarded_update(optimizer, loss, weights, opt, max_grad_norm)
            keep = lambda a, b: jnp.where(count > 0, a, b)  # noqa: E731
            return jax.tree.map(keep, (new, new_opt), (weights, opt)), (value, info, health)

        (weights, opt), (loss, info, health) = jax.lax.scan(
            update, (params.weights, opt), jax.random.split(key, updates)
        )
        info = {name: jnp.mean(value.astype(jnp.float32)) for name, value in {**info, "loss": loss}.items()}
        return params._replace(weights=weights), opt, {**info, **_counters(weights, health, updates)}

    return Trainer(init, fit)


def _counters(weights: PyTree, health: Health, updates: int) -> dict[str, Array]:
    total = jax.tree.map(jnp.sum, health)
    broken = ~all_finite(weights) | (total.skipped >= updates)
    return {**total._asdict(), "updates": jnp.float32(updates), "diverged": broken.astype(jnp.float32)}
