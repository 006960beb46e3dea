"""Numberings worked out by hand; the grid's own are in ``models/test_tabular.py``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import cells


def test_levels_reach_both_ends_and_the_last_dimension_counts_fastest():
    points = cells.levels(2, (3, 2))
    wanted = [[-1, -1], [-1, 1], [0, -1], [0, 1], [1, -1], [1, 1]]
    assert (points.count, points.shape) == (6, (3, 2))
    np.testing.assert_array_equal(points.centre(jnp.arange(6)), wanted)  # exactly
    np.testing.assert_array_equal(jax.vmap(points.index)(jnp.asarray(wanted, jnp.float32)), np.arange(6))
    near = {(0.49, -0.1): 2, (-0.51, 9.0): 1, (-1e30, 0.1): 1, (1.0, jnp.nan): 4}  # a NaN counts as the lowest
    for x, number in near.items():
        assert int(points.index(jnp.asarray(x))) == number


@pytest.mark.parametrize(("bins", "wanted"), [(1, [0.0]), (2, [-1, 1]), (5, [-1, -0.5, 0, 0.5, 1])])
def test_levels_of_one_dimension(bins, wanted):
    points = cells.levels(1, bins)
    np.testing.assert_array_equal(points.centre(jnp.arange(bins))[:, 0], wanted)


def test_one_hots_count_in_mixed_radix():
    pair = cells.one_hots((2, 3))
    obs = jnp.asarray([0.2, 0.7, 0.1, 0.0, 0.6])  # a prediction: second of two, third of three
    assert int(pair.index(obs)) == 5
    np.testing.assert_array_equal(pair.centre(jnp.int32(4)), [0, 1, 0, 1, 0])
    assert (pair.count, pair.shape, cells.one_hots((7,)).shape) == (6, (2, 3), ())
    assert jax.eval_shape(pair.index, obs).dtype == jnp.int32


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: cells.grid(4, 0.0, 1.0, 1000), r"bins must give at most 2147483647 numbers, got 1000000000000"),
        (lambda: cells.levels(40, 2), "action_bins must give at most"),
        (lambda: cells.levels(2, (2, 0)), "action_bins must be at least 1, got 0"),
        (lambda: cells.levels(2, (2, 2, 2)), r"action_bins must be one number or 2, one per dimension"),
        (lambda: cells.one_hots((2, 0)), r"sizes\[k\] must be at least 1, got 0"),
    ],
)
def test_bad_input_is_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()
