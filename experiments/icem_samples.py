"""How many samples iCEM needs for CEM's return.

Claim: with coloured noise and kept elites a third of CEM's candidates is enough. Source: Pinneri et al. 2020
(arXiv 2008.06389), figure 1 and section 5 (a factor of 2.7 to 22 fewer samples). Both planners go through the true
simulator of the cart-pole swing-up, so that only the search differs; a seed is one episode, and both start it alike.
"Reaches" means: not worse by more than 3 (of about 180), with 95 % confidence. The control: not with a fiftieth.
"""

import jax
import matplotlib.pyplot as plt
import numpy as np

from jmbrl import agents, envs, models, planners
from jmbrl.rollout import evaluate
from jmbrl.types import Planner, Spec

import common

TASK, HORIZON, MARGIN = "cartpole_swingup", 25, 3.0
CEM = {"cem": (400, 5)}  # population, iterations: 2000 candidates a decision, the paper's cart-pole setting
ICEM = {"icem, 1/3": (250, 3), "icem, 1/10": (70, 3), "icem, 1/50": (14, 3)}
COMPARISONS = [
    common.Compare(TASK, "icem, 1/3", "cem", lower_is_better=False, margin=-MARGIN),
    common.Compare(TASK, "icem, 1/50", "cem", expected=False, lower_is_better=False, margin=-MARGIN),
]


def icem_of(spec: Spec, population: int, iterations: int) -> tuple[Planner, int]:
    """The planner and the candidates it tries in a decision."""
    elites = max(2, population // 10)
    sizes = [population]
    while len(sizes) < iterations:
        sizes.append(max(2 * elites, int(sizes[-1] / 1.25)))
    kept = int(0.3 * elites)
    planner = planners.icem(
        spec, horizon=HORIZON, population=population, elites=elites, iterations=iterations, beta=2.0
    )
    return planner, sum(sizes) + iterations * kept


def cem_of(spec: Spec, population: int, iterations: int) -> tuple[Planner, int]:
    planner = planners.cem(
        spec, horizon=HORIZON, population=population, elites=population // 10, iterations=iterations, min_variance=0.0
    )
    return planner, population * iterations


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("icem_samples", options.quick, options.fresh)
    episodes = 2 if options.quick else 10
    env = envs.with_state(envs.make(TASK))
    rows = []
    for arm, (population, iterations) in {**CEM, **ICEM}.items():
        planner, samples = (cem_of if arm in CEM else icem_of)(env.spec, population, iterations)
        agent = agents.mpc(env.spec, models.simulator(env), planner)

        def compute(agent: object = agent) -> dict:
            run = jax.jit(lambda key: evaluate(key, env, agent, agent.init(key, 1), episodes)["returns"])
            return {"returns": np.asarray(run(jax.random.key(0))).tolist()}

        wanted = {"population": population, "iterations": iterations, "episodes": episodes, "horizon": HORIZON}
        returns = cells.get(f"{TASK}/{arm}", wanted, compute)["returns"]
        rows.append(common.row(TASK, arm, returns, "return", samples_per_decision=samples))
    result = {
        "claim": "iCEM reaches CEM's return with at most a third of the samples",
        "source": "Pinneri et al. 2020 (arXiv 2008.06389)",
        "setting": f"{TASK} through its true simulator, horizon {HORIZON}, {episodes} episodes; CEM 400 x 5",
        "rows": rows,
        "verdict": common.judge(rows, COMPARISONS),
    }
    path = common.write("icem_samples", options.quick, result)
    fig, axis = plt.subplots(figsize=(5, 3.4), constrained_layout=True)
    for r in rows:
        low, high = r["interval"]
        axis.errorbar(r["samples_per_decision"], r["mean"], [[r["mean"] - low], [high - r["mean"]]], fmt="o", capsize=4)
        axis.annotate(r["arm"], (r["samples_per_decision"], r["mean"]), xytext=(5, 5), textcoords="offset points")
    axis.set(xscale="log", xlabel="candidates a decision", ylabel="return", title=TASK)
    fig.savefig(path.with_suffix(".png"), dpi=110)
    plt.close(fig)


if __name__ == "__main__":
    main()
