# %% [markdown]
# # 5. Dreamer on a masked task
#
# A cart and its pole, but only two places are shown: the cart's and the pole's angle. No velocity. One observation does
# not tell whether the pole falls or rises. Dreamer v3 (Hafner et al. 2023) filters what it sees into a *belief*,
# imagines in beliefs, and learns there how to act. Has the belief found the hidden speeds?

# %%
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("jmbrl") is None:  # on Colab; once it is on PyPI the name alone is enough
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "git+https://github.com/jmbrl/jmbrl"], check=True)

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jmbrl import agents, dreaming, envs, rollout, runner
from jmbrl.train import make_train

QUICK = bool(os.environ.get("JMBRL_QUICK"))  # a run of seconds that shows how, not how well
STEPS, EPISODES = (384, 4) if QUICK else (12_000, 32)
plt.rcParams["figure.constrained_layout.use"] = True

# %% [markdown]
# ## The agent
#
# `size_xs` is made for two CPU cores; `cartpole` is its preset for this task. The knob that decides what a run costs is
# `train_ratio`, how many frames are replayed for each real step: here 64.

# %%
env = envs.make("cartpole_masked")
print(env.spec.obs_names, env.spec.action, f"{env.spec.max_steps} steps at most")
settings = agents.PRESETS["dreamer_v3"]["cartpole"]
if QUICK:
    settings = settings | {"deter": 16, "hidden": 8, "units": 8, "stoch": 4, "blocks": 2, "train_ratio": 8.0}
agent = agents.dreamer_v3(env, agents.DreamerV3Config(**settings))

result = runner.run(
    make_train(env, agent, STEPS),
    0,
    options=runner.Options(quiet=True),
    callbacks=[lambda chunk: print(f"{chunk.env_steps} of {chunk.steps} steps", end="\r")],
)
state = jax.tree.map(lambda x: x[0], result.run.agent)  # of the first and only seed
model, params = agent.model, agent.params(state)

# %% [markdown]
# ## Does it learn?

# %%
returns, at = result.history["episode_return"][0, :, 0], np.arange(1, STEPS + 1)
ended = np.isfinite(returns)
figure, axis = plt.subplots(figsize=(6, 2.8))
axis.plot(at[ended], returns[ended], ".-", markersize=4)
axis.axhline(22, color="0.6", linestyle=":", label="random actions")
axis.set(xlabel="real steps", ylabel="steps the pole stayed up")
axis.legend(frameon=False)
axis.grid(alpha=0.3)
print(f"last ten episodes: mean {returns[ended][-10:].mean():.0f} steps")

# %% [markdown]
# ## Does the belief know the hidden speed?
#
# We play episodes in the *unmasked* cart pole, show the agent its two numbers only, and keep its beliefs beside the
# truth. Half of the actions are random, so that the pole moves. Then a linear map is fitted from what the agent has to
# the true speeds, on half of the episodes, and judged on the others. From the observation alone it can know next to
# nothing.

# %%
truth = envs.make("gymnax:CartPole-v1")
LENGTH = 60


@jax.jit
def watched(key, state):
    """One episode: true observations ``[T + 1, 4]``, actions ``[T]``, and which steps it lasted."""
    key_reset, key_steps = jax.random.split(key)
    world, obs = truth.reset(key_reset)

    def step(carry, key):
        world, obs, remembered, is_first, alive = carry
        key_act, key_random, key_coin, key_step = jax.random.split(key, 4)
        action, remembered, _ = agent.act(key_act, state, remembered, obs[jnp.array([0, 2])], is_first, False)
        random = rollout.random_actions(key_random, env.spec, 1)[0]
        action = jnp.where(jax.random.bernoulli(key_coin, 0.5), random, action)
        remembered = remembered._replace(action=action)  # what was really done
        world, seen = truth.step(key_step, world, action)
        now = alive & ~seen.terminated
        return (world, seen.obs, remembered, jnp.asarray(False), now), (seen.obs, action, now)

    start = world, obs, jax.tree.map(jnp.asarray, agent.reset(state)), jnp.asarray(True), jnp.asarray(True)
    _, (later, actions, alive) = jax.lax.scan(step, start, jax.random.split(key_steps, LENGTH))
    return jnp.concatenate([obs[None], later]), actions, jnp.concatenate([jnp.ones(1, bool), alive])


def filtered(key, observations, actions):
    return dreaming.filtered(key, model, params, observations[:, jnp.array([0, 2])], actions)


keys = jax.random.split(jax.random.key(1), EPISODES)
observations, actions, alive = jax.vmap(watched, in_axes=(0, None))(keys, state)
beliefs = jax.jit(jax.vmap(filtered))(keys, observations, actions)
features = np.asarray(jax.vmap(jax.vmap(model.features, in_axes=(None, 0)), in_axes=(None, 0))(params, beliefs))
observations, alive = np.asarray(observations), np.asarray(alive)
settled = alive & (np.arange(LENGTH + 1) >= 5)  # after five observations


def linear(inputs, half):
    """A ridge regression of the true speeds, fitted on half of the episodes: predictions for all."""
    x = np.concatenate([inputs, np.ones((*inputs.shape[:2], 1))], axis=-1)
    rows, wanted = x[:half][settled[:half]], observations[:half][settled[:half]][:, [1, 3]]
    weights = np.linalg.solve(rows.T @ rows + 1e-2 * np.eye(x.shape[-1]), rows.T @ wanted)
    return x @ weights


half = EPISODES // 2
guesses = {"belief": linear(features, half), "observation alone": linear(observations[..., [0, 2]], half)}
keep = settled.copy()
keep[:half] = False
figure, axes = plt.subplots(2, 2, figsize=(8, 6), sharex="row", sharey="row")
share = {}
for row, (column, name) in zip(axes, ((1, "cart's speed"), (3, "pole's speed")), strict=True):
    for axis, (source, guess) in zip(row, guesses.items(), strict=True):
        real, said = observations[keep][:, column], guess[keep][:, column // 2]
        share[name, source] = 1 - np.mean((real - said) ** 2) / np.var(real)
        axis.plot(real, said, ".", markersize=2)
        axis.axline((0, 0), slope=1, color="0.6", linewidth=1)
        axis.set(title=f"{name} from the {source}", xlabel="true", ylabel="read")
        print(f"{name} from the {source}: {share[name, source]:.0%} of the variance explained")
assert QUICK or share["pole's speed", "belief"] > share["pole's speed", "observation alone"] + 0.2

# %% [markdown]
# Look for: dots along the line on the left, a flat band on the right. Nobody told the model that there are speeds.
#
# ## Reconstruction and imagination against the truth
#
# What the decoder makes of each belief (it has seen that very observation), and what the model imagines under the same
# actions after the first ten. With a speed in the belief it can go on; without it could not.

# %%
CONTEXT, AHEAD = 10, 25
longest = half + int(np.argmax(alive[half:].sum(axis=1)))  # of the episodes that were not fitted to
episode = jax.tree.map(lambda x: x[longest], beliefs)
seen = np.asarray(dreaming.reconstruct(model, params, episode))
last = jax.tree.map(lambda x: x[CONTEXT - 1], episode)
play = jax.jit(jax.vmap(lambda key: dreaming.play(key, model, params, last, actions[longest, CONTEXT - 1 :][:AHEAD])))
dreams = np.asarray(play(jax.random.split(jax.random.key(2), 30)).frames)  # [30, AHEAD + 1, 2]

figure, axes = plt.subplots(1, 2, figsize=(9, 3))
until = int(alive[longest].sum())
for axis, column, name in zip(axes, (0, 1), env.spec.obs_names, strict=True):
    time = np.arange(CONTEXT - 1, CONTEXT + AHEAD)
    axis.plot(time, dreams[:, :, column].T, color="C1", alpha=0.2, linewidth=0.8)
    axis.plot([], color="C1", label="imagined")
    axis.plot(seen[:until, column], "C2--", label="reconstructed")
    axis.plot(observations[longest, :until, 2 * column], color="C0", label="true")
    axis.axvline(CONTEXT - 1, color="0.6", linewidth=1)
    axis.set(xlabel="step", title=name)
axes[0].legend(frameon=False)
axes[0].grid(False)
error = np.abs(seen[5:until] - observations[longest, 5:until][:, [0, 2]]).mean(axis=0)
print(f"mean error of the reconstruction: {error[0]:.3f} m, {error[1]:.3f} rad")

# %% [markdown]
# The angle decides how long the pole stays up, and is drawn to a hundredth of a radian; its imagination holds for ten
# to twenty steps. The cart's place is known only roughly: 0.1 m on a rail of 4.8 m.
#
# More of this for a run on disk: `jmbrl diagnose DIR` (`docs/latent_models.md`, `docs/diagnose.md`). For the full task
# give it 30,000 steps: `jmbrl train dreamer_v3 --env cartpole_masked --steps 30000 --out runs/masked`.
