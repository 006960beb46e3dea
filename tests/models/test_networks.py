"""Networks and distributions by hand-worked numbers."""

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl.networks import MLP, Categorical, Normal, TanhNormal, apply_dense, fast_normal, init_dense, orthogonal, swish

KEY = jax.random.key(0)


def test_normal():
    normal = Normal(jnp.array([0.0, 1.0]), jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(normal.log_prob(jnp.array([1.0, 1.0])), -3.0310242, rtol=1e-6)  # -1.837877 - ln 2 - 0.5
    np.testing.assert_allclose(normal.entropy(), 3.5310242, rtol=1e-6)  # 1 + ln 2 pi + ln 2
    other = Normal(jnp.zeros(2), jnp.ones(2))
    np.testing.assert_allclose(normal.kl(other), 0.5 * (4 + 1 - 1) - np.log(2), rtol=1e-6)
    sample = jax.vmap(normal.sample)(jax.random.split(KEY, 4000))
    np.testing.assert_allclose(sample.mean(axis=0), normal.mode(), atol=0.1)
    np.testing.assert_allclose(sample.std(axis=0), normal.std, rtol=0.05)


def test_tanh_normal():
    squashed = TanhNormal(jnp.zeros(1), jnp.ones(1))
    # log N(0) - log(1 - 0) at 0; at tanh(1): log N(1) - log(1 - tanh(1)^2) = -1.418939 + 0.867562
    np.testing.assert_allclose(squashed.log_prob(jnp.zeros(1)), -0.9189385, rtol=1e-6)
    np.testing.assert_allclose(squashed.log_prob(jnp.tanh(jnp.ones(1))), -0.5513770, rtol=1e-4)
    action, log_prob = squashed.sample_and_log_prob(KEY)
    np.testing.assert_allclose(log_prob, squashed.log_prob(action), rtol=1e-4)
    np.testing.assert_array_equal(action, squashed.sample(KEY))
    far = TanhNormal(jnp.array([30.0]), jnp.array([0.1]))
    assert np.isfinite(far.sample_and_log_prob(KEY)[1])
    assert np.isfinite(far.log_prob(jnp.ones(1)))


def test_categorical():
    choice = Categorical(jnp.log(jnp.array([0.5, 0.25, 0.25])))
    np.testing.assert_allclose(choice.log_prob(jnp.array(1)), np.log(0.25), rtol=1e-6)
    np.testing.assert_allclose(choice.entropy(), 1.5 * np.log(2), rtol=1e-6)
    np.testing.assert_allclose(choice.kl(Categorical(jnp.zeros(3))), np.log(3) - 1.5 * np.log(2), rtol=1e-5)
    assert choice.mode() == 0
    counts = np.bincount(jax.vmap(choice.sample)(jax.random.split(KEY, 4000)), minlength=3) / 4000
    np.testing.assert_allclose(counts, [0.5, 0.25, 0.25], atol=0.03)
    certain = Categorical(jnp.array([0.0, -jnp.inf]))
    assert certain.entropy() == 0.0
    np.testing.assert_allclose(certain.kl(Categorical(jnp.zeros(2))), np.log(2), rtol=1e-6)


def test_swish_and_its_gradient():
    x = jnp.array([-30.0, -1.0, 0.0, 1.0, 30.0])
    np.testing.assert_allclose(swish(x), [0.0, -0.26894142, 0.0, 0.73105858, 30.0], atol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(swish))(x), jax.vmap(jax.grad(jax.nn.silu))(x), atol=1e-6)


def test_dense_is_the_linen_network():
    layers = init_dense(KEY, (3, 5, 2))
    net = MLP((5,), 2)
    x = jnp.array([[0.1, -0.2, 0.3], [1.0, 2.0, 3.0]])
    params = {"params": {f"Dense_{i}": layer for i, layer in enumerate(layers)}}
    np.testing.assert_allclose(net.apply(params, x), apply_dense(layers, x), rtol=1e-6)
    assert jax.tree.map(jnp.shape, net.init(KEY, x)) == jax.tree.map(jnp.shape, params)


def test_fast_normal_is_standard_normal():
    noise = np.asarray(fast_normal(KEY, (200, 500)), np.float64)
    moments = [np.mean(noise**p) for p in (1, 2, 3, 4)]
    np.testing.assert_allclose(moments, [0, 1, 0, 3], atol=0.05)
    for quantile in (0.001, 0.025, 0.5, 0.975, 0.999):
        wanted = {0.001: -3.0902, 0.025: -1.95996, 0.5: 0.0, 0.975: 1.95996, 0.999: 3.0902}[quantile]
        np.testing.assert_allclose(np.quantile(noise, quantile), wanted, atol=0.1)
    for axis in (0, 1):
        neighbours = np.mean(noise * np.roll(noise, 1, axis=axis))
        np.testing.assert_allclose(neighbours, 0.0, atol=0.02)


def test_fast_normal_of_other_keys_is_independent_and_of_one_key_the_same():
    keys = jax.random.split(KEY, 300)
    noise = np.asarray(jax.vmap(lambda key: fast_normal(key, (300,)))(keys))
    correlation = np.corrcoef(noise)
    assert np.abs(correlation[~np.eye(300, dtype=bool)]).max() < 0.35  # 6 standard errors
    np.testing.assert_array_equal(noise[0], fast_normal(keys[0], (300,)))
    np.testing.assert_array_equal(fast_normal(KEY, (5, 3)), fast_normal(KEY, (9, 3))[:5])


def test_orthogonal_weights_of_many_seeds_are_each_seeds_own_and_never_one_batch_for_lapack():
    """Batched factorisations, as many at once as the CPU's pool has threads, wait for each other forever."""
    draw = jax.vmap(lambda key: orthogonal(2.0)(key, (3, 5)))
    keys = jax.random.split(KEY, 4)
    seen = draw(keys)
    np.testing.assert_allclose(seen @ jnp.swapaxes(seen, 1, 2), np.broadcast_to(4 * np.eye(3), (4, 3, 3)), atol=1e-5)
    np.testing.assert_array_equal(seen[2], jax.nn.initializers.orthogonal(2.0)(keys[2], (3, 5)))
    program = jax.jit(draw).lower(keys).as_text()
    factored = [line for line in program.splitlines() if "geqrf" in line and "custom_call" in line]
    assert factored
    assert all("tensor<5x3xf32>" in line and "tensor<4x5x3xf32>" not in line for line in factored)
