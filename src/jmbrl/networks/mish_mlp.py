"""The layers of TD-MPC2: linear, layer norm, Mish; the last one is plain, or ends in groups of softmaxes."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp

from jmbrl.fast_bits import fast_bits
from jmbrl.networks.norms import init_norm, layer_norm
from jmbrl.types import Array, Key

Layers = tuple[dict[str, Any], ...]


def mish(x: Array) -> Array:
    r""":math:`x \tanh(\log(1 + e^x))` (Misra 2019, arXiv 1908.08681) by one exponential."""
    e = jnp.exp(jnp.minimum(x, 20.0))
    n = e * (e + 2.0)
    return x * (n / (n + 2.0))


def simnorm(x: Array, group: int = 8) -> Array:
    """Softmax within each group of ``group`` neighbours of the last axis, whose length is a multiple of it.

    Source: Hansen et al. 2024 (TD-MPC2, arXiv 2310.16828), equation 5; Lavoie et al. 2023 (arXiv 2204.00616).
    """
    return jax.nn.softmax(x.reshape(*x.shape[:-1], -1, group), axis=-1).reshape(x.shape)


def init_mish_mlp(key: Key, sizes: Sequence[int], *, simplicial: bool = False, zero: bool = False) -> Layers:
    """Layers ``sizes[0] -> ... -> sizes[-1]``: ``({"kernel", "bias", "norm"}, ...)``.

    Weights are normal of standard deviation 0.02. (The released code names a truncated normal, but cuts it at 100
    standard deviations.)

    Args:
      simplicial: the last layer has a norm too, and ends in ``simnorm``; otherwise it is plain and has no ``"norm"``.
      zero: the last layer's weights are 0.
    """
    keys = jax.random.split(key, len(sizes) - 1)
    layers = []
    for i, shape in enumerate(pairwise(sizes)):
        last = i == len(keys) - 1
        scale = 0.0 if zero and last else 0.02
        layer = {"kernel": scale * jax.random.normal(keys[i], shape), "bias": jnp.zeros(shape[1])}
        layers.append(layer if last and not simplicial else layer | {"norm": init_norm(shape[1], bias=True)})
    return tuple(layers)


def apply_mish_mlp(
    layers: Layers, x: Array, *, group: int = 8, dropout: float | Array = 0.0, key: Key | None = None
) -> Array:
    """``float32[..., in] -> float32[..., out]``; with a ``key`` a share ``dropout`` of the first layer's outputs is 0
    and the others are scaled up to make good for it. ``group``: of ``simnorm``, where the layers end in it."""
    for i, layer in enumerate(layers):
        x = x @ layer["kernel"] + layer["bias"]
        if i == 0 and key is not None:
            kept = fast_bits(key, x.shape) >= jnp.asarray(dropout * 2.0**32, jnp.uint32)
            x = jnp.where(kept, x / (1.0 - dropout), 0.0)
        if "norm" in layer:
            x = layer_norm(layer["norm"], x, 1e-5)
            x = simnorm(x, group) if i == len(layers) - 1 else mish(x)
    return x
