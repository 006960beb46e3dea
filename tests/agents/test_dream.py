"""Episodes in a model whose every number is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import models
from jmbrl.agents import dream_fitness
from jmbrl.types import Outcome, Params

from worlds import line

KEY = jax.random.key(0)


def staircase():
    """The belief rises by the action; a step pays the belief it left, and the world ends where it reaches 10."""
    model = models.simulator(line())

    def step_many(key, params, beliefs, actions):
        following = beliefs + actions[:, 0]
        none = jnp.zeros((len(beliefs), 0)), jnp.zeros(len(beliefs), bool)
        return following, Outcome(beliefs, (following < 10).astype(jnp.float32), *none)

    return model._replace(step_many=step_many, features=lambda params, belief: belief[None])


def fitness(policies, start, rollouts=2, horizon=4, gamma=1.0, model=None):
    act = lambda policy, features: policy  # noqa: E731
    return dream_fitness(KEY, model or staircase(), Params((), ()), start, act, policies, rollouts, horizon, gamma)


def test_rewards_are_added_up_until_the_dream_ends():
    policies = jnp.asarray([[1.0], [5.0], [0.0]])
    # From 2: 2 + 3 + 4 + 5; then 2, 7 and the step from 7 ends it; then four times 2.
    found = fitness(policies, lambda key: jnp.float32(2.0))
    np.testing.assert_array_equal(found, [[14, 14], [9, 9], [8, 8]])
    # 2 + 3/2 + 4/4 + 5/8; 2 + 7/2; 2 (1 + 1/2 + 1/4 + 1/8)
    found = fitness(policies, lambda key: jnp.float32(2.0), gamma=0.5)
    np.testing.assert_allclose(found[:, 0], [5.125, 5.5, 3.75])


def test_every_candidate_begins_where_the_others_do():
    found = np.asarray(fitness(jnp.zeros((3, 1)), jax.random.normal, rollouts=5, horizon=1))
    assert found.shape == (3, 5)
    assert len(np.unique(found[0])) == 5
    np.testing.assert_array_equal(found[1:], found[[0, 0]])


def test_what_comes_after_the_end_does_not_count_even_if_it_is_broken():
    model = staircase()

    def broken(key, params, beliefs, actions):
        following, outcome = model.step_many(key, params, beliefs, actions)
        return following, outcome._replace(reward=jnp.where(beliefs >= 10, jnp.nan, outcome.reward))

    found = fitness(jnp.asarray([[5.0]]), lambda key: jnp.float32(2.0), model=model._replace(step_many=broken))
    np.testing.assert_array_equal(found, [[9, 9]])


@pytest.mark.parametrize(("name", "value"), [("rollouts", 0), ("horizon", 0)])
def test_no_rollouts_or_steps_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be.*got {value}"):
        fitness(jnp.zeros((2, 1)), jax.random.normal, **{name: value})
