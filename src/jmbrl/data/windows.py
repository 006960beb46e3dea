"""Windows of consecutive rows of a replay."""

import jax
import jax.numpy as jnp

from jmbrl import checks, devices
from jmbrl.data.replay import Replay
from jmbrl.types import Array, Key, Sequence


def sample_sequences(key: Key, replay: Replay, batch: int, length: int, newest: int | None = None) -> Sequence:
    """``batch`` windows of ``length`` consecutive rows, ``Sequence[batch, length]``.

    Starts are uniform over the filled part of each ring, oldest row first, and no window crosses the place
    where the ring was last written. While fewer than ``length`` rows are stored the tail is masked out. ``newest``: of
    so many rows alone, those of all environments together (at least ``length`` of each); None: of all.

    Raises:
      ValueError: ``length`` exceeds the capacity.
    """
    length = check_length(length, replay)
    passed = 0
    if newest is not None:
        each = max(checks.integer("newest", newest, 1) // replay.num_envs, length)
        passed = jnp.maximum(replay.size - each, 0)
    starts, envs = draw_windows(key, replay._replace(size=replay.size - passed), batch, length)
    windows, _ = take_windows(replay, starts + passed, envs, length)
    return windows._replace(is_first=windows.is_first.at[:, 0].set(True))


def check_length(length: int, replay: Replay) -> int:
    """The rows of a window.

    Raises:
      ValueError: below 1, or more than the capacity.
    """
    length = checks.integer("length", length, 1)
    if length > replay.capacity:
        raise ValueError(f"length must be at most the replay's capacity {replay.capacity}, got {length}")
    return length


def draw_windows(key: Key, replay: Replay, batch: int, length: int) -> tuple[Array, Array]:
    """Where ``sample_sequences``' windows begin: rows after the oldest one, and environments, ``int32[batch]`` each."""
    key_start, key_env = jax.random.split(key)
    starts = jax.random.randint(key_start, (batch,), 0, jnp.maximum(replay.size - length + 1, 1))
    return starts, jax.random.randint(key_env, (batch,), 0, replay.num_envs)


def take_windows(replay: Replay, starts: Array, envs: Array, length: int) -> tuple[Sequence, Array]:
    """The ``length`` rows from ``starts[B]`` (counted from the oldest) on, each window in one of ``envs[B]``.

    Returns:
      ``Sequence[B, length]`` with ``is_first`` as stored, and the ring's places of its rows, ``int32[B, length]``.
    """
    oldest = (replay.cursor - replay.size) % replay.capacity
    offset = starts[:, None] + jnp.arange(length)
    rows = (oldest + offset) % replay.capacity
    data = jax.tree.map(lambda x: x[rows, envs[:, None]], replay.data)
    mask = replay.valid[rows, envs[:, None]] & (offset < replay.size)
    return devices.split(Sequence(data, replay.is_first[rows, envs[:, None]], mask), devices.ROW), rows


def windows_at(replay: Replay, places: Array, length: int) -> Sequence:
    """``Sequence[B, length]``, the rows from ``places[B]`` (as ``sample_places`` gives them) on.

    The tail is masked out where fewer rows were written since.

    Raises:
      ValueError: ``length`` exceeds the capacity.
    """
    oldest = (replay.cursor - replay.size) % replay.capacity
    starts = (places // replay.num_envs - oldest) % replay.capacity
    windows, _ = take_windows(replay, starts, places % replay.num_envs, check_length(length, replay))
    return windows._replace(is_first=windows.is_first.at[:, 0].set(True))
