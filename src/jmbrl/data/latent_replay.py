"""A replay that keeps what was believed at each row, and gives every window once while it is fresh (DreamerV3)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.data import replay as ring
from jmbrl.data.replay import Replay
from jmbrl.data.windows import check_length, draw_windows, take_windows
from jmbrl.health import all_finite
from jmbrl.types import Array, Key, PyTree, Sequence, Spec, Transition


class LatentReplay(NamedTuple):
    """A replay, and beside it beliefs and an online queue.

    Attributes:
      replay: the rows.
      beliefs: leaves ``[capacity, num_envs, ...]``, what was believed after a row's ``obs`` was seen: when it was acted
        on, or as last written back.
      written: ``int32``, rows ever written for each environment.
      served: ``int32``, how far the online queue has come, in windows.
    """

    replay: Replay
    beliefs: PyTree
    written: Array
    served: Array


class Window(NamedTuple):
    """Windows of a latent replay.

    Attributes:
      sequence: ``Sequence[B, T]``; ``is_first[:, 0]`` is True only where an episode begins there.
      context: ``beliefs[B]``, what was believed at the first row.
      rows: ``int32[B, T]``, places in the ring.
      envs: ``int32[B]``.
    """

    sequence: Sequence
    context: PyTree
    rows: Array
    envs: Array


def empty_latent(spec: Spec, belief: PyTree, capacity: int, num_envs: int = 1) -> LatentReplay:
    """An empty replay of ``capacity`` rows per environment, for beliefs like ``belief`` (arrays or their shapes).

    Raises:
      ValueError: ``capacity`` or ``num_envs`` below 1.
    """
    replay, zero = ring.empty(spec, capacity, num_envs), jnp.zeros((), jnp.int32)
    beliefs = jax.tree.map(lambda x: jnp.zeros((capacity, num_envs, *x.shape), x.dtype), belief)
    return LatentReplay(replay, beliefs, zero, zero)


def add_latent(latent: LatentReplay, beliefs: PyTree, rows: Transition, valid: Array | bool = True) -> LatentReplay:
    """Append one row per environment, with ``beliefs[num_envs]`` held after ``rows.obs`` was seen.

    As ``data.add``; a belief that is not finite, or whose row is refused, is kept as zeros.
    """
    cursor, replay = latent.replay.cursor, ring.add(latent.replay, rows, valid)
    keep = replay.valid[cursor] & jax.vmap(all_finite)(beliefs)

    def write(kept: Array, new: Array) -> Array:
        new = jnp.where(keep.reshape(-1, *(1,) * (new.ndim - 1)), new, jnp.zeros_like(new))
        return kept.at[cursor].set(new.astype(kept.dtype))

    return LatentReplay(replay, jax.tree.map(write, latent.beliefs, beliefs), latent.written + 1, latent.served)


def sample_latent(
    key: Key, latent: LatentReplay, batch: int, length: int, online: bool = True
) -> tuple[LatentReplay, Window]:
    """``batch`` windows of ``length`` rows: first those of the online queue, the rest uniformly.

    The online queue cuts the stream of each environment into windows that lie end to end, and gives each once, as soon
    as it is complete: the oldest first, and of equally old ones that of environment 0. Those of which rows were
    overwritten meanwhile are passed over. The rest is what ``sample_sequences`` draws with this key.

    Args:
      key: for the uniform windows.
      latent: where rows were added without a limit.
      batch: windows.
      length: rows each; always the same, since the queue counts in windows.
      online: False: all windows are uniform, and the queue waits.

    Raises:
      ValueError: ``batch`` below 1, or ``length`` below 1 or beyond the capacity.

    Source: Hafner et al. 2023 (arXiv 2301.04104), "Experience replay".
    """
    batch, length = checks.integer("batch", batch, 1), check_length(length, latent.replay)
    replay, served = latent.replay, latent.served
    starts, envs = draw_windows(key, replay, batch, length)
    if online:
        forgotten = latent.written - replay.size  # rows of each environment that were overwritten
        first = jnp.maximum(served, -(-forgotten // length) * replay.num_envs)
        complete = latent.written // length * replay.num_envs
        queued = first + jnp.arange(batch)
        fresh = queued < complete
        starts = jnp.where(fresh, queued // replay.num_envs * length - forgotten, starts)
        envs = jnp.where(fresh, queued % replay.num_envs, envs)
        served = jnp.minimum(first + batch, complete)
    sequence, rows = take_windows(replay, starts, envs, length)
    context = jax.tree.map(lambda x: x[rows[:, 0], envs], latent.beliefs)
    return latent._replace(served=served), Window(sequence, context, rows, envs)


def write_latent(latent: LatentReplay, window: Window, place: Array, beliefs: PyTree) -> LatentReplay:
    """Write back what is believed now, after an update on a window whose rows are still in the ring.

    A row gets the belief of the frame that shows its ``obs``. The first row keeps its own, which was the context; so do
    rows that are masked out or whose frame was pushed out, and those for which the new belief is not finite. Where
    windows overlap any of them may win, and not the same one for every leaf.

    Args:
      latent: as it was when the window was drawn, or as written back to since.
      window: ``B`` windows of ``T`` rows.
      place: ``int32[B, T]``, from ``frames(window.sequence)``.
      beliefs: leaves ``[B, F, ...]``, after each frame was seen.
    """
    count = jax.tree.leaves(beliefs)[0].shape[1]
    frame = jnp.minimum(place, count - 1)
    finite = jnp.take_along_axis(jax.vmap(jax.vmap(all_finite))(beliefs), frame, axis=1)
    keep = (jnp.arange(place.shape[1]) > 0) & window.sequence.mask & (place < count) & finite
    rows = jnp.where(keep, window.rows, latent.replay.capacity)  # there is no such place: the write is dropped

    def write(kept: Array, new: Array) -> Array:
        new = jax.vmap(lambda new, frame: new[frame])(new, frame)
        return kept.at[rows, window.envs[:, None]].set(new.astype(kept.dtype), mode="drop")

    return latent._replace(beliefs=jax.tree.map(write, latent.beliefs, beliefs))
