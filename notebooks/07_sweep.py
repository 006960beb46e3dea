# %% [markdown]
# # 7. A sweep with vmap
#
# A whole run is one pure function, `train(key) -> (run, history)`. So seeds are `vmap` over keys, and a hyper-parameter
# that enters as a number is `vmap` over an array: many runs are one program. What changes a shape or the length of a
# loop cannot be an array; for that there is the command `jmbrl sweep`.
#
# The tasks are two of Sutton and Barto's grids, the system their Dyna-Q: learn from each real step, then from some
# imagined ones.

# %%
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("jmbrl") is None:  # on Colab; once it is on PyPI the name alone is enough
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "git+https://github.com/jmbrl/jmbrl"], check=True)

# %%
import json
import os
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jmbrl import agents, envs
from jmbrl.train import make_train

QUICK = bool(os.environ.get("JMBRL_QUICK"))  # a run of seconds that shows how, not how well
SEEDS = 3 if QUICK else 20
STEPS = 8_000
plt.rcParams["figure.constrained_layout.use"] = True

env = envs.make("windy_gridworld")
state, obs = env.reset(jax.random.key(0))
figure, axis = plt.subplots(figsize=(3.5, 2.6))
axis.imshow(env.render(obs))
axis.set_title("a wind blows upwards in the middle", fontsize="small")
axis.axis("off")

# %% [markdown]
# ## One function of a key and two numbers
#
# The agent is built *inside* the function that is mapped, so its settings may be traced arrays.

# %%
alphas = jnp.array([0.05, 0.1, 0.2, 0.5, 1.0])
epsilons = jnp.array([0.0, 0.02, 0.05, 0.1, 0.2, 0.4])


def learn(key, alpha, epsilon):
    agent = agents.dyna_q(env, agents.DynaQConfig(planning_steps=5, alpha=alpha, epsilon=epsilon))
    _, history = make_train(env, agent, steps=STEPS)(key)
    return history["episode_length"][:, 0]  # where an episode ended at this step, else 0


over_seeds = jax.vmap(learn, in_axes=(0, None, None))
over_epsilons = jax.vmap(over_seeds, in_axes=(None, None, 0))
program = jax.jit(jax.vmap(over_epsilons, in_axes=(None, 0, None)))  # [alphas, epsilons, seeds, steps]
keys = jax.random.split(jax.random.key(0), SEEDS)

begin = time.perf_counter()
lengths = np.asarray(program(keys, alphas, epsilons))
first = time.perf_counter() - begin
begin = time.perf_counter()
jax.block_until_ready(program(keys, alphas, epsilons))
again = time.perf_counter() - begin
print(f"{lengths[..., 0].size} runs of {STEPS:,} steps: {first:.1f} s, {again:.1f} s once compiled")

# %% [markdown]
# ## Which settings learn fastest?
#
# The measure: real steps until the 20th episode has ended. The shortest way is 15 steps, so the best policy would take
# 300.

# %%
ended = np.cumsum(lengths > 0, axis=-1) >= 20
needed = np.where(ended.any(axis=-1), ended.argmax(axis=-1) + 1.0, STEPS)
median = np.median(needed, axis=-1)

figure, axes = plt.subplots(1, 2, figsize=(10, 3.2))
shown = axes[0].imshow(median, origin="lower", cmap="viridis_r", aspect="auto")
axes[0].set(xlabel="exploration epsilon", ylabel="step size alpha")
axes[0].set_xticks(range(len(epsilons)), [f"{x:g}" for x in epsilons])
axes[0].set_yticks(range(len(alphas)), [f"{x:g}" for x in alphas])
figure.colorbar(shown, label="steps for 20 episodes, median")
at = 3  # epsilon 0.1
axes[1].plot(alphas, needed[:, at], ".", color="C0", alpha=0.3)
axes[1].plot(alphas, median[:, at], color="C0")
axes[1].set(xscale="log", xlabel="step size alpha", ylabel="steps for 20 episodes")
axes[1].set_title(f"epsilon {epsilons[at]:g}: {SEEDS} seeds each, and their median", fontsize="medium")
axes[1].grid(alpha=0.3)
if not QUICK:
    best = np.unravel_index(np.argmin(median), median.shape)
    print(f"best: alpha {alphas[best[0]]:g}, epsilon {epsilons[best[1]]:g}: {median[best]:.0f} steps")
    assert best[0] >= 3, "large steps"
    assert best[1] <= 3, "little exploration"

# %% [markdown]
# Look for: large steps and little exploration. Nothing here is random, so that a step need not be averaged, and the
# values begin too high, which explores by itself. That tells about this grid, not about Dyna-Q. The dots tell how many
# seeds it takes to say so.
#
# Memory grows with the number of runs; `jax.lax.map` with `batch_size` runs a few of them at a time.
#
# ## What cannot be an array: the command
#
# (What can be one, the command does in one program, too: `--array alpha=0.1,0.5 --array epsilon=0,0.1`.)
#
# `planning_steps` is the length of a loop. `jmbrl sweep` runs the grid of `--set` values, each cell in a process of its
# own (`--jobs` at a time, or on Slurm), seeds side by side in each. A finished cell is not run again. Here on the maze
# of chapter 8.

# %%
folder = Path(tempfile.mkdtemp(prefix="sweep-"))
choices = ("0", "5") if QUICK else ("0", "5", "50")
command = f"sweep dyna_q --env maze --steps {STEPS} --seeds {SEEDS} --set planning_steps={','.join(choices)}"
print(f"jmbrl {command} --out DIR")
done = subprocess.run(
    [sys.executable, "-m", "jmbrl", *command.split(), "--out", str(folder)], capture_output=True, text=True
)
print(done.stdout if done.returncode == 0 else done.stderr)

# %% [markdown]
# Every return is 1 here, so the table says little; the files of each run hold the rest. How long is each episode, by
# the number of imagined steps?

# %%
figure, axis = plt.subplots(figsize=(5.5, 3))
for count in choices:
    text = (folder / f"planning_steps={count}" / "metrics.jsonl").read_text()
    rows = [row for row in map(json.loads, text.splitlines()) if "episode_length" in row]
    by_seed = [[row["episode_length"] for row in rows if row["seed"] == seed] for seed in range(SEEDS)]
    shortest = min(map(len, by_seed))
    mean = np.mean([lengths[:shortest] for lengths in by_seed], axis=0)[:50]
    axis.plot(np.arange(1, len(mean) + 1), mean, label=f"{count} imagined steps")
    print(f"{count} imagined steps: {mean[:10].mean():.0f} real steps an episode in the first ten")
axis.axhline(14, color="0.6", linestyle="--", label="shortest way")
axis.set(yscale="log", xlabel="episode", ylabel="steps")
axis.legend(frameon=False, fontsize="small")
axis.grid(alpha=0.3, which="both")

# %% [markdown]
# Look for: the more is imagined, the fewer real episodes it takes. This is figure 8.2 of the book.
