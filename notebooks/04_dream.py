# %% [markdown]
# # 4. Learning in a dream
#
# World Models (Ha & Schmidhuber 2018) has three parts. V sees: an autoencoder turns a picture into a few numbers. M
# remembers: a recurrent network predicts the next of these numbers, the reward and the end. C acts: a linear map, found
# by evolution. C can learn in M alone, without a real step: in a dream. Does what it learns there help in truth?

# %%
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("jmbrl") is None:  # on Colab; once it is on PyPI the name alone is enough
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "git+https://github.com/jmbrl/jmbrl"], check=True)

# %%
import os
import tempfile

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jmbrl import agents, dreaming, envs, rollout, runner
from jmbrl.stages import make_staged

QUICK = bool(os.environ.get("JMBRL_QUICK"))  # a run of seconds that shows how, not how well
plt.rcParams["figure.constrained_layout.use"] = True


def strip(axis, frames, every=2, count=12):
    """Every other frame, side by side; black after the last."""
    frames = np.asarray(frames)[: every * count : every, :, :, 0]
    frames = np.concatenate([frames, np.zeros((count - len(frames), *frames.shape[1:]), frames.dtype)])
    axis.imshow(np.concatenate(list(frames), axis=1), cmap="gray", vmin=0, vmax=255)
    axis.set_xticks([])
    axis.set_yticks([])


# %% [markdown]
# ## The task: what must be remembered?
#
# A ball falls towards the agent at the lower edge; a hit ends the episode; each step alive pays 1. One picture does not
# tell where the ball will come down. Two do, and so does a memory.

# %%
env = envs.make("dodge", size=32, channels=1, max_steps=150, level="one")
settings = agents.PRESETS["world_models"]["dodge_one"] | {"train_in": "dream", "temperature": 1.0, "test_episodes": 0}
if QUICK:
    settings |= {"episodes": 32, "vision_updates": 20, "memory_updates": 20, "generations": 2, "population": 4}
    settings |= {"channels": (4, 4, 4), "hidden": 16, "check_every": 2, "check_rollouts": 8, "rollouts": 4}
else:
    settings |= {"episodes": 1_000, "vision_updates": 3_000, "memory_updates": 2_500, "generations": 60}
    settings |= {"population": 32, "pixel_weight": 40.0}
config = agents.WorldModelsConfig(**settings)
agent = agents.world_models(env, config)

# %% [markdown]
# ## Learn: see, remember, dream
#
# The system learns in stages, with frames on disk in between: episodes of random play, V, every frame through V, M, and
# C in M's dream. From a shell: `jmbrl train world_models --env dodge --preset dodge_one --set train_in=dream ...`
# (`docs/world_models.md` has the whole line).

# %%
result = runner.run(
    make_staged(env, agent, env.spec.max_steps * config.episodes),
    0,
    tempfile.mkdtemp(prefix="dream-"),
    options=runner.Options(quiet=True),
    callbacks=[lambda chunk: print(f"{chunk.rows[-1]['stage']:10}", end="\r") if chunk.rows else None],
)
state = jax.tree.map(lambda x: x[0], result.run.agent)  # of the first and only seed
model, params = agent.model, agent.params(state)

# %% [markdown]
# ## What does the model see, and what does it imagine?
#
# A real episode (top), what V makes of each frame (middle), and what M imagines under the same actions after it has
# seen four frames (bottom).

# %%
steps = 30


@jax.jit
def accounts(key):
    keys = jax.random.split(key, 3)
    seen = rollout.evaluate(keys[0], env, agent, state, 1, max_steps=steps, trace=True)
    frames, actions = seen["observations"][:, 0], seen["actions"][:, 0]
    beliefs = dreaming.filtered(keys[1], model, params, frames, actions)
    imagined = dreaming.imagine_along(keys[2], model, params, beliefs, actions, horizon=steps, context=4)
    return frames, dreaming.reconstruct(model, params, beliefs), imagined


figure, axes = plt.subplots(3, 1, figsize=(10, 3))
for axis, name, frames in zip(axes, ("real", "reconstructed", "imagined"), accounts(jax.random.key(1)), strict=True):
    strip(axis, frames)
    axis.set_ylabel(name)

# %% [markdown]
# Look for: the ball in the second row where it is in the first. In the third it goes on falling where it fell; a new
# ball comes from elsewhere, as it is drawn by chance in both worlds.
#
# ## Does C learn in the dream?

# %%
fitness = result.history["controller/fitness_mean"][0]
figure, axis = plt.subplots(figsize=(5.5, 2.8))
axis.plot(np.arange(1, len(fitness) + 1), fitness)
axis.set(xlabel="generation", ylabel="steps alive, mean of the population", title="in the dream")
axis.grid(alpha=0.3)

# %% [markdown]
# ## What does it dream?
#
# From one real frame on, no more than the decoded latents of M. The dream ends where M says so.

# %%
play = dreaming.policy_of(agent, state, context=1)


@jax.jit
def dream(key):
    key_start, key_dream = jax.random.split(key)
    belief, carry, _ = dreaming.lead_in(key_start, env, agent, state, params, context=1)
    return dreaming.dream(key_dream, model, params, belief, play, carry, env.spec.max_steps)


figure, axes = plt.subplots(3, 1, figsize=(10, 3))
for axis, key in zip(axes, jax.random.split(jax.random.key(2), 3), strict=True):
    film = dream(key)
    alive = int(np.cumprod(film.discounts).sum())
    strip(axis, film.frames[: alive + 1])
    axis.set_ylabel(f"{alive} steps")

# %% [markdown]
# ## Dream against truth
#
# The same controller, in 100 dreams and in 100 real episodes, beside the random play that V and M learned from.

# %%
COUNT = 8 if QUICK else 100
dreamt = jax.lax.map(lambda key: jnp.cumprod(dream(key).discounts).sum(), jax.random.split(jax.random.key(3), COUNT))
real = jax.jit(lambda key: rollout.evaluate(key, env, agent, state, COUNT)["returns"])(jax.random.key(4))
random = result.history["episode_return"][0]
lives = {"random, in truth": random[np.isfinite(random)], "dreamt, in the dream": dreamt, "dreamt, in truth": real}

figure, axis = plt.subplots(figsize=(6, 2.8))
for name, values in lives.items():
    axis.ecdf(np.asarray(values), complementary=True, label=name)
    print(f"{name}: mean {np.mean(values):.0f} steps")
axis.set(xlabel="step", ylabel="share of episodes still alive", xlim=(0, env.spec.max_steps))
axis.legend(frameon=False)
axis.grid(alpha=0.3)
assert QUICK or np.mean(real) > np.mean(lives["random, in truth"])

# %% [markdown]
# Look for: more steps than at random, without a single real step of practice. Where the dream's returns are far above
# the real ones, the controller has found what M does not know: it exploits its model. A higher `temperature` makes the
# dream harder and less exploitable.
#
# Play it yourself: `jmbrl render DIR --dream --actions "-1*20,1*15,0"`.
