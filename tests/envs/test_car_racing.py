"""The car on its random road: track, reward, car and picture against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree

from jmbrl import envs
from jmbrl.envs.native import car_racing as task
from jmbrl.envs.native import car_racing_track as road
from jmbrl.envs.native import car_racing_view as view
from jmbrl.envs.native.car_racing_driver import drive

PHYSICS = task.Physics(engine=15.0, brake=30.0, grip=40.0, drag=0.25, grass_grip=0.5, grass_drag=1.0)
QUICK = {"xla_backend_optimization_level": 0}


def circle(count=12):
    angle = 2 * np.pi * np.arange(count) / count
    return np.stack([80 * np.cos(angle), 80 * np.sin(angle)], -1)


@pytest.fixture(scope="module")
def ring():
    """A round road of 80 m: its tiles are 2.513 m apart, so that a car on one touches two to each side."""
    return road.build(jnp.asarray(circle(), jnp.float32))


@pytest.fixture(scope="module")
def drawn():
    """Four random roads: ``(checkpoints, tracks)``, both with a leading axis."""

    @jax.jit
    def draw(keys):
        points = jax.vmap(road.checkpoints)(keys)
        return points, jax.vmap(road.build)(points)

    return draw(jax.random.split(jax.random.key(0), 4))


# ------------------------------------------------------------------------------------------------ the track


def test_the_curve_passes_the_checkpoints_with_their_neighbours_slope(drawn):
    points = np.asarray(drawn[0][0], np.float64)
    curve = np.asarray(road.closed_curve(jnp.asarray(drawn[0][0])), np.float64).reshape(12, 64, 2)
    np.testing.assert_allclose(curve[:, 0], points, atol=1e-4)
    # Catmull-Rom: the derivative at a point is half the way from its neighbour before to the one after.
    slope = 64 * (curve[:, 1] - np.roll(curve[:, -1], 1, 0)) / 2
    np.testing.assert_allclose(slope, (np.roll(points, -1, 0) - np.roll(points, 1, 0)) / 2, atol=1.0)
    # The middle of a segment: (-a + 9 b + 9 c - d) / 16.
    a, b, c, d = (np.roll(points, shift, 0) for shift in (1, 0, -1, -2))
    np.testing.assert_allclose(curve[:, 32], (-a + 9 * b + 9 * c - d) / 16, atol=1e-3)


def test_equal_spacing_along_a_square():
    square = jnp.array([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]])
    points = road.equally_spaced(square, 8)
    np.testing.assert_allclose(points, [[0, 0], [2, 0], [4, 0], [4, 2], [4, 4], [2, 4], [0, 4], [0, 2]], atol=1e-6)


def test_checkpoints_lie_in_their_sectors_and_begin_straight(drawn):
    points = np.asarray(drawn[0])
    radius, angle = np.hypot(points[..., 0], points[..., 1]), np.arctan2(points[..., 1], points[..., 0])
    assert radius.min() >= 50 - 1e-3
    assert radius.max() <= 100 + 1e-3
    within = np.mod(angle[:, 1:] / (2 * np.pi / 12), 12) - np.arange(1, 12)
    assert within.min() > -1e-5
    assert within.max() <= 0.5
    np.testing.assert_allclose(points[:, 0], [[100, 0]] * 4, atol=1e-4)
    np.testing.assert_allclose(points[:, -1], [[100 * np.cos(np.pi / 6), -50]] * 4, atol=1e-3)


def test_the_map_shows_the_road_within_its_width(drawn):
    for tiles, ground in zip(*(np.asarray(leaf) for leaf in drawn[1]), strict=True):
        line = np.asarray(road.equally_spaced(jnp.asarray(tiles), 2000))
        middles = (np.arange(256) + 0.5) * 1.25 - 160
        places = np.stack(np.meshgrid(middles, middles), -1)  # [y, x]
        distance = cKDTree(line).query(places)[0]
        inside, outside = distance < road.HALF_WIDTH - 1.25, distance > road.HALF_WIDTH + 1.25
        assert np.mean(ground[inside] == road.ROAD) == 1.0, "no holes"
        assert not np.any(ground[outside] == road.ROAD)
        assert np.all(ground[[0, -1]] == road.VOID)
        assert np.all(ground[:, [0, -1]] == road.VOID)
        grass = ground[1:-1, 1:-1][outside[1:-1, 1:-1]]
        assert set(np.unique(grass)) == {road.GRASS, road.PATCHED}
        assert 0.4 < np.mean(grass == road.PATCHED) < 0.6


def test_one_key_one_road(drawn):
    again = road.build(road.checkpoints(jax.random.split(jax.random.key(0), 4)[2]))
    np.testing.assert_allclose(again.tiles, drawn[1].tiles[2], atol=1e-3)
    assert np.mean(np.asarray(again.ground) != np.asarray(drawn[1].ground[2])) < 1e-3, "but for rounding at the edges"
    assert len({np.asarray(ground).tobytes() for ground in drawn[1].ground}) == 4


# ------------------------------------------------------------------------------------------------ the reward


def at(state, place):
    return state._replace(car=state.car._replace(position=jnp.asarray(place, jnp.float32)))


def test_a_tile_pays_once(ring):
    # 160 sin(k pi / 200) is 5.03 m for two tiles, 7.54 m for three: within 6.67 m lie tiles -2 to 2.
    state = task.start(ring)
    np.testing.assert_array_equal(np.flatnonzero(task.within_reach(state)), [0, 1, 2, 198, 199])
    state, reward, ended = task.judge(state)
    assert float(reward) == pytest.approx(5 * 5 - 0.1)
    assert not ended
    assert float(task.judge(state)[1]) == pytest.approx(-0.1)
    state, reward, _ = task.judge(at(state, ring.tiles[1]))
    assert float(reward) == pytest.approx(5 - 0.1)
    assert float(task.judge(at(state, ring.tiles[0] / 2))[1]) == pytest.approx(-0.1), "on the grass"


def test_a_whole_lap_pays_a_thousand(ring):
    def body(state, place):
        state, reward, ended = task.judge(at(state, place))
        return state, (reward, ended)

    _, (rewards, ended) = jax.lax.scan(body, task.start(ring), ring.tiles)
    # The two tiles behind the start count at once, and the car on tile 195 touches the last, 197.
    assert int(np.argmax(ended)) == 195
    assert not np.any(ended[:195])
    assert float(np.sum(rewards[:196])) == pytest.approx(1000 - 0.1 * 196, abs=1e-2)


def test_a_lap_counts_at_the_start_with_more_than_the_fraction(ring):
    state = task.start(ring)
    missed = lambda count: state._replace(visited=jnp.arange(200) < 200 - count)  # noqa: E731
    # The car stands on 198 and 199, which count: 200 - 12 + 2 = 190 is not more than 95 % of 200.
    assert not task.judge(missed(12))[2]
    assert task.judge(missed(11))[2]
    assert not task.judge(missed(11), lap_complete=0.96)[2]
    # Elsewhere the lap goes on.
    assert not task.judge(at(missed(11), ring.tiles[100]))[2]


def test_beyond_the_playfield(ring):
    state = task.start(ring)
    for place, wanted in (((160.1, 0.0), -100.0), ((0.0, -160.1), -100.0), ((159.9, 159.9), -0.1)):
        _, reward, ended = task.judge(at(state, place))
        assert float(reward) == pytest.approx(wanted)
        assert bool(ended) == (wanted == -100.0)


# --------------------------------------------------------------------------------------------------- the car


def move(action, velocity=(0.0, 0.0), heading=0.0, on_road=True):
    car = task.Car(jnp.zeros(2), jnp.float32(heading), jnp.array(velocity, jnp.float32))
    return task.move(PHYSICS, car, jnp.array(action, jnp.float32), jnp.array(on_road))


@pytest.mark.parametrize(
    ("action", "velocity", "on_road", "wanted"),
    [
        ([0, 1, 0], [0, 0], True, [0.02 * 15 * 0.995, 0]),
        ([0, 0, 0], [10, 0], True, [10 * 0.995, 0]),
        ([0, 0, -1], [10, 0], True, [10 * 0.995, 0]),  # a brake below 0 is none
        ([0, 0, 0.5], [10, 0], True, [(10 - 0.02 * 15) * 0.995, 0]),
        ([0, 0, 1], [0.1, 0], True, [0, 0]),  # the brake does not reverse
        ([0, 0, 0], [10, 0], False, [10 * 0.975, 0]),
        ([0, 0, 0], [0, 0.6], True, [0, 0]),  # 30 m/s^2 stop a slow slide
        ([0, 0, 0], [0, 2], True, [0, (2 - 0.02 * 40) * 0.995]),  # 100 m/s^2 are more than the grip
        ([0, 0, 0], [0, 2], False, [0, (2 - 0.02 * 20) * 0.975]),
        # Gas and slide share the grip: (15, -100) shortened to 40.
        ([0, 1, 0], [0, 2], True, [0.3 * 40 / 101.1187 * 0.995, (2 - 2 * 40 / 101.1187) * 0.995]),
    ],
)
def test_one_step_of_the_car(action, velocity, on_road, wanted):
    car = move(action, velocity, on_road=on_road)
    np.testing.assert_allclose(car.velocity, wanted, atol=1e-5)
    np.testing.assert_allclose(car.position, 0.02 * np.array(wanted), atol=1e-6)
    assert float(car.heading) == 0.0


def test_steering_right_turns_clockwise_and_no_faster_than_the_grip_allows():
    assert float(move([1, 0, 0], [2, 0]).heading) == pytest.approx(-0.02 * 2 * np.tan(0.4) / 3.2, rel=1e-5)
    assert float(move([-1, 0, 0], [20, 0]).heading) == pytest.approx(0.02 * 1.3 * 40 / 20, rel=1e-5)
    assert float(move([1, 0, 0]).heading) == 0.0, "at rest"
    # The whole thing turned by 90 degrees moves the same way.
    ahead, turned = move([0.3, 1, 0], [20, 1]), move([0.3, 1, 0], [-1, 20], heading=np.pi / 2)
    np.testing.assert_allclose([-turned.velocity[1], turned.velocity[0]], -ahead.velocity, atol=1e-4)


# ------------------------------------------------------------------------------------------------ the picture


@jax.jit
def look(ground, heading, position=(0.0, 0.0)):
    return view.look(ground, jnp.asarray(position), heading, 64)


def test_the_picture_turns_with_the_car():
    ground = np.random.default_rng(0).integers(0, 4, (256, 256), np.uint8)
    for turns in range(4):
        # Turning the car to the left is turning the world to the right.
        np.testing.assert_array_equal(look(ground, turns * np.pi / 2), look(np.rot90(ground, turns), 0.0))
    offset = np.arange(256) - 127.5
    rings = (np.maximum(np.abs(offset), np.abs(offset[:, None])) // 4 % 4).astype(np.uint8)
    for turns in range(1, 4):
        np.testing.assert_array_equal(look(rings, turns * np.pi / 2), look(rings, 0.0))


def test_up_is_ahead_and_left_is_left():
    ground = np.full((256, 256), road.GRASS, np.uint8)
    ground[128 + 16 :] = road.ROAD  # y > 20 m
    north, east = np.asarray(look(ground, np.pi / 2)), np.asarray(look(ground, 0.0))
    # 40 m are seen ahead of the car: the upper 20 m are 26.67 of the 64 rows; to the left 24 m, of which 4 m show.
    np.testing.assert_array_equal(north == road.ROAD, np.arange(64)[:, None] < np.full(64, 27))
    np.testing.assert_array_equal(east == road.ROAD, np.arange(64) < np.full((64, 1), 5))


def test_beyond_the_map_is_the_void(ring):
    seen = np.asarray(look(ring.ground, 0.0, (150.0, 0.0)))
    # 10 m to the edge, whose outermost cell of 1.25 m is void already: (48 - 8 - 8.75) / 0.75 is 41.67 rows.
    np.testing.assert_array_equal(seen == road.VOID, np.arange(64)[:, None] < np.full(64, 42))


def test_the_car_and_the_bar_are_drawn():
    kinds = np.asarray(view.draw_bar(view.draw_car(jnp.full((64, 64), road.ROAD, jnp.uint8)), jnp.float32(0.25)))
    car = np.argwhere((kinds == view.CAR) | (kinds == view.TYRE))
    # 5 m by 2.4 m about 8 m above the lower edge, in the middle: rows 64 - (8 +- 2.5) / 0.75, four columns.
    np.testing.assert_array_equal([car.min(0), car.max(0)], [[50, 30], [56, 33]])
    assert np.sum(kinds == view.TYRE) == 8
    assert np.all(kinds[60:, :16] == view.WHITE)
    assert np.all(kinds[60:, 16:] == view.BLACK)
    assert np.all(kinds[57:60] == road.ROAD)
    grey = view.palette(1)[:, 0]
    np.testing.assert_array_equal(
        grey[[road.VOID, road.GRASS, road.PATCHED, road.ROAD, view.CAR]], [0, 162, 177, 102, 61]
    )


# -------------------------------------------------------------------------------------------- as an environment


@pytest.fixture(scope="module")
def played():
    """Returns of 250 steps with their last flags: ``(driver, held random actions)`` on four roads."""
    env = envs.make("car_racing", size=32, channels=1, bar=True, max_steps=250)

    def episode(key):
        key_reset, key_actions = jax.random.split(key)
        state, obs = env.reset(key_reset)
        held = jax.random.uniform(key_actions, (10, 3), minval=-1.0, maxval=1.0)

        def body(states, t):
            driven, random = states
            driven, seen = env.step(key, driven, drive(driven.inner))
            random, other = env.step(key, random, held[t // 25])
            return (driven, random), (seen._replace(obs=seen.obs.sum()), other._replace(obs=other.obs.sum()))

        return obs, jax.lax.scan(body, (state, state), jnp.arange(250))[1]

    return jax.jit(jax.vmap(episode), compiler_options=QUICK)(jax.random.split(jax.random.key(5), 4))


def test_a_driver_earns_far_more_than_held_random_actions(played):
    _, (driver, random) = played
    earned = np.sum(driver.reward, 1)
    assert earned.min() > 170
    assert np.sum(random.reward, 1).max() < 80
    # From rest at most 128.8 m in 5 s, and tiles are at least 2.3 m long.
    assert earned.max() < 128.8 / 2.3 * 5 + 25
    np.testing.assert_array_equal(np.argwhere(driver.truncated), [[i, 249] for i in range(4)])
    assert not np.any(driver.terminated)


def test_pictures_differ_between_roads_and_steps(played):
    obs, (driver, _) = played
    assert obs.shape == (4, 32, 32, 1)
    assert obs.dtype == jnp.uint8
    assert len({np.asarray(picture).tobytes() for picture in obs}) == 4
    assert np.mean(np.diff(np.asarray(driver.obs, np.int64), axis=1)[:, 50:] != 0) > 0.9


def test_a_given_track_is_driven_every_episode():
    env = envs.make("car_racing", size=32, track=circle(), max_steps=2, reset_pool=None)
    states, obs = jax.jit(env.vector(2).reset)(jax.random.key(0))
    np.testing.assert_array_equal(obs[0], obs[1])
    np.testing.assert_allclose(states.inner.car.position, [[80, 0]] * 2, atol=1e-4)
    np.testing.assert_allclose(states.inner.car.heading, [np.pi / 2] * 2, atol=1e-4)
    assert env.spec.action.low == (-1.0, 0.0, -1.0)
    assert env.spec.action.high == (1.0, 1.0, 1.0)
    assert env.spec.dt == pytest.approx(0.02)
    picture = env.render(np.asarray(obs[0]))
    assert picture.shape == (256, 256, 3)
    assert picture.dtype == np.uint8
    # 40 m ahead the round road is 80 - sqrt(80^2 - 40^2) = 10.7 m, or 57 of 256 pixels, to the left.
    assert tuple(picture[0, 128 - 57]) == (102, 102, 102)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 48}, "size must be 32 or 64, got 48"),
        ({"channels": 2}, "channels must be 1 or 3, got 2"),
        ({"bar": 1}, "bar must be True or False, got 1"),
        ({"lap_complete": 1.5}, "lap_complete must be at most 1"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"engine": 0.0}, "engine must be at least 0.001"),
        ({"brake": -1.0}, "brake must be at least 0"),
        ({"grip": "much"}, "grip must be a number"),
        ({"grass_grip": 2.0}, "grass_grip must be at most 1"),
        ({"track": np.zeros((3, 2))}, r"track must be at least 4 points \[K, 2\] in metres, got shape \(3, 2\)"),
        ({"track": 200 * np.ones((5, 2))}, "track must lie within 160 m of the middle, got 200"),
        ({"reset_pool": 0}, "reset_pool must be at least 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        envs.make("car_racing", **options)
