"""Curiosity: numbers worked out by hand, and what it changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.worlds import CONTINUOUS, linear_replay, stated

from jmbrl import models, planners, rollout

KEY = jax.random.key(0)
BELIEFS = jnp.asarray([[0.0, 5.0, 5.0], [1.0, 5.0, 5.0], [2.0, 5.0, 5.0]])
ACTIONS = jnp.zeros((3, 1))
GAIN = np.log(1 + 2.25 / 2.5) + np.log(1 + 4.0 / 6.5)


def test_disagreement_by_hand():
    """The elites say (0, 0) and (3, 4) times the belief: variances 2.25 and 4; the third member is no elite."""
    model, params = stated()
    found = models.novelty(model, params, BELIEFS, ACTIONS)
    np.testing.assert_allclose(found, [0.0, 3.125, 4 * 3.125], rtol=1e-6)


def test_information_gain_by_hand_and_without_units():
    """Their noise is (1, 2) and (2, 3): mean squares 2.5 and 6.5. Twice of everything is as informative."""
    model, params = stated()
    found = models.novelty(model, params, BELIEFS, ACTIONS, "information_gain")
    np.testing.assert_allclose(found, [0.0, GAIN, GAIN], rtol=1e-6)
    scale = jnp.asarray([0.1, 7.0])
    found = models.novelty(model, params, BELIEFS, ACTIONS, "information_gain", scale=scale)
    np.testing.assert_allclose(found, [0.0, GAIN, GAIN], rtol=1e-5)
    found = models.novelty(model, params, BELIEFS, ACTIONS, scale=scale)
    np.testing.assert_allclose(found[1], (225 + 4 / 49) / 2, rtol=1e-6)


def test_a_floor_stands_for_the_noise_of_deterministic_members():
    model, params = stated()
    silent = params._replace(weights=(params.weights[0], 0 * params.weights[1], params.weights[2]))
    found = models.novelty(model, silent, BELIEFS, ACTIONS, "information_gain", noise=0.5)
    np.testing.assert_allclose(found[1], np.log(1 + 9.0) + np.log(1 + 16.0), rtol=1e-6)


def test_the_reward_is_the_weighted_sum_and_nothing_else_changes():
    model, params = stated()
    wrapped = models.curious(model, intrinsic=2.0, extrinsic=0.5)
    plain, before = jax.jit(model.step_many)(KEY, params, BELIEFS, ACTIONS)
    following, after = jax.jit(wrapped.step_many)(KEY, params, BELIEFS, ACTIONS)
    np.testing.assert_array_equal(following, plain)
    np.testing.assert_allclose(after.reward, [0.0, 6.25 + 5.0, 25.0 + 10.0], rtol=1e-6)
    np.testing.assert_array_equal(after.discount, before.discount)
    np.testing.assert_allclose(wrapped.expect(params, BELIEFS, ACTIONS)[1].reward, after.reward, rtol=1e-6)
    np.testing.assert_allclose(wrapped.step(KEY, params, BELIEFS[1], ACTIONS[1])[1].reward, after.reward[1], rtol=1e-6)


def test_a_planner_goes_where_the_members_disagree():
    """The belief's first entry grows by the action: disagreement, its square, is largest after going up all the way."""
    model, params = stated()

    def step_many(key, params, beliefs, actions):
        _following, outcome = model.step_many(key, params, beliefs, actions)
        return beliefs.at[:, 0].add(actions[:, 0]), outcome

    wrapped = models.curious(model._replace(step_many=step_many))
    goal = rollout.objective(wrapped, params, jnp.asarray([0.1, 0.0, 0.0]))
    planner = planners.cem(CONTINUOUS, horizon=3, population=64, elites=8, iterations=4)
    plan, _, _ = jax.jit(lambda key: planner.plan(key, planner.init(), goal))(KEY)
    assert np.all(plan[:2] > 0.8)  # what is done last is seen by nothing


def test_what_was_seen_often_is_novel_no_more():
    """An ensemble fitted to N(0, 1) disagrees more ten standard deviations away than within them."""
    model = models.ensemble(models.gaussian_mlp(CONTINUOUS, (16,), clip_range=None), 3)
    trainer = models.trainer(model, epochs=20)
    params = model.init(KEY)
    params, _, _ = jax.jit(trainer.fit)(KEY, params, trainer.init(params), linear_replay(200))
    near = 0.5 * jnp.ones((1, 3))
    look = jax.jit(models.novelty, static_argnums=(0, 4))
    for kind in ("disagreement", "information_gain"):
        inside, outside = (look(model, params, x, ACTIONS[:1], kind)[0] for x in (near, 20 * near))
        assert outside > 5 * inside, kind


def test_bad_settings_are_refused():
    model, _ = stated()
    with pytest.raises(ValueError, match="ensemble whose members"):
        models.curious(models.gaussian_mlp(CONTINUOUS, (4,)))
    with pytest.raises(ValueError, match="kind"):
        models.curious(model, "boredom")
    with pytest.raises(ValueError, match="noise"):
        models.curious(model, noise=0.0)
    with pytest.raises(ValueError, match="intrinsic"):
        models.curious(model, intrinsic=float("nan"))
