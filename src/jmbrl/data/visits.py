"""Which states and actions have been met, and when: what a table's planner may start from."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl.fast_bits import fast_bits
from jmbrl.types import Array, Key


class Visits(NamedTuple):
    """Attributes:
    order: ``int32[S]``, states in the order of their first visit.
    states: ``int32``, how many have been visited (as the beginning of a step).
    tried: ``bool[S, A]``.
    last: ``int32[S, A]``, the step at which the pair was last tried, counted from 1; 1 before it was.
    now: ``int32``, steps so far.
    """

    order: Array
    states: Array
    tried: Array
    last: Array
    now: Array


def no_visits(states: int, actions: int) -> Visits:
    """Nothing met yet."""
    zero = jnp.zeros((), jnp.int32)
    pairs = (states, actions)
    return Visits(jnp.zeros(states, jnp.int32), zero, jnp.zeros(pairs, bool), jnp.ones(pairs, jnp.int32), zero)


def visit(visits: Visits, states: Array, actions: Array) -> Visits:
    """One step of each row ``[N]``, in their order; rows whose state is negative are skipped."""

    def one(visits: Visits, pair: tuple[Array, Array]) -> tuple[Visits, None]:
        given, action = pair
        valid, state = given >= 0, jnp.maximum(given, 0)
        now = visits.now + valid
        new = valid & ~jnp.any(visits.tried[state])
        place = jnp.minimum(visits.states, visits.order.shape[0] - 1)
        return Visits(
            visits.order.at[place].set(jnp.where(new, state, visits.order[place])),
            visits.states + new,
            visits.tried.at[state, action].set(visits.tried[state, action] | valid),
            visits.last.at[state, action].set(jnp.where(valid, now, visits.last[state, action])),
            now,
        ), None

    return jax.lax.scan(one, visits, (states, actions))[0]


def sample_visited(key: Key, visits: Visits, count: int, untried: bool) -> tuple[Array, Array]:
    """``count`` pairs: a visited state, uniformly, and an action tried there (with ``untried`` any), uniformly.

    Returns:
      States, -1 while none has been visited, and actions, ``int32[count]`` each.

    Source: Sutton & Barto 2018, the box of section 8.2, steps (f).
    """
    if visits.order.shape[0] <= 2**16:
        place, rest = _below(fast_bits(key, (count,)), visits.states)
    else:
        first, rest = fast_bits(key, (2, count))
        share = (first >> 8).astype(jnp.float32) * 2.0**-24
        place = jnp.clip((share * visits.states).astype(jnp.int32), 0, jnp.maximum(visits.states - 1, 0))
    state = visits.order[place]
    choices = visits.tried.shape[1]
    if untried:
        action, _ = _below(rest, jnp.asarray(choices))
    else:
        rank = jnp.cumsum(visits.tried[state], axis=1)
        wanted, _ = _below(rest, rank[:, -1])
        action = jnp.sum(rank <= wanted[:, None], axis=1, dtype=jnp.int32)
    return jnp.where(visits.states > 0, state, -1), jnp.minimum(action, choices - 1)


def _below(words: Array, count: Array) -> tuple[Array, Array]:
    """An index below ``count`` (0 where that is 0) from uniform 32-bit words, and what is left of them, uniform again.

    A word times ``count`` has the index above bit 32 and the rest below it. Random words are what a planning step costs
    most, so one serves for two draws; probabilities are off by at most ``count / 2^32`` in all. For counts up to 2^16.
    """
    count = jnp.asarray(count).astype(jnp.uint32)
    high, low = words >> 16, words & 0xFFFF
    # The product in two halves, as there are no 64-bit integers.
    middle = high * count + ((low * count) >> 16)
    return (middle >> 16).astype(jnp.int32), (middle << 16) | ((low * count) & 0xFFFF)
