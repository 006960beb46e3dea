"""Time-varying linear models: exact, by hand, and against float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import models
from jmbrl.models.local_linear import Belief, conditional, posterior
from jmbrl.types import Transition

KEY = jax.random.key(0)
T, N, Z, Y = 6, 40, 3, 2
TIME = np.tile(np.arange(T), N).astype(np.int32)
FAST = {"xla_backend_optimization_level": 0}
REGRESSION = jax.jit(
    functools.partial(models.local_regression, KEY, steps=T, clusters=1, iterations=2), compiler_options=FAST
)


def system(noise=0.0, seed=0):
    """Rows of a linear system that differs from step to step, in units of very different sizes, and its matrices."""
    rng = np.random.default_rng(seed)
    matrix, offset = rng.normal(size=(T, Y, Z)), rng.normal(size=(T, Y))
    z = rng.normal(size=(T * N, Z)) + np.arange(T)[TIME][:, None]
    y = np.einsum("rij,rj->ri", matrix[TIME], z) + offset[TIME] + noise * rng.normal(size=(T * N, Y))
    units = np.asarray([1.0, 100.0, 0.01]), np.asarray([10.0, 0.1])
    matrix, offset = matrix * units[1][:, None] / units[0], offset * units[1]
    return (z * units[0]).astype(np.float32), (y * units[1]).astype(np.float32), matrix, offset


def regression(z, y, weight, seen, strength):
    return jax.tree.map(np.asarray, REGRESSION(z, y, TIME, weight, seen, strength=strength))


def test_a_linear_system_that_changes_with_time_is_recovered():
    z, y, matrix, offset = system()
    ones = np.ones(T * N, np.float32)
    fit, means, info = regression(z, y, ones, ones, 0.0)
    size = np.abs(matrix).max((0, 1)), np.asarray([10.0, 0.1])
    np.testing.assert_allclose(fit.matrix / matrix, 1.0, rtol=0, atol=0.02)
    np.testing.assert_allclose((fit.matrix - matrix) / size[0], 0.0, atol=1e-3)
    np.testing.assert_allclose((fit.offset - offset) / size[1], 0.0, atol=5e-3)
    assert np.all(np.sqrt(fit.covariance[:, [0, 1], [0, 1]]) < 0.01 * np.asarray(y).std(0))
    wanted = np.stack([np.concatenate([z, y], 1)[t == TIME].mean(0) for t in range(T)])
    np.testing.assert_allclose(means / wanted, 1.0, atol=1e-4)
    assert info["raised"] == 0


def test_a_regression_is_the_conditional_of_the_expected_gaussian():
    z, y, _, _ = system(noise=0.5, seed=1)
    rng = np.random.default_rng(2)
    weight, seen = (rng.uniform(size=T * N) < 0.1).astype(np.float32), np.ones(T * N, np.float32)
    strength, floor = 3.0, 1e-6
    fit, means, _ = regression(z, y, weight, seen, strength)

    rows = np.concatenate([z, y], 1).astype(np.float64)
    mean, scale = rows.mean(0), rows.std(0)
    s = (rows - mean) / scale
    prior = s.T @ s / len(s) + floor * np.eye(Z + Y)  # one component: its mean is 0
    for t in range(T):
        mine = s[(t == TIME) & (weight > 0)]
        n = len(mine)
        centre = mine.mean(0) if n else np.zeros(Z + Y)
        spread = (mine - centre).T @ (mine - centre) + strength * prior
        spread = (spread + strength * n / (strength + n) * np.outer(centre, centre)) / (strength + n)
        spread[:Z, :Z] += floor * np.eye(Z)
        middle = n * centre / (strength + n)
        gain = np.linalg.solve(spread[:Z, :Z], spread[:Z, Z:]).T
        rest = spread[Z:, Z:] - gain @ spread[:Z, Z:]
        np.testing.assert_allclose(means[t], mean + scale * middle, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(fit.matrix[t] / scale[Z:, None] * scale[:Z], gain, atol=2e-4)
        at = mean + scale * middle
        np.testing.assert_allclose((fit.matrix[t] @ at[:Z] + fit.offset[t] - at[Z:]) / scale[Z:], 0.0, atol=1e-4)
        np.testing.assert_allclose(fit.covariance[t] / np.outer(scale[Z:], scale[Z:]), rest, atol=2e-4)


def test_with_fewer_rows_than_dimensions_the_prior_decides():
    # By hand: a prior worth a row with mean 0, variances 1 and correlation 1/2, and the row (2, 0).
    prior = Belief(jnp.zeros(2), jnp.asarray([[1.0, 0.5], [0.5, 1.0]]), jnp.asarray(1.0))
    after = posterior(prior, jnp.asarray([2.0, 0.0]), jnp.zeros((2, 2)), jnp.asarray(1.0))
    np.testing.assert_allclose(after.mean, [1.0, 0.0])
    np.testing.assert_allclose(after.covariance, [[1.5, 0.25], [0.25, 0.5]])
    matrix, offset, rest, _ = conditional(after.mean, after.covariance, 1, 1e-9)
    np.testing.assert_allclose([matrix[0, 0], offset[0], rest[0, 0]], [1 / 6, -1 / 6, 0.5 - 0.25**2 / 1.5], atol=1e-6)

    # One row a step of one and the same system in three dimensions: only all of them together determine it.
    rng = np.random.default_rng(3)
    matrix = np.asarray([[2.0, -1.0, 0.5], [0.0, 1.0, -1.0]])
    z = rng.normal(size=(T * N, Z)).astype(np.float32)
    y = (z @ matrix.T + 1.0).astype(np.float32)
    one = np.where(np.arange(T * N) < T - 1, 1.0, 0.0).astype(np.float32)  # none in the last step
    broken = np.where(np.arange(T * N)[:, None] == T * N - 1, np.nan, z)  # a row that counts nowhere
    seen = np.where(np.arange(T * N) < T * N - 1, 1.0, 0.0).astype(np.float32)
    fit, _, _ = regression(broken, y, one, seen, 1.0)
    np.testing.assert_allclose(fit.matrix, np.tile(matrix, (T, 1, 1)), atol=2e-3)
    np.testing.assert_allclose(fit.offset, 1.0, atol=2e-3)


def test_dynamics_are_regressions_of_the_change():
    rng = np.random.default_rng(4)
    obs, action = rng.normal(size=(T * N, 2)).astype(np.float32), rng.uniform(-1, 1, (T * N, 1)).astype(np.float32)
    matrix = np.asarray([[1.0, 0.1, 0.0], [0.0, 0.9, 0.5]])
    following = np.concatenate([obs, action], 1) @ matrix.T + [0.0, 0.2]
    rows = Transition(*map(jnp.asarray, (obs, action, obs[:, 0], following.astype(np.float32), obs[:, 0], obs[:, 0])))
    ones = jnp.ones(T * N)
    fit = jax.jit(functools.partial(models.local_linear, steps=T, clusters=2, iterations=2), compiler_options=FAST)
    dynamics, centre, _ = fit(KEY, rows, TIME, ones, ones)
    np.testing.assert_allclose(dynamics.matrix, np.tile(matrix, (T, 1, 1)), atol=1e-3)
    np.testing.assert_allclose(dynamics.offset, np.tile([0.0, 0.2], (T, 1)), atol=1e-3)
    assert centre.shape == (T, 3)


def test_settings_outside_their_range_are_refused():
    z, y, _, _ = system()
    ones = np.ones(T * N, np.float32)
    for option in ({"clusters": 0}, {"strength": -1.0}, {"floor": 0.0}, {"iterations": 0}, {"steps": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(option))} must be at least"):
            models.local_regression(KEY, z, y, TIME, ones, ones, **({"steps": T} | option))
