"""JAX's compilation cache, on by default in the command and one call away in a notebook."""

import os
from pathlib import Path

import jax

VARIABLE = "JMBRL_CACHE"


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
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return path
