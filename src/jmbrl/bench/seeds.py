"""What several seeds in one program cost: ``jmbrl bench seeds``."""

import time
from typing import Any

import jax
import numpy as np

from jmbrl import agents, checks, envs
from jmbrl.train import make_train


def seeds(count: int = 8, steps: int = 600, system: str = "pets", env: str = "gymnax:Pendulum-v1") -> dict[str, Any]:
    """A short run of ``count`` seeds by ``vmap``, warm, beside single runs of the first seed, and whether they agree.

    Args:
      count: seeds, at least 2.
      steps: environment steps, the warm-up included.
      system: a named system with its preset for ``env``, a JAX environment.

    Returns:
      A row: ``single_s``, ``vmap_s``, their ``ratio`` (``count`` is break-even on one processor), ``lane_bitwise``
      (whether the seeds in reverse order gave the same bits) and ``first_episode_difference`` (the largest of rewards,
      between a lane and the single run).
    """
    count = checks.integer("count", count, 2)
    page = agents.SYSTEMS[checks.choice("system", system, tuple(agents.SYSTEMS))]
    preset = agents.default_preset(system, env)
    config = page.config(**(agents.PRESETS[system][preset] if preset else {}))
    world = page.wrap(envs.make(env), config)
    train = make_train(world, page.make(world, config), steps)
    keys = jax.random.split(jax.random.key(0), count)
    single = jax.jit(train).lower(keys[0]).compile()
    many = jax.jit(jax.vmap(train)).lower(keys).compile()
    single_s, (_, alone) = _timed(single, keys[0])
    vmap_s, (_, together) = _timed(many, keys)
    _, (_, reverse) = _timed(many, keys[::-1])
    first = slice(0, world.spec.max_steps)
    same = all(np.array_equal(together[k], reverse[k][::-1], equal_nan=True) for k in together)
    gap = np.abs(np.asarray(together["reward"])[0, first] - np.asarray(alone["reward"])[first])
    return {
        "system": system,
        "env": env,
        "count": count,
        "env_steps": steps,
        "single_s": single_s,
        "vmap_s": vmap_s,
        "ratio": vmap_s / single_s,
        "lane_bitwise": bool(same),
        "first_episode_difference": float(gap.max()),
    }


def _timed(program: Any, keys: Any, repeats: int = 2) -> tuple[float, Any]:
    """The best of ``repeats`` warm calls, in seconds, and the last one's result."""
    best = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        out = jax.block_until_ready(program(keys))
        best = min(best, time.perf_counter() - start)
    return best, out
