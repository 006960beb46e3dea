"""Smaller images against numbers by hand and Pillow's; World Models' view of Gymnasium's CarRacing."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jmbrl import envs
from jmbrl.types import Continuous

KEY = jax.random.key(0)


def shows(images, max_steps=2, action=None):
    """An environment that shows ``images[t]``, ``uint8[T, H, W, C]``, at step ``t``."""
    images = jnp.asarray(images, jnp.uint8)

    def step(key, t, action):
        return t + 1, images[t + 1], action[-1], False

    return envs.from_functions(
        lambda key: (jnp.int32(0), images[0]), step, action=action or Continuous((-1.0,), (1.0,)), max_steps=max_steps,
        name="shows", obs_shape=images.shape[1:], obs_dtype="uint8",
    )  # fmt: skip


def first(env):
    return np.asarray(jax.jit(env.reset)(KEY)[1])


def test_half_the_size_by_hand():
    row = np.array([0, 70, 140, 210])
    # A triangle two pixels wide to each side of the new pixel's middle: (0.75, 0.75, 0.25) / 1.75 at the edge.
    small = first(envs.frames(shows([np.tile(row, (4, 1))[..., None]]), size=(4, 2)))
    np.testing.assert_array_equal(small[..., 0], [[50, 160]] * 4)
    tall = first(envs.frames(shows([np.tile(row, (4, 1)).T[..., None]]), size=(2, 4)))
    np.testing.assert_array_equal(tall[..., 0], [[50] * 4, [160] * 4])


def test_resizing_is_pillows():
    image = np.random.default_rng(0).integers(0, 256, (84, 96, 3), np.uint8)
    ours = first(envs.frames(shows([image]), size=(64, 64)))
    theirs = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR))
    assert ours.dtype == np.uint8
    np.testing.assert_allclose(ours.astype(int), theirs.astype(int), atol=1)


def test_crop_and_grey_by_hand():
    image = np.zeros((5, 6, 3), np.uint8)
    image[1:4, 2:5] = [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255] * 3, [100] * 3, [0] * 3], [[10, 20, 30]] * 3]
    cut = envs.frames(shows([image]), size=(3, 3), crop=(1, 1, 2, 1))
    np.testing.assert_array_equal(first(cut), image[1:4, 2:5])
    grey = envs.frames(shows([image]), size=(3, 3), crop=(1, 1, 2, 1), grey=True)
    assert grey.spec.obs_shape == (3, 3, 1)
    np.testing.assert_array_equal(first(grey)[..., 0], [[76, 150, 29], [255, 100, 0], [18, 18, 18]])
    np.testing.assert_array_equal(first(envs.frames(shows([image[..., :1]]), size=(5, 6), grey=True)), image[..., :1])


def test_the_contract_for_copies_and_what_is_kept():
    images = np.arange(3)[:, None, None, None] * np.full((4, 4, 3), 40)
    env = envs.frames(shows(images), size=(2, 2))._replace(close=lambda: None)
    copies = env.vector(2)
    assert copies.spec == env.spec
    assert env.reward_fn is env.termination_fn is env.cells is None
    states, _ = jax.jit(copies.reset)(KEY)
    step = jax.jit(copies.step)
    for t, cut in ((1, False), (2, True)):
        states, seen = step(KEY, states, jnp.zeros((2, 1)))
        np.testing.assert_array_equal(seen.obs, np.full((2, 2, 2, 3), 40 * t))
        np.testing.assert_array_equal(seen.truncated, [cut] * 2)
    _, obs = jax.jit(copies.restart)(KEY, jnp.array([True, False]), states, seen.obs)
    np.testing.assert_array_equal(obs[:, 0, 0, 0], [0, 80])
    picture = env.render(np.asarray(seen.obs[0]))
    assert picture.shape == (256, 256, 3)
    assert np.all(picture == 80)
    assert envs.frames(shows(np.zeros((1, 4, 4, 2))), size=(2, 2)).render is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (0, 2)}, r"size\[i\] must be at least 1, got 0"),
        ({"size": 64}, "size must have 2 entries, got 64"),
        ({"crop": (2, 2, 0, 0)}, r"crop of shows must leave something of 4 x 4 pixels, got \(2, 2, 0, 0\)"),
        ({"crop": (1, 1)}, r"crop must have 4 entries, got \(1, 1\)"),
        ({"crop": (-1, 0, 0, 0)}, r"crop\[i\] must be at least 0, got -1"),
        ({"grey": True}, "grey needs images of 1 or 3 channels, but shows has 2"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        envs.frames(shows(np.zeros((1, 4, 4, 2))), **options)


def test_only_images_of_bytes():
    with pytest.raises(
        ValueError, match=r"frames needs uint8 images \[H, W, C\], but cartpole_swingup has float32\[5\]"
    ):
        envs.frames(envs.make("cartpole_swingup"))
    with pytest.raises(ValueError, match="car_racing_frames needs gymnasium:CarRacing-v3"):
        envs.car_racing_frames(envs.make("car_racing"))


class CarLike:
    """CarRacing's spaces; every row shows its number, and rewards tell the brake that arrived."""

    observation_space = gymnasium.spaces.Box(0, 255, (96, 96, 3), np.uint8)
    action_space = gymnasium.spaces.Box(np.array([-1.0, 0.0, 0.0], np.float32), np.ones(3, np.float32))

    def _image(self):
        return np.broadcast_to(np.arange(96, dtype=np.uint8)[:, None, None], (96, 96, 3))

    def reset(self, seed=None):
        return self._image(), {}

    def step(self, action):
        steer, gas, brake = (float(a) for a in action)
        return self._image(), 100 * round(steer, 3) + 10 * gas + brake, False, False, {}


def test_the_papers_view_of_car_racing():
    env = envs.car_racing_frames(envs.from_gymnasium(CarLike, max_steps=5))
    assert env.spec.obs_shape == (64, 64, 3)
    assert env.spec.action == Continuous((-1.0, 0.0, -1.0), (1.0, 1.0, 1.0))
    assert env.spec.host
    copies = env.vector(3)
    states, obs = jax.jit(copies.reset)(KEY)
    # Rows 0 to 83 of 96 in 64: row i shows the place (i + 1/2) 84 / 64 - 1/2.
    np.testing.assert_allclose(obs[0, 2:-2, 0, 0], np.arange(2.5, 62) * 84 / 64 - 0.5, atol=0.51)
    assert int(obs.max()) <= 83, "nothing of the bar"
    # steer t, gas (t + 1) / 2, brake max(t, 0)
    actions = jnp.array([[0.5, 0.0, -1.0], [-1.0, -1.0, 0.25], [0.0, 1.0, 1.0]])
    _, seen = jax.jit(copies.step)(KEY, states, actions)
    np.testing.assert_allclose(seen.reward, [50 + 5 + 0, -100 + 0 + 0.25, 0 + 10 + 1], atol=1e-4)
    state, _ = jax.jit(env.reset)(KEY)
    assert float(jax.jit(env.step)(KEY, state, actions[1])[1].reward) == pytest.approx(-99.75)
    env.close()


def test_gymnasiums_own_car_racing():
    pytest.importorskip("Box2D")
    pytest.importorskip("pygame")
    env = envs.car_racing_frames(envs.make("gymnasium:CarRacing-v3", max_steps=3))
    step = jax.jit(env.step)
    state, obs = jax.jit(env.reset)(KEY)
    assert obs.shape == (64, 64, 3)
    assert obs.dtype == jnp.uint8
    rewards = []
    for _ in range(3):
        state, seen = step(KEY, state, jnp.array([0.0, 1.0, -1.0]))
        rewards.append(float(seen.reward))
    assert rewards[0] > 0, "the tiles under the car count at the first step"
    assert rewards[1:] == pytest.approx([-0.1, -0.1], abs=1e-4)
    assert bool(seen.truncated)
    env.close()
    with pytest.raises(ValueError, match="continuous actions, got gymnasium:CarRacing-v3"):
        envs.car_racing_frames(envs.make("gymnasium:CarRacing-v3", max_steps=3, continuous=False))
