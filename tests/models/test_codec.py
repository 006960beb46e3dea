"""Codecs: their losses by hand, their convolutions against the compiler's own, and that they learn."""

import dataclasses
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jmbrl import envs
from jmbrl.data.normalizer import Normalizer
from jmbrl.envs import host_spaces, spaces
from jmbrl.envs.wrappers import flatten_obs
from jmbrl.models.codec import codec
from jmbrl.networks.pooled_conv import conv_pool, conv_valid, pooled_stack, upsample_conv
from jmbrl.types import Continuous, Spec, Transition

KEY = jax.random.key(0)
FAST = {"xla_backend_optimization_level": 0}
ACTION = Continuous((-1.0,), (1.0,))
VECTOR = Spec("vector", (3,), ACTION, 10)
FLOATS = Spec("floats", (4, 5, 2), ACTION, 10)
IMAGE = Spec("image", (8, 8, 1), ACTION, 10, "uint8")
PARTS = (("camera", (8, 8, 1), "uint8"), ("state", (2,), "float32"))
BOTH = Spec("both", (66,), ACTION, 10, obs_parts=PARTS)
V3: dict[str, Any] = {"depth": 2, "units": 8}
STRIDE: dict[str, Any] = {"style": "stride", "pixels": "unit", "depth": 2, "units": 8}


def some(spec, *lead):
    """Observations of whole numbers from 0 to 255."""
    return np.random.default_rng(0).integers(0, 256, (*lead, *spec.obs_shape)).astype(spec.obs_dtype)


def as_layer(*shape):
    rng = np.random.default_rng(1)
    return {
        "kernel": jnp.asarray(rng.normal(size=shape), jnp.float32),
        "bias": jnp.asarray(rng.normal(size=shape[-1]), jnp.float32),
    }


# ------------------------------------------------------------------------------------------- convolutions


def theirs(layer, x, padding):
    names = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, layer["kernel"], (1, 1), padding, dimension_numbers=names) + layer["bias"]


def their_pool(layer, x):
    y = theirs(layer, x, "SAME")
    return jax.lax.reduce_window(y, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def their_upsample(layer, x):
    return theirs(layer, jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2), "SAME")


@pytest.mark.parametrize(
    ("ours", "other", "shape", "size"),
    [
        (conv_pool, their_pool, (8, 6, 2), 5),
        (upsample_conv, their_upsample, (3, 4, 2), 5),
        (conv_valid, lambda layer, x: theirs(layer, x, "VALID"), (5, 4, 2), 3),
    ],
)
def test_values_and_derivatives_are_those_of_the_compilers_convolutions(ours, other, shape, size):
    layer = as_layer(size, size, 2, 3)
    x = jnp.asarray(np.random.default_rng(2).normal(size=(2, *shape)), jnp.float32)

    def both(f):
        value = lambda layer, x: (lambda y: (jnp.sum(jnp.sin(y)), y))(f(layer, x))  # noqa: E731
        return jax.jit(jax.grad(value, argnums=(0, 1), has_aux=True), compiler_options=FAST)(layer, x)

    (mine, y), (his, z) = both(ours), both(other)
    assert y.shape == z.shape
    np.testing.assert_allclose(y, z, rtol=1e-5, atol=2e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4), mine, his)


@pytest.mark.parametrize(
    ("shape", "inner"),
    [
        ((64, 64, 3), (4, 4, 16)),  # the source's
        ((32, 32, 3), (4, 4, 16)),
        ((16, 16, 1), (4, 4, 12)),
        ((10, 12, 1), (5, 6, 8)),
        ((128, 96, 3), (8, 6, 16)),
    ],
)
def test_sides_are_halved_down_to_four(shape, inner):
    stack = pooled_stack(shape, (8, 12, 16, 16))
    assert stack.inner == inner
    assert stack.units == np.prod(inner)
    assert stack.channels == (8, 12, 16, 16)[: len(stack.channels)]


# ------------------------------------------------------------------------------------------- by hand


def test_the_loss_of_vectors_is_the_squared_error_in_symlog():
    sees = codec(VECTOR, 4)
    obs = jnp.array([[np.e - 1, 1 - np.e**2, 0.0], [0.0, 0.0, 0.0]], jnp.float32)  # symlog: 1, -2, 0 and zeros
    raw = {"vector": jnp.array([[0.0, 0.0, 3.0], [0.5, 0.0, 0.0]])}
    np.testing.assert_allclose(sees.loss((), raw, obs), [14.0, 0.25], rtol=1e-6)
    np.testing.assert_allclose(sees.restore((), {"vector": jnp.array([1.0, -2.0, 0.0])}), obs[0], rtol=1e-6)


def test_the_loss_of_normalised_vectors_is_half_the_squared_error():
    sees = codec(VECTOR, 4, vectors="normalized")
    stats = Normalizer(jnp.array([1.0, 0.0, -2.0]), jnp.array([2.0, 1.0, 4.0]), jnp.zeros(3), jnp.ones(3))
    obs, raw = jnp.array([5.0, 1.0, -2.0]), {"vector": jnp.array([0.0, 4.0, 1.0])}  # normalised: 2, 1, 0
    np.testing.assert_allclose(sees.loss(stats, raw, obs), 0.5 * (4 + 9 + 1), rtol=1e-6)
    np.testing.assert_allclose(sees.restore(stats, raw), [1.0, 4.0, 2.0], rtol=1e-6)


def test_statistics_are_those_of_both_observations_of_each_valid_row():
    sees = codec(BOTH, 4, vectors="normalized", **V3)
    obs, following = np.full((3, 66), 7.0, np.float32), np.full((3, 66), 9.0, np.float32)
    obs[:, 64:] = [[0, 1], [2, 1], [np.nan, np.nan]]
    following[:, 64:] = [[4, 1], [6, 1], [np.nan, np.nan]]
    row = jnp.zeros(3)
    rows = Transition(jnp.asarray(obs), row[:, None], row, jnp.asarray(following), row, row)
    assert sees.empty_stats().mean.shape == (2,)  # the camera is not normalised
    stats = jax.jit(sees.fit_stats, compiler_options=FAST)(sees.empty_stats(), rows, jnp.array([True, True, False]))
    np.testing.assert_allclose(stats.mean, [3.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(stats.std, [np.sqrt(5.0), 1.0], rtol=1e-6)
    without = codec(IMAGE, 4, vectors="normalized", **V3)
    assert without.empty_stats() == ()
    assert without.fit_stats((), rows, jnp.ones(3, bool)) == ()


@pytest.mark.parametrize(
    ("options", "raw", "pixel", "loss"),
    [
        ({}, 0.5, 255, 64 * 0.25),
        ({}, 0.2, 51, 0.0),
        ({"pixels": "unit"}, 0.0, 255, 64 * 0.125),
        ({"pixels": "unit"}, 0.25, 0, 64 * 0.5 * 0.5625),
        # Five bits: 13 lies with 8 to 15 in the second of 32 bins, whose middle is 1.5 / 32.
        ({"bits": 5}, 0.0, 13, 64 * (1.5 / 32) ** 2),
        ({"bits": 1, "pixels": "unit"}, 0.0, 200, 64 * 0.5 * 0.25**2),
    ],
)
def test_the_loss_of_images_is_summed_over_their_pixels(options, raw, pixel, loss):
    sees = codec(IMAGE, 4, **V3, **options)
    parts = {"image": jnp.full((2, 8, 8, 1), raw, jnp.float32)}
    obs = jnp.full((2, 8, 8, 1), pixel, jnp.uint8)
    np.testing.assert_allclose(sees.loss((), parts, obs), [loss, loss], rtol=1e-5, atol=1e-9)


def test_images_are_restored_to_whole_pixels():
    def restored(raw, **options):
        sees = codec(IMAGE, 4, **V3, **options)
        out = sees.restore((), {"image": jnp.zeros((8, 8, 1)).at[0, : len(raw), 0].set(jnp.asarray(raw))})
        assert out.dtype == jnp.uint8
        return out[0, : len(raw), 0].tolist()

    assert restored([0.0, 1.0, 0.1019, 0.1021, 200 / 255]) == [0, 255, 26, 26, 200]
    assert restored([-0.5, 0.5, 0.9, -0.7, 0.0981], pixels="unit") == [0, 255, 255, 0, 153]
    # The middles of the bins 0, 1 and 31 of five bits: pixels 3.5, 11.5 and 251.5, rounded to even ones.
    assert restored([0.5 / 32, 1.5 / 32, 31.5 / 32], bits=5) == [4, 12, 252]
    every = jnp.arange(256, dtype=jnp.uint8)
    sees = codec(dataclasses.replace(IMAGE, obs_shape=(16, 16, 1)), 4, **V3)
    image = every.reshape(16, 16, 1)
    np.testing.assert_array_equal(sees.restore((), {"image": image / 255.0}), image)


# ------------------------------------------------------------------------------------------- as networks


@pytest.mark.parametrize(
    ("spec", "options", "units"),
    [
        (VECTOR, {"units": 8}, 8),
        (FLOATS, {"units": 8}, 8),
        (FLOATS, {"units": 8, "small_images": "conv"}, 8),
        (IMAGE, {"depth": 2}, 4 * 4 * 4),
        (dataclasses.replace(IMAGE, obs_shape=(64, 64, 3)), {"depth": 4}, 4 * 4 * 16),
        (dataclasses.replace(IMAGE, obs_shape=(64, 64, 3)), {"style": "stride", "depth": 32}, 1024),  # World Models'
        (BOTH, {"depth": 2, "units": 8}, 4 * 4 * 4 + 8),
    ],
)
def test_tokens(spec, options, units):
    sees = codec(spec, 6, **options)
    assert sees.units == units
    obs = jax.ShapeDtypeStruct((2, 3, *spec.obs_shape), spec.obs_dtype)
    tokens = jax.eval_shape(lambda key, obs: sees.encode(sees.init(key), sees.empty_stats(), obs), KEY, obs)
    assert (tokens.shape, tokens.dtype) == ((2, 3, units), jnp.float32)


@pytest.mark.parametrize(
    ("spec", "options", "features"),
    [
        (FLOATS, {"units": 32, "small_images": "conv", "norm": "layer"}, 32),
        (IMAGE, STRIDE | {"depth": 4, "conv_activation": jax.nn.elu}, 36),
        (BOTH, V3 | {"units": 16, "layers": 2}, 80),
    ],
)
def test_it_learns_eight_frames(spec, options, features):
    sees = codec(spec, features, **options)
    assert sees.units == features
    obs = jnp.asarray(some(spec, 4, 2))
    optimizer = optax.adam(1e-2)

    def look(weights, obs):
        parts = sees.decode(weights, (), sees.encode(weights, (), obs))
        return sees.loss((), parts, obs), sees.restore((), parts)

    def update(carry, _):
        weights, opt = carry
        value, grads = jax.value_and_grad(lambda w: jnp.mean(look(w, obs)[0]))(weights)
        steps, opt = optimizer.update(grads, opt)
        return (optax.apply_updates(weights, steps), opt), (value, jax.tree.map(lambda g: jnp.max(jnp.abs(g)), grads))

    @jax.jit(compiler_options=FAST)
    def run(key):
        weights = sees.init(key)
        (weights, _), (losses, slopes) = jax.lax.scan(update, (weights, optimizer.init(weights)), length=150)
        return losses, slopes, look(weights, obs), jax.vmap(jax.vmap(lambda x: look(weights, x)))(obs)

    losses, slopes, together, single = run(KEY)
    assert losses[-1] < 0.1 * losses[0]
    # Every weight is taught, and by nothing infinite.
    assert all(bool(jnp.isfinite(x).all() & (x[0] > 0)) for x in jax.tree.leaves(slopes))
    assert together[0].shape == (4, 2)
    assert (together[1].shape, together[1].dtype) == (obs.shape, obs.dtype)
    np.testing.assert_allclose(together[0], single[0], rtol=1e-3)
    # A pixel between two whole numbers may fall on either side.
    np.testing.assert_allclose(together[1].astype(np.float32), single[1].astype(np.float32), rtol=1e-3, atol=1.0)


# ------------------------------------------------------------------------------------------- both at once


def test_a_dictionary_of_images_and_vectors_is_split_again():
    def obs(state):
        image = jnp.arange(16 * 16 * 3).reshape(16, 16, 3) % 256
        return {"state": state * jnp.ones(2), "camera": image.astype(jnp.uint8)}

    env = envs.from_functions(
        lambda key: (jnp.float32(0.5), obs(0.5)),
        lambda key, state, action: (state + 1, obs(state + 1), 0.0, False),
        action=ACTION,
        max_steps=5,
        name="robot",
    )
    assert env.spec.obs_shape == (770,)
    assert env.spec.obs_parts == (("camera", (16, 16, 3), "uint8"), ("state", (2,), "float32"))
    seen = spaces.flatten_obs(obs(0.5))

    options: dict[str, Any] = {"depth": 1, "units": 4, "layers": 1}
    sees = codec(env.spec, 6, **options)
    image = codec(Spec("camera", (16, 16, 3), ACTION, 5, "uint8"), 6, **options)
    vector = codec(Spec("state", (2,), ACTION, 5), 6, **options)
    frame = obs(0.5)

    @jax.jit(compiler_options=FAST)
    def everything(key, seen, frame):
        weights = sees.init(key)
        # Each part as its own codec has it; tokens side by side, losses added.
        of = lambda name: {side: {name.split(".")[0]: w[name]} for side, w in weights.items()}  # noqa: E731
        tokens = [
            image.encode(of("image.camera"), (), frame["camera"]),
            vector.encode(of("vector"), (), frame["state"]),
        ]
        parts = sees.decode(weights, (), jnp.ones(6))
        losses = [
            image.loss((), {"image": parts["image.camera"]}, frame["camera"]),
            vector.loss((), {"vector": parts["vector"]}, frame["state"]),
        ]
        both = sees.encode(weights, (), seen), sees.loss((), parts, seen)
        return both, (jnp.concatenate(tokens), sum(losses)), parts

    (tokens, loss), (wanted, total), parts = everything(KEY, seen, frame)
    assert sorted(parts) == ["image.camera", "vector"]
    np.testing.assert_allclose(tokens, wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(loss, total, rtol=1e-5)
    # What is perfectly decoded is restored exactly, in its place.
    perfect = {"image.camera": frame["camera"] / 255.0, "vector": jnp.log1p(frame["state"])}
    np.testing.assert_allclose(sees.restore((), perfect), seen, rtol=1e-6)
    assert sees.loss((), perfect, seen) == 0.0


def test_vectors_around_an_image_keep_their_order():
    spec = Spec(
        "between", (19,), ACTION, 5, obs_parts=(("a", (), "float32"), ("b", (4, 4, 1), "uint8"), ("c", (2,), ""))
    )
    sees = codec(spec, 3, **STRIDE)
    seen = jnp.arange(19.0)
    raw = {
        "vector": jnp.log1p(jnp.array([0.0, 17.0, 18.0])),
        "image.b": jnp.arange(1.0, 17.0).reshape(4, 4, 1) / 255 - 0.5,
    }
    np.testing.assert_allclose(sees.restore((), raw), seen, rtol=1e-5)
    np.testing.assert_allclose(sees.loss((), raw, seen), 0.0, atol=1e-9)


def test_gymnasium_tells_its_parts():
    box = gymnasium.spaces.Box
    space = gymnasium.spaces.Dict(
        {
            "eye": box(0, 255, (8, 8, 3), np.uint8),
            "grey": box(0, 255, (4, 4), np.uint8),
            "room": gymnasium.spaces.Discrete(3),
            "arm": gymnasium.spaces.Tuple((box(-1.0, 1.0, (2,), np.float64),)),
        }
    )
    found = host_spaces.observation("robot", space)
    assert found.parts == (
        ("arm.0", (2,), "float64"),
        ("eye", (8, 8, 3), "uint8"),
        ("grey", (4, 4, 1), "uint8"),
        ("room", (3,), "float32"),
    )
    assert found.shape == (2 + 192 + 16 + 3,)
    assert host_spaces.observation("plain", box(-1.0, 1.0, (3,))).parts == ()


def test_wrappers_that_change_entries_drop_the_parts():
    env = envs.from_functions(
        lambda key: (jnp.zeros(()), {"a": jnp.zeros(2), "b": jnp.ones(())}),
        lambda key, state, action: (state, {"a": jnp.zeros(2), "b": jnp.ones(())}, 0.0, False),
        action=ACTION,
        max_steps=5,
        name="two",
    )
    assert env.spec.obs_parts == (("a", (2,), "float32"), ("b", (), "float32"))
    for changed in (
        envs.mask_obs(env, (2, 1, 0)),
        envs.frame_stack(env, 2),
        envs.noisy(env, obs=0.1),
        flatten_obs(env),
    ):
        assert changed.spec.obs_parts == changed.vector(2).spec.obs_parts == ()
    for kept in (envs.noisy(env, action=0.1), envs.action_repeat(env, 2)):
        assert kept.spec.obs_parts == kept.vector(2).spec.obs_parts == env.spec.obs_parts


# ------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (dataclasses.replace(IMAGE, obs_shape=(63, 63, 3)), {}, "63 x 63 must have sides that can be halved"),
        (dataclasses.replace(IMAGE, obs_shape=(84, 84, 3)), {}, "but 2 layers leave 21 x 21"),
        (dataclasses.replace(IMAGE, obs_shape=(6, 64, 3)), {}, "but 0 layers leave 6 x 64"),
        (dataclasses.replace(IMAGE, obs_shape=(3, 3, 1)), STRIDE, "images need 4 pixels a side"),
        (dataclasses.replace(IMAGE, obs_shape=(9,)), {}, r"images must be \[H, W, C\], but image has uint8\[9\]"),
        (dataclasses.replace(BOTH, obs_shape=(67,)), {}, r"66 entries, shape \(67,\)"),
        (dataclasses.replace(FLOATS, obs_shape=(2, 4, 1)), {"small_images": "conv"}, "3 by 3 pixels at least"),
        (VECTOR, {"style": "v2"}, "style must be one of v3, stride"),
        (VECTOR, {"norm": "batch"}, "norm must be one of"),
        (VECTOR, {"vectors": "raw"}, "vectors must be one of symlog, normalized"),
        (VECTOR, {"pixels": "mse"}, "pixels must be one of sigmoid, unit"),
        (VECTOR, {"small_images": "mlp"}, "small_images must be one of flat, conv"),
        (VECTOR, {"layers": 0}, "layers must be at least 1"),
        (VECTOR, {"units": 0}, "units must be at least 1"),
        (VECTOR, {"depth": 0}, "depth must be at least 1"),
        (IMAGE, {"bits": 9}, "bits must be at most 8"),
    ],
)
def test_what_does_not_fit_is_refused(spec, options, message):
    with pytest.raises(ValueError, match=message):
        codec(spec, 4, **options)


def test_observations_of_another_shape_are_refused():
    sees = codec(VECTOR, 4, units=4)
    with pytest.raises(ValueError, match=r"obs has shape \(2,\), but the codec's spec says \(3,\)"):
        sees.loss((), {"vector": jnp.zeros(3)}, jnp.zeros(2))
    with pytest.raises(ValueError, match="features must be at least 1"):
        codec(VECTOR, 0)
