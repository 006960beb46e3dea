"""Dealing rows out to the members of an ensemble, and putting them back."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl.types import Array, Key, PyTree

_BLOCK_ROWS = (
    1050  # rows a member is given at a time: fewer split badly over cores, more leave the caches (benchmarks/)
)
_UNITS = 8  # units a member is dealt: more mix the members better, fewer make longer copies
_UNIT_ROWS = 64  # no unit is shorter than this while a member gets more than one


class Groups(NamedTuple):
    """``count`` rows as ``[chunks, members, share, rows]``, the last rows being padding. All static.

    A chunk is evaluated at a time; a member's block in it is ``share`` units of ``rows`` rows.
    """

    count: int
    chunks: int
    members: int
    share: int
    rows: int
    stable: bool

    @property
    def units(self) -> int:
        return self.chunks * self.members * self.share

    @property
    def block(self) -> int:
        return self.share * self.rows

    @property
    def padding(self) -> int:
        return self.units * self.rows - self.count


def groups(count: int, members: int, stable: bool) -> Groups:
    """How ``count`` rows are cut: chunks of about 1050 rows a member, and in TS1 about 8 units a member in all.

    Padding is always less than a unit's worth per 64 rows; the share with the least of it wins, then the largest.
    ``stable``: a member's rows are contiguous (TS-infinity), so there are no units to deal.
    """
    chunks = max(1, round(count / (members * _BLOCK_ROWS)))

    def cut(share: int) -> Groups:
        return Groups(count, chunks, members, share, -(-count // (chunks * members * share)), stable)

    most = 1 if stable else max(1, min(_UNITS // chunks, count // (chunks * members * _UNIT_ROWS)))
    return min((cut(share) for share in range(most, 0, -1)), key=lambda plan: plan.padding)


def deal(key: Key, plan: Groups) -> Array:
    """``int32[units]``: which unit of rows lies at each place, a uniform permutation.

    The order of as many random words; ``jax.random.permutation`` would split the key and sort once more.
    """
    return jnp.argsort(jax.random.bits(key, (plan.units,)))


def gather_rows(plan: Groups, order: Array | None, tree: PyTree) -> PyTree:
    """Leaves ``[count, ...] -> [chunks, members, block, ...]``, units in ``order``."""

    def gather(x: Array) -> Array:
        if plan.padding:
            # Padding repeats the last row: zeros could be outside a model's domain and cost time as NaN.
            x = jnp.concatenate([x, jnp.broadcast_to(x[-1:], (plan.padding, *x.shape[1:]))])
        if plan.stable:
            x = x.reshape(plan.members, plan.chunks, plan.block, *x.shape[1:])
            return jnp.swapaxes(x, 0, 1)
        x = x.reshape(plan.units, plan.rows, *x.shape[1:])
        x = x if order is None else x[order]
        return x.reshape(plan.chunks, plan.members, plan.block, *x.shape[2:])

    return jax.tree.map(gather, tree)


def scatter_rows(plan: Groups, order: Array | None, tree: PyTree) -> PyTree:
    """The inverse of ``gather_rows``; drops the padding."""
    inverse = None if order is None else jnp.argsort(order)

    def scatter(x: Array) -> Array:
        rest = x.shape[3:]
        if plan.stable:
            x = jnp.swapaxes(x, 0, 1)
        elif inverse is not None:
            x = x.reshape(plan.units, plan.rows, *rest)[inverse]
        return x.reshape(plan.units * plan.rows, *rest)[: plan.count]

    return jax.tree.map(scatter, tree)
