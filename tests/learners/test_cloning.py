"""Behavioural cloning: what it converges to, what it draws, what it refuses. The return it reaches:
``tests/models/test_inverse.py``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl.learners import cloning
from jmbrl.types import Continuous, Discrete, Transition

KEY = jax.random.key(0)
BOX = Continuous((-1.0,), (1.0,))


def demonstration(obs, action):
    flag = jnp.zeros(len(obs), bool)
    return Transition(obs, action, jnp.zeros(len(obs)), obs, flag, flag)


def train(learner, batch, updates):
    body = lambda state, key: learner.update(key, state, batch)  # noqa: E731
    return jax.jit(lambda: jax.lax.scan(body, learner.init(KEY), jax.random.split(KEY, updates)))()


def test_a_noisy_demonstrator_becomes_its_mean_and_its_spread():
    obs = jax.random.uniform(KEY, (2000, 1), minval=-1.0, maxval=1.0)
    noise = 0.1 * jax.random.normal(jax.random.key(1), (2000, 1))
    learner = cloning(BOX, 1, hidden=(8,), learning_rate=1e-2)
    state, info = train(learner, demonstration(obs, 0.5 * obs + noise), 500)
    act = jax.jit(learner.act, static_argnums=3)
    for x in (-0.8, 0.0, 0.8):
        np.testing.assert_allclose(act(KEY, state, jnp.array([x]), False)[0], [0.5 * x], atol=0.03)
    many = jax.jit(jax.vmap(lambda key: learner.act(key, state, jnp.zeros(1), True)))
    drawn, log_prob = many(jax.random.split(KEY, 2000))
    np.testing.assert_allclose(drawn.std(), 0.1, atol=0.015)
    # The mean log-density of a Gaussian of standard deviation 0.1 is -log(0.1 sqrt(2 pi e)) = 0.8837.
    np.testing.assert_allclose(log_prob.mean(), 0.8837, atol=0.15)
    np.testing.assert_allclose(info["loss"][-1], 0.01, atol=0.002)
    assert (info["skipped"].sum(), info["updates"].sum()) == (0, 500)


def test_discrete_actions_follow_their_frequencies():
    obs = jnp.repeat(jnp.array([[-1.0], [1.0]]), 100, axis=0)
    action = jnp.concatenate([jnp.zeros(75), jnp.ones(25), jnp.full(100, 2)]).astype(jnp.int32)
    learner = cloning(Discrete(3), 1, hidden=(8,), learning_rate=3e-2)
    state, _ = train(learner, demonstration(obs, action), 300)
    act = jax.jit(learner.act, static_argnums=3)
    chosen, log_prob = act(KEY, state, jnp.array([-1.0]), False)
    assert chosen == 0
    np.testing.assert_allclose(jnp.exp(log_prob), 0.75, atol=0.03)
    assert act(KEY, state, jnp.array([1.0]), True)[0] == 2


def test_a_broken_batch_changes_nothing():
    learner = cloning(BOX, 1, hidden=(8,))
    state = jax.jit(learner.init)(KEY)
    batch = demonstration(jnp.zeros((3, 1)), jnp.array([[0.0], [jnp.nan], [0.0]]))
    new, info = jax.jit(learner.update)(KEY, state, batch)
    jax.tree.map(np.testing.assert_array_equal, new, state)
    assert info["skipped"] == 1


def test_refuses():
    with pytest.raises(ValueError, match="features must be at least 1, got 0"):
        cloning(BOX, 0)
    with pytest.raises(ValueError, match="learning_rate must be at least 0"):
        cloning(BOX, 1, learning_rate=-1.0)
    learner = cloning(BOX, 2, hidden=(4,))
    with pytest.raises(ValueError, match="features has shape"):
        jax.eval_shape(lambda: learner.act(KEY, learner.init(KEY), jnp.zeros(3), False))
