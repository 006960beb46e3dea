"""The benchmark's conclusion: models need fewer interactions, and end below model-free learning. Two computed verdicts.

Made from the finished rows of ``benchmark.py``; runs nothing. Scores are normalised as there. Fixed before the rows:
(1) fewer interactions: at the number of steps that a model-based system was given, its score less that of the
model-free system that is best by then (SAC, PPO or TRPO, at its last test) is positive in the mean over systems and
tasks, with a 95 % interval from systems drawn again above 0. Control: random actions in the place of a model-based
system, which must not be above.
(2) lower in the end, usually: of all pairs of a model-based system and a task, in more than half the system's last
score is below the best model-free system's last one, with an interval from systems drawn again above one half.
Source: Wang et al. 2019 (arXiv 1907.02057), section 5; Nagabandi et al. 2018.
"""

import json
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from benchmark import normalised
from benchmark_rows import TASKS

from jmbrl import stats

import common

Rows = dict[tuple[str, str], dict[str, Any]]


def by(row: dict[str, Any], steps: int) -> float | None:
    """The mean normalised score at the last test within ``steps``; None before the first one."""
    if row["env_steps"] <= steps:
        return float(np.mean(normalised(row["setting"], row["values"])))
    curve = row["curve"] or {"steps": []}
    within = [i for i, at in enumerate(curve["steps"]) if at <= steps]
    return float(np.mean(normalised(row["setting"], [r[within[-1]] for r in curve["returns"]]))) if within else None


def best_free(rows: Rows, task: str, steps: int) -> float | None:
    """The best model-free system's score within ``steps``."""
    free = [by(r, steps) for (where, arm), r in rows.items() if where == task and not r["model_based"]]
    return max((score for score in free if score is not None), default=None)


def gains(rows: Rows, system: str, whole: bool) -> list[float]:
    """Per task, the system's last score less the best model-free one: within its steps, or the whole runs'."""
    out = []
    for task in TASKS:
        if (task, system) in rows:
            row = rows[task, system]
            free = best_free(rows, task, 10**9 if whole else row["env_steps"])
            if free is not None:
                out.append(by(row, row["env_steps"]) - free)
    return out


def verdict(rows: Rows, systems: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two claims; ``gains`` of each system beside them."""
    early = {name: gains(rows, name, whole=False) for name in systems}
    late = {name: gains(rows, name, whole=True) for name in systems}
    numbered = np.arange(len(systems), dtype=np.float64)

    def over(found: dict[str, list[float]], statistic: Any) -> tuple[float, float, float]:
        again = lambda index: statistic(np.concatenate([found[systems[int(i)]] for i in index]))  # noqa: E731
        return again(numbered), *stats.bootstrap(numbered, again, resamples=2000)

    gain, low, high = over(early, np.mean)
    share, least, most = over(late, lambda x: float(np.mean(x < 0)))
    chance = float(np.mean(gains(rows, "random", whole=False)))
    yes = lambda answer: "yes" if answer else "no"  # noqa: E731
    checks = [
        (
            low > 0,
            f"fewer interactions: {gain:.3f} [{low:.3f}, {high:.3f}] above the best model-free system: {yes(low > 0)}",
        ),
        (chance < 0, f"control, should be below: random actions {chance:.3f}: {yes(chance < 0)}"),
        (
            least > 0.5,
            f"lower in the end: {share:.0%} [{least:.0%}, {most:.0%}] of {sum(map(len, late.values()))} pairs: "
            f"{yes(least > 0.5)}",
        ),
    ]  # fmt: skip
    return common.agreement(checks), {"early": early, "late": late}


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    source = common.RESULTS / f"benchmark{'.quick' if options.quick else ''}.json"
    if not source.exists():
        raise SystemExit(f"{source} is missing: run experiments/benchmark.py first")
    found = json.loads(source.read_text())
    rows = {(r["setting"], r["arm"]): r for r in found["rows"]}
    free = {arm for (_, arm), r in rows.items() if not r["model_based"]} - {"random"}
    systems = sorted({arm for (_, arm), r in rows.items() if r["model_based"]})
    if not free or not systems:
        raise SystemExit("experiments/benchmark.py has finished no model-free or no model-based system yet")
    computed, numbers = verdict(rows, systems)
    lines = [
        common.row("all tasks", name, numbers[when][name], words)
        for when, words in (
            ("early", "normalised score above the best model-free system after as many steps, a task each"),
            ("late", "normalised score above the best model-free system's last, a task each"),
        )
        for name in systems
        if numbers[when][name]
    ]
    for line in lines:
        line["tasks"] = line.pop("seeds")  # its values are of tasks
        line["seeds"] = 4
    result = {
        "claim": "model-based systems need fewer interactions than model-free ones, and usually end below them",
        "source": "Wang et al. 2019 (arXiv 1907.02057), section 5",
        "setting": f"the rows of `benchmark`; model-free: {', '.join(sorted(free))}; not run yet: "
        f"{', '.join(found['missing']) or 'none'}",
        "rows": lines,
        "verdict": computed,
    }
    draw(systems, numbers, str(common.write("sample_efficiency", options.quick, result).with_suffix(".png")))


def draw(systems: list[str], numbers: dict[str, Any], path: str) -> None:
    """A dot a task, left after as many steps, right in the end."""
    fig, axes = plt.subplots(1, 2, figsize=(9, 0.8 + 0.35 * len(systems)), sharey=True, constrained_layout=True)
    titles = ("after as many steps", "in the end")
    for axis, when, title in zip(axes, ("early", "late"), titles, strict=True):
        for i, name in enumerate(systems):
            values = numbers[when][name]
            axis.plot(values, [i] * len(values), "o", color="C7", ms=4)
            axis.plot(np.mean(values), i, "s", color="C0")
        axis.axvline(0, color="k", lw=0.8)
        axis.set(title=title, xlabel="score above the best model-free system")
    axes[0].set_yticks(range(len(systems)), systems)
    fig.savefig(path, dpi=110)
    plt.close(fig)


if __name__ == "__main__":
    main()
