"""Summaries against numbers worked by hand and the normal theory."""

import numpy as np
import pytest

from jmbrl import stats


def test_interquartile_mean_drops_a_quarter_at_each_end():
    assert stats.interquartile_mean(np.asarray([9.0, 1.0, 5.0, 3.0, -50.0, 100.0, 4.0, 2.0])) == 3.5  # of 2, 3, 4, 5


def test_the_bootstrap_interval_is_the_normal_one_for_many_values():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    low, high = stats.bootstrap(values)
    error = 1.96 * values.std() / 20
    np.testing.assert_allclose([low, high], [values.mean() - error, values.mean() + error], atol=0.05)


def test_the_difference_of_equal_groups_includes_zero_and_of_distant_ones_does_not():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, 8), rng.normal(0, 1, 8)
    assert stats.difference(a, b)[1] < 0 < stats.difference(a, b)[2]
    value, low, high = stats.difference(a + 10, b)
    assert 8 < low < value < high < 12


def test_the_ratio_of_two_groups_and_its_interval():
    rng = np.random.default_rng(2)
    value, low, high = stats.ratio(rng.normal(6, 1, 100), rng.normal(2, 0.1, 100))
    assert low < value < high
    # The delta method: relative errors of the means add in squares.
    np.testing.assert_allclose((high - low) / 2, 1.96 * 3 * np.hypot(1 / 60, 0.1 / 20), rtol=0.15)


def test_the_stratified_interval_draws_within_tasks():
    """Two tasks of equal runs at different levels: nothing varies within a task, so the interval is a point."""
    assert stats.stratified([np.zeros(4), np.ones(4)], np.mean) == (0.5, 0.5, 0.5)
    tasks = [np.random.default_rng(i).normal(i, 1, 100) for i in range(2)]
    value, low, high = stats.stratified(tasks, np.mean)
    np.testing.assert_allclose(value, 0.5 * (tasks[0].mean() + tasks[1].mean()))
    np.testing.assert_allclose(
        (high - low) / 2, 1.96 * np.sqrt(1 / 200), rtol=0.2
    )  # the spread between tasks is no part


def test_a_task_counts_the_same_in_a_profile_however_many_runs_it_has():
    found = stats.performance_profile([np.ones(10), np.zeros(1)], np.asarray([-1.0, 0.0, 0.5, 1.0]))
    np.testing.assert_allclose(found, [1.0, 0.5, 0.5, 0.0])


def test_ranks_share_places_and_skip_what_was_not_run():
    means = np.asarray([[1.0, 5.0], [2.0, 5.0], [3.0, np.nan]])
    np.testing.assert_equal(stats.ranks(means), [[3.0, 1.5], [2.0, 1.5], [1.0, np.nan]])


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match="values must be finite, got nan"):
        stats.bootstrap(np.asarray([1.0, np.nan]))
    with pytest.raises(ValueError, match="a must be a vector of at least one number"):
        stats.difference(np.zeros(0), np.ones(3))
