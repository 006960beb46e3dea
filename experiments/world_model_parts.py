"""What the experiments on World Models share: V and M of a seed, learned once, and controllers on top of them."""

import dataclasses
import json
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import agents, checks, envs, runner, writers
from jmbrl.agents import WorldModelsConfig, WorldModelsState
from jmbrl.checkpoint import CheckpointError
from jmbrl.stages import StagedRun, make_staged
from jmbrl.types import Env

RUNS = Path(__file__).parent.parent / "runs" / "world_models"
LEARNED = 4  # stages before the controller: collect, vision, encode, memory
FRAMES = {"size": 32, "channels": 1, "max_steps": 250}  # for two cores


class Task(NamedTuple):
    env: str
    options: dict[str, Any]
    preset: str


TASKS = {
    "dodge": Task("dodge", FRAMES, "dodge"),
    "dodge, one ball": Task("dodge", FRAMES | {"level": "one"}, "dodge_one"),
    "car_racing": Task("car_racing", FRAMES, "car_racing"),
}


class Learned(NamedTuple):
    """V and M of a seed: the state after the first four stages, where its files are, and the returns of its data."""

    state: WorldModelsState
    folder: Path
    random: list[float]
    seconds: float


class Controlled(NamedTuple):
    """A controller on top: of each generation the mean and best fitness, of each check the mean's; in the end what the
    best is worth in truth (test episodes), and the champion's own fitness where it was trained."""

    state: WorldModelsState
    history: dict[str, np.ndarray]
    test: list[float]


def config_of(task: str, **changes: Any) -> WorldModelsConfig:
    return WorldModelsConfig(**(agents.PRESETS["world_models"][TASKS[task].preset] | changes))


def world(task: str) -> Env:
    return envs.make(TASKS[task].env, **TASKS[task].options)


def learn(task: str, seed: int, config: WorldModelsConfig) -> Learned:
    """V and M of a seed; an interrupted run goes on, a finished one is read."""
    env = world(task)
    first = dataclasses.replace(config, generations=1, train_in="dream")
    whole = make_staged(env, agents.world_models(env, first), _steps(env, first))
    train = dataclasses.replace(whole, stages=whole.stages[:LEARNED])
    settings = {"system": "world_models", **TASKS[task]._asdict(), "config": dataclasses.asdict(first), "seed": seed}
    mark = zlib.crc32(json.dumps(settings, sort_keys=True).encode())
    directory = RUNS / f"{TASKS[task].preset}-s{seed}-{mark:08x}"
    options = runner.Options(checkpoint_seconds=30, quiet=True)
    while True:
        try:
            result = runner.run(train, seed, directory, config=settings, resume=True, options=options)
            break
        except CheckpointError as error:
            if "being written" not in str(error):
                raise
            # Another experiment is learning the same.
            print(f"waiting: {error}", flush=True)
            time.sleep(10)
    state = jax.tree.map(lambda x: x[0], result.run.agent)
    rows = writers.read_rows(directory / "metrics.jsonl")
    rows = [row for row in rows if row.get("stage") == "collect" and "episode_return" in row]
    return Learned(
        state,
        directory / "data" / f"seed{seed}",
        [row["episode_return"] for row in rows],
        result.summary["wall_seconds"],
    )


def control(task: str, seed: int, config: WorldModelsConfig, learned: Learned) -> Controlled:
    """A controller trained on V and M that are there, and tested."""
    env = world(task)
    agent = agents.world_models(env, config)
    whole = make_staged(env, agent, _steps(env, config))
    key = checks.key(seed)
    fresh = agent.init(jax.random.fold_in(key, 7), 1)
    stats = learned.state.params.stats._replace(temperature=jnp.float32(config.temperature))
    params = learned.state.params._replace(stats=stats)
    state = fresh._replace(params=params, starts=learned.state.starts, rows=learned.state.rows)
    run, history = dataclasses.replace(whole, stages=whole.stages[LEARNED:])(key, StagedRun(state))
    test = history.pop("episode_return")[-config.test_episodes :, 0].tolist()
    return Controlled(run.agent, history, test)


def _steps(env: Env, config: WorldModelsConfig) -> int:
    """Environment steps that the settings ask for."""
    real = 0 if config.train_in == "dream" else config.generations * agents.episodes_of_generation(config)
    return env.spec.max_steps * (config.episodes + config.test_episodes + real)


def summary(found: Controlled) -> dict[str, Any]:
    """What a cell keeps of a controller."""
    check = found.history["controller/check"]
    return {
        "score": float(np.mean(found.test)),
        "test": [round(x, 3) for x in found.test],
        "fitness": np.round(found.history["controller/fitness_mean"], 2).tolist(),
        "checks": np.round(check[np.isfinite(check)], 2).tolist(),
    }
