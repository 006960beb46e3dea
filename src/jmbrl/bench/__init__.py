"""Speed and memory, measured against something in the same process: ``jmbrl bench NAME``, one JSON line a row."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from jmbrl import checks
from jmbrl.bench.bptt import WORK as BPTT_WORK
from jmbrl.bench.bptt import bptt
from jmbrl.bench.dreamer import ON_TWO_CORES, dreamer
from jmbrl.bench.dreamer import WORK as DREAMER_WORK
from jmbrl.bench.mbpo import mbpo
from jmbrl.bench.mbpo_work import WORK, Work
from jmbrl.bench.measure import matmul_rate, numpy_matmul_rate
from jmbrl.bench.models import fit, planning
from jmbrl.bench.problem import MODELS, PLANNERS, PRESETS, Preset
from jmbrl.bench.scale import scale
from jmbrl.bench.search import WORK as SEARCH_WORK
from jmbrl.bench.search import search_bench
from jmbrl.bench.seeds import seeds
from jmbrl.bench.tabular import CASES, Case, tabular
from jmbrl.bench.world_models import world_models
from jmbrl.bench.world_models_work import WORK as WORLD_MODELS_WORK

__all__ = [
    "BPTT_WORK",
    "CASES",
    "DREAMER_WORK",
    "MODELS",
    "PLANNERS",
    "PRESETS",
    "SEARCH_WORK",
    "WORK",
    "WORLD_MODELS_WORK",
    "Case",
    "Preset",
    "Work",
    "bptt",
    "dreamer",
    "fit",
    "matmul_rate",
    "mbpo",
    "numpy_matmul_rate",
    "planning",
    "run",
    "scale",
    "search_bench",
    "seeds",
    "tabular",
    "world_models",
]

SWEEP_REPEATS = 5
BENCHMARKS = {
    "planning": planning, "fit": fit, "seeds": seeds, "tabular": tabular, "mbpo": mbpo, "world_models": world_models,
    "dreamer": dreamer, "bptt": bptt, "search": search_bench,
    "scale": scale,
}  # fmt: skip
TABLES = {  # the others': PRESETS
    "tabular": CASES, "mbpo": WORK, "world_models": WORLD_MODELS_WORK, "dreamer": DREAMER_WORK,
    "bptt": BPTT_WORK, "search": SEARCH_WORK,
}  # fmt: skip
UNASKED = {"dreamer": ON_TWO_CORES}  # presets that run where none is named; the others': all
# Presets of several rows: which option of ``planning`` each row has another value of.
SWEEPS = {"planners": ("planner", PLANNERS), "models": ("model", MODELS)}


def run(name: str, *, fresh: bool = True, **options: Any) -> Iterator[dict[str, Any]]:
    """Rows of the benchmark ``name``: ``"planning"``, ``"fit"``, ``"seeds"``, ``"tabular"``, ``"mbpo"``,
    ``"world_models"``, ``"dreamer"``, ``"bptt"``, ``"search"`` or ``"scale"``.

    Args:
      name: which one.
      fresh: make each row in a process of its own, so that its ``peak_mb`` is its own, where there are several.
      options: ``preset`` (one name; all by default, of dreamer those for two cores), ``repeats`` (timed calls, 10; 5 in
        a preset of several rows; of mbpo and world_models as they say) and any field of ``Preset``, for tabular of
        ``Case``, for mbpo, world_models, dreamer, bptt and search of their ``Work``; for planning ``propagation``
        (``"ts1"``), ``planner`` and ``model`` (names in ``PLANNERS``, ``MODELS``): the preset ``planners`` has a row
        for each of the former, ``models`` for the latter; for fit ``batch_size`` (256), ``rows`` (10000) and
        ``epochs`` (5); for seeds and scale those of ``bench.seeds`` and ``bench.scale``.

    Raises:
      ValueError: an unknown name, preset or option.
      RuntimeError: a row's process failed.
    """
    checks.choice("name", name, tuple(BENCHMARKS))
    if name in ("seeds", "scale"):
        found = _called(name, options)
        yield from ({"bench": name, **row} for row in ([found] if isinstance(found, dict) else found))
        return
    wanted = [made for preset in _presets(name, options) for made in _rows(name, preset, options)]
    alone = len(wanted) == 1 or not fresh
    for row in wanted:
        yield _here(name, **row) if alone else _elsewhere(name, row)


def _presets(name: str, options: dict[str, Any]) -> tuple[str, ...]:
    known = tuple(preset for preset in _table(name) if name == "planning" or preset not in SWEEPS)
    return (checks.choice("preset", options["preset"], known),) if "preset" in options else UNASKED.get(name, known)


def _table(name: str) -> dict[str, Any]:
    return TABLES.get(name, PRESETS)


def _rows(name: str, preset: str, options: dict[str, Any]) -> list[dict[str, Any]]:
    """The options of each row of a preset; one that names its planner (or model) is one row."""
    option, values = SWEEPS.get(preset, ("", ()))
    if name != "planning" or not option or option in options:
        return [{**options, "preset": preset}]
    return [{"repeats": SWEEP_REPEATS, **options, "preset": preset, option: value} for value in values]


def _here(name: str, preset: str, **options: Any) -> dict[str, Any]:
    chosen = _table(name)[preset]
    changes = {key: options.pop(key) for key in tuple(options) if key in chosen._fields}
    row = _called(name, {"preset": chosen._replace(**changes), **options})
    return {"bench": name, "preset": preset, **row}


def _elsewhere(name: str, options: dict[str, Any]) -> dict[str, Any]:
    settings = [text for key, value in options.items() for text in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "jmbrl", "bench", name, *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 2:
        raise ValueError(done.stderr.strip().removeprefix("error: "))
    if done.returncode:
        raise RuntimeError(f"bench {name} {' '.join(settings[1::2])} failed: {done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout)


def _called(name: str, options: dict[str, Any]) -> Any:
    try:
        return BENCHMARKS[name](**options)
    except TypeError as error:
        raise ValueError(f"options of bench {name}: {error}") from None
