"""Logs in files: NumPy's ``.npz`` and tables of comma-separated values."""

import csv
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jmbrl.data.episodes import episodes, joined
from jmbrl.data.logs import Log, from_log
from jmbrl.data.replay import Replay
from jmbrl.envs.spaces import to_env
from jmbrl.types import ActionSpace, Spec

# What others call our arrays: D4RL, Minari.
KNOWN = {
    "obs": ("obs", "observations"),
    "action": ("action", "actions"),
    "reward": ("reward", "rewards"),
    "next_obs": ("next_obs", "next_observations"),
    "terminated": ("terminated", "terminations", "terminals"),
    "truncated": ("truncated", "truncations", "timeouts"),
    "episode": ("episode", "episodes"),
    "time": ("time",),
}


def from_npz(
    path: str | Path,
    *,
    names: Mapping[str, str] | None = None,
    spec: Spec | None = None,
    space: ActionSpace | None = None,
    dt: float | None = None,
    clip: bool = False,
) -> Log:
    """A replay from a file of arrays with one row a step, in the environment's own units.

    Args:
      path: an ``.npz`` file. Its arrays are called as the arguments of ``from_log``, or as in D4RL's and Minari's files
        (``observations``, ``terminals``, ``timeouts``, ...); others are not read.
      names: ``{"obs": "x"}``, what the file calls them where it is neither.
      spec, space, dt, clip: as in ``from_log``.

    Raises:
      ValueError: a file that cannot be read (cut off, or of Python objects: write ragged episodes one after the other,
        with an ``episode`` array), a missing array, or what ``from_log`` refuses.
    """
    for given in names or {}:
        if given not in KNOWN:
            raise ValueError(f"names must be of {', '.join(KNOWN)}; got {given!r}")
    try:
        with open(path, "rb") as handle:  # numpy leaves a file open that it cannot read
            file = np.load(handle, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            arrays = {}
            for ours, known in KNOWN.items():
                wanted = (names[ours],) if names and ours in names else known
                found = next((name for name in wanted if name in file.files), None)
                if found is not None:
                    arrays[ours] = file[found]
                elif ours in ("obs", "action", "reward") or (names and ours in names):
                    raise ValueError(f"it has no array {' or '.join(wanted)}, only {', '.join(file.files) or 'none'}")
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"path {path} must be an .npz file of arrays, one row a step: {error}") from error
    return from_log(**arrays, spec=spec, space=space, dt=dt, clip=clip)


def save_npz(path: str | Path, replay: Replay, spec: Spec) -> None:
    """A replay as ``from_npz`` reads it, actions in the environment's own units.

    Args:
      path: ends in ``.npz``.
      replay: concrete; its episodes lie one after the other in the file.
      spec: whose bounds scale the actions.

    Raises:
      ValueError: an empty replay, or another ending.
    """
    if Path(path).suffix != ".npz":
        raise ValueError(f"path must end in .npz, got {path}")
    found = episodes(replay)
    if not found:
        raise ValueError("replay must hold at least one valid row, got none")
    rows = jax.tree.map(lambda x: x[:, 0], jax.device_get(joined(found).data))
    rows = rows._replace(action=np.asarray(jax.vmap(lambda action: to_env(spec.action, action))(rows.action)))
    number = np.repeat(np.arange(len(found)), [len(part.reward) for part in found])
    np.savez_compressed(path, **rows._asdict(), episode=number)


def from_csv(
    path: str | Path,
    *,
    obs: Sequence[str],
    action: str | Sequence[str],
    reward: str,
    next_obs: Sequence[str] | None = None,
    terminated: str | None = None,
    truncated: str | None = None,
    episode: str | None = None,
    time: str | None = None,
    dt: float | None = None,
    spec: Spec | None = None,
    space: ActionSpace | None = None,
    clip: bool = False,
    delimiter: str = ",",
) -> Log:
    """A replay from a table with a header, one row a step, in the environment's own units.

    Args:
      path: the file, in UTF-8.
      obs, next_obs: columns of the observation's entries, in their order; they name the entries of the spec.
      action: columns of the action, or one column of whole numbers for discrete actions.
      reward, terminated, truncated, episode, time: one column each; flags are 0, 1, true or false. An empty cell is
        NaN: allowed where a last row only tells an observation (see ``from_log``), false for a flag.
      dt, spec, space, clip: as in ``from_log``.
      delimiter: between cells.

    Raises:
      ValueError: a column that is missing or twice there, a line of another length than the header (a file that was cut
        off), a cell that is no number, or what ``from_log`` refuses.
    """
    lines, header = _table(path, delimiter)
    single = {"reward": reward, "terminated": terminated, "truncated": truncated, "episode": episode, "time": time}
    wanted: dict[str, list[str]] = {name: [column] for name, column in single.items() if column is not None}
    wanted |= {"obs": list(obs), "action": [action] if isinstance(action, str) else list(action)}
    if next_obs is not None:
        wanted["next_obs"] = list(next_obs)
    for name, columns in wanted.items():
        if not columns:
            raise ValueError(f"{name} must name at least one column, got none")
        for column in columns:
            if header.count(column) != 1:
                there = "twice" if column in header else "not"
                raise ValueError(f"{name} column {column!r} is {there} in {path}, which has {', '.join(header)}")
    arrays: dict[str, Any] = {}
    for name, columns in wanted.items():
        places = [header.index(column) for column in columns]
        if name == "episode":
            arrays[name] = _identities([cells[places[0]] for _, cells in lines])
            continue
        read = _flag if name in ("terminated", "truncated") else _number
        table = np.asarray([[read(path, line, header[i], cells[i]) for i in places] for line, cells in lines])
        one = name in single or (isinstance(action, str) and name == "action")
        arrays[name] = table[:, 0] if one else table
    return from_log(**arrays, dt=dt, spec=spec, space=space, clip=clip, names=tuple(obs))


def _table(path: str | Path, delimiter: str) -> tuple[list[tuple[int, list[str]]], list[str]]:
    """Lines with their numbers, and the header."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"path {path} must be a table in UTF-8: {error}") from error
    if len(lines) < 2:
        raise ValueError(f"path {path} must have a header and at least one row, got {len(lines)} lines")
    (_, header), *rest = lines
    for line, cells in rest:
        if len(cells) != len(header):
            raise ValueError(f"{path} line {line} must have {len(header)} cells, as the header has, got {len(cells)}")
    return rest, header


def _number(path: str | Path, line: int, column: str, cell: str) -> float:
    try:
        return float(cell) if cell else np.nan
    except ValueError:
        raise ValueError(f"{path} line {line}, column {column!r} must be a number, got {cell!r}") from None


def _flag(path: str | Path, line: int, column: str, cell: str) -> bool:
    if cell.lower() in ("", "0", "0.0", "false"):
        return False
    if cell.lower() in ("1", "1.0", "true"):
        return True
    raise ValueError(f"{path} line {line}, column {column!r} must be 0, 1, true or false, got {cell!r}")


def _identities(cells: list[str]) -> np.ndarray:
    """Numbers where all are, else texts."""
    try:
        return np.asarray([float(cell) for cell in cells])
    except ValueError:
        return np.asarray(cells)
