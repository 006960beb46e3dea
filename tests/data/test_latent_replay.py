"""Every window is given once while it is fresh, with the belief of its first row; beliefs are written back."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import data
from jmbrl.types import Array, Continuous, Spec, Transition

SPEC = Spec("toy", (1,), Continuous((-1.0,), (1.0,)), 10)
KEY = jax.random.key(0)
BROKEN, LAST = 1, 2


class Belief(NamedTuple):
    deter: Array
    stoch: Array


NONE = Belief(jnp.zeros(2), jnp.zeros((), jnp.bfloat16))


def fast(function, **options):
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0}, **options)


sample = fast(data.sample_latent, static_argnums=(2, 3, 4))


@fast
def believed_anew(latent, window, broken):
    """Frames and places of windows, and the replay with beliefs ``10 (b + 1) + f`` after frame ``f``; one is broken."""
    seen, place = data.frames(window.sequence)
    count, length = seen.mask.shape
    frame = 10.0 * (jnp.arange(count)[:, None] + 1) + jnp.arange(length)
    half = jnp.where(jnp.arange(length) == broken, jnp.nan, frame)
    new = Belief(jnp.stack([frame, half], axis=-1), frame)
    return seen, place, data.write_latent(latent, window, place, new)


def appended(latent, t, kind):
    """A row of time ``t``: ``obs = 100 env + t``, and after it the belief ``(obs + 0.5, t), env``."""
    envs = jnp.arange(latent.replay.num_envs)
    obs, flag = 100.0 * envs + t, jnp.zeros(envs.shape, bool)
    rows = Transition(obs[:, None], obs[:, None], jnp.where(kind == BROKEN, jnp.nan, obs), obs[:, None] + 1, flag, flag)
    seen = Belief(jnp.stack([obs + 0.5, jnp.full(obs.shape, t)], axis=1), envs.astype(jnp.float32))
    return data.add_latent(latent, seen, rows._replace(truncated=flag | (kind == LAST)), ~flag)


add = fast(appended)


def lived(count, num_envs=1, ends=None, broken=None, served=0):
    """A ring of 8 rows after ``count``."""
    latent = data.empty_latent(SPEC, NONE, 8, num_envs)
    for t in range(count):
        latent = add(latent, np.float32(t), np.int32(LAST if t == ends else BROKEN if t == broken else 0))
    return latent._replace(served=jnp.int32(served))


def observed(window):
    return np.asarray(window.sequence.transition.obs[..., 0]).astype(int)


def test_context_and_places_by_hand():
    """11 rows of a ring of 8, an episode ends at row 4: rows 3..10 remain, row 8 at place 0."""
    latent = lived(11, ends=4)
    assert latent.written == 11
    _, window = sample(KEY, latent, 40, 4, False)
    rows = observed(window)
    assert set(rows[:, 0].tolist()) == {3, 4, 5, 6, 7}
    np.testing.assert_array_equal(rows, rows[:, :1] + np.arange(4))
    np.testing.assert_array_equal(window.rows, rows % 8)
    np.testing.assert_array_equal(window.envs, 0)
    np.testing.assert_array_equal(window.sequence.is_first, rows == 5)  # also in front: an episode begins, or none does
    assert window.sequence.mask.all()
    np.testing.assert_array_equal(window.context.deter, np.stack([rows[:, 0] + 0.5, rows[:, 0]], axis=1))
    assert window.context.stoch.dtype == jnp.bfloat16


def test_uniform_windows_are_those_of_sample_sequences():
    latent = lived(7, 2, ends=2)
    _, window = sample(KEY, latent, 3, 3, False)
    wanted = fast(data.sample_sequences, static_argnums=(2, 3))(KEY, latent.replay, 3, 3)
    jax.tree.map(np.testing.assert_array_equal, window.sequence.transition, wanted.transition)
    np.testing.assert_array_equal(window.sequence.mask, wanted.mask)
    np.testing.assert_array_equal(window.sequence.is_first[:, 1:], wanted.is_first[:, 1:])
    np.testing.assert_array_equal(window.context.deter[:, 0], np.asarray(wanted.transition.obs)[:, 0, 0] + 0.5)
    np.testing.assert_array_equal(window.context.stoch, window.envs)


def test_each_complete_window_is_given_once_in_order_over_environments():
    """7 rows of 2 environments: windows of 3 begin at rows 0 and 3, row 6 waits until 2 more rows complete it."""
    latent, window = sample(KEY, lived(7, 2), 3, 3)
    np.testing.assert_array_equal(observed(window), [[0, 1, 2], [100, 101, 102], [3, 4, 5]])
    assert latent.served == 3
    latent, window = sample(KEY, latent, 3, 3)
    np.testing.assert_array_equal(observed(window)[0], [103, 104, 105])
    assert latent.served == 4
    _, uniform = sample(KEY, latent, 3, 3, False)
    np.testing.assert_array_equal(observed(window)[1:], observed(uniform)[1:])
    latent, window = sample(KEY, latent, 3, 3)  # nothing is new: all are uniform
    np.testing.assert_array_equal(observed(window), observed(uniform))
    latent, window = sample(KEY, lived(9, 2, served=latent.served), 3, 3)
    np.testing.assert_array_equal(observed(window)[:2], [[6, 7, 8], [106, 107, 108]])
    assert latent.served == 6


def test_overwritten_windows_are_passed_over():
    """15 rows of a ring of 8: rows 7..14 remain, of the windows of 3 those from 9 and 12 on. The queue stood at 2."""
    latent, window = sample(KEY, lived(15, served=2), 1, 3)
    np.testing.assert_array_equal(observed(window), [[9, 10, 11]])
    assert latent.served == 4
    latent, window = sample(KEY, latent, 1, 3)
    np.testing.assert_array_equal(observed(window), [[12, 13, 14]])
    assert latent.served == 5
    latent, _ = sample(KEY, latent, 1, 3)
    assert latent.served == 5


def test_a_stream_drawn_as_it_arrives_is_given_whole():
    """More than twice round the ring, a window drawn after every row: each row of each environment comes once."""

    @fast
    def live(latent):
        def step(latent, t):
            latent = appended(latent, t, 0)
            after, window = data.sample_latent(KEY, latent, 1, 4)
            return after, (window.sequence.transition.obs[0, :, 0], after.served > latent.served)

        return jax.lax.scan(step, latent, jnp.arange(21.0))[1]

    windows, fresh = live(lived(0, 2))
    given = np.asarray(windows)[np.asarray(fresh)]
    wanted = np.arange(20).reshape(5, 1, 4) + np.asarray([[0], [100]])  # windows, environments, rows
    np.testing.assert_array_equal(given, wanted.reshape(10, 4))


def test_while_no_window_is_complete_the_tail_is_masked():
    latent, window = sample(KEY, lived(2, 2), 3, 3)
    np.testing.assert_array_equal(window.sequence.mask, np.tile([True, True, False], (3, 1)))
    np.testing.assert_array_equal(window.context.deter[:, 1], 0)
    assert latent.served == 0
    assert not np.any(sample(KEY, lived(0, 2), 3, 3)[1].sequence.mask)


def test_seeds_side_by_side_are_as_alone():
    alone = [lived(9, 2), lived(7, 2, ends=4, served=3)]
    both = jax.tree.map(lambda *x: np.stack(x), *alone)
    keys = jax.random.split(KEY, 2)
    together = fast(jax.vmap(lambda key, latent: data.sample_latent(key, latent, 3, 3)))(keys, both)
    for i in range(2):
        lane = jax.tree.map(lambda x, i=i: np.asarray(x)[i], together)
        jax.tree.map(np.testing.assert_array_equal, lane, sample(keys[i], alone[i], 3, 3))


def test_beliefs_are_written_back_to_their_rows_by_hand():
    """Rows 0..3, an episode begins at row 2: row 1's next_obs is frame 2, row 2's own obs frame 3, row 3's frame 4."""
    latent, window = sample(KEY, lived(6, ends=1), 1, 4)
    seen, _, after = believed_anew(latent, window, -1)
    np.testing.assert_array_equal(seen.obs[0, :, 0], [0, 1, 2, 2, 3])
    np.testing.assert_array_equal(
        after.beliefs.deter[:, 0], [[0.5, 0], [11, 11], [13, 13], [14, 14], [4.5, 4], [5.5, 5], [0, 0], [0, 0]]
    )
    np.testing.assert_array_equal(after.beliefs.stoch[:, 0], [0, 11, 13, 14, 0, 0, 0, 0])
    assert after.beliefs.stoch.dtype == jnp.bfloat16


def test_nothing_is_written_to_rows_that_are_masked_or_pushed_out():
    """Row 1 is broken and episodes begin at rows 2 and 3, so that of rows 0..3 the last has no frame."""
    latent, window = sample(KEY, lived(5, broken=1, ends=2), 1, 4)
    np.testing.assert_array_equal(latent.beliefs.deter[:4, 0], [[0.5, 0], [0, 0], [2.5, 2], [3.5, 3]])
    _, place, after = believed_anew(latent, window, -1)
    np.testing.assert_array_equal(place, [[0, 1, 3, 5]])
    np.testing.assert_array_equal(after.beliefs.deter[:4, 0], [[0.5, 0], [0, 0], [13, 13], [3.5, 3]])
    np.testing.assert_array_equal(after.beliefs.stoch[:, 0], [0, 0, 13, 0, 0, 0, 0, 0])


def test_a_belief_that_is_not_finite_is_not_written_back():
    latent, window = sample(KEY, lived(6, ends=1), 1, 4)
    _, _, after = believed_anew(latent, window, 3)
    np.testing.assert_array_equal(after.beliefs.deter[:4, 0], [[0.5, 0], [11, 11], [2.5, 2], [14, 14]])
    np.testing.assert_array_equal(after.beliefs.stoch[:4, 0], [0, 11, 0, 14])


def test_each_environment_gets_its_own_beliefs_back():
    """Rows 3..10 remain. The queue gives rows 3..5 of environments 0 and 1, then 6..8 of environment 0."""
    latent, window = sample(KEY, lived(11, 2), 3, 3)
    _, _, after = believed_anew(latent, window, -1)
    # Row t lies at place t % 8; the first row of each window keeps its own.
    np.testing.assert_array_equal(after.beliefs.stoch[:, 0], [32, 0, 0, 0, 11, 12, 0, 31])
    np.testing.assert_array_equal(after.beliefs.stoch[:, 1], [1, 1, 1, 1, 21, 22, 1, 1])


def test_rings_are_written_in_place():
    """Given away, a ring is not copied: adding, drawing and writing back need less than a ring of space in between."""
    latent = jax.eval_shape(lambda: data.empty_latent(SPEC, Belief(jnp.zeros(64), jnp.zeros(64)), 5000))

    def turn(latent, new):
        latent = data.add_latent(latent, new, jax.tree.map(lambda x: x[0], latent.replay.data))
        latent, window = data.sample_latent(KEY, latent, 2, 3)
        anew = jax.tree.map(lambda x: jnp.ones((2, 4, *x.shape[1:])), new)
        return data.write_latent(latent, window, data.frames(window.sequence)[1], anew)

    new = Belief(np.ones((1, 64), np.float32), np.ones((1, 64), np.float32))
    memory = fast(turn, donate_argnums=0).lower(latent, new).compile().memory_analysis()
    assert memory.alias_size_in_bytes >= 2 * 5000 * 64 * 4
    assert memory.temp_size_in_bytes < 5000 * 64 * 4


def test_a_belief_that_is_not_finite_is_not_kept():
    latent = data.empty_latent(SPEC, NONE, 8, 2)
    flag, column = np.zeros(2, bool), np.ones((2, 1), np.float32)
    seen = Belief(jnp.asarray([[jnp.inf, 1.0], [1.0, 1.0]]), jnp.ones(2))
    latent = fast(data.add_latent)(latent, seen, Transition(column, column, column[:, 0], column, flag, flag))
    np.testing.assert_array_equal(latent.beliefs.deter[0], [[0, 0], [1, 1]])
    np.testing.assert_array_equal(latent.beliefs.stoch[0], [0, 1])
    assert np.all(latent.replay.valid[0])


@pytest.mark.parametrize(
    ("batch", "length", "message"),
    [
        (0, 4, "batch must be at least 1, got 0"),
        (2, 0, "length must be at least 1, got 0"),
        (2, 9, "length must be at most the replay's capacity 8, got 9"),
    ],
)
def test_impossible_windows_are_refused(batch, length, message):
    with pytest.raises(ValueError, match=message):
        data.sample_latent(KEY, data.empty_latent(SPEC, NONE, 8), batch, length)


def test_an_empty_ring_is_refused():
    with pytest.raises(ValueError, match="capacity must be at least 1, got 0"):
        data.empty_latent(SPEC, NONE, 0)
