"""Rows on disk: what is too large for the state of a run, such as the frames of a million steps."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

Column = tuple[tuple[int, ...], str]  # shape of one row, dtype


class Columns:
    """A table in a directory, one file a column, that grows at its end.

    Nothing is kept in memory: reading maps the file, so a table may be larger than memory. A row counts once all its
    columns have it, so that a process killed while writing leaves a table that can be read and extended.

    Args:
      directory: made when missing; what lies there is taken up.
      columns: ``name -> (shape, dtype)`` of one row.

    Raises:
      ValueError: no columns, or the table that lies there has others.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = Columns(folder, {"frame": ((2, 2), "uint8"), "reward": ((), "float32")})
    ...     table.append(frame=np.ones((3, 2, 2)), reward=np.arange(3))
    ...     table.truncate(2)
    ...     print(len(table), table.read("reward").tolist())
    2 [0.0, 1.0]
    """

    def __init__(self, directory: str | Path, columns: Mapping[str, Column]):
        if not columns:
            raise ValueError("columns must name at least one column, got none")
        self.directory = Path(directory)
        self.columns = {name: (tuple(shape), np.dtype(kind)) for name, (shape, kind) in columns.items()}
        self.directory.mkdir(parents=True, exist_ok=True)
        facts = {name: [list(shape), str(kind)] for name, (shape, kind) in self.columns.items()}
        saved = self.directory / "columns.json"
        if saved.exists() and json.loads(saved.read_text()) != facts:
            raise ValueError(f"columns in {directory} are {json.loads(saved.read_text())}, wanted {facts}")
        saved.write_text(json.dumps(facts))
        for name in self.columns:
            self._path(name).touch()
        self.truncate(len(self))

    def __len__(self) -> int:
        return min(self._path(name).stat().st_size // self._bytes(name) for name in self.columns)

    def append(self, **rows: np.ndarray) -> None:
        """Rows ``[N, ...]`` of every column, cast to its dtype.

        Raises:
          ValueError: a column is missing, unknown, or of another length or shape.
        """
        if set(rows) != set(self.columns):
            raise ValueError(f"columns must be {sorted(self.columns)}, got {sorted(rows)}")
        count = len(next(iter(rows.values())))
        for name, values in rows.items():
            wanted = (count, *self.columns[name][0])
            if np.shape(values) != wanted:
                raise ValueError(f"{name} must have shape {wanted}, as {next(iter(rows))} has, got {np.shape(values)}")
        for name, values in rows.items():
            with open(self._path(name), "ab") as file:
                file.write(np.ascontiguousarray(values, self.columns[name][1]).tobytes())

    def truncate(self, count: int) -> None:
        """Keep the first ``count`` rows."""
        if not 0 <= count <= len(self):
            raise ValueError(f"count must be in [0, {len(self)}], got {count}")
        for name in self.columns:
            os.truncate(self._path(name), count * self._bytes(name))

    def read(self, name: str) -> np.ndarray:
        """A column as it is now, ``[N, ...]``, mapped from the disk: index it, and what is indexed is read."""
        shape, kind = self.columns[name]
        whole = (len(self), *shape)
        return np.memmap(self._path(name), kind, "r", shape=whole) if whole[0] else np.zeros(whole, kind)

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.bin"

    def _bytes(self, name: str) -> int:
        shape, kind = self.columns[name]
        return int(np.prod(shape, dtype=int)) * kind.itemsize
