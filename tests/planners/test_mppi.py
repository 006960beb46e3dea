"""MPPI and PDDM against their formulas in NumPy, and the discrete form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import planners
from jmbrl.planners.mppi import MPPIState
from jmbrl.types import Continuous, Discrete, Objective, Spec

BOX = Spec("box", (2,), Continuous((-1.0, -1.0), (1.0, 1.0)), 10)
COINS = Spec("coins", (2,), Discrete(3), 10)
TARGET = jnp.asarray([[0.5, -0.3], [0.0, 0.8], [-0.9, 0.1]])
BEFORE = MPPIState(0.4 * TARGET, jnp.asarray([0.5, 0.5]))


FAST = {"xla_backend_optimization_level": 0}  # halves the time to compile
SEEN = []


def quadratic(actions):
    return -np.sum((actions - np.asarray(TARGET)) ** 2, axis=(1, 2))


@functools.cache
def compiled(filter):
    def plan(key, state, sigma, temperature, limit, beta):
        def evaluate(key, actions):
            jax.debug.callback(lambda a: SEEN.append(np.asarray(a, np.float64)), actions, ordered=True)
            returns = -jnp.sum((actions - TARGET) ** 2, axis=(1, 2))
            returns = jnp.where(actions[:, 0, 0] > limit, jnp.nan, returns)
            return returns, jnp.zeros((len(actions), 0)), {"clipped": jnp.zeros(())}

        goal = Objective(evaluate, lambda *a: None, None)
        beta = beta if filter else None
        planner = planners.mppi(BOX, horizon=3, population=50, sigma=sigma, temperature=temperature, filter=beta)
        return planner.plan(key, state, goal)

    return jax.jit(plan, compiler_options=FAST)


def planned(sigma=0.3, temperature=0.5, beta=None, limit=np.inf):
    """The plan, state, info and candidates; numbers are traced, as in a sweep."""
    SEEN.clear()
    key = jax.random.key(0)
    out = compiled(beta is not None)(key, BEFORE, sigma, temperature, limit, 1.0 if beta is None else beta)
    jax.effects_barrier()
    return *out, SEEN[0]


def test_one_update_by_hand():
    plan, state, info, v = planned(sigma=0.3, temperature=0.5)
    mean = np.asarray(BEFORE.mean, np.float64)
    np.testing.assert_allclose(v[0], mean, atol=1e-7)
    assert np.abs(v).max() <= 1.0
    epsilon = v - mean
    np.testing.assert_allclose(epsilon[1:, 0].std(), 0.3, rtol=0.25)
    loss = -quadratic(v) + 0.5 * np.sum(mean * epsilon, axis=(1, 2)) / 0.3**2
    weight = np.exp(-(loss - loss.min()) / 0.5)
    weight /= weight.sum()
    np.testing.assert_allclose(plan, mean + np.einsum("k,kta->ta", weight, epsilon), atol=1e-5)
    np.testing.assert_array_equal(plan, state.mean)
    np.testing.assert_allclose(info["effective"], 1 / np.sum(weight**2), rtol=1e-4)


def test_the_filtered_form_by_hand():
    # Nearly without noise n_t = beta mu_t + (1 - beta) n_{t-1}, from the action executed last, 0.5.
    n = planned(sigma=1e-6, beta=0.75)[3]
    last, wanted = np.asarray([0.5, 0.5]), []
    for row in np.asarray(BEFORE.mean):
        last = 0.75 * row + 0.25 * last
        wanted.append(last)
    np.testing.assert_allclose(n[1:], np.broadcast_to(wanted, (49, 3, 2)), atol=1e-4)
    # With noise: the weighted mean of the sequences themselves, by return alone.
    plan, _, _, n = planned(sigma=0.3, temperature=0.5, beta=0.75)
    weight = np.exp((quadratic(n) - quadratic(n).max()) / 0.5)
    np.testing.assert_allclose(plan, np.einsum("k,kta->ta", weight / weight.sum(), n), atol=1e-5)


@pytest.mark.parametrize("beta", [None, 0.7], ids=["mppi", "pddm"])
def test_sigma_and_temperature_change_the_plan(beta):
    base = planned(0.3, 0.5, beta)[0]
    assert np.abs(planned(0.6, 0.5, beta)[0] - base).max() > 0.02
    assert np.abs(planned(0.3, 0.05, beta)[0] - base).max() > 0.02


def test_a_low_temperature_takes_the_best_and_a_high_one_the_mean_of_all():
    cold, _, info, rows = planned(temperature=1e-6, beta=1.0)
    np.testing.assert_allclose(cold, rows[np.argmax(quadratic(rows))], atol=1e-5)
    np.testing.assert_allclose(info["effective"], 1.0, rtol=1e-4)
    hot, _, info, rows = planned(temperature=1e6, beta=1.0)
    np.testing.assert_allclose(hot, rows.mean(0), atol=1e-4)
    np.testing.assert_allclose(info["effective"], 50.0, rtol=1e-3)


def test_broken_returns_weigh_nothing():
    plan, _, info, _ = planned(limit=0.2)
    assert plan[0, 0] <= 0.2
    assert 0 < info["nonfinite"] < 50
    plan, state, info, _ = planned(limit=-np.inf)
    np.testing.assert_array_equal(plan, BEFORE.mean)
    np.testing.assert_array_equal(state.mean, BEFORE.mean)
    assert info["nonfinite"] == 50
    assert info["effective"] == 0


def test_shift_remembers_what_was_executed():
    planner = planners.mppi(BOX, horizon=3, filter=0.5)
    state = planner.shift(BEFORE, 2)
    np.testing.assert_allclose(state.before, BEFORE.mean[1])
    np.testing.assert_allclose(state.mean, [BEFORE.mean[2], [0, 0], [0, 0]])


def test_discrete_actions_by_hand():
    wanted = np.asarray([2, 0, 1])

    def matches(key, actions):
        jax.debug.callback(lambda a: SEEN.append(np.asarray(a)), actions, ordered=True)
        returns = jnp.sum(actions == wanted, axis=1).astype(jnp.float32)
        return returns, jnp.zeros((len(actions), 0)), {}

    planner = planners.mppi(COINS, horizon=3, population=60, temperature=0.5, sigma=0.2)
    goal = Objective(matches, lambda *a: None, None)
    plan_of = jax.jit(lambda state: planner.plan(jax.random.key(0), state, goal), compiler_options=FAST)
    SEEN.clear()
    _, state, _ = plan_of(planner.init())
    jax.effects_barrier()
    weight = np.exp(np.sum(SEEN[0] == wanted, axis=1) / 0.5)
    table = np.einsum("k,ktn->tn", weight / weight.sum(), np.eye(3)[SEEN[0]])
    np.testing.assert_allclose(state.mean, table, atol=1e-5)
    for _ in range(3):
        plan, state, _ = plan_of(state)
    np.testing.assert_array_equal(plan, wanted)
    np.testing.assert_allclose(jnp.sum(state.mean, axis=1), 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("spec", "arguments", "message"),
    [
        (BOX, {"temperature": 0.0}, "temperature must be at least 1e-09, got 0.0"),
        (BOX, {"sigma": -1.0}, "sigma must be at least 1e-06, got -1.0"),
        (BOX, {"filter": 1.5}, "filter must be at most 1.0, got 1.5"),
        (COINS, {"sigma": 2.0}, "sigma must be at most 1.0, got 2.0"),
        (COINS, {"filter": 0.5}, "filter smooths continuous actions, got Discrete"),
    ],
)
def test_bad_arguments_are_named(spec, arguments, message):
    with pytest.raises(ValueError, match=message):
        planners.mppi(spec, **arguments)
