"""Convolutions as matrix products: against loops in float64, the compiler's own, and sizes worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import networks
from jmbrl.networks.conv import conv, conv_transpose

KEY = jax.random.key(0)
FAST = {"xla_backend_optimization_level": 0}


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def as_layer(kernel, bias):
    return {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}


@pytest.mark.parametrize(
    ("shape", "channels", "units", "kernels"),
    [
        ((64, 64, 3), (32, 64, 128, 256), 1024, (5, 5, 6, 6)),  # the source's
        ((32, 32, 1), (32, 64, 128), 512, (5, 6, 6)),
        ((10, 10, 1), (32, 64), 64, (4, 4)),
        ((4, 4, 1), (32,), 32, (4,)),
    ],
)
def test_layers_fit_the_image(shape, channels, units, kernels):
    stack = networks.conv_stack(shape)
    assert stack.channels == channels
    assert stack.units == units
    assert stack.kernels == tuple((k, k) for k in kernels)


def test_every_square_of_4_to_93_pixels_and_rectangles_are_reached():
    for size in range(4, 94):
        reached = 1
        for k, _ in networks.conv_stack((size, size, 1)).kernels:
            reached = 2 * (reached - 1) + k
        assert reached == size
    # Narrowed 20 -> 9 -> 3 and 24 -> 11 -> 4; widened 1 -> 7 -> 12 + 8 and 1 -> 9 -> 16 + 8.
    stack = networks.conv_stack((20, 24, 2), (8, 16))
    assert stack.units == 3 * 4 * 16
    assert stack.kernels == ((7, 9), (8, 8))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="an image side of 200 cannot be widened from one pixel in 4 layers"):
        networks.conv_stack((200, 200, 3))
    with pytest.raises(ValueError, match="which reach 7 to 25"):
        networks.conv_stack((12, 40, 3), (8, 8))
    with pytest.raises(ValueError, match="shape must be an image's"):
        networks.conv_stack((64, 64))
    with pytest.raises(ValueError, match="images need 4 pixels a side"):
        networks.conv_stack((3, 64, 1))
    with pytest.raises(ValueError, match="one layer"):
        networks.conv_stack((64, 64, 1), ())
    with pytest.raises(ValueError, match="channels must be at least 1, got 0"):
        networks.conv_stack((64, 64, 1), (8, 0))


def test_a_convolution_is_a_loop_over_windows():
    x, kernel, bias = draw(7, 10, 2), draw(4, 4, 2, 3, seed=1), draw(3, seed=2)
    wanted = np.zeros((2, 4, 3))
    for i in range(2):
        for j in range(4):
            wanted[i, j] = np.einsum("hwc,hwco->o", x[2 * i : 2 * i + 4, 2 * j : 2 * j + 4], kernel) + bias
    got = jax.jit(conv)(as_layer(kernel, bias), jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("size", "kernel"), [((2, 3), (5, 6)), ((1, 1), (3, 4)), ((3, 1), (4, 7))])
def test_a_transposed_convolution_adds_stamps(size, kernel):
    x, stamp, bias = draw(*size, 2), draw(2, *kernel, 3, seed=1), draw(3, seed=2)
    wanted = np.tile(bias, (2 * (size[0] - 1) + kernel[0], 2 * (size[1] - 1) + kernel[1], 1))
    for i in range(size[0]):
        for j in range(size[1]):
            at = slice(2 * i, 2 * i + kernel[0]), slice(2 * j, 2 * j + kernel[1])
            wanted[at] += np.einsum("c,chwo->hwo", x[i, j], stamp)
    got = jax.jit(conv_transpose)(as_layer(stamp, bias), jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


def test_derivatives_are_those_of_the_compilers_convolutions():
    names = ("NHWC", "HWIO", "NHWC")
    x = jnp.asarray(draw(2, 7, 6, 2), jnp.float32)
    layer = as_layer(draw(4, 4, 2, 3, seed=1), np.zeros(3))
    stamps = as_layer(draw(2, 5, 6, 3, seed=1), np.zeros(3))

    def theirs(layer, x):
        return jax.lax.conv_general_dilated(x, layer["kernel"], (2, 2), "VALID", dimension_numbers=names)

    def theirs_transposed(layer, x):
        kernel = jnp.moveaxis(layer["kernel"], 0, 2)[::-1, ::-1]
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), [(4, 4), (5, 5)], lhs_dilation=(2, 2), dimension_numbers=names
        )

    for ours, other, weights in ((conv, theirs, layer), (conv_transpose, theirs_transposed, stamps)):
        mine, his = (
            jax.jit(jax.grad(lambda w, x, f=f: jnp.sum(jnp.sin(f(w, x))), argnums=(0, 1)), compiler_options=FAST)(
                weights, x
            )
            for f in (ours, other)
        )
        np.testing.assert_allclose(mine[1], his[1], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(mine[0]["kernel"], his[0]["kernel"], rtol=1e-4, atol=1e-4)


def test_any_leading_axes_and_single_images_give_the_same():
    stack = networks.conv_stack((10, 12, 2), (4, 8))
    draw_both = lambda key: (networks.init_conv(key, stack), networks.init_conv_transpose(key, stack))  # noqa: E731
    down, up = jax.jit(draw_both, compiler_options=FAST)(KEY)
    x = jax.random.uniform(KEY, (2, 3, 10, 12, 2))

    def there_and_back(x):
        return networks.apply_conv_transpose(up, networks.apply_conv(down, x))

    together = jax.jit(there_and_back, compiler_options=FAST)(x)
    assert together.shape == x.shape
    single = jax.jit(jax.vmap(jax.vmap(there_and_back)), compiler_options=FAST)(x)
    np.testing.assert_allclose(together, single, rtol=1e-5, atol=1e-6)
