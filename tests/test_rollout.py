"""Imagination: rewards, discounts and values sit where they belong. Numbers worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl.rollout import discounts, imagine, objective
from jmbrl.types import Model, Outcome, Params

KEY = jax.random.key(0)


def counter() -> Model:
    """Belief b becomes b + a; the reward is 10 b + a *before* the step; it terminates on reaching 3."""

    def step(key, params, belief, action):
        following = belief + action
        outcome = Outcome(10 * belief + action, jnp.where(following >= 3, 0.0, 1.0), jnp.stack([belief]), following > 3)
        return following, outcome

    def step_many(key, params, beliefs, actions):
        return jax.vmap(step, in_axes=(None, None, 0, 0))(key, params, beliefs, actions)

    return Model(None, None, None, step, step_many, None, None, None, None)


PARAMS = Params((), ())


def test_imagined_rows_belong_together():
    model = counter()
    actions = jnp.asarray([[1.0, 2.0], [1.0, 0.0], [1.0, 1.0]])
    last, path = imagine(
        KEY, lambda k, b, a: model.step_many(k, PARAMS, b, a), jnp.zeros(2), lambda k, b, t: (actions[t], t), 3
    )
    np.testing.assert_array_equal(path.belief, [[0, 0], [1, 2], [2, 2]])
    np.testing.assert_array_equal(path.action, actions)
    np.testing.assert_array_equal(path.next_belief, [[1, 2], [2, 2], [3, 3]])
    np.testing.assert_array_equal(path.outcome.reward, [[1, 2], [11, 20], [21, 21]])
    np.testing.assert_array_equal(path.aux, [0, 1, 2])
    np.testing.assert_array_equal(last, [3, 3])


def test_the_reward_of_the_terminating_step_counts_and_nothing_after_it():
    outcome = Outcome(jnp.asarray([1.0, 2.0, 4.0]), jnp.asarray([1.0, 0.0, 1.0]), jnp.zeros((3, 0)), jnp.zeros(3, bool))
    np.testing.assert_allclose(discounts(outcome, 0.5), [1.0, 0.5, 0.0])


def test_objective_by_hand():
    # From 1: a=1 -> r 11, at 2; a=1 -> r 21, terminates at 3; a=5 -> masked.   11 + 0.5 * 21 = 21.5
    # From 1: a=0 -> r 10, a=0 -> r 10, a=1 -> r 11; ends at 2, value 100.       10 + 5 + 2.75 + 12.5 = 30.25
    goal = objective(
        counter(), PARAMS, jnp.asarray(1.0), particles=3, gamma=0.5, terminal_value=lambda b: jnp.full_like(b, 100.0)
    )
    returns, costs, info = goal.returns(KEY, jnp.asarray([[1.0, 1.0, 5.0], [0.0, 0.0, 1.0]]))
    np.testing.assert_allclose(returns, [21.5, 30.25])
    np.testing.assert_allclose(costs, [[1 + 0.5 * 2], [1 + 0.5 + 0.25]])
    np.testing.assert_allclose(info["clipped"], 1 / 6)  # one candidate's last step of three, all particles


def test_rows_are_particle_major_and_risk_reduces_over_particles():
    def step_many(key, params, beliefs, actions):
        rows = jnp.arange(len(beliefs), dtype=jnp.float32)
        zero = jnp.zeros(len(beliefs))
        return beliefs, Outcome(rows, zero + 1, zero[:, None], zero > 0)

    model = counter()._replace(step_many=step_many)
    goal = objective(model, PARAMS, jnp.asarray(0.0), particles=3, reduce=lambda returns: jnp.min(returns, axis=0))
    np.testing.assert_array_equal(goal.returns(KEY, jnp.zeros((4, 1)))[0], [0, 1, 2, 3])
    worst = objective(model, PARAMS, jnp.asarray(0.0), particles=3, reduce=lambda returns: jnp.max(returns, axis=0))
    np.testing.assert_array_equal(worst.returns(KEY, jnp.zeros((4, 1)))[0], [8, 9, 10, 11])


def test_a_horizon_of_zero_is_refused():
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        imagine(KEY, None, None, None, 0)
    with pytest.raises(ValueError, match="particles must be at least 1, got 0"):
        objective(counter(), PARAMS, jnp.zeros(()), particles=0)
