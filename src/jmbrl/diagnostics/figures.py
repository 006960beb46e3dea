"""Figures without global state: one look for all, drawn off screen, and the learning curve of a run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GRID_POINTS = 500

Curve = tuple[np.ndarray, np.ndarray]  # env_steps[n], values[n]


def new(
    columns: int = 1, rows: int = 1, *, width: float = 5.0, height: float = 3.6, **options: Any
) -> tuple[Figure, Any]:
    """A figure and its axes (an array of ``Axes`` where there are several); never touches pyplot's state."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, **options)
    for axis in np.ravel(axes):
        plain(axis)
    return figure, axes


def plain(axis: Axes) -> Axes:
    """A light grid, no box."""
    axis.grid(True, alpha=0.25, linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    return axis


def save(figure: Figure, path: str | Path) -> Path:
    """Write a PNG, whole or not at all."""
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    figure.savefig(temporary, format="png")
    temporary.replace(path)
    return path


def to_grid(curves: Sequence[Curve], points: int = GRID_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Put curves measured at different steps on one grid, holding the last value; NaN before a curve's first.

    Returns:
      ``grid[G]`` and ``values[len(curves), G]``.
    """
    steps = np.unique(np.concatenate([np.asarray(x) for x, _ in curves]))
    if len(steps) > points:
        steps = np.linspace(steps[0], steps[-1], points)
    values = np.full((len(curves), len(steps)), np.nan)
    for row, (x, y) in zip(values, curves, strict=True):
        at = np.searchsorted(x, steps, side="right") - 1
        row[at >= 0] = np.asarray(y, float)[at[at >= 0]]
    return steps, values


def band(axis: Axes, curves: Sequence[Curve], colour: str = COLOURS[0], label: str | None = None) -> None:
    """Each curve thin, their median bold, the interquartile band shaded."""
    curves = [curve for curve in curves if len(curve[0])]
    if not curves:
        axis.text(0.5, 0.5, "no episode ended yet", ha="center", va="center", transform=axis.transAxes)
        return
    marker = "o" if max(len(x) for x, _ in curves) < 3 else None
    for x, y in curves:
        axis.plot(x, y, color=colour, linewidth=0.8, alpha=0.4 if len(curves) > 1 else 1.0, marker=marker, markersize=3)
    if len(curves) > 1:
        grid, values = to_grid(curves)
        everyone = np.isfinite(values).all(axis=0)  # a band over a changing set of seeds would mislead
        low, middle, high = np.quantile(values[:, everyone], (0.25, 0.5, 0.75), axis=0)
        axis.fill_between(grid[everyone], low, high, color=colour, alpha=0.2, linewidth=0)
        axis.plot(grid[everyone], middle, color=colour, linewidth=1.8, label=label or f"median of {len(curves)} seeds")
        axis.legend(frameon=False, fontsize="small")


def learning_curve(rows: Sequence[dict], title: str = "") -> Figure:
    """Episode returns against environment steps, as they came and as a running maximum.

    The plain curve is the honest one; papers on planning with learned models often print the running maximum, so
    it stands beside it and says so. Where episodes differ in length a third panel shows that: in a maze every return is
    the same, and the steps to the goal are what is learned.

    Args:
      rows: rows of ``metrics.jsonl``; those with ``episode_return`` count.
    """
    curves = episode_curves(rows)
    lengths = episode_curves(rows, "episode_length")
    differ = len(np.unique(np.concatenate([y for _, y in lengths]))) > 1 if lengths else False
    figure, axes = new(3 if differ else 2)
    left, right = axes[:2]
    right.sharey(left)
    if differ:
        band(axes[2], lengths, colour=COLOURS[2])
        axes[2].set(yscale="log", ylabel="steps")
        axes[2].set_title("length of each training episode", fontsize="medium")
    band(left, curves)
    band(right, [(x, np.maximum.accumulate(y)) for x, y in curves], colour=COLOURS[1])
    left.set_title("each training episode", fontsize="medium")
    right.set_title("running maximum", fontsize="medium")
    left.set_ylabel("episode return")
    for axis in axes:
        axis.set_xlabel("environment steps")
    if title:
        figure.suptitle(title, fontsize="medium")
    return figure


def episode_curves(rows: Sequence[dict], name: str = "episode_return") -> list[Curve]:
    """``(env_steps, value)`` of every seed, in the order of the seeds; rows without ``name`` are passed over."""
    seeds = sorted({row["seed"] for row in rows})
    found = []
    for seed in seeds:
        points = [(row["env_steps"], row[name]) for row in rows if row["seed"] == seed and row.get(name) is not None]
        array = np.asarray(points, float).reshape(-1, 2)
        found.append((array[:, 0], array[:, 1]))
    return found
