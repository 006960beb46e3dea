"""A policy by backpropagation through an ensemble, beside PETS, MBPO and SAC: return against real steps on two tasks.

Claim: in 4,000 real steps BPTT through an ensemble ends at -200 on the pendulum and at 150 on the cart-pole swing-up
(medians of five seeds), and reaches these bars in fewer steps than soft actor-critic, which learns without a model.
Sources: the four steps of Heess et al. 2015 (arXiv 1510.09142) and of the lecture; the bars are those of the project's
PETS and MBPO experiments. Bars, budget and comparisons are fixed here, before the run. Between BPTT, BPTT with a value
at the end of a short horizon (SVG(H)), MBPO and PETS nothing is claimed: their differences are reported. Control:
random actions must not beat BPTT. ``analytic`` climbs the derivative of the true simulator, whose steps are not
counted: a bound. PETS' curve is that of ``experiments/pets.py``, its training episodes, in which it does not explore.
"""

import json
from typing import Any

import numpy as np
from curves import Arm, Task, at_bar, better, figure, rows_of, to_bar, two_sided

import common

STEPS = 4_000
TASKS = {
    "pendulum": Task("gymnax:Pendulum-v1", {}, STEPS, 200, 10, 5, tail=1_000, bar=-200.0),
    "cartpole_swingup": Task("cartpole_swingup", {}, STEPS, 200, 10, 5, tail=1_000, bar=150.0),
}
ARMS = tuple(
    arm
    for task in TASKS
    for arm in (
        Arm(task, "bptt", "bptt", task),
        Arm(task, "svg_h", "bptt", f"svg_h_{task}"),
        Arm(task, "analytic", "analytic", task),
        Arm(task, "mbpo", "mbpo", task),
        Arm(task, "sac", "sac", "pendulum", steps=20_000),
        Arm(task, "random", "random"),
    )
)
PETS = "pets"


def pets_row(task: str) -> dict[str, Any]:
    """The curve of PETS' training episodes, and what its last ones within the budget return."""
    kept = json.loads((common.RESULTS / "pets.json").read_text())["rows"]
    row = next(r for r in kept if (r["task"], r["system"]) == (task, PETS))
    returns = np.asarray(row["returns"], float)
    each = row["env_steps"] // returns.shape[1]
    steps = each * np.arange(1, returns.shape[1] + 1)
    late = steps > steps[-1] - TASKS[task].tail
    return common.row(
        task,
        PETS,
        np.mean(returns[:, late], axis=1),
        f"mean return of the last {int(np.sum(late))} training episodes of {steps[-1]} steps",
        np.median,
        curve_of=PETS,
        steps=steps.tolist(),
        returns=returns.tolist(),
        settings={"system": PETS, **row["settings"]},
    )


def verdict(rows: list[dict[str, Any]]) -> dict[str, Any]:
    sooner = [common.Compare(to_bar(task), "bptt", "sac", paired=False) for task in TASKS]
    control = [better(task, "random", "bptt", expected=False) for task in TASKS]
    unclaimed = [(task, "bptt", other) for task in TASKS for other in ("svg_h", "mbpo", PETS, "analytic")]
    ends = common.agreement([at_bar(rows, task, "bptt", TASKS[task].bar) for task in TASKS])
    return common.together(ends, common.judge(rows, [*sooner, *control]), two_sided(rows, unclaimed))


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("bptt", options.quick, options.fresh)
    rows = rows_of(cells, TASKS, ARMS, options.quick) + [pets_row(task) for task in TASKS]
    result = {
        "claim": f"in {STEPS:,} steps backpropagation through an ensemble solves the pendulum and the cart-pole "
        "swing-up, sooner than soft actor-critic",
        "source": "Heess et al. 2015 (arXiv 1510.09142); bars, budget and comparisons fixed before the run",
        "setting": "gymnax's pendulum and the cart pole of PETS; settings in each row, BPTT's found in pilots on seeds "
        "0 and 1; ten episodes an evaluation, without exploration",
        "rows": rows,
        "verdict": verdict(rows),
    }
    path = common.write("bptt", options.quick, result)
    figure(rows, TASKS, str(path.with_suffix(".png")), log=True)


if __name__ == "__main__":
    main()
