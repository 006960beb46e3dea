"""Whole tabular runs side by side in one program, against a plain NumPy loop of the same algorithm.

A row's ``ratio`` is the NumPy loop's time per update over the compiled program's: equally many real steps and updates
per run, both the best of several, compilation apart.
"""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import agents, checks, envs
from jmbrl.bench.measure import compiled_ahead, memory, peak_bytes, seconds
from jmbrl.bench.numpy_dyna_q import dyna_q
from jmbrl.train import Train, make_train

PIECE = 1000  # real steps between two looks at whether every run has its episodes
PATIENCE = 2_000_000  # real steps after which that is given up
IMAGINED = {"dyna_q": "plan/backups", "prioritized_sweeping": "sweep/backups"}  # the metrics that count updates


class Case(NamedTuple):
    """Runs on the Dyna maze: ``steps`` real ones; None: as many as it takes until each has its ``episodes``."""

    system: str = "dyna_q"
    planning_steps: int = 50
    resolution: int = 1
    runs: int = 30
    episodes: int = 50
    steps: int | None = None
    numpy_seconds: float = 60.0  # runs of the NumPy loop begin within so long; at least one, at most ``runs``


CASES = {
    "q_learning": Case(planning_steps=0),
    "dyna_q_5": Case(planning_steps=5),
    "dyna_q_50": Case(),
    "sweeping": Case("prioritized_sweeping", planning_steps=5),
    "dyna_q_50_fine": Case(resolution=6, steps=2000),
    "sweeping_fine": Case("prioritized_sweeping", planning_steps=5, resolution=6, steps=2000),
}
SETTINGS = {"dyna_q": {"alpha": 0.1}, "prioritized_sweeping": {"alpha": 0.5, "threshold": 1e-4}}


def tabular(preset: Case, repeats: int = 5) -> dict[str, Any]:
    """``runs`` whole runs by ``vmap`` through ``make_train``, warm.

    Args:
      preset: what is run.
      repeats: timed calls.

    Returns:
      ``steps``: real steps of each run. ``updates``: of all runs together, the imagined ones and one for each real step
      (so sweeping's source counts too; its queue is empty until the first goal is met). ``ms`` (the best call),
      ``ms_p50``, ``us_per_step`` (``ms`` over ``steps``: one step of all runs side by side), ``ns_per_update``,
      ``compile_s``; ``program_mb``, ``peak_mb``, ``base_mb`` (the process before). Of Dyna-Q also ``numpy_runs`` (how
      many were timed), ``numpy_ns_per_update`` (the fastest run's), ``ratio`` and ``ratio_p50`` (of the medians).

    Raises:
      ValueError: a setting outside its range, or a run that does not finish its episodes.
    """
    system = checks.choice("system", preset.system, tuple(SETTINGS))
    runs, repeats = checks.integer("runs", preset.runs, 1), checks.integer("repeats", repeats, 1)
    episodes = checks.integer("episodes", preset.episodes, 1)
    base = peak_bytes()
    env = envs.make("maze", resolution=preset.resolution)
    page = agents.SYSTEMS[system]
    config = page.config(planning_steps=preset.planning_steps, **SETTINGS[system])
    agent = page.make(env, config)
    keys = jax.random.split(jax.random.key(0), runs)
    steps = steps_until(make_train(env, agent, PATIENCE), keys, episodes) if preset.steps is None else preset.steps
    compiled, compile_s = compiled_ahead(jax.vmap(make_train(env, agent, steps)), keys)
    _, history = jax.block_until_ready(compiled(keys))
    sizes = memory(compiled)
    imagined = np.sum(np.asarray(history[IMAGINED[system]]), dtype=np.float64) if preset.planning_steps else 0
    updates = runs * steps + int(imagined)
    del history
    times = np.asarray([seconds(lambda: compiled(keys)) for _ in range(repeats)])
    row = {
        "env": env.spec.name,
        **preset._asdict(),
        "steps": steps,
        "updates": updates,
        "ms": 1e3 * times.min(),
        "ms_p50": 1e3 * np.median(times),
        "us_per_step": 1e6 * times.min() / steps,
        "ns_per_update": 1e9 * times.min() / updates,
        **sizes,
        "base_mb": base / 1e6,
        "compile_s": compile_s,
    }
    return row | (against_numpy(preset, steps, times / updates) if system == "dyna_q" else {})


def steps_until(train: Train, keys: jax.Array, episodes: int) -> int:
    """The fewest real steps by which every run has finished ``episodes`` episodes."""
    run = jax.jit(jax.vmap(train.init))(keys)
    piece = jax.jit(jax.vmap(lambda key, run, step: train.chunk(key, run, step, PIECE), in_axes=(0, 0, None)))
    ended = np.zeros((keys.shape[0], 0), bool)
    while ended.shape[1] < PATIENCE:
        run, metrics = piece(keys, run, jnp.asarray(ended.shape[1]))
        ended = np.concatenate([ended, np.asarray(metrics["episode_length"])[..., 0] > 0], axis=1)
        enough = (np.cumsum(ended, axis=1) >= episodes).all(axis=0)
        if enough.any():
            return 1 + int(np.argmax(enough))
    raise ValueError(f"episodes={episodes} were not finished by every run within {PATIENCE} steps")


def against_numpy(case: Case, steps: int, per_update: np.ndarray) -> dict[str, float]:
    """The NumPy loop on the same maze: ``steps`` real steps a run, ``planning_steps`` updates after each."""
    taken: list[float] = []
    while len(taken) < case.runs and (not taken or sum(taken) < case.numpy_seconds):
        start = time.perf_counter()
        dyna_q(len(taken), steps, case.planning_steps, resolution=case.resolution, alpha=SETTINGS["dyna_q"]["alpha"])
        taken.append(time.perf_counter() - start)
    loop = np.asarray(taken) / (steps * (1 + case.planning_steps))
    return {
        "numpy_runs": len(taken),
        "numpy_ns_per_update": 1e9 * loop.min(),
        "ratio": loop.min() / per_update.min(),
        "ratio_p50": np.median(loop) / np.median(per_update),
    }
