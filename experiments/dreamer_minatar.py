"""Small Atari: Dreamer v2 and v3 beside Rainbow on two MinAtar games, 100,000 steps each.

Claim: after 100,000 steps Dreamer v3 and v2 earn more than Rainbow at the same number of steps.
Sources: Hafner et al. 2021 (arXiv 2010.02193) and 2023 (arXiv 2301.04104), which claim this of Atari (200 million
frames, and 400,000 for v3's data-efficient benchmark), not of MinAtar; games of Young and Tian 2019 (arXiv 1903.03176)
as gymnax has them, without sticky actions; Rainbow's parts and numbers as in Obando-Ceron and Castro 2021 (arXiv
2011.14826), but for what the preset ``minatar`` says. Images of 10 x 10 are read by 3 x 3 filters. Games, budget and
comparisons are fixed here, before the run; between v2 and v3 nothing is claimed. Each of the three must beat random
actions; control: random actions must not beat Dreamer v3.
"""

from curves import Arm, Task, better, figure, rows_of, two_sided

import common

STEPS = 100_000
GAMES = {"Breakout": "gymnax:Breakout-MinAtar", "SpaceInvaders": "gymnax:SpaceInvaders-MinAtar"}
TASKS = {game: Task(env, {}, STEPS, 5_000, 16, 3, tail=15_000) for game, env in GAMES.items()}
SETTINGS = {
    "dreamer_v3": ("dreamer_v3", "cartpole", {"small_images": "conv"}),
    # The pendulum's size with the paper's numbers for Atari where they are about discrete actions that can end a game.
    "dreamer_v2": (
        "dreamer_v2",
        "pendulum",
        {"small_images": "conv", "learn_termination": True, "continuation_scale": 5.0, "reward_scale": 1.0},
    ),
    "Rainbow": ("dqn", "minatar", {}),
    "random": ("random", None, {}),
}
ARMS = tuple(Arm(game, name, *settings) for game in GAMES for name, settings in SETTINGS.items())
COMPARISONS = [
    comparison
    for game in GAMES
    for comparison in (
        *(better(game, name, "random") for name in ("dreamer_v3", "dreamer_v2", "Rainbow")),
        better(game, "dreamer_v3", "Rainbow"),
        better(game, "dreamer_v2", "Rainbow"),
        better(game, "random", "dreamer_v3", expected=False),
    )
]
UNCLAIMED = [(game, "dreamer_v3", "dreamer_v2") for game in GAMES]


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("dreamer_minatar", options.quick, options.fresh)
    rows = rows_of(cells, TASKS, ARMS, options.quick)
    result = {
        "claim": f"after {STEPS:,} steps of MinAtar Dreamer v3 and v2 earn more than Rainbow",
        "source": "Hafner et al. 2021 (arXiv 2010.02193), 2023 (arXiv 2301.04104), of Atari; games, budget and "
        "comparisons fixed before the run",
        "setting": "gymnax's games, no sticky actions, 1,000 steps an episode at most; sizes for two CPU cores (the "
        "settings are in each row); 16 episodes an evaluation; three seeds",
        "rows": rows,
        "verdict": common.together(common.judge(rows, COMPARISONS), two_sided(rows, UNCLAIMED)),
    }
    path = common.write("dreamer_minatar", options.quick, result)
    figure(rows, TASKS, str(path.with_suffix(".png")))


if __name__ == "__main__":
    main()
