"""How the states of a table lie in a picture, and what the table says of them there."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.models.transition_table import Outcomes, seen, successors
from jmbrl.types import Cells

STILL, SHORT = 0.1, 0.5  # cells; a shorter move counts as staying, or is drawn as long as that to be seen


class Chart(NamedTuple):
    """States in ``G`` cells. Of more than two axes a cell holds several states, ``B`` of them, side by side in number.

    Attributes:
      x, y: ``int[G]``, where the cells lie.
      width, height: cells from left to right, and from top to bottom.
      down: whether ``y`` counts downwards.
      labels: of the two axes, or none.
      grid: whether neighbours in the picture are neighbours in the world.
      known: ``bool[G, B]``, tried or arrived at.
      ends: ``bool[G, B]``, where most arrivals ended the episode.
      best: ``bool[G, B]``, those of them that pay most.
      moves: ``float32[S, A, 2]``, the expected change of ``(x, y)``; NaN where a pair was never tried.
    """

    x: np.ndarray
    y: np.ndarray
    width: int
    height: int
    down: bool
    labels: tuple[str, ...]
    grid: bool
    known: np.ndarray
    ends: np.ndarray
    best: np.ndarray
    moves: np.ndarray


def make_chart(cells: Cells, table: Outcomes, names: tuple[str, ...] = ()) -> Chart:
    """Lay out the states of a table: one axis is a row, states without axes fill a near-square row by row.

    Args:
      cells: how the states are numbered.
      table: the weights of a ``transition_table``.
      names: of the axes. Without them, or where the first is ``"row"``, the first axis points down and the second to
        the right; otherwise the first points to the right and the second up.

    Raises:
      ValueError: a table of another number of states, or a grid of another size.
    """
    shape = tuple(cells.shape)
    checks.same_shape("table", table.count.shape[:1], (cells.count,), "cells.count")
    if shape and math.prod(shape) != cells.count:
        raise ValueError(f"cells.shape must have a place for each of {cells.count} states, got {shape}")
    side = math.isqrt(cells.count - 1) + 1
    first, second = {0: (-(-cells.count // side), side), 1: (1, *shape)}.get(len(shape), shape[:2])
    down = len(shape) < 2 or not names or names[0] == "row"
    places = np.divmod(np.arange(first * second), second)
    x, y = places[::-1] if down else places
    size, depth = first * second, math.prod(shape[2:])

    tried = np.asarray(seen(table))
    arrived, ends, pays = _arrivals(table)
    best = ends & (pays >= pays.max(initial=-np.inf, where=ends) - 1e-6)
    known, ends, best = (_laid(of, size, depth) for of in (arrived | tried.any(axis=1), ends, best))
    labels = () if len(names) < 2 or len(shape) < 2 else (names[1], names[0]) if down else (names[0], names[1])
    moves = _moves(table, tried, x, y, depth)
    return Chart(x, y, int(x.max()) + 1, int(y.max()) + 1, down, labels, bool(shape), known, ends, best, moves)


def worth(chart: Chart, values: np.ndarray) -> np.ndarray:
    """The best value of each cell's known states that are no ends, ``[G]``; NaN where there is none."""
    best = _laid(values.max(axis=-1), *chart.known.shape)
    best = np.where(chart.known & ~chart.ends, best, -np.inf).max(axis=1)
    return np.where(np.isfinite(best), best, np.nan)


def decided(chart: Chart, values: np.ndarray) -> np.ndarray:
    """``bool[G, B]``: known states, no ends, whose actions are not all worth the same."""
    return chart.known & ~chart.ends & _laid(np.ptp(values, axis=-1) > 0, *chart.known.shape)


def greedy(chart: Chart, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each cell's greedy action in its best state, and the expected move.

    Returns:
      ``int[G]``, -1 where none is better than another; ``float[G, 2]`` in cells, cut or stretched to lengths of
      0.5 to 1: 0 where it stays (less than 0.1), NaN where there is nothing to draw.
    """
    choice = decided(chart, values)
    cell = np.arange(len(choice))
    best = np.where(choice, _laid(values.max(axis=-1), *choice.shape), -np.inf).argmax(axis=1)
    shown = choice[cell, best] & ~chart.ends.any(axis=1)  # an end has a mark of its own
    states = np.where(shown, cell * choice.shape[1] + best, 0)
    action = values[states].argmax(axis=1)
    move = chart.moves[states, action]
    length = np.hypot(*move.T)[:, None]
    move = np.where(length < STILL, 0.0, move * np.clip(length, SHORT, 1.0) / np.maximum(length, STILL))
    return np.where(shown, action, -1), np.where(shown[:, None], move, np.nan)


def trail(chart: Chart, pairs: np.ndarray, length: int) -> np.ndarray:
    """How recently each cell was updated, ``float[G]``: 1 by the last of ``pairs``, less before, 0 from ``length`` on.

    Args:
      pairs: ``int[N]``, numbers ``state * actions + action`` in the order of their updates; negative: none.
      length: at least 1.
    """
    out = np.zeros(len(chart.known))
    last = pairs[-length:]
    weight = np.arange(length - len(last) + 1, length + 1) / length
    cell = last // (chart.moves.shape[1] * chart.known.shape[1])
    np.maximum.at(out, cell[last >= 0], weight[last >= 0])
    return out


def _arrivals(table: Outcomes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every state: was it arrived at, did most arrivals end the episode, and what did they pay on average."""
    state, count, reward, ended = (np.asarray(x).ravel() for x in table)
    size = table.count.shape[0]
    arrived, over, paid = (np.bincount(state, weights=count * x, minlength=size) for x in (1.0, ended, reward))
    return arrived > 0, over > arrived / 2, paid / np.maximum(arrived, 1e-30)


def _moves(table: Outcomes, tried: np.ndarray, x: np.ndarray, y: np.ndarray, depth: int) -> np.ndarray:
    after = successors(table, *jnp.indices(tried.shape))
    place = np.stack([x, y], axis=1)
    change = place[np.asarray(after.state) // depth] - place[np.arange(len(tried)) // depth][:, None, None]
    expected = np.sum(np.asarray(after.chance)[..., None] * change, axis=2)
    return np.where(tried[..., None], expected, np.nan).astype(np.float32)


def _laid(of: np.ndarray, cells: int, depth: int) -> np.ndarray:
    """``[S]`` as ``[G, B]``, with zeros where there are more places than states."""
    return np.pad(of, (0, cells * depth - len(of))).reshape(cells, depth)
