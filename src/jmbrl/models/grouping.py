"""Dealing rows out to the members of an ensemble, and putting them back."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl.types import Array, Key, PyTree

_MAX_CHUNKS = 8
_MIN_ROWS = 64  # fewer rows than this per matmul and its overhead shows


class Groups(NamedTuple):
    """``count`` rows as ``[chunks, members, rows]``, the last rows being padding. All static."""

    count: int
    chunks: int
    members: int
    rows: int
    stable: bool

    @property
    def units(self) -> int:
        return self.chunks * self.members

    @property
    def padding(self) -> int:
        return self.units * self.rows - self.count


def groups(count: int, members: int, stable: bool) -> Groups:
    """How ``count`` rows are cut: as many chunks as there are, up to 8, of at least 64 rows a member.

    A chunk is evaluated at a time, which keeps its activations in the cache. Among the numbers of chunks that fit,
    the one with the least padding wins, and among those the largest. ``stable``: a member's rows stay contiguous.
    """
    best = None
    for chunks in range(1, _MAX_CHUNKS + 1):
        rows = -(-count // (chunks * members))
        if best is not None and rows < _MIN_ROWS:
            break
        plan = Groups(count, chunks, members, rows, stable)
        if best is None or plan.padding <= best.padding:
            best = plan
    return best


def deal(key: Key, plan: Groups) -> Array:
    """``int32[units]``: which unit of rows lies at each place, a uniform permutation.

    The order of as many random words; ``jax.random.permutation`` would split the key and sort once more.
    """
    return jnp.argsort(jax.random.bits(key, (plan.units,)))


def gather_rows(plan: Groups, order: Array | None, tree: PyTree) -> PyTree:
    """Leaves ``[count, ...] -> [chunks, members, rows, ...]``, units in ``order``."""

    def gather(x: Array) -> Array:
        if plan.padding:
            # Padding repeats the last row: zeros could be outside a model's domain and cost time as NaN.
            x = jnp.concatenate([x, jnp.broadcast_to(x[-1:], (plan.padding, *x.shape[1:]))])
        if plan.stable:
            x = x.reshape(plan.members, plan.chunks, plan.rows, *x.shape[1:])
            return jnp.swapaxes(x, 0, 1)
        x = x.reshape(plan.units, plan.rows, *x.shape[1:])
        x = x if order is None else x[order]
        return x.reshape(plan.chunks, plan.members, *x.shape[1:])

    return jax.tree.map(gather, tree)


def scatter_rows(plan: Groups, order: Array | None, tree: PyTree) -> PyTree:
    """The inverse of ``gather_rows``; drops the padding."""
    inverse = None if order is None else jnp.argsort(order)

    def scatter(x: Array) -> Array:
        if plan.stable:
            x = jnp.swapaxes(x, 0, 1)
        else:
            x = x.reshape(plan.units, *x.shape[2:])
            x = x if inverse is None else x[inverse]
        return x.reshape(plan.units * plan.rows, *x.shape[3 if plan.stable else 2 :])[: plan.count]

    return jax.tree.map(scatter, tree)
