"""What every experiment shares: finished cells that are kept, data, curves of one run, verdicts, the result file."""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before jax loads it: see the note in models/gp.py

import jax
import matplotlib.pyplot as plt
import numpy as np

from jmbrl import agents, data, envs, stats
from jmbrl.cache import enable as enable_cache
from jmbrl.models.trainers import trainer_for
from jmbrl.rollout import evaluate, random_actions
from jmbrl.train import Train, make_train
from jmbrl.types import Agent, Env, Model, Params, Transition

RESULTS = Path(__file__).parent / "results"

# A latent model of a vector, as small as the networks it is compared with.
SMALL_LATENT = {
    "deter": 64, "stoch": 8, "hidden": 64, "free_nats": 0.0, "reward_units": 64,
    "scales": {"reward": 10.0, "dynamics": 0.1, "representation": 0.1},
    "sight": {"vectors": "normalized", "units": 64, "layers": 1},
}  # fmt: skip


def arguments(description: str, **flags: str) -> argparse.Namespace:
    """``--quick``: one seed and short runs, written beside the real result; ``--fresh``: forget finished cells;
    ``flags``: further ones, name and help."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="minutes, one seed; results/NAME.quick.json")
    parser.add_argument("--fresh", action="store_true", help="run finished cells again")
    for name, words in flags.items():
        parser.add_argument(f"--{name}", action="store_true", help=words)
    enable_cache()
    return parser.parse_args()


class Cells:
    """Finished cells of an experiment, written after each so that an interrupted run continues.

    A cell is looked up by its name and its settings: changed settings run again.
    """

    seconds: ClassVar[float] = 0.0  # of the cells asked for in this process, when they ran

    def __init__(self, name: str, quick: bool, fresh: bool):
        RESULTS.mkdir(exist_ok=True)
        self.path = RESULTS / f"{name}{'.quick' if quick else ''}.cells.json"
        self.cells = json.loads(self.path.read_text()) if self.path.exists() and not fresh else {}

    def get(self, name: str, settings: dict[str, Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        settings = json.loads(json.dumps(settings))
        found = self.cells.get(name)
        if found is not None and found["settings"] == settings:
            print(f"{name}: kept", flush=True)
            Cells.seconds += found["wall_seconds"]
            return found
        began = time.perf_counter()
        self.cells[name] = {"settings": settings, **compute(), "wall_seconds": round(time.perf_counter() - began, 1)}
        partial = self.path.with_suffix(".tmp")
        partial.write_text(json.dumps(self.cells, indent=1))
        partial.replace(self.path)
        Cells.seconds += self.cells[name]["wall_seconds"]
        print(f"{name}: {self.cells[name]['wall_seconds']} s", flush=True)
        return self.cells[name]


def settings_of(system: str, preset: str | None, overrides: dict[str, Any]) -> dict[str, Any]:
    """A system's settings: its preset's, then ``overrides``."""
    return {**(agents.PRESETS[system][preset] if preset else {}), **overrides}


def make_run(
    system: str, env: str | Env, settings: dict[str, Any], steps: int, num_envs: int = 1, **env_options: Any
) -> Train:
    """``make_train`` of a named system with settings."""
    page = agents.SYSTEMS[system]
    config = page.config(**settings)
    world = page.wrap(envs.make(env, **env_options), config)
    return make_train(world, page.make(world, config), steps, num_envs)


def episode_returns(train: Train, chunk: Callable, seed: int) -> dict[str, list]:
    """Returns and lengths of a run's episodes in the order they ended, the random ones of the warm-up included."""
    key = jax.random.key(seed)
    run = jax.jit(train.init)(key)
    returns, lengths = [], []
    for span in train.spans():
        run, metrics = chunk(key, run, np.int32(span.start), span.length, span.warmup)
        done = np.asarray(metrics["episode_length"]) > 0
        returns += np.asarray(metrics["episode_return"])[done].tolist()
        lengths += np.asarray(metrics["episode_length"])[done].tolist()
    return {"returns": [round(x, 3) for x in returns], "lengths": lengths}


def curves(cells: Cells, name: str, settings: dict[str, Any], train: Train, seeds: int) -> list[list[float]]:
    """The episodes' returns of each seed, as finished cells ``name/seed``; the run is compiled once."""
    chunk = compiled_chunk(train)
    return [
        cells.get(f"{name}/{seed}", settings, lambda seed=seed: episode_returns(train, chunk, seed))["returns"]
        for seed in range(seeds)
    ]


def evaluated(train: Train, seeds: int, every: int, episodes: int) -> dict[str, Any]:
    """Learning curves without exploration: after the warm-up and then after each ``every`` environment steps the mean
    return of ``episodes`` episodes without exploration.

    The seeds of a JAX environment run side by side, those of a host environment one after another.

    Returns:
      ``steps[T]``; ``returns[seeds][T]``; ``seconds[T]``, the time spent in training until then, all seeds together,
      compilation and evaluation apart.
    """
    if train.env.spec.host:
        parts = [_evaluated(train, jax.random.key(seed), every, episodes, lambda f, axes: f) for seed in range(seeds)]
        seconds = np.sum([part["seconds"] for part in parts], axis=0).round(2).tolist()
        return {**parts[0], "returns": [part["returns"] for part in parts], "seconds": seconds}
    keys = jax.vmap(jax.random.key)(np.arange(seeds))
    return _evaluated(train, keys, every, episodes, lambda f, axes: jax.vmap(f, in_axes=axes))


def _evaluated(train: Train, keys: jax.Array, every: int, episodes: int, mapped: Callable) -> dict[str, Any]:
    run, programs, steps, curve, seconds, spent = jax.jit(mapped(train.init, 0))(keys), {}, [], [], [], 0.0

    def score(key: jax.Array, run: Any, at: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.fold_in(key, 2**30), at)  # other start states each time
        return jax.numpy.mean(evaluate(key, train.env, train.agent, run.agent, episodes)["returns"])

    judge_run = jax.jit(mapped(score, (0, 0, None)))
    for span in train.spans(every // train.period):
        kind = (span.length, span.warmup)
        if kind not in programs:
            step = lambda key, run, at, kind=kind: train.chunk(key, run, at, *kind)  # noqa: E731
            program = jax.jit(mapped(step, (0, 0, None)), donate_argnums=1)
            programs[kind] = program.lower(keys, run, np.int32(span.start)).compile()
        began = time.perf_counter()
        run, _ = jax.block_until_ready(programs[kind](keys, run, np.int32(span.start)))
        spent += time.perf_counter() - began
        steps.append(span.start + span.length)
        seconds.append(round(spent, 2))
        curve.append(np.asarray(judge_run(keys, run, np.int32(steps[-1]))))
        print(f"  {steps[-1]} steps, {spent:.0f} s: {np.round(np.median(curve[-1]), 1)}", flush=True)
    return {"steps": steps, "returns": np.asarray(curve).T.round(3).tolist(), "seconds": seconds}


def first_reached(curves: dict[str, Any], threshold: float) -> list[float]:
    """Per seed of ``evaluated``: the environment steps after which its return first reached ``threshold``, or NaN."""
    found = [[s for s, r in zip(curves["steps"], seed, strict=True) if r >= threshold] for seed in curves["returns"]]
    return [float(steps[0]) if steps else float("nan") for steps in found]


def compiled_chunk(train: Train) -> Callable:
    """``train.chunk`` jitted once for all seeds of a cell row."""
    return jax.jit(train.chunk, static_argnums=(3, 4), donate_argnums=1)


def gather(key: jax.Array, env: Env, steps: int, act: Callable | None = None, num_envs: int = 1) -> data.Replay:
    """``steps`` real rows under ``act(key, obs) -> action``, uniform actions by default. Pure: jit and vmap it."""

    def choose(key: jax.Array, ring: data.Replay, carry: tuple, obs: Any, is_first: jax.Array, explore: bool) -> tuple:
        del ring, is_first, explore
        return (random_action(key, env) if act is None else act(key, obs)), carry, {}

    def record(ring: data.Replay, carry: tuple, rows: Transition, valid: jax.Array) -> data.Replay:
        del carry
        return data.add(ring, rows, valid)

    watcher = Agent(
        lambda key, num_envs: data.empty(env.spec, -(-steps // num_envs), num_envs), lambda ring: (), choose, record
    )
    return make_train(env, watcher, steps, num_envs)(key)[0].agent


def random_action(key: jax.Array, env: Env) -> jax.Array:
    """One uniform action."""
    return random_actions(key, env.spec, 1)[0]


def fitted(key: jax.Array, model: Model, replay: data.Replay, **options: Any) -> Params:
    """A model's parameters after one fit to ``replay``; ``options`` of the trainer that it needs. Pure: jit it."""
    key_init, key_fit = jax.random.split(key)
    params, trainer = model.init(key_init), trainer_for(model, **options)
    return trainer.fit(key_fit, params, trainer.init(params), replay)[0]


def row(setting: str, arm: str, values: Any, metric: str, statistic: Callable = np.mean, **more: Any) -> dict[str, Any]:
    """One line of a result: an arm in a setting, a number a seed, their statistic and its interval."""
    values = np.asarray(values, np.float64)
    low, high = stats.bootstrap(values, statistic)
    rounded = lambda x: float(f"{x:.5g}")  # noqa: E731
    return {
        "setting": setting,
        "arm": arm,
        "metric": metric,
        "seeds": len(values),
        "values": [rounded(v) for v in values],
        statistic.__name__: rounded(statistic(values)),
        "interval": [rounded(low), rounded(high)],
        **more,
    }


class Compare(NamedTuple):
    """``better`` should beat ``worse`` in ``setting``; with ``expected`` False, the control where it should not.

    ``margin``: the difference that counts, in the metric's units; ``paired``: the same seeds saw the same data.
    """

    setting: str
    better: str
    worse: str
    expected: bool = True
    lower_is_better: bool = True
    paired: bool = True
    margin: float = 0.0


def judge(rows: list[dict[str, Any]], comparisons: list[Compare]) -> dict[str, Any]:
    """The verdict: each expected difference's 95 % interval excludes 0 on the right side, each control's does not."""
    table = {(r["setting"], r["arm"]): np.asarray(r["values"]) for r in rows}
    holds, why = True, []
    for c in comparisons:
        a, b = table[c.setting, c.better], table[c.setting, c.worse]
        sign = -1.0 if c.lower_is_better else 1.0
        if c.paired:
            gain, (low, high) = float(np.mean(sign * (a - b))), stats.bootstrap(sign * (a - b))
        else:
            gain, low, high = stats.difference(sign * a, sign * b)
        seen = low > c.margin
        holds &= seen == c.expected
        kind = "" if c.expected else "control, should not: "
        why.append(
            f"{c.setting}: {kind}{c.better} beats {c.worse} by {gain:.4g} [{low:.4g}, {high:.4g}]: "
            f"{'yes' if seen else 'no'}"
        )
    return {"holds": bool(holds), "why": "; ".join(why)}


def bars(rows: list[dict[str, Any]], path: str, ylabel: str, log: bool = False) -> None:
    """A panel a setting: every seed as a dot, the statistic and its interval as a bar, an arm a place."""
    settings = list(dict.fromkeys(r["setting"] for r in rows))
    fig, axes = plt.subplots(
        1, len(settings), figsize=(1.2 + 3.0 * len(settings), 3.4), squeeze=False, constrained_layout=True
    )
    for axis, setting in zip(axes[0], settings, strict=True):
        here = [r for r in rows if r["setting"] == setting]
        for i, r in enumerate(here):
            middle = r.get("mean", r.get("median"))
            axis.plot([i] * len(r["values"]), r["values"], "o", color="C7", ms=3, alpha=0.6)
            low, high = r["interval"]
            axis.errorbar(i, middle, [[max(middle - low, 0)], [max(high - middle, 0)]], fmt="s", color="C0", capsize=4)
        axis.set_xticks(range(len(here)), [r["arm"] for r in here], rotation=30, ha="right", fontsize=8)
        axis.set(title=setting, ylabel=ylabel)
        if log:
            axis.set_yscale("log")
    fig.savefig(path, dpi=110)
    plt.close(fig)


def write(name: str, quick: bool, result: dict[str, Any]) -> Path:
    """``results/NAME.json``, printed as well, with the seconds that its cells took."""
    path = RESULTS / f"{name}{'.quick' if quick else ''}.json"
    if Cells.seconds:
        result = result | {"wall_seconds": round(Cells.seconds)}
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["verdict"], indent=1))
    print(path.relative_to(RESULTS.parent.parent))
    return path


def lanes(
    train: Train, count: int, steps: int, first: int = 0, enough: Callable = lambda history: True
) -> tuple[Any, dict]:
    """``count`` seeds from ``first`` on, side by side, for chunks of ``steps`` until ``enough(history)``.

    Returns:
      The runs (leading axis: seeds) and the history so far, ``[seeds, steps, ...]`` each.
    """
    keys = jax.vmap(jax.random.key)(np.arange(first, first + count))
    runs, parts, done = jax.jit(jax.vmap(train.init))(keys), [], 0
    chunk = jax.jit(jax.vmap(lambda key, run, at: train.chunk(key, run, at, steps), in_axes=(0, 0, None)))
    while True:
        runs, metrics = chunk(keys, runs, np.int32(done))
        parts.append(jax.device_get(metrics))
        done += steps
        history = {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
        if enough(history):
            return runs, history


def like_the_sheet(name: str, values: Any, reference: float, runs: int, decimals: int = 1) -> tuple[bool, str]:
    """Whether a published mean of ``runs`` runs lies within three standard errors of ours, the spread taken from ours.

    Returns:
      The answer, and a sentence with the numbers.
    """
    values = np.asarray(values, np.float64)
    error = 3 * np.std(values, ddof=1) * np.sqrt(1 / runs + 1 / len(values)) + 0.5 * 10.0**-decimals
    fits = abs(np.mean(values) - reference) <= error
    return bool(
        fits
    ), f"{name}: {np.mean(values):.4g}, published {reference:.4g} +- {error:.2g}: {'yes' if fits else 'no'}"


def together(*verdicts: dict[str, Any]) -> dict[str, Any]:
    """One verdict that holds where all of them do."""
    return {"holds": all(v["holds"] for v in verdicts), "why": "; ".join(v["why"] for v in verdicts)}


def agreement(checks: list[tuple[bool, str]]) -> dict[str, Any]:
    """A verdict from the answers of ``like_the_sheet``."""
    return {"holds": all(fits for fits, _ in checks), "why": "; ".join(text for _, text in checks)}
