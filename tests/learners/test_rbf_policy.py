"""PILCO's policy at points it was told and at Gaussian states, against sampling in NumPy's float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import learners
from jmbrl.learners.rbf_policy import JITTER, RBFWeights
from jmbrl.models.gaussian_moments import Gaussian
from jmbrl.types import Continuous, Discrete

FAST = {"xla_backend_optimization_level": 0}  # compiling is what costs
BOX = Continuous((-10.0, -1.0), (10.0, 1.0))


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def weights():
    rng = np.random.default_rng(0)
    return RBFWeights(rng.normal(size=(4, 3)), rng.normal(size=(4, 2)), np.log([[1.0] * 3, [0.7] * 3]))


def compiled(function):
    return jax.jit(function, compiler_options=FAST)


MOMENTS = compiled(learners.rbf_policy(BOX, 3, centres=4).moments)


def by_hand(given, z):
    """Actions at ``z[N, 3]``."""
    out = []
    for length, targets in zip(np.exp(given.log_length), np.asarray(given.targets).T, strict=True):
        kernel = lambda a, b: np.exp(-0.5 * np.sum(((a[:, None] - b) / length) ** 2, axis=-1))  # noqa: B023, E731
        centres = np.asarray(given.centres)
        v = kernel(z, centres) @ np.linalg.solve(kernel(centres, centres) + 1e-4 * np.eye(4), targets)
        out.append((9 * np.sin(v) + np.sin(3 * v)) / 8)
    return np.stack(out, axis=1)


def test_actions_by_hand_and_moments_of_a_certain_state():
    policy, given, z = learners.rbf_policy(BOX, 3, centres=4), weights(), np.array([0.2, -0.4, 1.0])
    np.testing.assert_allclose(compiled(policy.act)(given, z), by_hand(given, z[None])[0], rtol=1e-9)
    moments = MOMENTS(given, Gaussian(z, np.zeros((3, 3))))
    np.testing.assert_allclose(moments.mean, by_hand(given, z[None])[0], rtol=1e-4)
    assert np.all(np.abs(moments.covariance) < 2 * JITTER)


def test_far_from_other_centres_it_takes_their_targets():
    policy = learners.rbf_policy(BOX, 1, centres=2)
    given = RBFWeights(np.array([[-20.0], [20.0]]), np.array([[0.5, -0.2], [1.0, 0.0]]), np.zeros((2, 1)))
    act = compiled(policy.act)
    v = np.array([0.5, -0.2]) / 1.0001  # the noise of 0.01
    np.testing.assert_allclose(act(given, np.array([-20.0])), (9 * np.sin(v) + np.sin(3 * v)) / 8, rtol=1e-12)
    np.testing.assert_allclose(act(given, np.array([0.0])), 0.0, atol=1e-12)


def test_moments_of_the_squashed_gaussian():
    """The sum is taken to be Gaussian; what follows of it is exact, the gain by the state included."""
    given = weights()
    covariance = 1e-4 * np.array([[0.5, 0.2, 0.0], [0.2, 0.4, 0.1], [0.0, 0.1, 0.3]])
    z = np.random.default_rng(1).multivariate_normal([0.2, -0.4, 1.0], covariance, 200_000)
    y = by_hand(given, z)
    moments = MOMENTS(given, Gaussian(np.array([0.2, -0.4, 1.0]), covariance))
    np.testing.assert_allclose(moments.mean, y.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(moments.covariance, np.cov(y.T), rtol=0.02, atol=3 * JITTER)
    cross = (z - z.mean(axis=0)).T @ y / len(z)
    np.testing.assert_allclose(covariance @ moments.gain, cross, rtol=0.02, atol=1e-6)


def test_the_first_policy():
    policy = learners.rbf_policy(BOX, 3, centres=1000, spread=0.1, lengths=(1.0, 1.0, 0.7))
    at = jax.random.normal(jax.random.key(0), (1000, 3))
    first = policy.init(jax.random.key(1), at)
    np.testing.assert_array_equal(first.centres, at)
    np.testing.assert_allclose(np.exp(first.log_length), [[1.0, 1.0, 0.7]] * 2)
    np.testing.assert_allclose(np.std(first.targets, axis=0), 0.1, rtol=0.1)


def test_refusals():
    with pytest.raises(ValueError, match="rbf_policy needs continuous actions"):
        learners.rbf_policy(Discrete(2), 3)
    with pytest.raises(ValueError, match=r"lengths must be one number or one per feature \(3\), got 2"):
        learners.rbf_policy(BOX, 3, lengths=(1.0, 2.0))
    with pytest.raises(ValueError, match="centres must be at least 1, got 0"):
        learners.rbf_policy(BOX, 3, centres=0)
    with pytest.raises(ValueError, match="features has shape"):
        learners.rbf_policy(BOX, 3, centres=2).init(jax.random.key(0), jnp.zeros((3, 3)))
