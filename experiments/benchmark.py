"""Every system on the 2019 benchmark's classic tasks, beside its published table.

Claim: the order of the published table stands: over the systems that are in both, our normalised scores and the
published ones correlate by rank (Spearman) with a 95 % interval above 0, although ours have had a tenth of its 200,000
steps or less. Source: Wang et al. 2019 (arXiv 1907.02057), tables 1 and 2. Control: against the published scores
shuffled among the systems (generator 0) the interval must include 0.
Scores are normalised by the published table (0: random actions, 1: its highest mean, see ``benchmark_rows``), so that
all tasks count the same; interquartile means with stratified bootstrap intervals, performance profiles and ranks
follow Agarwal et al. 2021. Each of ours is the mean return of test episodes without exploration after the last step;
planners are tested on few. The pendulum of this benchmark pays for hanging down.

Long: finished cells are kept, ``--only NAME`` runs one system's, ``--draw`` none; systems that have not run are named.
"""

import json
import sys
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from benchmark_rows import ELSEWHERE, HOURS, PUBLISHED, ROWS, SCALE, TASKS, Row

from jmbrl import stats

import common

SEEDS = 4
PROFILE = np.linspace(-0.2, 1.2, 57)


def cell_of(row: Row, task: str, quick: bool) -> tuple[dict[str, Any], Any]:
    """What decides a cell's numbers, and the run."""
    settings = common.settings_of(row.system, row.preset, dict(row.settings))
    steps, every, episodes = (row.steps, row.every, row.episodes) if not quick else (row.every, row.every, 2)
    seeds = 2 if quick else SEEDS
    size = {"env": f"wang/{task}", "steps": steps, "every": every, "episodes": episodes, "seeds": seeds, **settings}

    def run() -> dict[str, Any]:
        print(f"{row.system} on {task}: {steps} steps, {seeds} seeds side by side", flush=True)
        train = common.make_run(row.system, f"wang/{task}", settings, steps)
        # Chunks are whole phases; systems that learn at every step are looked at where the others are.
        return common.evaluated(train, seeds, max(every, train.period), episodes)

    return size, run


def borrowed(name: str, row: Row) -> dict[str, dict[str, Any]]:
    """Task -> a finished row of the experiment that ran this system; empty where it has not."""
    path = common.RESULTS / f"{row.source}.json"
    if not path.exists():
        return {}
    found = {r["setting"]: r for r in json.loads(path.read_text())["rows"] if r["arm"] == name}
    return {
        task: {"final": r["values"], "curve": None, "steps": row.steps, "wall_seconds": r["wall_seconds"]}
        for task, r in found.items()
    }


def ours(options: Any, only: str | None) -> dict[str, dict[str, dict[str, Any]]]:
    """System -> task -> its final scores; only what there is."""
    cells = common.Cells("benchmark", options.quick, options.fresh)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name, row in ROWS.items():
        if row.source is not None:
            found[name] = {} if options.quick else borrowed(name, row)
            continue
        for task in TASKS[:1] if options.quick else TASKS:
            size, run = cell_of(row, task, options.quick)
            kept = cells.cells.get(f"{task}/{name}")
            known = kept is not None and kept["settings"] == json.loads(json.dumps(size))
            if not known and (options.draw or only not in (None, name)):
                continue
            cell = cells.get(f"{task}/{name}", size, run)
            found.setdefault(name, {})[task] = {
                "final": [curve[-1] for curve in cell["returns"]],
                "curve": {"steps": cell["steps"], "returns": cell["returns"]},
                "steps": cell["steps"][-1],
                "wall_seconds": cell["wall_seconds"],
            }
    return {name: tasks for name, tasks in found.items() if tasks}


def normalised(task: str, values: Any) -> np.ndarray:
    low, high = SCALE[task]
    return (np.asarray(values, np.float64) - low) / (high - low)


def table(found: dict[str, dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row a task and system: ours with its interval beside the published mean and spread."""
    rows = []
    for name, tasks in found.items():
        for task, cell in tasks.items():
            published = PUBLISHED[name][TASKS.index(task)] if name in PUBLISHED else None
            more = {"published": published, "wall_seconds": cell["wall_seconds"], "curve": cell["curve"]}
            more |= {"model_based": ROWS[name].model_based, "env_steps": cell["steps"]}
            rows.append(common.row(task, name, cell["final"], f"mean return after {cell['steps']} steps", **more))
    return rows


def overall(found: dict[str, dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """A line a system that has all tasks: interquartile mean, rank, minutes beside published hours; best first."""
    whole = {name: tasks for name, tasks in found.items() if set(tasks) == set(TASKS)}
    means = np.asarray([[np.mean(tasks[task]["final"]) for task in TASKS] for tasks in whole.values()])
    lines = []
    for i, (name, tasks) in enumerate(whole.items()):
        scores = [normalised(task, tasks[task]["final"]) for task in TASKS]
        value, low, high = stats.stratified(scores)
        published = [normalised(task, mean) for task, (mean, _) in zip(TASKS, PUBLISHED.get(name, ()), strict=False)]
        lines.append(
            {
                "system": name,
                "env_steps": tasks[TASKS[0]]["steps"],
                "iqm": round(value, 3),
                "interval": [round(low, 3), round(high, 3)],
                "score": round(float(np.mean([np.mean(task) for task in scores])), 3),
                "mean_rank": float(np.mean(stats.ranks(means)[i])),
                "published_score": round(float(np.mean(published)), 3) if published else None,
                "minutes_a_seed": round(sum(t["wall_seconds"] for t in tasks.values()) / len(TASKS) / SEEDS / 60, 2),
                "published_hours": HOURS.get(name),
                "profile": stats.performance_profile(scores, PROFILE).round(3).tolist(),
            }
        )
    return sorted(lines, key=lambda line: -line["iqm"])


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """The correlation of ranks, 0 where one of them has a single rank."""
    a, b = (stats.ranks(x[:, None])[:, 0] for x in (a, b))
    return float(np.corrcoef(a, b)[0, 1]) if np.std(a) and np.std(b) else 0.0


def correlation(ours: np.ndarray, published: np.ndarray) -> tuple[float, float, float]:
    """Spearman's, and its interval from systems drawn again."""
    pairs = np.arange(len(ours), dtype=np.float64)
    again = lambda index: spearman(ours[index.astype(int)], published[index.astype(int)])  # noqa: E731
    return again(pairs), *stats.bootstrap(pairs, again, resamples=2000)


def verdict(lines: list[dict[str, Any]], missing: list[str]) -> dict[str, Any]:
    """Whether our scores and the published ones agree in order, and the shuffled ones do not."""
    both = [line for line in lines if line["published_score"] is not None]
    absent = f"not run yet: {', '.join(missing)}" if missing else "every system has run"
    if len(both) < 4:
        return {"holds": False, "why": f"{len(both)} systems are in both tables, too few for an order; {absent}"}
    score, published = (np.asarray([line[name] for line in both]) for name in ("score", "published_score"))
    value, low, high = correlation(score, published)
    dealt, *control = correlation(score, published[np.random.default_rng(0).permutation(len(published))])
    checks = [
        (low > 0, f"rank correlation of {len(both)} systems: {value:.2f} [{low:.2f}, {high:.2f}]: {_yes(low > 0)}"),
        (
            control[0] <= 0,
            f"control, should not: the published scores shuffled, {dealt:.2f} "
            f"[{control[0]:.2f}, {control[1]:.2f}], above 0: {_yes(control[0] > 0)}",
        ),
        (not missing, absent),
    ]
    return common.agreement(checks)


def _yes(answer: bool) -> str:
    return "yes" if answer else "no"


def figure(rows: list[dict[str, Any]], lines: list[dict[str, Any]], path: str) -> None:
    """Scores by system, ours beside the published, the profiles, and score against published score."""
    fig, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.2), constrained_layout=True)
    names = [line["system"] for line in lines]
    for i, line in enumerate(lines):
        low, high = line["interval"]
        left.plot([low, high], [i, i], color="C0", lw=2)
        left.plot(line["iqm"], i, "s", color="C0", label="ours, interquartile mean" if not i else None)
        if line["published_score"] is not None:
            left.plot(line["published_score"], i, "k|", ms=10, label="published, mean" if not i else None)
    left.set_yticks(range(len(names)), [f"{line['system']} ({line['env_steps'] // 1000}k)" for line in lines])
    left.invert_yaxis()
    left.set(xlabel="normalised score", title=f"{len(TASKS)} classic tasks, {SEEDS} seeds")
    left.legend(fontsize=7)
    for i, line in enumerate(lines):
        middle.plot(PROFILE, line["profile"], color=f"C{i % 10}", ls="-" if i < 10 else "--", label=line["system"])
    middle.set(xlabel="normalised score", ylabel="share of runs above it", title="performance profiles")
    middle.legend(fontsize=6, ncols=2)
    for line in lines:
        if line["published_score"] is not None:
            right.plot(line["published_score"], line["score"], "o", color="C0")
            right.annotate(line["system"], (line["published_score"], line["score"]), fontsize=7)
    ends = [-0.2, 1.0]
    right.plot(ends, ends, color="C7", lw=0.5)
    right.set(xlabel="published score, 200k steps", ylabel="our score", title="the same order?")
    fig.savefig(path, dpi=110)
    plt.close(fig)


def main() -> None:
    only = sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else None
    if only is not None and only not in ROWS:
        sys.exit(f"--only must be one of {', '.join(ROWS)}, got {only}")
    if only is not None:
        sys.argv = [word for word in sys.argv if word not in ("--only", only)]
    options = common.arguments(__doc__.splitlines()[0], draw="run nothing: the table and figure of what is finished")
    found = ours(options, only)
    rows, lines = table(found), overall(found)
    missing = [name for name in ROWS if set(found.get(name, {})) != set(TASKS)]
    result = {
        "claim": "after a tenth of the steps or less our systems stand in the published table's order",
        "source": "Wang et al. 2019 (arXiv 1907.02057), tables 1 and 2; scores and intervals after Agarwal et al. 2021",
        "setting": f"{SEEDS} seeds side by side on two CPU cores; networks and populations sized for these; 0 is the "
        "published random row and 1 the highest published mean of a task; published hours are of six other tasks",
        "rows": rows,
        "overall": lines,
        "missing": missing,
        "elsewhere": ELSEWHERE,
        "verdict": verdict(lines, missing),
    }
    figure(rows, lines, str(common.write("benchmark", options.quick, result).with_suffix(".png")))


if __name__ == "__main__":
    main()
