"""Lambda-returns and the range of returns against numbers worked by hand and plain float64 loops."""

import jax
import jax.numpy as jnp
import numpy as np
from learners.on_policy_probes import FAST

from jmbrl.learners import ReturnScale, lambda_returns, return_scale

R, V = jnp.asarray([1.0, 2.0, 3.0]), jnp.asarray([4.0, 6.0, 8.0])
observe = jax.jit(return_scale.observe, compiler_options=FAST)
returns_of = jax.jit(lambda_returns, compiler_options=FAST)
FULL, CUT = jnp.asarray([0.5, 0.5, 0.5]), jnp.asarray([0.5, 0.0, 0.5])

# By hand. The last row: 3 + 0.5 * 8 = 7, whatever lambda.
# lambda = 0: 2 + 0.5 * 6 = 5, 1 + 0.5 * 4 = 3. lambda = 1: 2 + 0.5 * 7 = 5.5, 1 + 0.5 * 5.5 = 3.75.
# lambda = 0.5: 2 + 0.5 (3 + 3.5) = 5.25, 1 + 0.5 (2 + 2.625) = 3.3125.
# An end after row 1: 2; then 1 + 0.5 * 4 = 3, 1 + 0.5 * 2 = 2 and 1 + 0.5 (2 + 1) = 2.5.


def test_lambda_returns_by_hand():
    wanted = {
        (False, 0.0): [3.0, 5.0, 7.0],
        (False, 1.0): [3.75, 5.5, 7.0],
        (False, 0.5): [3.3125, 5.25, 7.0],
        (True, 0.0): [3.0, 2.0, 7.0],
        (True, 1.0): [2.0, 2.0, 7.0],
        (True, 0.5): [2.5, 2.0, 7.0],
    }
    discount = jnp.stack([CUT if cut else FULL for cut, _ in wanted], axis=1)
    lam = jnp.asarray([lam for _, lam in wanted])
    got = returns_of(R[:, None], discount, V[:, None], lam)
    np.testing.assert_allclose(got.T, list(wanted.values()), rtol=1e-6)


def test_one_row_bootstraps():
    np.testing.assert_allclose(returns_of(R[:1], FULL[:1], V[:1], 0.95), [3.0], rtol=1e-6)


def test_lambda_returns_against_a_backward_loop():
    rng = np.random.default_rng(0)
    reward, value = rng.normal(size=(2, 37, 4))
    discount = 0.997 * (rng.random((37, 4)) > 0.1)
    lam = 0.95
    wanted = np.zeros((37, 4))
    following = value[-1]
    for t in reversed(range(37)):
        bootstrap = value[t] if t == 36 else (1 - lam) * value[t] + lam * following
        following = wanted[t] = reward[t] + discount[t] * bootstrap
    got = returns_of(*(jnp.asarray(x, jnp.float32) for x in (reward, discount, value)), lam)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_gradients_of_lambda_returns():
    # By hand at lambda = 0.5: dR0/dr = [1, 0.25, 0.0625], dR0/dv = [0.25, 0.0625, 0.03125] (the last weighs wholly).
    gradients = jax.grad(lambda r, v: lambda_returns(r, FULL, v, 0.5)[0], (0, 1))
    by_reward, by_value = jax.jit(gradients, compiler_options=FAST)(R, V)
    np.testing.assert_allclose(by_reward, [1.0, 0.25, 0.0625], rtol=1e-6)
    np.testing.assert_allclose(by_value, [0.25, 0.0625, 0.03125], rtol=1e-6)


def test_the_range_of_returns_by_hand():
    # 0, 1, ..., 100: the percentiles are 5 and 95; the state moves by a hundredth of the way.
    returns = jnp.asarray(np.random.default_rng(1).permutation(101.0 * np.arange(101) / 101).reshape(1, 101))
    state = observe(return_scale.none_seen(), returns)
    np.testing.assert_allclose(state, [0.05, 0.95], rtol=1e-5)
    assert return_scale.scale(state) == 1.0  # a range of 0.9: not scaled up
    state = observe(state, returns)
    np.testing.assert_allclose(state, [0.0995, 1.8905], rtol=1e-5)  # 0.99 * 0.05 + 0.05, 0.99 * 0.95 + 0.95
    np.testing.assert_allclose(return_scale.scale(state), 1.791, rtol=1e-5)
    # Between two returns: of [10, 30] the percentiles are 11 and 29.
    state = observe(return_scale.none_seen(), jnp.asarray([30.0, 10.0]))
    np.testing.assert_allclose(state, [0.11, 0.29], rtol=1e-5)


def test_returns_without_weight_do_not_count():
    rng = np.random.default_rng(2)
    returns, weight = rng.normal(size=(2, 6, 5)).astype(np.float32)
    weight = np.maximum(weight, 0)
    old = ReturnScale(jnp.asarray(-3.0), jnp.asarray(5.0))
    state = observe(old, jnp.where(weight > 0, returns, jnp.nan), jnp.asarray(weight))
    low, high = np.percentile(returns[weight > 0], [5, 95])
    np.testing.assert_allclose(state, [0.99 * -3 + 0.01 * low, 0.99 * 5 + 0.01 * high], rtol=1e-5)
    one = observe(old, jnp.asarray([7.0, 1e9]), jnp.asarray([True, False]))
    np.testing.assert_allclose(one, [0.99 * -3 + 0.07, 0.99 * 5 + 0.07], rtol=1e-5)
    none = observe(old, jnp.asarray([7.0, 1e9]), jnp.zeros(2))
    np.testing.assert_array_equal(none, old)
