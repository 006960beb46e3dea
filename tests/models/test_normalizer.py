"""Statistics in float32 where they are hard."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl.data import normalizer

ALL = lambda x: jnp.ones(len(x), bool)  # noqa: E731


def test_by_hand():
    got = normalizer.fit(jnp.array([[1.0, 0.0], [3.0, 0.0], [5.0, 3.0]]), jnp.array([True, True, True]))
    np.testing.assert_allclose(got.mean, [3.0, 1.0])
    np.testing.assert_allclose(got.std, [np.sqrt(8 / 3), np.sqrt(2)], rtol=1e-6)
    np.testing.assert_allclose((got.low, got.high), ([1.0, 0.0], [5.0, 3.0]))
    x = jnp.array([2.0, 2.0])
    np.testing.assert_allclose(normalizer.denormalize(got, normalizer.normalize(got, x)), x, rtol=1e-6)


@pytest.mark.parametrize("count", [100, 100_000])
def test_a_large_offset_keeps_its_spread(count):
    rows = 1e4 + 0.01 * np.random.default_rng(0).normal(size=(count, 2))
    got = normalizer.fit(jnp.asarray(rows, jnp.float32), ALL(rows))
    wanted = np.float32(rows).astype(np.float64).std(axis=0)
    np.testing.assert_allclose(got.std, wanted, rtol=0.01)
    scaled = normalizer.normalize(got, jnp.asarray(rows, jnp.float32))
    np.testing.assert_allclose(np.mean(scaled, axis=0), 0.0, atol=0.06)  # the mean itself is rounded to 0.001


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 12345.678])
def test_a_constant_column_is_left_alone(value):
    rows = jnp.full((1000, 1), value)
    got = normalizer.fit(rows, ALL(rows))
    assert got.std[0] == 1.0
    assert np.all(normalizer.normalize(got, rows) == 0.0)


def test_masked_rows_may_hold_anything():
    rows = jnp.array([[jnp.nan], [1.0], [jnp.inf], [3.0]])
    got = jax.jit(normalizer.fit)(rows, jnp.array([False, True, False, True]))
    np.testing.assert_allclose([got.mean[0], got.std[0], got.low[0], got.high[0]], [2.0, 1.0, 1.0, 3.0])


def test_without_rows_the_old_statistics_stay():
    old = normalizer.fit(jnp.array([[1.0], [3.0]]), jnp.array([True, True]))
    jax.tree.map(np.testing.assert_array_equal, normalizer.fit(jnp.zeros((4, 1)), jnp.zeros(4, bool), old), old)
    jax.tree.map(
        np.testing.assert_array_equal,
        normalizer.fit(jnp.full((4, 1), jnp.nan), jnp.zeros(4, bool)),
        normalizer.identity(1),
    )


def test_bounds():
    got = normalizer.fit(jnp.array([[0.0, 5.0], [2.0, 5.0]]), jnp.array([True, True]))
    low, high = normalizer.bounds(got, 2.0)
    np.testing.assert_allclose((low, high), ([-4.0, 3.0], [6.0, 7.0]))  # a constant column has unit range
    low, high = normalizer.bounds(normalizer.identity(1), 0.0)
    assert low[0] == -np.inf
    assert high[0] == np.inf
