"""How fast a compiled call is, how much of the machine's matmul rate that is, and what it keeps in memory."""

import functools
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.types import Params


def matmul_rate(members: int, rows: int, width: int, repeats: int = 5, chain: int = 1) -> float:
    """FLOP/s of the best of ``repeats`` products ``[members, rows, width] x [members, width, width]`` in float32.

    Args:
      chain: products in one call, one after another, each of the last one's result: where a single one takes no longer
        than calling it.
    """
    x, w = jnp.ones((members, rows, width)), jnp.full((members, width, width), 1.0 / width)
    product = _product if chain == 1 else _chained(chain)
    jax.block_until_ready(product(x, w))
    best = min(seconds(lambda: product(x, w)) for _ in range(repeats))
    return 2.0 * chain * members * rows * width * width / best


_product = jax.jit(jnp.matmul)


@functools.cache  # compiled once
def _chained(chain: int) -> Callable:
    return jax.jit(lambda x, w: jax.lax.fori_loop(0, chain, lambda _, y: jnp.matmul(y, w), x))


def numpy_matmul_rate(members: int, rows: int, width: int, repeats: int = 5) -> float:
    """The same product by NumPy, one member after another."""
    x, w = np.ones((members, rows, width), np.float32), np.ones((members, width, width), np.float32)
    best = min(seconds(lambda: np.matmul(x, w)) for _ in range(repeats))
    return 2.0 * members * rows * width * width / best


def flops_per_row(params: Params, members: int) -> int:
    """Multiply-adds of one network on one row, two operations each; biases and activations are not counted.

    Args:
      members: of the ensemble whose weights have a leading axis; 0: a single network.
    """
    kernels = [w for w in jax.tree.leaves(params.weights) if w.ndim == (3 if members else 2)]
    return 2 * sum(w.size // max(members, 1) for w in kernels)


def compiled_ahead(fn: Callable, *args: Any, donate: tuple[int, ...] = ()) -> tuple[Any, float]:
    start = time.perf_counter()
    compiled = jax.jit(fn, donate_argnums=donate).lower(*args).compile()
    return compiled, time.perf_counter() - start


def seconds(call: Callable) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def timed(
    call: Callable, repeats: int, members: int, rows: int, width: int, chain: int = 1
) -> tuple[np.ndarray, dict[str, float]]:
    """Times of ``repeats`` warm calls, and the matmul rate measured before, between and after them.

    Args:
      call: ``(i) -> arrays``, the ``i``-th call.
      members, rows, width: the shape of that product; ``rows`` of all members together.
      chain: as in ``matmul_rate``.
    """
    repeats = checks.integer("repeats", repeats, 1)
    shape = (members, max(1, rows // members), width)
    jax.block_until_ready(call(0))
    times, rates = [], [matmul_rate(*shape, chain=chain)]
    for i in range(repeats):
        times.append(seconds(lambda i=i: call(i + 1)))
        rates.append(matmul_rate(*shape, chain=chain))
    return np.asarray(times), {"matmul": max(rates), "numpy": numpy_matmul_rate(*shape)}


def share(flops: float, times: np.ndarray, rate: dict[str, float]) -> dict[str, float]:
    median = float(np.median(times))
    return {
        "gflop": flops / 1e9,
        "gflop_per_s": flops / median / 1e9,
        "matmul_gflop_per_s": rate["matmul"] / 1e9,
        "numpy_gflop_per_s": rate["numpy"] / 1e9,
        "floor_ms": 1e3 * flops / rate["matmul"],
        "fraction": flops / median / rate["matmul"],
        "fraction_best": flops / float(np.min(times)) / rate["matmul"],
    }


def memory(compiled: Any) -> dict[str, float]:
    """``program_mb``: arguments, results and temporaries of the compiled call; ``peak_mb``: the process so far."""
    sizes = compiled.memory_analysis()
    program = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes if sizes else 0
    return {"program_mb": program / 1e6, "peak_mb": peak_bytes() / 1e6}


def peak_bytes() -> int:
    """The most memory that this process had on the host."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss of a new process begins with its parent's
        lines = [line.split() for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if lines:
            return 1024 * int(lines[0][1])
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss counts kilobytes on Linux, bytes on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
