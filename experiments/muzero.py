"""MuZero on CartPole, and on a MinAtar game beside deep Q-learning at equal steps.

Claims: (1) on gymnax's CartPole at least 4 of 5 seeds reach a mean return of 475 (20 episodes, no exploration) within
100,000 steps; (2) after 100,000 steps of Breakout it earns more than Rainbow-style deep Q-learning. Control: random
actions must not beat it there.
Sources: Schrittwieser et al. 2020 (arXiv 1911.08265); games of Young and Tian 2019 (arXiv 1903.03176) as gymnax has
them, without sticky actions; Q-learning as in Obando-Ceron and Castro 2021 (arXiv 2011.14826). Game, budget and
comparisons are fixed here, before the run.
"""

from curves import Arm, Task, better, figure, rows_of, to_bar

import common

STEPS, BAR = 100_000, 475.0
CARTPOLE, BREAKOUT = "CartPole", "Breakout"
TASKS = {
    CARTPOLE: Task("gymnax:CartPole-v1", {}, STEPS, 4_800, 20, 5, tail=15_000, bar=BAR),
    BREAKOUT: Task("gymnax:Breakout-MinAtar", {}, STEPS, 9_600, 16, 3, tail=20_000),
}
ARMS = (
    Arm(CARTPOLE, "muzero", "muzero", "cartpole", num_envs=8),
    Arm(BREAKOUT, "muzero", "muzero", "minatar", num_envs=16),
    Arm(BREAKOUT, "Rainbow", "dqn", "minatar"),
    Arm(BREAKOUT, "random", "random"),
)
COMPARISONS = [
    better(BREAKOUT, "muzero", "Rainbow"),
    better(BREAKOUT, "muzero", "random"),
    better(BREAKOUT, "random", "muzero", expected=False),
]


def reached(rows: list[dict], least: int) -> tuple[bool, str]:
    row = next(r for r in rows if (r["setting"], r["arm"]) == (to_bar(CARTPOLE), "muzero"))
    fits = row["reached"] >= least
    text = f"{CARTPOLE}: {row['reached']} of {row['seeds']} seeds reached {BAR:g} within {STEPS:,} steps, median after "
    return fits, f"{text}{row['median']:g} (at least {least}): {'yes' if fits else 'no'}"


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("muzero", options.quick, options.fresh)
    rows = rows_of(cells, TASKS, ARMS, options.quick)
    result = {
        "claim": "MuZero solves CartPole in 100,000 steps, and earns more than Rainbow on a MinAtar game in as many",
        "source": "Schrittwieser et al. 2020 (arXiv 1911.08265), of Atari at 20 billion frames; game, budget and "
        "comparisons fixed before the run",
        "setting": "sizes for two CPU cores (the settings are in each row); gymnax's games, no sticky actions; 20 and "
        "16 episodes an evaluation",
        "rows": rows,
        "verdict": common.together(common.agreement([reached(rows, 4)]), common.judge(rows, COMPARISONS)),
    }
    path = common.write("muzero", options.quick, result)
    figure(rows, TASKS, str(path.with_suffix(".png")))


if __name__ == "__main__":
    main()
