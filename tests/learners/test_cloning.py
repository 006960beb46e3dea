"""Behavioural cloning: what it converges to, what it draws, what it refuses. The return it reaches:
``tests/models/test_inverse.py``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl.learners import cloning, imitate
from jmbrl.types import Continuous, Discrete, Transition

KEY = jax.random.key(0)
BOX = Continuous((-1.0,), (1.0,))
SETTINGS = {"epochs": 300, "batch_size": 10}


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
    with pytest.raises(ValueError, match="weight_decay must be at least 0"):
        cloning(BOX, 1, weight_decay=-1.0)
    learner = cloning(BOX, 2, hidden=(4,))
    with pytest.raises(ValueError, match="features has shape"):
        jax.eval_shape(lambda: learner.act(KEY, learner.init(KEY), jnp.zeros(3), False))


def test_passes_over_a_demonstration_skip_what_is_not_valid():
    obs = jnp.linspace(-1.0, 1.0, 50)[:, None]
    # Every second row says the contrary, and one of these is broken.
    valid = jnp.arange(50) % 2 == 0
    action = jnp.where(valid[:, None], 0.5 * obs, -1.0).at[1].set(jnp.nan)
    learner = cloning(BOX, 1, hidden=(8,), learning_rate=1e-2)
    fit = jax.jit(lambda key: imitate(key, learner, learner.init(KEY), demonstration(obs, action), valid, **SETTINGS))
    state, info = fit(KEY)
    act = jax.vmap(lambda x: learner.act(KEY, state, x, False)[0])
    np.testing.assert_allclose(act(obs), 0.5 * obs, atol=0.03)
    assert (info["updates"], info["skipped"]) == (300 * 3, 0)  # 25 rows in threes of 10
    assert info["loss"] < 1e-3
    # The weights of a policy as PPO and TRPO have it, whose mean is not squashed.
    assert set(state.policy) == {"net", "log_std"}


def test_no_valid_row_changes_nothing():
    learner = cloning(BOX, 1, hidden=(8,), learning_rate=1e-2)
    rows = demonstration(jnp.ones((4, 1)), jnp.ones((4, 1)))
    before = learner.init(KEY)
    state, info = jax.jit(lambda: imitate(KEY, learner, before, rows, jnp.zeros(4, bool), epochs=2, batch_size=2))()
    jax.tree.map(np.testing.assert_array_equal, state, before)
    assert (info["updates"], info["loss"]) == (0, 0)


def test_decay_shrinks_weights_and_not_biases():
    """Of a linear map of inputs 1 and 1 to 1, w + b = 1 up to the decay: with none on b all of it goes there."""
    obs = jnp.ones((8, 1))
    learner = cloning(BOX, 1, hidden=(), learning_rate=3e-2, weight_decay=1.0)
    state, _ = train(learner, demonstration(obs, jnp.ones((8, 1))), 600)
    (layer,) = state.policy["net"]["params"].values()
    np.testing.assert_allclose(layer["kernel"], 0.0, atol=1e-2)
    np.testing.assert_allclose(layer["bias"], 1.0, atol=1e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"valid": jnp.ones(3, bool)}, "valid has shape"),
    ],
)
def test_imitation_refuses(change, message):
    learner = cloning(BOX, 1, hidden=())
    rows = demonstration(jnp.ones((4, 1)), jnp.ones((4, 1)))
    with pytest.raises(ValueError, match=message):
        imitate(KEY, learner, learner.init(KEY), rows, **{"valid": jnp.ones(4, bool), **change})
