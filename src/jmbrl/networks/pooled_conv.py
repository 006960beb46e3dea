"""Convolutions of stride 1 between poolings (DreamerV3's images), computed as matrix products.

Two by two pixels that are pooled, or that stand where one was before, are computed together: a product's row is a block
with its neighbours, not a pixel with its own. As in ``conv.py``, products stay quick in their derivatives and where a
``vmap`` gives each copy kernels of its own, which the compiler's convolutions do not on CPUs.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.networks.normed import NORMS, init_linear
from jmbrl.networks.norms import init_norm, layer_norm, rms_norm
from jmbrl.types import Array, Key, PyTree

KERNEL = 5
LEAST, MOST = 4, 16  # pixels a side of the innermost map

Layer = dict[str, PyTree]


class PooledStack(NamedTuple):
    """How an image is halved to a small map and the map doubled to an image; static.

    Attributes:
      shape: of the image, ``(H, W, C)``.
      channels: of each halving layer.
      inner: shape of the innermost map, ``(h, w, channels[-1])``.
      units: its entries.
    """

    shape: tuple[int, int, int]
    channels: tuple[int, ...]
    inner: tuple[int, int, int]
    units: int


def pooled_stack(shape: Sequence[int], channels: Sequence[int]) -> PooledStack:
    """Layers that fit an image: as many of ``channels`` as its sides can be halved, down to 4 at the least.

    Args:
      shape: ``(H, W, C)``.
      channels: of the halving layers, outermost first; the doubling ones have them in reverse order.

    Raises:
      ValueError: a shape that is no image's, or sides that cannot be halved to between 4 and 16.

    Source: Hafner et al. 2023 (arXiv 2301.04104) and the released code, where 64 pixels are halved four times.

    >>> pooled_stack((64, 64, 3), (8, 12, 16, 16)).inner, pooled_stack((32, 48, 1), (8, 12, 16, 16)).inner
    ((4, 4, 16), (4, 6, 16))
    """
    if len(shape) != 3:
        raise ValueError(f"shape must be an image's (height, width, channels), got {tuple(shape)}")
    height, width, depth = (checks.integer("shape", x, 1) for x in shape)
    wanted = tuple(checks.integer("channels", x, 1) for x in channels)
    used, sides = 0, (height, width)
    while used < len(wanted) and all(n % 2 == 0 and n >= 2 * LEAST for n in sides):
        sides, used = (sides[0] // 2, sides[1] // 2), used + 1
    if not used or max(sides) > MOST:
        raise ValueError(
            f"an image of {height} x {width} must have sides that can be halved, by {len(wanted)} layers at most, to "
            f"between {LEAST} and {MOST} pixels, but {used} layers leave {sides[0]} x {sides[1]}: scale it "
            "(envs.frames), to 64 x 64 say"
        )
    inner = (*sides, wanted[used - 1])
    return PooledStack((height, width, depth), wanted[:used], inner, inner[0] * inner[1] * inner[2])


def init_pooled(key: Key, stack: PooledStack, norm: str = "rms") -> tuple[Layer, ...]:
    """The halving layers: ``({"kernel": [5, 5, in, out], "bias": [out][, "norm"]}, ...)``, as ``init_linear`` draws."""
    depths = (stack.shape[2], *stack.channels)
    keys = jax.random.split(key, len(stack.channels))
    return tuple(_init(k, i, o, norm) for k, i, o in zip(keys, depths[:-1], depths[1:], strict=True))


def init_unpooled(key: Key, stack: PooledStack, norm: str = "rms") -> tuple[Layer, ...]:
    """The doubling layers, in the order of their use; the last has no normalisation."""
    depths = (*stack.channels[::-1], stack.shape[2])
    keys = jax.random.split(key, len(stack.channels))
    norms = (norm,) * (len(keys) - 1) + ("none",)
    return tuple(_init(k, i, o, n) for k, i, o, n in zip(keys, depths[:-1], depths[1:], norms, strict=True))


def _init(key: Key, inputs: int, out: int, norm: str) -> Layer:
    layer = init_linear(key, KERNEL * KERNEL * inputs, out)
    return with_norm(layer | {"kernel": layer["kernel"].reshape(KERNEL, KERNEL, inputs, out)}, out, norm)


def with_norm(layer: Layer, units: int, norm: str) -> Layer:
    """The layer with a normalisation of ``units`` channels of its own, where ``norm`` is not ``"none"``."""
    checks.choice("norm", norm, NORMS)
    return layer if norm == "none" else layer | {"norm": init_norm(units, bias=norm == "layer")}


def apply_pooled(layers: Sequence[Layer], x: Array, activation: Callable, norm: str = "rms") -> Array:
    """``float32[..., H, W, C] -> float32[..., h, w, out]``: each layer is convolution, pooling, norm, activation."""
    for layer in layers:
        x = activation(normalised(layer, conv_pool(layer, x), norm))
    return x


def apply_unpooled(layers: Sequence[Layer], x: Array, activation: Callable, norm: str = "rms") -> Array:
    """``float32[..., h, w, in] -> float32[..., H, W, C]``: doubling, convolution, norm, activation; the last layer is
    without the latter two."""
    for layer in layers[:-1]:
        x = activation(normalised(layer, upsample_conv(layer, x), norm))
    return upsample_conv(layers[-1], x)


def normalised(layer: Layer, x: Array, norm: str) -> Array:
    """``x`` by what ``with_norm`` gave the layer."""
    if norm == "none":
        return x
    return (layer_norm if norm == "layer" else rms_norm)(layer["norm"], x)


def conv_pool(layer: Layer, x: Array) -> Array:
    """Kernel 5, zeros beyond the edge, then the greatest of each two by two pixels:
    ``float32[..., H, W, in] -> float32[..., H / 2, W / 2, out]``."""
    inputs, out = layer["kernel"].shape[2:]
    *lead, high, wide, _ = x.shape
    blocks = jnp.moveaxis(x.reshape(*lead, high // 2, 2, wide // 2, 2, inputs), -4, -3)
    blocks = blocks.reshape(*lead, high // 2, wide // 2, 4 * inputs)
    kernel = _of_blocks(layer["kernel"]).transpose(0, 2, 1, 3, 4, 5).reshape(36 * inputs, 4 * out)
    pixels = _around(blocks) @ kernel
    return jnp.max(pixels.reshape(*pixels.shape[:-1], 4, out), axis=-2) + layer["bias"]


def upsample_conv(layer: Layer, x: Array) -> Array:
    """Each pixel becomes two by two, then kernel 5 with zeros beyond the edge:
    ``float32[..., h, w, in] -> float32[..., 2 h, 2 w, out]``."""
    inputs, out = layer["kernel"].shape[2:]
    *lead, high, wide, _ = x.shape
    # The four pixels that stand where one was are equal: their weights add up.
    kernel = jnp.sum(_of_blocks(layer["kernel"]), axis=(1, 3)).reshape(9 * inputs, 4 * out)
    pixels = (_around(x) @ kernel).reshape(*lead, high, wide, 2, 2, out)
    return jnp.moveaxis(pixels, -3, -4).reshape(*lead, 2 * high, 2 * wide, out) + layer["bias"]


def conv_valid(layer: Layer, x: Array) -> Array:
    """Kernel 3, stride 1, no padding: ``float32[..., H, W, in] -> float32[..., H - 2, W - 2, out]``."""
    kernel = layer["kernel"]
    return _windows(x) @ kernel.reshape(-1, kernel.shape[-1]) + layer["bias"]


def _of_blocks(kernel: Array) -> Array:
    """A kernel ``[5, 5, in, out]`` as one from the six by six pixels around a block of two by two to the block's four:
    ``[3, 2, 3, 2, in, 4 * out]``, of blocks and pixels in a block."""
    inputs, out = kernel.shape[2:]
    shifted = [[jnp.pad(kernel, ((p, 1 - p), (q, 1 - q), (0, 0), (0, 0))) for q in (0, 1)] for p in (0, 1)]
    both = jnp.stack([jnp.stack(row, axis=-2) for row in shifted], axis=-3)
    return both.reshape(3, 2, 3, 2, inputs, 4 * out)


def _around(x: Array) -> Array:
    """Each place with its eight neighbours, zeros beyond the edge: ``[..., h, w, c] -> [..., h, w, 9 * c]``."""
    return _windows(jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [(1, 1), (1, 1), (0, 0)]))


def _windows(x: Array) -> Array:
    """Three by three places side by side: ``[..., h, w, c] -> [..., h - 2, w - 2, 9 * c]``."""
    high, wide = x.shape[-3] - 2, x.shape[-2] - 2
    return jnp.concatenate([x[..., i : i + high, j : j + wide, :] for i in range(3) for j in range(3)], axis=-1)
