"""The rod's geometry by hand and by brute force, its table's symmetries, and its shortest way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import envs
from jmbrl.envs import finite
from jmbrl.envs.native import rod

from worlds import random_walk_steps

KEY = jax.random.key(0)
FORWARD, BACK, LEFT, RIGHT, TURN, UNTURN = range(6)
SQUARE = ((0.4, 0.4), (0.6, 0.4), (0.6, 0.6), (0.4, 0.6))


@pytest.fixture(scope="module")
def world():
    env = rod.make(max_steps=100)
    return env, finite.tables(env)


def number(i, j, k):
    return np.ravel_multi_index((i, j, k), rod.SHAPE)


def touching(tail, head, polygon):
    return bool(rod.touches(np.array([tail]), np.array([head]), polygon)[0])


@pytest.mark.parametrize(
    ("tail", "head", "hit"),
    [
        ((0.1, 0.5), (0.9, 0.5), True),  # through
        ((0.1, 0.5), (0.45, 0.5), True),  # in by one end
        ((0.45, 0.45), (0.55, 0.5), True),  # wholly inside
        ((0.1, 0.4), (0.9, 0.4), True),  # along an edge
        ((0.1, 0.1), (0.4, 0.4), True),  # touches a corner
        ((0.3, 0.5), (0.5, 0.3), True),  # touches a corner in its middle
        ((0.1, 0.4), (0.3, 0.4), False),  # on the line of an edge, apart from it
        ((0.1, 0.39), (0.9, 0.39), False),  # below
        ((0.3, 0.49), (0.49, 0.3), False),  # past a corner
        ((0.7, 0.5), (0.9, 0.5), False),  # beside
    ],
)
def test_touching_a_square(tail, head, hit):
    assert touching(tail, head, SQUARE) == touching(head, tail, SQUARE) == hit
    assert touching(tail, head, SQUARE[::-1]) == hit


def test_touching_polygons_that_are_not_convex():
    """A U: its inside is free, its legs and floor are not."""
    polygon = ((0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.7, 0.8), (0.7, 0.3), (0.3, 0.3), (0.3, 0.8), (0.2, 0.8))
    assert not touching((0.4, 0.5), (0.6, 0.5), polygon)
    assert touching((0.4, 0.5), (0.75, 0.5), polygon)
    assert touching((0.21, 0.5), (0.29, 0.6), polygon)


def test_free_configurations_equal_a_count_of_points_along_the_rod():
    """Every configuration again, by 400 points of each rod, with half planes for each (convex) obstacle."""
    place = np.stack(np.unravel_index(np.arange(14_400), rod.SHAPE), axis=1)
    middle, angle = (place[:, :2] + 0.5) / 20, np.deg2rad(10.0 * place[:, 2])
    along = np.linspace(-0.16, 0.16, 400)[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    points = (middle + along).astype(np.float32)  # [400, 14400, 2]
    free = ((points >= 0) & (points <= 1)).all(axis=(0, 2))
    for polygon in rod.OBSTACLES:
        corners = np.asarray(polygon)
        inside = np.ones(points.shape[:2], bool)
        for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True):  # counter-clockwise: inside is to the left
            inside &= (b - a)[0] * (points[..., 1] - a[1]) - (b - a)[1] * (points[..., 0] - a[0]) >= 0
        free &= ~inside.any(axis=0)
    ours = rod.free()
    # Points miss a corner that is cut by less than their distance.
    assert not (ours & ~free).any()
    assert (ours != free).sum() <= 3
    # A hair's breadth decides nothing on this map, so rounding cannot either.
    for hair in (-1e-6, 1e-6):
        np.testing.assert_array_equal(rod.free(length=rod.LENGTH + hair), ours)


def test_moves_by_hand_in_an_empty_square():
    env = rod.make(obstacles=(), max_steps=9)
    table = finite.tables(env)
    for at, action, wanted in (
        ((10, 10, 0), FORWARD, (11, 10, 0)),
        ((10, 10, 0), LEFT, (10, 11, 0)),
        ((10, 10, 9), FORWARD, (10, 11, 9)),
        ((10, 10, 9), RIGHT, (11, 10, 9)),
        ((10, 10, 2), FORWARD, (11, 10, 2)),  # 20 degrees: sin 0.34 rounds to 0
        ((10, 10, 3), FORWARD, (11, 11, 3)),  # 30 degrees: sin is a half
        ((10, 10, 6), BACK, (9, 9, 6)),  # 60 degrees: cos is a half
        ((10, 10, 7), LEFT, (9, 10, 7)),
        ((10, 10, 35), TURN, (10, 10, 0)),
        ((10, 10, 0), UNTURN, (10, 10, 35)),
        # Half a rod is 0.16: its middle may come as near as 0.175 to a side it points at.
        ((3, 10, 0), BACK, (3, 10, 0)),
        ((16, 10, 0), FORWARD, (16, 10, 0)),
        ((10, 0, 0), RIGHT, (10, 0, 0)),
        ((10, 0, 0), TURN, (10, 0, 0)),  # its tail would be 0.028 below 0.025
        ((10, 19, 18), RIGHT, (10, 19, 18)),
    ):
        assert table.next_state[number(*at), action] == number(*wanted), (at, action)
    # Every angle in the middle: 0 and 180 degrees have 14 x 20 places, and so on by the rod's two shadows.
    angle = np.deg2rad(10.0 * np.arange(36))
    wide, high = np.abs(0.16 * np.cos(angle)), np.abs(0.16 * np.sin(angle))
    middles = (np.arange(20) + 0.5) / 20
    fits = lambda half: ((middles[:, None] >= half) & (middles[:, None] <= 1 - half)).sum(axis=0)  # noqa: E731
    assert rod.free(()).sum() == (fits(wide) * fits(high)).sum()


def test_an_obstacle_stops_the_rod_by_hand():
    """Below the square obstacle, which begins at x = 0.4, y = 0.4, lies a rod of length 0.32."""
    table = finite.tables(rod.make(obstacles=(SQUARE,), max_steps=9))
    assert table.next_state[number(9, 7, 0), LEFT] == number(9, 7, 0)  # from y = 0.375 to 0.425
    assert table.next_state[number(9, 6, 0), LEFT] == number(9, 7, 0)
    assert table.next_state[number(7, 7, 0), TURN] == number(7, 7, 0)  # its head would be at (0.533, 0.403)
    assert table.next_state[number(9, 7, 0), TURN] == number(9, 7, 1)  # at x = 0.6, the corner, it passes y = 0.397
    assert table.next_state[number(7, 6, 0), TURN] == number(7, 6, 1)
    assert table.next_state[number(4, 10, 0), FORWARD] == number(4, 10, 0)  # its head is at 0.385
    assert table.next_state[number(3, 10, 0), FORWARD] == number(4, 10, 0)


def test_moves_can_be_undone_and_a_rod_turned_end_for_end_moves_alike(world):
    _, table = world
    states = np.flatnonzero(rod.free())
    for action, undo in ((FORWARD, BACK), (LEFT, RIGHT), (TURN, UNTURN)):
        for there, back in ((action, undo), (undo, action)):
            after = table.next_state[states, there]
            moved = after != states
            assert moved.sum() > 1000
            np.testing.assert_array_equal(table.next_state[after[moved], back], states[moved])
    flip = lambda s: number(*np.unravel_index(s, rod.SHAPE)[:2], (s % 36 + 18) % 36)  # noqa: E731
    for action, mirrored in ((FORWARD, BACK), (LEFT, RIGHT), (TURN, TURN), (UNTURN, UNTURN)):
        np.testing.assert_array_equal(
            table.next_state[flip(states), mirrored], flip(table.next_state[states, action])
        )  # fmt: skip


def test_nothing_moves_into_a_configuration_that_is_not_free(world):
    _, table = world
    free = rod.free()
    assert free[table.next_state[free]].all()
    np.testing.assert_array_equal(table.next_state[~free], np.repeat(np.flatnonzero(~free)[:, None], 6, axis=1))


def test_the_shortest_way_has_56_steps_and_cannot_do_without_turning(world):
    env, table = world
    actions = finite.best_actions(env)
    assert len(actions) == 56

    def step(state, action):
        state, seen = env.step(KEY, state, action)
        return state, seen

    seen = jax.lax.scan(step, env.reset(KEY)[0], jnp.asarray(actions))[1]
    np.testing.assert_array_equal(seen.reward, [0.0] * 55 + [1.0])
    np.testing.assert_array_equal(seen.terminated, [False] * 55 + [True])
    np.testing.assert_allclose(seen.obs[-1], [0.875, 0.825, np.pi / 2], rtol=1e-6)
    # Forwards, layer by layer.
    start, goal = number(*rod.START), number(*rod.GOAL)
    for moves, wanted in ((table.next_state, 56), (table.next_state[:, :4], None)):
        found, layer, depths = {start}, {start}, {start: 0}
        while layer:
            new = set(moves[list(layer)].ravel().tolist()) - found
            depths |= dict.fromkeys(new, depths[next(iter(layer))] + 1)
            found, layer = found | new, new
        assert depths.get(goal) == wanted
        if wanted:
            assert len(found) == 3008


def test_every_number_has_its_centre_and_angles_wrap(world):
    env, _ = world
    assert (env.cells.count, env.cells.shape, env.spec.obs_names) == (14_400, (20, 20, 36), ("x", "y", "angle"))
    numbers = jnp.arange(14_400)
    centres = jax.vmap(env.cells.centre)(numbers)
    np.testing.assert_array_equal(jax.vmap(env.cells.index)(centres), numbers)
    np.testing.assert_allclose(centres[number(2, 4, 9)], [0.125, 0.225, np.pi / 2], rtol=1e-6)
    for degrees, k in ((356.0, 0), (354.0, 35), (-4.0, 0), (728.0, 1), (-94.0, 27)):
        assert env.cells.index(jnp.array([0.125, 0.225, np.deg2rad(degrees)])) == number(2, 4, k)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": (9, 10, 0)}, r"start \(9, 10, 0\) must be free"),
        ({"goal": (0, 10, 0)}, r"goal \(0, 10, 0\) must be free"),
        ({"goal": (3, 16, 36)}, r"goal\[2\] must be at most 35"),
        ({"start": (3, 3)}, r"start must be \(i, j, k\)"),
        ({"length": 0.0}, "length must be at least"),
        ({"obstacles": (((0, 0), (1, 1)),)}, r"obstacles\[0\] must be at least three finite points"),
        ({"obstacles": (((0, 0.4), (1, 0.4), (1, 0.5), (0, 0.5)),)}, "must be reachable from start"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        rod.make(**{"obstacles": (SQUARE,), "start": (3, 3, 9), "goal": (16, 16, 9), **options})


def test_the_picture_shows_obstacles_goal_and_rod():
    image = envs.make("rod").render(np.array([0.125, 0.225, np.pi / 2]))
    assert (image.shape, image.dtype) == ((240, 240, 3), np.uint8)
    # Row and column of a point: y is upwards.
    colour = lambda x, y: tuple(image[int((1 - y) * 240), int(x * 240)].tolist())  # noqa: E731
    assert colour(0.7, 0.5) == (70, 70, 80)
    assert colour(0.125, 0.385) == (214, 69, 65), "the far end's dot"
    assert colour(0.875, 0.985) == (60, 150, 80)
    assert colour(0.55, 0.5) == (255, 255, 255)


def test_a_random_walk_takes_as_long_as_the_document_says():
    assert random_walk_steps(envs.make("rod")) == pytest.approx(44_000, rel=0.02)
