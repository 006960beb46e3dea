"""A priority queue over the numbers ``0 .. n - 1`` in two small arrays, so that it lives inside compiled programs.

Each number has one place, so it is queued at most once, and pushing it again replaces its priority. The places lie in
about ``sqrt(n)`` blocks whose largest priorities are kept: a push or a pop looks at ``O(sqrt(n))`` numbers.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp

from jmbrl import checks
from jmbrl.types import Array


class PriorityQueue(NamedTuple):
    """``priority``: ``float32[blocks, width]``, 0 where a number is not queued; ``best``: ``float32[blocks]``;
    ``count``: ``int32``, how many are queued."""

    priority: Array
    best: Array
    count: Array


def empty_queue(count: int) -> PriorityQueue:
    """An empty queue over ``count`` numbers."""
    count = checks.integer("count", count, 1)
    width = math.isqrt(count - 1) + 1
    blocks = -(-count // width)
    return PriorityQueue(jnp.zeros((blocks, width)), jnp.zeros(blocks), jnp.zeros((), jnp.int32))


def push(queue: PriorityQueue, items: Array, priorities: Array, wanted: Array) -> PriorityQueue:
    """Queue ``items[P]``, all different, where ``wanted[P]``; a queued item's priority is replaced.

    Args:
      items: ``int32``; what stands where not ``wanted`` does not matter.
      priorities: above 0.
      wanted: ``bool``.
    """
    blocks, width = queue.priority.shape
    block = jnp.where(wanted, items // width, blocks)  # beyond the last one: dropped
    new = wanted & (queue.priority.at[block, items % width].get(mode="fill", fill_value=0.0) == 0)
    priority = queue.priority.at[block, items % width].set(priorities, mode="drop")
    # A lower priority may have replaced its block's best.
    best = queue.best.at[block].set(jnp.max(priority[jnp.minimum(block, blocks - 1)], axis=1), mode="drop")
    return PriorityQueue(priority, best, queue.count + jnp.sum(new, dtype=jnp.int32))


def pop(queue: PriorityQueue) -> tuple[PriorityQueue, Array, Array]:
    """The queue without its most urgent item, that item's number (0 where the queue is empty), and its priority (0)."""
    width = queue.priority.shape[1]
    block = jnp.argmax(queue.best)
    row = queue.priority[block]
    place = jnp.argmax(row)
    rest = row.at[place].set(0.0)
    left = PriorityQueue(
        queue.priority.at[block].set(rest), queue.best.at[block].set(jnp.max(rest)), queue.count - (row[place] > 0)
    )
    return left, (block * width + place).astype(jnp.int32), row[place]
