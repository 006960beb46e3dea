"""A piece of float64 inside a float32 program: what a badly conditioned solve needs, and nothing else pays for.

A function that is traced under ``with jax.enable_x64(True)`` keeps its float64 in the program around it. But what JAX
does to the program later, mapping a loop over seeds or transposing it for a gradient, happens outside of the ``with``,
where the rules of many primitives quietly turn float64 into float32. ``in_double`` therefore maps and differentiates
inside: a mapped piece is traced again, and the float32 program only multiplies by its Jacobian.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl.types import Array, PyTree


class Pair(NamedTuple):
    """A float64 array kept as the sum of two of float32 (48 bits of it), so that the rest never sees float64."""

    high: Array
    low: Array


def pair(x: Array) -> Pair:
    """Splits a float64 array; call it where float64 is enabled."""
    high = x.astype(np.float32)
    return Pair(high, (x - high.astype(np.float64)).astype(np.float32))


def widen(tree: PyTree) -> PyTree:
    """float32 to float64, ``Pair`` joined, other types as they are; call it where float64 is enabled."""

    def one(x: Array | Pair) -> Array:
        if isinstance(x, Pair):
            return x.high.astype(np.float64) + x.low.astype(np.float64)
        return x.astype(np.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(one, tree, is_leaf=lambda x: isinstance(x, Pair))


def narrow(tree: PyTree) -> PyTree:
    """float64 to float32 and int64 to int32; other types as they are."""
    to = {np.dtype(np.float64): np.float32, np.dtype(np.int64): np.int32}
    return jax.tree.map(lambda x: x.astype(to[x.dtype]) if x.dtype in to else x, tree)


def rounded(tree: PyTree) -> PyTree:
    """``widen`` for float32 arithmetic: a ``Pair`` becomes its high half."""
    return jax.tree.map(lambda x: x.high if isinstance(x, Pair) else x, tree, is_leaf=lambda x: isinstance(x, Pair))


def in_double(function: Callable) -> Callable:
    """``function(*args) -> tree`` traced where float64 is enabled; to be jitted, looped, mapped, not differentiated.

    Arguments arrive as they are (``widen`` them); results leave as float32 and int32. What is traced may not be closed
    over.
    """

    def run(*args: PyTree) -> PyTree:
        with jax.enable_x64(True):
            return narrow(function(*args))

    isolated = jax.custom_batching.custom_vmap(run)

    @isolated.def_vmap
    def _(axis_size: int, batched: list, *args: PyTree) -> tuple[PyTree, PyTree]:
        axes = tuple(jax.tree.map(lambda here: 0 if here else None, given) for given in batched)
        out = in_double(jax.vmap(function, in_axes=axes, axis_size=axis_size))(*args)
        return out, jax.tree.map(lambda _: True, out)

    return isolated


def differentiable(function: Callable) -> Callable:
    """``function(constants, x[D]) -> tree``, evaluated in float64 on widened arguments; float32 goes in and comes out.

    May also be differentiated by ``x``, forwards and backwards, as often as wanted. Derivatives by ``constants`` are
    taken to be 0.
    """
    value = in_double(lambda constants, x: function(widen(constants), widen(x)))
    wrapped = jax.custom_jvp(lambda constants, x: value(constants, x))

    @wrapped.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple:
        jacobian = differentiable(jax.jacrev(function, argnums=1))  # made when asked for: so it has one of its own
        # Full float32 products: the default may round to half as many bits on an accelerator.
        push = lambda j: jnp.tensordot(j, tangents[1], primals[1].ndim, precision="highest")  # noqa: E731
        return wrapped(*primals), jax.tree.map(push, jacobian(*primals))

    return wrapped
