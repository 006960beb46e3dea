# %% [markdown]
# # 3. Seeing the model
#
# A planner believes its model. So before asking why an agent fails, look at the model: how far ahead is it right, does
# it know how wrong it is, and where has it never been? Here two ensembles of networks learn a pendulum, one from 800
# rows and one from 40, and we ask both.

# %%
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("jmbrl") is None:  # on Colab; once it is on PyPI the name alone is enough
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "git+https://github.com/jmbrl/jmbrl"], check=True)

# %%
import os
from functools import cache, partial

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jmbrl import data, diagnostics, envs, models, rollout
from jmbrl.types import Transition

QUICK = bool(os.environ.get("JMBRL_QUICK"))  # a run of seconds that shows how, not how well
UPDATES = 50 if QUICK else 2500  # of each member
HORIZON, WINDOWS = (10, 32) if QUICK else (30, 256)
plt.rcParams["figure.constrained_layout.use"] = True

# %% [markdown]
# ## Data: two policies
#
# *Random* actions to learn from. *Pumping* pushes along with the motion as hard as it can, as an agent does that has
# learned to swing up: it reaches speeds that random actions do not.

# %%
env = envs.make("gymnax:Pendulum-v1")


def at_random(key, obs):
    return rollout.random_actions(key, env.spec, len(obs))


def pumping(key, obs):
    return jnp.where(obs[:, 2:] >= 0, 1.0, -1.0)


@partial(jax.jit, static_argnums=(1, 2, 3))
def episodes(key, policy, count, steps):
    """A replay of ``count`` episodes of so many steps, side by side."""
    worlds = env.vector(count)
    key_reset, key_steps = jax.random.split(key)

    def step(carry, key):
        states, obs, replay = carry
        key_action, key_step = jax.random.split(key)
        action = policy(key_action, obs)
        states, seen = worlds.step(key_step, states, action)
        rows = Transition(obs, action, seen.reward, seen.obs, seen.terminated, seen.truncated)
        return (states, seen.obs, data.add(replay, rows)), None

    start = (*worlds.reset(key_reset), data.empty(env.spec, steps, count))
    return jax.lax.scan(step, start, jax.random.split(key_steps, steps))[0][2]


many = episodes(jax.random.key(0), at_random, 4, 200)
few = episodes(jax.random.key(0), at_random, 1, 40)
fresh = episodes(jax.random.key(1), at_random, 8, 200)
fast = episodes(jax.random.key(2), pumping, 8, 200)

figure, axes = plt.subplots(1, 4, figsize=(11, 2.6), sharex=True, sharey=True)
for axis, (name, replay) in zip(
    axes, {"800 rows": many, "40 rows": few, "fresh, random": fresh, "fresh, pumping": fast}.items(), strict=True
):
    obs = np.asarray(replay.data.obs).reshape(-1, 3)
    axis.plot(np.arctan2(obs[:, 1], obs[:, 0]), obs[:, 2], ".", markersize=2)
    axis.set(title=name, xlabel="angle (0 is upright)", ylim=(-8.5, 8.5))
axes[0].set_ylabel("speed")
axes[0].grid(False)

# %% [markdown]
# ## Learn
#
# Both models are the same ensemble of five networks, and take as many gradient steps.

# %%
model = models.ensemble(models.gaussian_mlp(env.spec, hidden=(64, 64), reward=env.reward_fn), n=5)


@cache
def trainer_of(epochs):
    trainer = models.trainer(model, epochs=epochs)
    return trainer.init, jax.jit(trainer.fit)


def learned(replay):
    rows = replay.capacity * replay.num_envs
    start, fit = trainer_of(max(1, UPDATES // -(-rows // 32)))
    params = model.init(jax.random.key(3))
    return fit(jax.random.key(4), params, start(params), replay)[0]


fitted = {"800 rows": learned(many), "40 rows": learned(few)}

# %% [markdown]
# ## How far ahead is it right?
#
# `model_error` starts at real observations and imagines under the actions that were taken. Its unit is the standard
# deviation of the data. The baseline is *nothing changes*: a model that is worse is worse than none. Dotted: by how
# much the members disagree, which a planner can know without the truth.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
far = {}
for axis, (where, replay) in zip(axes, {"random": fresh, "pumping": fast}.items(), strict=True):
    for colour, (name, params) in zip(("C0", "C1"), fitted.items(), strict=True):
        error = diagnostics.model_error(jax.random.key(5), model, params, replay, HORIZON, WINDOWS)
        steps = np.arange(1, HORIZON + 1)
        axis.plot(steps, error["rmse"], color=colour, label=f"learned from {name}")
        axis.plot(steps, error["disagreement"], ":", color=colour)
        far[where, name] = float(error["rmse"][9])
    axis.plot(steps, error["persistence"], "--", color="0.5", label="nothing changes")
    axis.set(xlabel="steps ahead", title=f"fresh episodes, {where}", ylim=(0, 2.2))
    axis.grid(alpha=0.3)
axes[0].set_ylabel("error / std of the data")
axes[0].legend(frameon=False, fontsize="small")
for (where, name), value in far.items():
    print(f"10 steps ahead, {where}, learned from {name}: {value:.3f}")
assert QUICK or far["random", "800 rows"] < 0.5 * far["random", "40 rows"]

# %% [markdown]
# Look for: where the data were alike, the model of 800 rows stays far below the baseline, and its dotted line tells how
# far off it is. Where the motion is faster both fail, and now the better model's members agree far more than they
# should.
#
# ## Does it know how wrong it is?
#
# A predicted interval of 95 % should hold the truth in 95 % of all cases. Left: one step ahead. Below the diagonal a
# model is overconfident, above it cautious. Right: intervals of sampled futures, further ahead.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
axes[0].plot([0, 1], [0, 1], "--", color="0.6")
levels = (0.5, 0.8, 0.95)
for where, replay, style in (("random", fresh, "o-"), ("pumping", fast, "s:")):
    for colour, (name, params) in zip(("C0", "C1"), fitted.items(), strict=True):
        one = diagnostics.calibration(jax.random.key(6), model, params, replay, levels=levels)
        axes[0].plot(one["nominal"], one["coverage"], style, color=colour, label=f"{name}, {where}")
        print(f"{name}, {where}: errors are {float(one['z_rms']):.2f} times the predicted std")
axes[0].set(xlabel="nominal", ylabel="observed", xlim=(0, 1.02), ylim=(0, 1.02), title="one step ahead")
axes[0].legend(frameon=False, fontsize="small")
for colour, (name, params) in zip(("C0", "C1"), fitted.items(), strict=True):
    further = diagnostics.calibration_by_horizon(
        jax.random.key(7), model, params, fast, HORIZON, WINDOWS // 4, particles=50, levels=levels
    )
    axes[1].plot(np.arange(1, HORIZON + 1), further["coverage"][:, -1], color=colour, label=name)
axes[1].axhline(levels[-1], linestyle="--", color="0.6")
axes[1].set(xlabel="steps ahead", ylim=(0, 1.02), title=f"sampled futures, pumping, {levels[-1]:.0%}")
axes[1].legend(frameon=False, fontsize="small")
axes[1].grid(alpha=0.3)

# %% [markdown]
# ## Does disagreement point at the errors?
#
# One dot a row: how far the members' means are apart, and how wrong their mean is. What can be seen before the truth is
# known should rank what comes out.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharex=True, sharey=True)
for axis, (name, params) in zip(axes, fitted.items(), strict=True):
    for where, replay in {"random": fresh, "pumping": fast}.items():
        rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[::4], replay.data)
        apart = models.disagreement(model, params, rows.obs, rows.action)[:, 2]
        said = jax.vmap(model.predict, in_axes=(None, 0, 0))(params, rows.obs, rows.action)
        off = np.abs(said.mean - rows.next_obs)[:, 2]
        rank = np.corrcoef(np.argsort(np.argsort(apart)), np.argsort(np.argsort(off)))[0, 1]
        axis.loglog(apart, off, ".", markersize=3, label=f"{where}, rank correlation {rank:.2f}")
    axis.set(xlabel="disagreement about the next speed", title=f"learned from {name}")
    axis.legend(frameon=False, fontsize="small", loc="lower right")
axes[0].set_ylabel("error of the next speed")
axes[0].grid(alpha=0.3)

# %% [markdown]
# ## Imagined against real
#
# Numbers hide what a failure looks like. 50 particles go on from one real observation, under the actions that were
# taken; their middle 90 % are shaded.

# %%
LENGTH = min(60, 3 * HORIZON)
real = jax.tree.map(lambda x: x[20 : 20 + LENGTH, 0], fast.data)


@jax.jit
def imagined(key, params):
    def step_many(key, beliefs, actions):
        return model.step_many(key, params, beliefs, actions)

    def act(key, beliefs, t):
        return rollout.tile(real.action[t], 50), ()

    _, path = rollout.imagine(key, step_many, rollout.tile(real.obs[0], 50), act, LENGTH)
    return path.next_belief


figure, axes = plt.subplots(2, 2, figsize=(9, 4.6), sharex=True, sharey="row")
for column, (name, params) in zip(axes.T, fitted.items(), strict=True):
    paths = np.asarray(imagined(jax.random.key(8), params))
    for axis, dim in zip(column, (0, 2), strict=True):
        low, middle, high = np.quantile(paths[:, :, dim], (0.05, 0.5, 0.95), axis=1)
        axis.fill_between(np.arange(LENGTH), low, high, color="C1", alpha=0.25, linewidth=0)
        axis.plot(middle, color="C1", label="imagined")
        axis.plot(real.next_obs[:, dim], color="C0", label="real")
        axis.set_ylabel(env.spec.obs_names[dim])
    column[0].set_title(f"learned from {name}")
    column[1].set_xlabel("steps ahead")
axes[0, 0].legend(frameon=False, fontsize="small")
axes[0, 0].grid(False)

# %% [markdown]
# This is what a bad model looks like. On the right it is bad and says so: the fan opens at once. On the left it is
# worse: a *narrow* fan beside the truth, which a planner would believe. What happened? The pendulum's speed is capped
# at 8, and no row that the model learned from shows it. Five networks that continue the same data in the same smooth
# way agree, and are wrong together. Disagreement finds what the members guess differently; only data, or an error on
# fresh data from where the agent really goes, finds the rest.
#
# ## What helps?
#
# Rows from there: as many as before, but two of the four episodes pump. Or what you know: `postprocess` writes the cap
# into the model, which then needs no new row, and not even another fit.


# %%
def mixed(key, obs):
    return at_random(key, obs).at[:2].set(pumping(key, obs)[:2])


def capped(obs):
    return obs.at[2].set(jnp.clip(obs[2], -8.0, 8.0))


knowing = models.gaussian_mlp(env.spec, hidden=(64, 64), reward=env.reward_fn, postprocess=capped)
cases = {
    "800 rows": (model, fitted["800 rows"]),
    "400 + 400 pumping": (model, learned(episodes(jax.random.key(0), mixed, 4, 200))),
    "800 rows, and the cap": (models.ensemble(knowing, n=5), fitted["800 rows"]),
}
figure, axis = plt.subplots(figsize=(6, 3))
for name, (which, params) in cases.items():
    error = diagnostics.model_error(jax.random.key(5), which, params, fast, HORIZON, WINDOWS)
    axis.plot(np.arange(1, HORIZON + 1), error["rmse"], label=name)
    print(f"10 steps ahead, pumping, {name}: {float(error['rmse'][9]):.3f}")
axis.plot(np.arange(1, HORIZON + 1), error["persistence"], "--", color="0.5", label="nothing changes")
axis.set(xlabel="steps ahead", ylabel="error / std of the data", title="fresh episodes, pumping", ylim=(0, 2.2))
axis.legend(frameon=False, fontsize="small")
axis.grid(alpha=0.3)

# %% [markdown]
# Rows help, as far as a smooth network can bend at a corner; agents refit as they learn so that their data follow them.
# Knowledge helps most. All panels for a run on disk: `jmbrl diagnose DIR`.
