"""Windows of rows as a model that filters sees them: one observation after another, each once."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl.types import Array, PyTree, Sequence


class Frames(NamedTuple):
    """Observations in order, each with what led to it, ``[B, F, ...]``.

    Attributes:
      obs: the observations.
      action: the action that led to each; 0 where nothing did: at an episode's first observation and at frame 0.
      reward: what that action brought, 0 likewise.
      terminated: whether the episode ended here for good.
      is_first: an episode begins here. At frame 0 as the window says: False where it goes on from a belief that is
        given.
      mask: False where the frame is no valid data.
    """

    obs: PyTree
    action: Array
    reward: Array
    terminated: Array
    is_first: Array
    mask: Array


def frames(batch: Sequence) -> tuple[Frames, Array]:
    """The observations of windows ``Sequence[B, T]`` in order, each once: ``F = T + 1`` frames.

    Row 0's ``obs`` comes first, then every row's ``next_obs``, so that the last observation of an episode, which is no
    row's ``obs``, is there as well. A row inside the window that begins an episode puts its ``obs`` before its
    ``next_obs``; each such row pushes one frame out at the window's end. A frame is masked out where its row is.

    Returns:
      The frames, and ``place``, ``int32[B, T]``: the frame that shows row ``t``'s ``obs``; ``F`` or more where it was
      pushed out.
    """
    return jax.vmap(_frames)(batch)


def _frames(window: Sequence) -> tuple[Frames, Array]:
    rows, length = window.transition, window.mask.shape[0]
    inner = window.is_first.at[0].set(False)
    place = jnp.arange(length) + jnp.cumsum(inner, dtype=jnp.int32)
    frame = jnp.arange(length + 1)
    # A row's obs is shown at place, or one frame before its next_obs, which is at place + 1.
    row = jnp.sum(place + 1 < frame[:, None], axis=1)
    begins = frame == place[row]  # shows a row's obs, not its next_obs

    def either(first: Array, following: Array) -> Array:
        return jnp.where(begins.reshape(-1, *(1,) * (following.ndim - 1)), first, following)

    def led(x: Array) -> Array:
        return either(jnp.zeros((), x.dtype), x[row])

    seen = Frames(
        # Compiled into one pass: what is read is copied once.
        obs=jax.tree.map(lambda first, following: either(first[row], following[row]), rows.obs, rows.next_obs),
        action=led(rows.action),
        reward=led(rows.reward),
        terminated=led(rows.terminated),
        is_first=begins & window.is_first[row],
        mask=window.mask[row],
    )
    return seen, place
