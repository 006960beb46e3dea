"""Local minima: twenty restarts of a gradient through a model, and CEM on the same model.

Claims, on each task: (1) of 20 open-loop plans that Adam climbs by the model's derivative from random actions, the
best tenth returns more than the median by at least a tenth of the way from random plans to the best plan known, so that
restarts matter; (2) CEM with as many imagined steps as ten of those restarts finds a plan no worse than their median.
Control: random plans return less than the median restart. And, reported, of 20 policies learned from 20 random
initialisations in one model: what each returns in imagination and in the environment, and the spread between them.
Sources: Bharadhwaj et al. 2020 (arXiv 2004.08746) for plans; Deisenroth & Rasmussen 2011 and the lecture for policies.
Budgets and comparisons are fixed here, before the run. Plans start from the states that episodes begin with.
"""

import functools
from collections.abc import Callable
from typing import Any

import gradient_world as world
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jmbrl import planners
from jmbrl.rollout import objective, random_actions
from jmbrl.types import Array, Key

import common

RESTARTS, PLANS, SEEDS = 20, 8, 3
HORIZON, PARTICLES, ADAM = 40, 5, 100
CEM = {"population": 200, "elites": 20, "iterations": 5}  # as many sequences as ten restarts of Adam
UPDATES, BATCH, POLICY_HORIZON = 2_000, 64, 25
ARMS = ("random", "gradient", "best of 20", "cem")


@functools.cache
def search_of(task: str, steps: int) -> Callable:
    """``(agent's state, keys[4], belief) -> returns``, compiled once for all seeds and starts."""
    there = world.setup(task)
    spec = there.env.spec
    climb = planners.gradient(spec, horizon=HORIZON, restarts=1, steps=steps)
    search = planners.cem(spec, horizon=HORIZON, **CEM)

    def run(state: Any, keys: Key, belief: Any) -> dict[str, Array]:
        goal = objective(there.agent.model, state.params, belief, particles=PARTICLES)
        key_random, key_climb, key_cem, key_score = keys

        def climbed(key: Key) -> Array:
            # The planner's only start is its warm start: here a random one.
            key_warm, key_plan = jax.random.split(key)
            return climb.plan(key_plan, random_actions(key_warm, spec, HORIZON), goal)[0]

        drawn = random_actions(key_random, spec, RESTARTS * HORIZON).reshape(RESTARTS, HORIZON, -1)
        paths = jax.vmap(climbed)(jax.random.split(key_climb, RESTARTS))
        found = search.plan(key_cem, search.init(), goal)[0]
        every = jnp.concatenate([drawn, paths, found[None]])
        score = jnp.mean(jax.vmap(lambda k: goal.returns(k, every)[0])(jax.random.split(key_score, 10)), axis=0)
        return {"random": score[:RESTARTS], "gradient": score[RESTARTS:-1], "cem": score[-1:]}

    return jax.jit(run)


def plans(task: str, seed: int, quick: bool) -> dict[str, Any]:
    """Per start, the imagined return of 20 random sequences, of 20 climbed ones and of CEM's, noise drawn afresh."""
    there, state, run = world.setup(task), world.known(task, seed, quick), search_of(task, 5 if quick else ADAM)
    key_start, key_run = jax.random.split(jax.random.key(200 + seed))
    starts = world.begin(there, key_start, state, PLANS)
    keys = jax.vmap(functools.partial(jax.random.split, num=4))(jax.random.split(key_run, PLANS))
    found = [jax.device_get(run(state, keys[i], jax.tree.map(lambda x, i=i: x[i], starts))) for i in range(PLANS)]
    return {name: np.stack([one[name] for one in found]).round(3).tolist() for name in found[0]}


@functools.cache
def learn_of(task: str, updates: int) -> Callable:
    """``(keys[N], agent's state) -> imagined and real returns``: policies from random initialisations side by side."""
    there = world.setup(task)
    learner = there.ascent.learner(POLICY_HORIZON)
    learn = world.climbed(there, learner, updates, BATCH)

    def run(key: Key, state: Any) -> tuple[Array, Array]:
        key_init, key_climb, key_judge = jax.random.split(key, 3)
        after, imagined = learn(key_climb, state, learner.init(key_init))
        # Each update imagines from other states: a mean over the last of them.
        return jnp.mean(imagined[-20:]), world.real_return(there, key_judge, state, after.policy)

    return jax.jit(jax.vmap(run, in_axes=(0, None)))


def policies(task: str, seed: int, quick: bool) -> dict[str, Any]:
    """Of policies from random initialisations, learned side by side in one model: imagined and real return."""
    run, state = learn_of(task, 10 if quick else UPDATES), world.known(task, seed, quick)
    imagined, real = run(jax.random.split(jax.random.key(300 + seed), 3 if quick else RESTARTS), state)
    return {"imagined": np.asarray(imagined).round(3).tolist(), "real": np.asarray(real).round(2).tolist()}


def rows_of(cells: common.Cells, task: str, quick: bool) -> list[dict[str, Any]]:
    seeds = range(1 if quick else SEEDS)
    preset = common.settings_of("bptt", task, {})
    wanted = {
        "env": world.TASKS[task],
        "steps": world.STEPS,
        "horizon": HORIZON,
        "adam": ADAM,
        "cem": CEM,
        "preset": preset,
    }
    found = [cells.get(f"{task}/plans/{s}", wanted, lambda s=s: plans(task, s, quick)) for s in seeds]
    gradient = np.asarray([cell["gradient"] for cell in found])  # [seeds, starts, restarts]
    by_start = {
        "random": np.median([cell["random"] for cell in found], axis=2),
        "gradient": np.median(gradient, axis=2),
        "best of 20": np.max(gradient, axis=2),
        "cem": np.asarray([cell["cem"] for cell in found])[:, :, 0],
    }
    metric = f"imagined return of {HORIZON} steps, mean over {PLANS} starts (of 20: the median, where not the best)"
    rows = [common.row(f"{task}: plans", arm, np.mean(by_start[arm], axis=1), metric, np.median) for arm in ARMS]
    rows[1] |= {
        "restarts": gradient.tolist(),
        "ninth_tenth": np.mean(np.quantile(gradient, 0.9, axis=2), axis=1).tolist(),
    }
    wanted = {"env": world.TASKS[task], "steps": world.STEPS, "updates": UPDATES, "batch": BATCH, "preset": preset}
    learned = [cells.get(f"{task}/policies/{s}", wanted, lambda s=s: policies(task, s, quick)) for s in seeds]
    for name in ("imagined", "real"):
        values = np.asarray([cell[name] for cell in learned])
        for arm, of in (("median", np.median), ("worst", np.min), ("best", np.max)):
            metric = f"{arm} of the {name} returns of {values.shape[1]} policies"
            rows.append(
                common.row(f"{task}: policies, {name}", arm, of(values, axis=1), metric, np.median, all=values.tolist())
            )
    return rows


def verdict(rows: list[dict[str, Any]]) -> dict[str, Any]:
    table, checks = {(r["setting"], r["arm"]): r for r in rows}, []
    for task in world.TASKS:
        random, climbed, best, cem = (table[f"{task}: plans", arm] for arm in ARMS)
        known = max(best["median"], cem["median"])
        gain = float(np.median(climbed["ninth_tenth"])) - climbed["median"]
        share = gain / (known - random["median"])
        matter, level, control = share >= 0.1, cem["median"] >= climbed["median"], random["median"] < climbed["median"]
        checks += [
            (matter, f"{task}: the best tenth of restarts is {share:.2f} of the way better than the median: {matter}"),
            (level, f"{task}: CEM {cem['median']:.4g}, median restart {climbed['median']:.4g}: {level}"),
            (control, f"{task}: random plans (control) {random['median']:.4g}: {control}"),
        ]
    return common.agreement(checks)


def figure(rows: list[dict[str, Any]], path: str) -> None:
    """Left the restarts of plans, a column a seed; right policies, imagined against real."""
    fig, axes = plt.subplots(
        len(world.TASKS), 2, figsize=(10, 3.6 * len(world.TASKS)), squeeze=False, constrained_layout=True
    )
    for (left, right), task in zip(axes, world.TASKS, strict=True):
        table = {r["arm"]: r for r in rows if r["setting"] == f"{task}: plans"}
        for seed, starts in enumerate(table["gradient"]["restarts"]):
            for i, start in enumerate(starts):
                left.plot([seed + i / (1.5 * len(starts))] * len(start), start, ".", color="C0", ms=3, alpha=0.5)
            for color, arm in (("C1", "cem"), ("C7", "random")):
                value = table[arm]["values"][seed]
                left.plot([seed, seed + 0.6], [value] * 2, color=color, lw=2, label=arm if seed == 0 else None)
        left.set(title=f"{task}: plans, 20 restarts a start", xlabel="seed", ylabel="imagined return")
        left.legend(fontsize=7)
        imagined, real = (
            next(r["all"] for r in rows if r["setting"] == f"{task}: policies, {name}") for name in ("imagined", "real")
        )
        for seed, (x, y) in enumerate(zip(imagined, real, strict=True)):
            right.plot(x, y, f"C{seed}o", ms=4, label=f"seed {seed}")
        right.set(title=f"{task}: 20 policies", xlabel="imagined return of the horizon", ylabel="real return")
        right.legend(fontsize=7)
    fig.savefig(path, dpi=110)
    plt.close(fig)


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("gradient_restarts", options.quick, options.fresh)
    rows = [row for task in world.TASKS for row in rows_of(cells, task, options.quick)]
    result = {
        "claim": "gradients through a model end in local optima that differ between restarts; CEM on the same model is "
        "no worse than their median",
        "source": "Bharadhwaj et al. 2020 (arXiv 2004.08746); budgets and comparisons fixed before the run",
        "setting": f"models of BPTT after {world.STEPS:,} real steps, three seeds; open-loop plans of {HORIZON} steps "
        f"from {PLANS} start states; policies by {UPDATES} updates",
        "rows": rows,
        "verdict": verdict(rows),
    }
    path = common.write("gradient_restarts", options.quick, result)
    figure(rows, str(path.with_suffix(".png")))


if __name__ == "__main__":
    main()
