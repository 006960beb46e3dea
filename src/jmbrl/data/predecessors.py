"""Which pairs are known to lead to each state, for backward search through a learned table."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.types import Array


class Predecessors(NamedTuple):
    """``pairs``: ``int32[S, P]``, numbers ``state * actions + action``, -1 where free; ``dropped``: without room."""

    pairs: Array
    dropped: Array


def no_predecessors(states: int, most: int) -> Predecessors:
    """None known yet; ``most`` (at least 1) are kept per state."""
    room = (checks.integer("states", states, 1), checks.integer("predecessors", most, 1))
    return Predecessors(jnp.full(room, -1, jnp.int32), jnp.zeros((), jnp.int32))


def remember(known: Predecessors, pairs: Array, following: Array) -> Predecessors:
    """Pair ``pairs[N]`` led to state ``following[N]``, one after another; negative pairs are skipped."""

    def one(known: Predecessors, row: tuple[Array, Array]) -> tuple[Predecessors, None]:
        pair, state = row
        places = known.pairs[state]
        new = (pair >= 0) & ~jnp.any(places == pair)
        slot = jnp.argmax(places < 0)
        room = places[slot] < 0
        written = known.pairs.at[state, slot].set(jnp.where(new & room, pair, places[slot]))
        return Predecessors(written, known.dropped + (new & ~room)), None

    return jax.lax.scan(one, known, (pairs, following))[0]
