"""What was seen: one ring of transitions per environment, advancing together.

Rows are kept time-major, ``[capacity, num_envs]``. A row that arrived broken (NaN or infinite) keeps its
place but is marked invalid, so that the environments stay aligned and no window reaches across the gap.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks, devices
from jmbrl.types import Array, Discrete, Key, PyTree, Spec, Transition

# With half the rows broken one of 65,000 is still missing after so many draws.
ROUNDS = 16


class Replay(NamedTuple):
    """A ring per environment.

    Attributes:
      data: rows, leaves ``[capacity, num_envs, ...]``.
      valid: ``bool[capacity, num_envs]``, False where nothing (or something broken) is stored.
      is_first: ``bool[capacity, num_envs]``, True where the row does not continue the one before it.
      cursor: ``int32``, the place written next.
      size: ``int32``, how many places are filled, at most ``capacity``.
      dropped: ``int32``, rows refused so far because they were not finite.
    """

    data: Transition
    valid: Array
    is_first: Array
    cursor: Array
    size: Array
    dropped: Array

    @property
    def capacity(self) -> int:
        return self.valid.shape[0]

    @property
    def num_envs(self) -> int:
        return self.valid.shape[1]


def empty(spec: Spec, capacity: int, num_envs: int = 1) -> Replay:
    """An empty replay of ``capacity`` rows per environment.

    Raises:
      ValueError: ``capacity`` or ``num_envs`` below 1.
    """
    capacity = checks.integer("capacity", capacity, 1)
    num_envs = checks.integer("num_envs", num_envs, 1)
    rows = (capacity, num_envs)
    obs = jnp.zeros((*rows, *spec.obs_shape), spec.obs_dtype)
    action = jnp.zeros((*rows, *spec.action.shape), jnp.int32 if isinstance(spec.action, Discrete) else jnp.float32)
    flag = jnp.zeros(rows, bool)
    data = Transition(obs, action, jnp.zeros(rows), obs, flag, flag)
    zero = jnp.zeros((), jnp.int32)
    return Replay(data, flag, flag, zero, zero, zero)


def add(replay: Replay, rows: Transition, valid: Array | bool = True, limit: Array | None = None) -> Replay:
    """Append one row per environment.

    Args:
      replay: the ring.
      rows: leaves ``[num_envs, ...]``.
      valid: ``bool[num_envs]``; rows that are not finite are refused whatever it says.
      limit: use only so many of the ring's places, ``int32`` in ``[1, capacity]`` and never less than in an earlier
        call; None: all. A ring that has just come round goes on behind its rows where the limit has grown.
    """
    if limit is not None:
        outgrown = (replay.cursor == 0) & (replay.size < limit)
        replay = replay._replace(cursor=jnp.where(outgrown, replay.size, replay.cursor))
    end = replay.capacity if limit is None else limit
    ok = jnp.broadcast_to(jnp.asarray(valid, bool), (replay.num_envs,)) & finite(rows)
    before = (replay.cursor - 1) % end
    ended = replay.data.terminated[before] | replay.data.truncated[before] | ~replay.valid[before]
    is_first = ended | (replay.size == 0)

    def write(ring: Array, new: Array) -> Array:
        keep = ok.reshape(ok.shape + (1,) * (new.ndim - 1))
        return ring.at[replay.cursor].set(jnp.where(keep, new, jnp.zeros_like(new)).astype(ring.dtype))

    return Replay(
        data=jax.tree.map(write, replay.data, rows),
        valid=replay.valid.at[replay.cursor].set(ok),
        is_first=replay.is_first.at[replay.cursor].set(is_first),
        cursor=(replay.cursor + 1) % end,
        size=jnp.minimum(replay.size + 1, end),
        dropped=replay.dropped + jnp.sum(~ok, dtype=jnp.int32),
    )


def finite(rows: Transition) -> Array:
    """``bool[N]``: which rows hold finite numbers only."""
    leaves = [
        x
        for x in jax.tree.leaves((rows.obs, rows.action, rows.reward, rows.next_obs))
        if jnp.issubdtype(x.dtype, jnp.floating)
    ]
    return jnp.stack([jnp.all(jnp.isfinite(x.reshape(x.shape[0], -1)), axis=1) for x in leaves]).all(axis=0)


def rows(replay: Replay) -> tuple[Transition, Array]:
    """All valid rows, compacted to the front.

    Returns:
      ``Transition[capacity * num_envs]`` and the count: rows from ``count`` on are padding.
    """
    total = replay.capacity * replay.num_envs
    index = jnp.nonzero(replay.valid.reshape(-1), size=total, fill_value=0)[0]
    flat = jax.tree.map(lambda x: x.reshape(total, *x.shape[2:])[index], replay.data)
    return flat, jnp.sum(replay.valid, dtype=jnp.int32)


def newest(replay: Replay, count: int) -> tuple[Transition, Array]:
    """The ``count`` newest rows of each environment, oldest first: leaves ``[count, num_envs, ...]``, and which of them
    are valid, ``bool[count, num_envs]`` (none before the first row)."""
    age = count - 1 - jnp.arange(count)
    places = (replay.cursor - 1 - age) % jnp.maximum(replay.size, 1)
    there = (age < replay.size)[:, None] & replay.valid[places]
    return jax.tree.map(lambda x: x[places], replay.data), there


def forget(key: Key, replay: Replay, keep: Array | int, share: float | Array = 0.0) -> Replay:
    """Rows older than the ``keep`` newest of each environment no longer count, or less: each stays with probability
    ``share``. What stays is not weighted in itself; fewer rows weigh less in every fit and batch.

    Forgotten rows keep their places, marked invalid, and no window reaches across them.
    """
    age = (replay.cursor - 1 - jnp.arange(replay.capacity)) % jnp.maximum(replay.size, 1)
    spared = jax.random.bernoulli(key, share, replay.valid.shape) | (age < keep)[:, None]
    valid = replay.valid & spared
    before = (jnp.arange(replay.capacity) - 1) % jnp.maximum(replay.size, 1)
    return replay._replace(valid=valid, is_first=replay.is_first | (replay.valid[before] & ~valid[before]))


def sample(key: Key, replay: Replay, batch: int) -> Transition:
    """``batch`` rows, uniformly with replacement among the valid ones (row 0 while there is none)."""
    return take(replay, sample_places(key, replay, batch))


def sample_starts(key: Key, replay: Replay, batch: int) -> PyTree:
    """``batch`` observations that episodes began with, uniformly with replacement (row 0 while there is none)."""
    starts = (replay.valid & replay.is_first).reshape(-1)
    # Every one of them, in front: a pass over the flags, for use between fits rather than in every update.
    places = jnp.nonzero(starts, size=starts.size, fill_value=0)[0]
    drawn = jax.random.randint(key, (batch,), 0, jnp.maximum(jnp.sum(starts), 1))
    return take(replay, places[drawn]).obs


def take(replay: Replay, places: Array) -> Transition:
    """The rows at ``places``, any shape of ``int32`` in ``[0, capacity * num_envs)``: ``row * num_envs + env``."""
    rows = jax.tree.map(lambda x: x.reshape(replay.valid.size, *x.shape[2:])[places], replay.data)
    return devices.split(rows, devices.ROW) if places.ndim else rows


def sample_places(key: Key, replay: Replay, batch: int) -> Array:
    """Where ``sample``'s rows lie, ``int32[batch]``; exactly uniform among the valid rows.

    Rejection: a place of the filled part is drawn, and drawn again where its row is broken, ``ROUNDS`` times at most.
    Rows that found nothing are looked up in a running count of the valid ones, a pass over the whole ring. Both are
    loops that usually do not run, as those cost nothing under ``vmap`` either (a ``cond`` would pay for both branches).
    """
    valid = replay.valid.reshape(-1)
    filled = jnp.maximum(replay.size * replay.num_envs, 1)
    # While all rows are valid these are the places of a plain draw; the loops' keys are none of that draw's own.
    key_rounds, key_exact = (jax.random.fold_in(key, 2**31 + i) for i in range(2))
    places = jax.random.randint(key, (batch,), 0, filled)

    def missing(loop: tuple[Array, Array, Array]) -> Array:
        return (loop[0] < ROUNDS) & ~jnp.all(loop[2])

    def redraw(loop: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        i, places, found = loop
        drawn = jax.random.randint(jax.random.fold_in(key_rounds, i), (batch,), 0, filled)
        places = jnp.where(found, places, drawn)
        return i + 1, places, valid[places]

    def look_up(loop: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        _, places, found = loop
        # Were the count the same at each turn, the compiler would make it before the loop, and always.
        order = jnp.cumsum(valid & ~jnp.all(found))
        wanted = jax.random.randint(key_exact, (batch,), 0, jnp.maximum(order[-1], 1))
        # Where nothing is valid the search ends behind the last place.
        exact = jnp.searchsorted(order, wanted + 1).astype(places.dtype) % valid.size
        return jnp.zeros((), jnp.int32), jnp.where(found, places, exact), jnp.ones_like(found)

    first = jnp.zeros((), jnp.int32), places, valid[places]
    return jax.lax.while_loop(lambda loop: ~jnp.all(loop[2]), look_up, jax.lax.while_loop(missing, redraw, first))[1]


def from_arrays(
    obs: Any,
    action: Any,
    reward: Any,
    next_obs: Any,
    terminated: Any,
    truncated: Any = None,
    *,
    capacity: int | None = None,
) -> Replay:
    """A replay from logged arrays, one row per step in the order of time.

    Args:
      obs, next_obs: ``[N, ...]``; ``action``: ``[N, A]`` in ``[-1, 1]`` or ``int[N]``; ``reward``: ``[N]``;
        ``terminated, truncated``: ``bool[N]``.
      capacity: room for later rows; ``N`` by default.

    Raises:
      ValueError: no rows, lengths that differ, or a number that is not finite (with its row and column).

    >>> import numpy as np
    >>> log = from_arrays(np.zeros((3, 2)), np.zeros((3, 1)), np.ones(3), np.ones((3, 2)), np.zeros(3, bool))
    >>> int(rows(log)[1])
    3
    """
    action = np.asarray(action)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused below
        arrays = {
            "obs": _observations(obs),
            "action": action.astype(np.int32 if np.issubdtype(action.dtype, np.integer) else np.float32),
            "reward": np.asarray(reward, np.float32),
            "next_obs": _observations(next_obs),
            "terminated": np.asarray(terminated, bool),
        }
    arrays["truncated"] = np.zeros_like(arrays["terminated"]) if truncated is None else np.asarray(truncated, bool)
    count = len(arrays["obs"])
    if count == 0:
        raise ValueError("obs must have at least one row, got none")
    for name, values in arrays.items():
        if len(values) != count:
            raise ValueError(f"{name} must have as many rows as obs ({count}), got {len(values)}")
        if np.issubdtype(values.dtype, np.floating):
            checks.finite_rows(name, values)
    checks.same_shape("next_obs", arrays["next_obs"].shape, arrays["obs"].shape, "obs")
    capacity = checks.integer("capacity", count if capacity is None else capacity, count)
    return _fill(arrays, count, capacity)


def _observations(obs: Any) -> np.ndarray:
    obs = np.asarray(obs)
    return obs if obs.dtype == np.uint8 else obs.astype(np.float32)


def _fill(arrays: dict[str, np.ndarray], count: int, capacity: int) -> Replay:
    def ring(values: np.ndarray) -> Array:
        dtype = np.float32 if np.issubdtype(values.dtype, np.floating) else values.dtype
        out = np.zeros((capacity, 1, *values.shape[1:]), dtype)
        out[:count, 0] = values
        return jnp.asarray(out)

    ended = arrays["terminated"] | arrays["truncated"]
    return Replay(
        data=Transition(**{name: ring(values) for name, values in arrays.items()}),
        valid=ring(np.ones(count, bool)),
        is_first=ring(np.concatenate([[True], ended[:-1]])),
        cursor=jnp.asarray(count % capacity, jnp.int32),
        size=jnp.asarray(count, jnp.int32),
        dropped=jnp.zeros((), jnp.int32),
    )
