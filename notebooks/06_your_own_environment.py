# %% [markdown]
# # 6. Your own environment
#
# A crane: a trolley on a rail, and a load that hangs from it on a rope of a metre. Bring the trolley from -1 m to 0,
# and do not let the load swing. Three ways to hand it over: as pure JAX functions, as a Gymnasium environment, and as a
# plain NumPy loop that calls the agent, as a robot's own program would.

# %%
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("jmbrl") is None:  # on Colab; once it is on PyPI the name alone is enough
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "git+https://github.com/jmbrl/jmbrl"], check=True)

# %%
import os

import gymnasium
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from jmbrl import agents, envs, models, planners
from jmbrl.train import make_train
from jmbrl.types import Continuous, Spec, Transition

QUICK = bool(os.environ.get("JMBRL_QUICK"))  # a run of seconds that shows how, not how well
EPISODES, EPOCHS = (2, 3) if QUICK else (8, 40)
STEPS = 50  # of 0.1 s
plt.rcParams["figure.constrained_layout.use"] = True

# %% [markdown]
# ## 1. Three pure functions
#
# How an episode starts, how a step goes, and, where you know it, the reward of a step. `step` gets the action in your
# own units; everything inside the library is in `[-1, 1]`, the reward's `action` too. No time limit, no auto-reset and
# no casts are needed. `check_env` then looks whether the environment keeps its promises, and says what is wrong if not.


# %%
def reset(key):
    place = -1.0 + jax.random.uniform(key, minval=-0.1, maxval=0.1)
    state = jnp.stack([place, 0.0, 0.0, 0.0])  # of the trolley, its speed, the rope's angle, the angle's speed
    return state, state  # what the environment keeps, what the agent sees


def step(key, state, action):
    x, v, angle, w = state
    push = action[0]  # m/s2
    w = w + 0.1 * (-9.8 * jnp.sin(angle) - push * jnp.cos(angle) - 0.1 * w)
    v = v + 0.1 * push
    state = jnp.stack([x + 0.1 * v, v, angle + 0.1 * w, w])
    return state, state, reward(None, None, state), jnp.abs(state[0]) > 5.0  # state, obs, reward, terminated


def reward(obs, action, next_obs):
    return -(next_obs[0] ** 2) - next_obs[2] ** 2


def ended(obs, action, next_obs):
    return jnp.abs(next_obs[0]) > 5.0


env = envs.from_functions(
    reset,
    step,
    action=Continuous((-2.0,), (2.0,)),
    max_steps=STEPS,
    name="crane",
    obs_names=("trolley", "speed", "angle", "turn"),
    reward_fn=reward,
    termination_fn=ended,
    dt=0.1,
)
print(envs.check_env(env))

# %% [markdown]
# What does it say of a mistake? Here the known reward forgets the angle:

# %%
wrong = env._replace(reward_fn=lambda obs, action, next_obs: -(next_obs[0] ** 2))
print(envs.check_env(wrong))

# %% [markdown]
# ## Does an agent learn it?
#
# One random episode, then seven in which PETS plans 1.5 s ahead.


# %%
def make_agent(spec, reward_fn):
    member = models.gaussian_mlp(spec, hidden=(32, 32), reward=reward_fn)
    model = models.ensemble(member, n=3)
    planner = planners.cem(spec, horizon=15, population=80, elites=8, iterations=4)
    return agents.mpc(
        spec, model, planner, trainer=models.trainer(model, epochs=EPOCHS), particles=6, capacity=STEPS * EPISODES
    )


agent = make_agent(env.spec, env.reward_fn)
run, history = jax.jit(make_train(env, agent, STEPS * EPISODES))(jax.random.key(0))
returns = {"pure functions": np.asarray(history["reward"]).reshape(EPISODES, STEPS).sum(axis=1)}

seen = run.agent.replay.data.obs[:, 0]  # every row of the run, in order
figure, axes = plt.subplots(1, 2, figsize=(9, 2.9), sharex=True)
for episode in (0, EPISODES - 1):
    rows = seen[episode * STEPS : (episode + 1) * STEPS]
    for axis, entry in zip(axes, (0, 2), strict=True):
        axis.plot(0.1 * np.arange(STEPS), rows[:, entry], label=f"episode {episode + 1}")
        axis.set(xlabel="seconds", ylabel=("trolley (m)", "rope's angle (rad)")[entry // 2])
        axis.grid(alpha=0.3)
axes[0].legend(frameon=False)
print("returns:", np.round(returns["pure functions"], 1))
assert QUICK or returns["pure functions"][-1] > -20

# %% [markdown]
# ## 2. A Gymnasium environment
#
# An id, a function that makes an environment, or an object with Gymnasium's `reset` and `step`. The same agent, the
# same `make_train`: the program calls out to Python at each step.


# %%
class Crane:
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,))
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,))

    def reset(self, seed=None):
        self.state = np.array([-1.0, 0.0, 0.0, 0.0])
        return self.state.copy(), {}

    def step(self, action):
        x, v, angle, w = self.state
        push = float(action[0])
        w = w + 0.1 * (-9.8 * np.sin(angle) - push * np.cos(angle) - 0.1 * w)
        v = v + 0.1 * push
        x, angle = x + 0.1 * v, angle + 0.1 * w
        self.state = np.array([x, v, angle, w])
        return self.state.copy(), -(x**2) - angle**2, bool(abs(x) > 5.0), False, {}


host = envs.from_gymnasium(Crane, max_steps=STEPS, name="crane in NumPy", reward_fn=reward, termination_fn=ended)
agent = make_agent(host.spec, host.reward_fn)
_, history = jax.jit(make_train(host, agent, STEPS * EPISODES))(jax.random.key(0))
returns["Gymnasium"] = np.asarray(history["reward"]).reshape(EPISODES, STEPS).sum(axis=1)
host.close()
print("returns:", np.round(returns["Gymnasium"], 1))

# %% [markdown]
# ## 3. Your program in charge
#
# On a robot the loop is yours. An agent is three functions: `act`, `record`, and the updates in `phases`, each with its
# period in steps. Nothing else of the library is needed. (Where the world does not wait: `docs/robot.md`.)

# %%
spec = Spec("crane by hand", obs_shape=(4,), action=Continuous((-2.0,), (2.0,)), max_steps=STEPS)
agent = make_agent(spec, reward)
act, record = jax.jit(agent.act, static_argnums=5), jax.jit(agent.record)
((period, fit),) = agent.phases  # every `period` steps, here an episode, before it begins
fit = jax.jit(fit)

robot, rng, key = Crane(), np.random.default_rng(0), jax.random.key(0)
state = agent.init(key, 1)  # one robot
totals = []
for episode in range(EPISODES):
    if episode > 0:
        key, key_fit = jax.random.split(key)
        state, info = fit(key_fit, state, jnp.int32(episode * period))
    (obs, _), total, is_first, carry = robot.reset(), 0.0, True, agent.reset(state)
    for t in range(STEPS):
        if episode == 0:
            action = rng.uniform(-1, 1, 1)
        else:
            key, key_act = jax.random.split(key)
            action, carry, _ = act(key_act, state, carry, jnp.float32(obs), jnp.bool_(is_first), True)
        next_obs, r, fell, _, _ = robot.step(2.0 * np.asarray(action))  # [-1, 1] to m/s2
        last = t == STEPS - 1  # a time limit, not an end of the world
        row = Transition(obs, action, r, next_obs, fell, last and not fell)
        row = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32)[None], row)
        row = row._replace(terminated=row.terminated > 0, truncated=row.truncated > 0)
        state = record(state, jax.tree.map(lambda x: x[None], carry), row, jnp.ones(1, bool))
        obs, is_first, total = next_obs, False, total + r
        if fell:
            break
    totals.append(total)
returns["your loop"] = np.array(totals)
print("returns:", np.round(returns["your loop"], 1))

# %% [markdown]
# ## Do the three agree?

# %%
figure, axis = plt.subplots(figsize=(5.5, 3))
for name, values in returns.items():
    axis.plot(np.arange(1, EPISODES + 1), values, "o-", label=name)
axis.set(xlabel="episode (the first one is random)", ylabel="return")
axis.legend(frameon=False)
axis.grid(alpha=0.3)

# %% [markdown]
# Look for: the same level after two or three episodes. They are not the same numbers: starts and random actions differ.
# About -6 is what it costs to get there.
