"""Pictures of tables: where things lie and point, the order of updates worked out by hand, how long films are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from jmbrl import diagnostics
from jmbrl.diagnostics import chart, chart_figures, planning_order, tables
from jmbrl.models.transition_table import Outcomes
from jmbrl.types import Cells

KEY = jax.random.key(0)


def numbering(*shape, count=0):
    size = int(np.prod(shape)) if shape else count
    return Cells(size, lambda obs: obs, lambda i: i, shape)


def table(states, actions, rows, kept=1):
    """From ``(state, action, next state, reward, ended, times)``."""
    found = [np.zeros((states, actions, kept), kind) for kind in (np.int32, *[np.float32] * 3)]
    for state, action, following, reward, ended, times in rows:
        slot = np.flatnonzero(found[1][state, action] == 0)[0]
        for array, value in zip(found, (following, times, reward, ended), strict=True):
            array[state, action, slot] = value
    return Outcomes(*map(jnp.asarray, found))


def corridor(length, back=False):
    """To the right pays 1 on leaving the last of ``length`` states; actions 0 left, 1 right."""
    rows = [(s, 1, s + 1, float(s == length - 1), s == length - 1, 1) for s in range(length)]
    return table(length + 1, 2, rows + [(s, 0, max(s - 1, 0), 0.0, False, 1) for s in range(length) if back])


# Two rows of three states:  0 1 2   0 goes down to 3, 1 moves by a wind to 5, 2 slips between 1 and 5, 3 stays.
#                            3 4 5   4 has equal values; its greedy action would be the one that was not tried: 5.
SMALL = [
    (0, 1, 3, 0.0, 0.0, 1),
    (1, 0, 5, 0.0, 0.0, 1),
    (2, 0, 1, 0.0, 0.0, 3),
    (2, 0, 5, 0.0, 0.0, 1),
    (3, 0, 3, 0.0, 0.0, 1),
    (4, 0, 1, 0.0, 0.0, 1),
    (5, 0, 4, 0.0, 0.0, 1),
]
VALUES = np.array([[0.0, 1.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0], [5.0, 5.0], [0.0, 6.0]], np.float32)
DIAGONAL = np.sqrt(0.5)
SLIP = np.array([-0.75, 0.25])
EXPECTED = np.array([[0, 1], [DIAGONAL, DIAGONAL], SLIP, [0, 0], [np.nan] * 2, [np.nan] * 2])


def test_arrows_point_where_the_model_expects_to_go():
    laid = chart.make_chart(numbering(2, 3), table(6, 2, SMALL, kept=2), ("row", "col"))
    action, move = chart.greedy(laid, VALUES)
    np.testing.assert_array_equal(action, [1, 0, 0, 0, -1, 1])
    np.testing.assert_allclose(move, EXPECTED, atol=1e-6)  # x to the right, y downwards
    assert (laid.width, laid.height, laid.down, laid.labels) == (3, 2, True, ("col", "row"))


def test_named_axes_point_to_the_right_and_up():
    laid = chart.make_chart(numbering(2, 3), table(6, 2, SMALL, kept=2), ("x", "y"))
    _, move = chart.greedy(laid, VALUES)
    np.testing.assert_allclose(move, EXPECTED[:, ::-1], atol=1e-6)  # the first axis is x now
    assert (laid.width, laid.height, laid.down, laid.labels) == (2, 3, False, ("x", "y"))
    np.testing.assert_array_equal(laid.y, [0, 1, 2, 0, 1, 2])


def test_short_moves_are_drawn_long_enough_to_be_seen():
    rows = [(0, 0, 1, 0.0, 0.0, 2), (0, 0, 0, 0.0, 0.0, 8), (1, 0, 0, 0.0, 0.0, 1), (1, 0, 1, 0.0, 0.0, 19)]
    laid = chart.make_chart(numbering(1, 2), table(2, 2, rows, kept=2))
    _, move = chart.greedy(laid, np.array([[1.0, 0.0], [1.0, 0.0]]))
    np.testing.assert_allclose(move, [[0.5, 0.0], [0.0, 0.0]], atol=1e-6)  # 0.2 cells; 0.05 cells


def test_of_three_axes_the_best_state_of_each_cell_is_shown():
    rows = [(0, 0, 2, 0.0, 0.0, 1), (1, 0, 4, 0.0, 0.0, 1), (2, 0, 2, 0.0, 0.0, 1), (5, 0, 7, 1.0, 1.0, 1)]
    laid = chart.make_chart(numbering(2, 2, 2), table(8, 2, rows), ("x", "y", "angle"))
    values = np.zeros((8, 2))
    values[:6, 0], values[2, 1] = [1, 3, -1, 9, 0, 2], -2
    np.testing.assert_array_equal(chart.worth(laid, values), [3, -1, 2, np.nan])  # 3 and 6 are unknown, 7 is an end
    action, move = chart.greedy(laid, values)
    np.testing.assert_array_equal(action, [0, 0, 0, -1])
    np.testing.assert_allclose(move, [[1, 0], [0, 0], [0, 1], [np.nan] * 2])
    np.testing.assert_array_equal(laid.best, [[False, False]] * 3 + [[False, True]])


def test_colours_tell_walls_ends_and_undecided_states_apart():
    rows = [(0, 0, 1, 0.0, 0.0, 1), (0, 1, 3, -1.0, 1.0, 1), (1, 0, 4, 1.0, 1.0, 1)]
    laid = chart.make_chart(numbering(5), table(5, 2, rows))
    values = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    image = chart_figures.paint(laid, values, chart_figures.shared_range(laid, [values[None]]))
    wanted = [chart_figures.EQUAL, None, chart_figures.NEVER, chart_figures.END, chart_figures.GOAL]
    for colour, name in zip(image[0], wanted, strict=True):
        assert name is None or tuple(colour) == pytest.approx(to_rgb(name))
    np.testing.assert_allclose(image[0, 1], chart_figures.SHADES(1.0)[:3])


def test_states_without_a_grid_lie_row_by_row_and_bear_numbers():
    learned = table(5, 2, [(s, 1, s + 1, 0.0, 0.0, 1) for s in range(4)])
    figure = diagnostics.value_map(numbering(count=5), np.tile([0.0, 1.0], (5, 1)), learned, start=2)
    texts = {text.get_position(): text.get_text() for text in figure.axes[0].texts if text.get_text()}
    assert texts == {(0, 0): "1", (1, 0): "1", (2, 0): "1", (0, 1): "1", (1, 1): "1", (1.7, -0.3): "S"}


def test_sweeping_works_backwards_from_the_goal():
    order = planning_order.sweeping_order(corridor(6), gamma=0.5, updates=9)
    np.testing.assert_array_equal(order.pairs[:6] // 2, [5, 4, 3, 2, 1, 0])
    np.testing.assert_array_equal(order.pairs[6:], -1)
    np.testing.assert_array_equal(order.change, [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 0, 0, 0])
    assert planning_order.useful(order) == 6
    assert planning_order.useful(order, threshold=0.1) == 4


def test_sweeping_takes_the_largest_error_first_and_every_pair_once():
    # With a way back: after 2R and 1R both 0R and 2L promise 1/4 (the lower number first), then 0L and 1L 1/8.
    learned = corridor(3, back=True)
    order = planning_order.sweeping_order(learned, gamma=0.5, updates=8)
    np.testing.assert_array_equal(order.pairs, [5, 3, 1, 4, 0, 2, -1, -1])
    stages = planning_order.values_after(order, np.zeros((4, 2)), [0, 2, 6, 8])
    np.testing.assert_array_equal(stages[1], [[0, 0], [0, 1 / 2], [0, 1], [0, 0]])
    final = [[1 / 8, 1 / 4], [1 / 8, 1 / 2], [1 / 4, 1], [0, 0]]
    np.testing.assert_array_equal(stages[2:], [final, final])
    assert planning_order.residual(stages[1], learned, 0.5) == 0.25
    assert planning_order.residual(stages[2], learned, 0.5) == 0.0


def test_sweeping_uses_expected_updates_and_queues_every_predecessor():
    # 0 leads to 1 in three of four times, else stays; 1 ends with 1: Q(0) = 3/4 * 1/2 + 1/4 * 1/2 * Q(0) = 3/7.
    learned = table(3, 1, [(0, 0, 1, 0.0, 0.0, 3), (0, 0, 0, 0.0, 0.0, 1), (1, 0, 2, 1.0, 1.0, 1)], kept=2)
    order = planning_order.sweeping_order(learned, gamma=0.5, threshold=1e-6, updates=30)
    assert order.pairs[0] == 1
    assert set(order.pairs[1 : planning_order.useful(order, 1e-6)].tolist()) == {0}
    final = planning_order.values_after(order, np.zeros((3, 1)), [30])[0]
    np.testing.assert_allclose(final[:, 0], [3 / 7, 1, 0], atol=1e-6)


def test_random_order_picks_tried_pairs_evenly_and_needs_longer():
    learned = corridor(6)
    order = planning_order.random_order(KEY, learned, gamma=0.5, updates=600)
    states, actions = np.divmod(np.asarray(order.pairs), 2)
    assert set(actions) == {1}
    assert np.abs(np.bincount(states, minlength=6) - 100).max() < 40  # 4.4 standard deviations
    assert states[:6].tolist() != [5, 4, 3, 2, 1, 0]
    assert planning_order.useful(order) > 6
    final = planning_order.values_after(order, np.zeros((7, 2)), [600])[0]
    np.testing.assert_allclose(final[:6, 1], 0.5 ** np.arange(5, -1, -1.0))


def test_the_trail_fades_from_the_last_update():
    laid = chart.make_chart(numbering(1, 7), corridor(6))
    np.testing.assert_allclose(chart.trail(laid, np.array([1, 11, 9, 5]), 4), [0.25, 0, 1, 0, 0.75, 0.5, 0])
    np.testing.assert_allclose(chart.trail(laid, np.array([11, -1]), 2), [0, 0, 0, 0, 0, 0.5, 0])
    np.testing.assert_array_equal(chart.trail(laid, np.array([], int), 4), 0)


@pytest.mark.parametrize(("total", "frames"), [(1, 2), (5, 60), (3_760, 60), (200_000, 60)])
def test_films_are_short_and_reach_the_end(total, frames):
    counts = tables.frame_counts(total, frames)
    assert (counts[0], counts[-1]) == (0, total)
    assert len(counts) <= frames
    assert np.all(np.diff(counts) > 0)
    assert tables.frame_counts(0, frames) == [0]


def test_a_film_shows_both_orders_on_one_palette():
    film = diagnostics.planning_frames(KEY, numbering(1, 7), corridor(6), gamma=0.5, frames=5, start=0)
    assert 2 < len(film) <= 5
    assert len({frame.size for frame in film}) == 1
    assert all(frame.getpalette() == film[0].getpalette() for frame in film)
    first, last = (np.asarray(frame.convert("RGB"), int) for frame in (film[0], film[-1]))
    half = first.shape[1] // 2
    for side in (np.s_[:, :half], np.s_[:, half:]):
        assert np.abs(first[side] - last[side]).max() > 100  # arrows have come


def test_without_a_reward_there_is_nothing_to_plan():
    nothing = table(4, 2, [(0, 1, 1, 0.0, 0.0, 1)])
    assert len(diagnostics.planning_frames(KEY, numbering(2, 2), nothing, gamma=0.9, updates=50)) == 1
    empty = table(4, 2, [])
    assert len(diagnostics.planning_frames(KEY, numbering(2, 2), empty, gamma=0.9, updates=50)) == 1


def test_bad_arguments_are_named():
    learned = corridor(6)
    with pytest.raises(ValueError, match=r"values has shape \(7, 3\)"):
        diagnostics.value_map(numbering(7), np.zeros((7, 3)), learned)
    with pytest.raises(ValueError, match=r"table has shape \(7,\)"):
        diagnostics.value_map(numbering(8), np.zeros((7, 2)), learned)
    with pytest.raises(ValueError, match="a place for each of 7 states"):
        chart.make_chart(numbering(7)._replace(shape=(2, 3)), learned)
    with pytest.raises(ValueError, match="frames must be at least 2"):
        diagnostics.planning_frames(KEY, numbering(7), learned, gamma=0.5, frames=1)
    with pytest.raises(ValueError, match="gamma must be at most 1"):
        planning_order.sweeping_order(learned, gamma=1.5)
    with pytest.raises(ValueError, match="threshold must be at least 0"):
        planning_order.sweeping_order(learned, gamma=0.5, threshold=-1.0)
    with pytest.raises(ValueError, match="updates must be at least 1"):
        planning_order.random_order(KEY, learned, gamma=0.5, updates=0)
