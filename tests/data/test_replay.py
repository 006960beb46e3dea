"""What goes into the replay comes out of it, whole and in order."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import data
from jmbrl.types import Continuous, Discrete, Spec, Transition

SPEC = Spec("toy", (2,), Continuous((-1.0,), (1.0,)), 10)
KEY = jax.random.key(0)


def row(t: float, ended: bool = False, broken: bool = False, num_envs: int = 1) -> Transition:
    envs = np.arange(num_envs, dtype=np.float32)
    obs = np.stack([np.full(num_envs, t, np.float32), envs], axis=1)
    flag = np.zeros(num_envs, bool)
    reward = np.full(num_envs, np.nan if broken else 10 * t, np.float32)
    return jax.tree.map(jnp.asarray, Transition(obs, obs[:, :1] / 10, reward, obs + 1, flag | ended, flag))


def filled(count: int, capacity: int = 8, num_envs: int = 1, ends=(), broken=()) -> data.Replay:
    replay = data.empty(SPEC, capacity, num_envs)
    for t in range(count):
        replay = data.add(replay, row(t, t in ends, t in broken, num_envs))
    return replay


def test_rows_come_back_in_order_with_their_count():
    rows, count = data.rows(filled(3))
    assert count == 3
    np.testing.assert_array_equal(rows.obs[:3, 0], [0, 1, 2])
    np.testing.assert_array_equal(rows.reward[:3], [0, 10, 20])
    np.testing.assert_array_equal(rows.next_obs[:3], rows.obs[:3] + 1)


def test_the_ring_forgets_the_oldest():
    rows, count = data.rows(filled(11, capacity=8))
    assert count == 8
    assert sorted(np.asarray(rows.obs[:, 0]).tolist()) == [3, 4, 5, 6, 7, 8, 9, 10]


def test_environments_keep_apart():
    rows, count = data.rows(filled(2, num_envs=3))
    assert count == 6
    np.testing.assert_array_equal(rows.obs[:6], [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]])


def test_broken_rows_are_dropped_counted_and_never_sampled():
    replay = filled(6, broken=(2, 4))
    rows, count = data.rows(replay)
    assert (count, replay.dropped) == (4, 2)
    np.testing.assert_array_equal(rows.obs[:4, 0], [0, 1, 3, 5])
    drawn = data.sample(KEY, replay, 200)
    assert set(np.asarray(drawn.obs[:, 0]).tolist()) == {0, 1, 3, 5}
    windows = data.sample_sequences(KEY, replay, 50, 3)
    assert np.all(np.isfinite(windows.transition.reward))
    np.testing.assert_array_equal(
        windows.mask,
        np.isin(windows.transition.obs[..., 0], [1, 3, 5]) | (windows.mask & (windows.transition.obs[..., 0] == 0)),
    )


def test_samples_are_uniform_over_the_valid_rows():
    drawn = np.asarray(data.sample(KEY, filled(4), 8000).obs[:, 0])
    counts = np.bincount(drawn.astype(int), minlength=4)
    assert np.all(np.abs(counts - 2000) < 6 * np.sqrt(2000))


def test_windows_are_consecutive_and_mark_where_episodes_begin():
    replay = filled(13, capacity=8, ends=(7, 9))  # rows 5..12 remain; episodes begin at 8 and 10
    windows = data.sample_sequences(KEY, replay, 200, 4)
    times = np.asarray(windows.transition.obs[..., 0])
    assert np.all(np.diff(times, axis=1) == 1), "a window crosses the place written last"
    assert set(times[:, 0].tolist()) == {5, 6, 7, 8, 9}
    begins = np.isin(times, [8, 10])
    begins[:, 0] = True
    np.testing.assert_array_equal(windows.is_first, begins)
    assert windows.mask.all()


def test_the_newest_windows_lie_in_the_last_rows():
    replay = filled(13, capacity=8)  # rows 5..12 remain
    times = np.asarray(data.sample_sequences(KEY, replay, 100, 3, newest=4).transition.obs[..., 0])
    assert np.all(np.diff(times, axis=1) == 1)
    assert set(times[:, 0].tolist()) == {9, 10}
    with_few = data.sample_sequences(KEY, filled(2), 5, 3, newest=4)
    np.testing.assert_array_equal(with_few.mask, np.tile([True, True, False], (5, 1)))


def test_an_episode_shorter_than_the_window_is_masked():
    windows = data.sample_sequences(KEY, filled(2), 5, 4)
    np.testing.assert_array_equal(windows.mask, np.tile([True, True, False, False], (5, 1)))


def test_a_window_longer_than_the_ring_is_refused():
    with pytest.raises(ValueError, match="length must be at most the replay's capacity 8, got 9"):
        data.sample_sequences(KEY, filled(3), 2, 9)


def test_images_and_discrete_actions_keep_their_types():
    spec = Spec("pixels", (4, 4, 3), Discrete(5), 10, obs_dtype="uint8")
    replay = data.empty(spec, 3)
    image = jnp.full((1, 4, 4, 3), 200, jnp.uint8)
    flag = jnp.zeros(1, bool)
    rows, _ = data.rows(data.add(replay, Transition(image, jnp.asarray([3]), jnp.ones(1), image, flag, flag)))
    assert rows.obs.dtype == jnp.uint8
    assert rows.action.dtype == jnp.int32
    assert (rows.obs[0, 0, 0, 0], rows.action[0]) == (200, 3)


def log(**changes):
    arrays = {
        "obs": np.arange(8.0).reshape(4, 2),
        "action": np.zeros((4, 1)),
        "reward": np.ones(4),
        "next_obs": np.arange(8.0).reshape(4, 2) + 2,
        "terminated": np.asarray([False, True, False, False]),
    }
    return arrays | changes


def test_logged_arrays_become_a_replay():
    replay = data.from_arrays(**log(), capacity=6)
    rows, count = data.rows(replay)
    assert count == 4
    np.testing.assert_array_equal(rows.obs[:4], log()["obs"])
    np.testing.assert_array_equal(replay.is_first[:4, 0], [True, False, True, False])
    assert data.rows(data.add(replay, row(9.0)))[1] == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": np.asarray([1.0, np.nan, 1.0, 1.0])}, "reward must be finite: row 1, reward is nan"),
        ({"obs": np.asarray([[0, 1], [2, 3], [4, np.inf], [6, 7]])}, r"obs must be finite: row 2, obs\[1\] is inf"),
        ({"reward": np.ones(3)}, r"reward must have as many rows as obs \(4\), got 3"),
        ({"obs": np.zeros((0, 2))}, "obs must have at least one row, got none"),
        ({"next_obs": np.zeros((4, 3))}, r"next_obs has shape \(4, 3\), but obs says \(4, 2\)"),
        ({"capacity": 3}, "capacity must be at least 4, got 3"),
    ],
)
def test_bad_logs_are_refused_with_row_and_column(changes, message):
    with pytest.raises(ValueError, match=message):
        data.from_arrays(**log(**changes))


def test_add_traces_once():
    chex.clear_trace_counter()
    add = jax.jit(chex.assert_max_traces(data.add, n=1))
    replay = data.empty(SPEC, 4)
    for t in range(6):
        replay = add(replay, row(float(t)))
    assert int(replay.size) == 4


sample_places = jax.jit(data.sample_places, static_argnums=2)


def with_broken(share, capacity=64, size=60):
    """A ring of one environment, ``size`` rows of which about ``share`` are broken."""
    valid = (jax.random.uniform(jax.random.key(3), (capacity, 1)) >= share) & (jnp.arange(capacity) < size)[:, None]
    return data.empty(SPEC, capacity)._replace(valid=valid, size=jnp.int32(size))


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.97])
def test_places_are_uniform_among_valid_rows_however_many_are_broken(share):
    """Chi-square against the exact shares; with 97 % broken most rows take the way of the exact search."""
    replay = with_broken(share)
    places = np.asarray(sample_places(KEY, replay, 6000))
    valid = np.flatnonzero(replay.valid)
    assert set(places.tolist()) <= set(valid.tolist())
    wanted = 6000 / len(valid)
    statistic = np.sum((np.bincount(places, minlength=64)[valid] - wanted) ** 2) / wanted
    freedom = len(valid) - 1
    assert statistic < freedom + 5 * np.sqrt(2 * freedom) + 1e-9


def test_a_replay_of_broken_rows_alone_still_answers():
    np.testing.assert_array_equal(sample_places(KEY, with_broken(1.0), 6000), 0)


def test_places_name_the_rows_that_are_sampled():
    replay = filled(6, num_envs=3, broken=(2,))
    places = data.sample_places(KEY, replay, 40)
    jax.tree.map(np.testing.assert_array_equal, data.take(replay, places), data.sample(KEY, replay, 40))
    np.testing.assert_array_equal(data.take(replay, jnp.asarray([4])).obs, [[1, 1]])  # second row, second environment


def test_starts_are_the_first_rows_of_episodes():
    replay = filled(7, ends=(2, 4), broken=(3,))
    # Episodes begin at rows 0, 3 (broken: not drawn), 4 (after the broken row) and 5.
    drawn = np.asarray(data.sample_starts(KEY, replay, 300)[:, 0])
    assert set(drawn.tolist()) == {0, 4, 5}
    assert np.all(np.bincount(drawn.astype(int))[[0, 4, 5]] > 70)


def test_a_limited_ring_uses_its_first_places_and_grows():
    """Limits 2, then 4, of a capacity of 6: the ring comes round, goes on behind its rows, and comes round again."""
    replay, seen = data.empty(SPEC, 6, 1), []
    for t, limit in enumerate([2, 2, 2, 2, 4, 4, 4]):
        replay = data.add(replay, row(t), True, jnp.int32(limit))
        rows, count = data.rows(replay)
        seen.append(np.asarray(rows.obs[: int(count), 0]).astype(int).tolist())
    assert seen == [[0], [0, 1], [2, 1], [2, 3], [2, 3, 4], [2, 3, 4, 5], [6, 3, 4, 5]]


def seen_by(replay: data.Replay) -> list[float]:
    rows, count = data.rows(replay)
    return sorted(np.asarray(rows.obs[:count, 0]).tolist())


@pytest.mark.parametrize("count", [5, 8, 11])
def test_the_newest_rows_are_kept_and_the_others_forgotten(count):
    # Eleven rows have come round a ring of eight; five leave it half empty.
    replay = filled(count)
    forgotten = data.forget(KEY, replay, 3)
    assert seen_by(forgotten) == [count - 3.0, count - 2.0, count - 1.0]
    assert set(np.asarray(data.sample(KEY, forgotten, 50).obs[:, 0])) == {count - 3.0, count - 2.0, count - 1.0}
    windows = data.sample_sequences(KEY, forgotten, 40, 3)
    kept = np.asarray(windows.mask)
    assert np.all(np.asarray(windows.transition.obs[..., 0])[kept] >= count - 3)
    assert bool(forgotten.is_first[(count - 3) % 8, 0])
    assert not bool(forgotten.is_first[(count - 2) % 8, 0])
    assert seen_by(data.forget(KEY, replay, 8)) == seen_by(replay)
    assert seen_by(data.add(data.forget(KEY, replay, 0), row(50.0))) == [50.0]


def test_a_share_of_the_old_rows_stays():
    replay = data.empty(SPEC, 4000)
    replay = replay._replace(valid=jnp.ones_like(replay.valid), size=jnp.asarray(4000))
    left = jax.vmap(lambda key: data.forget(key, replay, 1000, 0.25).valid)(jax.random.split(KEY, 4))
    assert bool(left[:, 3000:].all())
    np.testing.assert_allclose(jnp.mean(left[:, :3000]), 0.25, atol=0.02)  # 5 standard errors of 0.004


def test_the_newest_rows_in_their_order():
    rows, valid = data.newest(filled(11, capacity=8, num_envs=2, broken=(9,)), 4)
    np.testing.assert_array_equal(rows.obs[[0, 1, 3], 0, 0], [7, 8, 10])
    np.testing.assert_array_equal(valid[:, 1], [True, True, False, True])
    rows, valid = data.newest(filled(2), 4)  # there are but two
    np.testing.assert_array_equal(valid[:, 0], [False, False, True, True])
    np.testing.assert_array_equal(rows.obs[2:, 0, 0], [0, 1])
    assert not bool(data.newest(filled(0), 2)[1].any())
