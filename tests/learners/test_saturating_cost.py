"""PILCO's cost by hand and against sampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import learners
from jmbrl.models.gaussian_moments import Gaussian


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def test_by_hand():
    cost = learners.saturating_cost((1.0, 2.0), width=0.5)
    np.testing.assert_allclose(cost.value(jnp.array([1.0, 2.0])), 0.0)
    np.testing.assert_allclose(cost.value(jnp.array([1.0, 2.5])), 1 - np.exp(-0.5))
    # x ~ N(0, 1) around a target at 0, width 1: E exp(-x^2 / 2) = 1 / sqrt(2), E exp(-x^2) = 1 / sqrt(3).
    mean, variance = learners.saturating_cost((0.0,)).moments(Gaussian(jnp.zeros(1), jnp.ones((1, 1))))
    np.testing.assert_allclose([mean, variance], [1 - 2**-0.5, 3**-0.5 - 0.5], rtol=1e-12)


def test_the_tip_of_a_pole_agrees_with_sampling():
    rows = ((1.0, 0.5, 0.0), (0.0, 0.0, 0.5))
    cost = learners.saturating_cost((0.0, 0.0, -1.0), rows, 0.25)
    centre, covariance = np.array([0.1, 0.2, -0.8]), np.array([[0.1, 0.03, 0.0], [0.03, 0.05, 0.01], [0.0, 0.01, 0.1]])
    z = np.random.default_rng(0).multivariate_normal(centre, covariance, 200_000)
    miss = (z[:, 0] + 0.5 * z[:, 1]) ** 2 + 0.25 * (z[:, 2] + 1) ** 2
    values = 1 - np.exp(-miss / (2 * 0.25**2))
    mean, variance = cost.moments(Gaussian(jnp.asarray(centre), jnp.asarray(covariance)))
    np.testing.assert_allclose(mean, values.mean(), atol=5 * values.std() / np.sqrt(len(z)))
    spread = (values - values.mean()) ** 2
    np.testing.assert_allclose(variance, spread.mean(), atol=5 * spread.std() / np.sqrt(len(z)))
    np.testing.assert_allclose(cost.value(jnp.asarray(z[0])), values[0], rtol=1e-9)


def test_refusals():
    with pytest.raises(ValueError, match=r"rows must have one number per entry of target \(2\), got 3"):
        learners.saturating_cost((0.0, 1.0), ((1.0, 0.0, 0.0),))
    with pytest.raises(ValueError, match="target must have at least one number"):
        learners.saturating_cost(())
    with pytest.raises(ValueError, match="width must be at least"):
        learners.saturating_cost((0.0,), width=0.0)
    with pytest.raises(ValueError, match="rows must be finite"):
        learners.saturating_cost((0.0,), ((np.nan,),))
