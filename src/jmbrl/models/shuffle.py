"""Random orders of ``n`` rows without storing them, for an ``n`` known only at run time.

A replay's size changes while its arrays do not, and a permutation of the filled part by sorting would cost the whole
capacity in every epoch. Here each position's image is computed on its own.
"""

import jax
import jax.numpy as jnp

from jmbrl.fast_bits import mix32
from jmbrl.types import Array, Key

_ROUNDS = 24


def salts(key: Key) -> Array:
    """``uint32[24, 2]``: the randomness of one permutation or one sequence of draws, to be used again and again."""
    return jax.random.bits(key, (_ROUNDS, 2))


def permuted(salts: Array, index: Array, n: Array) -> Array:
    """``int32``: where a random permutation of ``{0..n-1}`` sends ``index`` (``int32``, any shape, in ``[0, n)``).

    The swap-or-not network (Hoang, Morris, Rogaway 2012, figure 1): in each round ``x`` is paired with
    ``(K - x) mod n`` and a hash of the larger one decides whether both swap: a bijection for any ``n``.
    """
    size = jnp.maximum(n, 1).astype(jnp.uint32)

    def swap(x: Array, salt: Array) -> tuple[Array, None]:
        shift = salt[0] % size
        partner = jnp.where(shift >= x, shift - x, shift + size - x)
        flip = mix32(jnp.maximum(x, partner) ^ salt[1]) >> 31
        return jnp.where(flip == 1, partner, x), None

    return jax.lax.scan(swap, index.astype(jnp.uint32), salts)[0].astype(jnp.int32)


def drawn(salts: Array, index: Array, n: Array) -> Array:
    """``int32``: draw number ``index`` of a fixed sequence of uniform draws from ``{0..n-1}``, with replacement."""
    bits = mix32(mix32(index.astype(jnp.uint32) ^ salts[0, 0]) ^ salts[0, 1])
    return (bits % jnp.maximum(n, 1).astype(jnp.uint32)).astype(jnp.int32)
