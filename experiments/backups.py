r"""Sample backups pay off against full ones at equal computation (Sutton & Barto 2018, section 8.5, Figure 8.7).

One pair with ``b`` equally likely successors whose values are right, and an error of 1 at first. A full (expected)
backup costs ``b`` evaluations of ``max_a' Q(s', a')`` and removes the error; a sample backup costs one. With the step
size 1/t the error after ``t`` samples is :math:`\sigma / \sqrt{t}`, with :math:`\sigma` the spread of the successors'
values, here 1 (the book's :math:`\sqrt{(b - 1) / (b t)}` divides by ``b - 1`` in it). The control is ``b = 2``, where
there is nothing to gain. Then whole systems at equal computation in a world with noise.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jmbrl import agents, envs
from jmbrl.learners.q_learning import back_up
from jmbrl.train import make_train
from jmbrl.types import Successors

import common

BRANCHING = (2, 10, 100, 1000)
PAIRS = 2_000  # independent repetitions
HALF = 0.5  # of the computation that one full backup costs


def sample_errors(b: int) -> dict:
    """Size of the error of each of 2,000 pairs after ``t = 1 .. 2b`` sample backups, root mean square; and at ``b/2``.

    The successors' values have mean 0 and are scaled to a mean square of 1 in every pair, the pair's own begins at 1.
    """

    def one(key: jax.Array) -> jax.Array:
        key_values, key_draws = jax.random.split(key)
        values = jax.random.normal(key_values, (b,))
        values = values - jnp.mean(values)
        values = values / jnp.sqrt(jnp.mean(values**2))
        table = jnp.concatenate([jnp.ones(1), values])[:, None]  # state 0 is the pair; 1 .. b its successors
        drawn = 1 + jax.random.randint(key_draws, (2 * b,), 0, b)

        def step(table: jax.Array, row: tuple) -> tuple:
            t, following = row
            sure = Successors(*(jnp.asarray(x)[None, None] for x in (1.0, following, 0.0, 1.0)))
            zero = jnp.zeros(1, jnp.int32)
            table, _ = back_up(table, zero, zero, sure, 1 / t, 1.0)
            return table, table[0, 0]

        return jax.lax.scan(step, table, (1.0 + jnp.arange(2 * b), drawn))[1]

    found = np.asarray(
        jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=100))(jax.random.split(jax.random.key(b), PAIRS))
    )
    half = max(int(HALF * b) - 1, 0)
    return {"curve": np.sqrt(np.mean(found**2, axis=0)).tolist(), "half": np.abs(found[:, half]).tolist()}


def world_errors(backup: str, updates: int, runs: int) -> dict:
    """Largest error of the values of visited states after equal computation, in the stochastic wind.

    An expected backup looks at three outcomes, a sample backup at one: ``updates`` a step of the latter, a third of the
    former. The truth is value iteration on the counts that the run itself has gathered.
    """
    env = envs.make("windy_gridworld", stochastic=True, max_steps=10_000_000)
    count = updates // 3 if backup == "expected" else updates
    shared = {"outcomes": 3, "gamma": 0.95, "epsilon": 0.3, "alpha": 0.1}
    settings = {**shared, "planning_steps": count, "backup": backup}
    settings["planning_alpha"] = 1.0 if backup == "expected" else 0.1
    train = make_train(env, agents.dyna_q(env, agents.DynaQConfig(**settings)), 10_000)
    exact = agents.dyna_q(env, agents.DynaQConfig(**shared, planning_steps=2_000, planning_alpha=1.0, backup="full"))

    def one(key: jax.Array) -> jax.Array:
        run, _ = train(key)
        truth = exact.phases[0][1](key, run.agent, 0)[0].learner.values
        often = jnp.sum(run.agent.params.weights.count, axis=-1) >= 10
        wrong = jnp.where(often, run.agent.learner.values - truth, 0.0)
        return jnp.sqrt(jnp.sum(wrong**2) / jnp.sum(often))

    return {"errors": jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), runs)).tolist()}


def main() -> None:
    options = common.arguments(__doc__.splitlines()[0])
    cells = common.Cells("backups", options.quick, options.fresh)
    runs = 5 if options.quick else 30
    rows, checks, curves = [], [], {}
    for b in BRANCHING:
        found = cells.get(f"b={b}", {"pairs": PAIRS}, lambda b=b: sample_errors(b))
        curves[b] = np.asarray(found["curve"])
        rows.append(
            common.row(f"b = {b}", "sample backups", np.asarray(found["half"])[:200], "error at half the computation")
        )
        t = 1.0 + np.arange(2 * b)
        gap = float(np.max(np.abs(curves[b] / np.sqrt(1 / t) - 1)))
        checks.append((gap < 0.1, f"b = {b}: root mean square error within {gap:.3f} of 1/sqrt(t)"))
        error = float(curves[b][max(b // 2 - 1, 0)])
        expected = b > 2
        fits = (error < 0.5) == expected
        kind = "" if expected else "control, should not: "
        checks.append((fits, f"b = {b}: {kind}at half the cost of one full backup the error is below 0.5: {error:.3f}"))
    for backup in ("sample", "expected"):
        found = cells.get(backup, {"updates": 30, "runs": runs}, lambda backup=backup: world_errors(backup, 30, runs))
        rows.append(common.row("stochastic wind", f"{backup} backups", found["errors"], "root mean square error"))
    verdict = common.judge(rows, [common.Compare("stochastic wind", "expected backups", "sample backups")])
    result = {
        "claim": "With many successors sample backups have removed most of the error before one full backup is done; "
        "with three, at equal computation, expected backups end closer to the truth",
        "source": "Sutton & Barto 2018, section 8.5 and Figure 8.7",
        "setting": f"{PAIRS} pairs a branching factor, errors in units of the first; then Dyna-Q in the stochastic "
        f"windy gridworld, 10,000 real steps, 30 evaluations each, {runs} runs; the judge is value iteration",
        "rows": rows,
        "verdict": common.together(common.agreement(checks), verdict),
    }
    draw(curves, common.write("backups", options.quick, result))


def draw(curves: dict, path: common.Path) -> None:
    fig, axis = plt.subplots(figsize=(5.4, 3.6), constrained_layout=True)
    for b, curve in curves.items():
        axis.plot(np.arange(1, 2 * b + 1) / b, curve, label=f"sample, b = {b}")
    axis.plot([0, 1, 1, 2], [1, 1, 0, 0], "k--", lw=1, label="full")
    axis.set(xlabel="computation, in full backups", ylabel="root mean square error", ylim=(0, 1.05))
    axis.legend(frameon=False, fontsize=8)
    fig.savefig(path.with_suffix(".png"), dpi=110)
    plt.close(fig)


if __name__ == "__main__":
    main()
