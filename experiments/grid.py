"""Every model with every planner: the table of returns on a pendulum and on a task with discrete actions.

Claim: any model, any use. Each pair runs through the same few lines without a special case, or refuses with a message
that says why and names an alternative. Every model is fitted once per seed to the same logged rows (half of them
random), then each planner plans through it at equal model calls. Source: DESIGN, the first promise. The verdict: every
pair ran or refused with a reason, and with the true simulator each sampling planner beats random actions beyond the
interval; the control: a model that was never fitted does not.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jmbrl import agents, envs, models, planners, rollout
from jmbrl.agents.mpc import MPCState
from jmbrl.types import Env, Model

import common

ROWS, EPISODES, STEPS = 2000, 2, 200
PENDULUM, CARTPOLE = "gymnax:Pendulum-v1", "gymnax:CartPole-v1"
FITS_OF_A_PAIR, FITS_COMPARED = 2, 5  # the verdict compares the last ones
COMPARED = ("simulator", "never fitted")
HORIZON = {PENDULUM: 20, CARTPOLE: 15}
FITS = {"epochs": 40, "batch_size": 64}
SEQUENCES = {"updates": 1500, "batch_size": 32, "length": 12}
RANGES = {
    PENDULUM: {"low": (-1.0, -1.0, -8.0), "high": (1.0, 1.0, 8.0), "bins": (9, 9, 11), "action_bins": 5},
    CARTPOLE: {"low": (-2.4, -3.0, -0.25, -3.5), "high": (2.4, 3.0, 0.25, 3.5), "bins": (3, 5, 9, 7)},
}


def make_models(name: str, env: Env) -> dict[str, tuple[Model, dict[str, Any]]]:
    """Name -> the model and its trainer's options."""
    given = {"reward": env.reward_fn, "termination": env.termination_fn}
    net = {"hidden": (64, 64), **given}
    gaussian = models.gaussian_mlp(env.spec, **net)
    found = {
        "tabular": (models.tabular(env.spec, **RANGES[name], **given), {}),
        "linear": (models.linear(env.spec, **given), {}),
        "linear, degree 3": (models.linear(env.spec, features=models.polynomial(3), **given), {}),
        "gp": (models.gp(env.spec, points=100, double=False, **given), {}),
        "gmm": (models.gmm(env.spec, components=12, **given), {}),
        "deterministic_mlp": (models.deterministic_mlp(env.spec, **net), FITS),
        "gaussian_mlp": (gaussian, FITS),
        "mixture_mlp": (models.mixture_mlp(env.spec, **net), FITS),
        "ensemble": (models.ensemble(gaussian, 5, propagation="tsinf"), FITS),
        "history": (models.history(models.gaussian_mlp, env.spec, 3, **net), SEQUENCES),
        "recurrent": (models.recurrent(env.spec, **given), SEQUENCES),
        "rssm": (with_given(models.rssm(env.spec, **common.SMALL_LATENT), env),
                 SEQUENCES),
        "never fitted": (models.gaussian_mlp(env.spec, **net), {}),
        "simulator": (models.simulator(env), {}),
    }  # fmt: skip
    if name == PENDULUM:
        found["equations"] = (pendulum_equations(env), SEQUENCES)
    return found


def with_given(model: Model, env: Env) -> Model:
    """A latent model with the environment's own reward and end on what it decodes."""
    model = models.with_reward(model, env.reward_fn) if env.reward_fn else model
    return models.with_termination(model, env.termination_fn) if env.termination_fn else model


def pendulum_equations(env: Env) -> Model:
    """The textbook's pendulum (angle up, unit steps of 0.05 s), its mass and length unknown."""

    def f(state: jax.Array, action: jax.Array, theta: dict[str, jax.Array]) -> jax.Array:
        angle, speed = state
        pull = 15.0 / theta["length"] * jnp.sin(angle) + 3.0 / (theta["mass"] * theta["length"] ** 2) * 2.0 * action[0]
        speed = jnp.clip(speed + 0.05 * pull, -8.0, 8.0)
        return jnp.stack([angle + 0.05 * speed, speed])

    return models.equations(
        env.spec, f,
        {"mass": models.Parameter(0.3, 3.0), "length": models.Parameter(0.3, 3.0)},
        to_state=lambda obs: jnp.stack([jnp.arctan2(obs[1], obs[0]), obs[2]]),
        to_obs=lambda state: jnp.stack([jnp.cos(state[0]), jnp.sin(state[0]), state[1]]),
        reward=env.reward_fn, termination=env.termination_fn,
    )  # fmt: skip


def make_planners(name: str, env: Env) -> dict[str, Callable]:
    """Name -> planner, at about equal model calls: 240 candidates a decision."""
    h = HORIZON[name]
    return {
        "random_shooting": lambda: planners.random_shooting(env.spec, horizon=h, population=240),
        "cem": lambda: planners.cem(
            env.spec, horizon=h, population=80, elites=8, iterations=3, min_variance=0.0
        ),
        "icem": lambda: planners.icem(env.spec, horizon=h, population=90, elites=10, iterations=3),
        "mppi": lambda: planners.mppi(env.spec, horizon=h, population=80, iterations=3),
        "gradient": lambda: planners.gradient(env.spec, horizon=h, restarts=8, steps=10),
        "ilqr": lambda: planners.ilqr(env.spec, horizon=h, iterations=10),
    }  # fmt: skip


def behave(name: str) -> Callable:
    """What logged the rows: a coin decides between a uniform action and a hand-written controller."""

    def pendulum(obs: jax.Array) -> jax.Array:
        cos, sin, speed = obs
        energy = speed**2 / 6.0 + 5.0 * cos  # 5 upright at rest
        balance = -(10.0 * sin + 2.0 * speed) / 2.0
        pump = jnp.where(energy < 5.0, 1.0, -1.0) * jnp.sign(speed)
        return jnp.clip(jnp.where(cos > 0.9, balance, pump), -1.0, 1.0)[None]

    def cartpole(obs: jax.Array) -> jax.Array:
        return (obs[2] + 0.3 * obs[3] + 0.05 * obs[1] > 0).astype(jnp.int32)

    return {PENDULUM: pendulum, CARTPOLE: cartpole}[name]


def fitted(key: jax.Array, name: str, env: Env, model: Model, options: dict[str, Any]) -> Any:
    """The model's parameters after one fit to the logged rows."""
    key_data, key_init, key_fit = jax.random.split(key, 3)

    def act(key: jax.Array, obs: jax.Array) -> jax.Array:
        key_coin, key_action = jax.random.split(key)
        coin = jax.random.bernoulli(key_coin)
        return jnp.where(coin, common.random_action(key_action, env), behave(name)(obs))

    params = model.init(key_init)
    if not options and model.fit is None:
        return params  # the simulator, and the model that is never fitted
    replay = common.gather(key_data, env, ROWS, act)
    trainer = models.trainer_for(model, **options)
    return trainer.fit(key_fit, params, trainer.init(params), replay)[0]


def column(cells: common.Cells, name: str, model_name: str, seeds: int) -> list[dict[str, Any]]:
    """One model with every planner."""
    env = envs.make(name, max_steps=STEPS)
    model, options = make_models(name, env)[model_name]
    fit = jax.jit(lambda key: fitted(key, name, env, model, options))
    params: list[Any] = []
    world = envs.with_state(env) if model_name == "simulator" else env
    rows = []
    for planner_name, make in make_planners(name, env).items():

        def compute(make: Callable = make) -> dict[str, Any]:
            try:
                agent = agents.mpc(world.spec, model, make(), particles=5 if model.members else 1)
                run = jax.jit(
                    lambda key, params: rollout.evaluate(
                        key, world, agent, MPCState(params, None, None), EPISODES, STEPS
                    )["returns"]
                )
                if not params:
                    params.extend(fit(jax.random.key(seed)) for seed in range(seeds))
                returns = [float(np.mean(run(jax.random.key(100 + i), p))) for i, p in enumerate(params)]
            except ValueError as refused:
                return {"refused": str(refused)}
            return {"returns": returns}

        wanted = {"rows": ROWS, "episodes": EPISODES, "seeds": seeds, "options": str(options)}
        cell = cells.get(f"{name}/{model_name}/{planner_name}", wanted, compute)
        if "refused" in cell:
            rows.append({"setting": name, "model": model_name, "planner": planner_name, "refused": cell["refused"]})
        else:
            rows.append(
                common.row(name, f"{model_name} + {planner_name}", cell["returns"], "return")
                | {"model": model_name, "planner": planner_name}
            )
    return rows


def random_row(name: str, seeds: int) -> dict[str, Any]:
    env = envs.make(name, max_steps=STEPS)
    page = agents.SYSTEMS["random"]
    agent = page.make(env, page.config())
    run = jax.jit(lambda key: rollout.evaluate(key, env, agent, agent.init(key, 1), 20, STEPS)["returns"])
    values = [float(np.mean(run(jax.random.key(seed)))) for seed in range(seeds)]
    return common.row(name, "random", values, "return") | {"model": "random", "planner": ""}


def verdict(rows: list[dict[str, Any]]) -> dict[str, Any]:
    sampling = ("random_shooting", "cem", "icem", "mppi")
    table = {(r["setting"], r["arm"]): r for r in rows if "arm" in r}
    comparisons = [
        common.Compare(name, f"{model} + {planner}", "random", model == "simulator", False, paired=False)
        for name in HORIZON
        for model, planners_of in (("simulator", sampling), ("never fitted", ("cem",)))
        for planner in planners_of
        if (name, f"{model} + {planner}") in table
    ]
    judged = common.judge([r for r in rows if "arm" in r], comparisons)
    refused = [r for r in rows if "refused" in r]
    reasons = all(len(r["refused"]) > 40 for r in refused)
    ran = len(rows) - len(refused) - len(HORIZON)
    finite = all(np.all(np.isfinite(r["values"])) for r in rows if "values" in r)
    why = f"{ran} pairs ran, all finite: {finite}; {len(refused)} refused, each with a reason: {reasons}; "
    return {"holds": bool(judged["holds"] and finite and reasons), "why": why + judged["why"]}


def heat_map(rows: list[dict[str, Any]], path: str) -> None:
    """A panel a task: models down, planners across, mean returns as colour and number."""
    fig, axes = plt.subplots(1, len(HORIZON), figsize=(13, 6), constrained_layout=True)
    for axis, name in zip(axes, HORIZON, strict=True):
        here = [r for r in rows if r["setting"] == name and r["model"] != "random"]
        down = list(dict.fromkeys(r["model"] for r in here))
        across = list(dict.fromkeys(r["planner"] for r in here))
        values = np.full((len(down), len(across)), np.nan)
        for r in here:
            values[down.index(r["model"]), across.index(r["planner"])] = r.get("mean", np.nan)
        axis.imshow(values, aspect="auto", cmap="viridis")
        for i, j in np.ndindex(values.shape):
            text = "refuses" if np.isnan(values[i, j]) else f"{values[i, j]:.0f}"
            axis.text(j, i, text, ha="center", va="center", fontsize=7, color="w", backgroundcolor="#0006")
        axis.set_xticks(range(len(across)), across, rotation=30, ha="right")
        axis.set_yticks(range(len(down)), down)
        bound = next(r["mean"] for r in rows if r["setting"] == name and r["model"] == "random")
        axis.set_title(f"{name} (random: {bound:.0f})")
    fig.savefig(path, dpi=110)
    plt.close(fig)


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("grid", options.quick, options.fresh)
    rows = []
    for name in HORIZON:
        rows.append(random_row(name, 1 if options.quick else FITS_COMPARED))
        for model_name in make_models(name, envs.make(name, max_steps=STEPS)):
            seeds = 1 if options.quick else FITS_COMPARED if model_name in COMPARED else FITS_OF_A_PAIR
            rows += column(cells, name, model_name, seeds)
            jax.clear_caches()
    result = {
        "claim": "any model, any use: every model plans with every planner, or says why not",
        "source": "the design's first promise",
        "setting": f"one fit to {ROWS} logged rows, half of them random, the rest of a hand-written controller; "
        f"{FITS_OF_A_PAIR} fits ({FITS_COMPARED} of what the verdict compares: with 2, as in a first run, the control "
        f"could not be told from random), {EPISODES} episodes of {STEPS} steps each; 240 candidate plans a decision",
        "rows": rows,
        "verdict": verdict(rows),
    }
    path = common.write("grid", options.quick, result)
    heat_map(rows, str(path.with_suffix(".png")))


if __name__ == "__main__":
    main()
