"""The optimiser's steps against numbers worked by hand and float64 NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jmbrl.learners import adaptive_clip, laprop


def step(opt: optax.GradientTransformation, grads: Any, state: Any, params: Any = None) -> Any:
    return opt.update(grads, state, params)


WEIGHTS = {"a": jnp.asarray([[3.0, 0.0], [0.0, 4.0]]), "zero": jnp.zeros(2)}


def test_gradients_are_clipped_to_a_share_of_their_array_by_hand():
    # |a| = 5, so at most 0.3 * 5 = 1.5: a gradient of norm 15 becomes a tenth. |zero| counts as 1e-3: at most 3e-4.
    grads = {"a": jnp.asarray([[9.0, 0.0], [12.0, 0.0]]), "zero": jnp.asarray([0.0, -2.0])}
    clip = adaptive_clip()
    clipped, _ = step(clip, grads, clip.init(WEIGHTS), WEIGHTS)
    np.testing.assert_allclose(clipped["a"], [[0.9, 0.0], [1.2, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(clipped["zero"], [0.0, -3e-4], rtol=1e-6)
    small = {"a": jnp.asarray([[0.9, 0.0], [1.2, 0.0]]), "zero": jnp.asarray([1e-4, 0.0])}
    same, _ = step(clip, small, clip.init(WEIGHTS), WEIGHTS)
    np.testing.assert_allclose(same["a"], small["a"], rtol=1e-6)
    np.testing.assert_array_equal(same["zero"], small["zero"])
    nothing, _ = step(clip, jax.tree.map(jnp.zeros_like, WEIGHTS), clip.init(WEIGHTS), WEIGHTS)
    np.testing.assert_array_equal(nothing["zero"], [0.0, 0.0])


def test_the_first_steps_of_laprop_by_hand():
    # Without clipping. g = 2, then -1; b1 = b2 = 0.5.
    # Step 1: v = 2, v^ = 4, g / 2 = 1; m = 0.5, m^ = 1. Step 2: v = 1.5, v^ = 1.5 / 0.75 = 2, -1 / sqrt 2;
    # m = 0.25 - 0.353553 = -0.103553, m^ = m / 0.75 = -0.138071. Adam's average of the gradients would be 0 there.
    # A warm-up of two updates: rates 0 and half of 0.1.
    opt = laprop(0.1, b1=0.5, b2=0.5, warmup=2, clipping=1e9)
    params = jnp.asarray([1.0])
    state = opt.init(params)
    first, state = step(opt, jnp.asarray([2.0]), state, params)
    second, state = step(opt, jnp.asarray([-1.0]), state, params)
    np.testing.assert_array_equal(first, [0.0])
    np.testing.assert_allclose(second, [0.05 * 0.138071], rtol=1e-5)
    at_once = laprop(0.1, b1=0.5, b2=0.5, warmup=0, clipping=1e9)
    first, _ = step(at_once, jnp.asarray([2.0]), at_once.init(params), params)
    np.testing.assert_allclose(first, [-0.1], rtol=1e-6)


def test_laprop_against_numpy():
    rng = np.random.default_rng(0)
    grads = rng.normal(size=(6, 2, 3)) * np.logspace(1, -3, 6)[:, None, None]
    start = rng.normal(size=(2, 3))
    opt = laprop(0.01, warmup=4)

    def body(carry, grad):
        params, state = carry
        updates, state = step(opt, grad, state, params)
        params = params + updates
        return (params, state), params

    params = jnp.asarray(start, jnp.float32)
    _, path = jax.lax.scan(body, (params, opt.init(params)), jnp.asarray(grads, jnp.float32))

    w, v, m = start, 0.0, 0.0
    for n, g in enumerate(grads):
        g = g / max(1.0, np.linalg.norm(g) / (0.3 * np.linalg.norm(w)))
        v = 0.999 * v + 0.001 * g**2
        m = 0.9 * m + 0.1 * g / (np.sqrt(v / (1 - 0.999 ** (n + 1))) + 1e-20)
        w = w - 0.01 * min(1, n / 4) * m / (1 - 0.9 ** (n + 1))
        np.testing.assert_allclose(path[n], w, rtol=1e-4, atol=1e-6)


def test_laprop_leaves_weights_without_gradient_alone_and_vmaps_over_rates():
    params = {"w": jnp.ones(2), "idle": jnp.full(2, 7.0)}
    grads = {"w": jnp.ones(2), "idle": jnp.zeros(2)}

    def first(rate):
        opt = laprop(rate, warmup=0)
        return step(opt, grads, opt.init(params), params)[0]

    updates = jax.vmap(first)(jnp.asarray([0.1, 0.2]))
    np.testing.assert_allclose(updates["w"], [[-0.1, -0.1], [-0.2, -0.2]], rtol=1e-5)
    np.testing.assert_array_equal(updates["idle"], np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: adaptive_clip(0.0), "clipping must be at least"),
        (lambda: adaptive_clip(0.3, -1.0), "eps must be at least"),
        (lambda: laprop(-1.0), "learning_rate must be at least 0.0, got -1.0"),
        (lambda: laprop(0.1, b1=1.0), "b1 must be at most"),
        (lambda: laprop(0.1, b2=-0.1), "b2 must be at least"),
        (lambda: laprop(0.1, warmup=1.5), "warmup must be an integer, got 1.5"),  # pyright: ignore[reportArgumentType]
        (lambda: step(adaptive_clip(), jnp.ones(2), optax.EmptyState()), "params must be given"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
