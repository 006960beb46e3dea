"""The map that would make a model's one-step predictions cover what they say."""

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri

from jmbrl import checks, data
from jmbrl.diagnostics.calibration import predictions, predicts
from jmbrl.models import Recalibration
from jmbrl.types import Array, Key, Model, Params, Sequence

PROBABILITIES = tuple(round(0.05 * i, 2) for i in range(1, 20))


def recalibrate(
    key: Key,
    model: Model,
    params: Params,
    source: data.Replay | Sequence,
    rows: int = 2000,
    context: int = 1,
    method: str = "scale",
) -> Recalibration:
    r"""Learn a map of predictions from data that the model was not fitted to; apply it by ``models.recalibrated``.

    With :math:`z = (o - \mu) / \sigma` of each entry of the observation over the rows, ``"scale"`` takes
    :math:`g(z) = s z`, :math:`s = \sqrt{E[z^2]}`: 0.5 says that the predicted standard deviation is twice too large.
    ``"quantile"`` takes for :math:`g` the line through the points (normal quantile, empirical quantile of :math:`z`) at
    19 probabilities from 0.05 to 0.95, straight on beyond them. That is Kuleshov's map of probabilities, written for
    values; it mends bias and shape too and needs more rows.

    The map is one for all observations and actions: a model that is overconfident here and cautious there is mended
    on average only. Where the model says std 0 there is nothing to stretch: a dimension that it always predicts so
    keeps its prediction.

    Args:
      key: consumed.
      model, params: a model with ``predict`` whose belief is the observation; of an ensemble the mixture is judged.
      source, rows, context: as for ``calibration``; some hundred rows at least.
      method: ``"scale"`` or ``"quantile"``.

    Returns:
      A ``models.Recalibration``; its ``std[D]`` is the factor on the predicted standard deviation.

    Raises:
      ValueError: the model predicts nothing, or an unknown method.

    Source: Kuleshov, Fenner, Ermon 2018 (arXiv 1807.00263), algorithm 1; Malik et al. 2019 (arXiv 1906.08312).
    """
    context = checks.integer("context", context, 1)
    checks.choice("method", method, ("scale", "quantile"))
    predicts(model)

    @jax.jit
    def compute(key: Key, params: Params, source: data.Replay | Sequence) -> Recalibration:
        said, real, keep = predictions(key, model, params, source, rows, context)
        usable = keep[:, None] & (said.std > 0)
        z = jnp.where(usable, (real - said.mean) / jnp.where(usable, said.std, 1.0), 0.0)
        return _fit(z, usable, method)

    return compute(key, params, source)


def _fit(z: Array, usable: Array, method: str) -> Recalibration:
    """From ``z[N, D]``, where ``usable``; the identity for a column with nothing usable."""
    knots = ndtri(jnp.asarray(PROBABILITIES, jnp.float32))
    count = jnp.sum(usable, axis=0)
    mean_of = lambda x: jnp.sum(jnp.where(usable, x, 0.0), axis=0) / jnp.maximum(count, 1)  # noqa: E731
    if method == "scale":
        mean, std = jnp.zeros(z.shape[1]), jnp.sqrt(mean_of(z**2))
        values = knots[:, None] * std
    else:
        mean = mean_of(z)
        std = jnp.sqrt(mean_of((z - mean) ** 2))
        values = jax.vmap(_quantiles, in_axes=(1, 1, 0), out_axes=1)(z, usable, count)
    known = count > 0
    return Recalibration(
        knots,
        jnp.where(known, values, knots[:, None]),
        jnp.where(known, mean, 0.0),
        jnp.where(known, std, 1.0),
    )


def _quantiles(z: Array, usable: Array, count: Array) -> Array:
    """Of the usable entries of one column: order statistics at ``(N + 1) q``, interpolated."""
    ordered = jnp.sort(jnp.where(usable, z, jnp.inf))
    last = jnp.maximum(count - 1, 0)
    place = jnp.clip((count + 1) * jnp.asarray(PROBABILITIES) - 1.0, 0.0, last)
    below = jnp.floor(place).astype(jnp.int32)
    part = place - below
    # Not a weighted sum: beyond the last usable entry stands infinity.
    return ordered[below] + jnp.where(part > 0, part * (ordered[jnp.minimum(below + 1, last)] - ordered[below]), 0.0)
