"""What the blocking and the shortcut maze share: Dyna-Q, Dyna-Q+ and a control in a world that changes under them."""

from typing import NamedTuple

import jax
import matplotlib.pyplot as plt
import numpy as np

from jmbrl import agents, envs
from jmbrl.agents import greedy_steps
from jmbrl.train import make_train

import common


class Case(NamedTuple):
    """One maze. ``sheet``: arm -> published ``{time: (mean, deviation or None)}`` of ``published_runs`` runs."""

    name: str
    change_at: int
    steps: int
    planning_steps: int
    kappa: float
    optimum: tuple[int, int]  # before and after the change
    sheet: dict
    published_runs: int
    claim: str
    source: str
    setting: str
    comparisons: list
    knows: dict  # arm -> whether its model should know the new optimum at the end (in 90 % of the runs, or in 10 %)


# "untried only" imagines untried actions, as Dyna-Q+ does, but is paid nothing for elapsed time; "kappa 0.1" is paid as
# much for a pair left alone for 100 steps as for the goal.
ARMS = {"Dyna-Q": {}, "Dyna-Q+": {"kappa": None}, "untried only": {"untried": True}, "kappa 0.1": {"kappa": 0.1}}


def settings_of(case: Case, arm: str) -> dict:
    own = {"kappa": case.kappa} if arm == "Dyna-Q+" else ARMS[arm]
    return {"planning_steps": case.planning_steps, "alpha": 1.0, "gamma": 0.95, "epsilon": 0.1, **own}


def lived(case: Case, arm: str, runs: int) -> dict:
    """Cumulative reward of every run at every tenth step, and the best path that each has in its model at the end."""
    env = envs.make(case.name, change_at=case.change_at, max_steps=1_000_000)
    train = make_train(env, agents.dyna_q(env, agents.DynaQConfig(**settings_of(case, arm))), case.steps)
    states, history = common.lanes(train, runs, case.steps, first=1000 * list(ARMS).index(arm))
    changed = envs.make(case.name, change_at=0)
    exactly = agents.DynaQConfig(planning_steps=300, planning_alpha=1.0, backup="full")
    solve = agents.dyna_q(env, exactly).phases[0][1]

    def path(state: agents.DynaQState) -> jax.Array:
        key = jax.random.key(0)
        return greedy_steps(changed, solve(key, state, 0)[0].learner.values, 200, key)

    reward = np.cumsum(history["reward"][..., 0], axis=1)
    return {"reward": reward[:, 9::10].tolist(), "paths": jax.jit(jax.vmap(path))(states.agent).tolist()}


def run(case: Case) -> None:
    options = common.arguments(case.claim)
    cells = common.Cells(case.name, options.quick, options.fresh)
    runs = 20 if options.quick else 100
    rows, checks, curves = [], [], {}
    for arm in ARMS:
        settings = {**settings_of(case, arm), "runs": runs, "steps": case.steps, "change_at": case.change_at}
        cell = cells.get(arm, settings, lambda arm=arm: lived(case, arm, runs))
        curves[arm] = np.asarray(cell["reward"], float)
        for t in next(iter(case.sheet.values())):
            mean, spread = case.sheet.get(arm, {}).get(t, (None, None))
            values = curves[arm][:, t // 10 - 1]
            published = {} if mean is None else {"published": mean, "published_sd": spread}
            rows.append(common.row(f"step {t}", arm, values, "cumulative reward", **published))
            if mean is not None:
                checks.append(common.like_the_sheet(f"{arm}, step {t}", values, mean, case.published_runs))
        knows = np.asarray(cell["paths"]) == case.optimum[1]
        rows.append(common.row("end", arm, knows, "share of runs that know the new optimum", steps=case.optimum[1]))
        if arm in case.knows:
            fits = np.mean(knows) >= 0.9 if case.knows[arm] else np.mean(knows) <= 0.1
            wanted = "at least 0.9" if case.knows[arm] else "at most 0.1"
            share = f"{arm}: the new optimum is known in {np.mean(knows):.2f} of the runs, expected {wanted}"
            checks.append((bool(fits), share))
    result = {
        "claim": case.claim,
        "source": case.source,
        "setting": f"{case.setting}; {runs} runs; published means of {case.published_runs} runs of the textbook's "
        "reference code; 'untried only' imagines untried actions as Dyna-Q+ does, without the bonus, "
        "'kappa 0.1' has one that is too large",
        "rows": rows,
        "verdict": common.together(common.judge(rows, case.comparisons), common.agreement(checks)),
    }
    draw(case, curves, common.write(case.name, options.quick, result))


def draw(case: Case, curves: dict, path: common.Path) -> None:
    fig, axis = plt.subplots(figsize=(5.4, 3.6), constrained_layout=True)
    for i, (arm, reward) in enumerate(curves.items()):
        time = 10 * np.arange(1, reward.shape[1] + 1)
        low, high = np.percentile(reward, [10, 90], axis=0)
        axis.plot(time, reward.mean(axis=0), color=f"C{i}", label=arm)
        axis.fill_between(time, low, high, color=f"C{i}", alpha=0.15, lw=0)
        for t, (mean, _) in case.sheet.get(arm, {}).items():
            axis.plot(t, mean, "+", color="k", ms=6)
    axis.plot([], [], "k+", label="published")
    axis.axvline(case.change_at, color="0.6", lw=0.8, ls="--")
    axis.set(xlabel="real steps", ylabel="cumulative reward (mean, 10-90 %)", title=case.name.replace("_", " "))
    axis.legend(frameon=False)
    fig.savefig(path.with_suffix(".png"), dpi=110)
    plt.close(fig)
