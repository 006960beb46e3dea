"""Dense layers as plain dictionaries: the hot path of the state-space models.

Written by hand rather than with linen so that an ensemble is one leading axis on every array, its product one
batched matmul, and nothing stands between the matmuls but one fused elementwise loop.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jmbrl.types import Array, Key


def fan_in_normal(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """``TruncatedNormal(0, 1 / (2 sqrt(fan_in)))`` cut at two standard deviations; ``shape = (fan_in, fan_out)``.

    The number is the scale of the normal *before* truncation, as in PETS' code (the cut reduces it by 0.88).
    """
    return jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype) / (2.0 * shape[0] ** 0.5)


def swish(x: Array) -> Array:
    """``x * sigmoid(x)``, written with tanh: a rational polynomial on CPUs, cheaper than an exponential."""
    half = 0.5 * x
    return half + half * jnp.tanh(half)


def init_dense(key: Key, sizes: Sequence[int]) -> tuple[dict[str, Array], ...]:
    """Layers ``sizes[0] -> ... -> sizes[-1]``: ``({"kernel": [in, out], "bias": [out]}, ...)``."""
    keys = jax.random.split(key, len(sizes) - 1)
    return tuple(
        {"kernel": fan_in_normal(k, (i, o)), "bias": jnp.zeros(o)}
        for k, i, o in zip(keys, sizes[:-1], sizes[1:], strict=True)
    )


def apply_dense(layers: Sequence[dict[str, Array]], x: Array, activation: Callable[[Array], Array] = swish) -> Array:
    """``float32[..., in] -> float32[..., out]``; the activation follows every layer but the last."""
    for layer in layers[:-1]:
        x = activation(x @ layer["kernel"] + layer["bias"])
    return x @ layers[-1]["kernel"] + layers[-1]["bias"]
