"""The tracks of ``car_racing``: a random closed road, its tiles, and a map of the ground to take pictures from."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl.types import Array, Key

CHECKPOINTS = 12
RADIUS = 100.0  # m, of the farthest checkpoint
NEAREST = 0.5  # of RADIUS
TILES = 200
HALF_WIDTH = 40 / 6  # m, half the road, as in Gymnasium
FIELD = 160.0  # m from the middle to each edge of the playfield
CELLS = 256  # of the map, to each side
CELL = 2 * FIELD / CELLS  # m
PATCH = 16  # cells to a side of a grass patch
VOID, GRASS, PATCHED, ROAD = range(4)  # what a cell of the map may be

_PER_SEGMENT = 64  # points of the smooth curve between two checkpoints
# Painted points lie closer than a cell, also where a bend's outer side stretches them.
_ALONG, _ACROSS = 6, 17  # a tile, and over the road


class Track(NamedTuple):
    """``tiles``: middles as driven, ``float32[TILES, 2]`` m; ``ground``: ``uint8[CELLS, CELLS]`` by ``[y, x]``."""

    tiles: Array
    ground: Array


@jax.jit  # one program also where it is called outside of one, as are build, look, judge and move
def checkpoints(key: Key) -> Array:
    """Random points to pass, ``float32[CHECKPOINTS, 2]``, anticlockwise about the middle.

    ``alpha_c = 2 pi (c + u_c / 2) / 12`` at radius ``RADIUS U(1/2, 1)``. As in Gymnasium the first and the last lie
    straight at the outermost radius, so that every start is alike. Gymnasium's angles vary twice as much and its radii
    begin at a third, which its rule of limited turning smooths away; a curve through the points would fold there.
    """
    key_angle, key_radius = jax.random.split(key)
    noise = jax.random.uniform(key_angle, (CHECKPOINTS,), maxval=0.5).at[jnp.array([0, -1])].set(0.0)
    angle = 2 * math.pi * (jnp.arange(CHECKPOINTS) + noise) / CHECKPOINTS
    radius = RADIUS * jax.random.uniform(key_radius, (CHECKPOINTS,), minval=NEAREST)
    radius = radius.at[jnp.array([0, -1])].set(RADIUS)
    return jnp.stack([radius * jnp.cos(angle), radius * jnp.sin(angle)], -1)


def closed_curve(points: Array, per_segment: int = _PER_SEGMENT) -> Array:
    """The closed uniform Catmull-Rom curve through ``points[K, 2]``, ``[K * per_segment, 2]``.

    From ``b`` to ``c``, with ``a`` before and ``d`` after:
    ``(2b + (c-a) t + (2a-5b+4c-d) t^2 + (3b-a-3c+d) t^3) / 2``.
    """
    a, b, c, d = (jnp.roll(points, shift, 0)[:, None] for shift in (1, 0, -1, -2))
    t = (jnp.arange(per_segment) / per_segment)[:, None]
    curve = (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3) / 2
    return curve.reshape(-1, 2)


def equally_spaced(curve: Array, count: int) -> Array:
    """``count`` points along the closed polygon ``curve[K, 2]``, the same length apart, from its first point on."""
    closed = jnp.concatenate([curve, curve[:1]])
    length = jnp.concatenate([jnp.zeros(1), jnp.cumsum(jnp.linalg.norm(jnp.diff(closed, axis=0), axis=1))])
    at = jnp.arange(count) / count * length[-1]
    return jnp.stack([jnp.interp(at, length, closed[:, i]) for i in (0, 1)], -1)


def tangents(points: Array) -> Array:
    """Unit vectors along the closed line through ``points[K, 2]``, at each of them."""
    ahead = jnp.roll(points, -1, 0) - jnp.roll(points, 1, 0)
    return ahead / jnp.maximum(jnp.linalg.norm(ahead, axis=-1, keepdims=True), 1e-6)


def cell_of(place: Array) -> Array:
    """The cell ``int32[..., 2]``, ``(x, y)``, that holds a place in metres; beyond the map the nearest edge's."""
    return jnp.clip(jnp.floor((place + FIELD) / CELL).astype(jnp.int32), 0, CELLS - 1)


def paint(line: Array) -> Array:
    """The map: road within ``HALF_WIDTH`` of ``line[K, 2]`` (equally spaced), patched grass, a void at the edges."""
    along = tangents(line)
    left = jnp.stack([-along[:, 1], along[:, 0]], -1)
    offsets = jnp.linspace(-HALF_WIDTH, HALF_WIDTH, _ACROSS)
    cells = cell_of((line[:, None] + offsets[:, None] * left[:, None]).reshape(-1, 2))
    ground = jnp.asarray(_meadow()).ravel().at[cells[:, 1] * CELLS + cells[:, 0]].set(ROAD)
    return ground.reshape(CELLS, CELLS)


@jax.jit
def build(points: Array) -> Track:
    """The track along the smooth closed curve through ``points[K, 2]``; it begins at the first of them."""
    line = equally_spaced(closed_curve(points), TILES * _ALONG)
    return Track(line[::_ALONG], paint(line))


def _meadow() -> np.ndarray:
    patch = np.arange(CELLS) // PATCH
    ground = np.where((patch[:, None] + patch) % 2 == 0, PATCHED, GRASS).astype(np.uint8)
    # Pictures repeat the outermost cells beyond the map.
    ground[[0, -1]] = ground[:, [0, -1]] = VOID
    return ground
