"""Small pictures of an observation, drawn with Pillow: ``uint8[H, W, 3]`` NumPy arrays."""

import itertools
import math
from typing import Any

import numpy as np

WIDTH, HEIGHT = 240, 160
_SCALE = 4  # draw large, then shrink: smooth edges
_WHITE, _GREY, _INK, _RED, _BLUE = (255, 255, 255), (200, 200, 205), (40, 40, 48), (214, 69, 65), (52, 101, 164)


def image(obs: Any) -> np.ndarray:
    """An image observation ``uint8[H, W, 1 or 3]`` itself, enlarged a whole number of times to at most 256 pixels."""
    pixels = np.asarray(obs, np.uint8)
    times = max(1, 256 // max(pixels.shape[:2]))
    return pixels.repeat(times, 0).repeat(times, 1).repeat(3 // pixels.shape[2], 2)


def pendulum(obs: Any) -> np.ndarray:
    """A pendulum from ``[cos theta, sin theta, ...]``; ``theta = 0`` is upright."""
    cos, sin = (float(v) for v in np.asarray(obs)[:2])
    canvas = _Canvas(metres=2.6)
    canvas.line((0.0, 0.0), (-sin, cos), 0.16, _RED)
    canvas.dot((0.0, 0.0), 0.06, _INK)
    return canvas.pixels()


def cartpole_swingup(obs: Any) -> np.ndarray:
    """A cart on its rail from ``[sin theta, cos theta, x, ...]``; ``theta = 0`` hangs down, the dot is the goal."""
    sin, cos, x = (float(v) for v in np.asarray(obs)[:3])
    canvas = _Canvas(metres=3.6)
    canvas.line((-2.5, 0.0), (2.5, 0.0), 0.03, _GREY)
    canvas.dot((0.0, 0.6), 0.08, _GREY)
    canvas.box((x, 0.0), 0.3, 0.16, _BLUE)
    canvas.line((x, 0.0), (x - 0.6 * sin, -0.6 * cos), 0.08, _RED)
    return canvas.pixels()


def cartpole(obs: Any) -> np.ndarray:
    """A cart from ``[x, xdot, theta, ...]`` with its pole (1 m); ``theta = 0`` is upright."""
    x, _, angle = (float(v) for v in np.asarray(obs)[:3])
    canvas = _Canvas(metres=3.2)
    canvas.line((-2.4, 0.0), (2.4, 0.0), 0.03, _GREY)
    canvas.box((x, 0.0), 0.4, 0.2, _BLUE)
    canvas.line((x, 0.0), (x + math.sin(angle), math.cos(angle)), 0.08, _RED)
    return canvas.pixels()


def mountain_car(obs: Any) -> np.ndarray:
    """A car in its valley from ``[position, velocity]``; the dot is Gym's goal."""
    x = float(np.asarray(obs)[0])
    height = lambda x: 0.45 * math.sin(3 * x) - 0.1  # noqa: E731
    canvas = _Canvas(metres=1.4)
    middle = 0.3  # of the track, from -1.2 to 0.6, moved to the picture's
    points = [(x + middle, height(x)) for x in np.linspace(-1.2, 0.6, 60)]
    for start, end in itertools.pairwise(points):
        canvas.line(start, end, 0.015, _GREY)
    canvas.dot((0.45 + middle, height(0.45)), 0.03, _GREY)
    canvas.dot((x + middle, height(x) + 0.05), 0.05, _BLUE)
    return canvas.pixels()


def acrobot(obs: Any) -> np.ndarray:
    """Two links of 1 m from ``[cos1, sin1, cos2, sin2, ...]``; all zero angles hang, the line is Gym's goal."""
    cos1, sin1, cos2, sin2 = (float(v) for v in np.asarray(obs)[:4])
    elbow = (sin1, -cos1)
    tip = (elbow[0] + sin1 * cos2 + cos1 * sin2, elbow[1] - (cos1 * cos2 - sin1 * sin2))
    canvas = _Canvas(metres=4.6)
    canvas.line((-2.5, 1.0), (2.5, 1.0), 0.02, _GREY)
    canvas.line((0.0, 0.0), elbow, 0.16, _BLUE)
    canvas.line(elbow, tip, 0.16, _RED)
    canvas.dot((0.0, 0.0), 0.06, _INK)
    return canvas.pixels()


class _Canvas:
    """A white picture ``metres`` tall, or as wide as needed, with the origin in its middle."""

    def __init__(self, metres: float) -> None:
        from PIL import Image, ImageDraw

        self._image = Image.new("RGB", (WIDTH * _SCALE, HEIGHT * _SCALE), _WHITE)
        self._draw = ImageDraw.Draw(self._image)
        self._unit = HEIGHT * _SCALE / metres

    def _at(self, point: tuple[float, float]) -> tuple[float, float]:
        x, y = (v if math.isfinite(v) else 0.0 for v in point)
        return WIDTH * _SCALE / 2 + x * self._unit, HEIGHT * _SCALE / 2 - y * self._unit

    def line(self, start: tuple, end: tuple, thickness: float, colour: tuple) -> None:
        width = max(1, round(thickness * self._unit))
        self._draw.line([self._at(start), self._at(end)], fill=colour, width=width)
        for point in (start, end):
            self.dot(point, thickness / 2, colour)

    def dot(self, middle: tuple, radius: float, colour: tuple) -> None:
        x, y = self._at(middle)
        r = radius * self._unit
        self._draw.ellipse([x - r, y - r, x + r, y + r], fill=colour)

    def box(self, middle: tuple, width: float, height: float, colour: tuple) -> None:
        x, y = self._at(middle)
        w, h = width * self._unit / 2, height * self._unit / 2
        self._draw.rectangle([x - w, y - h, x + w, y + h], fill=colour)

    def pixels(self) -> np.ndarray:
        return np.asarray(self._image.resize((WIDTH, HEIGHT)), np.uint8)
