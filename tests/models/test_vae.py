"""The autoencoder: its size, its loss by hand, and that it learns to see."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jmbrl import models

KEY = jax.random.key(0)
FAST = {"xla_backend_optimization_level": 0}


@pytest.mark.parametrize(("latent", "count"), [(32, 4_348_547), (64, 4_446_915)])
def test_it_has_as_many_parameters_as_the_source_says(latent, count):
    weights = jax.eval_shape(models.vae((64, 64, 3), latent=latent).init, KEY)
    assert sum(x.size for x in jax.tree.leaves(weights)) == count


def constant(vision, posterior):
    """Weights whose posterior is a constant (means, then logarithms of variances) and whose images are grey."""
    weights = jax.tree.map(lambda x: jnp.zeros(x.shape), jax.eval_shape(vision.init, KEY))
    bias = jnp.asarray(posterior, jnp.float32)
    return weights | {"posterior": (weights["posterior"][0] | {"bias": bias},)}


def test_the_loss_is_the_squared_error_and_the_divergence_above_its_floor():
    vision = models.vae((4, 4, 1), latent=2, channels=(3,))
    loss = jax.jit(vision.loss, compiler_options=FAST)
    white = jnp.full((5, 4, 4, 1), 255, jnp.uint8)
    # Means 1 and 0, variances 1 and 4: KL = 1/2 + (4 - 1 - log 4) / 2. Sixteen pixels are wrong by a half.
    value, info = loss(KEY, constant(vision, [1.0, 0.0, 0.0, np.log(4.0)]), white)
    np.testing.assert_allclose(info["kl"], 1.3068528, rtol=1e-5)
    np.testing.assert_allclose(info["reconstruction"], 4.0, rtol=1e-5)
    np.testing.assert_allclose(value, 5.3068528, rtol=1e-5)
    # Without any divergence the floor remains: half a nat for each of two entries.
    value, info = loss(KEY, constant(vision, [0.0] * 4), white)
    np.testing.assert_allclose(info["kl"], 0.0, atol=1e-6)
    np.testing.assert_allclose(value, 5.0, rtol=1e-6)
    # With a weight of 3 on the pixels the 4 count as 12; what is reported stays the error.
    heavy = models.vae((4, 4, 1), latent=2, channels=(3,), pixel_weight=3.0)
    value, info = jax.jit(heavy.loss, compiler_options=FAST)(KEY, constant(heavy, [0.0] * 4), white)
    np.testing.assert_allclose([value, info["reconstruction"]], [13.0, 4.0], rtol=1e-5)
    # A black image errs as much, one of 51 (0.2) by 0.09 a pixel; outside the mask it does not count.
    mixed = white.at[3].set(0).at[4].set(51)
    value, info = loss(KEY, constant(vision, [0.0] * 4), mixed)
    np.testing.assert_allclose(info["reconstruction"], (4 * 4.0 + 16 * 0.09) / 5, rtol=1e-5)
    _, info = loss(KEY, constant(vision, [0.0] * 4), mixed, jnp.arange(5) < 4)
    np.testing.assert_allclose(info["reconstruction"], 4.0, rtol=1e-5)


def test_the_spread_is_the_root_of_the_variance():
    vision = models.vae((4, 4, 1), latent=1, channels=(3,))
    q = vision.encode(constant(vision, [2.0, np.log(9.0)]), jnp.zeros((4, 4, 1), jnp.uint8))
    np.testing.assert_allclose([q.mean, q.std], [[2.0], [3.0]], rtol=1e-6)


def test_it_learns_where_a_square_is():
    images = np.zeros((16, 10, 10, 1), np.uint8)
    for i in range(16):
        images[i, 2 * (i // 4) : 2 * (i // 4) + 3, 2 * (i % 4) : 2 * (i % 4) + 3] = 255
    images = jnp.asarray(images)
    vision = models.vae((10, 10, 1), latent=4, channels=(8, 16))
    optimizer = optax.adam(1e-2)

    def update(carry, key):
        weights, opt = carry
        grads, info = jax.grad(lambda w: vision.loss(key, w, images), has_aux=True)(weights)
        steps, opt = optimizer.update(grads, opt)
        return (optax.apply_updates(weights, steps), opt), info

    weights = jax.jit(vision.init, compiler_options=FAST)(KEY)
    run = jax.jit(lambda carry, keys: jax.lax.scan(update, carry, keys), compiler_options=FAST)
    (weights, _), info = run((weights, optimizer.init(weights)), jax.random.split(KEY, 250))
    # Nine white pixels: the best grey image leaves 9 * 0.91 or so.
    assert info["reconstruction"][0] > 9.0
    assert jnp.mean(info["reconstruction"][-20:]) < 4.0
    look = jax.jit(lambda weights, x: vision.decode(weights, vision.encode(weights, x).mean), compiler_options=FAST)
    seen = look(weights, images.reshape(4, 4, 10, 10, 1))
    assert seen.shape == (4, 4, 10, 10, 1)
    assert jnp.mean((seen.reshape(images.shape) > 0.5) == (images > 127)) > 0.98
    assert float(seen.min()) >= 0.0
    assert float(seen.max()) <= 1.0


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="latent must be at least 1, got 0"):
        models.vae((64, 64, 3), latent=0)
    vision = models.vae((4, 4, 1), latent=1, channels=(3,))
    with pytest.raises(ValueError, match="obs has shape"):
        vision.encode({}, jnp.zeros((5, 4, 1), jnp.uint8))
