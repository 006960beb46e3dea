"""What a window of searched rows teaches: returns that a search's value ends, and which rows teach at all."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.types import Array, Sequence


class Targets(NamedTuple):
    """Of ``K`` unrolled steps from each window's first row, time-major.

    Attributes:
      value: ``float32[K + 1, B]``; 0 after the end.
      reward: ``float32[K, B]``, of the step that leaves each row; 0 after the end.
      known: ``bool[K + 1, B]``: the row, or an end of the episode before it, was seen; others teach nothing.
      alive: ``bool[K + 1, B]``: the row itself belongs to the first row's episode.
    """

    value: Array
    reward: Array
    known: Array
    alive: Array


def search_targets(
    batch: Sequence, values: Array, unroll: int, n_step: int, gamma: float | Array, players: int = 1
) -> Targets:
    r"""Returns of ``n_step`` steps, ended by the value that a search gave:

    .. math:: z_t = \sum_{i < n} (s \gamma)^i r_{t + i} + (s \gamma)^n \nu_{t + n}

    with :math:`s = -1` in a game of two, whose players alternate. Fewer steps where the episode terminates (nothing
    follows), and where a row is the last that is known of an episode that goes on (cut off by a time limit, or not
    finished yet): there the search's value of that row ends the return.

    After a termination come absorbing rows: value and reward 0, and no policy.

    Args:
      batch: ``Sequence[B, T]``, ``T`` at least ``unroll + n_step + 1``; ``is_first[:, 0]`` is not read.
      values: ``float32[B, T]``, the search's value of each row.
      unroll: ``K``, at least 0. n_step: ``n``, at least 1.
      gamma: discount. players: 1 or 2.

    Raises:
      ValueError: a window that is too short.

    Source: Schrittwieser et al. 2020 (MuZero, arXiv 1911.08265), section 3 and appendix G. Longer returns than the
    window's are not made: AlphaZero's outcome of the game needs ``n_step`` of the longest one.
    """
    unroll, n_step = checks.integer("unroll", unroll, 0), checks.integer("n_step", n_step, 1)
    length = unroll + n_step + 1
    if batch.mask.shape[1] < length:
        raise ValueError(f"windows must have unroll + n_step + 1 = {length} rows, got {batch.mask.shape[1]}")
    batch, values = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), (batch, values))
    rows = batch.transition
    reward = jnp.where(batch.mask, rows.reward, 0.0)
    terminated = rows.terminated & batch.mask
    # The row after this one goes on with the episode and is known.
    follows = jnp.concatenate([batch.mask[1:] & ~batch.is_first[1:], jnp.zeros_like(batch.mask[:1])])
    last = ~terminated & (rows.truncated | ~follows)
    step = -gamma if players == 2 else gamma

    def add(loop: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], None]:
        total, weight = loop
        part = lambda x: jax.lax.dynamic_slice_in_dim(x, i, unroll + 1)  # noqa: E731
        ends = part(last) | (i == n_step)
        total = total + weight * jnp.where(ends, part(values), part(reward))
        return (total, jnp.where(ends | part(terminated), 0.0, step * weight)), None

    start = jnp.zeros_like(reward[: unroll + 1]), jnp.ones_like(reward[: unroll + 1])
    (value, _), _ = jax.lax.scan(add, start, jnp.arange(n_step + 1))

    going = jnp.concatenate([batch.mask[:1], follows[:unroll] & ~(terminated | rows.truncated)[:unroll]])
    alive = jnp.cumprod(going, axis=0, dtype=jnp.int32).astype(bool)
    over = jnp.cumsum(alive[:unroll] & terminated[:unroll], axis=0) > 0
    over = jnp.concatenate([jnp.zeros_like(alive[:1]), over])
    value = jnp.where(alive, value, 0.0)
    paid = jnp.where(alive[:-1], reward[:unroll], 0.0)
    return Targets(value, paid, alive | over, alive)
