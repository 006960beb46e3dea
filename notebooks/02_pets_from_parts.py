# %% [markdown]
# # 2. PETS from its parts
#
# PETS (Chua et al. 2018) has four parts: an environment, an ensemble of networks that predict Gaussians, trajectory
# sampling, and the cross-entropy method (CEM). Each is a few pure functions. We look at each by itself, then put them
# together and train.

# %%
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("jmbrl") is None:  # on Colab; once it is on PyPI the name alone is enough
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "git+https://github.com/jmbrl/jmbrl"], check=True)

# %%
import os
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jmbrl import agents, data, envs, models, planners, rollout
from jmbrl.train import make_train
from jmbrl.types import Transition

QUICK = bool(os.environ.get("JMBRL_QUICK"))  # a run of seconds that shows how, not how well
EPOCHS, PARTICLES, EPISODES = (5, 50, 2) if QUICK else (100, 200, 10)
plt.rcParams["figure.constrained_layout.use"] = True

# %% [markdown]
# ## The environment: what do random actions show of it?
#
# `env.vector(n)` gives `n` copies side by side. `data.Replay` keeps what was seen, a ring for each copy.

# %%
env = envs.make("gymnax:Pendulum-v1")
STEPS = env.spec.max_steps


@partial(jax.jit, static_argnums=1)
def random_episodes(key, count):
    """A replay with whole episodes of random actions."""
    worlds = env.vector(count)
    key_reset, key_steps = jax.random.split(key)

    def step(carry, key):
        states, obs, replay = carry
        key_action, key_step = jax.random.split(key)
        action = rollout.random_actions(key_action, env.spec, count)
        states, seen = worlds.step(key_step, states, action)
        rows = Transition(obs, action, seen.reward, seen.obs, seen.terminated, seen.truncated)
        return (states, seen.obs, data.add(replay, rows)), None

    start = (*worlds.reset(key_reset), data.empty(env.spec, STEPS, count))
    return jax.lax.scan(step, start, jax.random.split(key_steps, STEPS))[0][2]


def angle(obs):
    return np.arctan2(obs[..., 1], obs[..., 0])


seen = random_episodes(jax.random.key(0), 1)  # to learn from: one episode, 200 rows
fresh = random_episodes(jax.random.key(1), 1)  # to judge by

figure, axis = plt.subplots(figsize=(4.5, 3.2))
for replay, label in ((seen, "to learn from"), (fresh, "to judge by")):
    obs = replay.data.obs[:, 0]
    axis.plot(angle(obs), obs[:, 2], ".", markersize=3, label=label)
axis.set(xlabel="angle (0 is upright)", ylabel="speed", xlim=(-np.pi, np.pi), ylim=(-8, 8))
axis.set_title("one random episode each", fontsize="medium")
axis.legend(frameon=False)
axis.grid(alpha=0.3)

# %% [markdown]
# An episode of random actions swings on nearly the same loop all the time. Everything that follows is learned from the
# 200 blue rows; much of the plane is empty.
#
# ## One network: does it know how far off it is?
#
# `gaussian_mlp` predicts a mean and a standard deviation for every number of the next observation. `ensemble` makes
# five of them, each from other weights and with rows drawn with replacement. A model is a record of functions, too; its
# parameters are a pytree that you hold, and `models.trainer` fits them to a replay. First one member by itself:

# %%
member = models.gaussian_mlp(env.spec, hidden=(64, 64), reward=env.reward_fn)
ensemble = models.ensemble(member, n=5)
trainer = models.trainer(ensemble, epochs=EPOCHS)
params = ensemble.init(jax.random.key(2))
params, _, info = jax.jit(trainer.fit)(jax.random.key(3), params, trainer.init(params), seen)

rows = jax.tree.map(lambda x: x[:80, 0], fresh.data)
said = jax.vmap(member.predict, in_axes=(None, 0, 0))(models.one_member(params, 0), rows.obs, rows.action)
error, spread = said.mean[:, 2] - rows.next_obs[:, 2], said.std[:, 2]

figure, axis = plt.subplots(figsize=(6.5, 3))
axis.errorbar(np.arange(80), error, 2 * spread, fmt=".", color="C1", label="predicted, with 2 std")
axis.axhline(0, color="C0", label="real")
axis.set(xlabel="rows of the fresh episode", ylabel="error of the next speed")
axis.legend(frameon=False)
print(f"rows within 2 std: {np.mean(np.abs(error) < 2 * spread):.0%} (95 % would be calibrated)")

# %% [markdown]
# The world has no noise, so the spread says how well the network thinks it fits. It cannot say where it has never been.
#
# ## The ensemble: where is it ignorant?
#
# Where there are data the members agree. Their disagreement is the ensemble's way to say "I have not seen this". White
# dots are the rows it learned from.

# %%
angles, speeds = jnp.meshgrid(jnp.linspace(-jnp.pi, jnp.pi, 61), jnp.linspace(-8, 8, 61))
grid = jnp.stack([jnp.cos(angles), jnp.sin(angles), speeds], axis=-1).reshape(-1, 3)
apart = models.disagreement(ensemble, params, grid, jnp.zeros((len(grid), 1)))[:, 2].reshape(angles.shape)

figure, axis = plt.subplots(figsize=(5.5, 3.4))
shown = axis.pcolormesh(angles, speeds, apart, cmap="viridis")
figure.colorbar(shown, label="std of the members' next speed")
obs = seen.data.obs[:, 0]
axis.plot(angle(obs), obs[:, 2], "w.", markersize=3)
axis.set(xlabel="angle (0 is upright)", ylabel="speed")
axis.set_title("where the members disagree", fontsize="medium")
axis.grid(False)

# %% [markdown]
# ## Trajectory sampling: what may happen in the next 30 steps?
#
# Imagination is a scan of `model.step_many`, which takes any number of rows at once. Each row, a *particle*, is
# predicted by one member, with its noise. With `tsinf` (the default) a particle keeps its member for the whole plan,
# with `ts1` it gets another at each step, and `mean` averages the members.

# %%
start, actions, real = fresh.data.obs[0, 0], fresh.data.action[:30, 0], fresh.data.next_obs[:30, 0]
figure, axes = plt.subplots(1, 3, figsize=(10, 2.9), sharey=True)
for axis, propagation in zip(axes, ("tsinf", "ts1", "mean"), strict=True):
    model = models.ensemble(member, n=5, propagation=propagation)  # the same parameters fit

    @jax.jit
    def particles(key, params, model=model):
        def step_many(key, beliefs, actions):
            return model.step_many(key, params, beliefs, actions)

        def act(key, beliefs, t):
            return rollout.tile(actions[t], PARTICLES), ()

        return rollout.imagine(key, step_many, rollout.tile(start, PARTICLES), act, 30)[1].next_belief

    path = particles(jax.random.key(6), params)
    axis.plot(path[:, :50, 2], color="C1", alpha=0.2, linewidth=0.8)
    axis.plot(real[:, 2], color="C0", label="real")
    axis.set(title=propagation, xlabel="steps ahead")
axes[0].set(ylabel="speed")
axes[0].legend(frameon=False)

# %% [markdown]
# Look for: fans that begin narrow and open with the distance. This episode begins near the top, where nothing was seen:
# the particles admit it. The mean alone is one line, sure of itself, and off.
#
# ## CEM: what does the search do?
#
# `rollout.objective` turns model and belief into the function that a planner maximises: the imagined return of action
# sequences, a mean over particles. CEM draws sequences, keeps the best, draws again around these. How do the plan and
# its imagined return change from iteration to iteration?

# %%
goal = partial(rollout.objective, ensemble, particles=10)
figure, axes = plt.subplots(1, 2, figsize=(9, 2.9))
scores = {}
for iterations in (1, 2) if QUICK else (1, 2, 5):
    planner = planners.cem(env.spec, horizon=20, population=100, elites=10, iterations=iterations, min_variance=0.0)

    @jax.jit
    def search(key, params, planner=planner):
        objective = goal(params, start)
        plan, _, _ = planner.plan(key, planner.init(), objective)
        return plan, objective.returns(jax.random.key(8), plan[None])[0][0]

    plan, scores[iterations] = search(jax.random.key(7), params)
    axes[0].plot(2 * plan[:, 0], label=f"iteration {iterations}")
axes[0].set(xlabel="step of the plan", ylabel="torque (Nm)")
axes[0].legend(frameon=False)
axes[1].plot(list(scores), list(scores.values()), "o-")
axes[1].set(xlabel="iteration", ylabel="imagined return of the plan", xticks=list(scores))
axes[1].grid(alpha=0.3)

# %% [markdown]
# ## Together: does it learn?
#
# `agents.mpc` is the loop: plan at every step, execute the first action, refit after each episode. `make_train` makes
# the whole run one pure function of a key: environment, data, learning and planning compile into one program.

# %%
planner = planners.cem(env.spec, horizon=20, population=100, elites=10, iterations=2 if QUICK else 5)
agent = agents.mpc(
    env.spec, ensemble, planner, trainer=models.trainer(ensemble, epochs=5 if QUICK else 25), particles=10
)
train = make_train(env, agent, steps=EPISODES * STEPS)
run, history = jax.jit(train)(jax.random.key(0))

rewards = np.asarray(history["reward"]).reshape(EPISODES, STEPS)
figure, axes = plt.subplots(1, 2, figsize=(10, 3))
axes[0].plot(np.arange(1, EPISODES + 1), rewards.sum(axis=1), "o-")
axes[0].set(xlabel="episode", ylabel="return", title="PETS on Pendulum")
axes[0].grid(alpha=0.3)
for episode in sorted({0, min(2, EPISODES - 1), EPISODES - 1}):
    axes[1].plot(rewards[episode], label=f"episode {episode + 1}")
axes[1].set(xlabel="step", ylabel="reward", title="0 is upright and still")
axes[1].legend(frameon=False)
print("returns:", np.round(rewards.sum(axis=1)))
assert QUICK or np.median(rewards[5:].sum(axis=1)) > -250

# %% [markdown]
# The first episode is random. From about the fourth on the reward climbs to 0 within 50 steps and stays there.
#
# `run.agent.params` are the ensemble's parameters, `run.agent.replay` all that was seen. For eight seeds at once:
# `jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(0), 8))`.
