"""BFGS on functions whose minimum is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl.learners.quasi_newton import bfgs

FAST = {"xla_backend_optimization_level": 0}  # compiling is what costs


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def minimise(function, x, **options):
    options = {"searches": 200, "evaluations": 400, **options}
    search = jax.jit(lambda x: bfgs(jax.value_and_grad(function), x, **options), compiler_options=FAST)
    return search(np.asarray(x, float))


def rosenbrock(x):
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


def test_a_curved_valley():
    found = minimise(rosenbrock, [-1.2, 1.0])
    np.testing.assert_allclose(found.x, [1.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(found.first, 24.2)  # 2.2^2 + 100 * 0.44^2
    assert 20 <= found.searches <= found.evaluations < 100  # scipy's BFGS: 33 searches, 40 evaluations
    assert found.nonfinite == 0


def test_limits_are_kept_and_the_best_is_returned():
    found = minimise(rosenbrock, [-1.2, 1.0], evaluations=7)
    assert found.evaluations == 7
    assert found.value == rosenbrock(found.x) < 24.2
    assert minimise(rosenbrock, [-1.2, 1.0], searches=3).searches == 3
    still = minimise(rosenbrock, [-1.2, 1.0], searches=0)
    np.testing.assert_array_equal(still.x, [-1.2, 1.0])
    at_rest = minimise(lambda x: jnp.sum(x**2), [0.0, 0.0])
    assert at_rest.evaluations == 1


def test_a_cliff_is_counted_and_not_stepped_over():
    """10 x - log x is not a number below 0, where the first step, of length 1, leads from 0.7, and some later ones."""
    found = minimise(lambda x: jnp.sum(10 * x - jnp.log(x)), [0.7])
    np.testing.assert_allclose(found.x, [0.1], rtol=1e-6)
    assert 1 <= found.nonfinite < found.evaluations


def test_a_start_that_is_not_finite_is_kept():
    found = minimise(lambda x: jnp.sum(jnp.log(x)), [-1.0])
    np.testing.assert_array_equal(found.x, [-1.0])
    assert (found.nonfinite, found.evaluations, found.value) == (1, 1, np.inf)


def test_refusals():
    with pytest.raises(ValueError, match="evaluations must be at least 1, got 0"):
        bfgs(rosenbrock, jnp.zeros(2), searches=1, evaluations=0)
