"""Moments at Gaussian inputs against hand-worked cases and sampling in NumPy's float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import data, models
from jmbrl.models import gp_moments
from jmbrl.models.gaussian_moments import Gaussian, affine, joined, squash, squashed, trigonometric
from jmbrl.models.gp_moments import predict, processes
from jmbrl.types import Continuous, Spec

FAST = {"xla_backend_optimization_level": 0}  # compiling is what costs
SAMPLES = 200_000
MEAN = np.array([0.3, -0.5, 0.8])
COVARIANCE = np.array([[0.5, 0.2, -0.1], [0.2, 0.4, 0.05], [-0.1, 0.05, 0.3]])


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


class Reference:
    """Two processes of three inputs through seven rows, and their predictions at points."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.x, y = rng.normal(size=(7, 3)), rng.normal(size=(2, 7))
        self.length, self.variance = np.array([[1.0, 0.7, 1.5], [0.8, 1.2, 0.9]]), np.array([1.3, 0.6])
        self.noise, self.offset = np.array([0.05, 0.02]), np.array([0.4, -1.0])
        gram = [self.kernel(e, self.x) + self.noise[e] * np.eye(7) for e in range(2)]
        self.inverse = np.linalg.inv(gram)
        self.alpha = np.einsum("eij,ej->ei", self.inverse, y)

    def kernel(self, e, at):
        square = np.sum(((at[:, None] - self.x) / self.length[e]) ** 2, axis=-1)
        return self.variance[e] * np.exp(-0.5 * square)

    def at(self, points):
        """Mean and variance, noise included, ``[N, 2]`` each."""
        k = [self.kernel(e, points) for e in range(2)]
        mean = [k[e] @ self.alpha[e] + self.offset[e] for e in range(2)]
        explained = [np.sum(k[e] @ self.inverse[e] * k[e], axis=1) for e in range(2)]
        return np.stack(mean, 1), np.stack([self.variance[e] + self.noise[e] - explained[e] for e in range(2)], 1)

    def processes(self):
        arrays = self.x, self.length, self.variance, self.alpha, self.inverse, self.noise, self.offset
        return compiled(processes)(*arrays)


def gaussian(mean, covariance):
    return Gaussian(np.asarray(mean, float), np.asarray(covariance, float))


def compiled(function):
    return jax.jit(function, compiler_options=FAST)


PREDICT = compiled(predict)


def draws(mean, covariance, seed=1):
    return np.random.default_rng(seed).multivariate_normal(mean, covariance, SAMPLES)


def assert_sampled(moments, x, y, covariance, more=0.0):
    """``moments`` are those of the samples ``y[N, E]`` at ``x[N, D]``, within five standard errors; ``more``: what the
    covariance has besides that of ``y``."""

    def check(got, terms):
        error = 5 * terms.std(axis=0) / np.sqrt(len(terms))
        assert np.all(np.abs(got - terms.mean(axis=0)) < error + 1e-12), (got, terms.mean(axis=0), error)

    check(moments.mean, y)
    away = y - y.mean(axis=0)
    check(moments.covariance - more, away[:, :, None] * away[:, None])
    check(covariance @ moments.gain, (x - x.mean(axis=0))[:, :, None] * away[:, None])


def test_a_process_through_one_point_by_hand():
    """One row at 0 with K = 2 and y = 2: f = k(x, 0), and x ~ N(1, 1)."""
    one = np.ones((1, 1))
    given = compiled(processes)(0 * one, one, one[0], one, one[None] / 2, one[0], 3 * one[0])
    moments = PREDICT(given, gaussian([1.0], [[1.0]]))
    mean = np.exp(-1 / 4) / np.sqrt(2)
    np.testing.assert_allclose(moments.mean, [3 + mean], rtol=1e-12)
    # E[k^2] = exp(-1 / 3) / sqrt(3); half of it is explained.
    np.testing.assert_allclose(moments.covariance, [[2 + 0.5 * np.exp(-1 / 3) / np.sqrt(3) - mean**2]], rtol=1e-12)
    np.testing.assert_allclose(moments.gain, [[-mean / 2]], rtol=1e-12)


def test_a_certain_input_gives_the_ordinary_prediction():
    reference = Reference()
    moments = PREDICT(reference.processes(), gaussian(MEAN, np.zeros((3, 3))))
    mean, variance = reference.at(MEAN[None])
    np.testing.assert_allclose(moments.mean, mean[0], rtol=1e-10)
    np.testing.assert_allclose(moments.covariance, np.diag(variance[0]), rtol=1e-8, atol=1e-10)


def test_a_nearly_certain_input_gives_the_linearisation():
    reference, small, h = Reference(), 1e-6 * COVARIANCE, 1e-5
    moments = PREDICT(reference.processes(), gaussian(MEAN, small))
    slope = [
        (reference.at((MEAN + d)[None])[0] - reference.at((MEAN - d)[None])[0])[0] / (2 * h) for d in h * np.eye(3)
    ]
    mean, variance = reference.at(MEAN[None])
    np.testing.assert_allclose(moments.mean, mean[0], rtol=1e-5)
    np.testing.assert_allclose(moments.gain, slope, rtol=1e-4, atol=1e-5)
    between = (np.transpose(slope) @ small @ slope)[0, 1]
    np.testing.assert_allclose(moments.covariance[0, 1], between, rtol=1e-3)
    np.testing.assert_allclose(np.diag(moments.covariance), variance[0], rtol=1e-4)


def test_processes_agree_with_sampling():
    reference = Reference()
    x = draws(MEAN, COVARIANCE)
    mean, variance = reference.at(x)
    # The law of total covariance: the processes differ independently of each other.
    moments = PREDICT(reference.processes(), gaussian(MEAN, COVARIANCE))
    assert_sampled(moments, x, mean, COVARIANCE, more=np.diag(variance.mean(axis=0)))


def test_the_written_out_derivative_is_that_of_the_plain_sum():
    given = Reference().processes()

    def total(at, length, fixed):
        moments = predict(given._replace(length=length), at, fixed)
        return sum(jnp.sum(jnp.sin(x)) for x in moments)

    at = gaussian(MEAN, COVARIANCE)
    slopes = jax.grad(total, argnums=(0, 1))
    plain, fixed = compiled(lambda at, length: [slopes(at, length, fixed) for fixed in (False, True)])(at, given.length)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), plain, fixed)


def test_a_fitted_model_keeps_its_predictions():
    """In the data's units, with rows to spare, an angle, and an offset."""
    rng = np.random.default_rng(2)
    obs = np.column_stack([5 + rng.normal(size=30), rng.uniform(-3, 3, 30)]).astype(np.float32)
    action = rng.uniform(-1, 1, (30, 1)).astype(np.float32)
    following = obs + np.column_stack([0.3 + 0.1 * np.sin(obs[:, 1]), 0.2 * action[:, 0]])
    replay = data.from_arrays(obs, action, obs[:, 0], following, np.zeros(30, bool))
    spec = Spec("plane", (2,), Continuous((-1.0,), (1.0,)), 20)
    with jax.enable_x64(False):
        model = models.gp(spec, points=40, steps=20, angles=(1,), noise_floor=0.01, reward=lambda *row: row[0][0])
        key = jax.random.key(0)

        def learn(replay, obs, action):
            params, _, _ = models.trainer(model).fit(key, model.init(key), (), replay)
            return params, model.predict(params, obs, action)

        params, expected = compiled(learn)(replay, jnp.array([5.2, 0.4]), jnp.array([0.5]))
    given = compiled(gp_moments.fitted)(params.weights, params.stats, 0.01)
    assert given.count == 30
    z = np.array([5.2, np.sin(0.4), np.cos(0.4), 0.5])
    moments = PREDICT(given, gaussian(z, np.zeros((4, 4))))
    np.testing.assert_allclose(moments.mean, expected.mean - np.array([5.2, 0.4]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.sqrt(np.diag(moments.covariance)), expected.std, rtol=1e-3)


def test_sines_and_cosines():
    v = 0.7  # of an angle N(0, v): E cos = exp(-v / 2), E cos^2 = (1 + exp(-2 v)) / 2
    moments = compiled(functools.partial(trigonometric, (0,)))(gaussian([0.0], [[v]]))
    np.testing.assert_allclose(moments.mean, [0.0, np.exp(-v / 2)], atol=1e-15)
    cosine = (1 + np.exp(-2 * v)) / 2 - np.exp(-v)
    np.testing.assert_allclose(moments.covariance, np.diag([(1 - np.exp(-2 * v)) / 2, cosine]), atol=1e-14)
    np.testing.assert_allclose(moments.gain, [[np.exp(-v / 2), 0.0]], atol=1e-15)
    x = draws(MEAN, COVARIANCE)
    y = np.column_stack([x[:, 1], np.sin(x[:, [0, 2]]), np.cos(x[:, [0, 2]])])
    assert_sampled(compiled(functools.partial(trigonometric, (0, 2)))(gaussian(MEAN, COVARIANCE)), x, y, COVARIANCE)
    none = compiled(functools.partial(trigonometric, ()))(gaussian(MEAN, COVARIANCE))
    np.testing.assert_allclose(none.covariance, COVARIANCE)


def test_the_squashing_function():
    np.testing.assert_allclose(compiled(squash)(np.array([0.0, np.pi / 2, -np.pi / 2])), [0.0, 1.0, -1.0], atol=1e-15)
    moments = compiled(squashed)
    exact = moments(gaussian(MEAN, np.zeros((3, 3))))
    np.testing.assert_allclose(exact.mean, (9 * np.sin(MEAN) + np.sin(3 * MEAN)) / 8, rtol=1e-12)
    np.testing.assert_allclose(exact.covariance, 0.0, atol=1e-15)
    x = draws(MEAN, COVARIANCE)
    y = (9 * np.sin(x) + np.sin(3 * x)) / 8
    assert_sampled(moments(gaussian(MEAN, COVARIANCE)), x, y, COVARIANCE)


def test_an_output_joins_what_its_input_is_correlated_with():
    """Twice the last entry: its covariance with the first is twice theirs."""
    at = gaussian(MEAN, COVARIANCE)
    part = gaussian(MEAN[2:], COVARIANCE[2:, 2:])
    double = lambda at, part: joined(at, slice(2, 3), affine(np.array([[2.0]]), 1.0, part))  # noqa: E731
    joint = compiled(double)(at, part)
    np.testing.assert_allclose(joint.mean, [*MEAN, 2.6])
    np.testing.assert_allclose(joint.covariance[3], [-0.2, 0.1, 0.6, 1.2])
    np.testing.assert_allclose(joint.covariance, joint.covariance.T)
