"""Losses on the representation of deep Q-learning on a MinAtar game.

Claim: self-prediction (SPR) raises the sample efficiency of deep Q-learning: on Breakout, over 40,000 steps, the mean
of all evaluations is higher with it than with the same encoder and no such loss, and higher than without the encoder.
Control: the encoder alone must not beat SPR. The returns at the end of the budget, and what inverse dynamics do to
both, are reported beside that and decide nothing.
Sources: Schwarzer et al. 2021 (SPR, arXiv 2007.05929), of 26 Atari games at 100,000 steps; games of Young and Tian 2019
(arXiv 1903.03176) as gymnax has them, without sticky actions. Weight 2 and windows of 5 rows are the paper's; inverse
dynamics have the weight 1 and windows of one row. Game, budget, arms and comparisons are fixed here, before the run.
"""

from typing import Any

import numpy as np
from curves import Arm, Task, better, figure, rows_of, two_sided

import common

STEPS = 40_000
BREAKOUT, AREA = "Breakout", "Breakout: all evaluations"
TASKS = {BREAKOUT: Task("gymnax:Breakout-MinAtar", {}, STEPS, 2_000, 16, 5, tail=8_000)}
ENCODER = {"encoder": (128,), "capacity": STEPS}

ARMS = (
    Arm(BREAKOUT, "dqn", "dqn", "minatar", {"capacity": STEPS}),
    Arm(BREAKOUT, "encoder", "dqn", "minatar", ENCODER),
    Arm(BREAKOUT, "spr", "dqn", "minatar", ENCODER | {"auxiliary": {"spr": 2.0}}),
    Arm(BREAKOUT, "inverse", "dqn", "minatar", ENCODER | {"auxiliary": {"inverse": 1.0}, "auxiliary_steps": 1}),
    Arm(BREAKOUT, "random", "random"),
)
COMPARISONS = [
    better(AREA, "spr", "encoder"),
    better(AREA, "spr", "dqn"),
    better(AREA, "encoder", "spr", expected=False),
]
BESIDE = [(AREA, name, "encoder") for name in ("dqn", "inverse")]
BESIDE += [(BREAKOUT, name, "encoder") for name in ("dqn", "spr", "inverse")]


def areas(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each learning arm, for each seed the mean of its whole curve: the area under it over its length."""
    metric = "mean return of all evaluations"
    return [
        common.row(AREA, row["arm"], np.mean(row["returns"], axis=1), metric) for row in rows if row["arm"] != "random"
    ]


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("auxiliary", options.quick, options.fresh)
    rows = rows_of(cells, TASKS, ARMS, options.quick)
    table = rows + areas(rows)
    result = {
        "claim": f"self-prediction raises the sample efficiency of deep Q-learning over {STEPS:,} steps of a MinAtar "
        "game, against the same encoder without it and against none",
        "source": "Schwarzer et al. 2021 (arXiv 2007.05929), of Atari; game, budget and comparisons fixed beforehand",
        "setting": "gymnax's game, no sticky actions; the preset of MinAtar (one update a step, three-step returns, "
        "priorities, 51 atoms); 16 episodes an evaluation; five seeds",
        "rows": table,
        "verdict": common.together(common.judge(table, COMPARISONS), two_sided(table, BESIDE)),
    }
    path = common.write("auxiliary", options.quick, result)
    figure(rows, TASKS, str(path.with_suffix(".png")))


if __name__ == "__main__":
    main()
