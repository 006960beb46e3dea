"""Chaining samples of a stochastic model, against chaining its expectation.

Claim: in a nonlinear world the mean over chains of sampled steps gives the expected reward some steps ahead, where
chaining the expectation does not, E[f(x)] != f(E[x]); the price is that each link adds noise, so that a single chain's
error grows with the horizon and many chains are needed.
Sources: Girard et al. 2003 (multiple-step ahead prediction under uncertainty); Chua et al. 2018 (arXiv 1805.12114),
section 4 (particles against the expectation's propagation). The control: a linear world with a linear reward, where the
expectation passes through every link and its chain is as right.

The world is one number in a double well, x <- x + 0.2 (x - x^3) + 0.2 a + 0.2 noise; the reward says how surely it is
in the right-hand well, and noise decides which way it falls from the ridge. A ``gaussian_mlp`` learns it from random
rows, the reward is given. From equal starts under equal action sequences each arm predicts the expected reward; the
truth is the mean of many paths of the world itself.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jmbrl import envs, models
from jmbrl.rollout import imagine, random_actions
from jmbrl.types import Array, Continuous, Env, Key, Model, Params, PyTree

import common

ROWS, HORIZON, SEEDS = 2000, 20, 8
STARTS, CHAINS, PATHS = 64, 100, 1000
HIDDEN = (32, 32)
TRAINER = {"batch_size": 64, "epochs": 60}
ARMS = ("expectation", "one chain", "100 chains", "100 chains of the world")
COMPARISONS = [
    common.Compare("double well, 20 steps", "100 chains", "expectation"),
    common.Compare("double well, one chain", "1 step", "20 steps"),
    common.Compare("linear, one chain", "1 step", "20 steps"),
    common.Compare("linear, 20 steps", "100 chains", "expectation", expected=False),
]


def world(linear: bool) -> Env:
    """One number ``x``, pushed by the action and by noise; the reward reads the next ``x``."""

    def reset(key: Key) -> tuple[Array, Array]:
        x = jax.random.uniform(key, (1,), minval=-1.5, maxval=1.5)
        return x, x

    def reward(obs: Array, action: Array, next_obs: Array) -> Array:
        return next_obs[0] if linear else jax.nn.sigmoid(8.0 * next_obs[0])

    def step(key: Key, x: Array, action: Array) -> tuple:
        drift = 0.9 * x if linear else x + 0.2 * (x - x**3)
        following = drift + 0.2 * action + 0.2 * jax.random.normal(key, (1,))
        return following, following, reward(x, action, following), False

    return envs.from_functions(
        reset, step, action=Continuous((-1.0,), (1.0,)), max_steps=50, name="links", reward_fn=reward
    )


def rewards(key: Key, model: Model, params: Params, beliefs: PyTree, actions: Array, chains: int) -> Array:
    """Imagined rewards ``[H, STARTS, chains]`` of sampled chains; ``chains=0``: of the expectation's one chain."""
    rows = max(chains, 1)
    many = jax.tree.map(lambda x: jnp.repeat(x, rows, axis=0), beliefs)
    along = jnp.repeat(actions, rows, axis=1)

    def step_many(key: Key, beliefs: PyTree, actions: Array) -> tuple:
        return model.step_many(key, params, beliefs, actions) if chains else model.expect(params, beliefs, actions)

    path = imagine(key, step_many, many, lambda key, beliefs, t: (along[t], ()), HORIZON)[1]
    return path.outcome.reward.reshape(HORIZON, STARTS, rows)


def runner(linear: bool) -> Callable:
    """``(key) -> {arm: rmse[H]}`` of the expected reward, compiled once for all seeds."""
    env = world(linear)
    learned, truth = models.gaussian_mlp(env.spec, HIDDEN, reward=env.reward_fn), models.simulator(env)

    @jax.jit
    def run(key: Key) -> dict[str, Array]:
        keys = jax.random.split(key, 8)
        params = common.fitted(keys[0], learned, common.gather(keys[1], env, ROWS, num_envs=10), **TRAINER)
        states, obs = jax.vmap(env.reset)(jax.random.split(keys[2], STARTS))
        actions = random_actions(keys[3], env.spec, HORIZON * STARTS).reshape(HORIZON, STARTS, -1)
        true = jnp.mean(rewards(keys[4], truth, truth.init(key), (states, obs), actions, PATHS), axis=2)
        floor = jnp.mean(rewards(keys[5], truth, truth.init(key), (states, obs), actions, CHAINS), axis=2)
        sampled = rewards(keys[6], learned, params, obs, actions, CHAINS)
        chained = rewards(keys[7], learned, params, obs, actions, 0)[:, :, 0]
        rmse = lambda error: jnp.sqrt(jnp.mean(error.reshape(HORIZON, -1) ** 2, axis=1))  # noqa: E731
        errors = chained - true, sampled - true[:, :, None], jnp.mean(sampled, axis=2) - true, floor - true
        return {arm: rmse(error) for arm, error in zip(ARMS, errors, strict=True)}

    return run


def figure(curves: dict[str, dict[str, np.ndarray]], path: str) -> None:
    """A panel a world: error against the horizon, mean over seeds and their range."""
    fig, axes = plt.subplots(1, len(curves), figsize=(4.5 * len(curves), 3.6), constrained_layout=True)
    for axis, (name, arms) in zip(axes, curves.items(), strict=True):
        for i, (arm, values) in enumerate(arms.items()):
            steps = range(1, HORIZON + 1)
            axis.plot(steps, values.mean(0), f"C{i}", label=arm, ls="--" if "world" in arm else "-")
            axis.fill_between(steps, values.min(0), values.max(0), color=f"C{i}", alpha=0.2, lw=0)
        axis.set(title=name, xlabel="steps ahead", ylabel="rmse of the expected reward", ylim=(0, None))
    axes[0].legend(fontsize=7)
    fig.savefig(path, dpi=110)
    plt.close(fig)


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("chained_noise", options.quick, options.fresh)
    wanted = {"rows": ROWS, "starts": STARTS, "chains": CHAINS, "paths": PATHS, "hidden": HIDDEN, **TRAINER}
    curves: dict[str, dict[str, np.ndarray]] = {}
    rows = []
    for name, linear in {"double well": False, "linear": True}.items():
        run = runner(linear)
        cell = lambda seed, run=run: jax.tree.map(lambda x: x.tolist(), run(jax.random.key(seed)))  # noqa: E731
        found = [
            cells.get(f"{name}/{seed}", wanted, lambda seed=seed, cell=cell: cell(seed))
            for seed in range(1 if options.quick else SEEDS)
        ]
        curves[name] = {arm: np.asarray([one[arm] for one in found]) for arm in ARMS}
        unit = "rmse of the expected reward over starts"
        rows += [
            common.row(f"{name}, {HORIZON} steps", arm, curves[name][arm][:, -1], unit, curve=arm_mean)
            for arm in ARMS
            for arm_mean in [curves[name][arm].mean(0).round(5).tolist()]
        ]
        single = curves[name]["one chain"]
        rows += [common.row(f"{name}, one chain", f"{h} step{'s' * (h > 1)}", single[:, h - 1], unit) for h in (1, 20)]
    result = {
        "claim": "sampled chains of a stochastic model reproduce the expected reward of a nonlinear world, where the "
        "chained expectation does not; a single chain's error grows with every link",
        "source": "Girard et al. 2003; Chua et al. 2018 (arXiv 1805.12114), section 4",
        "setting": f"a gaussian_mlp {HIDDEN} of {ROWS} random rows; {STARTS} starts, {PATHS} true paths of each",
        "rows": rows,
        "verdict": common.judge(rows, COMPARISONS),
    }
    path = common.write("chained_noise", options.quick, result)
    figure(curves, str(path.with_suffix(".png")))


if __name__ == "__main__":
    main()
