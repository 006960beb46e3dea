"""What experiments on learning curves share: evaluated curves, their rows, bars to reach, the figure.

A run is evaluated without exploration every so many steps. An arm is worth, for each seed, the mean of the evaluations
of the budget's last steps: the end of the untouched curve. When it first reached a bar, and its best evaluation (the
end of a running maximum), stand beside that.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np

from jmbrl import envs, stats
from jmbrl.train import Train
from jmbrl.types import Env

import common


class Task(NamedTuple):
    """``steps``: the budget; ``every``: steps between evaluations of ``episodes``; ``tail``: the last steps, whose
    evaluations count; ``bar``: the return to reach; ``flicker``: how likely an observation is lost."""

    env: str
    options: dict[str, Any]
    steps: int
    every: int
    episodes: int
    seeds: int
    tail: int = 3_000
    bar: float | None = None
    flicker: float = 0.0


class Arm(NamedTuple):
    """A system on a task; ``steps`` and ``every`` where they are not the task's; ``frames``: observations stacked."""

    task: str
    name: str
    system: str
    preset: str | None = None
    changes: Mapping[str, Any] = MappingProxyType({})
    steps: int | None = None
    every: int | None = None
    num_envs: int = 1
    frames: int = 1


RANDOM_EPISODES = 100
QUICK_PLANS = {"updates": 5, "population": 20, "elites": 4, "iterations": 2}
QUICK = {"steps": 640, "every": 200, "episodes": 2, "seeds": 1}


def world(task: Task, frames: int = 1) -> Env:
    env = envs.make(task.env, **task.options)
    env = envs.flickering(env, task.flicker) if task.flicker else env
    return envs.frame_stack(env, frames) if frames > 1 else env


def whole_turns(train: Train, every: int) -> tuple[Train, int]:
    """The run ended, and evaluated, after whole periods of learning: what would be left over were another program."""
    every = max(every // train.period, 1) * train.period
    turns = max((train.steps - train.warmup) // every, 1)
    return dataclasses.replace(train, steps=train.agent.warmup + turns * every), every


def curves(cells: common.Cells, tasks: dict[str, Task], arm: Arm, quick: bool) -> dict[str, Any]:
    """The evaluated learning curves of an arm, its seeds side by side: one cell."""
    task = tasks[arm.task]._replace(**QUICK) if quick else tasks[arm.task]
    steps, every = (task.steps, task.every) if quick else (arm.steps or task.steps, arm.every or task.every)
    episodes = task.episodes if quick or arm.system != "random" else RANDOM_EPISODES
    faster = QUICK_PLANS if quick and arm.system == "planet" else {}
    settings = common.settings_of(arm.system, arm.preset, {**arm.changes, **faster})

    def compute() -> dict[str, Any]:
        print(f"{arm.task}/{arm.name}: up to {steps} steps, {task.seeds} seeds side by side", flush=True)
        train = common.make_run(arm.system, world(task, arm.frames), settings, steps, arm.num_envs)
        train, turn = whole_turns(train, every)
        if arm.system == "random":  # learns nothing: one evaluation
            train = dataclasses.replace(train, steps=turn)
        found = common.evaluated(train, task.seeds, turn, episodes)
        print(f"{arm.task}/{arm.name}: {found['seconds'][-1]} s of training", flush=True)
        return found

    wanted = {
        **task._replace(bar=None, tail=0)._asdict(), **arm._asdict(), "steps": steps, "every": every,
        "episodes": episodes, "changes": None, "settings": settings,
    }  # fmt: skip
    return cells.get(f"{arm.task}/{arm.name}", wanted, compute)


def rows_of(cells: common.Cells, tasks: dict[str, Task], arms: tuple[Arm, ...], quick: bool) -> list[dict[str, Any]]:
    """Of each arm its worth at the task's budget and, where it ran longer, at its own end; then steps to the bar."""
    rows, reached = [], []
    for arm in arms:
        task, cell = tasks[arm.task], curves(cells, tasks, arm, quick)
        # A run of one evaluation only may lie beyond the budget: a batch that is longer than a quick run.
        budget = max(task.steps, cell["steps"][0])
        rows.append(_row(task, arm, arm.name, cell, budget))
        if (arm.steps or 0) > task.steps and not quick:
            rows.append(_row(task, arm, f"{arm.name}, {arm.steps:,} steps", cell, cell["steps"][-1]))
        if task.bar is not None and arm.system != "random":
            first = [step if step <= budget else np.nan for step in common.first_reached(cell, task.bar)]
            metric = f"environment steps to a mean return of {task.bar:g} (never: {task.steps})"
            steps = np.where(np.isnan(first), task.steps, first)
            count = int(np.sum(~np.isnan(first)))
            reached.append(common.row(to_bar(arm.task), arm.name, steps, metric, np.median, reached=count))
    return rows + reached


def to_bar(task: str) -> str:
    return f"{task}: steps to the bar"


def _row(task: Task, arm: Arm, name: str, cell: dict[str, Any], budget: int) -> dict[str, Any]:
    steps = np.asarray([step for step in cell["steps"] if step <= budget])
    returns = np.asarray(cell["returns"])[:, : len(steps)]
    late = steps > steps[-1] - task.tail
    metric = f"mean return of {cell['settings']['episodes']} episodes, last {int(np.sum(late))} evaluations"
    return common.row(
        arm.task,
        name,
        np.mean(returns[:, late], axis=1),
        metric,
        np.median,
        best=np.max(returns, axis=1).tolist(),
        seconds=cell["seconds"][len(steps) - 1],
        curve_of=arm.name,
        steps=steps.tolist(),
        returns=returns.tolist(),
        settings=cell["settings"],
    )


def better(setting: str, arm: str, than: str, expected: bool = True) -> common.Compare:
    """Higher returns; seeds of different arms have nothing in common."""
    return common.Compare(setting, arm, than, expected, lower_is_better=False, paired=False)


def at_bar(rows: list[dict[str, Any]], task: str, arm: str, bar: float | None) -> tuple[bool, str]:
    """Whether the median seed ends at the bar; and, beside it, how many seeds ever were there."""
    assert bar is not None
    row = next(r for r in rows if (r["setting"], r["arm"]) == (task, arm))
    seen = next(r for r in rows if (r["setting"], r["arm"]) == (to_bar(task), arm))
    fits = row["median"] >= bar
    when = f"median after {seen['median']:g} steps, never: {seen['metric'].rpartition(' ')[2]}"
    text = f"{task}: {arm} ends at {row['median']:.4g}, bar {bar:g}; "
    return fits, text + f"{seen['reached']} of {seen['seeds']} seeds reached it ({when}: {'yes' if fits else 'no'}"


def two_sided(rows: list[dict[str, Any]], pairs: list[tuple[str, str, str]]) -> dict[str, Any]:
    """Differences that nobody claims, reported with their intervals: part of a verdict's words, never of what holds."""
    table, why = {(r["setting"], r["arm"]): np.asarray(r["values"]) for r in rows}, []
    for setting, a, b in pairs:
        gain, low, high = stats.difference(table[setting, a], table[setting, b])
        words = "told apart" if low > 0 or high < 0 else "not told apart"
        why.append(f"{setting}: two-sided: {a} less {b}: {gain:.4g} [{low:.4g}, {high:.4g}], {words}")
    return {"holds": True, "why": "; ".join(why)}


def figure(rows: list[dict[str, Any]], tasks: dict[str, Task], path: str, log: bool = False) -> None:
    """A panel a task: every seed's untouched curve, thin, and their median."""
    size = (5.6 * len(tasks), 4.0)
    fig, axes = plt.subplots(1, len(tasks), figsize=size, squeeze=False, constrained_layout=True)
    for axis, (name, task) in zip(axes[0], tasks.items(), strict=True):
        longest = {r["curve_of"]: r for r in rows if r["setting"] == name}  # the last row of an arm is its longest
        for i, (arm, r) in enumerate(longest.items()):
            if r["settings"]["system"] == "random":
                axis.axhline(r["median"], color="C7", ls=":", label=arm)
                continue
            for seed in r["returns"]:
                axis.plot(r["steps"], seed, color=f"C{i % 10}", alpha=0.25, lw=0.8)
            style = {"color": f"C{i % 10}", "ls": "-" if i < 10 else "-.", "lw": 2}
            axis.plot(r["steps"], np.median(r["returns"], axis=0), label=arm, **style)
        if task.bar is not None:
            axis.axhline(task.bar, color="k", lw=0.8, ls="--", label=f"bar, {task.bar:g}")
        axis.set(title=name, xlabel="environment steps", ylabel="return (no exploration)")
        axis.set_xscale("log" if log else "linear")
        axis.legend(fontsize=7)
    fig.savefig(path, dpi=110)
    plt.close(fig)
