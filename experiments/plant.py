"""A pendulum that does not wait: learning beside the loop, and what should act where a plan is late.

Claims, for a small PETS at 20 decisions a second on a pendulum that moves on while it thinks:
(1) with learning in the background the return is no worse than with learning between the episodes, though new weights
come 40 periods late; both are better than an agent that stops learning after its first fit.
(2) On two cores in real time, learning in the background leaves at most 5 % of the periods without a plan.
(3) With 30 % of the plans late by design, going on with the last plan earns more than holding the last action, and more
than letting go.

(1) and (3) run in scripted time, which makes lateness part of the setting rather than of the machine; (2) cannot.
Settings, budgets and comparisons are fixed here, before the run. Margin of (1): 50, half of what separates the usual
thresholds of a pendulum that is solved (-200) and one that is nearly so (-300). Control of (3): with no plan late the
three are the same controller, so that nothing may separate them.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import agents, control, envs
from jmbrl.envs import rewards
from jmbrl.types import Continuous, Env

import common

PERIOD, DEADLINE, DT = 0.05, 0.04, 0.01  # s; the plant moves in steps of DT
EPISODE = 200  # periods
SEEDS, EPISODES, LAST, TESTS = 6, 6, 3, 6
THINKS, LEARNS = 0.01, 2.0  # s of a plan and of a fit, in scripted time
LATE, DELAY = 0.3, 0.06  # share of the plans that are late by design, and how long these take
SHARE = 0.05  # of the periods in real time
SETTINGS: dict[str, Any] = {
    **agents.PRESETS["pets"]["pendulum"],
    "members": 3,
    "hidden": (32, 32),
    "population": 60,
    "particles": 3,
    "iterations": 3,
    "capacity": 2_000,
}
ARMS = {"background": "background", "between": "between", "first fit only": None}
MASS, LENGTH, GRAVITY, TOP_SPEED, TORQUE = 1.0, 1.0, 10.0, 8.0, 2.0


def pendulum(dt: float, max_steps: int) -> Env:
    """Gymnasium's Pendulum-v1 in steps of ``dt``, paid by the time: 1/5 of the reward in a fifth of its 0.05 s."""
    reward_fn = rewards.pendulum()

    def observe(state: jax.Array) -> jax.Array:
        return jnp.stack([jnp.cos(state[0]), jnp.sin(state[0]), state[1]])

    def reset(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0) * jnp.asarray([jnp.pi, 1.0])
        return state, observe(state)

    def step(key: jax.Array, state: jax.Array, torque: jax.Array) -> tuple:
        angle, speed = state
        push = 3 * GRAVITY / (2 * LENGTH) * jnp.sin(angle) + 3.0 / (MASS * LENGTH**2) * torque[0]
        speed = jnp.clip(speed + dt * push, -TOP_SPEED, TOP_SPEED)
        new = jnp.stack([angle + dt * speed, speed])
        reward = reward_fn(observe(state), torque / TORQUE, observe(new)) * dt / PERIOD
        return new, observe(new), reward, False

    return envs.from_functions(
        reset,
        step,
        action=Continuous((-TORQUE,), (TORQUE,)),
        max_steps=max_steps,
        name="pendulum",
        obs_shape=(3,),
        reward_fn=reward_fn,
        termination_fn=rewards.never,
        dt=dt,
    )


FINE = pendulum(DT, round(EPISODE * PERIOD / DT))
AGENT = agents.pets(pendulum(PERIOD, EPISODE), agents.PETSConfig(**SETTINGS))


def controlled(state: Any, clock: control.Clock, episodes: int, seed: int, **options: Any) -> control.Report:
    """So many episodes on a plant of its own."""
    plant = control.EnvPlant(FINE, clock, seed=seed)
    options = {"fallback": "plan", "deadline": DEADLINE, **options}
    return control.run(plant, AGENT, state, period=PERIOD, steps=episodes * EPISODE, key=seed, clock=clock, **options)


def fresh(seed: int) -> Any:
    return jax.jit(AGENT.init, static_argnums=1)(jax.random.key(seed), 1)


def first_fit(seed: int) -> Any:
    """After one random episode and one fit to it."""
    clock = control.SimulatedClock(plan=THINKS)
    return controlled(fresh(seed), clock, 1, seed, learn="between").state


def learning(arm: str, seed: int, episodes: int) -> dict[str, Any]:
    """Claim 1: the returns of the last episodes."""
    clock = control.SimulatedClock(plan=THINKS, learn=LEARNS)
    if ARMS[arm] is None:
        found = controlled(first_fit(seed), clock, episodes, seed + 100)
    else:
        found = controlled(fresh(seed), clock, 1 + episodes, seed, learn=ARMS[arm])
    returns = [round(r, 2) for r in found.returns]
    oldest = max(tick.age for tick in found.ticks)
    return {"return": float(np.mean(returns[-LAST:])), "returns": returns, "late": found.late, "oldest": oldest}


def realtime(seed: int, episodes: int) -> dict[str, Any]:
    """Claim 2: the share of the agent's periods that had no plan, fits going on beside them."""
    found = controlled(fresh(seed), control.RealClock(), 1 + episodes, seed, learn="background")
    assert found.learned is not None
    acted = [tick.by for tick in found.ticks if tick.by != "random"]
    milliseconds = np.percentile(1e3 * found.planning, (50, 95, 99)).round(1).tolist()
    share = sum(by in ("late", "busy") for by in acted) / len(acted)
    return {"return": share, "plan_ms": milliseconds, "updates": found.learned.updates, "overruns": found.overruns}


def late_by_design(fallback: str, share: float, seed: int, state: Any, episodes: int) -> dict[str, Any]:
    """Claim 3: the mean return, the same plans late in all arms of a seed."""
    late = np.random.default_rng(seed).random(episodes * EPISODE) < share
    clock = control.SimulatedClock(plan=lambda i: DELAY if late[i] else THINKS)
    found = controlled(state, clock, episodes, seed + 200, fallback=fallback)
    return {"return": float(np.mean(found.returns)), "late": found.late}


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("plant", options.quick, options.fresh)
    seeds, episodes, tests = (2, 2, 1) if options.quick else (SEEDS, EPISODES, TESTS)
    setting = {**SETTINGS, "episodes": episodes, "tests": tests, "learns": LEARNS, "thinks": THINKS, "delay": DELAY}
    rows = []

    def row(name: str, arm: str, metric: str, compute: Any) -> None:
        found = [cells.get(f"{name}/{arm}/{i}", setting, lambda i=i: compute(i)) for i in range(seeds)]
        rows.append(common.row(name, arm, [c["return"] for c in found], metric, np.mean, cells=found))

    for arm in ARMS:
        metric = f"mean return of the last {LAST} episodes"
        row("learning", arm, metric, lambda i, arm=arm: learning(arm, i, episodes))
    row("real time", "background", "share of periods without a plan in time", lambda i: realtime(i, min(2, episodes)))
    states: dict[int, Any] = {}

    def trained(seed: int) -> Any:
        if seed not in states:
            clock = control.SimulatedClock(plan=THINKS)
            states[seed] = controlled(fresh(seed), clock, 1 + min(3, episodes), seed, learn="between").state
        return states[seed]

    for share, name in ((LATE, f"{LATE:.0%} late"), (0.0, "none late")):
        for fallback in ("plan", "hold", "zero"):
            metric = f"mean return of {tests} episodes"
            row(name, fallback, metric, lambda i, f=fallback, s=share: late_by_design(f, s, i, trained(i), tests))
    better = lambda where, a, b, expected=True, margin=0.0: common.Compare(  # noqa: E731
        where, a, b, expected, lower_is_better=False, paired=True, margin=margin
    )
    late, none = f"{LATE:.0%} late", "none late"
    claims = [
        better("learning", "background", "between", margin=-50.0),
        better("learning", "background", "first fit only"),
        better(late, "plan", "hold"),
        better(late, "plan", "zero"),
        better(none, "plan", "hold", expected=False),
    ]
    shares = next(r for r in rows if r["setting"] == "real time")["values"]
    in_time = {
        "holds": max(shares) <= SHARE,
        "why": f"real time: at most {max(shares):.1%} of a run's periods without a plan, claimed {SHARE:.0%}",
    }
    result = {
        "claim": "learning beside the loop costs neither return nor deadlines, and where a plan is late the last one "
        "is the best fallback",
        "source": "no publication; claims, settings and margin fixed before the run",
        "setting": f"pendulum in steps of {DT} s, {1 / PERIOD:.0f} decisions a second, deadline {DEADLINE} s; PETS of "
        f"3 networks; scripted time ({THINKS} s a plan, {LEARNS} s a fit) except in 'real time'",
        "rows": rows,
        "verdict": common.together(common.judge(rows, claims), in_time),
    }
    path = common.write("plant", options.quick, result)
    common.bars(rows, str(path.with_suffix(".png")), "return (real time: share without a plan)")


if __name__ == "__main__":
    main()
