"""Logged data: arrays in the environment's own units, with or without episodes and successors, become a replay."""

from typing import Any, NamedTuple

import numpy as np

from jmbrl import checks
from jmbrl.data.replay import Replay, from_arrays
from jmbrl.envs.spaces import centre_and_half, check_space, from_env
from jmbrl.types import ActionSpace, Continuous, Discrete, Spec

GAP = 1.5  # a step longer than so many usual ones is a gap
SLACK = 1e-5  # of the half width: rounding of an action on its bound
FIELDS = ("obs", "action", "reward", "next_obs", "terminated", "truncated")


class Log(NamedTuple):
    """What became of logged data.

    Attributes:
      replay: the rows in the order of time, in one ring; actions in ``[-1, 1]``.
      spec: the environment's, or one made from the data.
      episodes: stretches of consecutive rows.
      dropped: rows left out, the last of an episode each, because nothing says what followed.
      cut: episodes that end for no reason that the log tells; their last rows are marked truncated.
      clipped: actions outside the bounds, pulled back to them.
    """

    replay: Replay
    spec: Spec
    episodes: int
    dropped: int
    cut: int
    clipped: int


def from_log(
    obs: Any,
    action: Any,
    reward: Any,
    next_obs: Any = None,
    terminated: Any = None,
    truncated: Any = None,
    *,
    episode: Any = None,
    time: Any = None,
    dt: float | None = None,
    spec: Spec | None = None,
    space: ActionSpace | None = None,
    clip: bool = False,
    names: tuple[str, ...] = (),
) -> Log:
    """A replay from rows in the order of time, in the environment's own units.

    A new episode begins after ``terminated`` or ``truncated``, with another ``episode``, after a gap in ``time``, and
    where a given ``next_obs`` is not the next row's ``obs`` (beyond float32 rounding).

    Without ``next_obs`` a row's successor is the ``obs`` of the next row of its episode. The last row of each episode
    then has none and is dropped, its end with it: a model learns nothing of how episodes end from such a log. A last
    row of NaN action and NaN reward only tells the last observation; its flags are taken as those of the row before it.

    Args:
      obs, next_obs: ``[N, ...]``, ``uint8`` images or numbers.
      action: ``[N, A]`` in the units of ``space``, or whole numbers ``[N]``.
      reward: ``[N]``.
      terminated, truncated: flags ``[N]`` of the step that the row tells; None: none. Only ``terminated`` is an end of
        the world.
      episode: ``[N]``, numbers that never fall, or texts whose rows lie together.
      time: ``[N]`` in seconds, rising within an episode.
      dt: seconds between rows; None: the median step. One that is longer by half is a gap.
      spec: the environment's, whose shapes the data must have; None: one is made from the data, and
      space: its actions, with their bounds (``types.Continuous(low, high)``). None: as many discrete actions as were
        seen.
      clip: pull actions outside the bounds back to them, as environments do; else they are refused.
      names: of the observation's entries, for a spec made here.

    Raises:
      ValueError: no rows or none with a successor, lengths or shapes that differ, a number that is not finite (with
        its row), flags that are not 0 or 1, episodes or times out of order, or actions outside their space.

    >>> log = from_log(np.zeros((4, 2)), np.zeros(4, int), np.ones(4), episode=[0, 0, 1, 1])
    >>> log.dropped, log.replay.data.truncated[:, 0].tolist()
    (2, [True, True])
    """
    arrays = {"obs": np.asarray(obs), "action": np.asarray(action), "reward": np.asarray(reward)}
    count = len(arrays["obs"]) if arrays["obs"].ndim else 0
    if count == 0:
        raise ValueError(f"obs must have at least one row, got shape {arrays['obs'].shape}")
    if next_obs is not None:
        arrays["next_obs"] = np.asarray(next_obs)
    for name, values in arrays.items():
        if values.dtype.kind not in "biuf":
            raise ValueError(f"{name} must hold numbers, got dtype {values.dtype}")
        if name.endswith("obs") and values.ndim == 1:
            arrays[name] = values[:, None]
    for name, values in (("terminated", terminated), ("truncated", truncated)):
        arrays[name] = np.zeros(count, bool) if values is None else flags(name, values)
    for name, values in (("episode", episode), ("time", time)):
        if values is not None:
            arrays[name] = np.asarray(values)
    for name, values in arrays.items():
        if len(values) != count:
            raise ValueError(f"{name} must have as many rows as obs ({count}), got {len(values)}")
        if name in ("reward", "episode", "time"):
            checks.same_shape(name, values.shape, (count,), "a log (one a row)")
    follows = _episodes(arrays, dt)
    if dt is None and time is not None and follows.any():
        dt = float(np.median(np.diff(arrays["time"].astype(np.float64))[follows]))
    kept = np.ones(count, bool) if next_obs is not None else np.append(follows, False)
    for name in ("obs", "next_obs", "action", "reward"):
        if name in arrays:  # a row that only tells an observation has neither action nor reward
            here = np.where(kept, arrays[name].T, 0).T if name in ("action", "reward") else arrays[name]
            checks.finite_rows(name, here)
    if next_obs is None:
        arrays, follows = _derive(arrays, follows, kept)
    else:
        checks.same_shape("next_obs", arrays["next_obs"].shape, arrays["obs"].shape, "obs")
        follows &= _continuous(arrays["next_obs"][:-1], arrays["obs"][1:])
    last = np.append(~follows, True)
    ended = arrays["terminated"] | arrays["truncated"]
    arrays["truncated"] = arrays["truncated"] | (last & ~ended)
    space = _space(arrays["action"], space) if spec is None else spec.action
    arrays["action"], clipped = _library_units(arrays["action"], np.flatnonzero(kept), space, clip)
    replay = from_arrays(*(arrays[name] for name in FIELDS))
    lengths = np.diff(np.append(0, np.flatnonzero(last) + 1))
    if spec is None:
        stored = replay.data.obs
        spec = Spec("log", stored.shape[2:], space, int(lengths.max()), str(stored.dtype), names, dt=dt)
    checks.same_shape("obs", replay.data.obs.shape[2:], spec.obs_shape, f"the spec of {spec.name}")
    if str(replay.data.obs.dtype) != spec.obs_dtype:
        raise ValueError(f"obs must be {spec.obs_dtype}, as the spec of {spec.name} says, got {arrays['obs'].dtype}")
    return Log(replay, spec, len(lengths), int(np.sum(~kept)), int(np.sum(last & ~ended)), clipped)


def flags(name: str, values: Any) -> np.ndarray:
    """``values`` as ``bool``, or ValueError for other numbers than 0 and 1."""
    values = np.asarray(values)
    if values.dtype != bool:
        if values.dtype.kind not in "iuf" or not np.isin(values, (0, 1)).all():
            odd = values if values.dtype.kind not in "iuf" else values[~np.isin(values, (0, 1))]
            raise ValueError(f"{name} must be true or false (1 or 0), got {np.ravel(odd)[:1].tolist()}")
        values = values.astype(bool)
    return values


# --------------------------------------------------------------------------------------------- what is in a row


def _episodes(arrays: dict[str, np.ndarray], dt: float | None) -> np.ndarray:
    """``bool[N - 1]``: whether the next row goes on with the same episode."""
    ended = (arrays["terminated"] | arrays["truncated"])[:-1]
    follows = ~ended
    if "episode" in arrays:
        number = arrays["episode"]
        same = number[1:] == number[:-1]
        if number.dtype.kind in "iuf":
            checks.finite_rows("episode", number)
            wrong = number[1:] < number[:-1]
        else:
            first = {text: i for i, text in reversed(list(enumerate(number.tolist())))}
            begins = np.asarray([first[text] for text in number.tolist()])
            wrong = ~same & (begins[1:] != np.arange(1, len(number)))
        if wrong.any():
            row = int(np.argmax(wrong)) + 1
            got = f"{number[row]} after {number[row - 1]} in row {row}"
            raise ValueError(f"episode must lie together and never fall, got {got}: sort or renumber the rows")
        follows &= same
    if "time" in arrays:
        time = arrays["time"].astype(np.float64)
        checks.finite_rows("time", time)
        step = np.diff(time)
        wrong = follows & ~(step > 0)
        if wrong.any():
            row = int(np.argmax(wrong)) + 1
            raise ValueError(f"time must rise within an episode, got {time[row]} after {time[row - 1]} in row {row}")
        if follows.any():
            usual = float(np.median(step[follows])) if dt is None else checks.number("dt", dt, 0.0)
            follows &= step <= GAP * usual
    return follows


def _continuous(following: np.ndarray, obs: np.ndarray) -> np.ndarray:
    """Which rows' successors are the next rows, to float32's last bits."""
    if not len(obs):
        return np.zeros(0, bool)
    near = np.abs(following.astype(np.float32) - obs.astype(np.float32)) <= SLACK * (1 + np.abs(obs))
    return np.all(near.reshape(len(obs), -1), axis=1)


def _derive(
    arrays: dict[str, np.ndarray], follows: np.ndarray, keep: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The rows that have a successor, with it, and which of them go on."""
    if not keep.any():
        raise ValueError("next_obs must be given: no row is followed by another one of its episode")
    ends = {name: arrays[name].copy() for name in ("terminated", "truncated")}
    if arrays["reward"].dtype.kind == "f" and arrays["action"].dtype.kind == "f":
        # A row without an action tells what the step before it led to, and so do its flags.
        only = np.isnan(arrays["reward"]) & np.isnan(arrays["action"]).reshape(len(keep), -1).all(axis=1) & ~keep
        for name in ends:
            ends[name][:-1] |= follows & (only & arrays[name])[1:]
    out = {name: values[keep] for name, values in (arrays | ends).items()}
    out["next_obs"] = arrays["obs"][1:][follows]
    return out, keep[1:][follows][:-1]


def _space(action: np.ndarray, space: ActionSpace | None) -> ActionSpace:
    if space is not None:
        return check_space(space)
    whole = action.dtype.kind in "iu" or (action.dtype.kind == "f" and np.all(action == np.round(action)))
    if action.ndim == 1 and whole:
        return Discrete(int(action.max()) + 1)
    raise ValueError(
        "space must tell the bounds of continuous actions, got None: give spec=env.spec or "
        "space=types.Continuous(low, high), in the log's units"
    )


def _library_units(action: np.ndarray, places: np.ndarray, space: ActionSpace, clip: bool) -> tuple[np.ndarray, int]:
    """Actions as the library has them, and how many were pulled back; ``places`` are their rows in the log."""
    if isinstance(space, Discrete):
        checks.same_shape("action", action.shape[1:], (), f"{space}")
        outside = (action < 0) | (action >= space.n) | (action != np.round(action))
        wanted, clip = f"whole numbers in [0, {space.n})", False
    else:
        assert isinstance(space, Continuous)
        action = action[:, None] if action.ndim == 1 and space.dim == 1 else action
        checks.same_shape("action", action.shape[1:], space.shape, "the action space")
        centre, half = centre_and_half(space)
        outside = np.any(np.abs(action - centre) > half * (1 + SLACK), axis=1)
        wanted = f"within {space.low} and {space.high}"
    if outside.any() and not clip:
        first = int(np.argmax(outside))
        advice = "" if isinstance(space, Discrete) else "; clip=True pulls such actions back"
        got = f"{action[first]} in row {places[first]} ({outside.sum()} rows)"
        raise ValueError(f"action must be {wanted}, got {got}{advice}")
    return from_env(space, action), int(np.sum(outside))
