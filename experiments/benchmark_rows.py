"""What ``benchmark.py`` compares: the published table, our systems, their budgets, and what has no row and why."""

from collections.abc import Mapping
from typing import Any, NamedTuple

TASKS = ("pendulum", "cartpole", "mountain_car", "acrobot")
# Wang et al. 2019 (arXiv 1907.02057), table 1: mean and spread of the last 3,000 of 200,000 steps, four seeds, per task
# in the order of TASKS.
PUBLISHED: Mapping[str, tuple[tuple[float, float], ...]] = {
    "random": ((-202.6, 249.3), (38.4, 32.5), (-105.1, 1.8), (-374.5, 17.1)),
    "gt_cem": ((170.5, 35.2), (199.9, 0.1), (-58.0, 2.9), (13.9, 40.5)),
    "gt_rs": ((171.5, 31.8), (200.0, 0.0), (-68.5, 2.2), (2.5, 39.4)),
    "rs": ((164.4, 9.1), (200.0, 0.0), (-71.3, 0.5), (-4.9, 5.4)),
    "mb_mf": ((157.5, 13.2), (199.7, 1.2), (4.2, 18.5), (-92.5, 15.8)),
    "pets": ((167.4, 53.0), (199.5, 3.0), (-57.9, 3.6), (12.5, 29.0)),
    "pets_rs": ((167.9, 35.8), (195.0, 28.0), (-78.5, 2.1), (-71.5, 44.6)),
    "me_trpo": ((177.3, 1.9), (160.1, 69.1), (-42.5, 26.6), (-68.1, 6.7)),
    "gps": ((162.7, 7.6), (14.4, 18.6), (-10.6, 32.1), (-193.3, 11.7)),
    "pilco": ((-132.6, 410.1), (-1.9, 155.9), (-59.0, 4.6), (-394.4, 1.4)),
    "svg": ((141.4, 62.4), (82.1, 31.9), (-27.6, 32.6), (-79.7, 6.6)),
    "mb_mpo": ((171.2, 26.9), (199.3, 2.3), (-30.6, 34.8), (-87.8, 12.9)),
    "slbo": ((173.5, 2.5), (78.0, 166.6), (44.1, 6.8), (-75.6, 8.8)),
    "ppo": ((163.4, 8.0), (86.5, 7.8), (21.7, 13.1), (-95.3, 8.9)),
    "trpo": ((166.7, 7.3), (47.3, 15.7), (-37.2, 16.4), (-147.5, 12.3)),
    "td3": ((161.4, 14.4), (196.0, 3.1), (-60.0, 1.2), (-64.3, 6.9)),
    "sac": ((168.2, 9.5), (199.4, 0.4), (52.6, 0.6), (-52.9, 2.0)),
}
# Table 2: hours for 200,000 steps, the mean over its six tasks, and on what.
HOURS = {
    "rs": (10.2, "20 CPU"), "mb_mf": (4.4, "20 CPU"), "pets": (7.5, "4 CPU + GPU"), "pets_rs": (4.7, "4 CPU + GPU"),
    "me_trpo": (4.0, "4 CPU + GPU"), "gps": (6.7, "5 CPU"), "pilco": (120.0, "4 CPU + GPU"), "svg": (1.4, "2 CPU"),
    "mb_mpo": (38.0, "8 CPU"), "slbo": (5.3, "10 CPU"), "ppo": (0.04, "12 CPU"), "trpo": (0.04, "12 CPU"),
    "td3": (3.9, "12 CPU"), "sac": (3.0, "12 CPU"),
}  # fmt: skip
# 0 is the published mean of random actions, 1 the highest published mean, planning with the true dynamics included.
SCALE = {
    task: (PUBLISHED["random"][i][0], max(row[i][0] for row in PUBLISHED.values())) for i, task in enumerate(TASKS)
}


class Row(NamedTuple):
    """A system of ours: its page, the settings over ``preset``, and how far it runs.

    ``every``: environment steps between tests without exploration, each of ``episodes`` episodes; planners are tested
    on fewer, as an episode of planning costs what it costs in training. ``source``: the experiment whose finished rows
    these are, where another one ran them.
    """

    system: str
    steps: int
    every: int
    episodes: int = 20
    preset: str | None = "pendulum"
    settings: Mapping[str, Any] = {}
    source: str | None = None
    model_based: bool = True


ROWS: Mapping[str, Row] = {
    "random": Row("random", 20_000, 0, source="benchmark_imagined", model_based=False),
    "ppo": Row("ppo", 204_800, 20_480, model_based=False),
    "trpo": Row("trpo", 200_000, 20_000, preset=None, model_based=False),
    "sac": Row("sac", 200_000, 20_000, preset="wang", settings={"capacity": 200_000}, model_based=False),
    "me_trpo": Row("me_trpo", 20_000, 0, source="benchmark_imagined"),
    "slbo": Row("slbo", 20_000, 0, source="benchmark_imagined"),
    "mb_mf": Row("mb_mf", 20_000, 0, source="benchmark_imagined"),
    "mb_mpo": Row("mb_mpo", 20_000, 0, source="benchmark_imagined"),
    "svg": Row("svg", 20_000, 0, source="benchmark_gradients"),
    "pilco": Row("pilco", 1_000, 0, source="benchmark_gradients"),
    "gps": Row("gps", 20_000, 0, source="benchmark_gradients"),
    "ilqg": Row("ilqg", 20_000, 0, source="benchmark_gradients"),
    "bptt": Row("bptt", 20_000, 0, source="benchmark_gradients"),
    "mbpo": Row("mbpo", 5_000, 1_000),
    "td_mpc2": Row("td_mpc2", 5_000, 1_000, 4),
    "dreamer_v3": Row("dreamer_v3", 10_000, 2_000, 8),
    "pets": Row("pets", 5_000, 2_500, 4),
    "pets_rs": Row("pets", 5_000, 2_500, 4, settings={"planner": "random_shooting", "population": 500}),
    "rs": Row("mpc", 5_000, 2_500, 4, preset=None, settings={
        "model": "deterministic_mlp", "model_options": {"hidden": (64, 64)}, "trainer_options": {"epochs": 25},
        "planner": "random_shooting", "horizon": 20, "planner_options": {"population": 500}, "capacity": 10_000,
    }),
    "planet": Row("planet", 5_000, 2_500, 4),
}  # fmt: skip
# Systems of this library that these tasks (continuous actions, the state in view, a given reward) do not fit.
ELSEWHERE = {
    "dyna_q, prioritized_sweeping": "tables of numbered states: `dyna_maze`, `prioritized_sweeping`, `rod`",
    "dqn, alphazero, mcts, muzero": "discrete actions: `alphazero`, `muzero`, `muzero_minatar`",
    "world_models": "pictures, in stages: `world_models`",
    "dreamer_v1, dreamer_v2": "stand behind dreamer_v3: `dreamer_pixels`, `dreamer_masked`",
    "plan2explore, opax": "explore without the reward: `plan2explore`",
    "mopo, bc": "a log and no environment: `offline`",
    "recurrent_ppo": "a state that is hidden: `dreamer_masked`",
    "gt_cem, gt_rs, analytic": "the true dynamics: `benchmark_anchors`, `bptt`",
}
