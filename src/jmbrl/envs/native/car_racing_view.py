"""What is seen in ``car_racing``: a square of the map, turned with the car, looked up pixel by pixel."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl.envs.native.car_racing_track import CELLS, GRASS, PATCHED, ROAD, VOID, cell_of
from jmbrl.types import Array

SIDE = 48.0  # m seen across, and from the bottom to the top
BEHIND = 8.0  # m from the picture's bottom to the car
LENGTH, WIDTH = 5.0, 2.4  # m, the car as drawn
CAR, TYRE, BLACK, WHITE = range(ROAD + 1, ROAD + 5)  # besides what the map holds

_COLOURS = {
    VOID: (0, 0, 0), GRASS: (102, 204, 102), PATCHED: (102, 230, 102), ROAD: (102, 102, 102),
    CAR: (204, 0, 0), TYRE: (0, 0, 0), BLACK: (0, 0, 0), WHITE: (255, 255, 255),
}  # fmt: skip


def palette(channels: int) -> np.ndarray:
    """``uint8[kinds, channels]``: Gymnasium's colours, or their brightness (0.299 R + 0.587 G + 0.114 B)."""
    colours = np.array([_COLOURS[kind] for kind in sorted(_COLOURS)], np.float64)
    if channels == 1:
        colours = np.round(colours @ np.array([[0.299], [0.587], [0.114]]))
    return colours.astype(np.uint8)


def pixel_places(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Metres ahead of the car of each row's middle, and metres to its left of each column's, ``float32[size]`` each."""
    middle = np.arange(size) + 0.5
    ahead = SIDE - middle * SIDE / size - BEHIND
    left = SIDE / 2 - middle * SIDE / size
    return ahead.astype(np.float32), left.astype(np.float32)


@functools.partial(jax.jit, static_argnames="size")
def look(ground: Array, position: Array, heading: Array, size: int) -> Array:
    """The kind of ground under each pixel, ``uint8[size, size]``: the nearest cell of a view turned with the car."""
    ahead, left = (jnp.asarray(a) for a in pixel_places(size))
    cos, sin = jnp.cos(heading), jnp.sin(heading)
    x = position[0] + ahead[:, None] * cos - left * sin
    y = position[1] + ahead[:, None] * sin + left * cos
    cell = cell_of(jnp.stack([x, y], -1))
    return jnp.ravel(ground).at[cell[..., 1] * CELLS + cell[..., 0]].get(mode="promise_in_bounds")


def draw_car(kinds: Array) -> Array:
    """The car, which is always at the same place of the picture: a rectangle with its tyres at the corners."""
    ahead, left = pixel_places(kinds.shape[0])
    ahead, left = np.abs(ahead[:, None]), np.abs(left)
    body = (ahead <= LENGTH / 2) & (left <= WIDTH / 2)
    tyre = body & (ahead > LENGTH / 4) & (left > WIDTH / 4)
    return jnp.where(tyre, jnp.uint8(TYRE), jnp.where(body, jnp.uint8(CAR), kinds))


def draw_bar(kinds: Array, fraction: Array) -> Array:
    """The lowest sixteenth in black, white from the left over ``fraction`` of the width."""
    size = kinds.shape[0]
    bar = jnp.where((jnp.arange(size) + 0.5) / size < fraction, jnp.uint8(WHITE), jnp.uint8(BLACK))
    rows = np.arange(size)[:, None] >= size - size // 16
    return jnp.where(rows, bar, kinds)
