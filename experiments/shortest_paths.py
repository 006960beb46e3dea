"""Every tabular system finds a shortest path in every maze that stays as it is; breadth-first search is the judge.

Greedy paths after a number of real steps that was fixed beforehand, five seeds of each. Values begin just below the
goal's reward of 1, so that everything is tried (at 1 itself an untried action ties with the goal): in a first trial,
with values of 0, all three systems stayed on the long way of the opened shortcut maze in 2 of 5 seeds. That is the
control now, with Q-learning without planning in the finest maze.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np

from jmbrl import envs
from jmbrl.agents import greedy_steps
from jmbrl.envs.finite import best_actions
from jmbrl.types import Env

import common

SEEDS = 5
# name -> how it is made, real steps.
MAZES = {
    "Dyna maze": ({"name": "maze"}, 10_000),
    "Dyna maze, k = 3": ({"name": "maze", "resolution": 3}, 50_000),
    "Dyna maze, k = 6": ({"name": "maze", "resolution": 6}, 200_000),
    "blocking maze, before": ({"name": "blocking_maze", "change_at": None}, 10_000),
    "blocking maze, after": ({"name": "blocking_maze", "change_at": 0}, 10_000),
    "shortcut maze, before": ({"name": "shortcut_maze", "change_at": None}, 10_000),
    "shortcut maze, after": ({"name": "shortcut_maze", "change_at": 0}, 10_000),
    "windy gridworld": ({"name": "windy_gridworld"}, 20_000),
    "windy gridworld, king's moves": ({"name": "windy_gridworld", "kings": True}, 20_000),
}
SHARED = {"gamma": 0.95, "epsilon": 0.1, "initial": 0.99}
SYSTEMS = {
    "Dyna-Q, n = 50": ("dyna_q", {"planning_steps": 50, "alpha": 1.0}),
    "Dyna-Q, full backups": ("dyna_q", {"planning_steps": 1, "alpha": 1.0, "backup": "full"}),
    "prioritized sweeping, n = 20": ("prioritized_sweeping", {"planning_steps": 20, "alpha": 1.0, "threshold": 1e-5}),
}
CONTROLS = {
    "Dyna maze, k = 6": ("Q-learning", ("dyna_q", {"planning_steps": 0, "alpha": 1.0})),
    "shortcut maze, after": (
        "Dyna-Q, values begin at 0",
        ("dyna_q", {"planning_steps": 50, "alpha": 1.0, "initial": 0.0}),
    ),
}


def paths(env: Env, system: tuple[str, dict], steps: int) -> dict:
    """Steps of each seed's greedy path, -1 where it does not arrive."""
    train = common.make_run(system[0], env, {**SHARED, **system[1]}, steps)

    def one(key: jax.Array) -> jax.Array:
        run, _ = train(key)
        return greedy_steps(env, run.agent.learner.values, 10_000, key)

    run = jax.jit(one)
    return {"paths": [int(run(jax.random.key(seed))) for seed in range(SEEDS)]}


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("shortest_paths", options.quick, options.fresh)
    mazes = [name for name in MAZES if not (options.quick and "k =" in name)]
    controls = dict(CONTROLS.values())
    wanted = {name: SYSTEMS | (dict([CONTROLS[name]]) if name in CONTROLS else {}) for name in mazes}
    rows, checks = [], []
    for name, systems in wanted.items():
        made, steps = MAZES[name]
        env = envs.make(made["name"], max_steps=10_000_000, **{k: v for k, v in made.items() if k != "name"})
        optimum = len(best_actions(env))
        for arm, system in systems.items():
            found = cells.get(
                f"{name}/{arm}",
                {**SHARED, **system[1], "steps": steps},
                lambda e=env, s=system, n=steps: paths(e, s, n),
            )
            extra = [path - optimum if path >= 0 else 10_000 for path in found["paths"]]
            rows.append(common.row(name, arm, extra, "steps above the optimum", statistic=np.median, optimum=optimum))
            hits, expected = extra.count(0), arm not in controls
            fits = (hits == SEEDS) == expected
            kind = "" if expected else "control, should not: "
            checks.append(
                (fits, f"{name}: {kind}{arm} takes the optimum of {optimum} steps in {hits} of {SEEDS} seeds")
            )
    result = {
        "claim": "Greedy policies of Dyna-Q, with sample and with full backups, and of prioritized sweeping are "
        "shortest paths in every maze that does not change, where values begin high enough for everything to be tried",
        "source": "breadth-first search on the true tables; Sutton & Barto 2018, chapter 8, for the mazes",
        "setting": f"{SEEDS} seeds; real steps: " + ", ".join(f"{MAZES[n][1]:,} ({n})" for n in wanted),
        "rows": rows,
        "verdict": common.agreement(checks),
    }
    path = common.write("shortest_paths", options.quick, result)
    draw(rows, path)


def draw(rows: list[dict], path: common.Path) -> None:
    """Seeds on the optimum, a row a maze."""
    mazes, arms = (list(dict.fromkeys(r[key] for r in rows)) for key in ("setting", "arm"))
    share = np.full((len(mazes), len(arms)), np.nan)
    for r in rows:
        share[mazes.index(r["setting"]), arms.index(r["arm"])] = np.mean(np.asarray(r["values"]) == 0)
    fig, axis = plt.subplots(figsize=(6.4, 4.2), constrained_layout=True)
    image = axis.imshow(share, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axis.set_xticks(range(len(arms)), arms, rotation=20, ha="right", fontsize=8)
    axis.set_yticks(range(len(mazes)), mazes, fontsize=8)
    fig.colorbar(image, label="share of seeds on a shortest path")
    fig.savefig(path.with_suffix(".png"), dpi=110)
    plt.close(fig)


if __name__ == "__main__":
    main()
