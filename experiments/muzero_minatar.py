"""MuZero beside deep Q-learning on a MinAtar game at equal steps.

Claim: after 100,000 steps of Breakout MuZero earns more than Rainbow at as many. Control: random actions must not beat
it.
Sources: Schrittwieser et al. 2020 (arXiv 1911.08265), of Atari at 20 billion frames; games of Young and Tian 2019
(arXiv 1903.03176) as gymnax has them, without sticky actions; Q-learning as in Obando-Ceron and Castro 2021 (arXiv
2011.14826). Game, budget and comparisons are fixed here, before the run.
"""

from curves import Arm, Task, better, figure, rows_of

import common

STEPS = 100_000
BREAKOUT = "Breakout"
TASKS = {BREAKOUT: Task("gymnax:Breakout-MinAtar", {}, STEPS, 9_600, 16, 3, tail=20_000)}
ARMS = (
    Arm(BREAKOUT, "muzero", "muzero", "minatar", num_envs=16),
    Arm(BREAKOUT, "Rainbow", "dqn", "minatar"),
    Arm(BREAKOUT, "random", "random"),
)
COMPARISONS = [
    better(BREAKOUT, "muzero", "Rainbow"),
    better(BREAKOUT, "muzero", "random"),
    better(BREAKOUT, "random", "muzero", expected=False),
]


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("muzero_minatar", options.quick, options.fresh)
    rows = rows_of(cells, TASKS, ARMS, options.quick)
    result = {
        "claim": f"after {STEPS:,} steps of a MinAtar game MuZero earns more than Rainbow",
        "source": "Schrittwieser et al. 2020 (arXiv 1911.08265), of Atari; game, budget and comparisons fixed before "
        "the run",
        "setting": "gymnax's game, no sticky actions; sizes for two CPU cores (the settings are in each row); 16 "
        "episodes an evaluation; three seeds",
        "rows": rows,
        "verdict": common.judge(rows, COMPARISONS),
    }
    path = common.write("muzero_minatar", options.quick, result)
    figure(rows, TASKS, str(path.with_suffix(".png")))


if __name__ == "__main__":
    main()
