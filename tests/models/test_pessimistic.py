"""Pessimistic imagination: numbers worked out by hand, and every user of a model takes it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.worlds import CONTINUOUS, linear_replay, stated

from jmbrl import data, models, planners, rollout

KEY = jax.random.key(0)
BELIEFS = jnp.asarray([[0.0, 5.0, 5.0], [1.0, 5.0, 5.0], [2.0, 5.0, 5.0]])
ACTIONS = jnp.zeros((3, 1))


@pytest.mark.parametrize(("measure", "unit"), [("std", 7.0), ("pairwise", 5.0), ("spread", 2.5)])
def test_uncertainty_by_hand(measure, unit):
    model, params = stated()
    found = models.uncertainty(model, params, BELIEFS, ACTIONS, measure)
    np.testing.assert_allclose(found, [0.0, unit, 2 * unit], rtol=1e-6)


def test_units_of_the_entries():
    """Scaled by (1 / 4, 1 / 3) the distance is |(12, 12)|; the reward's 6 has no such unit: |(8, 9, 6)|."""
    model, params = stated()
    scale = jnp.asarray([0.25, 1 / 3])
    found = [models.uncertainty(model, params, BELIEFS, ACTIONS, m, scale)[1] for m in ("pairwise", "std", "spread")]
    np.testing.assert_allclose(found, [np.sqrt(288), np.sqrt(64 + 81 + 36), np.sqrt(72)], rtol=1e-6)


def test_mopo_subtracts_and_changes_nothing_else():
    model, params = stated()
    wrapped = models.pessimistic(model, penalty=0.5)
    plain, before = jax.jit(model.step_many)(KEY, params, BELIEFS, ACTIONS)
    following, after = jax.jit(wrapped.step_many)(KEY, params, BELIEFS, ACTIONS)
    np.testing.assert_array_equal(following, plain)
    np.testing.assert_allclose(after.reward, [0.0, 10 - 3.5, 20 - 7.0], rtol=1e-6)
    np.testing.assert_array_equal(after.discount, before.discount)
    expected = jax.jit(wrapped.expect)(params, BELIEFS, ACTIONS)[1].reward
    np.testing.assert_allclose(expected, after.reward, rtol=1e-6)
    one = jax.jit(wrapped.step)(KEY, params, BELIEFS[1], ACTIONS[1])[1]
    np.testing.assert_allclose(one.reward, after.reward[1], rtol=1e-6)


def test_morel_halts_beyond_its_threshold():
    model, params = stated()
    wrapped = models.pessimistic(model, "morel", penalty=100.0, threshold=5.0)
    following, outcome = wrapped.step_many(KEY, params, BELIEFS, ACTIONS)
    np.testing.assert_array_equal(outcome.reward, [0.0, 10.0, -100.0])  # 5 is not beyond 5
    np.testing.assert_allclose(outcome.discount, [0.9, 0.9, 0.0])
    np.testing.assert_array_equal(following, BELIEFS + 1)
    lost = wrapped.step(KEY, params, jnp.full(3, jnp.nan), ACTIONS[0])[1]
    assert (lost.reward, lost.discount) == (-100.0, 0.0)


@pytest.mark.parametrize(("quantile", "wanted"), [(1.0, 20.0), (0.5, 10.0), (0.25, 5.0)])
def test_a_threshold_from_the_data(quantile, wanted):
    """Beliefs 0 to 4 disagree by 0 to 20; two places of the ring are empty, and a third row arrived broken."""
    model, params = stated()
    obs = np.arange(6.0)[:, None] * np.ones((6, 3))
    log = data.from_arrays(obs, np.zeros((6, 1)), np.zeros(6), obs, np.zeros(6, bool), capacity=8)
    log = log._replace(valid=log.valid.at[5].set(False))
    found = jax.jit(models.uncertainty_quantile, static_argnums=0)(model, params, log, quantile)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_what_was_not_seen_is_less_certain():
    model = models.ensemble(models.linear(CONTINUOUS), 3)
    params = jax.jit(models.trainer_for(model).fit)(KEY, model.init(KEY), (), linear_replay(60, 0.1))[0]
    beliefs = jnp.asarray([[0.0] * 3, [20.0] * 3])
    known, unknown = models.uncertainty(model, params, beliefs, jnp.zeros((2, 1)), "pairwise")
    assert unknown > 5 * known


def test_a_planner_and_a_gradient_take_it():
    """With reward 10 x for going on from x, a planner that halts gets the penalty alone."""
    model, params = stated()
    halting = models.pessimistic(model, "morel", penalty=3.0, threshold=jnp.asarray(1.0))
    careful = rollout.objective(halting, params, BELIEFS[1])
    returns, _, _ = jax.jit(careful.returns)(KEY, jnp.zeros((4, 2, 1)))
    np.testing.assert_allclose(returns, -3.0)
    planner = planners.random_shooting(CONTINUOUS, horizon=2, population=4)
    plan, _, _ = jax.jit(lambda key: planner.plan(key, planner.init(), careful))(KEY)
    assert plan.shape == (2, 1)
    # -0.5 * 7 x has slope -3.5, and at x = 0, where all members agree, no slope that is not a number
    paying = models.pessimistic(model, penalty=0.5)
    slope = jax.jit(jax.grad(lambda x: paying.step(KEY, params, jnp.full(3, x), ACTIONS[0])[1].reward))
    np.testing.assert_allclose(slope(2.0), 10 - 3.5, rtol=1e-6)
    assert np.isfinite(slope(0.0))
    for measure in ("pairwise", "spread"):
        paying = models.pessimistic(model, penalty=0.5, measure=measure)
        grad = jax.grad(lambda x, paying=paying: paying.step(KEY, params, jnp.full(3, x), ACTIONS[0])[1].reward)
        assert np.isfinite(jax.jit(grad)(0.0))


def test_penalties_are_mapped_over():
    model, params = stated()

    def reward(penalty, threshold):
        wrapped = models.pessimistic(model, "morel", penalty=penalty, threshold=threshold)
        return wrapped.step_many(KEY, params, BELIEFS, ACTIONS)[1].reward[2]

    found = jax.vmap(reward)(jnp.asarray([1.0, 2.0, 3.0]), jnp.asarray([9.0, 11.0, 9.0]))
    np.testing.assert_array_equal(found, [-1.0, 20.0, -3.0])


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("mopi", {}, "kind must be one of mopo, morel; got 'mopi'"),
        ("mopo", {"measure": "max"}, "measure must be one of std, pairwise, spread; got 'max'"),
        ("mopo", {"threshold": 1.0}, "threshold must be None for mopo, which halts nowhere, got 1.0"),
        ("morel", {}, "threshold must be given for morel, got None"),
        ("morel", {"threshold": -1.0}, "threshold must be at least 0.0, got -1.0"),
        ("mopo", {"penalty": -1.0}, "penalty must be at least 0.0, got -1.0"),
        ("mopo", {"penalty": float("nan")}, "penalty must be finite"),
    ],
)
def test_bad_arguments_are_named(kind, change, message):
    with pytest.raises(ValueError, match=message):
        models.pessimistic(stated()[0], kind, **change)


def test_models_that_cannot_tell_are_refused():
    single = models.gaussian_mlp(CONTINUOUS, (4,))
    with pytest.raises(ValueError, match="measure 'pairwise' needs an ensemble"):
        models.pessimistic(single, "morel", threshold=1.0)
    with pytest.raises(ValueError, match="model must have predict"):
        models.pessimistic(single._replace(predict=None))
    params = single.init(KEY)
    alone = jax.jit(models.pessimistic(single).step_many)(KEY, params, BELIEFS, ACTIONS)[1].reward
    said = jax.vmap(single.predict, in_axes=(None, 0, 0))(params, BELIEFS, ACTIONS)
    norm = np.sqrt(np.sum(said.std**2, axis=1) + said.reward_std**2)
    np.testing.assert_allclose(alone, single.step_many(KEY, params, BELIEFS, ACTIONS)[1].reward - norm, rtol=1e-5)
