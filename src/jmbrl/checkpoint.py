"""Save and restore a whole run, exactly, on a disk that may fail.

Orbax writes atomically and in the background, but it neither notices a flipped byte nor falls back to the step
before, and it lets two processes write one directory. ``Checkpoints`` adds those three: a CRC per leaf, a fall
back to the newest intact step, and a lock. It is the only file that knows orbax. With several processes all of them
save and restore together, in a directory that all can see; the first holds the lock.
"""

import contextlib
import json
import logging
import os
import shutil
import socket
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jmbrl import checks, devices
from jmbrl.types import PyTree

try:
    import fcntl
except ImportError:  # Windows: no lock, everything else works
    fcntl = None

FORMAT = 1


class CheckpointWarning(UserWarning):
    """A checkpoint could not be written or read; training goes on with what there is."""


class CheckpointError(RuntimeError):
    """No checkpoint could be restored, or the directory is in use."""


class Checkpoints:
    """The checkpoints of one run in one directory.

    Args:
      directory: where; made absolute, created when missing.
      keep: how many of the newest steps stay on disk, at least 1; 2 leaves one to fall back to.
      read_only: look, but take no lock and remove nothing.

    Raises:
      CheckpointError: another process writes there.
    """

    def __init__(self, directory: str | Path, keep: int = 2, *, read_only: bool = False):
        self.directory = Path(directory).absolute()
        self.read_only = read_only
        checks.integer("keep", keep, low=1)
        if read_only and not self.directory.is_dir():
            raise CheckpointError(f"no checkpoints in {self.directory}")
        if not read_only:
            self.directory.mkdir(parents=True, exist_ok=True)
        self._lock = None if read_only else devices.first_only(_lock, self.directory / ".lock")
        self._clear_leftovers()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=None if read_only else keep,
            read_only=read_only,
            create=not read_only,
        )
        try:
            with _without_warnings("absl"):  # where orbax tells its own options
                # The handler is named so that metadata can be read before the first save, without a warning.
                self._manager = ocp.CheckpointManager(
                    self.directory, options=options, item_handlers=ocp.StandardCheckpointHandler()
                )
        except BaseException:
            self._unlock()
            raise

    def steps(self) -> list[int]:
        """The steps on disk, oldest first; a save still in flight is not among them."""
        self._manager.reload()
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: PyTree, metadata: dict | None = None) -> bool:
        """Start writing ``state`` in the background. A failure warns and returns False; it never raises.

        Args:
          step: a Python integer, larger than every step on disk.
          state: any pytree of arrays; typed keys included.
          metadata: JSON-able facts to be kept with it, such as the configuration.
        """
        checks.integer("step", step, low=0)
        self.wait()  # only here orbax tells whether the save before this one failed
        self._clear_leftovers()
        try:
            leaves = {path: _array(leaf) for path, leaf in _flatten(state)}
            body = {
                "format": FORMAT,
                "leaves": {path: fingerprint(leaf) for path, leaf in leaves.items()},
                "metadata": metadata or {},
            }
            saved = self._manager.save(
                step, args=ocp.args.StandardSave(_stored(leaves)), force=True, custom_metadata=_seal(body)
            )
            if not saved:
                raise ValueError(f"orbax refuses it; on disk are {self.steps()}")
            return True
        except Exception as error:
            self._report_failure(step, error)
            return False

    def wait(self) -> bool:
        """Block until the save in flight is on disk; False, with a warning, where it failed."""
        try:
            self._manager.wait_until_finished()
            return True
        except Exception as error:
            self._report_failure(None, error)
            return False

    def restore(self, abstract_state: PyTree, config: dict | None = None) -> tuple[int, PyTree, dict] | None:
        """The newest intact ``(step, state, metadata)``; None where nothing was ever saved.

        A damaged step is passed over with a ``CheckpointWarning`` and, once an older one was restored, removed:
        otherwise it would stay the newest for ever and later saves would be refused.

        Args:
          abstract_state: ``jax.eval_shape(init, key)``. Leaves without a sharding go to the first device.
          config: the configuration of the run that resumes; compared with the one in ``metadata["config"]``.

        Raises:
          ValueError: the checkpoint was made with another configuration; the message lists what differs.
          CheckpointError: there are checkpoints and none is intact.
        """
        damaged = []
        for step in reversed(self.steps()):
            try:
                body = self._read_body(step)
                state = None
                mismatch = _mismatch(body, abstract_state, config)
                if mismatch is None:
                    state = self._read_state(step, body, abstract_state)
            except Exception as error:  # orbax raises four unrelated types on damage
                damaged.append(step)
                warnings.warn(
                    f"checkpoint {step} in {self.directory} is damaged ({_short(error)}); trying the one before",
                    CheckpointWarning,
                    stacklevel=2,
                )
                continue
            if mismatch is not None:
                raise ValueError(f"checkpoint {step} in {self.directory} does not fit this run: {mismatch}")
            self._remove(damaged)
            return step, state, body["metadata"]
        if damaged:
            raise CheckpointError(f"no intact checkpoint in {self.directory}: steps {sorted(damaged)} are damaged")
        return None

    def metadata(self) -> tuple[int, dict] | None:
        """``(step, metadata)`` of the newest step whose metadata can be read, without reading the state."""
        for step in reversed(self.steps()):
            with contextlib.suppress(Exception):
                return step, self._read_body(step)["metadata"]
        return None

    def close(self) -> None:
        """Wait for the save in flight and release the directory."""
        try:
            self.wait()
            self._manager.close()
        finally:
            self._unlock()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_body(self, step: int) -> dict:
        body = _unseal(self._manager.metadata(step).custom_metadata)
        if body["format"] != FORMAT:
            raise ValueError(f"format {body['format']}, this version reads {FORMAT}")
        return body

    def _read_state(self, step: int, body: dict, abstract_state: PyTree) -> PyTree:
        abstract = {path: _abstract(leaf) for path, leaf in _flatten(abstract_state)}
        stored = self._manager.restore(step, args=ocp.args.StandardRestore(_stored(abstract)))
        leaves = []
        for i, (path, leaf) in enumerate(abstract.items()):
            value = stored[_name(i)] if _name(i) in stored else _empty(leaf)
            if fingerprint(value) != body["leaves"][path]:
                raise ValueError(f"leaf {path} has wrong bytes: {fingerprint(value)}, was {body['leaves'][path]}")
            leaves.append(value)
        return jax.tree.unflatten(jax.tree.structure(abstract_state), leaves)

    def _remove(self, damaged: list[int]) -> None:
        if damaged and not self.read_only:
            for step in damaged if devices.first() else ():
                shutil.rmtree(self.directory / str(step), ignore_errors=True)
            self._manager.reload()

    def _report_failure(self, step: int | None, error: Exception) -> None:
        what = "the checkpoint in flight" if step is None else f"checkpoint {step}"
        warnings.warn(
            f"{what} was not saved to {self.directory} ({_short(error)}); training goes on, earlier checkpoints stay",
            CheckpointWarning,
            stacklevel=3,
        )
        self._clear_leftovers()

    def _clear_leftovers(self) -> None:
        """What killed and failed saves leave behind would keep a full disk full. Called while no save is in flight;
        orbax's own clearing runs in the background, where it could meet one."""
        if not self.read_only and devices.first():
            for left in self.directory.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(left, ignore_errors=True)

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def fingerprint(leaf: Any) -> str:
    """``dtype[shape]:crc32`` of an array's bytes; a typed key says its implementation, ``key<fry>[]:...``."""
    data = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
    raw = np.ascontiguousarray(devices.to_host(data)).reshape(-1).view(np.uint8)
    return f"{_kind(leaf)}:{zlib.crc32(raw.data):08x}"


def config_diff(saved: dict, wanted: dict, prefix: str = "") -> list[str]:
    """The entries in which two nested configurations differ, as ``"key: saved 1, now 2"`` lines."""
    lines = []
    for key in sorted(saved.keys() | wanted.keys()):
        old, new = saved.get(key, "(absent)"), wanted.get(key, "(absent)")
        if isinstance(old, dict) and isinstance(new, dict):
            lines += config_diff(old, new, f"{prefix}{key}.")
        elif _plain(old) != _plain(new):
            lines.append(f"{prefix}{key}: saved {old!r}, now {new!r}")
    return lines


def _mismatch(body: dict, abstract_state: PyTree, config: dict | None) -> str | None:
    """Why a checkpoint cannot serve this run; None where it can."""
    differs = config_diff(body["metadata"].get("config", {}), config) if config is not None else []
    if differs:
        return "its configuration differs in " + "; ".join(differs)
    wanted = {path: _kind(leaf) for path, leaf in _flatten(abstract_state)}
    saved = {path: mark.rpartition(":")[0] for path, mark in body["leaves"].items()}
    if wanted != saved:
        lines = config_diff(saved, wanted)
        more = f"; and {len(lines) - 5} more" if len(lines) > 5 else ""
        return "its arrays differ in " + "; ".join(lines[:5]) + more
    return None


def _plain(value: Any) -> Any:
    """As JSON would give it back: tuples are lists there."""
    return json.loads(json.dumps(value, default=str))


def _seal(body: dict) -> dict:
    text = json.dumps(body)
    return {"body": text, "crc": zlib.crc32(text.encode())}


def _unseal(sealed: Any) -> dict:
    text = sealed["body"]
    if zlib.crc32(text.encode()) != sealed["crc"]:
        raise ValueError("its metadata has wrong bytes")
    return json.loads(text)


def _flatten(tree: PyTree) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]


def _name(index: int) -> str:
    return f"leaf_{index:05d}"


def _stored(leaves: dict[str, Any]) -> dict[str, Any]:
    """What orbax sees: a flat dict, so that NamedTuples and empty nodes need no care, without the arrays of size 0
    that it refuses to write."""
    return {_name(i): leaf for i, leaf in enumerate(leaves.values()) if leaf.size}


def _empty(leaf: jax.ShapeDtypeStruct) -> jax.Array:
    return jax.jit(lambda: jnp.zeros(leaf.shape, leaf.dtype), out_shardings=leaf.sharding)()


def _array(leaf: Any) -> jax.Array:
    return leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    # Without a sharding a checkpoint from 8 devices cannot be read on 1.
    sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _kind(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


@contextlib.contextmanager
def _without_warnings(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        logger.setLevel(level)


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"


def _lock(path: Path) -> Any:
    """Hold ``path`` until closed or until the process dies, however it dies."""
    if fcntl is None:
        return None
    file = open(path, "a+")  # noqa: SIM115 - held open on purpose
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip() or "another process"
        file.close()
        raise CheckpointError(
            f"{path.parent} is being written by {owner}: two writers would overwrite each other; "
            "wait for it, stop it, or choose another directory"
        ) from None
    except OSError as error:  # some network file systems have no locks
        warnings.warn(f"cannot lock {path} ({error}); do not start a second run there", CheckpointWarning, stacklevel=3)
        return file
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file
