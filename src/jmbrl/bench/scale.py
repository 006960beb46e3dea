"""What several devices bring: ``jmbrl bench scale``."""

import time
from typing import Any

import jax
import numpy as np

from jmbrl import agents, checks, devices, envs
from jmbrl.lanes import Programs, seed_keys, together
from jmbrl.train import make_train


def scale(
    seeds: int = 8, steps: int = 600, system: str = "pets", env: str = "gymnax:Pendulum-v1", axis: str = "seed"
) -> list[dict[str, Any]]:
    """The same short run on 1, 2, 4, ... of this machine's devices, warm.

    Simulated devices (``XLA_FLAGS=--xla_force_host_platform_device_count=8``) share the processor's cores: there only
    ``difference`` tells something, and that seconds do not grow.

    Args:
      seeds: how many; where ``axis`` is ``"seed"``, a multiple of the number of devices.
      steps: environment steps, the warm-up included.
      system: a named system with its preset for ``env``, a JAX environment.
      axis: what the devices share: ``"seed"``, ``"member"`` or ``"row"``.

    Returns:
      Rows: ``devices``, ``seconds``, ``speedup`` (over one device), ``compile_s`` and ``difference``: of the reward of
      any seed in its first episode, the largest from one device's.
    """
    checks.choice("axis", axis, devices.AXES)
    keys, _ = seed_keys(0, checks.integer("seeds", seeds, 1))
    page = agents.SYSTEMS[checks.choice("system", system, tuple(agents.SYSTEMS))]
    preset = agents.default_preset(system, env)
    config = page.config(**(agents.PRESETS[system][preset] if preset else {}))
    world = page.wrap(envs.make(env), config)
    train = make_train(world, page.make(world, config), steps)
    counts = [2**i for i in range(len(jax.devices()).bit_length())]
    if len(counts) == 1:
        raise ValueError(
            "there is one device; on a processor XLA_FLAGS=--xla_force_host_platform_device_count=8 simulates eight"
        )
    rows: list[dict[str, Any]] = []
    rewards = None
    for count in counts:
        programs = Programs(train, keys, mesh={axis: count} if axis == devices.SEED else {devices.SEED: 1, axis: count})
        _whole_run(programs)  # compiles
        seconds, found = _whole_run(programs)
        first = found[:, : world.spec.max_steps]
        rewards = first if rewards is None else rewards
        rows.append(
            {
                "system": system,
                "env": env,
                "seeds": seeds,
                "env_steps": steps,
                "axis": axis,
                "devices": count,
                "seconds": seconds,
                "speedup": rows[0]["seconds"] / seconds if rows else 1.0,
                "compile_s": programs.compile_seconds,
                "difference": float(np.max(np.abs(first - rewards))),
            }
        )
    return rows


def _whole_run(programs: Programs) -> tuple[float, np.ndarray]:
    """Seconds without those of ``init``, and the rewards ``[S, T, num_envs]``."""
    runs, rewards = jax.block_until_ready(programs.init()), []
    began = time.perf_counter()
    for span in programs.train.spans():
        runs, metrics = programs.chunk(runs, span)
        rewards.append(metrics["reward"])
    jax.block_until_ready(jax.tree.leaves(together(runs)))
    return time.perf_counter() - began, np.concatenate(rewards, axis=1)
