"""Orthogonal weights that can be drawn for many seeds side by side."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jmbrl.types import Array, Key


def orthogonal(scale: float = 1.0) -> Callable[..., Array]:
    """``(key, shape) -> float32[shape]``: ``jax.nn.initializers.orthogonal(scale)``, drawn one after another under
    ``vmap``.

    LAPACK's factorisation of a batch spreads over the CPU's pool of threads and waits for it inside that same pool: as
    many at once as there are threads wait for each other forever. One matrix is not spread.

    Source: Saxe et al. 2014 (arXiv 1312.6120).
    """
    draw = jax.nn.initializers.orthogonal(scale)

    def init(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        return jax.custom_batching.sequential_vmap(lambda key: draw(key, tuple(shape), dtype))(key)

    return init
