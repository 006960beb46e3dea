"""Predicting how the state changes, against predicting the next state.

Claim: from few rows of a world in small time steps, a network that predicts the change of the state is more accurate,
one step ahead and ten, than the same network that predicts the next state: the change is what it does not know yet.
Sources: Deisenroth and Rasmussen 2011 (PILCO), section 2.1; Nagabandi et al. 2018 (arXiv 1708.02596), section IV-A;
Chua et al. 2018 (arXiv 1805.12114), appendix. The control: a world without memory, whose next state is the action and
noise, so that the state before has to be subtracted first and predicting the change should not win.

Data, initial weights, order of rows and number of updates are the same in both arms of a seed. Errors are measured in
episodes that were not trained on: one step ahead in units of the change's standard deviation (predicting "no change"
scores about 1), ten steps open loop in units of the state's.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jmbrl import data, diagnostics, envs, models
from jmbrl.types import Continuous, Env

import common

ROWS, HELD_OUT, HORIZON, SEEDS = 1000, 2000, 10, 8
HIDDEN = (64, 64)
TRAINER = {"batch_size": 32, "epochs": 60}
NETWORKS: dict[str, Callable] = {"deterministic": models.deterministic_mlp, "Gaussian": models.gaussian_mlp}
TARGETS = {"change": True, "next state": False}


def memoryless() -> Env:
    """The next state is a function of the action, and noise: the state before says nothing of it."""

    def reset(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        obs = jax.random.normal(key, (2,))
        return obs, obs

    def step(key: jax.Array, state: jax.Array, action: jax.Array) -> tuple:
        obs = jnp.stack([jnp.sin(2.0 * action[0]), jnp.cos(2.0 * action[0])]) + 0.3 * jax.random.normal(key, (2,))
        return obs, obs, 0.0, False

    return envs.from_functions(reset, step, action=Continuous((-1.0,), (1.0,)), max_steps=200, name="memoryless")


WORLDS: dict[str, Callable[[], Env]] = {
    "pendulum": lambda: envs.make("gymnax:Pendulum-v1"),
    "cartpole swing-up": lambda: envs.make("cartpole_swingup"),
    "memoryless": memoryless,
}


def runner(world: str, network: str, target: str) -> Callable:
    """``(key) -> {"one step", "ten steps"}``, compiled once for all seeds; equal keys see equal data."""
    env = WORLDS[world]()
    model = NETWORKS[network](
        env.spec, HIDDEN, predict_change=TARGETS[target], reward=lambda obs, action, next_obs: jnp.zeros(())
    )

    @jax.jit
    def run(key: jax.Array) -> dict[str, jax.Array]:
        key_data, key_held, key_fit, key_error = jax.random.split(key, 4)
        params = common.fitted(key_fit, model, common.gather(key_data, env, ROWS, num_envs=5), **TRAINER)
        held = common.gather(key_held, env, HELD_OUT, num_envs=10)
        rows, _ = data.rows(held)
        change = jnp.std(rows.next_obs - rows.obs, axis=0)
        error = (model.expect(params, rows.obs, rows.action)[0] - rows.next_obs) / change
        ahead = diagnostics.model_error(key_error, model, params, held, HORIZON)["rmse"][-1]
        return {"one step": jnp.sqrt(jnp.mean(error**2)), "ten steps": ahead}

    return run


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("delta_targets", options.quick, options.fresh)
    wanted = {"rows": ROWS, "hidden": HIDDEN, **TRAINER}
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for world in WORLDS:
        for network in NETWORKS:
            for target in TARGETS:
                run = runner(world, network, target)
                cell = lambda seed, run=run: jax.tree.map(float, run(jax.random.key(seed)))  # noqa: E731
                found[world, f"{network}, {target}"] = [
                    cells.get(f"{world}/{network}/{target}/{seed}", wanted, lambda seed=seed, cell=cell: cell(seed))
                    for seed in range(1 if options.quick else SEEDS)
                ]
    units = {"one step": "rmse, in standard deviations of the change", "ten steps": "rmse, in those of the state"}
    rows = [
        common.row(f"{world}, {ahead}", arm, [cell[ahead] for cell in here], unit)
        for ahead, unit in units.items()
        for (world, arm), here in found.items()
    ]
    compare = [
        common.Compare(f"{world}, {ahead}", f"{network}, change", f"{network}, next state", world != "memoryless")
        for world in WORLDS
        for ahead in units
        for network in NETWORKS
    ]
    result = {
        "claim": "a network that predicts the change of the state is more accurate than one that predicts the state",
        "source": "Deisenroth and Rasmussen 2011, section 2.1; Nagabandi et al. 2018 (arXiv 1708.02596), section IV-A",
        "setting": f"{ROWS} rows of uniform actions (5 episodes), {HELD_OUT} held out; network {HIDDEN}, "
        f"{TRAINER['epochs']} epochs of batches of {TRAINER['batch_size']}; reward given",
        "rows": rows,
        "verdict": common.judge(rows, compare),
    }
    path = common.write("delta_targets", options.quick, result)
    common.bars(rows, str(path.with_suffix(".png")), "rmse (standard deviations)", log=True)


if __name__ == "__main__":
    main()
