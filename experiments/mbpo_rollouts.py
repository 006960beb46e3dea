"""How long imagined rollouts should be: 1, 5, 15 and 50 steps from any real state, and whole imagined episodes.

Claim: short rollouts branched from real states beat whole imagined episodes of the same model.
Source: Janner et al. 2019 (arXiv 1906.08253), figure 3 (Hopper; reference sheet 2.9). Every arm imagines the same
number of rows per fit: longer rollouts are fewer. Measured: the mean return of the policy's mode over the last third of
the evaluations, on `cartpole_swingup` (5 seeds) and, with ``--hopper``, on the first 10,000 steps of Hopper (3 seeds);
tasks, arms and comparisons are fixed here, before the run. Control: 5 steps against 1 on cart-pole, where neither
should matter much.
"""

from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np

import common


class Task(NamedTuple):
    env: str
    preset: str
    steps: int
    every: int
    episodes: int
    seeds: int
    rows: int  # imagined per fit
    changes: dict[str, Any]  # of the preset


# Hopper's networks and updates, for two cores; the paper's are 7 x 4 x 200, 2 x 256 and 20 updates a step.
SMALL: dict[str, Any] = {
    "members": 5,
    "elites": 5,
    "hidden": (128, 128),
    "weight_decay": (2.5e-5, 5e-5, 1e-4),
    "epochs": 200,
    "policy_hidden": (64, 64),
    "learning_rate": 1e-3,
    "batch_size": 128,
    "updates": 5,
    "alpha": 0.2,
    "fit_every": 500,
    "retain": 2,
    "capacity": 20_000,
}
TASKS = {
    "cartpole_swingup": Task("cartpole_swingup", "cartpole_swingup", 4_200, 400, 5, 5, 20_000, {}),
    "hopper": Task("gymnasium:Hopper-v5", "hopper", 10_000, 1_000, 3, 3, 20_000, SMALL),
}
LENGTHS = (1, 5, 15, 50)
EPISODE = {"cartpole_swingup": 200, "hopper": 200}  # Hopper's imagined episodes end long before its 1,000 steps
ARMS = {f"k = {k}": (k, True) for k in LENGTHS} | {"whole episodes": (0, False)}


def curves_of(cells: common.Cells, name: str, arm: str, quick: bool) -> dict[str, Any]:
    task = TASKS[name]
    length, branch = ARMS[arm]
    length = length or EPISODE[name]
    rollouts = task.rows // length
    changes = task.changes | {"rollout": (0, 1, length, length), "rollouts": rollouts, "branch": branch}
    settings = common.settings_of("mbpo", task.preset, changes)
    steps, seeds = (settings["warmup"] + task.every, 1) if quick else (task.steps, task.seeds)

    def compute() -> dict[str, Any]:
        train = common.make_run("mbpo", task.env, settings, steps)
        return common.evaluated(train, seeds, task.every, task.episodes)

    wanted = {"env": task.env, "steps": steps, "seeds": seeds, "every": task.every, **settings}
    return cells.get(f"{name}/{arm}", wanted, compute)


def row_of(name: str, arm: str, cell: dict[str, Any]) -> dict[str, Any]:
    curves = np.asarray(cell["returns"])
    late = curves[:, -max(curves.shape[1] // 3, 1) :].mean(axis=1)
    more = {key: cell[key] for key in ("steps", "returns", "settings")} | {"wall_seconds": cell["wall_seconds"]}
    return common.row(name, arm, late, "mean return of the last third of the evaluations", **more)


def figure(rows: list[dict[str, Any]], path: str) -> None:
    tasks = list(dict.fromkeys(r["setting"] for r in rows))
    fig, axes = plt.subplots(1, len(tasks), figsize=(5.5 * len(tasks), 3.8), squeeze=False, constrained_layout=True)
    for axis, name in zip(axes[0], tasks, strict=True):
        for i, r in enumerate([r for r in rows if r["setting"] == name]):
            for seed in r["returns"]:
                axis.plot(r["steps"], seed, color=f"C{i}", alpha=0.25, lw=0.8)
            axis.plot(r["steps"], np.mean(r["returns"], axis=0), color=f"C{i}", lw=2, label=r["arm"])
        axis.set(title=TASKS[name].env, xlabel="environment steps", ylabel="return (no exploration)")
        axis.legend(fontsize=8)
    fig.savefig(path, dpi=110)
    plt.close(fig)


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0], hopper="the first 10,000 steps of Hopper, too")
    cells = common.Cells("mbpo_rollouts", options.quick, options.fresh)
    tasks = [name for name in TASKS if name != "hopper" or options.hopper]
    rows = [row_of(name, arm, curves_of(cells, name, arm, options.quick)) for name in tasks for arm in ARMS]
    better = lambda task, a, b, expected=True: common.Compare(task, a, b, expected, lower_is_better=False, paired=False)  # noqa: E731
    comparisons = [
        better("cartpole_swingup", "k = 5", "whole episodes"),
        better("hopper", "k = 1", "whole episodes"),
        better("cartpole_swingup", "k = 5", "k = 1", expected=False),
    ]
    result = {
        "claim": "short rollouts branched from real states beat whole imagined episodes of the same model",
        "source": "Janner et al. 2019 (arXiv 1906.08253), figure 3; tasks and comparisons fixed before the run",
        "setting": "networks sized for two CPU cores (see each row's settings); the same number of imagined rows "
        "per fit in every arm; whole episodes begin where real ones did and have 200 steps at most; on "
        "cart-pole the reward is the environment's own" + ("" if options.hopper else "; Hopper was not run (--hopper)"),
        "rows": rows,
        "verdict": common.judge(rows, [c for c in comparisons if c.setting in tasks]),
    }
    path = common.write("mbpo_rollouts", options.quick, result)
    figure(rows, str(path.with_suffix(".png")))


if __name__ == "__main__":
    main()
