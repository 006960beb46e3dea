"""Returns over several steps by hand: across an end, a time limit, a broken row, the newest row, the ring's border."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import data
from jmbrl.types import Continuous, Spec, Transition

SPEC = Spec("toy", (1,), Continuous((-1.0,), (1.0,)), 10)


def ring(count, capacity=8, terminated=(), truncated=(), broken=(), num_envs=1):
    """Row ``t``: observation ``t``, successor ``t + 0.5``, reward ``10^t``, ten times that in the other environment."""
    replay = data.empty(SPEC, capacity, num_envs)
    scale = 10.0 ** jnp.arange(num_envs)
    for t in range(count):
        obs = jnp.full((num_envs, 1), float(t))
        flag = lambda where, t=t: jnp.full(num_envs, t in where)  # noqa: E731
        rows = Transition(obs, 0 * obs, 10.0**t * scale, obs + 0.5, flag(terminated), flag(truncated))
        replay = data.add(replay, rows, t not in broken)
    return replay


def drawn(replay, places, steps=3, gamma=0.5):
    return jax.jit(data.n_step, static_argnums=2)(replay, jnp.asarray(places), steps, gamma)


def test_three_steps_by_hand():
    # 1 + 10/2 + 100/4 = 31, then half of half of a half of the value at the third row's successor.
    found = drawn(ring(5), [0])
    np.testing.assert_allclose(found.rows.reward, [31.0])
    np.testing.assert_allclose(found.discount, [0.125])
    np.testing.assert_array_equal(found.rows.obs[:, 0], [0.0])
    np.testing.assert_array_equal(found.rows.next_obs[:, 0], [2.5])
    np.testing.assert_array_equal(found.weight, [1.0])


def test_a_sum_ends_with_the_episode():
    # Row 1 terminates: 1 + 10/2 = 6 and nothing after it. Row 2 begins anew.
    found = drawn(ring(5, terminated=(1,)), [0, 1, 2])
    np.testing.assert_allclose(found.rows.reward, [6.0, 10.0, 100 + 500 + 2500])
    np.testing.assert_array_equal(found.rows.terminated, [True, True, False])
    np.testing.assert_array_equal(found.rows.next_obs[:, 0], [1.5, 1.5, 4.5])


def test_a_time_limit_shortens_the_sum_and_bootstraps_from_the_true_successor():
    found = drawn(ring(5, truncated=(1,)), [0, 1])
    np.testing.assert_allclose(found.rows.reward, [6.0, 10.0])
    np.testing.assert_allclose(found.discount, [0.25, 0.5])
    np.testing.assert_array_equal(found.rows.terminated, [False, False])
    np.testing.assert_array_equal(found.rows.truncated, [True, True])
    np.testing.assert_array_equal(found.rows.next_obs[:, 0], [1.5, 1.5])


def test_the_newest_row_and_a_broken_one_end_a_sum():
    found = drawn(ring(5, broken=(2,)), [1, 3, 4])
    np.testing.assert_allclose(found.rows.reward, [10.0, 1000 + 5000, 10_000])
    np.testing.assert_allclose(found.discount, [0.5, 0.25, 0.5])


def test_a_ring_that_was_written_over_is_read_in_order_of_time():
    # Six rows in a ring of four: places 0 and 1 hold rows 4 and 5, the oldest row is 2. After row 5 comes nothing.
    found = drawn(ring(6, capacity=4), [3, 0, 1, 2])
    np.testing.assert_array_equal(found.rows.obs[:, 0], [3, 4, 5, 2])
    np.testing.assert_allclose(found.rows.reward, [1e3 + 5e3 + 25e3, 1e4 + 5e4, 1e5, 100 + 500 + 2500])
    np.testing.assert_array_equal(found.rows.next_obs[:, 0], [5.5, 5.5, 5.5, 4.5])


def test_environments_keep_apart():
    found = drawn(ring(3, num_envs=2), [0, 1], steps=2)  # places 0 and 1: both environments' first rows
    np.testing.assert_allclose(found.rows.reward, [6.0, 60.0])


def test_one_step_is_the_row_itself():
    replay = ring(5, terminated=(1,))
    found = drawn(replay, [0, 1, 4], steps=1)
    jax.tree.map(np.testing.assert_array_equal, found.rows, data.take(replay, jnp.asarray([0, 1, 4])))
    np.testing.assert_allclose(found.discount, 0.5)


@pytest.mark.parametrize(
    ("steps", "gamma", "message"),
    [
        (0, 0.9, "steps must be at least 1, got 0"),
        (9, 0.9, "steps must be at most 8, got 9"),
        (1, 1.5, "gamma must be at most 1.0, got 1.5"),
    ],
)
def test_bad_arguments_are_named(steps, gamma, message):
    with pytest.raises(ValueError, match=message):
        data.n_step(ring(2), jnp.zeros(1, jnp.int32), steps, gamma)
