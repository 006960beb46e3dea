"""Planners by derivatives: their parts against SciPy and hand-worked numbers, and what they do with broken slopes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import lsq_linear

from jmbrl import planners
from jmbrl.planners.quadratic import box_qp, expand, expand_by_differences, vector_of
from jmbrl.types import Continuous, Objective, Outcome, Spec

BOX = Spec("box", (2,), Continuous((-1.0, -1.0), (1.0, 1.0)), 10)
KEY = jax.random.key(0)
FAST = {"xla_backend_optimization_level": 0}  # halves the time to compile


def goal(returns):
    return Objective(lambda key, a: (returns(key, a), jnp.zeros((len(a), 0)), {}), lambda *a: None, None)


def planned(planner, objective, state=None):
    state = planner.init() if state is None else state
    return jax.jit(lambda key: planner.plan(key, state, objective), compiler_options=FAST)(KEY)


def test_box_qp_against_scipy():
    rng = np.random.default_rng(0)
    solve = jax.jit(jax.vmap(box_qp))
    cases = []
    for _ in range(200):
        root = rng.normal(size=(4, 4))
        cases.append((root @ root.T + 0.1 * np.eye(4), 3 * rng.normal(size=4), -rng.random(4), rng.random(4)))
    x, free = solve(*(jnp.asarray(np.stack(part), jnp.float32) for part in zip(*cases, strict=True)))
    held = 0
    for i, (hessian, slope, low, high) in enumerate(cases):
        root = np.linalg.cholesky(hessian)  # x'Hx/2 + g'x is |L'x + L^-1 g|^2 / 2 and a constant
        reference = lsq_linear(root.T, -np.linalg.solve(root, slope), (low, high), tol=1e-12, method="bvls").x
        np.testing.assert_allclose(x[i], reference, atol=2e-3)
        inside = (reference > low + 1e-6) & (reference < high - 1e-6)
        np.testing.assert_array_equal(free[i], inside)
        held += np.sum(~inside)
    assert 200 < held < 700


def test_expansions_by_hand():
    # x' = x^2 + 3 u, loss = x u + u^2 at x = 2, u = 1.
    def f(z):
        x, u = z
        return jnp.stack([x**2 + 3 * u]), x * u + u**2

    z = jnp.asarray([2.0, 1.0])
    steps = jnp.asarray([0.02, 0.5])
    for found in jax.jit(lambda z: (expand(f, z), expand_by_differences(f, z, steps)), compiler_options=FAST)(z):
        np.testing.assert_allclose(found.jacobian, [[4, 3]], rtol=1e-4)
        np.testing.assert_allclose(found.slope, [1, 4], rtol=1e-4)
        np.testing.assert_allclose(found.hessian, [[0, 1], [1, 2]], atol=2e-3)


def test_a_belief_becomes_a_vector_and_back():
    belief = {"a": jnp.asarray([[1.0, 2.0]]), "count": jnp.asarray(3), "key": KEY, "z": jnp.asarray(4.0)}
    flatten, replace = vector_of(belief, "ilqr")
    np.testing.assert_array_equal(flatten(belief), [1, 2, 4])
    other = replace(belief, jnp.asarray([5.0, 6.0, 7.0]))
    np.testing.assert_array_equal(other["a"], [[5, 6]])
    assert other["count"] == 3
    assert other["z"] == 7
    with pytest.raises(
        ValueError, match="ilqr needs a belief of real numbers to differentiate, got one that holds int"
    ):
        vector_of(jnp.asarray(3), "ilqr")


def test_ilqr_refuses_a_belief_of_integers():
    planner = planners.ilqr(BOX, horizon=2)
    nothing = goal(lambda key, a: jnp.zeros(len(a)))._replace(belief=jnp.asarray(3))
    with pytest.raises(ValueError, match="use cem, icem, mppi or random_shooting"):
        planner.plan(KEY, planner.init(), nothing)


def test_ilqr_climbs_out_of_a_curved_valley_and_counts_nothing_after_the_end():
    # The first action moves x from 0.7 by up to 0.5; the reward cos(4 x') is concave only near the top: Quu is
    # indefinite at the start. Best are 0.2 and 0: cos 0.8 + 1. The last step's reward, after the end, is NaN.
    def step(key, belief, action):
        following = belief + 0.5 * action
        reward = jnp.where(belief[1] > 1.5, jnp.nan, jnp.cos(4 * following[0]))
        discount = jnp.where(belief[1] > 0.5, 0.0, 1.0)
        return following.at[1].set(belief[1] + 1.0), Outcome(reward, discount, jnp.zeros(0), jnp.zeros((), bool))

    def returns(key, actions):
        x = 0.7 + 0.5 * jnp.cumsum(actions[..., 0], axis=1)
        return jnp.sum(jnp.cos(4 * x[:, :2]), axis=1)

    planner = planners.ilqr(BOX, horizon=3, iterations=15)
    plan, _, info = planned(planner, goal(returns)._replace(step=step, belief=jnp.asarray([0.7, 0.0])))
    np.testing.assert_allclose(info["return"], 1 + np.cos(0.8), atol=1e-4)
    assert info["nonfinite"] == 0
    assert np.all(np.isfinite(plan))


@pytest.mark.parametrize("derivative", ["exact", "differences"])
def test_gradient_finds_the_bounds_and_the_best_of_two_hills(derivative):
    # By the first action alone: a hill of 1 at -0.5 and one of 2 at 0.8, with flat land between; the last at its bound.
    def returns(key, a):
        x = a[:, 0, 0]
        hills = jnp.exp(-20 * (x + 0.5) ** 2) + 2 * jnp.exp(-20 * (x - 0.8) ** 2)
        return hills + a[:, 1, 1]

    planner = planners.gradient(BOX, horizon=2, restarts=8, steps=40, derivative=derivative, difference=0.05)
    plan, state, info = planned(planner, goal(returns))
    np.testing.assert_allclose(plan[0, 0], 0.8, atol=0.02)
    assert plan[1, 1] == 1.0
    np.testing.assert_allclose(info["return"], 3.0, atol=0.01)
    np.testing.assert_array_equal(plan, state)


def test_gradient_begins_at_the_plan_before_and_never_does_worse():
    before = jnp.asarray([[0.3, 0.3]])
    planner = planners.gradient(BOX, horizon=1, restarts=2, steps=1, learning_rate=1e-6)
    plan, _, _ = planned(planner, goal(lambda key, a: -jnp.sum(jnp.abs(a - before), axis=(1, 2))), before)
    np.testing.assert_allclose(plan, before, atol=1e-5)


def test_gradient_sees_the_same_noise_at_every_step_and_in_every_difference():
    # The noise of a row is far larger than what its actions change: only common noise lets the slope be seen.
    def returns(key, a):
        return -jnp.sum((a - 0.4) ** 2, axis=(1, 2)) + 100.0 * jax.random.normal(key, (len(a),))

    planner = planners.gradient(BOX, horizon=1, restarts=1, steps=60, derivative="differences", difference=0.3)
    plan, _, _ = planned(planner, goal(returns))
    np.testing.assert_allclose(plan, 0.4, atol=0.05)


def test_broken_slopes_stop_one_start_only_and_are_counted():
    def returns(key, a):
        x = a[:, 0, 0]
        return jnp.sqrt(x) - 0.5 * jnp.abs(a[:, 0, 1])  # NaN for x < 0

    planner = planners.gradient(BOX, horizon=1, restarts=8, steps=30)
    plan, _, info = planned(planner, goal(returns), jnp.full((1, 2), -0.5))
    np.testing.assert_allclose(plan, [[1.0, 0.0]], atol=0.02)
    assert info["nonfinite_grad"] >= 31  # at least the plan before, every time
    assert info["nonfinite"] >= 31
    before = jnp.full((1, 2), 0.25)
    plan, _, _ = planned(planner, goal(lambda key, a: jnp.sum(a, axis=(1, 2)) * jnp.nan), before)
    np.testing.assert_array_equal(plan, before)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (planners.gradient, {"restarts": 0}, "restarts must be at least 1, got 0"),
        (planners.gradient, {"steps": 0}, "steps must be at least 1, got 0"),
        (planners.gradient, {"learning_rate": -1.0}, "learning_rate must be at least 1e-09, got -1.0"),
        (planners.gradient, {"derivative": "none"}, "derivative must be one of exact, differences; got 'none'"),
        (planners.ilqr, {"difference": 2.0}, "difference must be at most 1.0, got 2.0"),
        (planners.ilqr, {"iterations": 0}, "iterations must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_named(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(BOX, **arguments)
