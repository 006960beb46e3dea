"""SLBO's parts, one at a time: the loss of two steps, its norm that is not squared, and model and policy in turns.

Claim: training the model through two imagined steps by the norm of the error of changes, not its square, and improving
model and policy in turns, both help. Source: Luo et al. 2019 (arXiv 1807.03858), algorithm 2 and section 6.1.

Arms of one setting see equal warm-ups and make equally many updates, each of the model on 256 rows in windows of four:

* SLBO: two steps, norm; H = 4: four steps, norm; 1 step, norm; 1 step, squared: the ordinary loss;
* MB-TRPO: SLBO's loss, but all the model's updates of a stage come before all the policy's.

Each stage is 1,000 real steps, then 500 updates of the model and 50 of the policy on 2,000 imagined rows. What counts
is the return without exploration (10 episodes after each stage), averaged over the stages, because where all arms end
at the optimum only speed can differ; and the model's error 20 steps ahead after the last stage, on episodes of uniform
actions that are the same for all arms. Fixed before the run: SLBO's mean return must be above that of "1 step, squared"
and of MB-TRPO in each of the two tasks, and its error below that of "1 step, squared", with a 95 % interval over five
paired seeds that excludes 0. The control is the benchmark's pendulum, which hangs still after one stage however the
model was trained: there the last return must show no such difference. H = 4 and "1 step, norm" are shown, not judged.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import diagnostics, envs
from jmbrl.agents.slbo import SLBOConfig, slbo
from jmbrl.rollout import evaluate
from jmbrl.train import make_train
from jmbrl.types import Key, PyTree

import common

SEEDS, EPISODES, HELD_OUT, AHEAD, STAGE, TURNS = 5, 10, 2000, 20, 1000, 5
STAGES = {"mountain_car": 5, "acrobot": 5, "pendulum": 2}
SIZES: dict[str, Any] = {
    "hidden": (128, 128), "clip_range": 0.1, "length": 4, "model_batch_size": 64, "inner": TURNS, "policy_updates": 10,
    "imagined": 2000, "value_batch_size": 256, "fit_every": STAGE, "warmup": STAGE, "capacity": 6000,
}  # fmt: skip
ARMS: dict[str, dict[str, Any]] = {
    "SLBO": {},
    "1 step, squared": {"steps": 1, "norm": "squared"},
    "MB-TRPO": {"inner": 1, "model_updates": 100 * TURNS, "policy_updates": 10 * TURNS},
    "1 step, norm": {"steps": 1},
    "H = 4": {"steps": 4},
}
JUDGED, CONTROL = ("mountain_car", "acrobot"), "pendulum"
OTHERS = ("1 step, squared", "MB-TRPO")
COMPARISONS = [
    *(common.Compare(f"{task}, return", "SLBO", arm, lower_is_better=False) for task in JUDGED for arm in OTHERS),
    *(common.Compare(f"{task}, {AHEAD} ahead", "SLBO", "1 step, squared") for task in JUDGED),
    *(common.Compare(f"{CONTROL}, last return", "SLBO", arm, False, lower_is_better=False) for arm in OTHERS),
]


def runner(task: str, settings: dict[str, Any], stages: int) -> Callable:
    """``(keys) -> cell``: what all seeds got after each stage, and their models' error, side by side."""
    env = envs.make(f"wang/{task}")
    agent = slbo(env, SLBOConfig(**settings))
    train = make_train(env, agent, (stages + 1) * STAGE)

    def begin(key: Key) -> PyTree:
        return train.chunk(key, train.init(key), 0, STAGE, warmup=True)[0]

    def stage(key: Key, run: PyTree, step: jax.Array) -> tuple[PyTree, jax.Array]:
        run = train.chunk(key, run, step, STAGE)[0]
        return run, evaluate(jax.random.fold_in(key, 1), env, agent, run.agent, EPISODES)["returns"].mean()

    def error(key: Key, run: PyTree) -> dict[str, jax.Array]:
        key_held, key_error = jax.random.split(jax.random.fold_in(key, 2))
        held = common.gather(key_held, env, HELD_OUT, num_envs=10)
        assert agent.model is not None
        assert agent.params is not None
        return diagnostics.model_error(key_error, agent.model, agent.params(run.agent), held, AHEAD, windows=400)

    begin, error = jax.jit(jax.vmap(begin)), jax.jit(jax.vmap(error))
    stage = jax.jit(jax.vmap(stage, in_axes=(0, 0, None)))

    def cell(keys: Key) -> dict[str, Any]:
        run, curve = begin(keys), []
        for i in range(stages):
            run, returns = stage(keys, run, jnp.int32((i + 1) * STAGE))
            curve.append(np.asarray(returns, np.float64).round(3).tolist())
        found = error(keys, run)
        return {"returns": np.transpose(curve).tolist()} | {
            name: np.asarray(found[name], np.float64)[:, -1].round(5).tolist() for name in ("rmse", "persistence")
        }

    return cell


def rows_of(task: str, found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    unit, rows = f"open-loop rmse {AHEAD} steps ahead in standard deviations", []
    for arm, cell in found.items():
        curves = np.asarray(cell["returns"])
        rows += [
            common.row(f"{task}, return", arm, curves.mean(axis=1), "return, mean over stages", curves=cell["returns"]),
            common.row(f"{task}, last return", arm, curves[:, -1], f"return after the last stage, {EPISODES} episodes"),
            common.row(f"{task}, {AHEAD} ahead", arm, cell["rmse"], unit),
        ]
    persistence = next(iter(found.values()))["persistence"]
    return [*rows, common.row(f"{task}, {AHEAD} ahead", "persistence", persistence, unit)]


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("slbo", options.quick, options.fresh)
    seeds, rows = 1 if options.quick else SEEDS, []
    keys = jax.vmap(jax.random.key)(np.arange(seeds))
    for task, planned in STAGES.items():
        stages = 1 if options.quick else planned
        found = {}
        for arm in ("SLBO", *OTHERS) if task == CONTROL else ARMS:
            settings = SIZES | ARMS[arm]
            wanted = settings | {"stages": stages, "seeds": seeds, "held_out": HELD_OUT, "episodes": EPISODES}
            found[arm] = cells.get(
                f"{task}/{arm}", wanted, lambda task=task, s=settings, n=stages: runner(task, s, n)(keys)
            )
            jax.clear_caches()
        rows += rows_of(task, found)
    result = {
        "claim": "a loss of two steps that is not squared, and model and policy improved in turns, help",
        "source": "Luo et al. 2019 (arXiv 1807.03858), algorithm 2 and section 6.1",
        "setting": f"wang/ tasks, {seeds} seeds, stages of {STAGE} real steps, 500 model and 50 policy updates "
        f"({', '.join(f'{task}: {n} stages' for task, n in STAGES.items())}); network {SIZES['hidden']}, "
        f"{SIZES['imagined']} imagined rows per policy update",
        "rows": rows,
        "verdict": common.judge(rows, COMPARISONS),
    }
    path = common.write("slbo", options.quick, result)
    shown = [row for row in rows if not (row["setting"].startswith(CONTROL) ^ row["setting"].endswith("last return"))]
    common.bars(shown, str(path.with_suffix(".png")), "return, or rmse (sd)")


if __name__ == "__main__":
    main()
