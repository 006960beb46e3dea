"""What each part of a Dreamer is for: one thing changed at a time, on a pendulum that is seen through a flicker.

The task hides the velocity and loses three of ten observations (zeros are seen in their place). Lost ones rather than
noisy ones: a belief then has to be carried over gaps, which is what the deterministic path is for; and what is seen
next is one of two very different things, which only a stochastic path can say, while noise would blur it a little.
Claims: Dreamer v3 ends above itself (1) without its stochastic and (2) without its deterministic path (Hafner et al.
2019, arXiv 1811.04551, figure 4: both are needed, the stochastic one more); (3) without KL balance, both sides of the
divergence weighted alike, of the same sum (Hafner et al. 2021, arXiv 2010.02193, its ablation); (4) without a decoder
(Hafner et al. 2023, arXiv 2301.04104: learning relies on the reconstruction's gradient more than on the reward's).
Two-sided, as nobody claims a difference in this direction here: overshooting (2019 finds that this model needs none),
lambda 0 and 1, a horizon of 5 (2020, arXiv 1912.01603: a value makes up for a short one). Arms, budget and comparisons
are fixed here, before the run. Control: no single change may beat the full system, tried on overshooting, which costs
computation.
"""

from curves import Arm, Task, better, figure, rows_of, two_sided

import common

STEPS = 15_000
TASK = "pendulum_masked, flickering"
TASKS = {TASK: Task("pendulum_masked", {}, STEPS, 1_000, 16, 3, tail=5_000, flicker=0.3)}
FULL = "full"  # lambda 0.95, a horizon of 15, no overshooting
CHANGES = {
    FULL: {},
    "deterministic path only": {"paths": "deterministic"},
    "stochastic path only": {"paths": "stochastic"},
    "overshooting 3": {"overshooting": 3},
    "no KL balance": {"dynamics_scale": 0.55, "representation_scale": 0.55},
    "lambda 0": {"lam": 0.0},
    "lambda 1": {"lam": 1.0},
    "horizon 5": {"horizon": 5},
    "no decoder": {"reconstruction_scale": 0.0},
}
ARMS = (
    *(Arm(TASK, name, "dreamer_v3", "pendulum", changes) for name, changes in CHANGES.items()),
    Arm(TASK, "random", "random"),
)
CLAIMED = ("deterministic path only", "stochastic path only", "no KL balance", "no decoder")
COMPARISONS = [
    better(TASK, FULL, "random"),
    *(better(TASK, FULL, name) for name in CLAIMED),
    better(TASK, "overshooting 3", FULL, expected=False),
]
UNCLAIMED = [(TASK, FULL, name) for name in CHANGES if name != FULL and name not in CLAIMED]


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("dreamer_ablation", options.quick, options.fresh)
    rows = rows_of(cells, TASKS, ARMS, options.quick)
    result = {
        "claim": "both paths of the latent model, KL balance and the decoder each help Dreamer v3",
        "source": "Hafner et al. 2019 (arXiv 1811.04551), 2021 (arXiv 2010.02193), 2023 (arXiv 2301.04104); arms, "
        "budget and comparisons fixed before the run",
        "setting": f"pendulum without its velocity, 3 of 10 observations lost, {STEPS:,} steps, size_xs (preset "
        "pendulum); 16 episodes an evaluation, those of the last 5,000 steps count; three seeds",
        "rows": rows,
        "verdict": common.together(common.judge(rows, COMPARISONS), two_sided(rows, UNCLAIMED)),
    }
    path = common.write("dreamer_ablation", options.quick, result)
    figure(rows, TASKS, str(path.with_suffix(".png")))


if __name__ == "__main__":
    main()
