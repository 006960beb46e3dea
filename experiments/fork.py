"""A fork in the road: the expectation goes straight into the obstacle, a mixture goes left or right.

Claim: where the same state and action lead to one of two places, a network trained on the squared error imagines the
middle between them, where the world never is, and one Gaussian covers it; a mixture of Gaussians imagines both sides.
Sources: Bishop 1994, Mixture density networks (NCRG/94/004), section 5; Ha and Schmidhuber 2018 (arXiv 1803.10122),
section 2.2. The control: the same road with one way only, where a Gaussian is the right shape and the mixture should
not win.

At each step a walker meets an obstacle in the middle of the road, passes it on the left or on the right by the toss of
a coin that nobody sees, and steers a little. Each model imagines ten steps from fresh starts; what counts is the share
of its states within half a unit of the middle. The world's own walkers, about one unit away from it with a spread of a
tenth, are hardly ever there. Margin: a tenth of the states.

A first design had one obstacle at one place of the road. Its control failed: with one way only, the models that sample
missed the sudden bend in a fifth of their states or more, so that it tested how sharply they see a place, not the fork.
Here the fork is everywhere.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jmbrl import envs, models
from jmbrl.rollout import imagine, random_actions
from jmbrl.types import Array, Continuous, Env, Key, Model

import common

ROWS, STEPS, STARTS, SEEDS = 2000, 10, 200, 8
HALF_WIDTH, MARGIN = 0.5, 0.1
HIDDEN = (64, 64)
TRAINER = {"batch_size": 32, "epochs": 60}
MODELS: dict[str, Callable] = {
    "world": lambda env, reward: models.simulator(env),
    "deterministic": lambda env, reward: models.deterministic_mlp(env.spec, HIDDEN, reward=reward),
    "Gaussian": lambda env, reward: models.gaussian_mlp(env.spec, HIDDEN, reward=reward),
    "mixture network": lambda env, reward: models.mixture_mlp(env.spec, HIDDEN, 4, reward=reward),
    "Gaussian mixture": lambda env, reward: models.gmm(env.spec, components=10, reward=reward),
}
COMPARISONS = [
    common.Compare(setting, mixture, other, setting == "two ways", margin=MARGIN)
    for setting in ("two ways", "one way")
    for mixture in ("mixture network", "Gaussian mixture")
    for other in ("deterministic", "Gaussian")
]


def road(two_ways: bool) -> Env:
    """The observation is how far to the right of the road's middle the walker is."""

    def reset(key: Key) -> tuple[Array, Array]:
        obs = jax.random.uniform(key, (1,), minval=-1.0, maxval=1.0)
        return obs, obs

    def step(key: Key, obs: Array, action: Array) -> tuple:
        key_side, key_noise = jax.random.split(key)
        side = jnp.where(jax.random.bernoulli(key_side), 1.0, -1.0) if two_ways else 1.0
        following = side + 0.1 * obs + 0.1 * action + 0.1 * jax.random.normal(key_noise, (1,))
        return following, following, 0.0, False

    return envs.from_functions(reset, step, action=Continuous((-1.0,), (1.0,)), max_steps=STEPS, name="road")


def runner(setting: str, arm: str) -> Callable:
    """``(key) -> paths float32[STEPS, STARTS]``, how far to the right; compiled once for all seeds."""
    env = road(setting == "two ways")
    model: Model = MODELS[arm](env, lambda obs, action, next_obs: jnp.zeros(()))

    @jax.jit
    def run(key: Key) -> Array:
        key_data, key_fit, key_start, key_actions, key_path = jax.random.split(key, 5)
        states, beliefs = jax.vmap(env.reset)(jax.random.split(key_start, STARTS))
        if arm == "world":
            params, beliefs = model.init(key_fit), (states, beliefs)
        else:
            params = common.fitted(key_fit, model, common.gather(key_data, env, ROWS, num_envs=10), **TRAINER)
        actions = random_actions(key_actions, env.spec, STEPS * STARTS).reshape(STEPS, STARTS, -1)
        step_many = lambda key, beliefs, actions: model.step_many(key, params, beliefs, actions)  # noqa: E731
        _, path = imagine(key_path, step_many, beliefs, lambda key, beliefs, t: (actions[t], ()), STEPS)
        seen = path.next_belief[1] if arm == "world" else path.next_belief
        return seen[..., 0]

    return run


def cell(run: Callable, seed: int) -> dict:
    paths = np.asarray(run(jax.random.key(seed)))
    middle = float(np.mean(np.abs(paths) < HALF_WIDTH))
    return {"middle": middle, "paths": paths[:, :40].round(3).tolist()}


def figure(rows: list[dict], paths: dict[tuple[str, str], list], path: str) -> None:
    """A panel a setting and arm: imagined paths of the first seed and the forbidden middle."""
    fig, axes = plt.subplots(
        2, len(MODELS), figsize=(3 * len(MODELS), 5), sharex=True, sharey=True, layout="constrained"
    )
    for axis, row in zip(axes.flat, rows, strict=True):
        axis.plot(range(1, STEPS + 1), np.clip(paths[row["setting"], row["arm"]], -3, 3), color="C0", lw=0.6, alpha=0.6)
        axis.fill_between([1, STEPS], -HALF_WIDTH, HALF_WIDTH, color="C3", alpha=0.25, lw=0)
        axis.set(title=f"{row['setting']}: {row['arm']}\n{row['mean']:.1%} in the middle", ylim=(-3, 3))
    for axis in axes[-1]:
        axis.set_xlabel("step")
    fig.savefig(path, dpi=110)
    plt.close(fig)


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("fork", options.quick, options.fresh)
    wanted = {"rows": ROWS, "hidden": HIDDEN, "starts": STARTS, "design": 2, **TRAINER}
    rows, paths = [], {}
    for setting in ("two ways", "one way"):
        for arm in MODELS:
            run = runner(setting, arm)
            found = [
                cells.get(f"{setting}/{arm}/{seed}", wanted, lambda run=run, seed=seed: cell(run, seed))
                for seed in range(1 if options.quick else SEEDS)
            ]
            paths[setting, arm] = found[0]["paths"]
            values = [one["middle"] for one in found]
            rows.append(common.row(setting, arm, values, "share of imagined states in the forbidden middle"))
    result = {
        "claim": "an expectation model lands in the middle of a fork, where a mixture does not",
        "source": "Bishop 1994 (NCRG/94/004), section 5; Ha and Schmidhuber 2018 (arXiv 1803.10122), section 2.2",
        "setting": f"{ROWS} rows of uniform actions, {STARTS} imagined paths of {STEPS} steps; networks {HIDDEN}; "
        f"margin {MARGIN:g}",
        "rows": rows,
        "verdict": common.judge(rows, COMPARISONS),
    }
    path = common.write("fork", options.quick, result)
    figure(rows, paths, str(path.with_suffix(".png")))


if __name__ == "__main__":
    main()
