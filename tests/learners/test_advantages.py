"""Returns, advantages and baselines against numbers worked by hand and plain float64 loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learners.on_policy_probes import FAST

from jmbrl.learners import gae, returns
from jmbrl.learners.advantages import elapsed, paths, settle, standardised, weighted_mean
from jmbrl.learners.baselines import linear_baseline, network_baseline, shuffled
from jmbrl.types import Transition

R = jnp.asarray([1.0, 2.0, 3.0])
V, NEXT = jnp.asarray([0.5, 1.0, 2.0]), jnp.asarray([1.0, 2.0, 4.0])
NO = jnp.zeros(3, bool)
MIDDLE = jnp.asarray([False, True, False])

# By hand, gamma = 0.5. delta = r + 0.5 V' - V = [1 + 0.5 - 0.5, 2 + 1 - 1, 3 + 2 - 2] = [1, 2, 3].
# lambda = 0.5, so gamma lambda = 0.25: A2 = 3, A1 = 2 + 0.25 * 3 = 2.75, A0 = 1 + 0.25 * 2.75 = 1.6875.
# lambda = 1: A2 = 3, A1 = 2 + 1.5 = 3.5, A0 = 1 + 1.75 = 2.75.
# Termination in the middle: delta1 = 2 - 1 = 1 and A1 = 1; A0 = 1 + 0.25 = 1.25. A time limit: A1 = 2; A0 = 1.5.
# gamma = 1, lambda = 1: delta = [1.5, 3, 5]; A2 = 5, A1 = 8, A0 = 9.5.


@pytest.mark.parametrize(
    ("terminated", "truncated", "gamma", "lam", "wanted"),
    [
        (NO, NO, 0.5, 0.5, [1.6875, 2.75, 3.0]),
        (NO, NO, 0.5, 0.0, [1.0, 2.0, 3.0]),
        (NO, NO, 0.5, 1.0, [2.75, 3.5, 3.0]),
        (NO, NO, 1.0, 1.0, [9.5, 8.0, 5.0]),
        (MIDDLE, NO, 0.5, 0.5, [1.25, 1.0, 3.0]),
        (NO, MIDDLE, 0.5, 0.5, [1.5, 2.0, 3.0]),
        (MIDDLE, NO, 0.5, 1.0, [1.5, 1.0, 3.0]),
        (NO, MIDDLE, 1.0, 1.0, [4.5, 3.0, 5.0]),
    ],
)
def test_advantages_by_hand(terminated, truncated, gamma, lam, wanted):
    np.testing.assert_allclose(gae(R, V, NEXT, terminated, truncated, gamma, lam), wanted, rtol=1e-6)


# By hand, gamma = 0.5: R2 = 3 + 0.5 * 4 = 5; R1 = 2 + 2.5 = 4.5; R0 = 1 + 2.25 = 3.25. Termination in the middle:
# R1 = 2, R0 = 2. A time limit there: R1 = 2 + 0.5 * 2 = 3, R0 = 2.5.
@pytest.mark.parametrize(
    ("terminated", "truncated", "wanted"),
    [(NO, NO, [3.25, 4.5, 5.0]), (MIDDLE, NO, [2.0, 2.0, 5.0]), (NO, MIDDLE, [2.5, 3.0, 5.0])],
)
def test_returns_by_hand(terminated, truncated, wanted):
    np.testing.assert_allclose(returns(R, NEXT, terminated, truncated, 0.5), wanted, rtol=1e-6)


def test_what_follows_the_end_may_be_anything():
    infinite = jnp.where(MIDDLE, jnp.nan, NEXT)
    np.testing.assert_allclose(gae(R, V, infinite, MIDDLE, NO, 0.5, 0.5), [1.25, 1.0, 3.0], rtol=1e-6)
    np.testing.assert_allclose(returns(R, infinite, MIDDLE, NO, 0.5), [2.0, 2.0, 5.0], rtol=1e-6)


def test_with_lambda_one_advantage_and_value_are_the_return():
    # Where V' is the value of the next row, which it is inside a path.
    value = jnp.asarray([0.3, -1.0, 2.0])
    following = jnp.asarray([-1.0, 2.0, 7.0])
    both = gae(R, value, following, NO, NO, 0.9, 1.0) + value
    np.testing.assert_allclose(both, returns(R, following, NO, NO, 0.9), rtol=1e-6)


def test_many_paths_at_once_are_each_alone():
    wide = [jnp.stack([x, x[::-1]], axis=1) for x in (R, V, NEXT, MIDDLE, NO)]
    both = gae(*wide, 0.5, 0.5)
    np.testing.assert_allclose(both[:, 0], [1.25, 1.0, 3.0], rtol=1e-6)
    np.testing.assert_allclose(both[:, 1], gae(R[::-1], V[::-1], NEXT[::-1], MIDDLE, NO, 0.5, 0.5), rtol=1e-6)


def test_time_begins_anew_after_an_end():
    np.testing.assert_array_equal(elapsed(jnp.asarray([False, False, True, False, True, True])), [0, 1, 2, 0, 1, 0])


def rows(time=3, batch=2):
    obs = jnp.arange(time * batch, dtype=jnp.float32).reshape(time, batch, 1)
    flag = jnp.zeros((time, batch), bool)
    return Transition(obs, obs, obs[..., 0], obs + 1, flag, flag)


def test_rows_that_do_not_count_are_zero_and_the_trace_is_cut_before_them():
    data = rows()
    data = data._replace(obs=data.obs.at[1, 0].set(jnp.nan))
    mask = jnp.ones((3, 2), bool).at[1, 0].set(False)
    seen, weight = paths(data, mask, 1, "test")
    np.testing.assert_array_equal(seen.obs[..., 0], [[0, 1], [0, 3], [4, 5]])
    np.testing.assert_array_equal(seen.truncated, [[True, False], [False, False], [False, False]])
    np.testing.assert_array_equal(weight, [[1, 1], [0, 1], [1, 1]])


def test_features_of_another_width_and_rows_without_time_are_refused():
    with pytest.raises(ValueError, match=r"obs has shape \(3, 2, 1\), but test \(time, batch, features\) says"):
        paths(rows(), None, 4, "test")
    with pytest.raises(ValueError, match=r"obs has shape \(2, 1\), but test"):
        paths(jax.tree.map(lambda x: x[0], rows()), None, 1, "test")


def test_statistics_count_the_rows_that_count():
    x, weight = jnp.asarray([1.0, 3.0, 100.0]), jnp.asarray([1.0, 1.0, 0.0])
    assert weighted_mean(x, weight) == 2.0
    np.testing.assert_allclose(standardised(x, weight)[:2], [-1.0, 1.0], rtol=1e-6)
    assert weighted_mean(x, jnp.zeros(3)) == 0.0
    np.testing.assert_array_equal(standardised(jnp.full(3, 7.0), jnp.ones(3)), [0.0, 0.0, 0.0])


def test_an_update_from_no_rows_is_none():
    kept, health = settle(jnp.ones(2), jnp.zeros(2), jnp.zeros(()), jnp.zeros(()), jnp.zeros(4))
    np.testing.assert_array_equal(kept, [0.0, 0.0])
    assert all(count == 0 for count in health.values())
    kept, health = settle(jnp.ones(2), jnp.zeros(2), jnp.zeros(()), jnp.zeros(()), jnp.ones(4))
    np.testing.assert_array_equal(kept, [1.0, 1.0])
    assert (health["updates"], health["skipped"]) == (1, 0)


# ------------------------------------------------------------------------------------- baselines


def test_each_epoch_goes_through_the_rows_once():
    order = np.asarray(shuffled(jax.random.key(0), 10, 3, 4)).reshape(3, 8)
    assert all(len(set(epoch)) == 8 and set(epoch) <= set(range(10)) for epoch in order.tolist())
    assert not np.array_equal(order[0], order[1])


def rllab(x, time):
    """The columns in float64, as the papers list them."""
    x, tau = np.clip(np.asarray(x, np.float64), -10, 10), np.asarray(time, np.float64)[:, None] / 100
    return np.concatenate([x, x**2, tau, tau**2, tau**3, np.ones_like(tau)], axis=1)


def test_the_linear_baseline_is_the_least_squares_solution():
    keys = jax.random.split(jax.random.key(0), 3)
    x, time = 3.0 * jax.random.normal(keys[0], (400, 2)), jnp.tile(jnp.arange(100), 4)
    target = 50.0 + 3.0 * x[:, 0] - x[:, 1] ** 2 + time / 10 + jax.random.normal(keys[1], (400,))
    weight = (jnp.arange(400) < 300).astype(jnp.float32)
    target = jnp.where(weight > 0, target, 1e4)
    baseline = linear_baseline(2, ridge=1e-8)
    state, loss = jax.jit(baseline.fit, compiler_options=FAST)(keys[2], baseline.init(keys[2]), x, time, target, weight)
    phi, y = rllab(x, time)[:300], np.asarray(target, np.float64)[:300]
    wanted = phi @ np.linalg.lstsq(phi, y, rcond=None)[0]
    np.testing.assert_allclose(baseline.values(state, x, time)[:300], wanted, atol=0.02)
    np.testing.assert_allclose(loss, np.mean((wanted - y) ** 2), rtol=1e-3)
    assert np.all(baseline.values(baseline.init(keys[2]), x, time) == 0)


def test_the_linear_baseline_survives_columns_that_are_all_the_same():
    x, time = jnp.ones((50, 2)), jnp.zeros(50, jnp.int32)
    baseline = linear_baseline(2)
    state, _ = baseline.fit(jax.random.key(0), jnp.zeros(8), x, time, jnp.full(50, 3.0), jnp.ones(50))
    np.testing.assert_allclose(baseline.values(state, x, time), 3.0, rtol=1e-3)


def test_the_network_baseline_learns_a_function_of_the_observation():
    baseline = network_baseline(1, hidden=(16,), learning_rate=1e-2, epochs=400, batch_size=64)
    x = jnp.linspace(-1, 1, 256)[:, None]
    weight = (x[:, 0] < 0.8).astype(jnp.float32)
    target = jnp.where(weight > 0, x[:, 0] ** 2, 1e4)  # what does not count is not learned
    time = jnp.zeros(256, jnp.int32)
    state, _ = jax.jit(baseline.fit, compiler_options=FAST)(
        jax.random.key(1), baseline.init(jax.random.key(0)), x, time, target, weight
    )
    np.testing.assert_allclose(baseline.values(state, x, time)[:230], x[:230, 0] ** 2, atol=0.08)
