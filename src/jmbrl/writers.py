"""Where the numbers of a run go: always a JSON Lines file, on request TensorBoard and Weights & Biases.

A writer never stops a run. ``metrics.jsonl`` holds only numbers that the run determines, so the file of a killed
and resumed run equals the uninterrupted one byte for byte; the clock goes to ``summary.json``.
"""

import contextlib
import json
import math
import os
import warnings
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jmbrl import checks, records


class WriterWarning(UserWarning):
    """Some numbers could not be written; the run goes on."""


class Writer(Protocol):
    """Takes rows: flat dicts with ``env_steps`` and ``seed``."""

    def write(self, rows: list[dict[str, Any]]) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """Appends rows to a file, one JSON object a line; NaN and infinities become null.

    On a full disk the rows wait in memory and every later write tries again.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._waiting: list[bytes] = []
        self._size = self.path.stat().st_size if self.path.exists() else 0

    def write(self, rows: list[dict[str, Any]]) -> None:
        self._waiting += [encode(row) for row in rows]
        try:
            with open(self.path, "ab") as file:
                file.truncate(min(self._size, file.tell()))  # drop what an earlier, failed write may have left
                file.write(b"".join(self._waiting))
                file.flush()
                self._size = file.tell()
            self._waiting.clear()
        except OSError as error:
            warnings.warn(
                f"{len(self._waiting)} rows are not in {self.path} yet ({error}); training goes on",
                WriterWarning,
                stacklevel=2,
            )

    def flush(self) -> None:
        """Bring the file to the disk itself: a checkpoint must never be ahead of its metrics."""
        with contextlib.suppress(OSError), open(self.path, "ab") as file:
            os.fsync(file.fileno())

    def close(self) -> None:
        if self._waiting:
            self.write([])
        self.flush()


class TensorBoard:
    """Event files in a directory, through tensorboardX (``pip install jmbrl[logging]``)."""

    def __init__(self, directory: str | Path):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(directory))

    def write(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            for name, value in _numbers(row):
                self._writer.add_scalar(f"{name}/seed_{row['seed']}", value, row["env_steps"])

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """One W&B run, through wandb (``pip install jmbrl[logging]``); seeds are suffixes of the names."""

    def __init__(self, directory: str | Path, config: dict[str, Any] | None = None):
        import wandb

        self._run = wandb.init(dir=str(directory), config=config, name=Path(directory).name)
        # Episodes of several copies end out of order, which wandb's own step counter would refuse.
        self._run.define_metric("*", step_metric="env_steps")

    def write(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            values = {f"{name}/seed_{row['seed']}": value for name, value in _numbers(row)}
            self._run.log(values | {"env_steps": row["env_steps"]})

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._run.finish()


class Writers:
    """Hands rows to several writers; one that fails is left out from then on, with a warning."""

    def __init__(self, *writers: Writer):
        self._writers = list(writers)

    def write(self, rows: list[dict[str, Any]]) -> None:
        self._each("write", rows)

    def flush(self) -> None:
        self._each("flush")

    def close(self) -> None:
        self._each("close")

    def _each(self, method: str, *arguments: Any) -> None:
        for writer in list(self._writers):
            try:
                getattr(writer, method)(*arguments)
            except Exception as error:
                self._writers.remove(writer)
                _warn(type(writer).__name__, error)


OPTIONAL = {
    "tensorboard": lambda directory, config: TensorBoard(Path(directory) / "tensorboard"),
    "wandb": lambda directory, config: WeightsAndBiases(directory, config),
}


def make(directory: str | Path, names: tuple[str, ...] = (), config: dict | None = None) -> Writers:
    """The JSON Lines writer of a run and, where they can be had, the optional ones of ``names``.

    Raises:
      ValueError: a name outside ``OPTIONAL``.
    """
    writers: list[Writer] = [JsonLines(Path(directory) / "metrics.jsonl")]
    for name in names:
        checks.choice("writers", name, tuple(OPTIONAL))
        try:
            writers.append(OPTIONAL[name](directory, config))
        except Exception as error:  # not installed, no account, no network
            _warn(name, error)
    return Writers(*writers)


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file, without a last line that was cut off; none where there is no file."""
    path = Path(path)
    return [json.loads(line) for line in _whole_lines(path)] if path.exists() else []


def truncate(path: str | Path, done: int) -> None:
    """Drop the rows of work after ``done`` (and a line cut off by a kill), so that a resumed run writes them again."""
    path = Path(path)
    if not path.exists():
        return
    kept = [line for line in _whole_lines(path) if records.work(json.loads(line)) <= done]
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(b"".join(kept))
    os.replace(temporary, path)


def encode(row: dict[str, Any]) -> bytes:
    """One line of strict JSON."""
    return (json.dumps({name: _json(value) for name, value in row.items()}, allow_nan=False) + "\n").encode()


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(_json(value), indent=2, allow_nan=False) + "\n")
    os.replace(temporary, path)


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _json(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_json(entry) for entry in value]
    if hasattr(value, "tolist"):
        value = value.tolist()
        return _json(value) if isinstance(value, list) else _json_number(value)
    return _json_number(value)


def _json_number(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(row: dict[str, Any]) -> list[tuple[str, float]]:
    skip = ("env_steps", "seed")
    return [(k, float(v)) for k, v in row.items() if k not in skip and isinstance(v, int | float | np.number)]


def _whole_lines(path: Path) -> list[bytes]:
    lines = path.read_bytes().splitlines(keepends=True)
    whole = []
    for line in lines:
        try:
            json.loads(line)
        except ValueError:
            break  # a line cut off by a kill; what follows it cannot be trusted
        if not line.endswith(b"\n"):
            break
        whole.append(line)
    return whole


def _warn(name: str, error: Exception) -> None:
    warnings.warn(
        f"writer {name} failed ({type(error).__name__}: {error}) and is left out; metrics.jsonl has every number",
        WriterWarning,
        stacklevel=3,
    )
