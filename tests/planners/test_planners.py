"""Planners against answers from outside: a quadratic whose optimum is known, Riccati, and broken returns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import planners
from jmbrl.planners.sampling import ranked, shift
from jmbrl.types import Continuous, Discrete, Objective, Spec

BOX = Spec("box", (2,), Continuous((-1.0, -1.0), (1.0, 1.0)), 10)
COINS = Spec("coins", (2,), Discrete(3), 10)
TARGET = jnp.asarray([[0.5, -0.3], [0.0, 0.8], [-0.9, 0.1]])
WANTED = jnp.asarray([2, 0, 1])


def quadratic(key, actions):
    returns = -jnp.sum((actions - TARGET) ** 2, axis=(1, 2))
    return returns, jnp.zeros((len(actions), 0)), {"clipped": jnp.zeros(())}


def matches(key, actions):
    returns = jnp.sum(actions == WANTED, axis=1).astype(jnp.float32)
    return returns, jnp.zeros((len(actions), 0)), {"clipped": jnp.zeros(())}


def goal(returns):
    return Objective(returns, lambda *a: None, None)


def test_cem_finds_the_optimum_of_a_quadratic():
    planner = planners.cem(BOX, horizon=3, population=200, elites=20, iterations=20, min_variance=0.0)
    plan, state, info = jax.jit(lambda key: planner.plan(key, planner.init(), goal(quadratic)))(jax.random.key(0))
    np.testing.assert_allclose(plan, TARGET, atol=0.01)
    np.testing.assert_array_equal(plan, state)
    assert info["nonfinite"] == 0
    assert info["return"] > -1e-3


def test_cem_stops_early_when_the_distribution_has_collapsed():
    slow = planners.cem(BOX, horizon=3, population=200, elites=20, iterations=50, min_variance=0.01)
    _, _, info = slow.plan(jax.random.key(0), slow.init(), goal(quadratic))
    assert 0.0 < info["spread"] < 0.1
    never = planners.cem(BOX, horizon=3, population=200, elites=20, iterations=50, min_variance=0.0)
    assert never.plan(jax.random.key(0), never.init(), goal(quadratic))[2]["spread"] < 0.01


def test_cem_returns_the_elite_mean_and_not_the_best_sample():
    seen = []

    def record(key, actions):
        jax.debug.callback(lambda a: seen.append(np.asarray(a)), actions)
        return quadratic(key, actions)

    planner = planners.cem(BOX, horizon=3, population=50, elites=5, iterations=1, alpha=0.0)
    plan, _, _ = planner.plan(jax.random.key(1), planner.init(), goal(record))
    jax.effects_barrier()
    returns = -np.sum((seen[-1] - np.asarray(TARGET)) ** 2, axis=(1, 2))
    elite_mean = seen[-1][np.argsort(-returns)[:5]].mean(0)
    np.testing.assert_allclose(plan, elite_mean, atol=1e-6)
    assert np.abs(plan - seen[-1][np.argmax(returns)]).max() > 1e-3


def test_every_iteration_draws_fresh_samples():
    seen = []

    def record(key, actions):
        jax.debug.callback(lambda a: seen.append(np.asarray(a)), actions)
        return jnp.zeros(len(actions)), jnp.zeros((len(actions), 0)), {}

    planner = planners.cem(BOX, horizon=3, population=20, elites=20, iterations=2, alpha=1.0)
    planner.plan(jax.random.key(1), planner.init(), goal(record))
    jax.effects_barrier()
    assert len(seen) == 2
    assert not np.any(seen[0] == seen[1])


def test_samples_stay_inside_the_action_box():
    seen = []

    def record(key, actions):
        jax.debug.callback(lambda a: seen.append(np.asarray(a)), actions)
        return actions.sum((1, 2)), jnp.zeros((len(actions), 0)), {}

    planner = planners.cem(BOX, horizon=3, population=100, elites=10, iterations=14, std=3.0, min_variance=0.0)
    plan, _, _ = planner.plan(jax.random.key(1), planner.init(), goal(record))
    jax.effects_barrier()
    assert np.abs(np.stack(seen)).max() <= 1.0
    assert np.all(plan > 0.9)


def test_planets_cem_draws_beyond_the_box_clips_and_begins_anew():
    """A spread of 1 around 0.7: 4.5 % of the candidates are clipped to -1, where bounds let none be."""

    def returns(key, actions):
        return actions[:, 0, 0], jnp.zeros((len(actions), 0)), {"low": jnp.mean(actions[:, 1, 0] == -1.0)}

    options = {"horizon": 2, "population": 4000, "elites": 20, "iterations": 1, "alpha": 0.0, "std": 1.0}
    planner = planners.cem(BOX, **options, bounded=False, warm_start=False)
    plan, state, info = planner.plan(jax.random.key(0), planner.init() + 0.7, goal(returns))
    np.testing.assert_allclose(info["low"], 0.0446, atol=0.01)
    np.testing.assert_allclose(plan[0, 0], 1.0, rtol=1e-6)
    np.testing.assert_array_equal(planner.shift(state, 1), np.zeros((2, 2)))


@pytest.mark.parametrize("make", [planners.cem, planners.random_shooting])
def test_broken_returns_rank_last_even_when_all_rewards_are_negative(make):
    def broken(key, actions):
        returns, cost, info = quadratic(key, actions)
        return jnp.where(actions[:, 0, 0] > 0.2, jnp.nan, returns - 100.0), cost, info

    planner = make(BOX, horizon=3, population=200)
    plan, _, info = planner.plan(jax.random.key(0), planner.init(), goal(broken))
    assert info["nonfinite"] > 0
    assert plan[0, 0] <= 0.2
    assert np.all(np.isfinite(plan))


@pytest.mark.parametrize("make", [planners.cem, planners.random_shooting])
def test_the_plan_before_survives_when_every_return_is_broken(make):
    def nothing(key, actions):
        return jnp.full(len(actions), jnp.nan), jnp.zeros((len(actions), 0)), {}

    planner = make(BOX, horizon=3, population=50)
    before = 0.5 * TARGET
    plan, state, info = planner.plan(jax.random.key(0), before, goal(nothing))
    np.testing.assert_array_equal(plan, before)
    np.testing.assert_array_equal(state, before)
    assert info["nonfinite"] >= 50


@pytest.mark.parametrize("make", [planners.cem, planners.random_shooting])
def test_discrete_actions(make):
    planner = make(COINS, horizon=3, population=200)
    plan, state, _ = planner.plan(jax.random.key(0), planner.init(), goal(matches))
    np.testing.assert_array_equal(plan, WANTED)
    assert plan.dtype == jnp.int32
    assert jax.tree.structure(state) == jax.tree.structure(planner.init())


def test_shift_drops_what_was_executed():
    plan = jnp.asarray([[1.0], [2.0], [3.0]])
    np.testing.assert_array_equal(shift(plan, 1, 0.0), [[2.0], [3.0], [0.0]])
    np.testing.assert_array_equal(shift(plan, 2, 0.0), [[3.0], [0.0], [0.0]])
    np.testing.assert_array_equal(shift(plan, 5, 0.0), np.zeros((3, 1)))


def test_ranked_keeps_infinite_gains_and_sinks_nan():
    safe, broken = ranked(jnp.asarray([1.0, jnp.nan, -jnp.inf, -5.0]))
    np.testing.assert_array_equal(safe, [1.0, -np.inf, -np.inf, -5.0])
    assert broken == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"horizon": 2.5}, "horizon must be an integer, got 2.5"),
        ({"horizon": 3, "population": 10, "elites": 11}, "elites must be at most 10, got 11"),
        ({"horizon": 3, "elites": 0}, "elites must be at least 1, got 0"),
        ({"horizon": 3, "iterations": 0}, "iterations must be at least 1, got 0"),
        ({"horizon": 3, "alpha": 1.5}, "alpha must be at most 1.0, got 1.5"),
        ({"horizon": 3, "population": 1}, "population must be at least 2, got 1"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        planners.cem(BOX, **arguments)


def test_a_traced_horizon_is_refused():
    with pytest.raises(ValueError, match="horizon must be a static Python integer"):
        jax.jit(lambda h: planners.cem(BOX, horizon=h).init())(3)
