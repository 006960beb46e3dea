"""One page about a model: its error, its calibration, its imagination beside what happened."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jmbrl.diagnostics import figures

DIMENSIONS = 3  # drawn of an observation at most
SHARES = 20  # bars at most


def model_page(numbers: dict[str, Any], episode: dict[str, np.ndarray], names: tuple[str, ...] = ()) -> Figure:
    """The figure of ``diagnose``: nine panels.

    Args:
      numbers: of ``diagnose_agent``.
      episode: ``real[T, D]`` and ``imagined[T, P, D]``, sampled futures under the same actions; perhaps
        ``members[T, M, D]``.
      names: of the observation's entries.
    """
    figure, axes = figures.new(3, 3)
    error_against_horizon(axes[0, 0], numbers["model_error"])
    reward_error(axes[0, 1], numbers["model_error"])
    decisions(axes[0, 2], numbers["act_latency"])
    coverage(axes[1, 0], numbers["calibration"])
    coverage_by_horizon(axes[1, 1], numbers["calibration_by_horizon"])
    shares(axes[1, 2], numbers["variance_shares"], names)
    dims = shown_dimensions(episode["real"])
    for axis, dim in zip(axes[2], dims, strict=False):
        trajectory(axis, episode, dim, names[dim] if dim < len(names) else f"observation {dim}")
    for axis in axes[2, len(dims) :]:
        axis.set_visible(False)
    axes[2, 0].legend(frameon=False, fontsize="small")
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
        return _empty(axis, "the model predicts no intervals")
    axis.plot(np.asarray(calibration["nominal"]), np.asarray(calibration["coverage"]), "o-")
    axis.text(0.05, 0.9, "cautious", fontsize="small", color="0.4")
    axis.text(0.95, 0.05, "overconfident", fontsize="small", color="0.4", ha="right")


def coverage_by_horizon(axis: Axes, calibration: dict[str, Any]) -> None:
    """Coverage of the sampled futures, one line a nominal level, which is dashed."""
    covered = np.asarray(calibration["coverage"], float)
    steps = np.arange(1, len(covered) + 1)
    for level, line, colour in zip(calibration["nominal"], covered.T, figures.COLOURS, strict=False):
        axis.axhline(level, linestyle="--", color=colour, linewidth=0.8)
        axis.plot(steps, line, color=colour, label=f"{level:.0%}")
    axis.set(xlabel="steps ahead", ylabel="observed", title="coverage of sampled futures", ylim=(0, 1.02))
    axis.legend(frameon=False, fontsize="small", title="nominal", title_fontsize="small")


def shares(axis: Axes, found: dict[str, Any] | None, names: tuple[str, ...] = ()) -> None:
    """What the predicted variance is made of, a bar a dimension."""
    axis.set(ylabel="share of the variance", title="noise and ignorance, one step", ylim=(0, 1.02))
    if found is None:
        return _empty(axis, "no ensemble of models that predict")
    share = np.nan_to_num(np.asarray(found["epistemic_share"], float)[:SHARES])
    place = np.arange(len(share))
    axis.bar(place, share, color=figures.COLOURS[1], label="members disagree (epistemic)")
    axis.bar(place, 1 - share, bottom=share, color=figures.COLOURS[5], label="noise (aleatoric)")
    labels = [names[i] if i < len(names) else str(i) for i in place]
    axis.set_xticks(place, labels, rotation=45 if any(len(x) > 3 for x in labels) else 0, fontsize="x-small")
    axis.legend(frameon=True, framealpha=0.8, fontsize="x-small", loc="upper right")


def decisions(axis: Axes, latency: dict[str, Any]) -> None:
    """The time of a decision, and the time there is."""
    kinds = ("p50_ms", "p95_ms", "p99_ms")
    axis.bar([kind[:3] for kind in kinds], [latency[kind] for kind in kinds], color=figures.COLOURS[5], width=0.5)
    verdict = ""
    if latency["needed_hz"] is not None:
        axis.axhline(1e3 / latency["needed_hz"], linestyle="--", color=figures.COLOURS[1], linewidth=1)
        verdict = f": {'keeps up' if latency['keeps_up'] else 'too slow'} at {latency['needed_hz']:.3g} Hz"
    axis.set(ylabel="ms a decision", title=f"{latency['rate_hz']:.3g} decisions a second{verdict}")


def trajectory(axis: Axes, episode: dict[str, np.ndarray], dim: int, name: str) -> None:
    """What happened, and the middle and the 5 to 95 % band of what was imagined from the start."""
    low, middle, high = np.quantile(episode["imagined"][:, :, dim], (0.05, 0.5, 0.95), axis=1)
    steps = np.arange(1, len(low) + 1)
    axis.fill_between(steps, low, high, alpha=0.2, color=figures.COLOURS[1], linewidth=0, label="imagined, 5 to 95 %")
    if "members" in episode:
        lines = axis.plot(steps, episode["members"][:, :, dim], color=figures.COLOURS[4], linewidth=0.6, alpha=0.8)
        lines[0].set_label("each member, no noise")
    axis.plot(steps, middle, color=figures.COLOURS[1], linewidth=1, label="imagined, median")
    axis.plot(steps, episode["real"][:, dim], color=figures.COLOURS[0], label="real")
    axis.set(xlabel="step of the episode", title=name)


def shown_dimensions(real: np.ndarray) -> list[int]:
    """The dimensions that change, up to three, in their order."""
    moving = np.flatnonzero(np.ptp(real, axis=0) > 1e-6)
    return (moving if len(moving) else np.arange(real.shape[1]))[:DIMENSIONS].tolist()


def _empty(axis: Axes, text: str) -> None:
    axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes)
