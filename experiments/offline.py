"""A policy from the log of a mediocre one: cloning, an ensemble that is believed, and one that is pessimistic.

Claim: MOPO's policy is worth more than a clone of what was logged, and more than the policy that the same parts find
when they believe the ensemble. Sources: Yu et al. 2020 (arXiv 2005.13239), table 1; Kidambi et al. 2020 (arXiv
2005.05951). Every seed logs episodes of its own soft actor-critic, stopped early, with noise on its actions; all arms
of a seed learn from that log alone and are tested once, at the end. Arms, budget and comparisons are fixed here, before
the run; the recorder was found in pilots on seed 100. Between MOReL's halt and MOPO's penalty nothing is claimed.
Control: the clone, which can be no better than what it imitates, must not beat MOPO.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import agents, data, envs, stats
from jmbrl.rollout import evaluate
from jmbrl.stages import make_run

import common

ENV = "gymnax:Pendulum-v1"
SEEDS = 8
EPISODES = 50  # of a test
RECORDER = {"steps": 3_000, "noise": 0.3, "rows": 1_000}
SHARED: dict[str, Any] = {**agents.PRESETS["mopo"]["pendulum"], "test_episodes": EPISODES}
ARMS: dict[str, dict[str, Any]] = {
    "believed": SHARED | {"pessimism": "none"},
    "mopo": SHARED | {"pessimism": "mopo"},
    "morel": SHARED | {"pessimism": "morel", "penalty": 500.0, "quantile": 0.99},
}
CLONE: dict[str, Any] = {**agents.PRESETS["bc"]["pendulum"], "test_episodes": EPISODES}
QUICK = {"updates": 500, "round_updates": 250, "epochs": 10, "patience": 2, "rollouts": 100}


@functools.cache
def recorded(seed: int, steps: int, noise: float, rows: int) -> tuple[data.Replay, np.ndarray]:
    """A log, and the returns of what was logged without its noise."""
    env = envs.make(ENV)
    train = common.make_run("sac", env, agents.PRESETS["sac"]["pendulum"], steps)

    @jax.jit
    def record(key: jax.Array) -> tuple[data.Replay, jax.Array]:
        key_train, key_log, key_test = jax.random.split(key, 3)
        state = train(key_train)[0].agent

        def act(key: jax.Array, obs: jax.Array) -> jax.Array:
            key_act, key_noise = jax.random.split(key)
            action = train.agent.act(key_act, state, train.agent.reset(state), obs, jnp.asarray(True), False)[0]
            return jnp.clip(action + noise * jax.random.normal(key_noise, action.shape), -1.0, 1.0)

        log = common.gather(key_log, env, rows, act)
        return log, evaluate(key_test, env, train.agent, state, EPISODES)["returns"]

    log, returns = record(jax.random.key(seed))
    return log, np.asarray(returns)


def tested(system: str, settings: dict[str, Any], seed: int, recorder: dict[str, Any]) -> dict[str, Any]:
    """What an arm finds in a seed's log."""
    log, _ = recorded(seed, **recorder)
    env, page = envs.make(ENV), agents.SYSTEMS[system]
    agent = page.make(env, page.config(**settings), log)
    _, history = make_run(env, agent, EPISODES * env.spec.max_steps)(jax.random.key(seed))
    found = {name: [float(f"{x:.4g}") for x in np.ravel(history[name])] for name in sorted(history) if wanted(name)}
    return {"return": float(np.mean(history["episode_return"])), "metrics": found}


def wanted(metric: str) -> bool:
    return metric.startswith(("model/holdout_mse", "model/threshold", "imagine/terminated", "imagine/clipped"))


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("offline", options.quick, options.fresh)
    seeds = 2 if options.quick else SEEDS
    recorder = RECORDER | ({"steps": 400} if options.quick else {})
    arms = {"clone": ("bc", CLONE)}
    arms |= {name: ("mopo", s | (QUICK if options.quick else {})) for name, s in ARMS.items()}

    def logged(seed: int) -> dict[str, Any]:
        return {"return": float(np.mean(recorded(seed, **recorder)[1]))}

    table = {"logged policy": [cells.get(f"logged/{i}", recorder, lambda i=i: logged(i)) for i in range(seeds)]}
    for name, (system, settings) in arms.items():
        table[name] = [
            cells.get(
                f"{name}/{i}",
                {"recorder": recorder, **settings},
                lambda i=i, system=system, settings=settings: tested(system, settings, i, recorder),
            )
            for i in range(seeds)
        ]
    metric = f"mean return of {EPISODES} episodes, without exploration, after learning from the log"
    rows = [
        common.row("pendulum", name, [c["return"] for c in found], metric, np.median, cells=found)
        for name, found in table.items()
    ]
    better = lambda a, b, expected=True: common.Compare("pendulum", a, b, expected, lower_is_better=False)  # noqa: E731
    claims = [better("mopo", "clone"), better("mopo", "believed"), better("clone", "mopo", expected=False)]
    values = {row["arm"]: np.asarray(row["values"]) for row in rows}
    gap = values["morel"] - values["mopo"]
    low, high = stats.bootstrap(gap)
    unclaimed = {"holds": True, "why": f"two-sided: morel less mopo: {np.mean(gap):.4g} [{low:.4g}, {high:.4g}]"}
    result = {
        "claim": "a pessimistic policy from logged data beats a clone of it, and one that believes the same ensemble",
        "source": "Yu et al. 2020 (arXiv 2005.13239); Kidambi et al. 2020 (arXiv 2005.05951); comparisons fixed before "
        "the run",
        "setting": f"{ENV}; {recorder['rows']} rows of soft actor-critic after {recorder['steps']} steps with noise "
        f"{recorder['noise']:g} on actions in [-1, 1], another log for each seed, the same for all its arms",
        "rows": rows,
        "verdict": common.together(common.judge(rows, claims), unclaimed),
    }
    path = common.write("offline", options.quick, result)
    common.bars(rows, str(path.with_suffix(".png")), "return (no exploration)")


if __name__ == "__main__":
    main()
