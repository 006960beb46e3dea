"""The table that learns row by row: what it remembers, forgets and predicts, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import data, models
from jmbrl.models.transition_table import seen, successors
from jmbrl.types import Cells, Continuous, Discrete, Spec, Transition

KEY = jax.random.key(0)
SPEC = Spec("numbers", (1,), Discrete(2), 9)
NUMBERS = Cells(4, lambda obs: obs[0].astype(jnp.int32), lambda i: jnp.asarray(i, jnp.float32)[None])


def rows(*tuples):
    """``(s, a, r, s', terminated)`` each."""
    s, a, r, following, ended = (np.asarray(x) for x in zip(*tuples, strict=True))
    column = lambda x: jnp.asarray(x, jnp.float32)[:, None]  # noqa: E731
    action = jnp.asarray(a, jnp.int32)
    return Transition(
        column(s), action, jnp.asarray(r, jnp.float32), column(following), jnp.asarray(ended), jnp.zeros(len(s), bool)
    )


def learned(outcomes, *tuples, valid=True):
    model = models.transition_table(SPEC, NUMBERS, outcomes=outcomes)
    given = rows(*tuples)
    return model, jax.jit(model.observe)(model.init(KEY), given, jnp.broadcast_to(jnp.asarray(valid), len(tuples)))


def test_a_deterministic_table_remembers_what_was_last_seen():
    model, params = learned(1, (0, 1, 5.0, 2, False), (0, 1, 7.0, 3, True), (1, 0, -1.0, 0, False))
    following, outcome = model.step_many(KEY, params, jnp.asarray([0, 1, 2]), jnp.asarray([1, 0, 1]))
    np.testing.assert_array_equal(following, [3, 0, 2])  # the untried pair stays where it is
    np.testing.assert_array_equal(outcome.reward, [7.0, -1.0, 0.0])
    np.testing.assert_array_equal(outcome.discount, [0.0, 1.0, 1.0])
    np.testing.assert_array_equal(outcome.clipped, [False, False, True])
    np.testing.assert_array_equal(np.argwhere(seen(params.weights)), [[0, 1], [1, 0]])


def test_outcomes_are_counted_with_their_mean_rewards_and_the_rarest_is_forgotten():
    seen_rows = [(0, 0, 1.0, 1, False), (0, 0, 3.0, 1, False), (0, 0, 5.0, 2, True), (0, 0, 2.0, 1, True)]
    model, params = learned(2, *seen_rows)
    after = successors(params.weights, jnp.asarray(0), jnp.asarray(0))
    np.testing.assert_allclose(after.chance, [0.75, 0.25])
    np.testing.assert_array_equal(after.state, [1, 2])
    np.testing.assert_allclose(after.reward, [2.0, 5.0])
    np.testing.assert_allclose(after.discount, [2 / 3, 0.0], rtol=1e-6)
    guess = model.predict(params, jnp.asarray(0), jnp.asarray(0))
    np.testing.assert_allclose(guess.mean, [1.25])
    np.testing.assert_allclose(guess.std, [np.sqrt(0.75 * 0.25)], rtol=1e-6)
    np.testing.assert_allclose((guess.reward_mean, guess.reward_std), (2.75, np.sqrt(0.1875) * 3), rtol=1e-6)
    params = model.observe(params, rows((0, 0, 0.0, 3, False)), jnp.asarray([True]))
    after = successors(params.weights, jnp.asarray(0), jnp.asarray(0))
    np.testing.assert_array_equal(after.state, [1, 3])
    np.testing.assert_allclose(after.reward, [2.0, 0.0])


def test_outcomes_are_drawn_by_their_frequency():
    model, params = learned(3, *[(0, 0, 0.0, 1, False)] * 6, *[(0, 0, 0.0, 2, False)] * 2)
    draw = jax.jit(model.step_many)
    following, _ = draw(KEY, params, jnp.zeros(8_000, jnp.int32), jnp.zeros(8_000, jnp.int32))
    np.testing.assert_allclose(np.bincount(following, minlength=4) / 8_000, [0, 0.75, 0.25, 0], atol=0.02)
    likeliest, outcome = model.expect(params, jnp.zeros(1, jnp.int32), jnp.zeros(1, jnp.int32))
    assert likeliest[0] == 1
    assert not outcome.clipped[0]


def test_broken_rows_are_not_learned():
    _, params = learned(1, (0, 0, np.nan, 1, False), (0, 1, 2.0, 1, False), valid=[False, True])
    assert np.all(np.isfinite(params.weights.reward))
    assert np.sum(seen(params.weights)) == 1


def test_a_fit_to_a_replay_is_the_rows_in_their_order():
    log = data.from_arrays([[0.0], [0.0], [1.0]], [1, 1, 0], [5.0, 7.0, -1.0], [[2.0], [3.0], [0.0]], [False] * 3)
    model = models.transition_table(SPEC, NUMBERS)
    trainer = models.trainer_for(model)
    params, _, info = jax.jit(trainer.fit)(KEY, model.init(KEY), trainer.init(model.init(KEY)), log)
    np.testing.assert_array_equal(params.weights.state[0, 1], [3])
    np.testing.assert_allclose(info["seen"], 2 / 8)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="needs discrete actions"):
        models.transition_table(Spec("box", (1,), Continuous((-1.0,), (1.0,)), 9), NUMBERS)
    with pytest.raises(ValueError, match="outcomes must be at least 1"):
        models.transition_table(SPEC, NUMBERS, outcomes=0)
