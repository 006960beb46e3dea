"""The parts of latent models by hand-worked numbers, float64 NumPy and SciPy."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jmbrl.networks import (
    Normal,
    OneHotLatents,
    TruncatedNormal,
    TwoHot,
    apply_block_linear,
    apply_linear,
    apply_normed,
    init_block_linear,
    init_linear,
    init_norm,
    init_normed,
    layer_norm,
    rms_norm,
    swish,
    symexp,
    symexp_bins,
    symlog,
    two_hot,
    unimix,
)

FAST = {"xla_backend_optimization_level": 0}  # compiling is what costs
KEY = jax.random.key(0)
BINS = jnp.asarray([-4.0, -1.0, 0.0, 1.0, 4.0])


def compiled(function: Callable, *args: Any) -> Any:
    """One program instead of one an operation."""
    return jax.jit(function, compiler_options=FAST)(*args)


def rows(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x.astype(np.float64))
    return e / e.sum(-1, keepdims=True)


# ------------------------------------------------------------------------------------- linear, norms


def test_norms_against_numpy():
    x, scale, bias = rows(0, 3, 5) * 4, rows(1, 5), rows(2, 5)
    x64 = x.astype(np.float64)
    rms = x64 / np.sqrt(np.mean(x64**2, -1, keepdims=True) + 1e-4) * scale
    centred = x64 - x64.mean(-1, keepdims=True)
    layer = centred / np.sqrt(x64.var(-1, keepdims=True) + 1e-3) * scale + bias
    weights: Any = {"scale": scale, "bias": bias}
    got = compiled(lambda x: (rms_norm({"scale": weights["scale"]}, x), layer_norm(weights, x)), x)
    np.testing.assert_allclose(got[0], rms, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got[1], layer, rtol=1e-5, atol=1e-6)


def test_norms_by_hand():
    # [3, 4] has the mean square 12.5 and the mean 3.5; a row of zeros stays so.
    def both(x):
        return rms_norm(init_norm(2), x, 1e-12), layer_norm(init_norm(2, bias=True), x, 1e-12)

    rms, layer = compiled(both, jnp.asarray([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(rms, [[0.8485281, 1.1313708], [0.0, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(layer, [[-1.0, 1.0], [0.0, 0.0]], rtol=1e-6)


def test_linear_kernels_have_the_standard_deviation_of_their_fan_in():
    layers = compiled(lambda: [init_linear(KEY, 100, 500, scale) for scale in (1.0, 0.01, 0.0)])
    kernel, small, zero = (np.asarray(layer["kernel"]) for layer in layers)
    np.testing.assert_allclose([kernel.mean(), kernel.std()], [0.0, 0.1], atol=1e-3)  # 1 / sqrt(100)
    assert np.abs(kernel).max() <= 2 * 0.1 * 1.1368 + 1e-6  # the cut, at two standard deviations before it
    np.testing.assert_allclose(small, 0.01 * kernel, rtol=1e-5)
    np.testing.assert_array_equal(zero, np.zeros((100, 500)))
    layer = {"kernel": jnp.asarray([[1.0, 2.0], [3.0, 4.0]]), "bias": jnp.asarray([0.5, -0.5])}
    np.testing.assert_allclose(apply_linear(layer, jnp.asarray([10.0, 1.0])), [13.5, 23.5], rtol=1e-6)


@pytest.mark.parametrize("norm", ["none", "layer", "rms"])
def test_every_layer_of_a_normed_network_is_linear_norm_activation(norm):
    x = rows(3, 2, 3)

    def both(x):
        layers = init_normed(KEY, (3, 6, 4), norm)
        return layers, apply_normed(layers, x, swish, norm)

    layers, got = compiled(both, x)
    wanted = x.astype(np.float64)
    for layer in layers:
        wanted = wanted @ np.asarray(layer["kernel"], np.float64)
        if norm == "layer":
            wanted = wanted - wanted.mean(-1, keepdims=True)
            wanted = wanted / np.sqrt(np.mean(wanted**2, -1, keepdims=True) + 1e-3)
        elif norm == "rms":
            wanted = wanted / np.sqrt(np.mean(wanted**2, -1, keepdims=True) + 1e-4)
        wanted = wanted / (1 + np.exp(-wanted))
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)
    assert [sorted(layer.get("norm", {})) for layer in layers] == 2 * [
        {"none": [], "layer": ["bias", "scale"], "rms": ["scale"]}[norm]
    ]


def test_block_linear_is_a_dense_layer_with_a_block_diagonal_kernel():
    layer = {"kernel": rows(4, 3, 2, 3), "bias": np.arange(9, dtype=np.float32)}
    dense = np.zeros((6, 9))
    for b in range(3):
        dense[2 * b : 2 * b + 2, 3 * b : 3 * b + 3] = layer["kernel"][b]
    x = rows(5, 2, 5, 6)
    out, single = compiled(lambda x: (apply_block_linear(layer, x), apply_block_linear(layer, x[0, 0])), x)
    np.testing.assert_allclose(out, x @ dense + np.arange(9), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(single, out[0, 0], rtol=1e-6)
    assert str(jax.make_jaxpr(lambda x: apply_block_linear(layer, x))(x)).count("dot_general") == 1


def test_block_kernels_have_the_standard_deviation_of_all_inputs():
    layer = compiled(lambda: init_block_linear(KEY, 400, 800, 4))
    kernel = np.asarray(layer["kernel"])
    assert kernel.shape == (4, 100, 200)
    np.testing.assert_array_equal(layer["bias"], np.zeros(800))
    np.testing.assert_allclose(kernel.std((1, 2)), 0.05, rtol=0.03)  # 1 / sqrt(400), as in DreamerV3's code
    correlation = np.corrcoef(kernel.reshape(4, -1))
    np.testing.assert_allclose(correlation, np.eye(4), atol=0.03)  # four standard errors: no block repeats another


# ------------------------------------------------------------------------------------------- two-hot


def test_symlog_and_symexp_are_inverses():
    x = np.asarray([-1e6, -3.0, -1e-3, 0.0, 1e-4, 0.5, np.e - 1, 1e8], np.float32)
    wanted = np.sign(x) * np.log1p(np.abs(x.astype(np.float64)))
    there, back = compiled(lambda x: (symlog(x), symexp(symlog(x))), x)
    np.testing.assert_allclose(there, wanted, rtol=1e-6)
    np.testing.assert_allclose(there[6], 1.0, rtol=1e-6)
    np.testing.assert_allclose(back, x, rtol=3e-6)


@pytest.mark.parametrize("count", [255, 6])
def test_bins_are_symexp_of_even_steps_and_exactly_symmetric(count):
    bins = symexp_bins(count)
    even = np.linspace(-20, 20, count)
    np.testing.assert_allclose(bins, np.sign(even) * np.expm1(np.abs(even)), rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(bins, -bins[::-1])
    assert np.all(np.diff(bins) > 0)
    assert bins.dtype == np.float32


def test_two_hot_by_hand():
    wanted = {
        2.5: [0, 0, 0, 0.5, 0.5],  # half way between 1 and 4
        -1.75: [0.25, 0.75, 0, 0, 0],  # a quarter of the way from -1 to -4
        1.0: [0, 0, 0, 1, 0],
        0.0: [0, 0, 1, 0, 0],
        -4.0: [1, 0, 0, 0, 0],
        7.0: [0, 0, 0, 0, 1],
        -np.inf: [1, 0, 0, 0, 0],
    }
    weights = compiled(lambda x: two_hot(x, BINS), jnp.asarray(list(wanted)))
    np.testing.assert_array_equal(weights, list(wanted.values()))


def test_the_mean_of_a_two_hot_is_the_number():
    bins = symexp_bins()
    x = np.concatenate([-np.logspace(-3, 6, 40), np.logspace(-3, 6, 40)]).astype(np.float32)

    def both(x):
        weights = two_hot(x, bins)
        return weights, TwoHot(jnp.log(weights), bins).mean()

    weights, mean = compiled(both, x)
    np.testing.assert_allclose(np.sum(weights, -1), 1.0, rtol=1e-6)
    assert np.max(np.sum(np.asarray(weights) > 0, -1)) == 2
    np.testing.assert_allclose(mean, x, rtol=1e-6)


@pytest.mark.parametrize("bins", [symexp_bins(), symexp_bins(6), np.linspace(-10, 10, 101, dtype=np.float32)])
def test_equal_logits_mean_exactly_zero(bins):
    mean = jax.jit(lambda logits: TwoHot(logits, bins).mean())
    np.testing.assert_array_equal(mean(jnp.zeros((3, len(bins)))), np.zeros(3))


def test_two_hot_distribution_by_hand():
    logits = np.log(np.asarray([0.1, 0.2, 0.4, 0.2, 0.1], np.float32))
    both = np.stack([logits, logits + 5])  # unnormalised logits are the same distribution
    x = jnp.asarray([1.0, 2.5])

    def read(logits):
        head = TwoHot(logits, BINS)
        log_prob, pull = jax.vjp(lambda y: TwoHot(y, BINS).log_prob(x), logits)
        return head.mean(), log_prob, pull(jnp.ones(2))[0]

    mean, log_prob, gradient = compiled(read, both)
    np.testing.assert_allclose(mean, [0, 0], atol=1e-6)
    np.testing.assert_allclose(log_prob, [np.log(0.2), np.log(0.02) / 2], rtol=1e-5)
    # The cross-entropy's gradient: the weights of x less the probabilities.
    np.testing.assert_allclose(gradient, [[-0.1, -0.2, -0.4, 0.8, -0.1], [-0.1, -0.2, -0.4, 0.3, 0.4]], atol=1e-6)
    uneven = jnp.asarray([-2.0, 0.0, 1.0, 7.0])
    skewed = compiled(lambda p: TwoHot(jnp.log(p), uneven).mean(), jnp.asarray([0.5, 0.0, 0.25, 0.25]))
    np.testing.assert_allclose(skewed, 1.0, rtol=1e-6)  # -1 + 0.25 + 1.75: bins without symmetry


# ------------------------------------------------------------------------------------------- latents


def test_unimix_by_hand():
    logits = np.log(np.asarray([[0.7, 0.2, 0.1, 1e-30], [2.0, 2.0, 2.0, 2.0]], np.float32))
    some, little, none = compiled(lambda x: [unimix(x, mix) for mix in (0.04, 0.01, 0.0)], logits)
    np.testing.assert_allclose(np.exp(some), [[0.682, 0.202, 0.106, 0.01], [0.25] * 4], rtol=1e-5)  # 0.96 p + 0.01
    np.testing.assert_allclose(np.exp(little[0]), [0.6955, 0.2005, 0.1015, 0.0025], rtol=1e-5)  # 0.99 p + 0.0025
    np.testing.assert_allclose(none, logits - np.asarray([[0], [np.log(8)]]), rtol=1e-5)


def test_one_hot_latents_are_sampled_by_their_probabilities():
    logits = jnp.asarray(rows(5, 3, 4))

    def draw(key):
        return jax.vmap(OneHotLatents(logits).sample)(jax.random.split(key, 4000)), OneHotLatents(logits).mode()

    sample, mode = compiled(draw, KEY)
    assert sample.shape == (4000, 12)
    each = np.asarray(sample).reshape(4000, 3, 4)
    assert set(np.unique(each)) == {0.0, 1.0}
    np.testing.assert_array_equal(each.sum(-1), 1.0)
    # Four standard errors of a frequency of 4000 draws are at most 0.032.
    np.testing.assert_allclose(each.mean(0), softmax(np.asarray(logits)), atol=0.032)
    # The choices of one draw are independent of each other.
    joint = np.einsum("nc,nd->cd", each[:, 0], each[:, 1]) / 4000
    np.testing.assert_allclose(joint, np.outer(each[:, 0].mean(0), each[:, 1].mean(0)), atol=0.032)
    np.testing.assert_array_equal(mode, np.eye(4)[np.argmax(np.asarray(logits), -1)].reshape(-1))


def test_impossible_classes_are_never_sampled():
    logits = jnp.tile(jnp.asarray([-jnp.inf, 0.0, -jnp.inf, 0.0, -jnp.inf]), (5000, 1))
    sample = np.asarray(compiled(lambda key: OneHotLatents(logits).sample(key), KEY)).reshape(5000, 5)
    assert sample[:, [0, 2, 4]].sum() == 0
    np.testing.assert_allclose(sample.mean(0)[[1, 3]], 0.5, atol=0.03)


def test_gradients_pass_straight_through_to_the_probabilities():
    logits, weight = jnp.asarray(rows(6, 2, 3)), rows(7, 6)
    softmax = lambda x: jax.nn.softmax(x).reshape(-1)  # noqa: E731
    sample, mode = lambda x: OneHotLatents(x).sample(KEY), lambda x: OneHotLatents(x).mode()
    stopped = lambda x: OneHotLatents(x).stop().sample(KEY)  # noqa: E731

    def gradients(x):
        return [jax.grad(lambda x, read=read: read(x) @ weight)(x) for read in (softmax, sample, mode, stopped)]

    wanted, by_sample, by_mode, nothing = compiled(gradients, logits)
    np.testing.assert_allclose(by_sample, wanted, rtol=1e-5)
    np.testing.assert_allclose(by_mode, wanted, rtol=1e-5)
    np.testing.assert_array_equal(nothing, np.zeros((2, 3)))


def test_divergence_and_entropy_of_one_hot_latents_against_numpy():
    # The last of the batch by hand: 3 choices, each certain against an even one: 3 ln 4.
    a = np.concatenate([rows(8, 2, 3, 4), np.tile(np.asarray([60, 0, 0, 0], np.float32), (1, 3, 1))])
    b = np.concatenate([rows(9, 2, 3, 4), np.zeros((1, 3, 4), np.float32)])
    kl, entropy = compiled(lambda a, b: (OneHotLatents(a).kl(OneHotLatents(b)), OneHotLatents(a).entropy()), a, b)
    p, q = softmax(a), softmax(b)
    np.testing.assert_allclose(kl, np.sum(p * np.log(p / q), (-2, -1)), rtol=1e-5)
    np.testing.assert_allclose(kl[2], 3 * np.log(4), rtol=1e-6)
    np.testing.assert_allclose(entropy, -np.sum(p * np.log(p), (-2, -1)), rtol=1e-5, atol=1e-6)


def test_a_stopped_normal_has_no_gradient():
    loss = lambda mean: Normal(mean, jnp.ones(2)).stop().kl(Normal(2 * mean, jnp.ones(2)))  # noqa: E731
    # KL(sg(m) || 2 m) = |m - 2 m|^2 / 2, whose gradient through the second alone is 2 (2 m - m) = 2 m.
    np.testing.assert_allclose(compiled(jax.grad(loss), jnp.asarray([1.0, -3.0])), [2.0, -6.0], rtol=1e-6)


# ---------------------------------------------------------------------------------- truncated normal

MEAN = np.asarray([-0.999, -0.5, 0.0, 0.3, 0.999, 1.0], np.float32)
STD = np.asarray([0.1, 2.1, 0.5, 0.1, 2.1, 0.1], np.float32)


def oracle() -> Any:
    return scipy.stats.truncnorm(*((side - MEAN.astype(float)) / STD for side in (-1, 1)), loc=MEAN, scale=STD)


def test_truncated_normal_against_scipy():
    xs = np.asarray([-0.97, 0.2, 0.99], np.float32)

    def read(mean, std):
        each, together = TruncatedNormal(mean[:, None], std[:, None]), TruncatedNormal(mean[1:4], std[1:4])
        log_probs = jax.vmap(lambda x: each.log_prob(jnp.full((6, 1), x)))(xs)
        outside = together.log_prob(jnp.asarray([0.2, 1.1, 0.2]))
        return log_probs, each.entropy(), each.mode(), together.log_prob(jnp.full(3, 0.2)), together.entropy(), outside

    log_probs, entropy, mode, log_prob, sum_entropy, outside = compiled(read, MEAN, STD)
    np.testing.assert_allclose(log_probs, [oracle().logpdf(x) for x in xs], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(entropy, oracle().entropy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(mode, MEAN[:, None])
    # The last axis is summed.
    np.testing.assert_allclose(log_prob, oracle().logpdf(0.2)[1:4].sum(), rtol=1e-4)
    np.testing.assert_allclose(sum_entropy, oracle().entropy()[1:4].sum(), rtol=1e-4)
    assert outside == -np.inf


def test_truncated_normal_samples_and_their_gradients():
    # Rows of draws side by side: the distribution is elementwise.
    def draw(mean, std):
        sample, pull = jax.vjp(lambda mean, std: TruncatedNormal(mean, std).sample(KEY), mean, std)
        return sample, *pull(jnp.ones_like(sample))

    sample, by_mean, by_std = compiled(draw, *(np.tile(x, (20_000, 1)) for x in (MEAN, STD)))
    assert np.abs(sample).max() <= 1.0
    spread = np.asarray(oracle().std())
    np.testing.assert_array_less(np.abs(np.mean(sample, 0) - oracle().mean()), 5 * spread / 20_000**0.5)
    np.testing.assert_allclose(np.std(sample, 0), spread, rtol=0.03)
    # The expected gradient of a sample is the gradient of the expectation: finite differences of SciPy's mean.
    assert np.isfinite(by_mean).all()
    assert np.isfinite(by_std).all()

    def expectation(mean, std) -> Any:
        return scipy.stats.truncnorm.mean((-1 - mean) / std, (1 - mean) / std, loc=mean, scale=std)

    m, s, h = MEAN.astype(float), STD.astype(float), 1e-4
    slope = (expectation(m + h, s) - expectation(m - h, s)) / (2 * h)
    np.testing.assert_allclose(np.mean(by_mean, 0), slope, atol=0.01)
    slope = (expectation(m, s + h) - expectation(m, s - h)) / (2 * h)
    np.testing.assert_allclose(np.mean(by_std, 0), slope, atol=0.03)


def test_truncated_normal_has_finite_gradients_everywhere():
    mean, std = (x.ravel() for x in np.meshgrid([-1.0, -0.9999, -0.3, 0.0, 0.9999, 1.0], [1e-3, 0.1, 0.7, 2.1, 50.0]))
    mean, std = (np.tile(x.astype(np.float32), (5000, 1)) for x in (mean, std))

    def total(mean, std):
        law = TruncatedNormal(mean, std)
        x = law.sample(KEY)
        return jnp.sum(x) + jnp.sum(law.log_prob(x)) + jnp.sum(law.entropy())

    value, gradients = compiled(jax.value_and_grad(total, (0, 1)), mean, std)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)


# ----------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: init_norm(0), "units must be at least 1, got 0"),
        (lambda: init_linear(KEY, 0, 2), "inputs must be at least 1, got 0"),
        (lambda: init_linear(KEY, 2, 2, -1.0), "scale must be at least 0.0, got -1.0"),
        (lambda: init_normed(KEY, (2, 3), "batch"), "norm must be one of none, layer, rms; got 'batch'"),
        (lambda: init_normed(KEY, (2,)), "the number of sizes must be at least 2, got 1"),
        (
            lambda: apply_normed(init_normed(KEY, (2, 3)), jnp.zeros(2), swish, "rms"),
            "norm must be what the layers were made with, got 'rms'",
        ),
        (lambda: init_block_linear(KEY, 6, 8, 3), "outputs must be a multiple of blocks, got 8 and 3 blocks"),
        (lambda: init_block_linear(KEY, 8, 6, 3), "inputs must be a multiple of blocks, got 8 and 3 blocks"),
        (lambda: symexp_bins(1), "count must be at least 2, got 1"),
        (lambda: symexp_bins(255, 100.0), "limit must be at most 80.0, got 100.0"),
        (lambda: unimix(jnp.zeros(3), 1.5), "mix must be at most 1.0, got 1.5"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
