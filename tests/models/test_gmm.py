"""Mixtures: expectation-maximisation climbs, and conditioning is the textbook's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.worlds import CONTINUOUS

from jmbrl import data, models
from jmbrl.types import Continuous, Spec

KEY = jax.random.key(0)
LINE = Spec("line", (1,), Continuous((-1.0,), (1.0,)), 20)


def bent(count=400, noise=0.02, seed=0) -> data.Replay:
    """A world of two regimes: ``x`` moves by ``a`` where it is positive and by ``-a`` elsewhere."""
    rng = np.random.default_rng(seed)
    side = np.sign(rng.normal(size=(count, 1)))
    obs = (side * rng.uniform(0.5, 2.0, (count, 1))).astype(np.float32)
    action = rng.uniform(-1, 1, (count, 1)).astype(np.float32)
    following = obs + np.sign(obs) * action + noise * rng.normal(size=obs.shape)
    return data.from_arrays(obs, action, obs[:, 0], following, np.zeros(count, bool), capacity=420)


@functools.cache
def fitted(components, **options):
    model = models.gmm(LINE, components=components, reward=lambda obs, action, following: obs[0], **options)
    fit = jax.jit(models.trainer(model).fit)
    params, _, info = fit(KEY, model.init(KEY), (), bent())
    return model, params, info, fit


@functools.cache
def blobs():
    """Rows of two far Gaussians (70 and 30 %), some of weight 0, and what ``em`` makes of them."""
    rng = np.random.default_rng(1)
    first = rng.multivariate_normal([2.0, 0.0], [[0.3, 0.2], [0.2, 0.4]], 700)
    second = rng.multivariate_normal([-3.0, 1.0], [[0.5, -0.3], [-0.3, 0.3]], 300)
    z = np.concatenate([first, second, np.full((50, 2), 40.0)]).astype(np.float32)
    weight = np.concatenate([np.ones(1000), np.zeros(50)]).astype(np.float32)
    fit = jax.jit(functools.partial(models.em, components=3, iterations=30, floor=1e-4))
    return fit, z, weight


def test_the_objective_rises_at_every_step():
    fit, z, weight = blobs()
    for seed in range(4):
        _, trace, raised = fit(jax.random.key(seed), z, weight)
        assert trace.shape == (31,)
        assert np.all(np.diff(trace) > -2e-6 * np.abs(trace[0]))  # rounding of float32
        assert trace[-1] > trace[0]
        assert raised == 0


def test_the_objective_is_the_likelihood():
    fit, z, weight = blobs()
    mixture, trace, _ = fit(KEY, z, weight)
    total = 0.0
    for log_weight, mean, covariance in zip(*(np.asarray(x, np.float64) for x in mixture), strict=True):
        away = z[:1000] - mean
        square = np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away)
        total = total + np.exp(log_weight - 0.5 * square) / np.sqrt(np.linalg.det(2 * np.pi * covariance))
    np.testing.assert_allclose(trace[-1], np.mean(np.log(total)), atol=2e-3)  # but for the floor's penalty
    np.testing.assert_allclose(np.sum(np.exp(mixture.log_weight)), 1.0, rtol=1e-5)


def test_finds_two_far_gaussians():
    _, z, weight = blobs()
    fit = jax.jit(functools.partial(models.em, components=2, iterations=10, floor=1e-4))
    mixture, _, _ = fit(KEY, z, weight)
    order = np.argsort(-np.asarray(mixture.mean[:, 0]))
    np.testing.assert_allclose(np.exp(mixture.log_weight)[order], [0.7, 0.3], atol=1e-3)
    for k, part in zip(order, (z[:700], z[700:1000]), strict=True):
        np.testing.assert_allclose(mixture.mean[k], np.mean(part, axis=0), atol=1e-2)
        np.testing.assert_allclose(mixture.covariance[k], np.cov(part.T, bias=True) + 1e-4 * np.eye(2), atol=1e-2)


def test_one_component_is_linear_regression():
    model, params, info, _ = fitted(1)
    rows, _ = data.rows(bent())
    rows = jax.tree.map(lambda x: np.asarray(x, np.float64)[:400], rows)
    phi = np.column_stack([np.ones(400), rows.obs, rows.action])
    change = rows.next_obs - rows.obs
    theta, *_ = np.linalg.lstsq(phi, change, rcond=None)
    residual = change - phi @ theta
    prediction = jax.jit(model.predict)(params, jnp.asarray([0.7]), jnp.asarray([0.5]))
    np.testing.assert_allclose(prediction.mean - 0.7, np.array([1.0, 0.7, 0.5]) @ theta, atol=1e-3)
    np.testing.assert_allclose(prediction.std, [np.std(residual)], rtol=1e-3)
    np.testing.assert_allclose(info["mse"], np.mean(residual**2), rtol=1e-3)


def test_components_follow_the_regimes():
    model, params, info, _ = fitted(4)
    assert info["mse"] < 0.01 * fitted(1)[2]["mse"]
    assert info["diverged"] == 0
    predict = jax.jit(model.predict)
    for x in (1.0, -1.0):
        got = predict(params, jnp.asarray([x]), jnp.asarray([0.5]))
        np.testing.assert_allclose(got.mean, [x + x * 0.5], atol=0.03)
        assert got.std[0] < 0.1


def test_steps_have_the_predicted_moments():
    model, params, _, _ = fitted(4)
    obs, action = jnp.full((4000, 1), 0.02), jnp.full((4000, 1), 0.8)  # between the regimes: two modes
    prediction = jax.jit(model.predict)(params, obs[0], action[0])
    following, outcome = jax.jit(model.step_many)(KEY, params, obs, action)
    np.testing.assert_allclose(np.mean(following), prediction.mean[0], atol=4 * float(prediction.std[0]) / 4000**0.5)
    np.testing.assert_allclose(np.std(following), prediction.std[0], rtol=0.06)
    np.testing.assert_allclose(jax.jit(model.expect)(params, obs[:1], action[:1])[0][0], prediction.mean, atol=1e-5)
    np.testing.assert_allclose(outcome.reward, 0.02)


def test_nothing_changes_before_the_first_fit_and_little_data_stay_finite():
    model, _, _, fit = fitted(4)
    params = model.init(KEY)
    obs = jnp.asarray([[0.3], [-2.0]])
    step_many = jax.jit(model.step_many)
    np.testing.assert_array_equal(step_many(KEY, params, obs, jnp.zeros((2, 1)))[0], obs)
    params, _, info = fit(KEY, params, (), bent(2))
    after = step_many(KEY, params, obs, jnp.zeros((2, 1)))
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((params.weights, info, after)))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"components": 0}, "components must be at least 1"),
        ({"iterations": 0}, "iterations must be at least 1"),
        ({"floor": 0.0}, "floor must be at least"),
        ({"termination": "learned"}, "gmm cannot learn termination"),
    ],
)
def test_bad_input_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        models.gmm(CONTINUOUS, **options)
