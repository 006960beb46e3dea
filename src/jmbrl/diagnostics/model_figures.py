"""One page about a model: its error, its calibration, its imagination beside what happened."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jmbrl.diagnostics import figures

DIMENSIONS = 3  # drawn of an observation at most


def model_page(numbers: dict[str, Any], episode: dict[str, np.ndarray], names: tuple[str, ...] = ()) -> Figure:
    """The figure of ``diagnose``: six panels.

    Args:
      numbers: of ``diagnose_agent``.
      episode: ``real[T, D]`` and ``imagined[T, P, D]``, sampled futures under the same actions.
      names: of the observation's entries.
    """
    figure, axes = figures.new(3, 2)
    error_against_horizon(axes[0, 0], numbers["model_error"])
    reward_error(axes[0, 1], numbers["model_error"])
    coverage(axes[0, 2], numbers["calibration"])
    dims = shown_dimensions(episode["real"])
    for axis, dim in zip(axes[1], dims, strict=False):
        trajectory(axis, episode, dim, names[dim] if names else f"observation {dim}")
    for axis in axes[1, len(dims) :]:
        axis.set_visible(False)
    axes[1, 0].legend(frameon=False, fontsize="small")
    return figure


def error_against_horizon(axis: Axes, error: dict[str, Any]) -> None:
    """Model, baseline and disagreement on one axis, all in standard deviations of the data."""
    labels = {"rmse": "model", "persistence": "nothing changes", "disagreement": "members disagree"}
    for (name, label), style in zip(labels.items(), ("-", "--", ":"), strict=True):
        if name in error:
            values = np.asarray(error[name], float)
            axis.plot(np.arange(1, len(values) + 1), values, style, label=label)
    axis.set(xlabel="steps ahead", ylabel="RMSE / std of the data", title="open-loop error")
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, fontsize="small")


def reward_error(axis: Axes, error: dict[str, Any]) -> None:
    values = np.asarray(error["reward_rmse"], float)
    axis.plot(np.arange(1, len(values) + 1), values)
    axis.set(xlabel="steps ahead", ylabel="RMSE of the reward", title="open-loop reward error")
    axis.set_ylim(bottom=0)


def coverage(axis: Axes, calibration: dict[str, Any] | None) -> None:
    """Observed against nominal coverage; below the diagonal is overconfident."""
    axis.plot([0, 1], [0, 1], "--", color="0.6", linewidth=1)
    axis.set(
        xlabel="nominal", ylabel="observed", title="coverage of one-step intervals", xlim=(0, 1.02), ylim=(0, 1.02)
    )
    if calibration is None:
        axis.text(0.5, 0.5, "the model predicts no intervals", ha="center", va="center", transform=axis.transAxes)
        return
    axis.plot(np.asarray(calibration["nominal"]), np.asarray(calibration["coverage"]), "o-")
    axis.text(0.05, 0.9, "cautious", fontsize="small", color="0.4")
    axis.text(0.95, 0.05, "overconfident", fontsize="small", color="0.4", ha="right")


def trajectory(axis: Axes, episode: dict[str, np.ndarray], dim: int, name: str) -> None:
    """What happened, and the middle and the 5 to 95 % band of what was imagined from the start."""
    low, middle, high = np.quantile(episode["imagined"][:, :, dim], (0.05, 0.5, 0.95), axis=1)
    steps = np.arange(1, len(low) + 1)
    axis.fill_between(steps, low, high, alpha=0.2, color=figures.COLOURS[1], linewidth=0, label="imagined, 5 to 95 %")
    axis.plot(steps, middle, color=figures.COLOURS[1], linewidth=1, label="imagined, median")
    axis.plot(steps, episode["real"][:, dim], color=figures.COLOURS[0], label="real")
    axis.set(xlabel="step of the episode", title=name)


def shown_dimensions(real: np.ndarray) -> list[int]:
    """The dimensions that change, up to three, in their order."""
    moving = np.flatnonzero(np.ptp(real, axis=0) > 1e-6)
    return (moving if len(moving) else np.arange(real.shape[1]))[:DIMENSIONS].tolist()
