"""Executing one action of a plan and planning again, against executing the plan blind.

Claim: where the model is wrong or the world is noisy, planning again at every step (MPC) beats executing a whole plan
(open loop); with an exact model of a world without noise it does not.
Sources: Mayne et al. 2000, "Constrained model predictive control" (feedback by replanning); Chua et al. 2018 (arXiv
1805.12114) section 5 and Nagabandi et al. 2018 (arXiv 1708.02596) section IV-C give it as their reason for MPC.

An episode is as long as the planning horizon, so that the open-loop arm is one plan of the whole episode and loses
nothing to a horizon that ends too early. The planner is CEM through a simulator, not through a learned model: how wrong
the model is, is known. MPC improves its plan at each of its decisions; the budget of one decision is therefore large
enough to converge, and a difference below ``MARGIN`` does not count, in any of the settings. The task is one without
bad local optima: in a pendulum's swing-up (tried first) a plan with one pump too many is such a one, and replanning
helps to leave it even where model and world agree.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import agents, envs, models, planners
from jmbrl.rollout import evaluate
from jmbrl.types import Continuous, Env

import common

HORIZON = 40  # steps of 0.05 s
REPLAN = {"every step": 1, "every 10 steps": 10, "open loop": HORIZON}
SEEDS, EPISODES = 8, 4  # a seed's number is the mean of so many episodes, their starts shared by all arms
PLANNER = {"population": 300, "elites": 30, "iterations": 20, "min_variance": 1e-4}
MARGIN = 3.0  # hanging all the time returns about -99
TORQUE, STEP, GRAVITY = 8.0, 0.05, 10.0


class World(NamedTuple):
    """``mass`` (kg) and ``noise`` (N m, standard deviation of each step's torque) of the world, ``believed`` mass."""

    mass: float = 1.0
    noise: float = 0.0
    believed: float = 1.0


SETTINGS = {
    "noisy world": World(noise=2.0),
    "wrong model": World(believed=0.8),
    "exact model, no noise": World(),
}


def arm(mass: float, noise: float) -> Env:
    """A rod (1 m, hinged at its end, 0 is hanging) to be held level; cost ``miss^2 + 0.1 speed^2 + 0.001 u^2``."""

    def observe(state: jax.Array) -> jax.Array:
        return jnp.stack([jnp.cos(state[0]), jnp.sin(state[0]), state[1]])

    def reset(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = jax.random.uniform(key, (2,), minval=-0.5, maxval=0.5)
        return state, observe(state)

    def step(key: jax.Array, state: jax.Array, action: jax.Array) -> tuple:
        angle, speed = state
        torque = action[0] + (noise * jax.random.normal(key) if noise else 0.0)
        miss = (angle + math.pi / 2) % (2 * math.pi) - math.pi  # from level, in [-pi, pi)
        cost = miss**2 + 0.1 * speed**2 + 0.001 * action[0] ** 2
        speed = speed + STEP * (3.0 / mass * torque - 1.5 * GRAVITY * jnp.sin(angle))
        state = jnp.stack([angle + STEP * speed, speed])
        return state, observe(state), -cost, False

    return envs.from_functions(
        reset, step, action=Continuous((-TORQUE,), (TORQUE,)), max_steps=HORIZON, name="level_arm", dt=STEP
    )


def runner(world: World, replan_every: int) -> Callable:
    """``(key) -> returns[EPISODES]``, compiled once for all seeds."""
    env = envs.with_state(arm(world.mass, world.noise))
    model = models.simulator(arm(world.believed, 0.0))
    agent = agents.mpc(env.spec, model, planners.cem(env.spec, horizon=HORIZON, **PLANNER), replan_every=replan_every)
    # One episode at a time: side by side, a lane that does not replan would pay for those that do.
    one = lambda key: evaluate(key, env, agent, agent.init(key, 1), 1)["returns"][0]  # noqa: E731
    return jax.jit(lambda key: jax.lax.map(one, jax.random.split(key, EPISODES)))


def cell(run: Callable, seed: int) -> dict[str, Any]:
    returns = run(jax.random.key(seed))
    return {"returns": [round(float(x), 3) for x in returns], "mean": float(jnp.mean(returns))}


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("open_loop", options.quick, options.fresh)
    rows = []
    for setting, world in SETTINGS.items():
        for name, replan_every in REPLAN.items():
            run, values = runner(world, replan_every), []
            for seed in range(1 if options.quick else SEEDS):
                wanted = {
                    **world._asdict(),
                    **PLANNER,
                    "replan": replan_every,
                    "episodes": EPISODES,
                    "horizon": HORIZON,
                }
                found = cells.get(f"{setting}/{name}/{seed}", wanted, lambda run=run, seed=seed: cell(run, seed))
                values.append(found["mean"])
            rows.append(common.row(setting, name, values, "mean return of the seed's episodes"))
    compare = [
        common.Compare(setting, "every step", other, setting != "exact model, no noise", False, margin=MARGIN)
        for setting in SETTINGS
        for other in ("open loop", "every 10 steps")
        if other == "open loop" or setting == "noisy world"
    ]
    result = {
        "claim": "replanning at every step beats open loop when the model is wrong or the world is noisy",
        "source": "Mayne et al. 2000; Chua et al. 2018 (arXiv 1805.12114) section 5; Nagabandi et al. 2018 "
        "(arXiv 1708.02596) section IV-C",
        "setting": f"an arm held level against gravity, an episode of {HORIZON} steps planned as a whole by CEM "
        f"through a simulator; seeds share start states; margin {MARGIN:g}; task, noise, masses and the planner's "
        "budget were chosen with trial runs of seeds 1000 to 1002",
        "rows": rows,
        "verdict": common.judge(rows, compare),
    }
    path = common.write("open_loop", options.quick, result)
    common.bars(rows, str(path.with_suffix(".png")), f"return of {HORIZON} steps")


if __name__ == "__main__":
    main()
