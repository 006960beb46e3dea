"""Returns that a search's value ends, worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import learners
from jmbrl.types import Sequence, Transition

REWARDS = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
VALUES = [100.0, 200.0, 300.0, 400.0, 500.0, 600.0]
GAMMA = 0.5


def window(terminated=(), truncated=(), is_first=(0,), masked=()):
    flags = lambda at: np.isin(np.arange(6), at)[None]  # noqa: E731
    obs = np.zeros((1, 6, 1), np.float32)
    rows = Transition(
        obs, np.zeros((1, 6), np.int32), np.asarray([REWARDS], np.float32), obs, flags(terminated), flags(truncated)
    )
    return Sequence(rows, flags(is_first), ~flags(masked))


def targets(batch, unroll=2, n_step=2, players=1):
    values = jnp.asarray([VALUES])
    found = jax.jit(lambda b: learners.search_targets(b, values, unroll, n_step, GAMMA, players))(batch)
    return jax.tree.map(lambda x: x[:, 0].tolist(), found)


def test_two_steps_and_the_value_of_the_third_row():
    found = targets(window())
    assert found.value == [1 + 0.5 * 2 + 0.25 * 300, 2 + 0.5 * 4 + 0.25 * 400, 4 + 0.5 * 8 + 0.25 * 500]
    assert found.reward == [1.0, 2.0]
    assert found.known == found.alive == [True, True, True]


def test_nothing_follows_a_termination_and_absorbing_rows_pay_nothing():
    found = targets(window(terminated=[1], is_first=[0, 2]), n_step=3)
    assert found.value == [1 + 0.5 * 2, 2.0, 0.0]
    assert found.reward == [1.0, 2.0]
    assert (found.known, found.alive) == ([True, True, True], [True, True, False])
    later = targets(window(terminated=[0], is_first=[0, 1]), n_step=3)
    assert (later.value, later.reward) == ([1.0, 0.0, 0.0], [1.0, 0.0])


def test_a_time_limit_ends_a_return_with_the_value_of_its_last_row_and_teaches_nothing_after_it():
    found = targets(window(truncated=[1], is_first=[0, 2]), n_step=3)
    assert found.value == [1 + 0.5 * 200, 200.0, 0.0]
    assert found.known == found.alive == [True, True, False]
    assert found.reward == [1.0, 2.0]


@pytest.mark.parametrize("gap", [{"masked": [2]}, {"is_first": [0, 2]}])
def test_a_broken_row_or_a_new_episode_ends_a_return_like_a_time_limit(gap):
    found = targets(window(**gap), n_step=3)
    assert found.value[:2] == [1 + 0.5 * 200, 200.0]
    assert found.known == [True, True, False]


def test_an_episode_under_way_ends_with_the_last_row_there_is():
    found = targets(window(masked=[3, 4, 5]), n_step=3)
    assert found.value == [1 + 0.5 * 2 + 0.25 * 300, 2 + 0.5 * 300, 300.0]


def test_players_alternate():
    found = targets(window(terminated=[3], is_first=[0, 4]), players=2)
    assert found.value == [1 - 0.5 * 2 + 0.25 * 300, 2 - 0.5 * 4 + 0.25 * 400, 4 - 0.5 * 8]


def test_a_lost_game_is_worth_minus_one_to_the_loser_at_every_turn():
    batch = window(terminated=[3], is_first=[0, 4])
    rows = batch.transition._replace(reward=jnp.asarray([[0.0, 0.0, 0.0, 1.0, 0.0, 0.0]]))
    found = learners.search_targets(batch._replace(transition=rows), jnp.zeros((1, 6)), 0, 4, 1.0, 2)
    np.testing.assert_array_equal(found.value, [[-1.0]])


def test_a_window_that_is_too_short_is_refused():
    with pytest.raises(ValueError, match=r"unroll \+ n_step \+ 1 = 9 rows, got 6"):
        targets(window(), unroll=5, n_step=3)
