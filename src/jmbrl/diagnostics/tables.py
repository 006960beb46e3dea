"""Pictures of tables: what states are worth, where the greedy policy leads, and how planning fills the values in."""

from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from jmbrl import checks
from jmbrl.diagnostics import chart_figures as drawing
from jmbrl.diagnostics.chart import make_chart, trail
from jmbrl.diagnostics.planning_order import random_order, residual, sweeping_order, useful, values_after
from jmbrl.models.transition_table import Outcomes
from jmbrl.types import Cells, Env, Key

NAMES = ("prioritized sweeping", "random order (Dyna-Q)")
DPI = 80  # of the films
RATIO = 20  # random updates are followed for so many times as long as sweeping takes


def value_map(
    cells: Cells,
    values: Any,
    table: Outcomes,
    *,
    title: str = "",
    names: tuple[str, ...] = (),
    start: int | None = None,
) -> Figure:
    r"""A map of :math:`\max_a Q(s, a)`, with arrows to where the model expects the greedy actions to lead.

    A dot stays where it is. There is no arrow where all actions are worth the same or the greedy one was never tried.
    Of more than two axes the best state of each cell is shown. States that do not lie on a grid are laid out row by
    row, with the greedy action's number instead of an arrow.

    Args:
      cells: how the states are numbered.
      values: ``[S, A]``.
      table: the weights of a ``transition_table`` over the same pairs.
      title: of the figure.
      names: of the axes, as in ``make_chart``.
      start: a state to be marked.

    Raises:
      ValueError: values or a table of another shape.
    """
    chart = make_chart(cells, table, names)
    values = np.asarray(values)
    checks.same_shape("values", values.shape, chart.moves.shape[:-1], "the table")
    figure, (axis,) = drawing.new_figure(chart, 1)
    norm = drawing.shared_range(chart, [values[None]])
    drawing.panel(axis, chart, norm, start)(values, np.zeros(len(chart.known)))
    axis.set_title("\n".join(filter(None, (title, _reduced(cells, names)))), fontsize="medium")
    drawing.finish(figure, np.array([axis]), chart, norm, film=False)
    return figure


def planning_frames(
    key: Key,
    cells: Cells,
    table: Outcomes,
    *,
    gamma: float,
    initial: float = 0.0,
    threshold: float = 1e-4,
    updates: int = 200_000,
    frames: int = 72,
    names: tuple[str, ...] = (),
    start: int | None = None,
) -> list:
    """How prioritized sweeping and random order fill in the values of one learned table, side by side, from nothing.

    The first frames are one update apart, the later ones more and more. It ends when nothing changes by more than
    ``threshold`` in either, at the latest after ``updates`` or 20 times what sweeping needed.

    Args:
      key: of the random order.
      cells, table, names, start: as in ``value_map``.
      gamma, initial, threshold: as in ``sweeping_order``.
      updates: at most, at least 1.
      frames: at most, at least 2.

    Returns:
      Images of PIL, with one palette; a single one where there is nothing to plan (no reward is known yet).

    Raises:
      ValueError: a number outside its range, or a table of another shape.
    """
    checks.integer("frames", frames, 2)
    chart = make_chart(cells, table, names)
    sweeping = sweeping_order(table, gamma=gamma, initial=initial, threshold=threshold, updates=updates)
    most = max(1, min(updates, RATIO * useful(sweeping, threshold)))
    randomly = random_order(key, table, gamma=gamma, initial=initial, updates=most)
    orders = jax.device_get([sweeping, randomly])
    lengths = [useful(order, threshold) for order in orders]
    counts = frame_counts(max(lengths), frames)
    nothing = np.full(chart.moves.shape[:-1], initial, np.float32)
    films = [values_after(order, nothing, counts) for order in orders]
    done = [residual(film[-1], table, gamma) <= threshold for film in films]

    figure, axes = drawing.new_figure(chart, 2)
    figure.set_dpi(DPI)
    norm = drawing.shared_range(chart, films)
    panels = [drawing.panel(axis, chart, norm, start) for axis in axes]
    drawing.finish(figure, axes, chart, norm, film=True)
    recent = max(4, len(chart.known) // 8)
    images = []
    for i, count in enumerate(counts):
        figure.suptitle(f"update {count:,} of {counts[-1]:,}" if counts[-1] else "no reward is known yet")
        for axis, name, draw, film, order, length, finished in zip(
            axes, NAMES, panels, films, orders, lengths, done, strict=True
        ):
            over = f": done after {length:,}" if finished and 0 < length <= count else ""
            axis.set_title(name + over, fontsize="medium")
            draw(film[i], trail(chart, order.pairs[:count], recent))
        images.append(drawing.as_image(figure))
        figure.set_layout_engine("none")  # as it is; laying out again would take most of the time
    return drawing.one_palette(images)


def frame_counts(total: int, frames: int) -> list[int]:
    """Numbers of updates from 0 to ``total``, ``frames`` at most: one apart at first, then in a constant ratio."""
    if total == 0:
        return [0]
    return [0, *np.unique(np.geomspace(1, total, frames - 1).round().astype(int)).tolist()]


def start_of(env: Env, tries: int = 8) -> int | None:
    """The state in which episodes begin, where it is always the same; None on the host, whose resets are real."""
    if env.cells is None or env.spec.host:
        return None
    _, obs = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), tries))
    found = np.unique(np.asarray(jax.vmap(env.cells.index)(obs)))
    return int(found[0]) if len(found) == 1 else None


def _reduced(cells: Cells, names: tuple[str, ...]) -> str:
    """What a picture of more than two axes leaves out."""
    if len(cells.shape) < 3:
        return ""
    rest = [names[i] if i < len(names) else f"of {n}" for i, n in enumerate(cells.shape)][2:]
    return f"of every cell its best {', '.join(rest)}"
