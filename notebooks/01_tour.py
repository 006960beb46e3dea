# %% [markdown]
# # 1. A tour in ten minutes
#
# Model-based reinforcement learning learns a *model*: what will be seen next, given what is seen now and what is done.
# With it an agent can try actions in imagination, and needs few real steps.
#
# Here PETS (Chua et al. 2018) learns to swing up a pendulum in ten episodes. Then we look at the model it learned, save
# the run, load it and act.

# %%
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("jmbrl") is None:  # on Colab; once it is on PyPI the name alone is enough
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "git+https://github.com/jmbrl/jmbrl"], check=True)

# %%
import os
import tempfile

import gymnasium
import jax
import matplotlib.pyplot as plt
import numpy as np

import jmbrl
from jmbrl import configs, diagnostics, envs, rollout, runner

QUICK = bool(os.environ.get("JMBRL_QUICK"))  # a run of seconds that shows how, not how well
EPISODES = 2 if QUICK else 10

# %% [markdown]
# ## What does the agent see, and what can it do?
#
# An environment is a record of pure functions. It says what it promises in `spec`. Actions are in `[-1, 1]` inside the
# library; here 1 means a torque of 2 Nm.

# %%
env = envs.make("gymnax:Pendulum-v1")
print(env.spec.obs_names, env.spec.action, f"{env.spec.max_steps} steps an episode")

reset, step = jax.jit(env.reset), jax.jit(env.step)
state, obs = reset(jax.random.key(3))
frames = [env.render(obs)]
for key in jax.random.split(jax.random.key(1), 40):
    key_action, key_step = jax.random.split(key)
    action = rollout.random_actions(key_action, env.spec, 1)[0]
    state, seen = step(key_step, state, action)
    frames.append(env.render(seen.obs))

figure, axes = plt.subplots(1, 5, layout="constrained", figsize=(10, 1.6))
for axis, t in zip(axes, range(0, 41, 10), strict=True):
    axis.imshow(frames[t])
    axis.set_title(f"step {t}, random actions", fontsize="small")
    axis.axis("off")

# %% [markdown]
# The torque is too weak to lift the pendulum at once: it has to be swung. The return of an episode is about -1200 at
# random, and about -120 for a planner that knows the true equations.
#
# ## Does PETS learn this in ten episodes?
#
# One episode of random actions comes first. After each episode PETS fits an ensemble of five networks to all that was
# seen; at each step it plans 20 steps ahead through them. A run keeps its checkpoints, numbers and figures in a folder.
# The same from a shell: `jmbrl train pets --env gymnax:Pendulum-v1 --steps 2000 --out FOLDER`.

# %%
settings = ["population=30", "elites=5", "particles=5", "epochs=5"] if QUICK else []
config = configs.make("pets", "gymnax:Pendulum-v1", steps=200 * EPISODES, settings=settings)
folder = tempfile.mkdtemp(prefix="tour-")

result = runner.run(
    configs.build(config).train,
    config["seed"],
    folder,
    config=config,
    options=runner.Options(quiet=True),
    callbacks=[lambda chunk: print(f"{chunk.env_steps} of {chunk.steps} steps", end="\r")],
)

# %%
returns = result.history["episode_return"][0]
returns = returns[np.isfinite(returns)]
figure, axis = plt.subplots(layout="constrained", figsize=(6, 3.2))
axis.plot(range(1, len(returns) + 1), returns, "o-", label="PETS")
axis.axhline(-1184, color="0.6", linestyle=":", label="random actions")
axis.axhline(-120, color="0.3", linestyle="--", label="the same planner in the true equations")
axis.set(xlabel="episode", ylabel="return", title=f"Pendulum, {result.env_steps} steps")
axis.legend(frameon=False)
print("last episodes:", np.round(returns[-3:]))

# %% [markdown]
# Look for: a jump towards -120 within the first five or six episodes. (A single episode may be better or worse than
# -120: it depends on where the pendulum starts.)
#
# ## How far ahead can the model be trusted?
#
# `diagnose` lets the agent of the newest checkpoint act in fresh episodes and compares its model with what happens;
# from a shell, `jmbrl diagnose FOLDER`. Notebook 3 is about these panels. The first shows the error by steps ahead
# beside a baseline, *nothing changes*; the last row shows one real episode and what the model imagines under the same
# actions, from the first frame on. No model needs to be right for 200 steps: this one is asked for 20, and looks again
# after each.

# %%
less = {"episodes": 2, "windows": 32, "calls": 5} if QUICK else {}
numbers = diagnostics.diagnose(folder, **less)
error = numbers["model_error"]
print(f"20 steps ahead: the model is off by {error['rmse'][19]:.3f} standard deviations of the data,")
print(f"'nothing changes' by {error['persistence'][19]:.3f}.")

figure, axis = plt.subplots(layout="constrained", figsize=(13, 9.5))
axis.imshow(plt.imread(f"{folder}/diagnostics.png"))
axis.axis("off")

# %% [markdown]
# ## Load it and act
#
# `jmbrl.load` gives a policy for NumPy observations, in the environment's own units. Here it acts in *Gymnasium's*
# pendulum, which is another program than the one it was trained in.

# %%
policy = jmbrl.load(folder)
world = gymnasium.make("Pendulum-v1")
obs, _ = world.reset(seed=0)
policy.reset()
angles, torques, total = [], [], 0.0
for _ in range(20 if QUICK else 200):
    action = policy.act(obs)
    obs, reward, _, _, _ = world.step(action)
    angles.append(np.arctan2(obs[1], obs[0]))
    torques.append(action[0])
    total += float(reward)
world.close()

figure, axes = plt.subplots(2, 1, layout="constrained", figsize=(6, 3.6), sharex=True)
axes[0].plot(angles)
axes[0].set(ylabel="angle, 0 is upright", ylim=(-np.pi, np.pi))
axes[1].plot(torques, color="C1")
axes[1].set(ylabel="torque (Nm)", xlabel="step")
print(f"return in Gymnasium's pendulum: {total:.0f}")
assert QUICK or total > -400, "it should swing up and stay there"

# %% [markdown]
# It swings, catches the pendulum and holds it. The torque chatters: it costs almost nothing in this task's reward.
#
# Next: [2, PETS from its parts](02_pets_from_parts.ipynb), [3, seeing the model](03_seeing_the_model.ipynb), [6, your
# own environment](06_your_own_environment.ipynb).
