# %% [markdown]
# # 8. Inside your own JAX pipeline
#
# You have a training script: gymnax steps the world, flax holds the network, optax updates it, your scan is the loop.
# No run loop, no configuration and no class of jmbrl need to enter. Here such a script gets a planner, then a better
# model, and stays one program under its own `jit` and `vmap`.

# %%
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("jmbrl") is None:  # on Colab; once it is on PyPI the name alone is enough
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "git+https://github.com/jmbrl/jmbrl"], check=True)

# %%
import os
import time
from typing import NamedTuple

import flax.linen as nn
import gymnax
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

from jmbrl import models, planners, rollout
from jmbrl.types import Continuous, Objective, Spec, Transition

QUICK = bool(os.environ.get("JMBRL_QUICK"))  # a run of seconds that shows how, not how well
EPISODES, UPDATES, SEEDS = (2, 20, 2) if QUICK else (8, 1_000, 3)
STEPS, BATCH = 200, 64
plt.rcParams["figure.constrained_layout.use"] = True

# %% [markdown]
# ## The script: everything here is yours
#
# The loop asks three functions that we fill in below: `init(key)`, `fit(key, learned, rows, count)` and `decide(key,
# learned, plan_state, obs)`. It steps gymnax itself.

# %%
world, settings = gymnax.make("Pendulum-v1")


class Learner(NamedTuple):
    init: callable
    fit: callable
    decide: callable
    warm_start: callable


def make_train(learner):
    def episode(key, learned, rows, number):
        """Act for an episode, at random in the first, and write its rows behind the others."""
        key_reset, key_steps = jax.random.split(key)
        obs, state = world.reset_env(key_reset, settings)

        def step(carry, key):
            obs, state, plan_state = carry
            key_plan, key_random, key_step = jax.random.split(key, 3)
            action, plan_state = learner.decide(key_plan, learned, plan_state, obs)
            action = jnp.where(number == 0, jax.random.uniform(key_random, (1,), minval=-1, maxval=1), action)
            next_obs, state, reward, terminated, _ = world.step_env(key_step, state, 2.0 * action[0], settings)
            row = Transition(obs, action, reward, next_obs, jnp.asarray(terminated), jnp.zeros((), bool))
            return (next_obs, state, plan_state), row

        _, new = jax.lax.scan(step, (obs, state, learner.warm_start()), jax.random.split(key_steps, STEPS))
        rows = jax.tree.map(lambda x, y: jax.lax.dynamic_update_slice_in_dim(x, y, number * STEPS, 0), rows, new)
        return rows, new.reward.sum()

    def train(key):
        key_init, key = jax.random.split(key)
        size = EPISODES * STEPS
        flag = jnp.zeros(size, bool)
        rows = Transition(jnp.zeros((size, 3)), jnp.zeros((size, 1)), jnp.zeros(size), jnp.zeros((size, 3)), flag, flag)

        def one(carry, number):
            learned, rows = carry
            key_act, key_fit = jax.random.split(jax.random.fold_in(key, number))
            rows, total = episode(key_act, learned, rows, number)
            learned, loss = learner.fit(key_fit, learned, rows, (number + 1) * STEPS)
            return (learned, rows), (total, loss)

        return jax.lax.scan(one, (learner.init(key_init), rows), jnp.arange(EPISODES))

    return train


def reward(obs, action, next_obs):
    angle = jnp.arctan2(obs[1], obs[0])
    return -(angle**2) - 0.1 * obs[2] ** 2 - 0.001 * (2.0 * action[0]) ** 2


def fitting(optimizer, loss):
    """Your update: so many optax steps on random rows."""

    def fit(key, weights, opt, rows, count):
        def update(carry, key):
            weights, opt = carry
            key_rows, key_loss = jax.random.split(key)
            index = jax.random.randint(key_rows, (BATCH,), 0, count)
            batch = jax.tree.map(lambda x: x[index], rows)
            value, grad = jax.value_and_grad(loss)(weights, key_loss, batch)
            change, opt = optimizer.update(grad, opt, weights)
            return (optax.apply_updates(weights, change), opt), value

        (weights, opt), losses = jax.lax.scan(update, (weights, opt), jax.random.split(key, UPDATES))
        return weights, opt, losses[-1]

    return fit


# %% [markdown]
# ## 1. Your network, our planner
#
# A planner maximises an `Objective`. All that a sampling planner asks of it is `returns(key, actions[N, H, A])`, so any
# network will do. Of a `Spec` it reads the action space: inside the library actions are in `[-1, 1]`.

# %%
spec = Spec("my pendulum", obs_shape=(3,), action=Continuous((-2.0,), (2.0,)), max_steps=STEPS)
planner = planners.icem(spec, horizon=20, population=40, elites=6, iterations=3)


class Dynamics(nn.Module):
    @nn.compact
    def __call__(self, obs, action):
        x = jnp.concatenate([obs / jnp.array([1.0, 1.0, 8.0]), action], axis=-1)
        for _ in range(2):
            x = nn.swish(nn.Dense(64)(x))
        return obs + nn.Dense(3)(x)


network = Dynamics()
optimizer = optax.adam(1e-3)


def my_loss(weights, key, batch):
    return jnp.mean((network.apply(weights, batch.obs, batch.action) - batch.next_obs) ** 2)


def my_objective(weights, obs):
    def returns(key, actions):
        def step(now, action):
            after = network.apply(weights, now, action)
            return after, jax.vmap(reward)(now, action, after)

        count = len(actions)
        _, rewards = jax.lax.scan(step, jnp.broadcast_to(obs, (count, 3)), jnp.swapaxes(actions, 0, 1))
        return rewards.sum(axis=0), jnp.zeros((count, 0)), {}  # no costs, nothing to report

    return Objective(returns, step=None, belief=obs)


def my_init(key):
    weights = network.init(key, jnp.zeros(3), jnp.zeros(1))
    return weights, optimizer.init(weights)


def my_fit(key, learned, rows, count):
    *learned, loss = fitting(optimizer, my_loss)(key, *learned, rows, count)
    return tuple(learned), loss


def my_decide(key, learned, plan_state, obs):
    plan, plan_state, _ = planner.plan(key, plan_state, my_objective(learned[0], obs))
    return plan[0], planner.shift(plan_state, 1)


mine = Learner(my_init, my_fit, my_decide, planner.init)

# %% [markdown]
# ## 2. Our model, your update
#
# A `Model` is functions of parameters that you hold. `loss` is differentiated and updated as you like (here with a
# clipped gradient and decay), `set_stats` refits the normalisers, and `rollout.objective` imagines with it.

# %%
ensemble = models.ensemble(models.gaussian_mlp(spec, hidden=(64, 64), reward=reward), n=5)
clipped = optax.chain(optax.clip_by_global_norm(100.0), optax.adamw(1e-3, weight_decay=1e-5))


def our_init(key):
    params = ensemble.init(key)
    return params, clipped.init(params.weights)


def our_fit(key, learned, rows, count):
    params, opt = learned
    params = ensemble.set_stats(params, rows, jnp.arange(EPISODES * STEPS) < count)

    def loss(weights, key, batch):
        return ensemble.loss(key, params._replace(weights=weights), batch)[0]

    weights, opt, value = fitting(clipped, loss)(key, params.weights, opt, rows, count)
    return (params._replace(weights=weights), opt), value


def our_decide(key, learned, plan_state, obs):
    objective = rollout.objective(ensemble, learned[0], obs, particles=5)
    plan, plan_state, _ = planner.plan(key, plan_state, objective)
    return plan[0], planner.shift(plan_state, 1)


ours = Learner(our_init, our_fit, our_decide, planner.init)

# %% [markdown]
# ## Your `jit`, your `vmap`: does it stay one program?

# %%
found, ends = {}, {}
for name, learner in {"your network": mine, "our ensemble": ours}.items():
    begin = time.perf_counter()
    train = jax.jit(jax.vmap(make_train(learner)))
    ends[name], (totals, losses) = train(jax.random.split(jax.random.key(0), SEEDS))
    found[name] = np.asarray(totals)
    print(f"{name}: {SEEDS} seeds of {EPISODES} episodes in {time.perf_counter() - begin:.0f} s, compiling included")

figure, axis = plt.subplots(figsize=(5.5, 3.2))
for colour, (name, totals) in zip(("C1", "C0"), found.items(), strict=True):
    axis.plot(np.arange(1, EPISODES + 1), totals.T, color=colour, alpha=0.35, linewidth=0.8)
    axis.plot(np.arange(1, EPISODES + 1), np.median(totals, axis=0), "o-", color=colour, label=name)
    print(f"{name}: median return of the second half {np.median(totals[:, EPISODES // 2 :]):.0f}")
axis.set(xlabel="episode (the first one is random)", ylabel="return", title=f"{SEEDS} seeds")
axis.legend(frameon=False)
axis.grid(alpha=0.3)
assert QUICK or np.median(found["our ensemble"][:, EPISODES // 2 :]) > -300

# %% [markdown]
# Look for: both climb to about -120 within a few episodes.
#
# ## 3. Only a part of a part
#
# `rollout.imagine` is the scan alone. It takes whatever steps many beliefs at once, so it imagines with your network as
# with ours. Here: 25 steps under the actions that were taken in the last episode, by both.

# %%
first = jax.tree.map(lambda x: x[0], ends)  # the first seed
(weights, _), _ = first["your network"]
(params, _), rows = first["our ensemble"]
last = jax.tree.map(lambda x: x[-STEPS:], rows)


def along(key, step_many):
    _, path = rollout.imagine(key, step_many, last.obs[:1], lambda key, beliefs, t: (last.action[t][None], ()), 25)
    return path.next_belief[:, 0]


def with_mine(key, obs, action):
    return network.apply(weights, obs, action), ()


def with_ours(key, obs, action):
    return ensemble.expect(params, obs, action)


figure, axis = plt.subplots(figsize=(5.5, 2.8))
axis.plot(last.next_obs[:25, 2], "k", label="real")
axis.plot(jax.jit(lambda key: along(key, with_mine))(jax.random.key(1))[:, 2], "C1--", label="your network")
axis.plot(jax.jit(lambda key: along(key, with_ours))(jax.random.key(1))[:, 2], "C0--", label="our ensemble")
axis.set(xlabel="steps ahead", ylabel="speed")
axis.legend(frameon=False)
axis.grid(alpha=0.3)
