"""JAX's compilation cache, on by default in the command and one call away in a notebook."""

import os
from pathlib import Path

import jax

VARIABLE = "JMBRL_CACHE"
SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


def directory() -> Path:
    """``$JMBRL_CACHE``, else ``~/.cache/jmbrl/xla``."""
    return Path(os.environ.get(VARIABLE) or Path.home() / ".cache" / "jmbrl" / "xla")


def enable(path: str | Path | None = None) -> Path | None:
    """Keep compiled programs between processes; ``JMBRL_CACHE=off`` turns it off. Returns where, or None."""
    if path is None and os.environ.get(VARIABLE, "").lower() in ("off", "0", "none"):
        return None
    path = directory() if path is None else Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None  # a home that cannot be written costs time, not the run
    for setting, value in zip(SETTINGS, (str(path), 0.5, -1), strict=True):
        jax.config.update(setting, value)
    return path
