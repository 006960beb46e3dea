"""From pictures alone: PlaNet and the three Dreamers swing up a pendulum that shows itself in 32 x 32 greys.

Claim: each of the four reaches a mean return of -300 within 20,000 steps, as the median of three seeds, where random
actions earn about -1170.
Sources: Hafner et al. 2019 (arXiv 1811.04551), 2020 (arXiv 1912.01603), 2021 (arXiv 2010.02193) and 2023 (arXiv
2301.04104), which learn control from images of 64 x 64; here a single picture shows no velocity, so that a belief has
to be filtered. The bar and the budget are fixed here, before the run. Between the four nothing is claimed: their sizes
are alike, but PlaNet plans with many times the computation per step. Control: after its warm-up alone, which is random
actions, Dreamer v3 must not beat random actions.
"""

import numpy as np
from curves import Arm, Task, at_bar, better, figure, rows_of, two_sided

import common

STEPS = 20_000
TASK = "pendulum_pixels"
TASKS = {TASK: Task(TASK, {}, STEPS, 1_000, 8, 3, bar=-300.0)}
ROOM = {"capacity": STEPS}  # of the replay: all that is seen
ARMS = (
    # Each evaluation plans 200 steps of 8 episodes: as much as 1,600 steps of the run.
    Arm(TASK, "planet", "planet", "pendulum", ROOM, every=4_000),
    Arm(TASK, "dreamer_v1", "dreamer_v1", "pendulum", ROOM),
    Arm(TASK, "dreamer_v2", "dreamer_v2", "pendulum", ROOM),
    Arm(TASK, "dreamer_v3", "dreamer_v3", "pendulum", ROOM),
    Arm(TASK, "random", "random"),
)
LEARNERS = tuple(arm.name for arm in ARMS if arm.system != "random")
UNTAUGHT = "dreamer_v3, warm-up only"
COMPARISONS = [*(better(TASK, name, "random") for name in LEARNERS), better(TASK, UNTAUGHT, "random", expected=False)]
UNCLAIMED = [(TASK, "dreamer_v3", other) for other in LEARNERS if other != "dreamer_v3"]


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("dreamer_pixels", options.quick, options.fresh)
    rows = rows_of(cells, TASKS, ARMS, options.quick)
    v3 = next(r for r in rows if r["arm"] == "dreamer_v3")
    first = [seed[0] for seed in v3["returns"]]  # an evaluation before the first update
    untaught = common.row(TASK, UNTAUGHT, first, "mean return, first evaluation", np.median)
    table = [*rows, untaught]
    bars = common.agreement([at_bar(rows, TASK, name, TASKS[TASK].bar) for name in LEARNERS])
    result = {
        "claim": f"PlaNet and Dreamer v1, v2 and v3 swing up a pendulum from pictures within {STEPS:,} steps",
        "source": "Hafner et al. 2019, 2020, 2021, 2023; bar, budget and comparisons fixed before the run",
        "setting": "32 x 32 greys, one picture a step; sizes for two CPU cores (presets pendulum, the settings are in "
        f"each row); 8 episodes an evaluation, every {TASKS[TASK].every:,} steps (PlaNet: 4,000); three seeds",
        "rows": table,
        "verdict": common.together(bars, common.judge(table, COMPARISONS), two_sided(rows, UNCLAIMED)),
    }
    path = common.write("dreamer_pixels", options.quick, result)
    figure(rows, TASKS, str(path.with_suffix(".png")))


if __name__ == "__main__":
    main()
