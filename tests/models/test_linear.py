"""Regression against NumPy's in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.worlds import CONTINUOUS, DISCRETE, linear_replay, reward

from jmbrl import data, models
from jmbrl.types import Transition

KEY = jax.random.key(0)


def fitted(model, replay, key=KEY):
    params = model.init(KEY)
    return jax.jit(models.trainer(model).fit)(key, params, (), replay)


@functools.cache
def plain():
    model = models.linear(CONTINUOUS)
    return model, *fitted(model, linear_replay(300, noise=0.1, capacity=320))


def reference(replay, columns):
    """Least squares in float64: predictions of the change and reward at ``obs, action``, and the noise."""
    rows, count = data.rows(replay)
    rows = jax.tree.map(lambda x: np.asarray(x, np.float64)[: int(count)], rows)
    y = np.column_stack([rows.next_obs - rows.obs, rows.reward])
    phi = columns(rows.obs, rows.action)
    theta, *_ = np.linalg.lstsq(phi, y, rcond=None)
    noise = np.sqrt(np.sum((y - phi @ theta) ** 2, axis=0) / (len(y) - phi.shape[1]))
    return theta, noise, np.mean((y - phi @ theta) ** 2)


def affine(obs, action):
    return np.column_stack([np.ones(len(obs)), obs, action])


def quadratic(obs, action):
    x = affine(obs, action)
    return np.column_stack([x[:, i] * x[:, j] for i in range(5) for j in range(i, 5)])


def points():
    rng = np.random.default_rng(3)
    return rng.normal(size=(20, 3)).astype(np.float32), rng.uniform(-1, 1, (20, 1)).astype(np.float32)


def test_is_least_squares():
    model, params, _, info = plain()
    theta, noise, mse = reference(linear_replay(300, noise=0.1), affine)
    obs, action = points()
    prediction = jax.jit(jax.vmap(model.predict, in_axes=(None, 0, 0)))(params, obs, action)
    expected = affine(obs, action) @ theta
    np.testing.assert_allclose(prediction.mean, obs + expected[:, :3], atol=2e-5)
    np.testing.assert_allclose(prediction.reward_mean, expected[:, 3], atol=2e-5)
    np.testing.assert_allclose(prediction.std, np.tile(noise[:3], (20, 1)), rtol=1e-3)
    np.testing.assert_allclose(info["mse"], mse, rtol=1e-3)
    assert info["dependent"] == info["jittered"] == info["diverged"] == 0
    mean, outcome = jax.jit(model.expect)(params, obs, action)
    np.testing.assert_allclose(mean, prediction.mean, atol=1e-6)
    np.testing.assert_allclose(outcome.reward, prediction.reward_mean, atol=1e-6)


def test_steps_have_the_noise_of_the_data():
    model, params, _, _ = plain()
    obs, action = jnp.zeros((4000, 3)), jnp.zeros((4000, 1))
    following, outcome = jax.jit(model.step_many)(KEY, params, obs, action)
    prediction = model.predict(params, obs[0], action[0])
    np.testing.assert_allclose(np.std(following, axis=0), prediction.std, rtol=0.05)  # 4 standard errors
    np.testing.assert_allclose(np.mean(following, axis=0), prediction.mean, atol=0.007)
    np.testing.assert_allclose(np.std(outcome.reward), 0.0, atol=1e-4)  # the reward is obs[0], exactly


def test_nothing_changes_before_the_first_fit():
    model, *_ = plain()
    params = model.init(KEY)
    obs, action = points()
    np.testing.assert_array_equal(jax.jit(model.step_many)(KEY, params, obs, action)[0], obs)


def test_polynomials_fit_what_is_quadratic():
    model = models.linear(CONTINUOUS, features=2, clip_range=None)
    log = linear_replay(200, noise=0.0)
    curved = log.data._replace(next_obs=log.data.next_obs + 3.0 * log.data.obs**2 * log.data.action)
    # obs^2 * action is of degree 3: only its projection is found, the same as NumPy's.
    log = log._replace(data=curved)
    params, _, info = fitted(model, log)
    theta, _, mse = reference(log, quadratic)
    obs, action = points()
    got = jax.jit(model.expect)(params, obs, action)[0]
    np.testing.assert_allclose(got, obs + (quadratic(obs, action) @ theta)[:, :3], atol=2e-3)
    np.testing.assert_allclose(info["mse"], mse, rtol=1e-3)


def test_dependent_features_and_few_rows_stay_finite():
    twice = models.linear(CONTINUOUS, preprocess=lambda obs: jnp.concatenate([obs, obs[:1], jnp.ones(1)]))
    fit = jax.jit(models.trainer(twice).fit)
    params, _, info = fit(KEY, twice.init(KEY), (), linear_replay(300, noise=0.1, capacity=320))
    assert info["dependent"] == 2  # a copy, and a constant beside the constant
    obs, action = points()
    model, single, _, _ = plain()
    got, wanted = jax.jit(twice.expect)(params, obs, action)[0], jax.jit(model.expect)(single, obs, action)[0]
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    few, _, info = fit(KEY, twice.init(KEY), (), linear_replay(2, capacity=320))
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((few.weights, info)))
    assert info["mse"] < 1e-6  # two rows lie on a line
    assert info["dependent"] >= 3


def test_rows_count_by_their_weight():
    model, *_ = plain()
    log, _ = data.rows(linear_replay(41, noise=0.3))
    poisoned = jax.tree.map(lambda x: np.where(np.arange(41).reshape(-1, *(1,) * (x.ndim - 1)) < 39, x, np.nan), log)
    poisoned = Transition(*poisoned[:4], log.terminated, log.truncated)
    weight = np.where(np.arange(41) < 39, 1.0, 0.0).astype(np.float32)
    weight[0] = 3.0
    copied = jax.tree.map(lambda x: x[np.array([0, 0, *range(39)])], log)
    start = jax.jit(model.set_stats)(model.init(KEY), copied, np.ones(41, bool))
    fit = jax.jit(model.fit)
    np.testing.assert_allclose(
        fit(KEY, start, poisoned, weight)[0].weights["theta"],
        fit(KEY, start, copied, np.ones(41, np.float32))[0].weights["theta"],
        atol=1e-5,
    )


def test_random_features_approximate_the_kernel():
    basis = models.random_fourier(4000, lengthscale=1.5)
    x = jax.random.normal(KEY, (6, 2))
    phi = basis.apply(basis.init(jax.random.key(1), 2), x)[:, 1:]
    distance = np.sum((np.asarray(x)[:, None] - np.asarray(x)) ** 2, axis=-1)
    np.testing.assert_allclose(phi @ phi.T, np.exp(-0.5 * distance / 1.5**2), atol=0.06)  # 4 standard errors
    assert basis.size(2) == 4001


def test_monomials_in_order():
    basis = models.polynomial(2)
    np.testing.assert_array_equal(basis.apply((), jnp.asarray([[2.0, 3.0]])), [[1, 2, 3, 4, 6, 9]])
    assert basis.size(2) == 6


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"termination": "learned"}, "linear cannot learn termination"),
        ({"ridge": 0.0}, "ridge must be at least"),
        ({"features": 0}, "degree must be at least 1"),
        ({"features": 30}, "degree=30 gives .* columns, at most 4096"),
        ({"absolute": (9,)}, "absolute must be at most 2"),
    ],
)
def test_bad_input_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        models.linear(CONTINUOUS, **options)
    assert models.linear(DISCRETE, reward=reward).fit is not None
