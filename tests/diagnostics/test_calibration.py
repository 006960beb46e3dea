"""Calibration further ahead, the map that mends it, and what an ensemble's spread is made of: exact Gaussian worlds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import data, diagnostics, models
from jmbrl.diagnostics.calibration import central
from jmbrl.models.recalibrated import apply_recalibration
from jmbrl.types import Model, Outcome, Params, Prediction, Sequence, Transition

KEY = jax.random.key(0)
HORIZON = 4


def world(windows=1500, noise=0.3, drift=0.0, length=HORIZON, seed=0):
    """Independent windows of x' = x + a / 2 + drift + noise, two entries of which the second is ten times as noisy."""
    rng = np.random.default_rng(seed)
    action = rng.uniform(-1, 1, (windows, length, 1))
    std = noise * np.asarray([1.0, 10.0])
    change = 0.5 * action + std * (rng.normal(size=(windows, length, 2)) + drift)
    start = rng.normal(size=(windows, 1, 2))
    after = start + np.cumsum(change, axis=1)
    before = np.concatenate([start, after[:, :-1]], axis=1)
    flags = jnp.zeros((windows, length), bool)
    rows = [jnp.asarray(x, jnp.float32) for x in (before, action, after[..., 0], after)]
    return Sequence(Transition(*rows, flags, flags), flags.at[:, 0].set(True), ~flags)


def walk(noise=0.3, clipped=False) -> Model:
    """The same world as a model that believes in ``noise``; the weight is a bias in units of it."""
    std = noise * jnp.asarray([1.0, 10.0])

    def mean(params, x, a):
        return x + 0.5 * a + params.weights * std

    def outcome(x):
        return Outcome(x[0], jnp.ones(()), jnp.zeros(0), jnp.asarray(clipped))

    def step(key, params, belief, action):
        after = mean(params, belief, action) + std * jax.random.normal(key, (2,))
        return after, outcome(after)

    def step_many(key, params, beliefs, actions):
        keys = jax.random.split(key, actions.shape[0])
        return jax.vmap(step, in_axes=(0, None, 0, 0))(keys, params, beliefs, actions)

    def expect(params, beliefs, actions):
        after = jax.vmap(mean, in_axes=(None, 0, 0))(params, beliefs, actions)
        return after, jax.vmap(outcome)(after)

    return Model(
        init=lambda key: Params(jnp.zeros(()), ()),
        initial=lambda params: jnp.zeros(2),
        encode=lambda key, params, belief, action, obs, is_first: obs,
        step=step,
        step_many=step_many,
        features=lambda params, belief: belief,
        decode=lambda params, belief: belief,
        loss=None,
        set_stats=lambda params, rows, mask: params,
        predict=lambda params, x, a: Prediction(mean(params, x, a), std, jnp.zeros(()), jnp.zeros(())),
        expect=expect,
    )


PLAIN = Params(jnp.zeros(()), ())


def by_horizon(model, params=PLAIN, **options):
    return diagnostics.calibration_by_horizon(KEY, model, params, world(), HORIZON, particles=99, **options)


# ------------------------------------------------------------------------------------ further ahead


def test_a_spread_of_twice_the_truth_covers_too_much_at_every_horizon_and_the_map_halves_it():
    model = walk(noise=0.6)
    before = by_horizon(model)
    # P(|z| <= 2 q) for q of 50, 80 and 95 %: tables of the normal distribution. Both spreads grow as sqrt(h).
    np.testing.assert_allclose(before["coverage"], np.tile([0.823, 0.990, 1.0], (HORIZON, 1)), atol=0.03)
    np.testing.assert_allclose(before["error"], np.full(HORIZON, (0.323 + 0.190 + 0.05) / 3), atol=0.02)
    mapping = diagnostics.recalibrate(KEY, model, PLAIN, world(4000, length=1, seed=1))
    np.testing.assert_allclose(mapping.std, [0.5, 0.5], rtol=0.035)  # 3 standard errors of 4000 rows
    np.testing.assert_array_equal(mapping.mean, [0.0, 0.0])
    mended = models.recalibrated(model, mapping)
    after = by_horizon(mended)
    np.testing.assert_allclose(after["coverage"], np.tile([0.5, 0.8, 0.95], (HORIZON, 1)), atol=0.04)
    np.testing.assert_allclose(after["spread"] / before["spread"], np.full(HORIZON, 0.5), rtol=0.05)
    assert after["count"].tolist() == [1500] * HORIZON


def test_an_exact_simulator_of_a_world_without_noise_always_covers_and_a_wrong_one_never():
    certain = world(40, noise=0.0)
    exact = diagnostics.calibration_by_horizon(KEY, walk(noise=0.0), PLAIN, certain, HORIZON, particles=39)
    np.testing.assert_array_equal(exact["coverage"], np.ones((HORIZON, 3)))
    np.testing.assert_allclose(exact["spread"], np.zeros(HORIZON), atol=1e-6)
    still = walk(noise=0.0)._replace(
        step_many=lambda key, params, beliefs, actions: (beliefs, walk().expect(params, beliefs, actions)[1])
    )
    wrong = diagnostics.calibration_by_horizon(KEY, still, PLAIN, certain, HORIZON, particles=39)
    np.testing.assert_array_equal(wrong["coverage"], np.zeros((HORIZON, 3)))


def test_each_window_meets_every_member_of_a_tsinf_ensemble():
    """Two certain members, biased by -1 and +1 in opposite directions: half of each window's particles on each side."""
    model = models.ensemble(walk(noise=0.0)._replace(step_many=biased_steps, step=None), 2, propagation="tsinf")
    params = model.init(KEY)._replace(weights=jnp.asarray([-1.0, 1.0]))
    found = diagnostics.calibration_by_horizon(
        KEY, model, params, world(20, noise=0.0), HORIZON, particles=40, levels=(0.5,)
    )
    np.testing.assert_array_equal(found["coverage"], np.ones((HORIZON, 1)))
    scale = np.std(world(20, noise=0.0).transition.next_obs, axis=(0, 1))
    np.testing.assert_allclose(found["spread"], np.arange(1, 5) * np.sqrt(np.mean(1 / scale**2)), rtol=1e-3)


def biased_steps(key, params, beliefs, actions):
    after = beliefs + 0.5 * actions + params.weights
    return after, walk().expect(PLAIN, beliefs, actions)[1]


def test_intervals_stand_at_the_order_statistics():
    fan = jnp.asarray([3.0, 1.0, 2.0])[:, None]
    # (P + 1) q = 1 and 3 for the level 1 / 2; 1.5 and 2.5 for 1 / 4.
    low, high = central(fan, jnp.asarray([0.5, 0.25]))
    np.testing.assert_allclose((low[:, 0], high[:, 0]), [[1.0, 1.5], [3.0, 2.5]])
    low, high = central(jnp.ones((1, 2)), jnp.asarray([0.5]))
    np.testing.assert_array_equal((low, high), np.ones((2, 1, 2)))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"particles must be at least 39 for the level 0.95, got 38"):
        diagnostics.calibration_by_horizon(KEY, walk(), PLAIN, world(2), 1, particles=38)
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        diagnostics.calibration_by_horizon(KEY, walk(), PLAIN, world(2), 0)
    with pytest.raises(ValueError, match="levels must be at most"):
        diagnostics.calibration_by_horizon(KEY, walk(), PLAIN, world(2), 1, levels=(1.0,))
    with pytest.raises(ValueError, match="method must be one of scale, quantile; got 'isotonic'"):
        diagnostics.recalibrate(KEY, walk(), PLAIN, world(2), method="isotonic")


# ------------------------------------------------------------------------------------ the map


def test_the_quantile_map_mends_bias_and_shape_too():
    """Truth: drift of one (true) standard deviation, noise half of what the model says; g(z) = 0.5 + z / 2."""
    real = world(noise=0.3, drift=1.0)
    mapping = diagnostics.recalibrate(KEY, walk(noise=0.6), PLAIN, real, method="quantile")
    np.testing.assert_allclose(mapping.mean, [0.5, 0.5], atol=0.05)
    np.testing.assert_allclose(mapping.std, [0.5, 0.5], rtol=0.06)
    np.testing.assert_allclose(mapping.values, 0.5 + 0.5 * np.tile(mapping.knots[:, None], 2), atol=0.07)
    mended = models.recalibrated(walk(noise=0.6), mapping)
    found = diagnostics.calibration_by_horizon(KEY, mended, PLAIN, real, HORIZON, particles=99)
    np.testing.assert_allclose(found["coverage"], np.tile([0.5, 0.8, 0.95], (HORIZON, 1)), atol=0.05)
    expected, _ = mended.expect(PLAIN, jnp.zeros((1, 2)), jnp.zeros((1, 1)))
    np.testing.assert_allclose(expected[0], 0.6 * np.asarray([1.0, 10.0]) * mapping.mean, rtol=1e-5)


def test_lines_between_the_knots_and_beyond_them():
    mapping = models.Recalibration(
        jnp.asarray([-1.0, 0.0, 1.0]), jnp.asarray([[-3.0], [0.0], [1.0]]), jnp.zeros(1), jnp.ones(1)
    )
    scores = jnp.asarray([[-2.0], [-0.5], [0.5], [4.0]])
    np.testing.assert_allclose(apply_recalibration(mapping, scores)[:, 0], [-6.0, -1.5, 0.5, 4.0], rtol=1e-6)


HALF = models.Recalibration(
    jnp.asarray([-1.0, 1.0]), jnp.asarray([[-0.5] * 2, [0.5] * 2]), jnp.zeros(2), jnp.full(2, 0.5)
)


def test_the_sample_moves_towards_the_mean_and_a_given_reward_sees_where_it_went():
    model, rows = walk(), (jnp.zeros((3, 2)), jnp.zeros((3, 1)))
    plain, _ = model.step_many(KEY, PLAIN, *rows)
    mended = models.recalibrated(model, HALF, lambda o, a, n: n[1], lambda o, a, n: n[1] > 0)
    moved, outcome = mended.step_many(KEY, PLAIN, *rows)
    np.testing.assert_allclose(moved, 0.5 * plain, rtol=1e-5)
    np.testing.assert_array_equal(outcome.reward, moved[:, 1])
    np.testing.assert_array_equal(outcome.discount, moved[:, 1] <= 0)
    one, _ = mended.step(KEY, PLAIN, rows[0][0], rows[1][0])
    np.testing.assert_allclose(one, 0.5 * model.step(KEY, PLAIN, rows[0][0], rows[1][0])[0], rtol=1e-5)
    np.testing.assert_allclose(mended.predict(PLAIN, jnp.zeros(2), jnp.zeros(1)).std, [0.15, 1.5], rtol=1e-6)


def test_clipped_rows_and_certain_entries_stay_where_they_are():
    rows = (jnp.zeros((3, 2)), jnp.zeros((3, 1)))
    for model in (walk(clipped=True), walk(noise=0.0)):
        plain, _ = model.step_many(KEY, PLAIN, *rows)
        np.testing.assert_array_equal(models.recalibrated(model, HALF).step_many(KEY, PLAIN, *rows)[0], plain)
    certain = diagnostics.recalibrate(KEY, walk(noise=0.0), PLAIN, world(20), method="quantile")
    np.testing.assert_array_equal(certain.std, [1.0, 1.0])
    np.testing.assert_array_equal(certain.values[:, 0], certain.knots)


def test_the_map_stretches_disagreement_as_it_does_noise():
    model = models.ensemble(walk(noise=0.3), 2)
    params = model.init(KEY)._replace(weights=jnp.asarray([-1.0, 1.0]))
    rows = (jnp.zeros((2000, 2)), jnp.zeros((2000, 1)))
    after, _ = models.recalibrated(model, HALF).step_many(KEY, params, *rows)
    # Mixture: variance 0.3^2 of the noise and 0.3^2 between members; its standard deviation halves.
    np.testing.assert_allclose(np.std(after, axis=0), 0.5 * np.sqrt(2) * np.asarray([0.3, 3.0]), rtol=0.05)


def test_what_cannot_be_recalibrated_is_refused():
    with pytest.raises(ValueError, match="recalibrated needs a model with predict"):
        models.recalibrated(walk()._replace(predict=None), HALF)
    three = HALF._replace(std=jnp.ones(3))
    with pytest.raises(ValueError, match=r"a belief that is the observation, float32\[N, 3\], got \(4, 2\)"):
        models.recalibrated(walk(), three).step_many(KEY, PLAIN, jnp.zeros((4, 2)), jnp.zeros((4, 1)))
    with pytest.raises(ValueError, match="model must have predict"):
        diagnostics.recalibrate(KEY, walk()._replace(predict=None), PLAIN, world(2))


# ------------------------------------------------------------------------------------ noise and ignorance


def test_total_variance_is_noise_and_disagreement_by_hand():
    """Members of std (0.3, 3) whose means stand at -1, 0 and 4 of these: epistemic 14/3 of the aleatoric variance."""
    model = models.ensemble(walk(), 3)
    params = model.init(KEY)._replace(weights=jnp.asarray([-1.0, 0.0, 4.0]))
    found = diagnostics.variance_shares(KEY, model, params, world(50))
    np.testing.assert_allclose(found["aleatoric"], [0.09, 9.0], rtol=1e-5)
    np.testing.assert_allclose(found["epistemic"], np.asarray([0.09, 9.0]) * 14 / 3, rtol=1e-4)
    np.testing.assert_allclose(found["epistemic_share"], [14 / 17] * 2, rtol=1e-5)
    np.testing.assert_allclose(found["total_share"], 14 / 17, rtol=1e-5)
    assert found["count"] == 50
    few = params._replace(stats=params.stats._replace(elites=jnp.asarray([0, 1])))
    np.testing.assert_allclose(diagnostics.variance_shares(KEY, model, few, world(50))["total_share"], 0.2, rtol=1e-5)


def test_members_that_agree_know_everything_and_one_model_alone_has_no_shares():
    model = models.ensemble(walk(), 2)
    found = diagnostics.variance_shares(KEY, model, model.init(KEY), world(10))
    np.testing.assert_allclose(found["epistemic_share"], [0.0, 0.0], atol=1e-12)
    for alone in (walk(), models.ensemble(walk()._replace(predict=None), 2)):
        with pytest.raises(ValueError, match="model must be an ensemble of models that predict"):
            diagnostics.variance_shares(KEY, alone, PLAIN, world(2))


def test_a_replay_is_as_good_as_sequences():
    rows = world(60).transition
    flat = jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), rows)
    last = np.tile(np.arange(HORIZON) == HORIZON - 1, 60)
    replay = data.from_arrays(flat.obs, flat.action, flat.reward, flat.next_obs, flat.terminated, last)
    found = diagnostics.calibration_by_horizon(KEY, walk(), PLAIN, replay, 2, windows=30, particles=39)
    assert found["count"].tolist() == [30, 30]
