"""MPPI around a policy's proposals: one update in NumPy, the proposals, the choice of an elite, the warm start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.worlds import adder, adder_params

from jmbrl import planners
from jmbrl.planners.policy_mppi import PolicyMPPIState
from jmbrl.rollout import objective
from jmbrl.types import Continuous, Discrete, Objective, Spec

BOX = Spec("box", (2,), Continuous((-1.0, -1.0), (1.0, 1.0)), 10)
TARGET = jnp.asarray([[0.5, -0.3], [0.0, 0.8], [-0.9, 0.1]])
FAST = {"xla_backend_optimization_level": 0}
KEY = jax.random.key(0)
SEEN = []


def goal(returns, propose=None):
    """An objective whose candidates are seen by the test."""

    def evaluate(key, actions):
        jax.debug.callback(lambda a: SEEN.append(np.asarray(a, np.float64)), actions, ordered=True)
        return returns(actions), jnp.zeros((len(actions), 0)), {}

    return Objective(evaluate, lambda *a: None, None, propose=propose)


def quadratic(actions):
    return -jnp.sum((actions - TARGET) ** 2, axis=(1, 2))


def planned(planner, objective, state=None):
    SEEN.clear()
    start = planner.init() if state is None else state
    out = jax.jit(lambda key, state: planner.plan(key, state, objective), compiler_options=FAST)(KEY, start)
    jax.effects_barrier()
    return out


def test_one_update_by_hand():
    """The proposals come first and are left alone; the elites' weighted mean and spread; the spread is bounded."""
    propose = lambda key, count, horizon: jnp.full((count, horizon, 2), 0.25)  # noqa: E731
    planner = planners.policy_mppi(
        BOX, population=40, proposals=3, elites=8, iterations=2, temperature=2.0, min_std=0.2, max_std=0.5
    )
    state = PolicyMPPIState(0.4 * TARGET, jnp.full((3, 2), 9.0))  # the last plan's spread is not read
    plan, after, info = planned(planner, goal(quadratic, propose), state)
    for rows in SEEN:
        np.testing.assert_array_equal(rows[:3], np.full((3, 3, 2), 0.25))
        assert np.abs(rows).max() <= 1.0
    np.testing.assert_allclose(np.std(SEEN[0][3:, 1, 0]), 0.5, rtol=0.3)
    mean, std, best = np.asarray(state.mean, np.float64), np.zeros((3, 2)), np.zeros((8, 3, 2))
    for rows in SEEN:
        value = -np.sum((rows - np.asarray(TARGET)) ** 2, axis=(1, 2))
        best = rows[np.argsort(-value)[:8]]
        weight = np.exp(2.0 * (np.sort(value)[::-1][:8] - value.max()))
        weight /= weight.sum()
        mean = np.einsum("k,kta->ta", weight, best)
        std = np.clip(np.sqrt(np.einsum("k,kta->ta", weight, (best - mean) ** 2)), 0.2, 0.5)
    np.testing.assert_allclose(after.mean, mean, atol=1e-5)
    np.testing.assert_allclose(after.std, std, atol=1e-5)
    assert np.any(std == 0.2)
    assert np.min(np.abs(best - np.asarray(plan)).max(axis=(1, 2))) < 1e-6  # an elite of the last iteration
    np.testing.assert_allclose(info["return"], max(np.max(quadratic(x)) for x in SEEN), rtol=1e-5)


def test_it_finds_the_optimum_of_a_quadratic():
    planner = planners.policy_mppi(
        BOX, population=300, elites=30, iterations=12, temperature=2.0, min_std=0.01, max_std=1.0
    )
    _, after, _ = planned(planner, goal(quadratic))
    np.testing.assert_allclose(after.mean, TARGET, atol=0.03)


def test_a_perfect_policy_is_followed():
    asked = []

    def propose(key, count, horizon):
        asked.append((count, horizon))
        return jnp.broadcast_to(TARGET, (count, *TARGET.shape)).at[1:].set(jnp.nan)  # broken proposals hurt nobody

    planner = planners.policy_mppi(BOX, population=20, proposals=2, elites=4, iterations=1, temperature=1e4)
    plan, after, _ = planned(planner, goal(quadratic, propose))
    assert asked[0] == (2, 3)
    np.testing.assert_array_equal(plan, TARGET)
    np.testing.assert_allclose(after.mean, TARGET, atol=1e-6)
    np.testing.assert_allclose(after.std, 0.05)


def test_the_plan_is_an_elite_drawn_with_its_weight():
    """Returns of ln 1, ln 2, ln 5 and ln 100 below the best: at temperature 1 weights of 1, 2 and 5 of 8."""
    rows = jnp.asarray([0.1, 0.2, 0.3, 0.4])[:, None, None] * jnp.ones((4, 1, 2))
    gains = jnp.log(jnp.asarray([1.0, 2.0, 5.0, 0.01]))
    objective = Objective(
        lambda key, actions: (gains, jnp.zeros((4, 0)), {}), lambda *a: None, None, propose=lambda *a: rows
    )
    planner = planners.policy_mppi(BOX, horizon=1, population=4, proposals=4, elites=3, iterations=1, temperature=1.0)
    plan = jax.jit(jax.vmap(lambda key: planner.plan(key, planner.init(), objective)[0][0, 0]), compiler_options=FAST)
    drawn = np.asarray(plan(jax.random.split(KEY, 4000)))
    shares = [np.mean(np.isclose(drawn, x)) for x in (0.1, 0.2, 0.3, 0.4)]
    np.testing.assert_allclose(shares, [1 / 8, 2 / 8, 5 / 8, 0.0], atol=0.03)  # four standard errors


def test_broken_returns_weigh_nothing():
    planner = planners.policy_mppi(BOX, population=30, elites=25, iterations=2)
    some = lambda actions: jnp.where(actions[:, 0, 0] > 0, jnp.nan, quadratic(actions))  # noqa: E731
    plan, after, info = planned(planner, goal(some))
    assert plan[0, 0] <= 0
    assert after.mean[0, 0] <= 0
    assert 0 < info["nonfinite"] < 60
    state = PolicyMPPIState(0.4 * TARGET, jnp.ones((3, 2)))
    plan, after, info = planned(planner, goal(lambda actions: jnp.full(len(actions), jnp.inf)), state)
    np.testing.assert_array_equal(plan, state.mean)
    np.testing.assert_array_equal(after.mean, state.mean)
    np.testing.assert_array_equal(after.std, np.full((3, 2), 2.0))
    assert info["nonfinite"] == 60


def test_the_warm_start_is_the_mean_shifted_and_the_spread_begins_anew():
    planner = planners.policy_mppi(BOX, max_std=1.5)
    state = planner.shift(PolicyMPPIState(TARGET, jnp.full((3, 2), 0.1)), 1)
    np.testing.assert_array_equal(state.mean, [TARGET[1], TARGET[2], [0, 0]])
    np.testing.assert_array_equal(state.std, np.full((3, 2), 1.5))


def test_an_objective_proposes_what_its_policy_would_do_in_the_model():
    """The belief grows by 2 a step from 1; the policy's action is a tenth of it."""
    spec = Spec("box", (1,), Continuous((-1.0,), (1.0,)), 10)
    params = adder_params(1)._replace(weights={"add": jnp.asarray(2.0)})
    made = objective(adder(spec), params, jnp.ones(1), policy=lambda key, beliefs: 0.1 * beliefs)
    assert made.propose is not None
    np.testing.assert_allclose(made.propose(KEY, 2, 3)[..., 0], [[0.1, 0.3, 0.5]] * 2, rtol=1e-6)
    assert objective(adder(spec), params, jnp.ones(1)).propose is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"population": 8, "proposals": 9, "elites": 4}, "proposals must be at most 8, got 9"),
        ({"population": 30, "elites": 31}, "elites must be at most 30, got 31"),
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"temperature": 0.0}, "temperature must be at least 1e-09, got 0.0"),
        ({"min_std": 0.0}, "min_std must be at least 1e-06, got 0.0"),
        ({"min_std": 3.0}, "min_std must be at most max_std=2.0, got 3.0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        planners.policy_mppi(BOX, **arguments)


def test_discrete_actions_are_refused():
    with pytest.raises(ValueError, match=r"policy_mppi needs continuous actions, got Discrete.*; use mppi"):
        planners.policy_mppi(Spec("coins", (2,), Discrete(3), 10))
