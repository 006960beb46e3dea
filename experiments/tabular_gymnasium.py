"""Tables learned through Gymnasium: slippery FrozenLake and Taxi, judged by finite-horizon value iteration.

The bound knows the true tables and the time limit: backward induction over the limit's steps. The learned policies are
stationary and see no clock. Each is played for 1,000 episodes. The control is Q-learning without planning after the
same few real steps on Taxi.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np

from jmbrl import envs
from jmbrl.rollout import evaluate

import common

SEEDS, EPISODES = 5, 1_000
TASKS = {
    "FrozenLake (slippery)": ("gymnasium:FrozenLake-v1", 30_000),
    "Taxi": ("gymnasium:Taxi-v4", 30_000),
}
SYSTEMS = {
    "FrozenLake (slippery)": {
        "Dyna-Q, expected backups": (
            "dyna_q",
            {"planning_steps": 20, "backup": "expected", "planning_alpha": 0.5, "outcomes": 4, "gamma": 0.999,
             "alpha": 0.0, "initial": 1.0, "epsilon": 0.1},
        ),
        "prioritized sweeping": (
            "prioritized_sweeping",
            {"planning_steps": 20, "outcomes": 4, "gamma": 0.999, "alpha": 1.0, "initial": 1.0, "epsilon": 0.1},
        ),
    },
    "Taxi": {
        "Dyna-Q": ("dyna_q", {"planning_steps": 50, "gamma": 0.99, "alpha": 1.0, "epsilon": 0.1}),
        "prioritized sweeping": (
            "prioritized_sweeping",
            {"planning_steps": 20, "gamma": 0.99, "alpha": 1.0, "epsilon": 0.1},
        ),
        "Q-learning": ("dyna_q", {"planning_steps": 0, "gamma": 0.99, "alpha": 1.0, "epsilon": 0.1}),
    },
}  # fmt: skip
CONTROL = ("Taxi", "Q-learning")
SHARE = 0.95  # of the bound


def bound(name: str) -> float:
    """The mean return over starts of the best policy that knows the time left, by backward induction."""
    import gymnasium

    made = gymnasium.make(name.removeprefix("gymnasium:"))
    table, limit = made.unwrapped.P, made.spec.max_episode_steps
    states, actions = len(table), len(table[0])
    value = np.zeros(states)
    for _ in range(limit):
        value = np.asarray(
            [
                max(sum(p * (r + (not end) * value[s2]) for p, s2, r, end in table[s][a]) for a in range(actions))
                for s in range(states)
            ]
        )
    start = np.asarray(made.unwrapped.initial_state_distrib)
    return float(start @ value / start.sum())


def played(name: str, system: tuple[str, dict], steps: int, seed: int) -> dict:
    """Mean return and length of 1,000 episodes without exploration after ``steps`` real steps of training."""
    train = common.make_run(system[0], name, system[1], steps)
    run, _ = jax.jit(train)(jax.random.key(seed))
    env = envs.make(name)
    play = jax.jit(lambda key, state: evaluate(key, env, train.agent, state, EPISODES))
    found = play(jax.random.key(1000 + seed), run.agent)
    env.close()
    train.env.close()
    return {
        "return": float(np.mean(np.asarray(found["returns"]), dtype=np.float64)),
        "length": float(np.mean(np.asarray(found["lengths"]))),
    }


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("tabular_gymnasium", options.quick, options.fresh)
    seeds, rows, checks = (1 if options.quick else SEEDS), [], []
    for task, (name, steps) in TASKS.items():
        best = cells.get(f"{task}/bound", {"env": name}, lambda name=name: {"return": bound(name)})["return"]
        rows.append(common.row(task, "finite-horizon value iteration", [best], "return"))
        for arm, system in SYSTEMS[task].items():
            settings = {**system[1], "steps": steps, "episodes": EPISODES}
            returns = [
                cells.get(
                    f"{task}/{arm}/{seed}", settings, lambda n=name, s=system, k=steps, i=seed: played(n, s, k, i)
                )["return"]
                for seed in range(seeds)
            ]
            rows.append(common.row(task, arm, returns, "return", env_steps=steps))
            reached, expected = float(np.mean(returns)) >= SHARE * best, (task, arm) != CONTROL
            kind = "" if expected else "control, should not: "
            share = float(np.mean(returns)) / best
            checks.append(
                (reached == expected, f"{task}: {kind}{arm} has {share:.3f} of the bound {best:.4g}, at least {SHARE}")
            )
    result = {
        "claim": "Dyna-Q and prioritized sweeping reach 95 % of the best return on slippery FrozenLake and on Taxi "
        "through the Gymnasium adapter",
        "source": "finite-horizon value iteration on the environments' own tables",
        "setting": f"30,000 real steps, {EPISODES} episodes of evaluation, {seeds} seeds; limits 100 and 200 steps",
        "rows": rows,
        "verdict": common.agreement(checks),
    }
    common.bars(rows, str(common.write("tabular_gymnasium", options.quick, result).with_suffix(".png")), "return")
    plt.close("all")


if __name__ == "__main__":
    main()
