"""Whether a model's predicted spread is the spread of its errors."""

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri

from jmbrl import checks, data
from jmbrl.diagnostics.windows import real_windows, vectors, watch
from jmbrl.types import Array, Key, Model, Params, Sequence

LEVELS = (0.5, 0.8, 0.95)


def calibration(
    key: Key,
    model: Model,
    params: Params,
    source: data.Replay | Sequence,
    rows: int = 2000,
    context: int = 1,
    levels: tuple[float, ...] = LEVELS,
) -> dict[str, Array]:
    r"""Coverage of one-step predictive intervals: how often ``|o - mean| <= z_p std`` for nominal probability ``p``.

    Coverage below the nominal level is overconfidence, above it caution. An ensemble's prediction is the mixture of
    its members by mean and variance. A dimension that the model predicts with std 0 is covered only where exact.

    Args:
      key: consumed.
      model, params: a model with ``predict``.
      source: real data, as for ``model_error``; data that the model was not fitted to.
      rows: how many to draw from a replay.
      context: observations seen before the one that is predicted from, it included.
      levels: nominal probabilities, each in ``(0, 1)``.

    Returns:
      ``nominal[L]``, ``coverage[L]`` and ``per_dim[L, D]``; ``z_rms``, the root mean square of
      ``(o - mean) / std`` (1 when calibrated, above 1 when overconfident); ``count``, the rows used.

    Raises:
      ValueError: the model predicts nothing, or a level outside ``(0, 1)``.
    """
    predict = model.predict
    if predict is None:
        raise ValueError("model must have predict for its calibration, got one without")
    context = checks.integer("context", context, 1)
    for level in levels:
        checks.number("levels", level, 1e-6, 1.0 - 1e-6)

    @jax.jit
    def compute(key: Key, params: Params, source: data.Replay | Sequence) -> dict[str, Array]:
        key_windows, key_watch = jax.random.split(key)
        seen, alive = real_windows(key_windows, source, context, rows)
        beliefs = watch(key_watch, model, params, seen)
        said = jax.vmap(predict, in_axes=(None, 0, 0))(params, beliefs, seen.action[-1])
        error = jnp.abs(vectors(jax.tree.map(lambda x: x[-1], seen.next_obs), 1) - said.mean)
        width = ndtri(0.5 + 0.5 * jnp.asarray(levels))
        keep = alive[-1][:, None]
        count = jnp.maximum(jnp.sum(keep), 1)
        inside = (error <= width[:, None, None] * said.std) & keep
        z = jnp.where(keep, error / jnp.maximum(said.std, 1e-12), 0.0)
        per_dim = jnp.sum(inside, axis=1) / count
        return {
            "nominal": jnp.asarray(levels),
            "coverage": jnp.mean(per_dim, axis=1),
            "per_dim": per_dim,
            "z_rms": jnp.sqrt(jnp.mean(jnp.sum(z**2, axis=0) / count)),
            "count": jnp.sum(keep),
        }

    return compute(key, params, source)
