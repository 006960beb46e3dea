"""iCEM: its noise, its memory between iterations and decisions, and what it executes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import planners
from jmbrl.networks import coloured_noise
from jmbrl.types import Continuous, Discrete, Objective, Spec

BOX = Spec("box", (2,), Continuous((-1.0, -1.0), (1.0, 1.0)), 10)
COINS = Spec("coins", (2,), Discrete(3), 10)
TARGET = jnp.asarray([[0.5, -0.3], [0.0, 0.8], [-0.9, 0.1]])
WANTED = jnp.asarray([2, 0, 1])


FAST = {"xla_backend_optimization_level": 0}  # halves the time to compile
USUAL = planners.icem(BOX, horizon=3)  # 40 candidates, then 32 and 25, and three of the ten elites
SEEN = []


def quadratic(actions):
    return -np.sum((actions - np.asarray(TARGET)) ** 2, axis=(1, 2))


def objective(limit):
    """Continuous: minus the squared distance to ``TARGET``, NaN beyond ``limit``. Discrete: matches with ``WANTED``."""

    def evaluate(key, actions):
        jax.debug.callback(lambda a: SEEN.append(np.asarray(a)), actions, ordered=True)
        if actions.ndim == 2:
            returns = jnp.sum(actions == WANTED, axis=1).astype(jnp.float32)
        else:
            returns = -jnp.sum((actions - TARGET) ** 2, axis=(1, 2))
            returns = jnp.where(actions[:, 0, 0] > limit, jnp.nan, returns)
        return returns, jnp.zeros((len(actions), 0)), {"clipped": jnp.zeros(())}

    return Objective(evaluate, lambda *a: None, None)


@functools.cache
def compiled(planner):
    return jax.jit(lambda key, state, limit: planner.plan(key, state, objective(limit)), compiler_options=FAST)


def planned(planner, state, limit=np.inf, seed=0):
    """The plan, state, info and the candidates of each iteration."""
    SEEN.clear()
    out = compiled(planner)(jax.random.key(seed), state, limit)
    jax.effects_barrier()
    return *out, list(SEEN)


@pytest.mark.parametrize(("steps", "beta"), [(30, 0.0), (30, 2.0), (25, 0.25)])
def test_coloured_noise_has_the_variance_of_its_formula(steps, beta):
    frequency = np.maximum(np.arange(steps // 2 + 1), 1) / steps
    power = frequency**-beta
    inner = power[1:].copy()
    inner[-1] *= 0.25 if steps % 2 == 0 else 1.0
    wanted = 1 + power[0] / (4 * inner.sum())  # the mean of the series is drawn too, and not counted by sigma
    noise = np.asarray(coloured_noise(jax.random.key(0), beta, (20_000, steps)), np.float64)
    np.testing.assert_allclose(noise.mean(), 0.0, atol=0.02)
    np.testing.assert_allclose(np.mean(noise**2), wanted, rtol=0.03)
    np.testing.assert_allclose(np.var(noise - noise.mean(1, keepdims=True)), 1.0, rtol=0.03)


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.5])
def test_coloured_noise_has_the_slope_of_its_colour(beta):
    noise = coloured_noise(jax.random.key(1), beta, (5, 400, 64))
    power = np.mean(np.abs(np.fft.rfft(np.asarray(noise, np.float64))) ** 2, axis=(0, 1))[1:-1]
    slope = np.polyfit(np.log(np.arange(1, 32)), np.log(power), 1)[0]
    np.testing.assert_allclose(slope, -beta, atol=0.06)


def test_coloured_noise_of_one_step_is_normal():
    noise = coloured_noise(jax.random.key(1), 2.0, (4000, 1))
    np.testing.assert_allclose(np.var(noise), 1.0, rtol=0.1)


def test_populations_shrink_and_what_was_good_is_asked_about_again():
    plan, state, info, seen = planned(USUAL, USUAL.init())
    assert [len(rows) for rows in seen] == [43, 35, 28]
    assert max(np.abs(rows).max() for rows in seen) == 1.0  # clipped to the box, not cut
    score = [quadratic(rows) for rows in seen]
    for before, after in ((0, 1), (1, 2)):
        best = seen[before][np.argsort(-score[before])[:3]]
        np.testing.assert_array_equal(seen[after][-3:], best)
    np.testing.assert_array_equal(plan, seen[2][np.argmax(score[2])])  # the best of the last, not the mean
    np.testing.assert_allclose(info["return"], score[2].max(), rtol=1e-5)
    np.testing.assert_array_equal(state.elites, seen[2][np.argsort(-score[2])[:3]])
    assert np.all(state.valid)


def test_the_last_iteration_asks_about_the_mean():
    planner = planners.icem(BOX, horizon=3, population=20, elites=4, iterations=2, alpha=0.25, keep=0.0)
    _, state, _, seen = planned(planner, planner.init())
    assert len(seen[1]) == 16
    mean = 0.75 * seen[0][np.argsort(-quadratic(seen[0]))[:4]].mean(0)  # alpha times the first mean, 0, falls out
    np.testing.assert_allclose(seen[1][0], mean, atol=1e-6)
    last = seen[1][np.argsort(-quadratic(seen[1]))[:4]].mean(0)
    np.testing.assert_allclose(state.mean, 0.25 * mean + 0.75 * last, atol=1e-6)


def test_the_next_decision_begins_with_the_shifted_elites_and_a_fresh_end():
    first = USUAL.init()
    assert not np.any(first.valid)
    state = planned(USUAL, first)[1]
    shifted = USUAL.shift(state, 1)
    np.testing.assert_array_equal(shifted.mean, state.mean[jnp.asarray([1, 2, 2])])
    one, two = (planned(USUAL, shifted, seed=seed)[3][0][-3:] for seed in (1, 2))
    np.testing.assert_array_equal(one[:, :2], np.asarray(state.elites)[:, 1:])
    np.testing.assert_array_equal(two[:, :2], np.asarray(state.elites)[:, 1:])
    assert np.all(one[:, 2] != two[:, 2])  # drawn anew, by the key
    twice = planned(USUAL, USUAL.shift(USUAL.shift(state, 1), 1))[3][0][-3:]
    np.testing.assert_array_equal(twice[:, 0], np.asarray(state.elites)[:, 2])
    assert np.all(twice[:, 1] != 0)


def test_broken_returns_rank_last_and_the_mean_survives_when_all_are_broken():
    plan, _, info, _ = planned(USUAL, USUAL.init(), limit=0.2)
    assert info["nonfinite"] > 0
    assert plan[0, 0] <= 0.2
    before = USUAL.init()._replace(mean=0.5 * TARGET)
    plan, state, info, _ = planned(USUAL, before, limit=-np.inf)
    np.testing.assert_array_equal(plan, before.mean)
    np.testing.assert_array_equal(state.mean, before.mean)
    assert not np.any(state.valid)
    assert info["nonfinite"] == 43 + 35 + 28


def test_discrete_actions():
    planner = planners.icem(COINS, horizon=3, population=60)
    plan, state, *_ = planned(planner, planner.init())
    np.testing.assert_array_equal(plan, WANTED)
    seen = planned(planner, planner.shift(state, 1), seed=1)[3]
    np.testing.assert_array_equal(seen[0][-3:, :2], np.asarray(state.elites)[:, 1:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"population": 10, "elites": 11}, "elites must be at most 10, got 11"),
        ({"decay": 0.5}, "decay must be at least 1.0, got 0.5"),
        ({"keep": 1.5}, "keep must be at most 1.0, got 1.5"),
        ({"beta": -1.0}, "beta must be at least 0.0, got -1.0"),
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        planners.icem(BOX, **arguments)
