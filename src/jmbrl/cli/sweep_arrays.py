"""``jmbrl sweep --array rate=1e-3,3e-4``: values that are numbers inside the program, each a lane of one program.

A lane is a seed with its values. All lanes are trained side by side, spread over the devices as seeds are; each cell
gets the directory that a run of its own would have left, but for checkpoints: a cell is finished, or not begun.
"""

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks, configs, devices, policy, progress, records, writers
from jmbrl.stages import make_run
from jmbrl.types import PyTree

CHUNKS = 20  # looks at a run


class Cell:
    """One combination of values: its configuration, its directory, its rows.

    Args:
      config: as a run of its own would have.
      values: ``{setting: number}`` of the arrays.
      directory: of the cell.
    """

    def __init__(self, config: dict[str, Any], values: dict[str, float], directory: Path):
        self.config, self.values, self.directory = config, values, directory
        self.rows: list[records.Row] = []
        self.diverged: dict[int, str] = {}
        self.seeds = [config["seed"] + i for i in range(config["seeds"])]

    def begin(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "metrics.jsonl").unlink(missing_ok=True)
        writers.write_json(self.directory / "config.json", self.config)

    def write(self, metrics: dict[str, np.ndarray], start: int, end: int) -> None:
        rows = records.chunk_rows(metrics, self.seeds, start, end)
        writer = writers.JsonLines(self.directory / "metrics.jsonl")
        writer.write(rows)
        writer.close()
        self.rows += rows
        self.diverged = records.broken(metrics, self.seeds) | self.diverged

    def finish(self, train: Any, runs: PyTree, spent: dict[str, float]) -> None:
        from jmbrl.diagnostics import figures

        policy.export(self.directory, train, (runs,), self.seeds, self.config["steps"])
        title = f"{self.config['system']} on {self.config['env']}"
        figures.save(figures.learning_curve(self.rows, title), self.directory / "learning_curve.png")
        facts = {name: self.config[name] for name in ("system", "env", "steps")}
        told = {"seeds": self.seeds, "env_steps": self.config["steps"], "ended": "finished", "diverged": self.diverged}
        writers.write_json(
            self.directory / "summary.json", {**facts, **told, **records.summarise(self.rows, self.seeds), **spent}
        )


def cell_of(config: dict[str, Any], chosen: dict[str, str], directory: Path) -> Cell:
    """A cell of arrays.

    Raises:
      ValueError: a value that is no real number in the configuration.
    """
    values = {}
    for name, text in chosen.items():
        found: Any = config["config"]
        for part in name.split("."):
            found = found[part]
        if not isinstance(found, float):
            raise ValueError(f"array {name} must be of real numbers, got {text}: give it by --set, a process a value")
        values[name] = found
    return Cell(config, values, directory)


def train_cells(cells: list[Cell], quiet: bool = False) -> None:
    """Train all of them, side by side.

    Args:
      cells: they differ in their values alone.

    Raises:
      ValueError: an environment on the host or a system of stages; a setting that decides the program's shape.
    """
    config = cells[0].config
    build = _builder(config)
    first = build(cells[0].values)
    if first.alone:
        raise ValueError(f"array needs runs side by side; {first.env.spec.name} with this system has none: use --set")
    lanes, count = _lanes(cells), len(cells) * config["seeds"]
    mesh = devices.mesh(count)
    lanes = devices.place(lanes, mesh)
    spread = functools.partial(devices.over_seeds, seeds=count, mesh=mesh)
    display = progress.make(quiet)
    began, programs, spent = time.perf_counter(), {}, {"compile_seconds": 0.0}

    def compiled(name: tuple, function: Callable, *arguments: Any, donate: tuple[int, ...] = ()) -> Callable:
        if name not in programs:
            display.phase(f"compiling {len(cells)} cells of {config['seeds']} seeds")
            start = time.perf_counter()
            lowered = _traced(cells[0], lambda: jax.jit(spread(function), donate_argnums=donate).lower(*arguments))
            programs[name] = lowered.compile()
            spent["compile_seconds"] += time.perf_counter() - start
        return programs[name]

    try:
        display.start(config["steps"], 0)
        runs = compiled(("init",), lambda lane: build(lane[1]).init(lane[0]), lanes)(lanes)
        for cell in cells:
            cell.begin()
        for span in first.spans(max(1, config["steps"] // CHUNKS // first.period)):

            def chunk(lane: tuple, run: PyTree, step: Any, span: Any = span) -> tuple:
                return build(lane[1]).chunk(lane[0], run, step, span.length, span.warmup)

            program = compiled((span.length, span.warmup), chunk, lanes, runs, np.int32(span.start), donate=(1,))
            runs, metrics = program(lanes, runs, np.int32(span.start))
            metrics = devices.to_host(metrics)
            for i, cell in enumerate(cells):
                cell.write(_of(metrics, i, config["seeds"]), span.start, span.start + span.length)
            display.update(span.start + span.length, {})
    finally:
        display.close()
    spent["wall_seconds"] = time.perf_counter() - began
    for i, cell in enumerate(cells):
        cell.finish(build(cell.values), _of(runs, i, config["seeds"]), spent)
        for seed, why in cell.diverged.items():
            print(f"{cell.directory.name}: seed {seed} diverged: {why}", file=sys.stderr)


def finished(cell: Cell) -> bool:
    """Whether its directory holds all of it."""
    path = cell.directory / "summary.json"
    if not path.exists():
        return False
    same = configs.identity(configs.read(cell.directory)) == configs.identity(cell.config)
    summary = json.loads(path.read_text())
    return same and summary["ended"] == "finished" and summary["env_steps"] == cell.config["steps"]


def _builder(config: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    """``values -> train``: the run of these values, which may be traced."""
    settings, page = configs.settings_of(config), configs.find_system(config["system"])
    plain = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    env = configs.make_env(config)

    def build(values: dict[str, Any]) -> Any:
        made = configs.make_config(page.config, {**plain, **values})
        return make_run(env, page.make(env, made), config["steps"], config["num_envs"])

    return build


def _lanes(cells: list[Cell]) -> tuple[Any, dict[str, Any]]:
    """Keys ``[cells * seeds]`` and the values of each, cell after cell."""
    keys = jnp.stack([checks.key(seed) for cell in cells for seed in cell.seeds])
    each = [cell.values for cell in cells for _ in cell.seeds]
    return keys, {name: jnp.asarray([values[name] for values in each], jnp.float32) for name in each[0]}


def _of(tree: PyTree, i: int, seeds: int) -> PyTree:
    return jax.tree.map(lambda x: x[i * seeds : (i + 1) * seeds], tree)


def _traced(cell: Cell, lower: Callable) -> Any:
    try:
        return lower()
    except (jax.errors.ConcretizationTypeError, TypeError) as error:
        raise ValueError(
            f"array of {', '.join(cell.values)}: this system wants to know such a value before it compiles "
            f"({str(error).splitlines()[0]}); give it by --set, a process a value"
        ) from error
