"""The episodes of a replay, and replays of some of them."""

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.data.logs import FIELDS
from jmbrl.data.replay import Replay, from_arrays
from jmbrl.types import Key, Transition


def episodes(replay: Replay) -> list[Transition]:
    """Stretches of consecutive valid rows, NumPy leaves ``[T, ...]``, in the order in which they began.

    The oldest stretch of a ring that has come round lacks its beginning, and the newest may lack its end; a row that
    arrived broken ends one, too.
    """
    seen = jax.device_get(replay)
    filled, capacity = int(seen.size), seen.valid.shape[0]
    places = (int(seen.cursor) - filled + np.arange(filled)) % capacity
    found = []
    for env in range(seen.valid.shape[1]):
        valid = seen.valid[places, env]
        before = np.append(False, valid[:-1])
        begins = np.flatnonzero(valid & (seen.is_first[places, env] | ~before))
        ends = np.append(begins[1:], filled)[: len(begins)]
        for begin, end in zip(begins, ends, strict=True):
            here = places[begin:end][valid[begin:end]]
            found.append((begin, jax.tree.map(lambda x, here=here, env=env: x[here, env], seen.data)))
    return [rows for _, rows in sorted(found, key=lambda pair: pair[0])]


def split_episodes(replay: Replay, share: float = 0.2, key: Key | None = None) -> tuple[Replay, Replay]:
    """Whole episodes to learn from, and others to judge by.

    Rows of one episode resemble each other: held out row by row they would flatter a model.

    Args:
      replay: concrete, with at least two episodes; rows of several environments end up in one ring.
      share: of the rows to hold out, about, in ``(0, 1)``.
      key: hold out episodes at random; None: the last ones, as when a log is used to foretell what comes after it.

    Returns:
      ``(train, held)``, the episodes of each in the order of time, at least one. Where one has no end in the log, its
      last row is marked truncated.

    Raises:
      ValueError: fewer than two episodes, or a share outside ``(0, 1)``.
    """
    checks.number("share", share, 0.0, 1.0)
    found = episodes(replay)
    if len(found) < 2 or share in (0, 1):
        raise ValueError(f"share must be in (0, 1) of at least two episodes, got {share} of {len(found)}")
    order = np.arange(len(found)) if key is None else np.asarray(jax.random.permutation(key, len(found)))
    lengths = np.asarray([len(rows.reward) for rows in found])[order]
    held_if = np.cumsum(lengths[::-1])[::-1]  # rows held out were the cut before each episode
    cut = 1 + int(np.argmin(np.abs(held_if[1:] - share * lengths.sum())))
    return joined([found[i] for i in sorted(order[:cut])]), joined([found[i] for i in sorted(order[cut:])])


def joined(parts: list[Transition]) -> Replay:
    """A replay of episodes ``[T, ...]``, one after the other. The last row of each is an end, or marked truncated.

    Raises:
      ValueError: no episodes.
    """
    if not parts:
        raise ValueError("parts must hold at least one episode, got none")
    ended = [rows._replace(truncated=jnp.asarray(_closed(rows))) for rows in parts]
    return from_arrays(*(np.concatenate([getattr(rows, name) for rows in ended]) for name in FIELDS))


def _closed(rows: Transition) -> np.ndarray:
    last = np.arange(len(rows.reward)) == len(rows.reward) - 1
    return np.asarray(rows.truncated) | (last & ~np.asarray(rows.terminated))
