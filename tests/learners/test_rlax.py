"""Returns, targets and projections beside rlax's, where it is installed (``pip install jmbrl[oracles]``)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl.learners import gae, returns
from jmbrl.learners.categorical import project
from jmbrl.learners.dqn import q_target
from jmbrl.learners.ppo import clipped_gain
from jmbrl.learners.sac import td_target

rlax = pytest.importorskip("rlax", reason="an oracle that the tests do without", exc_type=ImportError)

GAMMA, LAM, STEPS = 0.9, 0.8, 12
RNG = np.random.default_rng(0)
REWARD, VALUE = (jnp.asarray(RNG.normal(size=n), jnp.float32) for n in (STEPS, STEPS + 1))
ENDED = jnp.asarray(RNG.random(STEPS) < 0.25)
NEVER = jnp.zeros(STEPS, bool)
DISCOUNT = GAMMA * (1.0 - ENDED)


def test_advantages_and_their_targets():
    ours = gae(REWARD, VALUE[:-1], VALUE[1:], ENDED, NEVER, GAMMA, LAM)
    theirs = rlax.truncated_generalized_advantage_estimation(REWARD, DISCOUNT, LAM, VALUE)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    targets = rlax.lambda_returns(REWARD, DISCOUNT, VALUE[1:], LAM)
    np.testing.assert_allclose(ours + VALUE[:-1], targets, rtol=1e-5, atol=1e-5)


def test_returns_bootstrap_where_the_data_end():
    theirs = rlax.lambda_returns(REWARD, DISCOUNT, VALUE[1:], 1.0)
    np.testing.assert_allclose(returns(REWARD, VALUE[1:], ENDED, NEVER, GAMMA), theirs, rtol=1e-5, atol=1e-6)


def test_the_target_of_double_q_learning():
    q, online, target = (jnp.asarray(RNG.normal(size=(STEPS, 4)), jnp.float32) for _ in range(3))
    action = jnp.asarray(RNG.integers(0, 4, STEPS))
    error = jax.vmap(rlax.double_q_learning)(q, action, REWARD, DISCOUNT, target, online)
    ours = q_target(REWARD, ENDED, GAMMA, target, online) - q[jnp.arange(STEPS), action]
    np.testing.assert_allclose(ours, error, rtol=1e-5, atol=1e-6)


def test_the_target_of_a_critic():
    error = jax.vmap(rlax.td_learning)(VALUE[:-1], REWARD, DISCOUNT, VALUE[1:])
    np.testing.assert_allclose(td_target(REWARD, ENDED, VALUE[1:], GAMMA) - VALUE[:-1], error, rtol=1e-5, atol=1e-6)


def test_the_projection_of_a_distribution():
    support = jnp.linspace(-2.0, 2.0, 11)
    moved = 0.3 + 0.7 * support
    chance = jax.nn.softmax(jnp.asarray(RNG.normal(size=11), jnp.float32))
    theirs = rlax.categorical_l2_project(moved, chance, support)
    np.testing.assert_allclose(project(moved, chance, support), theirs, rtol=1e-5, atol=1e-6)


def test_the_clipped_gain():
    ratio = jnp.exp(VALUE[:-1])  # well beyond the clip on both sides
    theirs = rlax.clipped_surrogate_pg_loss(ratio, REWARD, 0.2)
    np.testing.assert_allclose(-jnp.mean(clipped_gain(ratio, REWARD, 0.2)), theirs, rtol=1e-5)
