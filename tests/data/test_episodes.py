"""Episodes of a replay, and splits that keep them whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import data
from jmbrl.types import Continuous, Spec, Transition

SPEC = Spec("log", (1,), Continuous((-1.0,), (1.0,)), 10)


def ring(lengths, num_envs=1, capacity=32):
    """Episodes that count up, the same in every environment; observations tell environment and time."""
    replay, t = data.empty(SPEC, capacity, num_envs), 0
    for length in lengths:
        for i in range(length):
            obs = 100.0 * jnp.arange(num_envs)[:, None] + t
            ended = jnp.full(num_envs, i == length - 1)
            rows = Transition(obs, jnp.zeros((num_envs, 1)), jnp.zeros(num_envs), obs + 1, ended, jnp.zeros_like(ended))
            replay, t = data.add(replay, rows), t + 1
    return replay


def seen(episodes):
    return [episode.obs[:, 0].tolist() for episode in episodes]


def test_episodes_of_several_environments_in_the_order_they_began():
    assert seen(data.episodes(ring([2, 1], num_envs=2))) == [[0, 1], [100, 101], [2], [102]]


def test_a_ring_that_came_round_begins_within_an_episode():
    assert seen(data.episodes(ring([4, 3], capacity=5))) == [[2, 3], [4, 5, 6]]


def test_a_broken_row_ends_a_stretch():
    replay = ring([5])
    replay = replay._replace(valid=replay.valid.at[2].set(False))
    assert seen(data.episodes(replay)) == [[0, 1], [3, 4]]


def test_the_last_episodes_are_held_out():
    train, held = data.split_episodes(ring([4, 3, 2, 1]), 0.3)
    assert seen(data.episodes(train)) == [[0, 1, 2, 3], [4, 5, 6]]
    assert seen(data.episodes(held)) == [[7, 8], [9]]


def test_random_episodes_are_held_out_whole():
    replay = ring([3] * 10, capacity=30)
    parts = [data.split_episodes(replay, 0.2, jax.random.key(i)) for i in range(3)]
    chosen = set()
    for train, held in parts:
        assert len(data.episodes(train)) == 8
        assert len(data.episodes(held)) == 2
        both = sorted(seen(data.episodes(train)) + seen(data.episodes(held)))
        assert both == seen(data.episodes(replay))
        chosen.add(str(seen(data.episodes(held))))
    assert len(chosen) > 1


def test_what_has_no_end_is_marked_truncated():
    replay = ring([2, 2])
    replay = replay._replace(data=replay.data._replace(terminated=jnp.zeros_like(replay.data.terminated)))
    train, _ = data.split_episodes(replay, 0.5)
    assert np.asarray(train.data.truncated[:, 0]).tolist() == [False, True]


@pytest.mark.parametrize(("lengths", "share"), [([3], 0.5), ([3, 3], 0.0), ([3, 3], 1.0)])
def test_bad_splits_are_refused(lengths, share):
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\) of at least two episodes"):
        data.split_episodes(ring(lengths), share)
