"""Actions written on the command line: ``0*10,2*5``, ``0.5;1;0*30``, ``@file.npy``."""

from pathlib import Path

import numpy as np

from jmbrl.envs.spaces import from_env
from jmbrl.types import Discrete, Spec

FORM = "value*count, comma separated (a;b;c*count for several dimensions), or @file.npy or @file.txt with rows"


def parse(text: str, spec: Spec) -> np.ndarray:
    """Actions from text: ``value*count`` items, ``a;b;c*count`` for several dimensions, or the rows of a file.

    Args:
      text: ``"2*10,0,1*5"``, or ``"@path.npy"``, or ``"@path.txt"`` (a row a line, numbers apart by spaces, ``,`` or
        ``;``). A discrete action is its number. A continuous one is in the environment's own units, as those that
        ``Policy.act`` returns.
      spec: the environment's.

    Returns:
      ``[T, ...]``, the library's: ``int32[T]`` or ``float32[T, dim]`` in ``[-1, 1]``.

    Raises:
      ValueError: what cannot be read, has another number of dimensions, or is not in the action space.
    """
    if text.startswith("@"):
        rows = [(f"row {i} of {text[1:]}", row) for i, row in enumerate(_read(Path(text[1:])))]
    else:
        rows = [named for item in text.split(",") for named in _item(item.strip())]
    if not rows:
        raise ValueError(f"actions must have at least one row, got none in {text[1:]}")
    return from_env(spec.action, np.stack([_checked(name, row, spec) for name, row in rows]))


def _item(item: str) -> list[tuple[str, np.ndarray]]:
    values, star, count = item.partition("*")
    try:
        row = np.asarray([float(value) for value in values.split(";")])
        times = int(count) if star else 1
    except ValueError:
        raise ValueError(f"actions must be {FORM}; got {item!r}") from None
    if times < 1:
        raise ValueError(f"actions: the count of {item!r} must be at least 1, got {times}")
    return [(repr(item), row)] * times


def _read(path: Path) -> list[np.ndarray]:
    try:
        if path.suffix == ".npy":
            table = np.load(path, allow_pickle=False)
            return [np.asarray(row, np.float64).reshape(-1) for row in np.atleast_1d(table)]
        if path.suffix == ".txt":
            lines = [line.replace(",", " ").replace(";", " ").split() for line in path.read_text().splitlines()]
            return [np.asarray([float(value) for value in line]) for line in lines if line]
    except (OSError, ValueError) as error:
        raise ValueError(f"actions cannot be read from {path}: {error}") from None
    raise ValueError(f"actions must be in a .npy or .txt file, got {path}")


def _checked(name: str, row: np.ndarray, spec: Spec) -> np.ndarray:
    """The row as the action space has it."""
    space = spec.action
    if isinstance(space, Discrete):
        if row.size != 1 or row[0] not in range(space.n):
            raise ValueError(f"actions of {spec.name} must be whole numbers in [0, {space.n}), got {name}")
        return row[0].astype(np.int32)
    if row.size != space.dim:
        raise ValueError(f"actions of {spec.name} must have {space.dim} dimensions, got {row.size} in {name}")
    for value, low, high in zip(row, space.low, space.high, strict=True):
        if not low <= value <= high:
            raise ValueError(
                f"actions of {spec.name} must be in its own units, from {space.low} to {space.high}, got {name}"
            )
    return row
