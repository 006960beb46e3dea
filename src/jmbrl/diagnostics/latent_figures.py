"""Pictures of a latent model: a page of panels, and its imagination beside what happened, as a film or as courses."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jmbrl import film
from jmbrl.diagnostics import figures
from jmbrl.diagnostics.imagined_returns import Points
from jmbrl.diagnostics.latent import Film, LatentReport
from jmbrl.types import Spec

ENTRIES = 6  # of a vector, drawn at most
HOLD = 1500  # ms, of a film's last frame
MIDDLE = 128  # grey of no difference
KINDS = {"one_step": "one step", "open_loop": "open loop"}


def save_latent(directory: str | Path, spec: Spec, report: LatentReport, title: str = "") -> list[Path]:
    """Write ``latent.png`` and ``open_loop.gif`` (images) or ``open_loop.png`` (vectors); the paths written.

    Args:
      directory: where.
      spec: of the environment.
      report: of ``diagnose_latent``.
      title: over the page.
    """
    directory = Path(directory)
    page = latent_page(report.numbers, report.points)
    page.suptitle(title, fontsize="medium")
    written = [figures.save(page, directory / "latent.png")]
    if not report.film.alive.any():
        return written  # no episode is longer than the context
    if len(spec.obs_shape) == 3:
        frames = film_frames(report.film, report.context)
        return written + film.save(directory / "open_loop", frames, round(1000 * (spec.dt or 0.05)), hold=HOLD)
    drawn = courses(report.film, report.context, spec.obs_names)
    return [*written, figures.save(drawn, directory / "open_loop.png")]


def latent_page(numbers: dict[str, Any], points: Points | None) -> Figure:
    """Six panels of ``LatentReport``'s numbers and points."""
    figure, axes = figures.new(3, 2)
    open_loop_error(axes[0, 0], numbers["open_loop"])
    reliability(axes[0, 1], numbers["reward"], "reward")
    reliability(axes[0, 2], numbers["continuation"], "going on")
    axes[0, 2].set_title(f"P(going on), {numbers['ends']} ends in the data")
    divergences(axes[1, 0], numbers["kl"])
    scatter(axes[1, 1], numbers["returns"], points)
    along(axes[1, 2], points)
    return figure


def open_loop_error(axis: Axes, error: dict[str, Any]) -> None:
    """Imagination between what the belief that saw the frame shows and the last frame that was seen."""
    labels = {"model": "imagined", "posterior": "reconstructed", "constant": "last frame seen"}
    for (name, label), style in zip(labels.items(), ("-", "-.", "--"), strict=True):
        axis.plot(np.arange(1, len(error[name]) + 1), np.asarray(error[name], float), style, label=label)
    axis.set(xlabel="steps ahead", ylabel="RMSE", title="open-loop frames")
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, fontsize="small")


def reliability(axis: Axes, found: dict[str, Any] | None, name: str) -> None:
    """Mean predicted against mean real, bin by bin."""
    axis.set(xlabel=f"predicted {name}", ylabel=f"real {name}", title=f"predicted {name}")
    if found is None:
        return _text(axis, "never predicted to end")
    both = np.concatenate([np.asarray(x[side], float) for x in found.values() for side in ("predicted", "real")])
    axis.plot([both.min(), both.max()], [both.min(), both.max()], "--", color="0.6", linewidth=1)
    for (kind, label), marker in zip(KINDS.items(), "os", strict=True):
        r2 = found[kind].get("r2")
        told = label if r2 is None else f"{label}, R² {r2:.2f}"
        axis.plot(found[kind]["predicted"], found[kind]["real"], f"{marker}-", markersize=4, label=told)
    axis.legend(frameon=False, fontsize="small")


def divergences(axis: Axes, kl: dict[str, Any]) -> None:
    """Of each latent, sorted."""
    values = np.asarray(kl["per_latent"], float)
    axis.bar(np.arange(1, len(values) + 1), values, width=1.0, color=figures.COLOURS[5])
    axis.set(xlabel="latent, sorted", ylabel="KL, nats")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_title(f"{kl['active']} of {len(values)} latents active, {kl['total']:.2f} nats")


def scatter(axis: Axes, numbers: dict[str, Any] | None, points: Points | None) -> None:
    """The critic's value and the imagined return against the real return."""
    axis.set(xlabel="real return", ylabel="expected", title="returns from real beliefs")
    if numbers is None or points is None or not len(points.real):
        return _text(axis, "no critic of beliefs")
    ends = points.real.min(), points.real.max()
    axis.plot(ends, ends, "--", color="0.6", linewidth=1)
    for (name, label), colour in zip((("value", "critic"), ("imagined", "imagined")), figures.COLOURS, strict=False):
        told = f"{label}: bias {numbers[f'{name}_bias']:.3g}, r {numbers[f'{name}_correlation']:.2f}"
        axis.plot(points.real, getattr(points, name), ".", color=colour, markersize=4, alpha=0.6, label=told)
    axis.legend(frameon=False, fontsize="small")


def along(axis: Axes, points: Points | None) -> None:
    """The three along the first environment's time, and how much of the real return is the critic's own guess."""
    axis.set(xlabel="step", ylabel="return", title="one episode after another")
    if points is None or not len(points.real):
        return _text(axis, "no critic of beliefs")
    first = points.env == points.env[0]
    mean = points.bootstrap[first].mean()
    labels = {"real": f"real (the critic's guess weighs {mean:.0%})", "value": "critic", "imagined": "imagined"}
    for (name, label), colour in zip(labels.items(), (figures.COLOURS[6], *figures.COLOURS), strict=False):
        axis.plot(points.at[first], getattr(points, name)[first], color=colour, linewidth=1.2, label=label)
    axis.legend(frameon=False, fontsize="small")


def courses(shown: Film, context: int, names: tuple[str, ...] = ()) -> Figure:
    """Entries of vectors that move, a row each, and episodes side by side: what happened, and what the model shows."""
    real, model = (x.reshape(*x.shape[:2], -1).astype(float) for x in (shown.real, shown.model))
    moving = np.flatnonzero(np.ptp(real[shown.alive], axis=0) > 1e-6)
    entries = (moving if len(moving) else np.arange(real.shape[-1]))[:ENTRIES]
    episodes = np.flatnonzero(shown.alive[:, 0])
    figure, axes = figures.new(len(episodes), len(entries), width=4.0, height=1.8, squeeze=False, sharey="row")
    for column, episode in zip(axes.T, episodes, strict=True):
        lasts = shown.alive[episode]
        for axis, entry in zip(column, entries, strict=True):
            axis.plot(np.flatnonzero(lasts), real[episode, lasts, entry], color=figures.COLOURS[0], label="real")
            axis.plot(np.flatnonzero(lasts), model[episode, lasts, entry], color=figures.COLOURS[1], label="model")
            axis.axvline(context - 0.5, linestyle="--", color="0.6", linewidth=1)
            if episode == episodes[0]:
                axis.set_ylabel(names[entry] if entry < len(names) else f"entry {entry}")
        column[-1].set_xlabel("frame of the episode")
    axes[0, 0].set_title("imagined right of the line", fontsize="medium")
    axes[0, 0].legend(frameon=False, fontsize="small")
    return figure


def film_frames(shown: Film, context: int) -> list[Any]:
    """Pictures of a film: an episode a row, true, the model's and their difference (grey: none) beside one another."""
    episodes = np.flatnonzero(shown.alive[:, 0])
    last = int(np.flatnonzero(shown.alive.any(axis=0))[-1]) + 1
    ahead = [f"imagined {t + 1 - context} ahead" if t >= context else "reconstructed" for t in range(last)]
    rows = []
    for episode in episodes:
        blank = ~shown.alive[episode]
        real, model = ([film.as_image(x) for x in side[episode, :last]] for side in (shown.real, shown.model))
        kinds = real, model, [difference(a, b) for a, b in zip(real, model, strict=True)]
        kinds = [[np.full_like(x, 255) if blank[t] else x for t, x in enumerate(kind)] for kind in kinds]
        labels = [f"frame {t}: true" for t in range(last)], ahead, ["difference"] * last
        rows.append(film.beside(*(film.column(*kind) for kind in zip(kinds, labels, strict=True))))
    return [_below(moment) for moment in zip(*rows, strict=True)]


def difference(real: np.ndarray, model: np.ndarray) -> np.ndarray:
    """Half of what the model shows too much (lighter than grey) or too little, ``uint8``."""
    return ((model.astype(int) - real.astype(int)) // 2 + MIDDLE).astype(np.uint8)


def _below(pictures: tuple) -> Any:
    from PIL import Image

    height = sum(p.height for p in pictures) + film.GAP * (len(pictures) - 1)
    whole, top = Image.new("RGB", (max(p.width for p in pictures), height), "white"), 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height + film.GAP
    return whole


def _text(axis: Axes, text: str) -> None:
    axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes)
