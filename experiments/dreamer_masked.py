"""A learned belief in the place of what is not shown: Dreamer v3, and model-free baselines with a memory and without.

Claims: within 30,000 steps Dreamer v3 balances the cart-pole that does not show its velocities (450 of 500) and swings
up the pendulum that does not (-250), as the median of five seeds, and ends above the memoryless PPO, DQN and SAC and
above recurrent PPO, all at the same number of steps; and within as many it carries a bit through a chain of ten steps
(0.9 of 1), which nothing without a memory can (0).
Sources: Hafner et al. 2023 (arXiv 2301.04104), that one set of numbers with a recurrent belief learns from few steps,
the bsuite's memory tasks (Osband et al. 2020, arXiv 1908.03568) among its benchmarks; Ni et al. 2022 (arXiv
2110.05038), that recurrent model-free baselines are what to compare with under partial observability. Tasks, bars,
budgets and comparisons are fixed here, before the run. PPO goes on to 300,000 steps as context. DQN with four frames
stacked sees velocities again: no difference is claimed there, nor between the two with a memory on the chain. Control:
PPO without a memory must not beat random actions on the chain.
"""

from curves import Arm, Task, at_bar, better, figure, rows_of, two_sided

import common

STEPS, LONG = 30_000, 300_000
CART, ROD, CHAIN = "cartpole_masked", "pendulum_masked", "memory chain of 10"
TASKS = {
    CART: Task(CART, {}, STEPS, 1_000, 10, 5, bar=450.0),
    ROD: Task(ROD, {}, STEPS, 1_000, 10, 5, bar=-250.0),
    CHAIN: Task("gymnax:MemoryChain-bsuite", {"memory_length": 10}, STEPS, 1_000, 100, 3, bar=0.9),
}
PPO_CART = {"learning_rate": 1e-3, "reward_scale": 0.1}  # the recurrent preset's
PPO_ROD = {"learning_rate": 1e-3, "reward_scale": 0.1, "gamma": 0.95}
ARMS = (
    Arm(CART, "dreamer_v3", "dreamer_v3", "cartpole"),
    Arm(CART, "recurrent PPO", "recurrent_ppo", "cartpole", steps=LONG, num_envs=16),
    Arm(CART, "PPO", "ppo", None, PPO_CART, steps=LONG, num_envs=16),
    Arm(CART, "DQN", "dqn", "cartpole"),
    Arm(CART, "DQN, 4 frames", "dqn", "cartpole", frames=4),
    Arm(CART, "random", "random"),
    Arm(ROD, "dreamer_v3", "dreamer_v3", "pendulum"),
    Arm(ROD, "recurrent PPO", "recurrent_ppo", None, PPO_ROD, steps=LONG, num_envs=16),
    Arm(ROD, "PPO", "ppo", "pendulum", steps=LONG, num_envs=16),
    Arm(ROD, "SAC", "sac", "pendulum"),
    Arm(ROD, "random", "random"),
    Arm(CHAIN, "dreamer_v3", "dreamer_v3", "cartpole"),
    Arm(CHAIN, "recurrent PPO", "recurrent_ppo", "memory_chain", num_envs=16),
    Arm(CHAIN, "PPO", "ppo", None, {"learning_rate": 1e-3}, num_envs=16),
    Arm(CHAIN, "random", "random"),
)
COMPARISONS = [
    better(CART, "dreamer_v3", "PPO"),
    better(CART, "dreamer_v3", "DQN"),
    better(CART, "dreamer_v3", "recurrent PPO"),
    better(ROD, "dreamer_v3", "PPO"),
    better(ROD, "dreamer_v3", "SAC"),
    better(ROD, "dreamer_v3", "recurrent PPO"),
    better(CHAIN, "dreamer_v3", "PPO"),
    better(CHAIN, "PPO", "random", expected=False),
]
UNCLAIMED = [(CART, "dreamer_v3", "DQN, 4 frames"), (CHAIN, "dreamer_v3", "recurrent PPO")]


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("dreamer_masked", options.quick, options.fresh)
    rows = rows_of(cells, TASKS, ARMS, options.quick)
    bars = common.agreement([at_bar(rows, name, "dreamer_v3", task.bar) for name, task in TASKS.items()])
    result = {
        "claim": "Dreamer v3 learns tasks that hide part of their state in fewer steps than model-free baselines, "
        "those with a memory among them",
        "source": "Hafner et al. 2023 (arXiv 2301.04104), Ni et al. 2022 (arXiv 2110.05038); bars, budget and "
        "comparisons fixed before the run",
        "setting": f"{STEPS:,} steps, {LONG:,} for PPO as context; sizes for two CPU cores (the settings are in each "
        "row); PPO in 16 environments, 10 episodes an evaluation (100 on the chain); five seeds, three on the chain",
        "rows": rows,
        "verdict": common.together(bars, common.judge(rows, COMPARISONS), two_sided(rows, UNCLAIMED)),
    }
    path = common.write("dreamer_masked", options.quick, result)
    figure(rows, TASKS, str(path.with_suffix(".png")), log=True)


if __name__ == "__main__":
    main()
