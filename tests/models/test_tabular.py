"""A table against counts done by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import data, models
from jmbrl.types import Continuous, Discrete, Spec, Transition

KEY = jax.random.key(0)
CHAIN = Spec("chain", (1,), Discrete(2), 10)
PLANE = Spec("plane", (2,), Continuous((-1.0,), (1.0,)), 10)

# State, action, reward, next state, terminated: from state 0 with action 0 three times to 1, once to 2, where it ends.
LOG = [(0, 0, 1.0, 1, 0), (0, 0, 2.0, 1, 0), (0, 0, 3.0, 1, 0), (0, 0, 6.0, 2, 1), (1, 1, -1.0, 0, 0)]


@functools.cache
def chain(**options):
    """A table of three states; its fit, step from one state many times, and prediction, compiled once."""
    model = models.tabular(CHAIN, index=lambda obs: obs[0], num_states=3, centre=lambda i: i[None], **options)
    return model, jax.jit(models.trainer(model).fit), jax.jit(model.step_many), jax.jit(model.predict)


def replay(log=LOG, capacity=8) -> data.Replay:
    state, action, reward, following, terminated = (np.asarray(x) for x in zip(*log, strict=True))
    return data.from_arrays(state[:, None], action, reward, following[:, None], terminated == 1, capacity=capacity)


def fitted(log=LOG, **options):
    """Fitted parameters, info, ``step(state, action, count)`` and ``predict(state, action)``."""
    model, fit, step_many, predict = chain(**options)
    params, _, info = fit(KEY, model.init(KEY), (), replay(log))

    def step(state, action, count=3000):
        following, outcome = step_many(KEY, params, np.full(count, state, np.int32), np.full(count, action, np.int32))
        return np.asarray(following), outcome

    return params, info, step, lambda state, action: predict(params, np.int32(state), np.int32(action))


def test_counts_give_probabilities_rewards_and_ends():
    _, info, step, predict = fitted()
    following, outcome = step(0, 0)
    assert set(following.tolist()) == {1, 2}
    np.testing.assert_allclose(np.mean(following == 2), 0.25, atol=0.03)  # 4 standard errors
    np.testing.assert_array_equal(outcome.reward, 3.0)
    np.testing.assert_array_equal(outcome.discount, np.where(following == 2, 0.0, 1.0))  # the end belongs to state 2
    assert not np.any(outcome.clipped)
    np.testing.assert_allclose(info["seen"], 2 / 6, rtol=1e-6)
    np.testing.assert_allclose(info["loss"], -(3 * np.log(0.75) + np.log(0.25)) / 5, rtol=1e-6)
    prediction = predict(0, 0)
    np.testing.assert_allclose(prediction.mean, [1.25], rtol=1e-6)
    np.testing.assert_allclose(prediction.std, [np.sqrt(0.75 * 0.25)], rtol=1e-6)
    np.testing.assert_allclose((prediction.reward_mean, prediction.reward_std), (3.0, np.std([1, 2, 3, 6])), rtol=1e-6)


def test_what_was_never_seen_stays_and_tells():
    _, _, step, predict = fitted()
    following, outcome = step(2, 1)
    for got, wanted in ((following, 2), (outcome.reward, 0.0), (outcome.discount, 1.0), (outcome.clipped, True)):
        np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(predict(2, 1).mean, [2.0])


def test_a_prior_goes_anywhere():
    _, _, step, _ = fitted(prior=1.0)
    unseen, outcome = step(2, 1)
    np.testing.assert_allclose(np.bincount(unseen) / 3000, np.full(3, 1 / 3), atol=0.04)
    assert np.all(outcome.clipped)
    seen, outcome = step(0, 0)
    np.testing.assert_allclose(np.bincount(seen) / 3000, np.array([1, 4, 2]) / 7, atol=0.04)
    assert not np.any(outcome.clipped)


def test_a_deterministic_table_takes_the_most_frequent():
    params, _, step, predict = fitted((*LOG, (0, 0, 0.0, 2, 1), (0, 0, 0.0, 2, 0), (0, 0, 0.0, 2, 0)), stochastic=False)
    following, outcome = step(0, 0)
    np.testing.assert_array_equal(following, 2)
    np.testing.assert_array_equal(outcome.discount, 0.5)
    stochastic = chain()[0]
    np.testing.assert_array_equal(stochastic.expect(params, *np.zeros((2, 1), np.int32))[0], [2])
    np.testing.assert_array_equal(predict(0, 0).mean, [2.0])


def test_a_grid_numbers_cells_and_remembers_their_means():
    model = models.tabular(PLANE, low=(0.0, -1.0), high=(3.0, 1.0), bins=(3, 2), action_bins=4)
    empty = model.init(KEY)
    encode = jax.jit(lambda obs: model.encode(KEY, empty, None, None, obs, True))
    cells = {(0.5, -0.5): 0, (0.5, 0.5): 1, (1.5, -0.1): 2, (2.9, 0.9): 5, (-7.0, 9.0): 1, (1e30, -1e30): 4}
    for obs, cell in cells.items():
        assert int(encode(jnp.asarray(obs))) == cell
    np.testing.assert_allclose(model.decode(empty, np.int32(3)), [1.5, 0.5])  # unseen: the centre
    obs = jnp.asarray([[0.2, -0.2], [0.4, -0.6], [1.1, 0.3]])
    following = jnp.asarray([[1.2, 0.7], [1.2, 0.7], [jnp.nan, 0.0]])
    rows = Transition(obs, jnp.asarray([[-0.9], [-0.6], [0.0]]), jnp.ones(3), following, *2 * (jnp.zeros(3, bool),))
    params, _ = jax.jit(model.fit)(KEY, empty, rows, jnp.asarray([3.0, 1.0, 0.0]))  # counts 3, 1 and not at all
    np.testing.assert_allclose(model.decode(params, np.int32(0)), [0.25, -0.3], rtol=1e-5)
    np.testing.assert_allclose(model.decode(params, np.int32(3)), [1.2, 0.7], rtol=1e-6)
    assert float(params.weights.moved[0, 0, 3]) == 4.0  # both actions in the first of four cells
    assert float(jnp.sum(params.weights.moved)) == 4.0


def total(obs, action, following):
    return 10.0 * obs[0] + action + following[0]


def ends(obs, action, following):
    return following[0] < 0.5


def test_given_functions_read_decoded_states():
    _, _, step, predict = fitted(reward=total, termination=ends)
    following, outcome = step(1, 1)
    np.testing.assert_array_equal(following, 0)
    np.testing.assert_array_equal(outcome.reward, 11.0)
    np.testing.assert_array_equal(outcome.discount, 0.0)
    np.testing.assert_allclose(predict(0, 0).reward_mean, 1.25)


def test_policies_read_one_hot():
    model = chain()[0]
    np.testing.assert_array_equal(model.features(model.init(KEY), np.int32(2)), [0.0, 0.0, 1.0])
    assert "no derivative" in model.no_gradient


@pytest.mark.parametrize(
    ("spec", "options", "match"),
    [
        (CHAIN, {}, "tabular needs low, high and bins"),
        (CHAIN, {"low": 0, "high": 1, "bins": 2, "index": lambda obs: 0}, "either a grid"),
        (CHAIN, {"index": lambda obs: 0}, "num_states must be given"),
        (CHAIN, {"low": 1, "high": 0, "bins": 2}, "low must be below high"),
        (CHAIN, {"low": 0, "high": 1, "bins": 0}, "bins must be at least 1"),
        (CHAIN, {"low": (0, 1), "high": 1, "bins": 2}, "low must be one number or 1"),
        (CHAIN, {"low": 0, "high": 1, "bins": 2, "action_bins": 2}, "action_bins is for continuous"),
        (CHAIN, {"low": 0, "high": 1, "bins": 10_000}, "20000000.* entries .*at most 33554432"),
        (CHAIN, {"low": 0, "high": 1, "bins": 2, "prior": -1.0}, "prior must be at least 0"),
        (PLANE, {"low": 0, "high": 1, "bins": 2}, "action_bins must be given"),
        (Spec("image", (2, 2, 1), Discrete(2), 9), {"low": 0, "high": 1, "bins": 2}, "vector observation"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(spec, options, match):
    with pytest.raises(ValueError, match=match):
        models.tabular(spec, **options)
