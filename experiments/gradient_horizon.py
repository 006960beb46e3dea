"""The field's standing warning, measured: what a policy gradient through a learned model knows, against the horizon.

Claims, on each task: (1) the pathwise (reparameterised) gradient's spread grows faster with the horizon than its size,
so that its signal-to-noise ratio at the longest horizon is below that at 5 steps; (2) at a horizon of 5 it is above the
likelihood ratio's, which needs no derivative; (3) of policies learned at the longest horizon, a derivative that passes
10 steps at most, or a value after 10 steps instead of the rest, returns no less in the real environment than the whole
derivative. Control for (3): a horizon of 1, which knows no future, returns less.
Sources: Heess et al. 2015 (arXiv 1510.09142); Parmas et al. 2018 (arXiv 1902.01240); Metz et al. 2021 (arXiv
2111.05803); Clavera et al. 2020 (arXiv 2005.08068). Horizons, batch and comparisons are fixed here, before the run.

A seed is a run of BPTT with a stochastic policy: 3,000 real steps, then its model as it is. Gradients are those of a
policy that learned nothing yet, for 512 real states, with a batch of 128 as a learner takes, and beside them those of
the policy the model came with: that is near the optimum of its own 20 steps, where its gradient vanishes without
being noise. Then policies are learned from scratch in that model and tried in the environment.
"""

import functools
from collections.abc import Callable
from typing import Any

import gradient_world as world
import jax
import matplotlib.pyplot as plt
import numpy as np

from jmbrl import diagnostics
from jmbrl.diagnostics.gradients import ESTIMATORS

import common

HORIZONS = (1, 2, 5, 10, 20, 40, 80, 120)
LENGTHS = (1, 5, 20, 80)  # of learning
CUT, SEEDS, STARTS, BATCH, UPDATES = 10, 3, 512, 128, 2_000
POLICIES = ("learned", "untrained")


def variants(length: int) -> dict[str, dict[str, Any]]:
    """How a horizon of that many steps is differentiated. ``value``: of at most 10 steps and a value after them."""
    return {
        "whole": {"horizon": length},
        "truncated": {"horizon": length, "truncation": min(CUT, length)},
        "value": {"horizon": min(CUT, length), "terminal_value": True},
    }


@functools.cache
def measure_of(task: str, kind: str, horizons: tuple[int, ...]) -> Callable:
    """Compiled once for all seeds and policies."""
    there = world.setup(task)
    learner_of = lambda length: there.ascent.learner(**variants(length)[kind])  # noqa: E731
    return diagnostics.gradients_by_horizon(learner_of, there.ascent.world, horizons, BATCH)


@functools.cache
def value_of(task: str, updates: int) -> Callable:
    """``(key, agent's state, policy) -> weights``: the value of a policy that stays as it is, learned in the model."""
    there = world.setup(task)
    learner = there.ascent.learner(20, terminal_value=True, learning_rate=0.0)
    learn = world.climbed(there, learner, updates, BATCH)
    return jax.jit(lambda key, state, policy: learn(key, state, world.with_policy(learner, key, policy))[0].slow)


def gradients(task: str, seed: int, quick: bool) -> dict[str, Any]:
    """Norm, spread and signal against the horizon: of three estimators, of a truncated derivative, with a value."""
    there, state = world.setup(task), world.known(task, seed, quick)
    horizons = HORIZONS[2:4] if quick else HORIZONS
    found: dict[str, Any] = {"horizons": horizons}
    key_policy, key_starts, key_value, key_measure = jax.random.split(jax.random.key(100 + seed), 4)
    beliefs = there.ascent.starts(key_starts, state, 64 if quick else STARTS)
    fresh = there.ascent.learner(1).init(key_policy).policy
    for name, policy in zip(POLICIES, (state.learner.policy, fresh), strict=True):
        for kind in variants(1):
            slow = value_of(task, 50 if quick else 1_000)(key_value, state, policy) if kind == "value" else ()
            numbers = measure_of(task, kind, horizons)(key_measure, policy, slow, state, beliefs)
            for estimator in ESTIMATORS if kind == "whole" else ESTIMATORS[:1]:
                label = estimator if kind == "whole" else kind
                found[f"{name}/{label}"] = {k: [float(f"{x:.5g}") for x in v] for k, v in numbers[estimator].items()}
    return found


@functools.cache
def learn_of(task: str, kind: str, length: int, updates: int) -> Callable:
    """``(key, agent's state) -> real return`` of a policy from scratch, compiled once for all seeds."""
    there = world.setup(task)
    learner = there.ascent.learner(**variants(length)[kind])
    learn = world.climbed(there, learner, updates, BATCH)

    def run(key: jax.Array, state: Any) -> jax.Array:
        key_init, key_climb, key_judge = jax.random.split(key, 3)
        policy = learn(key_climb, state, learner.init(key_init))[0].policy
        return world.real_return(there, key_judge, state, policy)

    return jax.jit(run)


def learning(task: str, seed: int, kind: str, length: int, quick: bool) -> dict[str, Any]:
    """A policy from scratch in the model: what it returns in the environment."""
    run = learn_of(task, kind, length, 20 if quick else UPDATES)
    return {"return": float(run(jax.random.key(1000 + seed), world.known(task, seed, quick)))}


def rows_of(cells: common.Cells, task: str, quick: bool) -> list[dict[str, Any]]:
    seeds, lengths = (1, LENGTHS[:2]) if quick else (SEEDS, LENGTHS)
    rows, wanted = [], {"env": world.TASKS[task], "steps": world.STEPS, "starts": STARTS, "batch": BATCH, "cut": CUT}
    measured = [
        cells.get(
            f"{task}/gradients/{seed}",
            wanted | {"horizons": HORIZONS, "preset": common.settings_of("bptt", task, {})},
            lambda seed=seed: gradients(task, seed, quick),
        )
        for seed in range(seeds)
    ]
    horizons = measured[0]["horizons"]
    for name in [name for name in measured[0] if "/" in name]:
        curves = [cell[name] for cell in measured]
        first = [diagnostics.first_noise(horizons, curve["snr"]) for curve in curves]
        metric = f"horizon at which the signal of {BATCH} trajectories falls below the noise (never: {horizons[-1]})"
        more = {k: [curve[k] for curve in curves] for k in ("norm", "spread", "snr", "broken")}
        rows.append(
            common.row(
                f"{task}: gradient", name, np.minimum(first, horizons[-1]), metric, np.median, horizons=horizons, **more
            )
        )
    for length in lengths:
        for kind in variants(length):
            found = [
                cells.get(
                    f"{task}/{kind}/{length}/{seed}",
                    wanted | {"updates": UPDATES, "preset": common.settings_of("bptt", task, {})},
                    lambda seed=seed, kind=kind, length=length: learning(task, seed, kind, length, quick),
                )
                for seed in range(seeds)
            ]
            metric = f"real return after {UPDATES} updates in the model"
            values = [cell["return"] for cell in found]
            rows.append(
                common.row(
                    f"{task}: learning", f"{kind}, {length}", values, metric, np.median, length=length, kind=kind
                )
            )
    return rows


def verdict(rows: list[dict[str, Any]]) -> dict[str, Any]:
    table, checks = {(r["setting"], r["arm"]): r for r in rows}, []
    for task in world.TASKS:
        path, ratio = (table[f"{task}: gradient", f"untrained/{e}"] for e in ESTIMATORS[:2])
        near = path["horizons"].index(5)
        at = lambda r, i: float(np.median([snr[i] for snr in r["snr"]]))  # noqa: E731
        falls, above = at(path, -1) < at(path, near), at(path, near) > at(ratio, near)
        far = path["horizons"][-1]
        checks += [
            (
                falls,
                f"{task}: pathwise signal to noise {at(path, near):.3g} at 5, {at(path, -1):.3g} at {far}: {falls}",
            ),
            (above, f"{task}: at 5 likelihood ratio {at(ratio, near):.3g}: {above}"),
        ]
        longest = max(r["length"] for r in rows if r["setting"] == f"{task}: learning")
        returns = {kind: table[f"{task}: learning", f"{kind}, {longest}"]["median"] for kind in variants(1)}
        one = table[f"{task}: learning", "whole, 1"]["median"]
        for kind in ("truncated", "value"):
            good = returns[kind] >= returns["whole"]
            checks.append(
                (
                    good,
                    f"{task}: learned at {longest}: {kind} {returns[kind]:.4g}, whole {returns['whole']:.4g}: {good}",
                )
            )
        best = max(r["median"] for r in rows if r["setting"] == f"{task}: learning")
        checks.append((one < best, f"{task}: a horizon of 1 (control) {one:.4g}, best {best:.4g}"))
    return common.agreement(checks)


def figure(rows: list[dict[str, Any]], path: str) -> None:
    """A row a task: size and spread, signal to noise, and what policies return that learned at each horizon."""
    fig, axes = plt.subplots(
        len(world.TASKS), 3, figsize=(15, 4 * len(world.TASKS)), squeeze=False, constrained_layout=True
    )
    for line, task in zip(axes, world.TASKS, strict=True):
        here = [r for r in rows if r["setting"] == f"{task}: gradient" and r["arm"].startswith("untrained/")]
        for i, r in enumerate(here):
            middle = {k: np.median(r[k], axis=0) for k in ("norm", "spread", "snr")}
            label = r["arm"].partition("/")[2]
            line[0].plot(r["horizons"], middle["norm"], f"C{i}-o", ms=3, label=label)
            line[0].plot(r["horizons"], middle["spread"], f"C{i}--", lw=1)
            line[1].plot(r["horizons"], middle["snr"], f"C{i}-o", ms=3, label=label)
            for seed in r["snr"]:
                line[1].plot(r["horizons"], seed, color=f"C{i}", alpha=0.2, lw=0.8)
        line[1].axhline(1.0, color="k", lw=0.8, ls=":")
        line[0].set(title=f"{task}: norm (full) and spread (dashed)", xlabel="horizon", ylabel="gradient", yscale="log")
        line[1].set(title=f"signal to noise, batch of {BATCH}", xlabel="horizon", yscale="log")
        for i, kind in enumerate(variants(1)):
            kept = [r for r in rows if r["setting"] == f"{task}: learning" and r["kind"] == kind]
            line[2].plot([r["length"] for r in kept], [r["median"] for r in kept], f"C{i}-o", label=kind)
            for r in kept:
                line[2].plot([r["length"]] * len(r["values"]), r["values"], f"C{i}.", ms=4, alpha=0.5)
        line[2].set(title=f"learned in the model, {UPDATES} updates", xlabel="horizon", ylabel="real return")
        for axis in line:
            axis.set_xscale("log")
            axis.legend(fontsize=7)
    fig.savefig(path, dpi=110)
    plt.close(fig)


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("gradient_horizon", options.quick, options.fresh)
    rows = [row for task in world.TASKS for row in rows_of(cells, task, options.quick)]
    result = {
        "claim": "the pathwise gradient's noise outgrows its signal with the horizon; truncation or a value repairs "
        "what is learned at long horizons",
        "source": "Heess et al. 2015 (arXiv 1510.09142), Parmas et al. 2018 (arXiv 1902.01240), Metz et al. 2021 "
        "(arXiv 2111.05803); horizons and comparisons fixed before the run",
        "setting": f"models of BPTT after {world.STEPS:,} real steps; {STARTS} real states; three seeds",
        "rows": rows,
        "verdict": verdict(rows),
    }
    path = common.write("gradient_horizon", options.quick, result)
    figure(rows, str(path.with_suffix(".png")))


if __name__ == "__main__":
    main()
