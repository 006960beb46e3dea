"""Detection of a change: worked by hand, and run lengths against Siegmund's formula and an integral equation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import models
from jmbrl.models.change import change_detector, run_length, threshold, watch
from jmbrl.types import Continuous, Prediction, Spec, Transition

SPEC = Spec("toy", (2,), Continuous((-1.0,), (1.0,)), 10)


def followed(detector, numbers):
    """Statistic, since and alarm after each number."""
    step = jax.jit(detector.update)
    state, out = detector.init(), []
    for x in numbers:
        state, alarm = step(state, jnp.float32(x))
        out.append((round(float(state.statistic), 4), int(detector.since(state)), bool(alarm)))
    return out


def test_pages_sum_by_hand():
    limit = 3.0
    detector = models.cusum(run_length(limit, 1.0), shift=1.0, reference=0)
    # Sums of x - 1/2, never below 0; once over 3 it stays, and only counts on.
    found = followed(detector, [1.0, -2.0, 0.5, 1.0, 2.0, 2.0, -9.0])
    assert found == [
        (0.5, 1, False), (0.0, 0, False), (0.0, 0, False), (0.5, 1, False), (2.0, 2, False), (3.5, 3, True),
        (3.5, 4, True),
    ]  # fmt: skip


def test_its_own_mean_and_spread_by_hand():
    detector = models.cusum(run_length(3.0, 1.0), shift=1.0, reference=3)
    # 1, 2, 3 have mean 2 and standard deviation 1: 5 scores 3, over which the sum gains 2.5. Then the mean is 11/4,
    # the squares sum to 8.75 and 6 scores 3.25 / sqrt(8.75 / 3).
    found = followed(detector, [1.0, 2.0, 3.0, 5.0, 6.0])
    assert found[:4] == [(0.0, 0, False)] * 3 + [(2.5, 1, False)]
    np.testing.assert_allclose(found[4][0], 2.5 + 3.25 / np.sqrt(8.75 / 3) - 0.5, atol=2e-4)
    assert found[4][1:] == (2, True)
    assert followed(detector, [1.0, 2.0, 3.0, 99.0])[-1] == (4.5, 1, True)  # one number counts 5 at most
    assert followed(detector, [7.0] * 6)[-1] == (0.0, 0, False)  # what never varied surprises nobody


def test_false_alarms_come_as_seldom_as_promised():
    # The integral equation of the chart with k = 1/2 (Page 1954, equation 4) gives 117.6, 335.4 and 930.9.
    for limit, exact in ((3.0, 117.6), (4.0, 335.4), (5.0, 930.9)):
        np.testing.assert_allclose(run_length(limit, 1.0), exact, rtol=0.03)
        np.testing.assert_allclose(threshold(run_length(limit, 1.0), 1.0), limit, atol=1e-6)
    detector = models.cusum(335.4, shift=1.0, reference=0)

    def first_alarm(key):
        """Steps to the alarm, or 4,000: one run of 150,000 is as long."""
        alarms = jax.lax.scan(detector.update, detector.init(), jax.random.normal(key, (4_000,)))[1]
        return jnp.where(alarms[-1], 1 + jnp.argmax(alarms), 4_000)

    steps = jax.jit(jax.vmap(first_alarm))(jax.random.split(jax.random.key(0), 2_000))
    # The standard error is 335 / sqrt(2,000) = 7.5.
    np.testing.assert_allclose(jnp.mean(steps.astype(jnp.float32)), 335.4, atol=30)


def test_a_shift_is_found_soon_and_its_place_is_estimated():
    detector = models.cusum(1e6, shift=1.0, reference=100)
    noise = jax.random.normal(jax.random.key(1), (64, 500)) * 3 + 7  # not standard: the reference teaches it
    shifted = noise.at[:, 400:].add(6.0)  # by two standard deviations
    run = jax.jit(jax.vmap(lambda x: jax.lax.scan(detector.update, detector.init(), x)))
    ends, alarms = run(shifted)
    assert not bool(alarms[:, :400].any())
    delay = 1 + np.argmax(np.asarray(alarms[:, 400:]), axis=1)
    assert bool(alarms[:, -1].all())
    assert 4 < np.mean(delay) < 14  # h / (2 - 1/2) = 8 at the shift of two
    assert np.mean(np.abs(np.asarray(jax.vmap(detector.since)(ends)) - 100)) < 3


def test_unknown_numbers_only_count():
    detector = models.cusum(run_length(3.0, 1.0), shift=1.0, reference=0)
    known = jnp.asarray([True, False, True])
    state, alarm = watch(detector, detector.init(), jnp.asarray([3.0, jnp.nan, 2.0]), known)
    np.testing.assert_allclose(state.statistic, 2.5 - 0.5 + 1.5)
    assert bool(alarm)
    state, alarm = watch(models.always(), models.always().init(), jnp.zeros(3), known)
    assert bool(alarm)
    assert int(models.always().since(state)) == 3


def oracle(std, reward_std=0.0):
    """Predicts 0 with a given spread."""
    said = Prediction(jnp.zeros(2), jnp.asarray(std), jnp.zeros(()), jnp.asarray(reward_std))
    model = models.gaussian_mlp(SPEC, hidden=(4,), reward=lambda *row: 0.0)
    return model._replace(predict=lambda params, belief, action: said), model.init(jax.random.key(0))


def rows_of(obs, reward):
    n = len(reward)
    flag = jnp.zeros(n, bool)
    return Transition(jnp.zeros((n, 2)), jnp.zeros((n, 1)), jnp.asarray(reward), jnp.asarray(obs), flag, flag)


def test_surprise_by_hand_and_standard_where_the_model_is_right():
    rows = rows_of([[2.0, 4.0], [0.0, 0.0]], [3.0, 0.0])
    # q / D = (1 + 4) / 2, D = 2: (2.5^(1/3) - 8/9) * 3; with the reward (1 + 4 + 9) / 3 and (14/3)^(1/3), D = 3.
    np.testing.assert_allclose(
        models.surprise(*oracle([2.0, 2.0]), rows), [3 * (2.5 ** (1 / 3) - 8 / 9), -8 / 3], rtol=1e-5
    )
    wanted = ((14 / 3) ** (1 / 3) - 25 / 27) / np.sqrt(2 / 27)
    np.testing.assert_allclose(models.surprise(*oracle([2.0, 2.0], 1.0), rows)[0], wanted, rtol=1e-5)
    # One entry certain: the other alone. All certain: nothing can be said.
    alone = (2 ** (2 / 3) - 7 / 9) / np.sqrt(2 / 9)
    np.testing.assert_allclose(models.surprise(*oracle([0.0, 2.0]), rows)[0], alone, rtol=1e-5)
    np.testing.assert_array_equal(models.surprise(*oracle([0.0, 0.0]), rows), [0.0, 0.0])
    noise = 0.5 * jax.random.normal(jax.random.key(2), (20_000, 2))
    seen = models.surprise(*oracle([0.5, 0.5]), rows_of(noise, jnp.zeros(20_000)))
    np.testing.assert_allclose([jnp.mean(seen), jnp.std(seen)], [0.0, 1.0], atol=0.03)


def test_bad_settings_are_refused():
    for options, message in (
        ({"shift": 0.0}, "shift must be at least"),
        ({"clip": 1.0}, "clip must be at least 2"),
        ({"reference": 1}, "at least 2, got 1"),
        ({"false_alarm_every": 0.5}, "false_alarm_every must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            models.cusum(**options)
    with pytest.raises(ValueError, match="change must be one of cusum, always"):
        change_detector("cumsum")
    assert change_detector(None) is None
    with pytest.raises(ValueError, match="needs a model with predict"):
        models.surprise(oracle([1.0, 1.0])[0]._replace(predict=None), None, None)
