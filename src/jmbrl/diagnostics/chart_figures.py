"""Drawing a chart of states: cells in the colour of their value, arrows, marks, and films of them."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text

from jmbrl.diagnostics import figures
from jmbrl.diagnostics.chart import Chart, decided, greedy, worth

NEVER, GOAL, END, EQUAL, LATEST = "#3A3A3A", figures.COLOURS[2], figures.COLOURS[3], "#FFFFFF", figures.COLOURS[1]
SHADES = LinearSegmentedColormap.from_list(
    "values", ["#DCEBF8", "#A9D2F0", "#56B4E9", "#2F8AC4"]
)  # black is seen on it
SIDE = 4.6  # inches of a chart's longer side
RULED = 40  # cells along it at most that are parted by lines
LEGIBLE = 24  # and that bear text
PALETTE = 64  # colours of a film


def new_figure(chart: Chart, panels: int) -> tuple[Figure, np.ndarray]:
    """A figure for so many copies of a chart, and its axes."""
    scale = SIDE / max(chart.width, chart.height)
    width, height = max(chart.width * scale, 2.0), max(chart.height * scale, 0.6)
    figure, axes = figures.new(panels, width=width + 0.4 + 0.6 / panels, height=height + 1.1)
    return figure, np.atleast_1d(axes)


def panel(axis: Axes, chart: Chart, norm: Normalize, start: int | None) -> Callable:
    """Draw what stays as it is; returns ``draw(values[S, A], recent[G])`` for what does not."""
    image = axis.imshow(np.ones((chart.height, chart.width, 3)), origin="upper" if chart.down else "lower")
    _frame(axis, chart)
    _marks(axis, chart, start)
    latest = PolyCollection([], facecolor=LATEST, linewidth=0, zorder=2)
    axis.add_collection(latest, autolim=False)
    policy = _arrows(axis, chart) if chart.grid else _numbers(axis, chart)
    middle = np.stack([chart.x, chart.y], axis=1)
    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])

    def draw(values: np.ndarray, recent: np.ndarray) -> None:
        image.set_data(paint(chart, values, norm))
        now = recent > 0
        latest.set_verts(list(middle[now, None] + recent[now, None, None] * corners))
        policy(*greedy(chart, values))

    return draw


def paint(chart: Chart, values: np.ndarray, norm: Normalize) -> np.ndarray:
    """The colours of the cells, ``float[height, width, 3]``."""
    colours = SHADES(norm(np.nan_to_num(worth(chart, values))))[:, :3]
    colours[~decided(chart, values).any(axis=1)] = to_rgb(EQUAL)
    colours[~chart.known.any(axis=1)] = to_rgb(NEVER)
    colours[chart.ends.any(axis=1)] = to_rgb(END)
    colours[chart.best.any(axis=1)] = to_rgb(GOAL)
    colours[len(values) :] = to_rgb(EQUAL)  # places beyond the last state
    image = np.empty((chart.height, chart.width, 3))
    image[chart.y, chart.x] = colours
    return image


def shared_range(chart: Chart, films: Sequence[np.ndarray]) -> Normalize:
    """The range of what is drawn as a value in any frame of ``films[F, S, A]``."""
    shown = np.concatenate([worth(chart, x)[decided(chart, x).any(axis=1)] for film in films for x in film])
    low, high = shown.min(initial=np.inf), shown.max(initial=-np.inf)
    return Normalize(low, high) if low < high else Normalize(min(low, 0.0), max(high, 1.0))


def finish(figure: Figure, axes: np.ndarray, chart: Chart, norm: Normalize, film: bool) -> None:
    """Colour bar and a legend of what there is."""
    bar = axes[-1].inset_axes((1.03, 0.0, 0.03, 1.0))
    figure.colorbar(ScalarMappable(norm, SHADES), cax=bar, label="value of the best action")
    bar.tick_params(labelsize="small")
    legend = (
        (NEVER, "never visited", not np.any(chart.known, axis=1)[: len(chart.moves)].all()),
        (GOAL, "goal", chart.best.any()),
        (END, "end that pays less", (chart.ends & ~chart.best).any()),
        (EQUAL, "all actions equal", True),
        (LATEST, "last updates", film),
    )
    patches = [Patch(facecolor=colour, edgecolor="0.7", label=label) for colour, label, there in legend if there]
    columns = len(patches) if figure.get_figwidth() > 5.5 else 2
    figure.legend(handles=patches, loc="outside lower center", ncols=columns, frameon=False, fontsize="small")


def as_image(figure: Figure) -> Any:
    """A figure as an image of PIL."""
    from PIL import Image

    canvas = cast(FigureCanvasAgg, figure.canvas)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def one_palette(images: list) -> list:
    """The same colours for all, so that a GIF neither flickers nor repeats what does not change."""
    from PIL import Image

    width, height = images[0].size
    chosen = images[:: max(1, len(images) // 4)]
    sample = Image.new("RGB", (width, height * len(chosen)))
    for i, image in enumerate(chosen):
        sample.paste(image, (0, i * height))
    palette = sample.quantize(PALETTE, dither=Image.Dither.NONE)
    return [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]


def _frame(axis: Axes, chart: Chart) -> None:
    axis.grid(False)
    axis.set(xticks=(), yticks=())
    axis.spines[:].set(visible=True, color="0.8")
    if max(chart.width, chart.height) <= RULED:
        axis.vlines(np.arange(1, chart.width) - 0.5, -0.5, chart.height - 0.5, color="0.8", linewidth=0.6)
        axis.hlines(np.arange(1, chart.height) - 0.5, -0.5, chart.width - 0.5, color="0.8", linewidth=0.6)
    if chart.labels:
        axis.set_xlabel(chart.labels[0], fontsize="small", color="0.4")
        axis.set_ylabel(chart.labels[1], fontsize="small", color="0.4")


def _marks(axis: Axes, chart: Chart, start: int | None) -> None:
    """The ends, and the start in the upper left corner of its cell."""
    ends = np.flatnonzero(chart.ends.any(axis=1)) if max(chart.width, chart.height) <= LEGIBLE else []
    for cell in ends:
        mark = "G" if chart.best[cell].any() else "x"
        _write(axis, chart, chart.x[cell], chart.y[cell], mark, color="white", fontweight="bold")
    if start is not None:
        cell = start // chart.known.shape[1]
        x, y = chart.x[cell] - 0.3, chart.y[cell] + (-0.3 if chart.down else 0.3)
        _write(axis, chart, x, y, "S", part=0.3, color="0.3", fontweight="bold")


def _arrows(axis: Axes, chart: Chart) -> Callable:
    nowhere = np.ma.masked_all(len(chart.x))
    # In cells, at most 0.7 long; a dot where it stays.
    size: dict[str, Any] = {"scale_units": "xy", "scale": 1 / 0.7, "units": "xy", "width": 0.06, "minlength": 2.5}
    head: dict[str, Any] = {"headwidth": 3.5, "headlength": 3.5, "headaxislength": 3.2}
    arrows = axis.quiver(chart.x, chart.y, nowhere, nowhere, pivot="mid", angles="xy", zorder=3, **size, **head)
    return lambda action, move: arrows.set_UVC(*np.ma.masked_invalid(move.T))


def _numbers(axis: Axes, chart: Chart) -> Callable:
    """Numbers of actions, where there is room for them."""
    if max(chart.width, chart.height) > LEGIBLE:
        return lambda action, move: None
    labels = [_write(axis, chart, x, y, "", zorder=3) for x, y in zip(chart.x, chart.y, strict=True)]

    def write(action: np.ndarray, move: np.ndarray) -> None:
        del move
        for label, chosen in zip(labels, action, strict=True):
            label.set_text(str(chosen) if chosen >= 0 else "")

    return write


def _write(axis: Axes, chart: Chart, x: Any, y: Any, text: str, part: float = 0.45, **options: Any) -> Text:
    """Text of about ``part`` of a cell's size."""
    points = np.clip(part * 72 * SIDE / max(chart.width, chart.height), 6.0, 18.0)
    return axis.text(x, y, text, ha="center", va="center_baseline", fontsize=points, **options)
