"""What the experiments on the 2019 benchmark's classic tasks share: runs, the table's bars, verdicts, the figure."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import matplotlib.pyplot as plt
import numpy as np
from benchmark_rows import PUBLISHED, TASKS

from jmbrl import agents
from jmbrl.rollout import evaluate

import common

EPISODES = 20
SOURCE = "Wang et al. 2019 (arXiv 1907.02057), table 1: mean less spread of each cell"


class Budget(NamedTuple):
    """Environment steps, and whether seeds run side by side in one program."""

    steps: int
    together: bool = True


class Benchmark(NamedTuple):
    """``systems`` and those in ``shown`` with their published bar, ``beside``: systems that need not reach one.
    ``budgets``: of systems that have another."""

    name: str
    systems: tuple[str, ...]
    beside: tuple[str, ...]
    budget: Budget
    seeds: int = 4
    budgets: Mapping[str, Budget] = {}
    shown: tuple[str, ...] = ()

    def bar(self, system: str, task: str) -> float | None:
        """The published mean less its spread."""
        if system not in ("random", *self.systems, *self.shown):
            return None
        mean, spread = PUBLISHED[system][TASKS.index(task)]
        return round(mean - spread, 1)


def settings_of(system: str, task: str) -> dict[str, Any]:
    """The system's ``wang`` preset, or the task's own where it has one."""
    presets = agents.PRESETS.get(system, {})
    name = f"wang_{task}" if f"wang_{task}" in presets else "wang" if "wang" in presets else None
    return common.settings_of(system, name, {})


def scores(system: str, task: str, settings: dict[str, Any], budget: Budget, seeds: int) -> dict[str, Any]:
    """Per seed, the mean return of the final policy's episodes, and the curve of the training episodes."""
    train = common.make_run(system, f"wang/{task}", settings, budget.steps)

    def run(key: jax.Array) -> tuple:
        state, history = train(key)
        final = evaluate(jax.random.fold_in(key, 2**30), train.env, train.agent, state.agent, EPISODES)["returns"]
        return jax.numpy.mean(final), history["episode_return"], history["episode_length"]

    keys = jax.vmap(jax.random.key)(np.arange(seeds))
    if budget.together:
        found = jax.device_get(jax.jit(jax.vmap(run))(keys))
    else:
        alone = jax.jit(run)
        found = jax.tree.map(lambda *x: np.stack(x), *[jax.device_get(alone(key)) for key in keys])
    final, returns, lengths = found
    curves = [r[n > 0].round(1).tolist() for r, n in zip(returns, lengths, strict=True)]
    return {"final": [float(x) for x in final], "training_episodes": curves}


def rows_of(cells: common.Cells, benchmark: Benchmark, quick: bool) -> list[dict[str, Any]]:
    """A row a task and system, random actions first."""
    rows, seeds = [], 1 if quick else benchmark.seeds
    for task in TASKS:
        for system in ("random", *benchmark.systems, *benchmark.beside):
            settings = {} if system == "random" else settings_of(system, task)
            budget = benchmark.budgets.get(system, benchmark.budget)
            budget = budget._replace(steps=min(budget.steps, 6_000)) if quick else budget
            wanted = {"env": f"wang/{task}", "system": system, "steps": budget.steps, "seeds": seeds, **settings}
            run = functools.partial(scores, system, task, settings, budget, seeds)
            cell = cells.get(f"{task}/{system}", wanted, run)
            more = {"bar": benchmark.bar(system, task), "wall_seconds": cell["wall_seconds"], "settings": settings}
            metric = f"mean return of {EPISODES} episodes after {budget.steps} steps"
            rows.append(common.row(task, system, cell["final"], metric, **more, returns=cell["training_episodes"]))
    return rows


def verdict(benchmark: Benchmark, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Systems reach their bars; random actions miss a task's lowest, unless the table's own random row does not."""
    checks = []
    for r in rows:
        if r["arm"] in benchmark.beside:
            continue
        lowest = min(benchmark.bar(system, r["setting"]) or 0.0 for system in benchmark.systems)
        least = lowest if r["arm"] == "random" else r["bar"]
        good = r["mean"] >= least
        if r["arm"] == "random":
            expected = PUBLISHED["random"][TASKS.index(r["setting"])][0] >= least
            words = f"{r['setting']}: random {r['mean']:.1f} at the lowest bar {least:.1f} (control)"
            checks.append((good == expected, f"{words}: {'yes' if good else 'no'}"))
            continue
        words = f"{r['setting']}: {r['arm']} {r['mean']:.1f}, wanted {least:.1f}"
        checks.append((good, f"{words}: {'yes' if good else 'no'}"))
    return common.agreement(checks)


def figure(rows: list[dict[str, Any]], path: str) -> None:
    """Every seed as a dot, the mean as a square, the bar as a line, a panel a task."""
    fig, axes = plt.subplots(1, len(TASKS), figsize=(4 * len(TASKS), 3.6), constrained_layout=True)
    for axis, task in zip(axes, TASKS, strict=True):
        here = [r for r in rows if r["setting"] == task]
        for i, r in enumerate(here):
            axis.plot([i] * len(r["values"]), r["values"], "o", color="C7", ms=3)
            axis.plot(i, r["mean"], "s", color="C0")
            if r["bar"] is not None:
                label = "published, mean - spread" if not i else None
                axis.plot([i - 0.4, i + 0.4], [r["bar"]] * 2, "k--", lw=1, label=label)
        axis.set_xticks(range(len(here)), [r["arm"] for r in here], rotation=30, ha="right", fontsize=8)
        axis.set(title=f"wang/{task}", ylabel="return")
    axes[0].legend(fontsize=7)
    fig.savefig(path, dpi=110)
    plt.close(fig)


def publish(benchmark: Benchmark, description: str, claim: str, setting: str) -> None:
    """The whole experiment, from the command line."""
    options = common.arguments(description)
    cells = common.Cells(benchmark.name, options.quick, options.fresh)
    rows = rows_of(cells, benchmark, options.quick)
    result = {"claim": claim, "source": SOURCE, "setting": setting, "rows": rows, "verdict": verdict(benchmark, rows)}
    path = common.write(benchmark.name, options.quick, result)
    figure(rows, str(path.with_suffix(".png")))
