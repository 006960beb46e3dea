"""A double integrator whose best controllers and least expected cost are known."""

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import envs
from jmbrl.rollout import evaluate
from jmbrl.train import make_train
from jmbrl.types import Continuous

A = np.asarray([[1.0, 0.2], [0.0, 1.0]])
B = np.asarray([[0.02], [0.4]])
Q, R = np.diag([1.0, 0.1]), 0.1
START, START_STD, NOISE, H = np.asarray([0.4, 0.0]), 0.05, 0.01, 15


def world(known_reward=True):
    """x' = A x + B u + noise from near ``START``, reward -x Q x - R u^2 of the state before the step."""

    def reward_fn(obs, action, next_obs):
        return -obs @ jnp.asarray(Q, jnp.float32) @ obs - R * jnp.sum(action**2)

    def reset(key):
        x = jnp.asarray(START, jnp.float32) + START_STD * jax.random.normal(key, (2,))
        return x, x

    def step(key, x, action):
        new = jnp.asarray(A, jnp.float32) @ x + jnp.asarray(B, jnp.float32) @ action
        new = new + NOISE * jax.random.normal(key, (2,))
        return new, new, reward_fn(x, action, new), False

    return envs.from_functions(
        reset, step, obs_shape=(2,), action=Continuous((-1.0,), (1.0,)), max_steps=H, name="lq",
        reward_fn=reward_fn if known_reward else None,
    )  # fmt: skip


def least_cost():
    """Of the best controllers without the box, in float64: E x P x at the start and what the noise adds."""
    P, total = np.zeros((2, 2)), 0.0
    for _ in range(H):
        total += NOISE**2 * np.trace(P)
        K = np.linalg.solve(R + B.T @ P @ B, B.T @ P @ A)
        P = Q + A.T @ P @ A - A.T @ P @ B @ K
    return START @ P @ START + START_STD**2 * np.trace(P) + total, K


def trained(env, agent, steps):
    """A run of one seed: returns of 200 episodes without exploration at its end, and its history."""

    def run(key):
        state, history = make_train(env, agent, steps)(key)
        return evaluate(jax.random.key(1), env, agent, state.agent, 200)["returns"], history

    fast = {"xla_backend_optimization_level": 0}
    return jax.tree.map(np.asarray, jax.jit(run, compiler_options=fast)(jax.random.key(0)))
