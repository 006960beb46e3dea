"""Convolutions for images as plain dictionaries of arrays, computed as matrix products.

On CPUs the compiler's own convolutions are slow in their derivatives and where they widen an image; products of
patches are not, and under ``vmap`` over single images they are the same product with more rows.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.types import Array, Key

KERNEL = 4  # of the narrowing layers; every stride is 2
LEAST, MOST = 3, 9  # kernels of the widening layers: 3 leaves no pixel out, 9 is as far as a square of 4 to 93 needs

Layer = dict[str, Array]


class ConvStack(NamedTuple):
    """How an image is narrowed to a vector and a vector widened to an image; static.

    Attributes:
      shape: of the image, ``(H, W, C)``.
      channels: of each narrowing layer.
      units: entries of the narrowed image, also of the vector that is widened.
      kernels: height and width of each widening layer's kernel.
    """

    shape: tuple[int, int, int]
    channels: tuple[int, ...]
    units: int
    kernels: tuple[tuple[int, int], ...]


def conv_stack(shape: Sequence[int], channels: Sequence[int] = (32, 64, 128, 256)) -> ConvStack:
    r"""Layers that fit an image: as many of ``channels`` as it has pixels for.

    A narrowing layer (kernel 4, stride 2, no padding) makes :math:`\lfloor n / 2 \rfloor - 1` of :math:`n` pixels, and
    there are layers as long as the smaller side has 4. As many layers widen one pixel again, :math:`n` to
    :math:`2 (n - 1) + k`, with kernels that differ by at most one and reach the size exactly:
    :math:`1 + \sum_i 2^{L - i} (k_i - 1)` pixels. For 64 they are 5, 5, 6 and 6, as in the source.

    Args:
      shape: ``(H, W, C)``; 4 to 93 pixels a side are always right with four channels.
      channels: of the narrowing layers, outermost first; the widening ones have them in reverse order.

    Raises:
      ValueError: a shape that is no image's, or a side that no kernels of 3 to 9 reach.

    Source: Ha and Schmidhuber 2018 (arXiv 1803.10122), appendix A.1, for 64 by 64 pixels.

    >>> conv_stack((64, 64, 3)).kernels, conv_stack((10, 10, 1)).kernels
    (((5, 5), (5, 5), (6, 6), (6, 6)), ((4, 4), (4, 4)))
    """
    if len(shape) != 3:
        raise ValueError(f"shape must be an image's (height, width, channels), got {tuple(shape)}")
    height, width, depth = (checks.integer("shape", x, 1) for x in shape)
    wanted = tuple(checks.integer("channels", x, 1) for x in channels)
    if not wanted or min(height, width) < KERNEL:
        raise ValueError(f"images need {KERNEL} pixels a side and one layer, got {tuple(shape)} with channels {wanted}")
    used, sides = 0, (height, width)
    while used < len(wanted) and min(sides) >= KERNEL:
        sides, used = tuple(n // 2 - 1 for n in sides), used + 1
    kernels = zip(_kernels(height, used), _kernels(width, used), strict=True)
    return ConvStack((height, width, depth), wanted[:used], sides[0] * sides[1] * wanted[used - 1], tuple(kernels))


def _kernels(size: int, layers: int) -> tuple[int, ...]:
    """Kernels that widen one pixel to ``size``. A kernel's share of the size is a power of two, so that what is left
    of equal ones is spread by its binary digits: the only kernels that differ by one at most."""
    ones = 2**layers - 1
    base, rest = divmod(size + ones - 1, ones)
    kernels = tuple(base + (rest >> (layers - 1 - i)) % 2 for i in range(layers))
    if min(kernels) < LEAST or max(kernels) > MOST:
        low, high = (k * ones - ones + 1 for k in (LEAST, MOST))
        raise ValueError(
            f"an image side of {size} cannot be widened from one pixel in {layers} layers, which reach {low} to "
            f"{high}: scale the image, or change the number of channels"
        )
    return kernels


def init_conv(key: Key, stack: ConvStack) -> tuple[Layer, ...]:
    """The narrowing layers: ``({"kernel": [4, 4, in, out], "bias": [out]}, ...)``, He uniform."""
    depths = (stack.shape[2], *stack.channels)
    he = jax.nn.initializers.he_uniform()
    keys = jax.random.split(key, len(stack.channels))
    return tuple(
        {"kernel": he(k, (KERNEL, KERNEL, i, o)), "bias": jnp.zeros(o)}
        for k, i, o in zip(keys, depths[:-1], depths[1:], strict=True)
    )


def init_conv_transpose(key: Key, stack: ConvStack) -> tuple[Layer, ...]:
    """The widening layers: ``({"kernel": [in, height, width, out], "bias": [out]}, ...)``.

    He uniform, where a pixel's inputs are a quarter of the kernel's entries (the stride is 2). Glorot's, the source's,
    lose half of the signal in each layer, and then some: images stay grey for thousands of updates.
    """
    depths = (stack.units, *stack.channels[-2::-1], stack.shape[2])
    he = jax.nn.initializers.variance_scaling(8.0, "fan_in", "uniform", in_axis=(0, 1, 2), out_axis=3)
    keys = jax.random.split(key, len(stack.kernels))
    return tuple(
        {"kernel": he(k, (i, *size, o)), "bias": jnp.zeros(o)}
        for k, i, size, o in zip(keys, depths[:-1], stack.kernels, depths[1:], strict=True)
    )


def apply_conv(layers: Sequence[Layer], x: Array, activation: Callable = jax.nn.relu) -> Array:
    """``float32[..., H, W, C] -> float32[..., units]``; the activation follows every layer."""
    for layer in layers:
        x = activation(conv(layer, x))
    return x.reshape(*x.shape[:-3], -1)


def apply_conv_transpose(layers: Sequence[Layer], x: Array, activation: Callable = jax.nn.relu) -> Array:
    """``float32[..., units] -> float32[..., H, W, C]``; the activation follows every layer but the last."""
    x = x[..., None, None, :]
    for layer in layers[:-1]:
        x = activation(conv_transpose(layer, x))
    return conv_transpose(layers[-1], x)


def conv(layer: Layer, x: Array) -> Array:
    """Kernel 4, stride 2, no padding: ``float32[..., H, W, in] -> float32[..., H', W', out]``.

    A kernel covers two by two blocks of two by two pixels: a patch is four blocks, and patches are a product's rows.
    """
    inputs, out = layer["kernel"].shape[2:]
    *lead, h, w, _ = x.shape
    h, w = h // 2 - 1, w // 2 - 1
    blocks = x[..., : 2 * h + 2, : 2 * w + 2, :].reshape(*lead, h + 1, 2, w + 1, 2, inputs)
    blocks = jnp.moveaxis(blocks, -4, -3).reshape(*lead, h + 1, w + 1, 4 * inputs)
    patches = [blocks[..., i : i + h, j : j + w, :] for i in (0, 1) for j in (0, 1)]
    kernel = layer["kernel"].reshape(2, 2, 2, 2, inputs, out).transpose(0, 2, 1, 3, 4, 5)
    return jnp.concatenate(patches, axis=-1) @ kernel.reshape(16 * inputs, out) + layer["bias"]


def conv_transpose(layer: Layer, x: Array) -> Array:
    """Stride 2, no padding: ``float32[..., h, w, in] -> float32[..., 2 (h - 1) + k, 2 (w - 1) + k, out]``.

    Each pixel is multiplied into its stamp of ``k`` by ``k`` pixels, in blocks of two by two, and the stamps are added
    where they overlap. They are split rather than indexed: the derivative of that is one concatenation.
    """
    inputs, high, wide, out = layer["kernel"].shape
    *lead, h, w, _ = x.shape
    if h == w == 1:  # nothing overlaps
        return (x @ layer["kernel"].reshape(inputs, -1)).reshape(*lead, high, wide, out) + layer["bias"]
    rows, columns = -(-high // 2), -(-wide // 2)
    kernel = jnp.pad(layer["kernel"], ((0, 0), (0, 2 * rows - high), (0, 2 * columns - wide), (0, 0)))
    kernel = kernel.reshape(inputs, rows, 2, columns, 2, out).transpose(0, 1, 3, 2, 4, 5)
    stamps = x @ kernel.reshape(inputs, -1)
    blocks = _overlapped(_overlapped(stamps, rows, -3), columns, -2)
    blocks = blocks.reshape(*blocks.shape[:-1], 2, 2, out)
    image = jnp.moveaxis(blocks, -3, -4).reshape(*lead, 2 * (h + rows - 1), 2 * (w + columns - 1), out)
    return image[..., : 2 * (h - 1) + high, : 2 * (w - 1) + wide, :] + layer["bias"]


def _overlapped(stamps: Array, count: int, axis: int) -> Array:
    """The last axis in ``count`` parts, part ``i`` moved by ``i`` along ``axis``, and their sum."""
    none = [(0, 0)] * (stamps.ndim + axis)
    after = [(0, 0)] * (-axis - 1)
    parts = jnp.split(stamps, count, axis=-1)
    return sum((jnp.pad(p, [*none, (i, count - 1 - i), *after]) for i, p in enumerate(parts)), start=jnp.zeros(()))
