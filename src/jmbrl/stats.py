"""Summaries of few runs: interquartile mean and bootstrap intervals (Agarwal et al. 2021, arXiv 2108.13264)."""

import operator
from collections.abc import Callable

import numpy as np


def interquartile_mean(values: np.ndarray) -> float:
    """The mean of the middle half, ``[N] -> scalar``: a quarter is cut off at each end (as ``scipy.stats.trim_mean``).

    >>> interquartile_mean(np.asarray([0.0, 1.0, 2.0, 100.0]))
    1.5
    """
    ordered = np.sort(_clean("values", values))
    cut = int(0.25 * len(ordered))
    return float(np.mean(ordered[cut : len(ordered) - cut]))


def bootstrap(
    values: np.ndarray, statistic: Callable = np.mean, resamples: int = 5000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """The percentile bootstrap interval of a statistic of independent runs.

    Args:
      values: ``[N]``, one number a run.
      statistic: ``[N] -> scalar``.
    """
    values = _clean("values", values)
    rng = np.random.default_rng(seed)
    drawn = [statistic(values[rng.integers(0, len(values), len(values))]) for _ in range(resamples)]
    tail = 50 * (1 - confidence)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return float(low), float(high)


def stratified(
    tasks: list[np.ndarray],
    statistic: Callable = interquartile_mean,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """A statistic of all runs of several tasks, and its interval from runs drawn again within each task.

    Args:
      tasks: one vector of scores a task, comparable between tasks (normalised); lengths may differ.
      statistic: ``[N] -> scalar`` of all of them in one vector.

    Returns:
      The statistic, and the ends of its percentile interval. Source: Agarwal et al. 2021, section 4.1.
    """
    tasks = [_clean("tasks", task) for task in tasks]
    rng = np.random.default_rng(seed)
    draw = lambda: np.concatenate([task[rng.integers(0, len(task), len(task))] for task in tasks])  # noqa: E731
    drawn = [statistic(draw()) for _ in range(resamples)]
    tail = 50 * (1 - confidence)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return float(statistic(np.concatenate(tasks))), float(low), float(high)


def performance_profile(tasks: list[np.ndarray], thresholds: np.ndarray) -> np.ndarray:
    """The share of runs above each threshold, every task counting the same. Source: Agarwal et al. 2021, section 4.2.

    >>> performance_profile([np.asarray([0.0, 1.0]), np.asarray([0.5])], np.asarray([0.2, 0.8])).tolist()
    [0.75, 0.25]
    """
    tasks = [_clean("tasks", task) for task in tasks]
    return np.mean([np.mean(task[:, None] > thresholds, axis=0) for task in tasks], axis=0)


def ranks(means: np.ndarray) -> np.ndarray:
    """The rank of each system on each task, 1 the best, equal ones sharing: ``[systems, tasks]``, NaN where not run.

    >>> ranks(np.asarray([[3.0], [1.0], [np.nan], [3.0]]))[:, 0].tolist()
    [1.5, 3.0, nan, 1.5]
    """
    means = np.asarray(means, np.float64)
    above = np.sum(means[None] > means[:, None], axis=1)
    equal = np.sum(means[None] == means[:, None], axis=1)
    return np.where(np.isnan(means), np.nan, above + (equal + 1) / 2)


def difference(
    a: np.ndarray, b: np.ndarray, statistic: Callable = np.mean, resamples: int = 5000, seed: int = 0
) -> tuple[float, float, float]:
    """``statistic(a) - statistic(b)`` of two independent groups of runs, and its 95 % bootstrap interval."""
    return _compare(operator.sub, a, b, statistic, resamples, seed)


def ratio(
    a: np.ndarray, b: np.ndarray, statistic: Callable = np.mean, resamples: int = 5000, seed: int = 0
) -> tuple[float, float, float]:
    """``statistic(a) / statistic(b)`` of two independent groups of runs, and its 95 % bootstrap interval."""
    return _compare(operator.truediv, a, b, statistic, resamples, seed)


def _compare(
    how: Callable, a: np.ndarray, b: np.ndarray, statistic: Callable, resamples: int, seed: int
) -> tuple[float, float, float]:
    a, b = _clean("a", a), _clean("b", b)
    rng = np.random.default_rng(seed)
    again = lambda x: statistic(x[rng.integers(0, len(x), len(x))])  # noqa: E731
    drawn = [how(again(a), again(b)) for _ in range(resamples)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(how(statistic(a), statistic(b))), float(low), float(high)


def _clean(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"{name} must be a vector of at least one number, got shape {values.shape}")
    if not np.all(np.isfinite(values)):
        raise ValueError(f"{name} must be finite, got {values[~np.isfinite(values)][0]}")
    return values
