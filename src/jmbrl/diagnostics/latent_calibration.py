"""Whether predicted rewards and ends are what happens, and what each latent carries: pure functions."""

from typing import Any

import numpy as np

from jmbrl import checks
from jmbrl.networks import Normal, OneHotLatents
from jmbrl.types import Array, PyTree

BINS = 10


def kl_per_latent(posterior: PyTree, prior: PyTree) -> Array:
    """Divergence of each latent from its prior, nats: ``[..., D]`` of a ``Normal``, ``[..., S]`` of ``OneHotLatents``.

    Raises:
      ValueError: another kind of distribution.
    """
    # One latent alone is a distribution whose divergence sums over nothing else.
    match posterior:
        case Normal():
            return Normal(posterior.mean[..., None], posterior.std[..., None]).kl(
                Normal(prior.mean[..., None], prior.std[..., None])
            )
        case OneHotLatents():
            return OneHotLatents(posterior.logits[..., None, :]).kl(OneHotLatents(prior.logits[..., None, :]))
    raise ValueError(f"posterior must be a Normal or OneHotLatents, got {type(posterior).__name__}")


def reward_calibration(predicted: np.ndarray, real: np.ndarray, bins: int = BINS) -> dict[str, Any]:
    r"""Predictions in order, cut into ``bins`` of equal count: the mean ``predicted`` and ``real`` of each, ``count``.

    Also ``mse``, ``bias`` (mean of predicted minus real) and ``r2``, :math:`1 - \mathrm{mse} / \mathrm{Var}(real)`,
    NaN where nothing varies.

    Args:
      predicted, real: ``float[N]``, ``N`` at least 1.
    """
    predicted, real = np.asarray(predicted, float), np.asarray(real, float)
    parts = np.array_split(np.argsort(predicted, kind="stable"), min(checks.integer("bins", bins, 1), len(real)))
    mse, variance = float(np.mean((predicted - real) ** 2)), float(np.var(real))
    return {
        "predicted": np.asarray([predicted[part].mean() for part in parts]),
        "real": np.asarray([real[part].mean() for part in parts]),
        "count": np.asarray([len(part) for part in parts]),
        "mse": mse,
        "bias": float(np.mean(predicted - real)),
        "r2": 1 - mse / variance if variance > 0 else np.nan,
    }


def continuation_calibration(predicted: np.ndarray, ended: np.ndarray, bins: int = BINS) -> dict[str, Any]:
    """Said and observed frequency of going on, in ``bins`` of equal width that hold anything: ``predicted``, ``real``,
    ``count``.

    Also the Brier score (``brier``; ``brier_constant`` is that of always saying how often it goes on), and the mean
    said ``at_ends`` (NaN where there are none) and ``elsewhere``.

    Args:
      predicted: ``float[N]`` in [0, 1], that the episode goes on. ended: ``bool[N]``, whether it did not.
    """
    predicted, going = np.asarray(predicted, float), 1.0 - np.asarray(ended, float)
    place = np.minimum((predicted * bins).astype(int), checks.integer("bins", bins, 1) - 1)
    count, said, seen = (np.bincount(place, weights=x, minlength=bins) for x in (None, predicted, going))
    held = count > 0
    mean = lambda x: float(x.mean()) if len(x) else np.nan  # noqa: E731
    return {
        "predicted": said[held] / count[held],
        "real": seen[held] / count[held],
        "count": count[held],
        "brier": mean((predicted - going) ** 2),
        "brier_constant": mean((mean(going) - going) ** 2),
        "at_ends": mean(predicted[going == 0]),
        "elsewhere": mean(predicted[going == 1]),
    }
