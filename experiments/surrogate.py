"""A learned model in place of an expensive simulator: what it gains in speed, what it costs in error.

Claim: for a host MuJoCo task a network gives more than ten times the simulator's transitions per second (compiled, 1000
at once), its error below persistence's for at least 5 steps; in place of a cheap compiled simulator it brings no speed.
Sources: Nagabandi et al. 2018 (arXiv 1708.02596) and Janner et al. 2019 (arXiv 1906.08253) use such models for short
rollouts; neither states a ratio: the ten is ours, fixed before the run.
Times are of one process, the contenders in turn, and count as ratios: other work slows all of them. The real side is
the fastest of a bare Gymnasium loop and the library's environments, one and several.
"""

import time
from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import numpy as np

from jmbrl import diagnostics, envs, models
from jmbrl.rollout import imagine, random_actions, tile
from jmbrl.types import Env, Model, Params

import common

ROWS, TEST_ROWS, SEEDS, ROUNDS, MIN_RATIO = 16_000, 4_000, 5, 5, 10.0
HIDDEN, EPOCHS, BATCH = (128, 128), 40, 128
AHEAD = (1, 5, 10, 20)
EXPENSIVE, CHEAP = "gymnasium:HalfCheetah-v5", "gymnax:Pendulum-v1"
# Copies and steps of one timed call.
REAL = {EXPENSIVE: {"real, 1": (1, 500), "real, 8": (8, 100)}, CHEAP: {"real, 1": (1, 2000), "real, 1000": (1000, 200)}}
LEARNED = {"learned, 1": (1, 500), "learned, 1000": (1000, 20)}


def learned(env: Env, model: Model, count: int, steps: int) -> Callable:
    def run(key: jax.Array, params: Params) -> Any:
        act = lambda key, beliefs, t: (random_actions(key, env.spec, count), ())  # noqa: E731
        step = lambda key, beliefs, actions: model.step_many(key, params, beliefs, actions)  # noqa: E731
        last, path = imagine(key, step, tile(model.initial(params), count), act, steps)
        return last, path.outcome.reward

    return jax.jit(run)


def real(env: Env, count: int, steps: int) -> Callable:
    worlds = env.vector(count)

    def run(key: jax.Array, params: Params) -> Any:
        del params
        one = lambda state, key: worlds.step(key, state, random_actions(key, env.spec, count))  # noqa: E731
        last, seen = jax.lax.scan(one, worlds.reset(key)[0], jax.random.split(key, steps))
        return last, seen.reward

    return jax.jit(run)


def bare_loop(name: str, env: Env, steps: int) -> Callable:
    """Gymnasium alone, without this library and JAX."""
    world = gymnasium.make(name.partition(":")[2], disable_env_checker=True)
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, *env.spec.action.shape))

    def run(key: jax.Array, params: Params) -> None:
        world.reset(seed=0)
        for action in actions:
            world.step(action)

    return run


def measure(calls: dict[str, tuple[Callable, int]], params: Params) -> dict[str, float]:
    """Transitions per second of each contender: the median round, the contenders in turn, compiled before."""
    spent: dict[str, list[float]] = {arm: [] for arm in calls}
    for _ in range(1 + ROUNDS):
        for arm, (call, _) in calls.items():
            began = time.perf_counter()
            jax.block_until_ready(call(jax.random.key(0), params))
            spent[arm].append(time.perf_counter() - began)
    rates = {arm: count / float(np.median(spent[arm][1:])) for arm, (_, count) in calls.items()}
    return rates | {"real, fastest": max(rate for arm, rate in rates.items() if arm.startswith("real"))}


def runner(name: str) -> Callable:
    """``(seed) -> cell``, compiled once for all seeds."""
    env = envs.make(name)
    model = models.deterministic_mlp(env.spec, hidden=HIDDEN, reward=env.reward_fn)
    calls = {arm: (real(env, *size), size[0] * size[1]) for arm, size in REAL[name].items()}
    calls |= {arm: (learned(env, model, *size), size[0] * size[1]) for arm, size in LEARNED.items()}
    if env.spec.host:
        calls["real, bare loop"] = bare_loop(name, env, 500), 500
    gather = jax.jit(lambda key, rows: common.gather(key, env, rows, num_envs=8), static_argnums=1)
    error = jax.jit(lambda key, params, ring: diagnostics.model_error(key, model, params, ring, max(AHEAD), 1000))
    fit = jax.jit(lambda key, ring: common.fitted(key, model, ring, epochs=EPOCHS, batch_size=BATCH))

    def cell(seed: int) -> dict[str, Any]:
        key_rows, key_test, key_fit, key_error = jax.random.split(jax.random.key(seed), 4)
        seen, held = jax.block_until_ready((gather(key_rows, ROWS), gather(key_test, TEST_ROWS)))
        began = time.perf_counter()
        params = jax.block_until_ready(fit(key_fit, seen))  # the first seed's time is mostly compilation
        fit_seconds = round(time.perf_counter() - began, 2)
        found = error(key_error, params, held)
        curve = {k: [round(float(x), 4) for x in found[k]] for k in ("rmse", "persistence")}
        return {"rates": measure(calls, params), "fit_seconds": fit_seconds, **curve}

    return cell


def rows_of(name: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    seconds = float(np.median([c["fit_seconds"] for c in found]))
    rows = []
    for arm in found[0]["rates"]:
        per_second = np.asarray([c["rates"][arm] for c in found])
        more = {"per_second": round(float(np.median(per_second))), "fit_seconds": seconds}
        rows.append(common.row(f"{name}, rate", arm, np.log10(per_second), "log10 transitions / s", **more))
    for h in AHEAD:
        for arm, kind in (("learned", "rmse"), ("persistence", "persistence")):
            values = [c[kind][h - 1] for c in found]
            rows.append(common.row(f"{name}, {h} ahead", arm, values, "open-loop rmse, sd"))
    return rows


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("surrogate", options.quick, options.fresh)
    wanted = {"rows": ROWS, "hidden": HIDDEN, "epochs": EPOCHS, "batch": BATCH, "rounds": ROUNDS}
    rows, seeds = [], range(1 if options.quick else SEEDS)
    for name in (EXPENSIVE, CHEAP):
        cell = runner(name)
        found = [cells.get(f"{name}/{s}", wanted, lambda cell=cell, s=s: cell(s)) for s in seeds]
        rows += rows_of(name, found)
    compare = [
        common.Compare(f"{EXPENSIVE}, rate", "learned, 1000", "real, fastest", True, False, margin=np.log10(MIN_RATIO)),
        *(common.Compare(f"{EXPENSIVE}, {h} ahead", "learned", "persistence") for h in AHEAD if h <= 5),
        common.Compare(f"{CHEAP}, rate", "learned, 1000", "real, fastest", False, False),
    ]
    result = {
        "claim": "a network gives ten times an expensive simulator's transitions and beats persistence to 5 steps",
        "source": "Nagabandi et al. 2018 (arXiv 1708.02596); Janner et al. 2019 (arXiv 1906.08253); the ratio is ours",
        "setting": f"{ROWS} rows of uniform actions, errors on {TEST_ROWS} others (1 is predicting the mean); one "
        f"deterministic network {HIDDEN}, HalfCheetah's reward learned; rates on a shared two-core machine: ratios "
        "only; differences of rates are in powers of ten",
        "rows": rows,
        "verdict": common.judge(rows, compare),
    }
    path = common.write("surrogate", options.quick, result)
    shown = [r for r in rows if EXPENSIVE in r["setting"] or "rate" in r["setting"]]
    common.bars(shown, str(path.with_suffix(".png")), "log10 transitions / s, or rmse (sd)")


if __name__ == "__main__":
    main()
