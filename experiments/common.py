"""What every experiment shares: finished cells that are kept, curves of one run, the result file."""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jmbrl import agents, envs
from jmbrl.cache import enable as enable_cache
from jmbrl.train import Train, make_train

RESULTS = Path(__file__).parent / "results"


def arguments(description: str) -> argparse.Namespace:
    """``--quick``: one seed and short runs, written beside the real result; ``--fresh``: forget finished cells."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="minutes, one seed; results/NAME.quick.json")
    parser.add_argument("--fresh", action="store_true", help="run finished cells again")
    enable_cache()
    return parser.parse_args()


class Cells:
    """Finished cells of an experiment, written after each so that an interrupted run continues.

    A cell is looked up by its name and its settings: changed settings run again.
    """

    def __init__(self, name: str, quick: bool, fresh: bool):
        RESULTS.mkdir(exist_ok=True)
        self.path = RESULTS / f"{name}{'.quick' if quick else ''}.cells.json"
        self.cells = json.loads(self.path.read_text()) if self.path.exists() and not fresh else {}

    def get(self, name: str, settings: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        settings = json.loads(json.dumps(settings))
        found = self.cells.get(name)
        if found is not None and found["settings"] == settings:
            print(f"{name}: kept", flush=True)
            return found
        began = time.perf_counter()
        self.cells[name] = {"settings": settings, **compute(), "wall_seconds": round(time.perf_counter() - began, 1)}
        partial = self.path.with_suffix(".tmp")
        partial.write_text(json.dumps(self.cells, indent=1))
        partial.replace(self.path)
        print(f"{name}: {self.cells[name]['wall_seconds']} s", flush=True)
        return self.cells[name]


def settings_of(system: str, preset: str | None, overrides: dict[str, Any]) -> dict[str, Any]:
    """A system's settings: its preset's, then ``overrides``."""
    return {**(agents.PRESETS[system][preset] if preset else {}), **overrides}


def make_run(system: str, env: str, settings: dict[str, Any], steps: int, **env_options: Any) -> Train:
    """``make_train`` of a named system with settings."""
    page = agents.SYSTEMS[system]
    world = page.wrap(envs.make(env, **env_options))
    return make_train(world, page.make(world, page.config(**settings)), steps)


def episode_returns(train: Train, chunk: Callable, seed: int) -> dict[str, list]:
    """Returns and lengths of a run's episodes in the order they ended, the random ones of the warm-up included."""
    key = jax.random.key(seed)
    run = jax.jit(train.init)(key)
    returns, lengths = [], []
    for span in train.spans():
        run, metrics = chunk(key, run, np.int32(span.start), span.length, span.warmup)
        done = np.asarray(metrics["episode_length"]) > 0
        returns += np.asarray(metrics["episode_return"])[done].tolist()
        lengths += np.asarray(metrics["episode_length"])[done].tolist()
    return {"returns": [round(x, 3) for x in returns], "lengths": lengths}


def compiled_chunk(train: Train) -> Callable:
    """``train.chunk`` jitted once for all seeds of a cell row."""
    return jax.jit(train.chunk, static_argnums=(3, 4), donate_argnums=1)


def write(name: str, quick: bool, result: dict[str, Any]) -> Path:
    """``results/NAME.json``, printed as well."""
    path = RESULTS / f"{name}{'.quick' if quick else ''}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["verdict"], indent=1))
    print(path.relative_to(RESULTS.parent.parent))
    return path
