"""Dodge: hand-worked steps and pixels, chances of a launch, and what it is worth to know where the balls go."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import envs
from jmbrl.envs.functions import Timed
from jmbrl.envs.native import dodge, dodge_scripted
from jmbrl.envs.native.dodge import Rules
from jmbrl.types import Continuous, Discrete

CALM = {"launch": (0.0, 0.0)}  # nobody throws
KEY = jax.random.key(0)
QUICK = {"xla_backend_optimization_level": 0}  # compiling takes longer than running
STILL = dodge.make(16, 1, max_steps=6, **CALM)
BUSY = dodge.make(16, 1, balls=3, launch=(1.0, 1.0), ball_speed=(0.02, 0.02))
MANY = 4000


def put(*flying, agent=0.5, time=0, balls=5):
    """A state with balls ``((x, y), (velocity_x, velocity_y))``."""
    rows = np.zeros((balls, 2, 2), np.float32)
    rows[: len(flying)] = np.asarray(flying).reshape(-1, 2, 2)
    there = jnp.arange(balls) < len(flying)
    return dodge.State(jnp.float32(agent), jnp.asarray(rows[:, 0]), jnp.asarray(rows[:, 1]), there, jnp.int32(time))


@functools.cache
def player(env):
    def step(state, action_and_key):
        state, seen = env.step(action_and_key[1], state, action_and_key[0])
        return state, (seen, state.inner)

    return jax.jit(lambda s, a, k: jax.lax.scan(step, s, (a, jax.random.split(k, len(a))))[1], compiler_options=QUICK)


def play(env, state, actions, key=KEY):
    """Timesteps and states of a sequence of actions, one row a step."""
    return player(env)(Timed(state, jnp.int32(0)), actions, key)


@functools.cache
def artist(size, channels):
    return jax.jit(lambda state: dodge.draw(Rules(), state, size, channels), compiler_options=QUICK)


def draw(state, size, channels):
    return np.asarray(artist(size, channels)(state))


@functools.partial(jax.jit, compiler_options=QUICK)
def throw(state, options):
    """4000 times what may come after a state at the end of a step."""
    return jax.vmap(lambda key: dodge.launch(Rules()._replace(**options), key, state))(jax.random.split(KEY, MANY))


def thrown(agent, time=0, launch=(1.0, 1.0), growth=0.0, aim=0.0):
    state = throw(put(agent=agent, time=time + 1), {"launch": launch, "growth": growth, "aim": aim})
    return jax.tree.map(lambda x: np.float64(x), state)


def test_a_ball_flies_straight_and_ends_the_episode_where_it_touches():
    # The agent's top is at 0.9, so a ball of radius 0.07 right above touches it from 0.83 on: at 0.9, not at 0.8.
    balls = ((0.5, 0.5), (0.0, 0.1)), ((0.1, 0.2), (0.05, 0.15))
    seen, state = play(STILL, put(*balls), jnp.zeros((6, 1)))
    np.testing.assert_array_equal(seen.terminated[:4], [False, False, False, True])
    np.testing.assert_allclose(state.ball[:, 0], [[0.5, y] for y in (0.6, 0.7, 0.8, 0.9, 1.0, 1.1)], rtol=1e-5)
    np.testing.assert_allclose(state.ball[2, 1], [0.25, 0.65], rtol=1e-5)
    # Below 1.07 a ball is gone: both are at 1.1 in the end.
    np.testing.assert_array_equal(state.flying[:, :2], [[True, True]] * 5 + [[False, False]])
    # Every step pays, that of the hit included.
    np.testing.assert_array_equal(seen.reward, np.ones(6))


def test_contact_is_of_a_circle_with_a_rectangle():
    # Agent: x from 0.42 to 0.58, y from 0.9 to 1; radius 0.07.
    places = [(0.6506, 0.95), (0.6494, 0.95), (0.5, 0.8294), (0.5, 0.8306), (0.63, 0.85), (0.629, 0.851), (0.5, 0.95)]
    found = dodge.touching(Rules(), jnp.float32(0.5), jnp.asarray(places))
    # At the corner the distance counts: 0.05 * sqrt 2 = 0.0707, 0.049 * sqrt 2 = 0.0693.
    np.testing.assert_array_equal(found, [False, True, False, True, False, True, True])


@pytest.mark.parametrize("discrete", [False, True])
def test_thirds_of_the_action_move_the_agent_within_the_walls(discrete):
    env = dodge.make(16, 1, max_steps=20, discrete=True, **CALM) if discrete else STILL
    actions = jnp.asarray([0, 1, 2, 2, 1, 0]) if discrete else jnp.asarray([[-0.34], [-0.32], [0.34], [1], [0], [-1]])
    _, state = play(env, put(), actions)
    np.testing.assert_allclose(state.agent, [0.46, 0.46, 0.5, 0.54, 0.54, 0.5], rtol=1e-5)
    right = jnp.full_like(actions, 2 if discrete else 1)
    left = jnp.zeros_like(actions) if discrete else -right
    np.testing.assert_allclose(play(env, put(agent=0.8), right)[1].agent[1:4], [0.88, 0.92, 0.92], rtol=1e-5)
    np.testing.assert_allclose(play(env, put(agent=0.2), left)[1].agent[1:4], [0.12, 0.08, 0.08], rtol=1e-5)


def test_the_time_limit_truncates_and_a_hit_in_the_last_step_terminates():
    seen, _ = play(STILL, put(), jnp.zeros((6, 1)))
    np.testing.assert_array_equal(seen.truncated, [False] * 5 + [True])
    assert not seen.terminated.any()
    seen, _ = play(STILL, put(((0.5, 0.36), (0.0, 0.08))), jnp.zeros((6, 1)))  # 0.76 in step 5, 0.84 in step 6
    np.testing.assert_array_equal(seen.terminated, [False] * 5 + [True])
    assert not seen.truncated.any()


def test_balls_are_aimed_at_the_agent():
    state = thrown(agent=0.3)
    np.testing.assert_array_equal(state.flying, [[1, 0, 0, 0, 0]] * MANY)
    place, velocity = state.ball[:, 0], state.velocity[:, 0]
    np.testing.assert_array_equal(place[:, 1], 0.0)
    # 0.95 down is the middle of the agent's height.
    np.testing.assert_allclose(place[:, 0] + velocity[:, 0] * 0.95 / velocity[:, 1], 0.3, atol=1e-5)
    speed = np.linalg.norm(velocity, axis=1)
    for values, low, high in ((place[:, 0], 0.0, 1.0), (speed, 0.02, 0.08)):
        uniform = (values - low) / (high - low)
        assert uniform.min() > -1e-4
        assert uniform.max() < 1 + 1e-4
        # Mean and spread of uniform numbers, within five standard errors.
        assert abs(uniform.mean() - 0.5) < 5 * np.sqrt(1 / 12 / MANY)
        assert abs(uniform.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / MANY)


def test_the_aim_spreads_and_stays_in_the_field():
    state = thrown(agent=0.08, aim=0.1)
    lands = state.ball[:, 0, 0] + state.velocity[:, 0, 0] * 0.95 / state.velocity[:, 0, 1]
    assert lands.min() > -1e-5
    # P(n < -0.8) = 0.2119 are cut off at the wall; P(n > 1) = 0.1587.
    assert abs(np.mean(lands < 1e-5) - 0.2119) < 5 * np.sqrt(0.2119 * 0.7881 / MANY)
    assert abs(np.mean(lands > 0.18) - 0.1587) < 5 * np.sqrt(0.1587 * 0.8413 / MANY)


@pytest.mark.parametrize(("time", "chance"), [(0, 0.1), (3, 0.25), (50, 0.3)])
def test_launches_become_more_likely_up_to_a_bound(time, chance):
    state = thrown(agent=0.5, time=time, launch=(0.1, 0.3), growth=0.05)
    assert abs(state.flying.any(axis=1).mean() - chance) < 5 * np.sqrt(chance * (1 - chance) / MANY)


def test_no_more_balls_than_allowed():
    _, states = play(BUSY, put(balls=3), jnp.zeros((20, 1)))
    np.testing.assert_array_equal(states.flying.sum(axis=1), [1, 2, *[3] * 18])
    # A ball that is there already is not thrown anew.
    assert (np.diff(states.ball[2:, :, 1], axis=0) > 0).all()


def test_pixels_of_known_places():
    state = put(((0.5, 0.5), (0.0, 0.0)))
    grey = draw(state, 32, 1)[..., 0]
    # In pixels the radius is 2.24 around (16, 16): sqrt 4.5 = 2.121 from the middle is 0.619 covered, sqrt 6.5 = 2.550
    # is 0.190, sqrt 2.5 wholly.
    assert grey[16, 17] == 255
    assert grey[17, 17] == grey[14, 14] == 158
    assert grey[16, 18] == grey[18, 15] == 49
    assert grey[18, 18] == grey[16, 19] == 0
    # The agent: 2.56 to each side of 16 and from 28.8 downwards, at brightness 140.
    np.testing.assert_array_equal(grey[27:, 16], [0, 28, 140, 140, 140])
    np.testing.assert_array_equal(grey[30, 12:20], [0, 78, 140, 140, 140, 140, 78, 0])
    colours = draw(state, 64, 3)
    np.testing.assert_array_equal(colours[32, 32], [255, 170, 40])
    np.testing.assert_array_equal(colours[62, 32], [70, 140, 255])
    np.testing.assert_array_equal(colours[:3], 0)
    # Balls lie over the agent, and half a pixel of motion shows.
    over = draw(put(((0.5, 0.95), (0.0, 0.0))), 64, 3)
    np.testing.assert_array_equal(over[61, 32], [255, 170, 40])
    moved = draw(put(((0.5 + 0.5 / 32, 0.5), (0.0, 0.0))), 32, 1)
    assert np.abs(np.asarray(moved, int)[:27, :, 0] - grey[:27]).max() > 60


def test_one_picture_does_not_tell_velocities_but_two_do():
    place = (0.3, 0.4)
    frames = []
    for velocity in ((0.03, 0.04), (-0.02, 0.02), (0.0, 0.07)):
        state = put((place, velocity))
        seen, _ = play(STILL, state, jnp.zeros((6, 1)))
        frames.append((draw(state, 16, 1), np.asarray(seen.obs[0])))
    for now, later in frames[1:]:
        np.testing.assert_array_equal(now, frames[0][0])
        assert (later != frames[0][1]).sum() > 5


def test_the_key_alone_decides_and_copies_equal_one_at_a_time():
    actions = jax.random.uniform(KEY, (20, 1), minval=-1.0, maxval=1.0)
    keys = jax.random.split(KEY, 3)
    start = put(balls=3)
    together = jax.vmap(lambda key: play(BUSY, start, actions, key))(keys)
    alone = [play(BUSY, start, actions, key) for key in keys]
    again = play(BUSY, start, actions, keys[0])
    for a, b in zip(jax.tree.leaves(alone[0]), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    for i, one in enumerate(alone):
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(together), strict=True):
            np.testing.assert_allclose(np.float64(a), np.float64(b[i]), atol=1 if a.dtype == np.uint8 else 1e-5)
    assert np.abs(alone[0][1].ball - alone[1][1].ball).max() > 0.1


def test_spec_and_picture():
    spec = envs.make("dodge").spec
    assert (spec.obs_shape, spec.obs_dtype, spec.max_steps) == ((64, 64, 3), "uint8", 2100)
    assert spec.action == Continuous((-1.0,), (1.0,))
    env = envs.make("dodge", size=32, channels=1, max_steps=250, discrete=True)
    assert (env.spec.obs_shape, env.spec.max_steps, env.spec.action) == ((32, 32, 1), 250, Discrete(3))
    assert env.render(np.full((32, 32, 1), 7, np.uint8)).shape == (256, 256, 3)
    assert "cut into three" in env.no_gradient
    _, first = env.reset(KEY)
    np.testing.assert_array_equal(first, draw(put(), 32, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 15}, "size must be at least 16, got 15"),
        ({"size": 32.0}, "size must be an integer, got 32.0"),
        ({"channels": 2}, r"channels must be 1 \(grey\) or 3 \(colours\), got 2"),
        ({"discrete": 1}, "discrete must be True or False, got 1"),
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
        ({"ball": 3, "gravity": 1}, "dodge has no option ball, gravity; it has balls, radius"),
        ({"balls": 0}, "balls must be at least 1, got 0"),
        ({"radius": 0.0}, "radius must be at least 0.01, got 0.0"),
        ({"agent_width": 0.6}, "agent_width must be at most 0.5"),
        ({"agent_speed": float("nan")}, "agent_speed must be finite"),
        ({"ball_speed": 0.05}, "ball_speed must be two numbers, got 0.05"),
        ({"ball_speed": (0.05, 0.02)}, "ball_speed must be two numbers in order"),
        ({"ball_speed": (0.05, 0.3)}, "ball_speed must be at most 0.24"),
        ({"launch": (0.1, 1.5)}, "launch must be at most 1.0, got 1.5"),
        ({"aim": -1}, "aim must be at least 0.0, got -1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        dodge.make(**options)


def test_knowing_the_velocities_is_worth_much():
    """Means of 64 episodes; their standard errors are 4, 8 and 5 steps, and every bound is four or more away."""
    lasted = {name: dodge_scripted.survival(name, episodes=64).mean() for name in ("random", "nearest", "know")}
    assert lasted["random"] < 70 < lasted["nearest"] < 145
    assert lasted["know"] > 215


def test_survival_counts_the_steps_that_pay():
    # Every ball comes at 0.05 for an agent that stands still. Straight down it touches after 0.83 / 0.05, that is 17
    # steps, after the step of its launch; from a corner, after at most hypot(0.95, 0.5) / 0.05, 22.
    options = {"launch": (1.0, 1.0), "aim": 0.0, "ball_speed": (0.05, 0.05)}
    lasted = dodge_scripted.survival("still", episodes=200, max_steps=60, **options)
    assert lasted.min() == 18
    assert 18 < lasted.max() <= 23
    with pytest.raises(ValueError, match="name must be one of still, random"):
        dodge_scripted.survival("stand")


def test_the_film_begins_with_the_first_step():
    frames = dodge_scripted.film("sweep", frames=3, **CALM)
    wanted = [draw(put(agent=0.5 + 0.04 * (i + 1)), 64, 3) for i in range(3)]
    np.testing.assert_allclose(np.int32(frames), np.int32(wanted), atol=1)
