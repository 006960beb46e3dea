"""MuZero learns a model that is good for nothing but the search, and solves CartPole with it.

Claim: on gymnax's CartPole at least 4 of 5 seeds reach a mean return of 475 (20 episodes, no exploration) within 60,000
steps. Control: one simulation, which takes what the policy says and can improve on nothing, with the same model, does
not get 4 of 5 seeds there.
Source: Schrittwieser et al. 2020 (arXiv 1911.08265); CartPole's bar is Gymnasium's. Budget, bar and control are fixed
here, before the run; the settings were found in pilots on seed 0.
"""

from curves import Arm, Task, figure, rows_of, to_bar

import common

STEPS, BAR, LEAST = 60_000, 475.0, 4
CARTPOLE = "CartPole"
TASKS = {CARTPOLE: Task("gymnax:CartPole-v1", {}, STEPS, 4_800, 20, 5, tail=15_000, bar=BAR)}
SEARCHED, BLIND = "muzero", "one simulation"
ARMS = (
    Arm(CARTPOLE, SEARCHED, "muzero", "cartpole", num_envs=8),
    Arm(CARTPOLE, BLIND, "muzero", "cartpole", {"simulations": 1}, num_envs=8),
)


def reached(rows: list[dict], arm: str, expected: bool) -> tuple[bool, str]:
    row = next(r for r in rows if (r["setting"], r["arm"]) == (to_bar(CARTPOLE), arm))
    fits = (row["reached"] >= LEAST) == expected
    kind = "" if expected else "control, should not: "
    text = f"{kind}{arm}: {row['reached']} of {row['seeds']} seeds reached {BAR:g} within {STEPS:,} steps (at least "
    return fits, f"{text}{LEAST}), median after {row['median']:g}: {'yes' if row['reached'] >= LEAST else 'no'}"


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("muzero", options.quick, options.fresh)
    rows = rows_of(cells, TASKS, ARMS, options.quick)
    result = {
        "claim": "MuZero reaches a return of 475 on CartPole within 60,000 steps, 4 of 5 seeds",
        "source": "Schrittwieser et al. 2020 (arXiv 1911.08265); budget, bar and control fixed before the run",
        "setting": "gymnax's CartPole-v1, 8 environments, 16 simulations, sizes for two CPU cores (in each row); 20 "
        "episodes an evaluation, without exploration",
        "rows": rows,
        "verdict": common.agreement([reached(rows, SEARCHED, True), reached(rows, BLIND, False)]),
    }
    path = common.write("muzero", options.quick, result)
    figure(rows, TASKS, str(path.with_suffix(".png")))


if __name__ == "__main__":
    main()
