"""What ``models/codec.py`` is made of: how vectors are read and given back, and how images are."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl.data import normalizer
from jmbrl.networks import (
    apply_conv,
    apply_conv_transpose,
    apply_linear,
    apply_normed,
    conv_stack,
    init_conv,
    init_conv_transpose,
    init_linear,
    init_normed,
    symexp,
    symlog,
)
from jmbrl.networks.pooled_conv import (
    apply_pooled,
    apply_unpooled,
    conv_valid,
    init_pooled,
    init_unpooled,
    normalised,
    pooled_stack,
    with_norm,
)
from jmbrl.types import Array, Key, PyTree

FILTERS, WINDOW = 16, 3  # of the convolution over small images


class Part(NamedTuple):
    """One part of an observation; every function takes any leading axes.

    Attributes:
      init: ``(key) -> {"encoder": ..., "decoder": ...}``.
      encode: ``(encoder's weights, stats, x) -> float32[..., units]``.
      decode: ``(decoder's weights, features) -> raw``, the decoder's output.
      loss: ``(stats, raw, x) -> float32[...]``, summed over the part's entries.
      restore: ``(stats, raw) -> x`` in float32.
      units: entries of ``encode``'s output.
    """

    init: Callable
    encode: Callable
    decode: Callable
    loss: Callable
    restore: Callable
    units: int


class Layers(NamedTuple):
    """The dense layers on both sides: ``count`` of ``units``, and what follows each."""

    units: int
    count: int
    norm: str
    activation: Callable

    def init(self, key: Key, inputs: int) -> PyTree:
        return init_normed(key, (inputs, *(self.units,) * self.count), self.norm)

    def apply(self, weights: PyTree, x: Array) -> Array:
        return apply_normed(weights, x, self.activation, self.norm)


def vector_part(size: int, features: int, layers: Layers, scaling: str, shape: tuple | None = None) -> Part:
    """``size`` numbers side by side, ``x: float32[..., size]``; read through a 3 by 3 convolution where they are an
    image of ``shape``."""

    def seen(stats: PyTree, x: Array) -> Array:
        return symlog(x) if scaling == "symlog" else normalizer.normalize(stats, x)

    if shape is not None and min(shape[:2]) < WINDOW:
        raise ValueError(f"small_images='conv' needs images of {WINDOW} by {WINDOW} pixels at least, got {shape}")
    inputs = size if shape is None else (shape[0] - WINDOW + 1) * (shape[1] - WINDOW + 1) * FILTERS

    def init(key: Key) -> PyTree:
        keys = jax.random.split(key, 4)
        encoder = {"layers": layers.init(keys[0], inputs)}
        if shape is not None:
            layer = init_linear(keys[1], WINDOW * WINDOW * shape[2], FILTERS)
            encoder["conv"] = layer | {"kernel": layer["kernel"].reshape(WINDOW, WINDOW, shape[2], FILTERS)}
        decoder = {"layers": layers.init(keys[2], features), "out": init_linear(keys[3], layers.units, size)}
        return {"encoder": encoder, "decoder": decoder}

    def encode(weights: PyTree, stats: PyTree, x: Array) -> Array:
        x = seen(stats, x)
        if shape is not None:
            filtered = layers.activation(conv_valid(weights["conv"], x.reshape(*x.shape[:-1], *shape)))
            x = filtered.reshape(*x.shape[:-1], inputs)
        return layers.apply(weights["layers"], x)

    def decode(weights: PyTree, x: Array) -> Array:
        return apply_linear(weights["out"], layers.apply(weights["layers"], x))

    def loss(stats: PyTree, raw: Array, x: Array) -> Array:
        squares = jnp.sum((raw - seen(stats, x)) ** 2, axis=-1)
        return squares if scaling == "symlog" else 0.5 * squares

    def restore(stats: PyTree, raw: Array) -> Array:
        return symexp(raw) if scaling == "symlog" else normalizer.denormalize(stats, raw)

    return Part(init, encode, decode, loss, restore, layers.units)


class Sight(NamedTuple):
    """The convolutions on both sides.

    Attributes:
      init: as ``Part``'s.
      narrow: ``(encoder's weights, float32[..., H, W, C]) -> float32[..., units]``.
      widen: ``(decoder's weights, features) -> float32[..., H, W, C]``.
    """

    init: Callable
    narrow: Callable
    widen: Callable
    units: int


def image_part(sight: Sight, pixels: str, bits: int | None) -> Part:
    """An image ``x: [..., H, W, C]`` of 0 to 255."""
    width = 2.0 ** (8 - bits) if bits else 1.0

    def shares(x: Array) -> Array:
        """Pixels in [0, 1]; with ``bits``, the middle of the bin in which each lies."""
        x = x.astype(jnp.float32)
        return (jnp.floor(x / width) + 0.5) * (width / 256.0) if bits else x / 255.0

    def encode(weights: PyTree, stats: PyTree, x: Array) -> Array:
        del stats
        return sight.narrow(weights, shares(x) - 0.5)

    def decode(weights: PyTree, x: Array) -> Array:
        out = sight.widen(weights, x)
        return jax.nn.sigmoid(out) if pixels == "sigmoid" else out

    def loss(stats: PyTree, raw: Array, x: Array) -> Array:
        del stats
        if pixels == "sigmoid":
            return jnp.sum((raw - shares(x)) ** 2, axis=(-3, -2, -1))
        return 0.5 * jnp.sum((raw - (shares(x) - 0.5)) ** 2, axis=(-3, -2, -1))

    def restore(stats: PyTree, raw: Array) -> Array:
        del stats
        share = raw if pixels == "sigmoid" else raw + 0.5
        return jnp.clip(jnp.round(256.0 * share - 0.5 if bits else 255.0 * share), 0.0, 255.0)

    return Part(sight.init, encode, decode, loss, restore, sight.units)


def pooled_sight(shape: tuple[int, ...], features: int, depth: int, norm: str, activation: Callable) -> Sight:
    """DreamerV3's: kernel 5 and stride 1 between poolings, and back."""
    stack = pooled_stack(shape, tuple(depth * m for m in (2, 3, 4, 4)))

    def init(key: Key) -> PyTree:
        keys = jax.random.split(key, 3)
        spread = with_norm(init_linear(keys[1], features, stack.units), stack.inner[2], norm)
        decoder = {"spread": spread, "layers": init_unpooled(keys[2], stack, norm)}
        return {"encoder": init_pooled(keys[0], stack, norm), "decoder": decoder}

    def narrow(weights: PyTree, x: Array) -> Array:
        return apply_pooled(weights, x, activation, norm).reshape(*x.shape[:-3], stack.units)

    def widen(weights: PyTree, x: Array) -> Array:
        inner = apply_linear(weights["spread"], x).reshape(*x.shape[:-1], *stack.inner)
        inner = activation(normalised(weights["spread"], inner, norm))
        return apply_unpooled(weights["layers"], inner, activation, norm)

    return Sight(init, narrow, widen, stack.units)


def strided_sight(shape: tuple[int, ...], features: int, depth: int, activation: Callable) -> Sight:
    """World Models': kernels of 4 and stride 2, and back; no normalisation."""
    stack = conv_stack(shape, tuple(depth * m for m in (1, 2, 4, 8)))

    def init(key: Key) -> PyTree:
        keys = jax.random.split(key, 3)
        decoder = {"spread": init_linear(keys[1], features, stack.units), "layers": init_conv_transpose(keys[2], stack)}
        return {"encoder": init_conv(keys[0], stack), "decoder": decoder}

    def narrow(weights: PyTree, x: Array) -> Array:
        return apply_conv(weights, x, activation)

    def widen(weights: PyTree, x: Array) -> Array:
        return apply_conv_transpose(weights["layers"], apply_linear(weights["spread"], x), activation)

    return Sight(init, narrow, widen, stack.units)
