"""What reads an observation first: dense layers, or a tower of residual convolutions for boards and small images."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.networks.normed import apply_normed, init_normed
from jmbrl.networks.norms import init_norm, layer_norm
from jmbrl.types import Array, Key, PyTree


class Trunk(NamedTuple):
    """``init(key) -> weights``; ``apply(weights, x[..., *shape]) -> float32[..., units]``."""

    init: Callable
    apply: Callable
    units: int


def trunk(
    shape: Sequence[int],
    *,
    units: int = 128,
    layers: int = 2,
    channels: int = 0,
    blocks: int = 0,
    activation: Callable[[Array], Array] = jax.nn.relu,
) -> Trunk:
    r"""``layers`` dense layers of ``units``, each with a layer norm, after a tower where there are ``channels``.

    The tower: a convolution (3 by 3, zeros around the border) to ``channels``, then ``blocks`` times
    :math:`x \leftarrow f(x + N(W_2 f(N(W_1 x))))` of such convolutions, with a norm ``N`` over each place's channels.

    Args:
      shape: of one observation; with ``channels`` an image's ``(H, W, C)``. Bytes are read as numbers in ``[0, 1]``.
      units, layers: of the dense layers, at least 1.
      channels: of the tower; 0: none.
      blocks: of the tower.

    Raises:
      ValueError: a number outside its range, or ``channels`` for what is no image.

    Source: Silver et al. 2018 (AlphaZero), whose tower normalises over the batch: here no row can change another's.
    """
    shape = tuple(checks.integer("shape", x, 1) for x in shape)
    units, layers = checks.integer("units", units, 1), checks.integer("layers", layers, 1)
    channels, blocks = checks.integer("channels", channels, 0), checks.integer("blocks", blocks, 0)
    if channels and len(shape) != 3:
        raise ValueError(f"channels need an image's shape (height, width, channels), got {shape}")
    inputs = shape[0] * shape[1] * channels if channels else math.prod(shape)
    sizes = (inputs, *[units] * layers)

    def init(key: Key) -> PyTree:
        key_dense, key_first, key_blocks = jax.random.split(key, 3)
        weights: dict[str, PyTree] = {"dense": init_normed(key_dense, sizes, "layer")}
        if not channels:
            return weights
        weights["first"] = _init_conv(key_first, shape[2], channels)
        if blocks:
            both = lambda key: [_init_conv(k, channels, channels) for k in jax.random.split(key)]  # noqa: E731
            weights["blocks"] = jax.vmap(both)(jax.random.split(key_blocks, blocks))
        return weights

    def apply(weights: PyTree, x: Array) -> Array:
        checks.same_shape("x", x.shape[x.ndim - len(shape) :], shape, "the trunk")
        lead = x.shape[: x.ndim - len(shape)]
        x = x.astype(jnp.float32) / 255.0 if x.dtype == jnp.uint8 else x
        if channels:
            x = activation(_normed_conv(weights["first"], x))
            if blocks:  # alike, so a scan: one block is compiled

                def block(x: Array, pair: list) -> tuple[Array, None]:
                    return activation(x + _normed_conv(pair[1], activation(_normed_conv(pair[0], x)))), None

                x = jax.lax.scan(block, x, weights["blocks"])[0]
        return apply_normed(weights["dense"], x.reshape(*lead, -1), activation, "layer")

    return Trunk(init, apply, units)


def _init_conv(key: Key, inputs: int, outputs: int) -> dict[str, PyTree]:
    kernel = jax.nn.initializers.he_normal()(key, (9 * inputs, outputs))
    return {"kernel": kernel, "norm": init_norm(outputs, bias=True)}


def _normed_conv(layer: dict[str, PyTree], x: Array) -> Array:
    """3 by 3, same size: ``float32[..., H, W, in] -> float32[..., H, W, out]``, as a product of patches, whose
    derivative is fast on CPUs too (``networks.conv``)."""
    *lead, high, wide, _ = x.shape
    padded = jnp.pad(x, [(0, 0)] * len(lead) + [(1, 1), (1, 1), (0, 0)])
    patches = [padded[..., i : i + high, j : j + wide, :] for i in range(3) for j in range(3)]
    return layer_norm(layer["norm"], jnp.concatenate(patches, axis=-1) @ layer["kernel"])
