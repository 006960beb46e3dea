"""Masks by hand, the chance of a flicker, pictures by their symmetries; tasks that need a memory."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import envs
from jmbrl.envs import spaces
from jmbrl.envs.native import pole_views
from jmbrl.types import Continuous, Discrete

KEY = jax.random.key(5)
FAST = {"xla_backend_optimization_level": 0}  # the numbers are the same, and compiling them is most of the time


def counting(image=False, max_steps=4):
    """``[t + 1, 10 (t + 1), 100 (t + 1)]`` at step ``t``, or a ``uint8[1, 2, 3]`` of it in each pixel."""
    tens = jnp.array([1, 10, 100])

    def observe(t):
        return jnp.tile(tens * jnp.minimum(t + 1, 2), (1, 2, 1)).astype(jnp.uint8) if image else tens * (t + 1.0)

    return envs.from_functions(
        lambda key: (jnp.int32(0), observe(0)),
        lambda key, t, action: (t + 1, observe(t + 1), t, False),
        action=Continuous((-1.0,), (1.0,)),
        max_steps=max_steps,
        name="counting",
        obs_shape=(1, 2, 3) if image else (3,),
        obs_dtype="uint8" if image else "float32",
        obs_names=() if image else ("one", "ten", "hundred"),
        reward_fn=lambda obs, action, next_obs: obs[..., 0] - 1,
        termination_fn=lambda obs, action, next_obs: obs[..., 0] < 0,
    )


def play(env, steps, num_envs=1, key=KEY):
    """First observations, and a run of random copies: ``(action, timestep, following)``, leaves ``[steps, ...]``."""
    copies = env.vector(num_envs)

    def body(carry, key):
        states, obs = carry
        key_act, key_step, key_restart = jax.random.split(key, 3)
        action = jax.vmap(lambda key: spaces.sample(key, env.spec.action))(jax.random.split(key_act, num_envs))
        states, timestep = copies.step(key_step, states, action)
        done = timestep.terminated | timestep.truncated
        states, obs = copies.restart(key_restart, done, states, timestep.obs)
        return (states, obs), (action, timestep, obs)

    first = copies.reset(key)
    return first[1], jax.lax.scan(body, first, jax.random.split(key, steps))[1]


def compiled(function, *arguments):
    return jax.jit(function, compiler_options=FAST)(*arguments)


# ---------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("keep", [(2, 0), ("hundred", "one"), ("hundred", 0)])
def test_a_masked_vector_by_hand(keep):
    env = envs.masked(counting(), keep)
    assert env.spec.obs_shape == (2,)
    assert env.spec.obs_names == ("hundred", "one")
    assert env.reward_fn is env.termination_fn is env.cells is env.render is None
    first, (_, timestep, following) = compiled(lambda: play(env, 5))
    np.testing.assert_array_equal(first[0], [100, 1])
    np.testing.assert_array_equal(timestep.obs[:, 0], [[200, 2], [300, 3], [400, 4], [500, 5], [200, 2]])
    np.testing.assert_array_equal(following[3, 0], [100, 1])
    np.testing.assert_array_equal(timestep.reward[:, 0], [0, 1, 2, 3, 0])


def test_a_masked_image_loses_channels():
    env = envs.masked(counting(image=True), keep=(2, 1))
    assert env.spec.obs_shape == (1, 2, 2)
    first, (_, timestep, _) = compiled(lambda: play(env, 1))
    np.testing.assert_array_equal(first[0], [[[100, 10]] * 2])
    np.testing.assert_array_equal(timestep.obs[0, 0], [[[200, 20]] * 2])
    assert timestep.obs.dtype == env.spec.obs_dtype == "uint8"


@pytest.mark.parametrize(
    ("keep", "said"),
    [
        ((), "at least one entry"),
        ((0, "one"), "each once"),
        ((3,), r"keep\[i\] must be at most 2, got 3"),
        (("two",), "counting, which has one, ten, hundred; got 'two'"),
        ("one", "sequence of numbers or names"),
        (1, "sequence of numbers or names"),
    ],
)
def test_bad_masks_are_refused(keep, said):
    with pytest.raises(ValueError, match=said):
        envs.masked(counting(), keep)


# --------------------------------------------------------------------------------------------- flicker


def binomial_bounds(n, p, tail=1e-4):
    """The central counts beyond which lies less than ``tail`` on either side, from the exact distribution."""
    below = np.cumsum([math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)])
    return int(np.argmax(below > tail)), int(np.argmax(below > 1 - tail))


@pytest.mark.parametrize(("image", "p"), [(False, 0.5), (True, 0.2)])
def test_how_often_observations_are_lost(image, p):
    env = envs.flickering(counting(image), p)
    assert env.spec == counting(image).spec
    assert env.reward_fn is env.termination_fn is env.cells is None
    (first, (_, timestep, following)), plain = compiled(
        lambda: (play(env, 16, num_envs=32), play(counting(image), 16, num_envs=32)[1][1].obs)
    )
    begun = np.asarray(following)[3::4]  # what the episodes after the first begin with
    for seen in (np.asarray(first), begun, np.asarray(timestep.obs)):
        seen = seen.reshape(-1, np.prod(env.spec.obs_shape, dtype=int))
        lost = np.all(seen == 0, axis=-1)
        np.testing.assert_array_equal(lost, np.any(seen == 0, axis=-1), "the whole observation, or nothing of it")
        low, high = binomial_bounds(len(lost), p)
        assert low <= lost.sum() <= high
    np.testing.assert_array_equal(np.where(np.asarray(timestep.obs) == 0, 0, plain), timestep.obs)
    np.testing.assert_array_equal(timestep.reward[:, 0], [0, 1, 2, 3] * 4)
    goes_on = np.arange(16) % 4 != 3
    np.testing.assert_array_equal(np.asarray(following)[goes_on], np.asarray(timestep.obs)[goes_on])


def test_flicker_is_drawn_from_the_key_and_for_each_copy():
    run = jax.jit(lambda key, p: play(envs.flickering(counting(), p), 8, 4, key), compiler_options=FAST)
    runs = [np.asarray(run(jax.random.key(seed), 0.5)[1][1].obs == 0) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])
    assert not np.array_equal(runs[0][:, 0], runs[0][:, 1])
    always, never = (run(KEY, p) for p in (1.0, 0.0))
    assert not np.any(always[0])
    assert not np.any(always[1][1].obs)
    np.testing.assert_array_equal(never[1][1].obs[:, 0, 0], [2, 3, 4, 5] * 2)
    for bad, said in ((1.5, "p must be at most 1.0"), (-0.1, "at least 0.0"), (math.nan, "p must be finite")):
        with pytest.raises(ValueError, match=said):
            envs.flickering(counting(), bad)


def test_host_environments_are_masked_flicker_and_are_drawn():
    env = envs.make("gymnasium:Pendulum-v1", max_steps=3)
    hidden = envs.flickering(envs.masked(env, keep=(0, 1)), 0.5)
    first, (_, timestep, _) = compiled(lambda: play(hidden, 8, num_envs=4))
    assert timestep.obs.shape == (8, 4, 2)
    seen = np.concatenate([np.asarray(first), np.asarray(timestep.obs).reshape(-1, 2)])
    lengths = np.linalg.norm(seen, axis=-1)
    assert 0 < np.sum(lengths == 0) < len(seen)
    np.testing.assert_allclose(lengths[lengths > 0], 1.0, atol=1e-5)
    np.testing.assert_array_equal(timestep.truncated[:, 0], [False, False, True] * 2 + [False, False])
    drawn = envs.rendered(env, lambda obs: pole_views.pendulum(obs, 16, 1))
    state, obs = drawn.reset(KEY)
    _, seen = drawn.step(KEY, state, jnp.ones(1))
    assert obs.shape == seen.obs.shape == (16, 16, 1)
    assert obs.max() == seen.obs.max() == 255
    env.close()


# -------------------------------------------------------------------------------------------- pictures


def look(view, states, size=32, channels=1):
    return np.asarray(compiled(jax.vmap(lambda obs: view(obs, size, channels)), np.float32(states))).astype(int)


def hanging(angles, speed=0.0):
    return np.stack([np.cos(angles), np.sin(angles), np.full(len(angles), speed)], -1)


def test_a_quarter_turn_of_the_pendulum_turns_its_picture():
    angles = np.array([0.0, 0.3, 1.1, 2.5, -1.7])
    for channels in (1, 3):
        before = hanging(angles)
        after = np.stack([-before[:, 1], before[:, 0], before[:, 2]], -1)
        now, turned = look(pole_views.pendulum, before, 32, channels), look(pole_views.pendulum, after, 32, channels)
        assert now.shape == (5, 32, 32, channels)
        np.testing.assert_array_equal(turned, np.rot90(now, axes=(1, 2)))


def test_the_pendulums_angle_can_be_read_and_its_velocity_cannot():
    angles = np.linspace(-3.1, 3.1, 100)
    images = look(pole_views.pendulum, hanging(angles))[..., 0]
    places = np.arange(32) - 15.5
    right, up = np.sum(images * places, axis=(1, 2)), np.sum(images * -places[:, None], axis=(1, 2))
    off = np.angle(np.exp(1j * (np.arctan2(-right, up) - angles)))  # 0 is upright, positive to the left
    assert np.abs(off).max() < np.radians(1.0)
    np.testing.assert_array_equal(look(pole_views.pendulum, hanging(angles, 7.0))[..., 0], images)
    upright, down = look(pole_views.pendulum, hanging(np.array([0.0, np.pi])))[..., 0]
    assert upright[:15].sum() > 20 * upright[18:].sum()
    np.testing.assert_array_equal(upright, down[::-1])
    # One degree, a third of a pixel at the tip, is many shades.
    small, more = look(pole_views.pendulum, hanging(np.radians([10.0, 11.0])))
    assert np.abs(small - more).max() > 20


def test_the_cart_poles_picture_moves_with_the_cart():
    pixel = 2 * pole_views.CART_REACH / 32  # 0.1875 m, exact in float32
    for channels in (1, 3):
        here, there, mirrored, fast = look(
            pole_views.cartpole,
            [[0.0, 0, 0.1, 0], [3 * pixel, 0, 0.1, 0], [0.0, 0, -0.1, 0], [0.0, 5.0, 0.1, -5.0]],
            32,
            channels,
        )
        np.testing.assert_array_equal(there[:, 3:], here[:, :-3])
        np.testing.assert_array_equal(mirrored, here[:, ::-1])
        np.testing.assert_array_equal(fast, here)
        assert not np.array_equal(mirrored, here)
    tip = np.argmax(here[:12].sum(axis=(0, 2)))  # the upper rows show the pole only
    assert tip > 16, "a positive angle leans to the right"
    steps = look(pole_views.cartpole, [[0.0, 0, 0, 0], [0.01, 0, 0, 0], [0, 0, 0.01, 0]])
    assert min(np.abs(steps[0] - steps[1]).max(), np.abs(steps[0] - steps[2]).max()) >= 5, "a slow step shows"


@pytest.mark.parametrize("name", ["pendulum_pixels", "cartpole_pixels"])
def test_pictures_step_beside_numbers(name):
    """Same keys, same actions: the same rewards and ends, and each picture is that of the true observation."""
    vector, view = {
        "pendulum_pixels": ("gymnax:Pendulum-v1", pole_views.pendulum),
        "cartpole_pixels": ("gymnax:CartPole-v1", pole_views.cartpole),
    }[name]
    numbers, pictures = envs.make(vector, max_steps=12), envs.make(name, size=16, max_steps=12)
    assert pictures.spec.obs_shape == (16, 16, 1)
    assert pictures.spec.action == numbers.spec.action
    (first, (actions, theirs, next_obs)), (seen, (same, ours, following)) = compiled(
        lambda: (play(numbers, 40, num_envs=3), play(pictures, 40, num_envs=3))
    )
    np.testing.assert_array_equal(same, actions)
    for field in ("reward", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field))
    assert (ours.terminated | ours.truncated).any()
    images, obs = (
        np.concatenate([x.reshape(-1, *x.shape[x.ndim - axes :]) for x in found])
        for axes, found in ((3, (seen, ours.obs, following)), (1, (first, theirs.obs, next_obs)))
    )
    assert np.abs(images - look(view, obs, 16)).max() <= 1  # a rounding


def test_flickering_pictures_keep_every_promise():
    env = envs.flickering(envs.make("cartpole_pixels", size=16, max_steps=20), 0.3)
    report = envs.check_env(env, steps=40)
    assert report.ok, str(report)
    assert not report.notes


def test_pixel_tasks_have_options_and_refuse_others():
    env = envs.make("cartpole_pixels", size=24, channels=3, frames=2)
    assert env.spec.obs_shape == (24, 24, 6)
    assert env.spec.name == "cartpole_pixels"
    assert (env.spec.max_steps, env.spec.obs_dtype) == (500, "uint8")
    _, obs = compiled(env.reset, KEY)
    np.testing.assert_array_equal(obs[..., :3], obs[..., 3:])
    assert env.render(np.asarray(obs)).shape == (240, 240, 3)
    assert float(env.reward_fn(obs, 0, obs)) == 1.0
    for options, said in (
        ({"size": 8}, "size must be at least 16"),
        ({"channels": 2}, "channels must be 1"),
        ({"frames": 0}, "frames must be at least 1"),
    ):
        with pytest.raises(ValueError, match=said):
            envs.make("pendulum_pixels", **options)
    with pytest.raises(ValueError, match=r"must return uint8\[H, W, C\]"):
        envs.rendered(counting(), lambda obs: obs)
    with pytest.raises(ValueError, match="needs a vector observation"):
        envs.rendered(counting(image=True), lambda obs: obs)


def test_cart_pole_without_velocities_knows_its_reward_and_end():
    env = envs.make("cartpole_masked")
    assert env.spec.obs_names == ("x", "theta")
    assert (env.spec.max_steps, env.spec.action) == (500, Discrete(2))
    (_, (_, full, _)), (_, (_, timestep, _)) = compiled(
        lambda: (play(envs.make("gymnax:CartPole-v1"), 30), play(env, 30))
    )
    np.testing.assert_array_equal(timestep.obs, np.asarray(full.obs)[..., [0, 2]])
    np.testing.assert_array_equal(timestep.terminated, full.terminated)
    assert timestep.terminated.any()
    at_the_wall, fallen = jnp.array([2.41, 0.0]), jnp.array([0.0, -0.21])
    assert [bool(env.termination_fn(obs, 0, obs)) for obs in (at_the_wall, fallen, jnp.zeros(2))] == [True, True, False]
    assert float(env.reward_fn(fallen, 0, fallen)) == 1.0
    assert env.render(np.zeros(2)).shape == (160, 240, 3)


# ---------------------------------------------------------------------------------------------- memory


def test_a_memory_chain_pays_who_remembers_the_first_observation():
    env = envs.make("gymnax:MemoryChain-bsuite", memory_length=10)
    assert (env.spec.max_steps, env.spec.obs_shape) == (11, (3,))
    copies = env.vector(64)

    def body(carry, key):
        states, bit, total = carry
        states, timestep = copies.step(key, states, bit)
        return (states, bit, total + timestep.reward), timestep

    def run(key, remember):
        states, obs = copies.reset(key)
        bit = jnp.where(remember, obs[:, 2] > 0, True).astype(jnp.int32)
        (_, _, total), timesteps = jax.lax.scan(body, (states, bit, jnp.zeros(64)), jax.random.split(key, 11))
        return obs, total, timesteps

    run = jax.jit(run, compiler_options=FAST)
    first, total, timesteps = run(KEY, True)
    np.testing.assert_array_equal(total, np.ones(64))
    np.testing.assert_array_equal(timesteps.terminated[:, 0], [False] * 10 + [True])
    np.testing.assert_array_equal(timesteps.obs[1:, :, 2], np.zeros((10, 64)))  # hidden from the third on
    assert not timesteps.truncated.any()
    np.testing.assert_array_equal(run(KEY, False)[1], first[:, 2])  # always 1: right for half of the bits
    with pytest.raises(ValueError, match="memory_length must be at least 1"):
        envs.make("gymnax:MemoryChain-bsuite", memory_length=0)
