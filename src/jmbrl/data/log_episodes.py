"""Logged episodes of any lengths, one dictionary of arrays each, become a replay."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from jmbrl import checks
from jmbrl.data.logs import FIELDS, Log, flags, from_log
from jmbrl.types import ActionSpace, Spec


def from_episodes(
    episodes: Iterable[Mapping[str, Any]],
    *,
    spec: Spec | None = None,
    space: ActionSpace | None = None,
    clip: bool = False,
    names: tuple[str, ...] = (),
) -> Log:
    """A replay from episodes of any lengths, as dictionaries of arrays.

    Args:
      episodes: each with ``obs`` ``[T + 1, ...]``, the last observation included, or ``[T, ...]`` (with ``next_obs``,
        or else its last row is dropped); ``action`` ``[T, ...]``, ``reward`` ``[T]``; where known ``terminated`` and
        ``truncated``, ``bool[T]`` or one flag for the last row.
      spec, space, clip, names: as in ``from_log``.

    Raises:
      ValueError: as ``from_log``, naming the episode; an unknown or missing entry; an episode that goes on after its
        end.

    >>> walk = {"obs": np.zeros((4, 2)), "action": np.zeros(3, int), "reward": np.ones(3), "terminated": True}
    >>> from_episodes([walk, walk]).replay.data.terminated[:, 0].tolist()
    [False, False, True, False, False, True]
    """
    parts = [_episode(f"episode {i}", dict(given)) for i, given in enumerate(episodes)]
    if not parts:
        raise ValueError("episodes must hold at least one, got none")
    names_of = set(parts[0])
    for i, part in enumerate(parts):
        if set(part) != names_of:
            wanted = ", ".join(sorted(names_of))
            raise ValueError(f"episode {i} must have what the first one has ({wanted}), got {', '.join(sorted(part))}")
        for name, values in part.items():
            checks.same_shape(f"{name} of episode {i}", values.shape[1:], parts[0][name].shape[1:], "the first one")
    joined: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    number = np.repeat(np.arange(len(parts)), [len(part["action"]) for part in parts])
    return from_log(**joined, episode=number, spec=spec, space=space, clip=clip, names=names)


def _episode(name: str, given: dict[str, Any]) -> dict[str, np.ndarray]:
    """Flat rows ``[T, ...]`` of one episode."""
    for wanted in ("obs", "action", "reward"):
        if wanted not in given:
            raise ValueError(f"{name} must have {wanted}, got {', '.join(sorted(given)) or 'nothing'}")
    for found in given:
        if found not in FIELDS:
            raise ValueError(f"{name} must have no other entries than {', '.join(FIELDS)}; got {found}")
    part = {key: np.asarray(value) for key, value in given.items()}
    count = len(np.atleast_1d(part["action"]))
    if count == 0:
        raise ValueError(f"{name} must have at least one action, got none")
    if len(np.atleast_1d(part["obs"])) == count + 1 and "next_obs" not in part:
        part["obs"], part["next_obs"] = part["obs"][:-1], part["obs"][1:]
    for key in ("terminated", "truncated"):
        ends = flags(f"{key} of {name}", part.get(key, False))
        part[key] = np.arange(count) == count - 1 if ends.ndim == 0 and ends else np.broadcast_to(ends, count)
        if ends.ndim == 1 and part[key][:-1].any():
            raise ValueError(f"{name} must end where {key} says so, row {int(np.argmax(part[key]))}, got {count} rows")
    for key, values in part.items():
        if len(np.atleast_1d(values)) != count:
            more = " or one more" if key == "obs" else ""
            raise ValueError(f"{key} of {name} must have {count} rows{more}, as action has, got {len(values)}")
    return part
