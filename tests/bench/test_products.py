"""What a program multiplies is counted with its loops, and is what the transforms make of it."""

import jax
import jax.numpy as jnp
from jax import lax

from jmbrl.bench.products import products, seconds_of, total_flops, total_seconds

PRODUCT = 2 * 8 * 4 * 4


def looped(w, x):
    """Ten products in a scan, then one or two."""
    x, _ = lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=10)
    return jnp.sum(lax.cond(x[0, 0] > 0, lambda x: x @ w @ w, lambda x: x @ w, x))


def test_products_in_a_scan_count_as_often_as_they_run():
    (only,) = products(jax.jit(looped), jnp.ones((4, 4)), jnp.ones((8, 4)))
    assert (only.count, only.flops) == (12, PRODUCT)
    assert [shape.shape for shape in only.shapes] == [(8, 4), (4, 4)]


def test_a_gradient_is_three_passes():
    """Forward, to the weights and to the layer's input, which the scan's first layer needs not but gets: 12 layers."""
    found = products(jax.grad(looped), jnp.ones((4, 4)), jnp.ones((8, 4)))
    assert total_flops(found) == 36 * PRODUCT


def test_a_strided_convolution_back_and_forth():
    """Each pass takes 2 x 3 x 3 pixels x 4 x 4 x 5 x 6 multiply-adds, whichever way round it is written."""

    def convolve(image, kernel):
        moved = lax.conv_general_dilated(image, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jnp.sum(moved**2)

    found = products(jax.grad(convolve, (0, 1)), jnp.ones((2, 8, 8, 5)), jnp.ones((4, 4, 5, 6)))
    assert [(product.count, product.flops) for product in found] == [(1, 2 * 2 * 3 * 3 * 4 * 4 * 5 * 6)] * 3


def test_times_add_up(monkeypatch):
    found = products(looped, jnp.ones((4, 4)), jnp.ones((8, 4)))
    assert seconds_of(found[0], repeats=1) > 0
    monkeypatch.setattr("jmbrl.bench.products.seconds_of", lambda product: 0.5)
    assert total_seconds(found) == 6.0
