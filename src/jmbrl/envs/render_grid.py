"""Small pictures of worlds with finitely many states: ``uint8[H, W, 3]`` NumPy arrays."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

WIDTH = 240
_SCALE = 4  # a workspace is drawn large, then shrunk: smooth edges
_WHITE, _LINE, _WALL, _LIGHTER = (255, 255, 255), (228, 228, 232), (70, 70, 80), (178, 178, 188)
_START, _GOAL, _AGENT, _WIND = (198, 220, 246), (176, 224, 178), (214, 69, 65), (150, 190, 235)
_FIRST, _LAST = (52, 101, 164), (60, 150, 80)


def maze(walls: np.ndarray, changing: np.ndarray, start: tuple[int, int], goals: np.ndarray) -> Callable:
    """``(obs) -> image`` of a maze from ``[row, column]``: walls that come or go are lighter, the dot is the agent.

    ``walls, changing, goals``: ``bool[rows, columns]``.
    """
    colours = np.full((*walls.shape, 3), _WHITE, np.uint8)
    for where, colour in ((walls, _WALL), (changing, _LIGHTER), (goals, _GOAL)):
        colours[where] = colour
    colours[start] = _START
    return _with_agent(colours)


def windy(wind: Sequence[int], start: tuple[int, int], goals: np.ndarray) -> Callable:
    """``(obs) -> image`` of a grid without walls: the bluer a column, the stronger its wind."""
    strength = np.asarray(wind)[:, None] / max(*wind, 1)
    columns = np.asarray(_WHITE) + strength * (np.asarray(_WIND) - np.asarray(_WHITE))
    colours = np.broadcast_to(columns, (*goals.shape, 3)).astype(np.uint8)
    colours[goals] = _GOAL
    colours[start] = _START
    return _with_agent(colours)


def _with_agent(colours: np.ndarray) -> Callable:
    side = max(2, WIDTH // colours.shape[1] // 2 * 2)  # of a cell in pixels; even, as video encoders want
    background = colours.repeat(side, axis=0).repeat(side, axis=1)
    if side >= 8:
        background[::side] = background[:, ::side] = _LINE
    middle = np.arange(side) - (side - 1) / 2
    disc = middle[:, None] ** 2 + middle**2 <= (0.35 * side) ** 2

    def render(obs: Any) -> np.ndarray:
        place = np.nan_to_num(np.asarray(obs, float))  # a model's dream may be anywhere
        row, column = np.clip(np.round(place), 0, np.asarray(colours.shape[:2]) - 1).astype(int)
        image = background.copy()
        image[row * side : (row + 1) * side, column * side : (column + 1) * side][disc] = _AGENT
        return image

    return render


def rod(obstacles: Sequence, length: float, goal: np.ndarray) -> Callable:
    """``(obs) -> image`` of a rod at ``[x, y, angle]``; the goal is drawn in green, a rod's far end has a dot."""

    def render(obs: Any) -> np.ndarray:
        return workspace(obstacles, length, [(goal, _LAST), (np.nan_to_num(np.asarray(obs, float)), _AGENT)], WIDTH)

    return render


def rod_path(obstacles: Sequence, length: float, path: np.ndarray, size: int) -> np.ndarray:
    """The map with every rod of a path ``[T, 3]``, from blue to green; ``size``: pixels to each side."""
    share = np.linspace(0.0, 1.0, len(path))[:, None]
    colours = (1 - share) * np.asarray(_FIRST) + share * np.asarray(_LAST)
    shown = [(place, tuple(colour.astype(int).tolist())) for place, colour in zip(path, colours, strict=True)]
    return workspace(obstacles, length, shown, size)


def workspace(obstacles: Sequence, length: float, rods: Sequence[tuple], size: int) -> np.ndarray:
    """The unit square, ``y`` upwards, with its obstacles and rods ``((x, y, angle), colour)``."""
    from PIL import Image, ImageDraw

    side = size * _SCALE
    image = Image.new("RGB", (side, side), _WHITE)
    draw = ImageDraw.Draw(image)

    def at(point: Sequence[float]) -> tuple[float, float]:
        return float(point[0]) * side, (1.0 - float(point[1])) * side

    for polygon in obstacles:
        draw.polygon([at(point) for point in polygon], fill=_WALL)
    for (x, y, angle), colour in rods:
        half = length / 2 * np.array([np.cos(angle), np.sin(angle)])
        tail, head = at((x - half[0], y - half[1])), at((x + half[0], y + half[1]))
        draw.line([tail, head], fill=colour, width=max(1, side // 120))
        radius = side / 80
        draw.ellipse([head[0] - radius, head[1] - radius, head[0] + radius, head[1] + radius], fill=colour)
    draw.rectangle([0, 0, side - 1, side - 1], outline=_WALL, width=_SCALE)
    return np.asarray(image.resize((size, size)), np.uint8)
