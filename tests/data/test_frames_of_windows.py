"""Every observation of a window appears once, with what led to it."""

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import data
from jmbrl.types import Sequence, Transition

frames = jax.jit(data.frames, compiler_options={"xla_backend_optimization_level": 0})


def window(obs, next_obs, action, reward, terminated, is_first, mask) -> Sequence:
    """One window from lists, one entry a row."""
    flag = lambda x: np.asarray([x], bool)  # noqa: E731
    real = lambda x: np.asarray([x], np.float32)  # noqa: E731
    column = lambda x: real(x)[..., None]  # noqa: E731
    rows = Transition(
        column(obs), column(action), real(reward), column(next_obs), flag(terminated), np.zeros((1, len(mask)), bool)
    )
    return Sequence(rows, flag(is_first), flag(mask))


def test_two_episodes_in_one_window():
    """Observations 10, 11, 12 (the end), then 50, 51, 52: one more than fits."""
    batch = window(
        obs=[10, 11, 50, 51],
        next_obs=[11, 12, 51, 52],
        action=[0.1, 0.2, 0.3, 0.4],
        reward=[1, 2, 3, 4],
        terminated=[False, True, False, False],
        is_first=[True, False, True, False],
        mask=[True] * 4,
    )
    seen, place = frames(batch)
    np.testing.assert_array_equal(seen.obs[0, :, 0], [10, 11, 12, 50, 51])
    np.testing.assert_array_equal(seen.action[0, :, 0], np.float32([0, 0.1, 0.2, 0, 0.3]))
    np.testing.assert_array_equal(seen.reward[0], [0, 1, 2, 0, 3])
    np.testing.assert_array_equal(seen.terminated[0], [False, False, True, False, False])
    np.testing.assert_array_equal(seen.is_first[0], [True, False, False, True, False])
    assert np.all(seen.mask)
    np.testing.assert_array_equal(place[0], [0, 1, 3, 4])


def test_a_window_that_goes_on_and_breaks():
    """It begins inside an episode; its second row is broken, so that the third begins a new one."""
    batch = window(
        obs=[10, 0, 50],
        next_obs=[11, 0, 51],
        action=[0.1, 0, 0.3],
        reward=[1, 0, 3],
        terminated=[False] * 3,
        is_first=[False, False, True],
        mask=[True, False, True],
    )
    seen, place = frames(batch)
    np.testing.assert_array_equal(seen.obs[0, :, 0], [10, 11, 0, 50])
    np.testing.assert_array_equal(seen.reward[0], [0, 1, 0, 0])
    np.testing.assert_array_equal(seen.is_first[0], [False, False, False, True])
    np.testing.assert_array_equal(seen.mask[0], [True, True, False, True])
    np.testing.assert_array_equal(place[0], [0, 1, 3])


def one_after_another(batch: Sequence) -> tuple[data.Frames, np.ndarray]:
    """The same in a loop over windows and rows."""
    rows, first, mask = jax.tree.map(np.asarray, batch)
    count, length = mask.shape
    shown, places = [], np.zeros((count, length), int)
    for b in range(count):
        out = []
        for t in range(length):
            if t == 0 or first[b, t]:
                nothing = np.zeros_like(rows.action[b, t])
                out.append((rows.obs[b, t], nothing, 0.0, False, first[b, t], mask[b, t]))
            places[b, t] = len(out) - 1
            out.append(
                (rows.next_obs[b, t], rows.action[b, t], rows.reward[b, t], rows.terminated[b, t], False, mask[b, t])
            )
        shown.append([np.stack(leaf) for leaf in zip(*out[: length + 1], strict=True)])
    return data.Frames(*(np.stack(leaf) for leaf in zip(*shown, strict=True))), places


def test_random_flags_and_images_agree_with_a_loop():
    """200 windows of 7 rows whose flags are any at all; the numbers tell every observation and action apart."""
    count, length = 200, 7
    rng = np.random.default_rng(0)
    number = np.arange(count * length).reshape(count, length)
    image = lambda n: np.stack([n % 256, n // 256, n % 7, n % 11], -1).astype(np.uint8).reshape(*n.shape, 2, 2)  # noqa: E731
    rows = Transition(
        image(number), (number + 1).astype(np.int32), rng.normal(size=number.shape).astype(np.float32),
        image(number + 5000), rng.random(number.shape) < 0.3, np.zeros(number.shape, bool),
    )  # fmt: skip
    chance = rng.random((count, 1))  # from windows of one episode to windows of single rows
    batch = Sequence(rows, rng.random(number.shape) < chance, rng.random(number.shape) < 0.8)
    seen, place = frames(batch)
    wanted, places = one_after_another(batch)
    jax.tree.map(np.testing.assert_array_equal, seen, wanted)
    np.testing.assert_array_equal(place, places)
    assert seen.obs.dtype == jnp.uint8
    assert seen.action.dtype == jnp.int32
    assert (places > length).any(), "no row was pushed out"
