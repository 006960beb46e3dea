"""How long a decision takes, and how often one can be made."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.types import Agent, Key, PyTree


def latency(function: Callable, *arguments: Any, calls: int = 100) -> dict[str, float]:
    """Wall-clock time of ``jax.jit(function)(*arguments)``, compiled ahead of time and waited for.

    Args:
      function: pure.
      arguments: pytrees of arrays, the same at each call.
      calls: how many are timed, at least 1; three more go before them.

    Returns:
      ``p50_ms``, ``p95_ms``, ``p99_ms``; ``rate_hz``, the control rate that 99 of 100 calls keep (1 / p99);
      ``compile_seconds``.
    """
    calls = checks.integer("calls", calls, 1)
    began = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    compile_seconds = time.perf_counter() - began
    for _ in range(3):
        jax.block_until_ready(compiled(*arguments))
    spent = []
    for _ in range(calls):
        began = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        spent.append(time.perf_counter() - began)
    p50, p95, p99 = np.percentile(1e3 * np.asarray(spent), (50, 95, 99)).tolist()
    return {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "rate_hz": 1e3 / p99, "compile_seconds": compile_seconds}


def act_latency(
    key: Key, agent: Agent, state: PyTree, obs: PyTree, calls: int = 100, dt: float | None = None
) -> dict[str, Any]:
    """``latency`` of one decision without exploration in the middle of an episode, for one environment.

    Args:
      dt: seconds per step of the environment (``spec.dt``); None where unknown.

    Returns:
      What ``latency`` and ``keeps_up`` return. Planning, filtering and the choice are included; the environment is not.
    """

    def act(key: Key, state: PyTree, carry: PyTree, obs: PyTree) -> tuple:
        action, carry, _ = agent.act(key, state, carry, obs, jnp.asarray(False), False)
        return action, carry

    carry = jax.tree.map(jnp.asarray, agent.reset(state))
    found = latency(act, key, state, carry, obs, calls=calls)
    return found | keeps_up(found, dt)


def keeps_up(found: dict[str, float], dt: float | None) -> dict[str, Any]:
    """Whether 99 of 100 decisions end within ``dt`` seconds: ``needed_hz`` (1 / dt) and ``keeps_up``, None without dt.

    >>> keeps_up({"p99_ms": 20.0}, 0.05)
    {'needed_hz': 20.0, 'keeps_up': True}

    Raises:
      ValueError: ``dt`` is not positive.
    """
    if dt is None:
        return {"needed_hz": None, "keeps_up": None}
    checks.number("dt", dt, 1e-9)
    return {"needed_hz": 1.0 / dt, "keeps_up": bool(found["p99_ms"] <= 1e3 * dt)}
