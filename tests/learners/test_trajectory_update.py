"""The update of linear-Gaussian controllers against Riccati, Monte Carlo and hand-worked cases, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import learners
from jmbrl.learners import LocalTask, Quadratic
from jmbrl.learners.trajectory_update import adapted_step, expected_cost, marginals, trajectory_kl
from jmbrl.models import LinearGaussian

T, X, U = 12, 2, 1
FAST = {"xla_backend_optimization_level": 0}
UPDATE = jax.jit(learners.trajectory_update, compiler_options=FAST)
EXPECTED = jax.jit(expected_cost, compiler_options=FAST)


def cast(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def problem():
    """Dynamics, costs and a controller that all change with time, around a centre far from 0 (float64)."""
    rng = np.random.default_rng(0)
    matrix = np.concatenate([np.eye(2) + 0.1 * rng.normal(size=(T, 2, 2)), 0.5 * rng.normal(size=(T, 2, 1))], axis=2)
    dynamics = LinearGaussian(matrix, 0.1 * rng.normal(size=(T, 2)), np.tile(0.01 * np.eye(2), (T, 1, 1)))
    root = rng.normal(size=(T, 3, 3))
    hessian = root @ root.transpose(0, 2, 1) + 0.2 * np.eye(3)
    cost = Quadratic(rng.normal(size=T), rng.normal(size=(T, 3)), hessian, 3.0 + rng.normal(size=(T, 3)))
    task = LocalTask(dynamics, cost, np.asarray([1.0, -0.5]), np.asarray([[0.1, 0.03], [0.03, 0.2]]))
    previous = LinearGaussian(0.3 * rng.normal(size=(T, 1, 2)), rng.normal(size=(T, 1)), np.full((T, 1, 1), 0.3))
    return task, previous


def riccati(task):
    """The regulator in absolute coordinates: gains and offsets."""
    (F, f, _), (_, slope, hessian, centre) = task.dynamics, task.cost
    v, vv, gains = np.zeros(X), np.zeros((X, X)), []
    for t in range(T)[::-1]:
        q = slope[t] - hessian[t] @ centre[t] + F[t].T @ (v + vv @ f[t])
        qq = hessian[t] + F[t].T @ vv @ F[t]
        K, k = (-np.linalg.solve(qq[X:, X:], right) for right in (qq[X:, :X], q[X:]))
        v, vv = q[:X] + qq[:X, X:] @ k, qq[:X, :X] + qq[:X, X:] @ K
        gains.append((K, k))
    return (np.stack(x) for x in zip(*gains[::-1], strict=True))


def simulated(task, new, old, count=20_000):
    """Means over sampled trajectories: cost, and the log-ratio of the two controllers' densities."""
    rng = np.random.default_rng(1)
    x = rng.multivariate_normal(task.mean, task.covariance, count)
    cost, ratio = np.zeros(count), np.zeros(count)

    def log_density(controller, t, x, u):
        away = u - x @ controller.matrix[t].T - controller.offset[t]
        variance = controller.covariance[t, 0, 0]
        return -0.5 * away[:, 0] ** 2 / variance - 0.5 * np.log(variance)

    for t in range(T):
        u = x @ new.matrix[t].T + new.offset[t] + np.sqrt(new.covariance[t, 0, 0]) * rng.normal(size=(count, 1))
        d = np.concatenate([x, u], axis=1) - task.cost.centre[t]
        cost += task.cost.value[t] + d @ task.cost.slope[t] + 0.5 * np.sum(d @ task.cost.hessian[t] * d, axis=1)
        ratio += log_density(new, t, x, u) - log_density(old, t, x, u)
        x = np.concatenate([x, u], axis=1) @ task.dynamics.matrix[t].T + task.dynamics.offset[t]
        x += 0.1 * rng.normal(size=x.shape)
    return cost.mean(), ratio.mean()


def test_without_a_constraint_it_is_the_riccati_regulator():
    task, previous = problem()
    new, info = UPDATE(cast(task), cast(previous), 1e9)
    K, k = riccati(task)
    np.testing.assert_allclose(new.matrix, K, atol=2e-3)
    np.testing.assert_allclose(new.offset, k, atol=5e-3)
    assert np.max(new.covariance) < 1e-6  # it plays the regulator itself
    assert info["eta"] < 2e-8
    assert info["found"] == 1


@pytest.mark.parametrize("step", [0.5, 20.0])
def test_the_divergence_is_the_one_asked_for_and_lowers_the_cost(step):
    task, previous = problem()
    new, info = UPDATE(cast(task), cast(previous), step)
    new = jax.tree.map(np.float64, new)
    cost, kl = simulated(task, new, previous)
    np.testing.assert_allclose(float(info["kl"]), step, rtol=0.1)
    np.testing.assert_allclose(kl, float(info["kl"]), rtol=0.05)
    np.testing.assert_allclose(float(EXPECTED(cast(task), cast(new))), cost, rtol=0.03)
    assert cost < simulated(task, previous, previous)[0] - 1.0


def test_the_divergence_of_gaussians_by_hand():
    # N(1 + x, 4) from N(0, 1) with x ~ N(2, 3): (4 - 1 - log 4 + E(1 + x)^2) / 2, E(1 + x)^2 = 9 + 3.
    new = LinearGaussian(jnp.ones((1, 1, 1)), jnp.ones((1, 1)), jnp.full((1, 1, 1), 4.0))
    old = LinearGaussian(jnp.zeros((1, 1, 1)), jnp.zeros((1, 1)), jnp.ones((1, 1, 1)))
    dynamics = LinearGaussian(jnp.ones((1, 1, 2)), jnp.zeros((1, 1)), jnp.zeros((1, 1, 1)))
    nothing = Quadratic(jnp.zeros(1), jnp.zeros((1, 2)), jnp.zeros((1, 2, 2)), jnp.zeros((1, 2)))
    task = LocalTask(dynamics, nothing, jnp.asarray([2.0]), jnp.asarray([[3.0]]))
    mean, covariance = jax.jit(marginals, compiler_options=FAST)(task, new)
    np.testing.assert_allclose(mean[0], [2.0, 3.0])
    np.testing.assert_allclose(covariance[0], [[3.0, 3.0], [3.0, 7.0]])
    kl = jax.jit(trajectory_kl, compiler_options=FAST)(new, old, mean, covariance)
    np.testing.assert_allclose(kl, (15.0 - np.log(4.0)) / 2, rtol=1e-5)


def test_a_cost_without_a_minimum_is_followed_as_far_as_allowed():
    task, previous = problem()
    hessian = task.cost.hessian.copy()
    hessian[:, X:, X:] = -1.0
    new, info = UPDATE(cast(task._replace(cost=task.cost._replace(hessian=hessian))), cast(previous), 2.0)
    assert info["found"] == 1
    assert 0.0 < info["kl"] <= 2.2
    assert all(np.isfinite(x).all() for x in new)


def test_where_nothing_keeps_the_constraint_the_controllers_stay():
    task, previous = problem()
    broken = task._replace(cost=task.cost._replace(slope=task.cost.slope * np.nan))
    new, info = UPDATE(cast(broken), cast(previous), 1.0)
    assert info["found"] == 0
    jax.tree.map(np.testing.assert_array_equal, new, cast(previous))


@pytest.mark.parametrize(
    ("promised", "actual", "wanted"),
    # 1 / (2 (1 - 0.75)) = 2; all of it: 1 / 2e-4, cut to 5, then to 3; none: 1/2; ten times worse: cut to 0.1, then 0.5
    [(1.0, 0.75, 2.0), (1.0, 1.0, 3.0), (1.0, 0.0, 0.5), (1.0, -9.0, 0.5), (np.nan, 0.0, 1.0)],
)
def test_steps_adapt_to_what_came_true(promised, actual, wanted):
    factor, _ = adapted_step(jnp.asarray(1.0), jnp.asarray(promised), jnp.asarray(actual))
    np.testing.assert_allclose(factor, wanted, rtol=1e-5)


def test_settings_outside_their_range_are_refused():
    task, previous = (cast(x) for x in problem())
    with pytest.raises(ValueError, match="step must be at least"):
        learners.trajectory_update(task, previous, 0.0)
    for option in ({"low": 0.0}, {"high": 1e-9}, {"tolerance": -1.0}, {"iterations": 0}, {"eta": -1.0}):
        with pytest.raises(ValueError, match=f"{next(iter(option))} must be at least"):
            learners.trajectory_update(task, previous, 1.0, **option)
