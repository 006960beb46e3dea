"""Whether a model's predicted spread is the spread of its errors, one step ahead and further."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri

from jmbrl import checks, data
from jmbrl.data import normalizer
from jmbrl.diagnostics.windows import mean_alive, particle_fan, real_windows, vectors, watch
from jmbrl.types import Array, Key, Model, Params, Prediction, Sequence

LEVELS = (0.5, 0.8, 0.95)
ROUNDING = 1e-5  # of the data's standard deviation: two programs of one exact simulator differ in the last bits


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
    context = checks.integer("context", context, 1)
    _levels(levels)
    predicts(model)

    @jax.jit
    def compute(key: Key, params: Params, source: data.Replay | Sequence) -> dict[str, Array]:
        said, real, keep = predictions(key, model, params, source, rows, context)
        error = jnp.abs(real - said.mean)
        width = ndtri(0.5 + 0.5 * jnp.asarray(levels))
        count = jnp.maximum(jnp.sum(keep), 1)
        inside = (error <= width[:, None, None] * said.std) & keep[:, None]
        z = jnp.where(keep[:, None], error / jnp.maximum(said.std, 1e-12), 0.0)
        per_dim = jnp.sum(inside, axis=1) / count
        return {
            "nominal": jnp.asarray(levels),
            "coverage": jnp.mean(per_dim, axis=1),
            "per_dim": per_dim,
            "z_rms": jnp.sqrt(jnp.mean(jnp.sum(z**2, axis=0) / count)),
            "count": jnp.sum(keep),
        }

    return compute(key, params, source)


def calibration_by_horizon(
    key: Key,
    model: Model,
    params: Params,
    source: data.Replay | Sequence,
    horizon: int,
    windows: int = 256,
    context: int = 1,
    particles: int = 100,
    levels: tuple[float, ...] = LEVELS,
) -> dict[str, Array]:
    r"""Coverage of the sampled futures' central intervals, ``h = 1..H`` steps ahead, under the recorded actions.

    From every real window's start ``P`` particles are imagined by ``step_many``, noise, members and propagation
    included. With :math:`o_{(1)} \le \dots \le o_{(P)}` the particles of one entry of the observation, the interval of
    probability :math:`p` lies between the order statistics at :math:`(P + 1)(1 \mp p) / 2`, interpolated: it covers
    the truth with probability :math:`p` where truth and particles are drawn from the same distribution.

    Args:
      key: consumed.
      model, params: any model; ``decode`` gives what is compared.
      source, windows, context: as for ``model_error``.
      horizon: ``H``, imagined steps, at least 1.
      particles: ``P``; enough to resolve the highest level, ``(P - 1) / (P + 1) >= p``. TSinf splits them evenly
        between members where ``P`` is a multiple of these.
      levels: nominal probabilities, each in ``(0, 1)``.

    Returns:
      ``nominal[L]``; ``coverage[H, L]``, averaged over dimensions, and ``per_dim[H, L, D]``; ``error[H]``, the mean
      over levels of ``|coverage - nominal|``; ``spread[H]``, the particles' standard deviation, root mean square over
      windows and dimensions, in standard deviations of the data; ``count[H]`` windows (NaN elsewhere where it is 0).

    Raises:
      ValueError: a count below 1, a level outside ``(0, 1)``, or particles too few for a level.

    Source: Kuleshov, Fenner, Ermon 2018 (arXiv 1807.00263), calibration; Hyndman and Fan 1996, quantile type 6.
    """
    horizon = checks.integer("horizon", horizon, 1)
    context = checks.integer("context", context, 1)
    particles = checks.integer("particles", particles, 1)
    _levels(levels)
    needed = round((1 + max(levels)) / (1 - max(levels)))
    if particles < needed:
        raise ValueError(f"particles must be at least {needed} for the level {max(levels)}, got {particles}")

    @jax.jit
    def compute(key: Key, params: Params, source: data.Replay | Sequence) -> dict[str, Array]:
        key_windows, key_watch, key_roll = jax.random.split(key, 3)
        rows, alive = real_windows(key_windows, source, context + horizon - 1, windows)
        real = vectors(rows.next_obs, 2)
        scale = normalizer.fit(real.reshape(-1, real.shape[-1]), alive.reshape(-1)).std
        beliefs = watch(key_watch, model, params, jax.tree.map(lambda x: x[:context], rows))
        real, alive = real[context - 1 :], alive[context - 1 :]

        def look(fan: Array, truth: Array) -> tuple[Array, Array]:
            low, high = central(fan, jnp.asarray(levels))
            slack = ROUNDING * scale
            inside = (truth >= low - slack) & (truth <= high + slack)
            return jnp.swapaxes(inside, 0, 1).astype(jnp.float32), jnp.var(fan, axis=0) / scale**2

        inside, spread = particle_fan(
            key_roll, model, params, beliefs, rows.action[context - 1 :], particles, look, real
        )
        per_dim = mean_alive(inside, alive)
        coverage = jnp.mean(per_dim, axis=-1)
        return {
            "nominal": jnp.asarray(levels),
            "coverage": coverage,
            "per_dim": per_dim,
            "error": jnp.mean(jnp.abs(coverage - jnp.asarray(levels)), axis=-1),
            "spread": jnp.sqrt(jnp.mean(mean_alive(spread, alive), axis=-1)),
            "count": jnp.sum(alive, axis=1),
        }

    return compute(key, params, source)


def central(fan: Array, levels: Array) -> tuple[Array, Array]:
    """Ends of the central intervals of particles ``[P, ...]``, each ``[L, ...]``: order statistics at ``(P + 1) q``."""
    count = fan.shape[0]
    ordered = jnp.sort(fan, axis=0)

    def at(probability: Array) -> Array:
        place = jnp.clip((count + 1) * probability - 1.0, 0.0, count - 1.0)
        below = jnp.minimum(jnp.floor(place).astype(jnp.int32), max(count - 2, 0))
        part = (place - below).reshape(-1, *(1,) * (fan.ndim - 1))
        above = jnp.minimum(below + 1, count - 1)
        return (1.0 - part) * ordered[below] + part * ordered[above]

    return at(0.5 - 0.5 * levels), at(0.5 + 0.5 * levels)


def predictions(
    key: Key, model: Model, params: Params, source: data.Replay | Sequence, rows: int, context: int
) -> tuple[Prediction, Array, Array]:
    """What was predicted for ``W`` real rows, what came, ``[W, D]``, and which rows count, ``bool[W]``."""
    key_windows, key_watch = jax.random.split(key)
    seen, alive = real_windows(key_windows, source, context, rows)
    beliefs = watch(key_watch, model, params, seen)
    said = jax.vmap(predicts(model), in_axes=(None, 0, 0))(params, beliefs, seen.action[-1])
    return said, vectors(jax.tree.map(lambda x: x[-1], seen.next_obs), 1), alive[-1]


def predicts(model: Model) -> Callable:
    """``model.predict``, which must be there."""
    if model.predict is None:
        raise ValueError("model must have predict for its calibration, got one without")
    return model.predict


def _levels(levels: tuple[float, ...]) -> None:
    for level in levels:
        checks.number("levels", level, 1e-6, 1.0 - 1e-6)
