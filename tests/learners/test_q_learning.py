"""Q-learning: updates worked by hand, the policy's probabilities, values against value iteration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import learners
from jmbrl.learners.q_learning import back_up, bellman_error
from jmbrl.types import Continuous, Discrete, Successors, Transition

KEY = jax.random.key(0)


def rows(*tuples):
    """``(s, a, r, s', terminated)`` each."""
    obs, action, reward, next_obs, terminated = map(jnp.asarray, zip(*tuples, strict=True))
    return Transition(obs, action, reward.astype(float), next_obs, terminated, jnp.zeros_like(terminated))


def test_rows_are_learned_one_after_another_and_an_end_is_worth_nothing():
    learner = learners.q_learning(Discrete(2), 3, alpha=0.5, gamma=0.9)
    state = learners.QState(jnp.asarray([[0.0, 0.0], [1.0, 2.0], [8.0, 8.0]]))
    data = rows((1, 0, 1.0, 2, True), (0, 1, 0.0, 1, False), (-1, 0, 9.0, 0, False), (0, 1, 1.0, 1, False))
    new, info = learner.update(KEY, state, data)
    # Q(1,0) = 1 + (1 - 1)/2; Q(0,1) = (0.9 * 2)/2 = 0.9, then 0.9 + (1 + 1.8 - 0.9)/2 = 1.85.
    np.testing.assert_allclose(new.values, [[0.0, 1.85], [1.0, 2.0], [8.0, 8.0]], rtol=1e-6)
    np.testing.assert_allclose(info["td_error"], (0.0 + 1.8 + 1.9) / 3, rtol=1e-6)
    assert info["backups"] == 3


def test_an_expected_update_weighs_its_outcomes():
    values = jnp.asarray([[0.0, 0.0], [1.0, 3.0], [5.0, 4.0]])
    after = Successors(
        jnp.asarray([[0.25, 0.75]]), jnp.asarray([[1, 2]]), jnp.asarray([[2.0, 1.0]]), jnp.asarray([[1.0, 0.0]])
    )
    # 0.25 (2 + 0.5 * 3) + 0.75 * 1 = 1.625
    np.testing.assert_allclose(bellman_error(values, values[:1, 0], after, 0.5), [1.625])
    new, delta = back_up(values, jnp.asarray([0]), jnp.asarray([1]), after, 0.1, 0.5)
    np.testing.assert_allclose(delta, [1.625])
    np.testing.assert_allclose(new[0], [0.0, 0.1625])


def test_probabilities_of_actions_and_random_ties():
    learner = learners.q_learning(Discrete(4), 2, epsilon=0.2)
    state = learners.QState(jnp.asarray([[1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 7.0]]))
    act = jax.jit(jax.vmap(learner.act, in_axes=(0, None, None, None)), static_argnums=3)
    actions, log_prob = act(jax.random.split(KEY, 20_000), state, jnp.asarray(0), True)
    share = np.bincount(actions, minlength=4) / 20_000
    np.testing.assert_allclose(share, [0.45, 0.05, 0.45, 0.05], atol=0.015)  # four standard errors
    np.testing.assert_allclose(np.exp(log_prob), np.asarray([0.45, 0.05, 0.45, 0.05])[actions], rtol=1e-5)
    assert learner.act(KEY, state, jnp.asarray(0), False)[0] == 0  # the lowest of the best
    assert learner.act(KEY, state, jnp.asarray(1), False)[0] == 3


def test_values_converge_to_value_iteration():
    """A random deterministic world of 6 states, every pair visited often."""
    rng = np.random.default_rng(1)
    following, reward, ends = rng.integers(6, size=(6, 2)), rng.normal(size=(6, 2)), rng.random((6, 2)) < 0.2
    exact = np.zeros((6, 2))
    for _ in range(300):
        exact = reward + 0.9 * ~ends * exact.max(1)[following]
    learner = learners.q_learning(Discrete(2), 6, alpha=1.0, gamma=0.9)
    s, a = np.divmod(rng.permutation(np.tile(np.arange(12), 200)), 2)
    data = rows(*zip(s, a, reward[s, a], following[s, a], ends[s, a], strict=True))
    state, _ = jax.jit(learner.update)(KEY, learner.init(KEY), data)
    np.testing.assert_allclose(state.values, exact, atol=1e-4)


@pytest.mark.parametrize(("option", "value"), [("alpha", 1.5), ("gamma", -0.1), ("epsilon", 2.0), ("initial", np.nan)])
def test_options_out_of_range_are_refused(option, value):
    with pytest.raises(ValueError, match=option):
        learners.q_learning(Discrete(2), 3, **{option: value})


def test_spaces_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="states must be at least 1"):
        learners.q_learning(Discrete(2), 0)
    with pytest.raises(ValueError, match="needs discrete actions"):
        learners.q_learning(Continuous((-1.0,), (1.0,)), 3)
