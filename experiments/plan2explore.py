"""Exploring without a reward, then three tasks from the model alone.

Claims, on the cart-pole, after the same number of real steps: (1) exploring by what an ensemble disagrees about
(Plan2Explore's reward, planned for) and (2) by its information gain with optimism (OPAX) visit more of the pole's
angles and speeds than random actions; (3) CEM in the model that disagreement left reaches, with no further step in the
environment, at least 80 % of what CEM in the simulator reaches on two of three rewards. Reported beside them: what a
model of random actions and one of data collected for the first reward alone (PETS) are worth on the same rewards.
Returns are counted from those of random actions: 0 % is random, 100 % the simulator. Control: the data collected for
the first reward alone must not visit more than those of disagreement. Sources: Sekar et al. 2020 (arXiv 2005.05960),
Sukhija et al. 2023 (arXiv 2306.12371); protocol, budgets and comparisons are fixed here, before the run. On pilots with
seed 100 the rewards were chosen so that the simulator's planner earns something on each, and the last fit was made
longer: with 60 epochs on 3,000 rows the same data gave 68, 74 and 115, with 200 epochs 132, 162 and 177.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jmbrl import agents, data, envs, models
from jmbrl.agents.mpc import MPCState, mpc
from jmbrl.agents.opax import OPAXConfig, explored_model, opax
from jmbrl.agents.pets import PETSConfig, make_planner, pets
from jmbrl.envs.native import cartpole_swingup
from jmbrl.rollout import evaluate
from jmbrl.train import make_train
from jmbrl.types import Agent, Array, Env, Model

import common

ENV = "cartpole_swingup"
SEEDS, STEPS, EPISODES = 3, 2_000, 3
SHARED: dict[str, Any] = {"hidden": (128, 128), "weight_decay": (1e-4, 2.5e-4, 5e-4), "epochs": 25, "capacity": 10_000}
# PETS' planner on this task, smaller: 60 % of its candidates and particles.
TASK = {**agents.PRESETS["pets"]["cartpole_swingup"], "population": 120, "particles": 3, "elites": 12}
ARMS = ("random", "reward", "disagreement", "information")
GRID = (24, 16)  # cells of angle and speed
EPOCHS = 300  # of the fit that all arms' data get at the end
SPEED = 12.0  # rad/s, the fastest that counts


def upright_at(place: float) -> Callable:
    """The task's reward, its aim moved along the rail by ``place`` metres."""

    def reward(obs: Array, action: Array, after: Array) -> Array:
        return cartpole_swingup.reward_fn(obs, action, after.at[2].add(-place))

    return reward


def spin(obs: Array, action: Array, after: Array) -> Array:
    """How fast the pole turns to the left, of 10 rad/s, less the task's cost of actions."""
    del obs
    effort = cartpole_swingup.MAX_CONTROL * jnp.clip(action[0], -1.0, 1.0)
    return jnp.clip(after[4] / 10.0, -1.0, 1.0) - 0.01 * effort**2


REWARDS: dict[str, Callable] = {"upright": upright_at(0.0), "upright at 1 m": upright_at(1.0), "spin": spin}


def explorer(env: Env, arm: str) -> Any:
    """What collects the data; all fit the same ensemble to it."""
    if arm == "random":
        return agents.SYSTEMS["random"].make(env, agents.SYSTEMS["random"].config())
    if arm == "reward":
        return pets(env, PETSConfig(**TASK))
    kind = {"disagreement": "disagreement", "information": "information_gain"}[arm]
    return opax(env, OPAXConfig(**SHARED, curiosity=kind, sampled=arm == "disagreement"))


def collected(env: Env, arm: str, steps: int) -> Callable:
    """``(key) -> data.Replay`` of one ring."""
    if arm == "random":
        return lambda key: common.gather(key, env, steps)
    train = make_train(env, explorer(env, arm), steps)
    return lambda key: train(key)[0].agent.replay


def coverage(obs: Array) -> Array:
    """Share of the cells of the pole's angle and speed that were visited; speeds beyond the grid count to its edge."""
    angle = jnp.arctan2(obs[:, 0], obs[:, 1]) / (2 * jnp.pi) + 0.5
    speed = (jnp.clip(obs[:, 4], -SPEED, SPEED) + SPEED) / (2 * SPEED)
    place = [jnp.minimum((x * n).astype(jnp.int32), n - 1) for x, n in zip((angle, speed), GRID, strict=True)]
    return jnp.mean(jnp.zeros(GRID).at[place[0], place[1]].set(1.0))


def worth(env: Env, agent: Any, state: Any, reward: Callable, key: jax.Array, episodes: int) -> Array:
    """Mean return of whole episodes under ``reward``."""
    path = evaluate(key, env, agent, state, episodes, trace=True)
    seen = path["observations"]
    seen = seen.obs if hasattr(seen, "state") else seen
    each = jax.vmap(jax.vmap(reward))(seen[:-1], path["actions"], seen[1:])
    return jnp.mean(jnp.sum(each, axis=0))


def bounds(seed: int, episodes: int) -> dict[str, list[float]]:
    """What random actions and the simulator's planner get, on each reward."""
    env = envs.make(ENV)
    shown = envs.with_state(env)
    chance = agents.SYSTEMS["random"].make(env, agents.SYSTEMS["random"].config())
    out: dict[str, list[float]] = {"random": [], "simulator": []}
    for i, reward in enumerate(REWARDS.values()):
        key = jax.random.fold_in(jax.random.key(seed), i)
        best = planned(env, models.with_reward(models.simulator(env), reward), 1)
        for name, world, agent in (("random", env, chance), ("simulator", shown, best)):
            run = jax.jit(lambda k, w=world, a=agent, r=reward: worth(w, a, a.init(k, 1), r, k, episodes))
            out[name].append(float(run(key)))
    return out


def planned(env: Env, model: Model, particles: int) -> Agent:
    """The planner of all tasks: CEM as PETS has it on this task."""
    return mpc(env.spec, model, make_planner(env.spec, PETSConfig(**TASK)), particles=particles)


@functools.cache
def tasks(episodes: int) -> Callable:
    """``(key, replay) -> (coverage, held-out error, returns)``, compiled once for all arms and seeds."""
    env = envs.make(ENV)
    model = explored_model(env, OPAXConfig(**SHARED))

    @jax.jit
    def run(key: jax.Array, replay: data.Replay) -> tuple[Array, list[Array]]:
        params = common.fitted(key, model, replay, epochs=EPOCHS, batch_size=32)
        state, returns = MPCState(params, None, None), []
        for i, reward in enumerate(REWARDS.values()):
            agent = planned(env, models.with_reward(model, reward), TASK["particles"])
            returns.append(worth(env, agent, state, reward, jax.random.fold_in(key, i), episodes))
        return coverage(data.rows(replay)[0].next_obs), returns

    return run


@functools.cache
def collector(arm: str, steps: int) -> Callable:
    return jax.jit(collected(envs.make(ENV), arm, steps))


def explored(arm: str, seed: int, steps: int, episodes: int) -> dict[str, Any]:
    key_data, key_task = jax.random.split(jax.random.key(seed))
    seen, returns = tasks(episodes)(key_task, collector(arm, steps)(key_data))
    return {"coverage": float(seen), "returns": [float(x) for x in returns]}


def figure(rows: list[dict[str, Any]], path: str) -> None:
    """Coverage on the left, what the model of each arm is worth on the right."""
    colours = dict(zip(ARMS, ("#7f7f7f", "#1f77b4", "#2ca02c", "#d62728"), strict=True))
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), width_ratios=(1, 2.4), layout="constrained")
    for row in rows:
        if row["arm"] not in colours:
            continue
        axis = left if row["setting"] == "coverage" else right
        place = ARMS.index(row["arm"])
        if axis is right:
            place = place / 6 + list(REWARDS).index(row["setting"])
        low, high = row["interval"]
        error = [[max(0.0, row["median"] - low)], [max(0.0, high - row["median"])]]
        label = row["arm"] if axis is left else None
        width = 0.8 if axis is left else 0.15
        axis.bar(place, row["median"], width, yerr=error, color=colours[row["arm"]], label=label, capsize=2)
    left.set(ylabel="share of angles and speeds visited", xticks=[])
    left.legend(frameon=False, fontsize=8)
    right.set_xticks([i + 0.25 for i in range(len(REWARDS))], list(REWARDS))
    right.set(ylabel="return, of the simulator's (random: 0 %)")
    right.axhline(100, color="black", linewidth=0.8)
    right.axhline(80, color="black", linewidth=0.8, linestyle=":")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    fig.savefig(path, dpi=120)
    plt.close(fig)


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("plan2explore", options.quick, options.fresh)
    seeds, steps, episodes = (1, 400, 1) if options.quick else (SEEDS, STEPS, EPISODES)
    setup = {"task": TASK, "shared": SHARED, "episodes": episodes, "fit": EPOCHS}
    limits = [cells.get(f"bounds/{i}", setup, lambda i=i: bounds(i, episodes)) for i in range(seeds)]
    rows = []
    for arm in ARMS:
        found = [
            cells.get(f"{arm}/{i}", setup | {"steps": steps}, lambda i=i, arm=arm: explored(arm, i, steps, episodes))
            for i in range(seeds)
        ]
        rows.append(common.row("coverage", arm, [c["coverage"] for c in found], "share of cells visited", np.median))
        for j, name in enumerate(REWARDS):
            low, high = (np.mean([c[bound][j] for c in limits]) for bound in ("random", "simulator"))
            share = [100 * (c["returns"][j] - low) / (high - low) for c in found]
            raw = [c["returns"][j] for c in found]
            metric = f"% of the simulator's return, mean of {episodes} episodes without a further real step"
            rows.append(common.row(name, arm, share, metric, np.median, returns=raw))
    for j, name in enumerate(REWARDS):
        for bound in ("random", "simulator"):
            values = [c[bound][j] for c in limits]
            rows.append(common.row(name, f"bound: {bound}", values, f"mean return of {episodes} episodes", np.median))
    medians = {row["setting"]: row["median"] for row in rows if row["arm"] == "disagreement"}
    good = [name for name in REWARDS if medians[name] >= 80]
    verdict = common.together(
        common.judge(
            rows,
            [
                common.Compare("coverage", "disagreement", "random", True, lower_is_better=False),
                common.Compare("coverage", "information", "random", True, lower_is_better=False),
                common.Compare("coverage", "reward", "disagreement", False, lower_is_better=False),
            ],
        ),
        common.agreement([(len(good) >= 2, f"at least 80 % of the simulator's return on {len(good)} of 3: {good}")]),
    )
    path = common.write(
        "plan2explore",
        options.quick,
        {
            "claim": "exploring without a reward covers more than random actions, and its model serves later rewards",
            "source": "Sekar et al. 2020 (arXiv 2005.05960); Sukhija et al. 2023 (arXiv 2306.12371)",
            "setting": f"{ENV}, {steps} real steps without (arm reward: with) the reward, then none",
            "rows": rows,
            "verdict": verdict,
        },
    )
    figure(rows, str(path.with_suffix(".png")))


if __name__ == "__main__":
    main()
