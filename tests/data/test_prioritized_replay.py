"""Priorities: chances against exact ones, weights by hand, and what must never be drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl.data import prioritized_replay as priority

KEY = jax.random.key(0)
sample = jax.jit(priority.sample_by_priority, static_argnums=2)
arrived, learned = jax.jit(priority.arrived), jax.jit(priority.learned)


def given(values, alpha=1.0):
    """Priorities whose errors are ``values`` (0: no such place)."""
    values = np.asarray(values)
    places = jnp.arange(len(values))
    held = arrived(priority.no_priorities(len(values)), places, jnp.asarray(values > 0))
    return learned(held, places, jnp.asarray(values, jnp.float32), alpha)


def test_chances_are_the_priorities_shares():
    """5, 2, 0, 1, 0, 8 of 16; the empty places and the padding to 8 leaves are never drawn."""
    values = np.asarray([5.0, 2.0, 0.0, 1.0, 0.0, 8.0])
    places, chance = sample(KEY, given(values), 16_000)
    np.testing.assert_allclose(chance, (values / 16)[places], rtol=1e-5)
    # Stratified, so that each count is off by a few rather than by its binomial spread.
    counts = np.bincount(places, minlength=8)
    np.testing.assert_allclose(counts[:6], 1000 * values, atol=4 * np.sqrt(1000))
    assert counts[6:].sum() == 0


def test_chances_are_exact_among_very_many_places():
    """10^5 priorities of three orders of magnitude: by size, and by place, every share is right (chi-square)."""
    rng = np.random.default_rng(0)
    values = 10 ** rng.uniform(-2, 1, 100_000)
    places, chance = sample(KEY, given(values), 200_000)
    wanted = values / values.sum()
    np.testing.assert_allclose(chance, wanted[places], rtol=1e-3)
    for order in (np.argsort(values), np.arange(len(values))):
        group = np.empty(len(values), int)
        group[order] = np.arange(len(values)) * 50 // len(values)
        mass = np.bincount(group, wanted, 50) * 200_000
        statistic = np.sum((np.bincount(group[places], minlength=50) - mass) ** 2 / mass)
        assert statistic < 49 + 5 * np.sqrt(2 * 49), "further off than chance allows"


def test_alpha_bends_the_shares():
    _, chance = sample(KEY, given([9.0, 4.0, 1.0], alpha=0.5), 600)
    np.testing.assert_allclose(np.unique(np.round(chance, 4)), np.round([1 / 6, 2 / 6, 3 / 6], 4), atol=2e-4)
    _, chance = sample(KEY, given([9.0, 4.0], alpha=0.0), 50)
    np.testing.assert_allclose(chance, 0.5)


def test_importance_weights_by_hand():
    # Chances 1/2, 1/8 and 3/8 of three rows: (3 P)^-0.5 = 0.8165, 1.6330, 0.9428; divided by the largest 1.6330.
    weights = priority.importance(jnp.asarray([0.5, 0.125, 0.375]), 0.5)
    np.testing.assert_allclose(weights, [0.5, 1.0, 0.57735], rtol=1e-4)
    np.testing.assert_allclose(priority.importance(jnp.asarray([0.5, 0.125]), 1.0), [0.25, 1.0])
    np.testing.assert_allclose(priority.importance(jnp.asarray([0.5, 0.125]), 0.0), [1.0, 1.0])


def test_weights_undo_the_chances():
    """The weighted mean over prioritised draws is the mean over all rows, for beta 1."""
    values = np.asarray([5.0, 2.0, 1.0, 8.0])
    outcome = np.asarray([1.0, -2.0, 4.0, 0.5])
    places, chance = sample(KEY, given(values), 40_000)
    weights = priority.importance(chance, 1.0)
    np.testing.assert_allclose(np.average(outcome[places], weights=weights), outcome.mean(), atol=0.03)


def test_a_new_row_is_as_urgent_as_any_ever_was():
    held = arrived(given([5.0, 2.0, 0.0]), jnp.asarray([2]), jnp.asarray([True]))
    held = learned(held, jnp.asarray([0]), jnp.asarray([1.0]), 1.0)
    np.testing.assert_allclose(held.tree[4:], [1, 2, 5, 0], atol=1e-4)
    np.testing.assert_allclose(held.largest, 5.0, atol=1e-4)
    np.testing.assert_allclose(held.tree[1:4], [8, 3, 5], atol=1e-4)


def test_a_place_written_over_by_a_broken_row_is_not_drawn_any_more():
    held = arrived(given([5.0, 2.0, 1.0]), jnp.asarray([0]), jnp.asarray([False]))
    assert set(np.asarray(sample(KEY, held, 200)[0]).tolist()) == {1, 2}


def test_errors_that_are_not_finite_change_nothing():
    held = given([5.0, 2.0, 1.0])
    bad = learned(held, jnp.asarray([0, 1, 2]), jnp.asarray([jnp.nan, jnp.inf, 3.0]), 1.0)
    np.testing.assert_allclose(bad.tree[4:7], [5, 2, 3], atol=1e-4)
    assert bad.largest == held.largest


def test_a_place_drawn_twice_keeps_one_of_its_errors_and_the_sums_fit():
    held = learned(given([5.0, 2.0, 1.0]), jnp.asarray([1, 1]), jnp.asarray([3.0, 4.0]), 1.0)
    assert np.round(held.tree[5], 3) in (3.0, 4.0)
    np.testing.assert_allclose(held.tree[1], np.sum(held.tree[4:]), rtol=1e-6)


def test_nothing_and_a_single_place():
    places, chance = sample(KEY, priority.no_priorities(5), 3)
    np.testing.assert_array_equal(places, 0)
    np.testing.assert_array_equal(priority.importance(chance, 0.5), 1.0)
    places, chance = sample(KEY, given([3.0]), 2)
    np.testing.assert_array_equal((places, chance), [[0, 0], [1, 1]])
    # A place where nothing ever was gets no priority from an error.
    held = learned(priority.no_priorities(2), jnp.asarray([0]), jnp.asarray([3.0]), 1.0)
    np.testing.assert_array_equal(held.tree, 0.0)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        priority.no_priorities(0)
