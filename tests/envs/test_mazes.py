"""Mazes and the windy gridworld against the textbook's numbers and steps worked by hand."""

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import envs
from jmbrl.envs import finite
from jmbrl.envs.native import blocking_maze, maze, shortcut_maze
from jmbrl.types import Discrete

KEY = jax.random.key(0)
UP, DOWN, LEFT, RIGHT = range(4)
TINY = ("S.", "#G")


def walk(env, actions):
    """Rows and columns, rewards and ends along some actions."""

    def step(state, action):
        state, seen = env.step(KEY, state, action)
        return state, (seen.obs, seen.reward, seen.terminated)

    return jax.lax.scan(step, env.reset(KEY)[0], jnp.asarray(actions, jnp.int32))[1]


def queue_search(walls, start, goals):
    """A breadth-first search of another kind: a queue of places."""
    seen, queue = {start: 0}, deque([start])
    while queue:
        row, column = queue.popleft()
        if (row, column) in goals:
            return seen[row, column]
        for new in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            inside = 0 <= new[0] < len(walls) and 0 <= new[1] < len(walls[0])
            if inside and not walls[new[0]][new[1]] and new not in seen:
                seen[new] = seen[row, column] + 1
                queue.append(new)
    return -1


def test_the_dyna_maze_is_the_textbooks():
    env = envs.make("maze")
    assert (env.spec.action, env.spec.obs_names, env.spec.max_steps) == (Discrete(4), ("row", "col"), 10_000)
    assert (env.cells.count, env.cells.shape) == (54, (6, 9))
    walls = {(row, column) for row, line in enumerate(maze.DYNA) for column, mark in enumerate(line) if mark == "#"}
    assert walls == {(1, 2), (2, 2), (3, 2), (0, 7), (1, 7), (2, 7), (4, 5)}
    table = finite.tables(env)
    number = lambda row, column: 9 * row + column  # noqa: E731
    # From the start (2, 0); into the wall (2, 2); off each edge; into the goal from below.
    for (row, column), action, wanted in (
        ((2, 0), UP, (1, 0)),
        ((2, 0), DOWN, (3, 0)),
        ((2, 0), LEFT, (2, 0)),
        ((2, 0), RIGHT, (2, 1)),
        ((2, 1), RIGHT, (2, 1)),
        ((0, 2), DOWN, (0, 2)),
        ((0, 0), UP, (0, 0)),
        ((5, 8), DOWN, (5, 8)),
        ((5, 8), RIGHT, (5, 8)),
        ((1, 8), LEFT, (1, 8)),
        ((1, 8), UP, (0, 8)),
    ):
        assert table.next_state[number(row, column), action] == number(*wanted), (row, column, action)
        ends = wanted == (0, 8)
        assert table.reward[number(row, column), action] == float(ends)
        assert table.terminated[number(row, column), action] == ends


def test_a_short_walk_ends_at_the_goal_with_one_reward():
    env = envs.make("maze", layout=TINY, max_steps=9)
    obs, reward, ended = walk(env, [UP, DOWN, RIGHT, DOWN])
    np.testing.assert_array_equal(obs, [[0, 0], [0, 0], [0, 1], [1, 1]])
    np.testing.assert_array_equal(reward, [0, 0, 0, 1])
    np.testing.assert_array_equal(ended, [False, False, False, True])
    batch = jnp.array([[[1.0, 1.0]], [[0.0, 1.0]]])
    np.testing.assert_array_equal(env.reward_fn(batch, None, batch), [[1.0], [0.0]])
    np.testing.assert_array_equal(env.termination_fn(batch, None, batch), [[True], [False]])


@pytest.mark.parametrize("k", [1, 2, 3, 6])
def test_the_optimum_of_finer_dyna_mazes(k):
    """13 k + 1, as measured on the reference code; a search with a queue says the same."""
    walls = [[mark == "#" for mark in line for _ in range(k)] for line in maze.DYNA for _ in range(k)]
    goals = {(row, 8 * k + column) for row in range(k) for column in range(k)}
    assert sum(not wall for line in walls for wall in line) == 47 * k**2
    assert maze.shortest_path(resolution=k) == queue_search(walls, (2 * k, 0), goals) == 13 * k + 1


def test_resolution_makes_blocks_with_every_goal_cell():
    env = maze.make(TINY, resolution=2)
    assert env.cells.shape == (4, 4)
    assert env.spec.max_steps == 40_000
    table = finite.tables(env)
    np.testing.assert_array_equal(np.flatnonzero(table.terminated.any(axis=1) & (np.arange(16) < 8)), [6, 7])
    assert set(table.next_state[table.terminated]) == {10, 11, 14, 15}
    np.testing.assert_array_equal(env.reset(KEY)[1], [0.0, 0.0])
    assert table.next_state[4, DOWN] == 4, "the wall below is two cells wide and high"


def test_centres_are_rows_and_columns_and_have_their_number():
    cells = envs.make("maze").cells
    numbers = jnp.arange(54)
    centres = np.asarray(jax.vmap(cells.centre)(numbers))
    np.testing.assert_array_equal(centres, np.stack(np.divmod(np.arange(54), 9), axis=1))
    np.testing.assert_array_equal(jax.vmap(cells.index)(centres), numbers)


def test_best_actions_walk_to_the_goal_in_the_textbooks_steps():
    env = envs.make("maze")
    actions = finite.best_actions(env)
    _, reward, ended = walk(env, actions)
    assert len(actions) == 14
    np.testing.assert_array_equal(reward, [0.0] * 13 + [1.0])
    np.testing.assert_array_equal(ended, [False] * 13 + [True])


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("S.G", "must be rows of text"),
        ((), "must be rows of text"),
        (("S.", "x."), "got 'x' in row 1, column 0"),
        (("S.G", ".."), "got 3 in row 0, 2 in 1"),
        (("..G",), "one start S, got 0"),
        (("S.G", "S.."), "one start S, got 2"),
        (("S..",), "must have a goal G"),
        (("S#G", ".#."), "walls between them"),
    ],
)
def test_bad_drawings_are_refused(layout, message):
    with pytest.raises(ValueError, match=message):
        maze.make(layout)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="resolution must be at least 1"):
        maze.make(resolution=0)
    with pytest.raises(ValueError, match="change_at must be at least 0"):
        blocking_maze.make(change_at=-1)
    with pytest.raises(ValueError, match="same size, start and goals"):
        maze.changing((("SG",), ("GS",)), 3, name="mine")
    with pytest.raises(ValueError, match="one or two, got 3"):
        maze.changing((TINY, TINY, TINY), 3, name="mine")


# ------------------------------------------------------------------------------- mazes that change


@pytest.mark.parametrize(
    ("module", "change_at", "before", "after"),  # drawing, optimum, gaps of row 3
    [
        (blocking_maze, 1000, (blocking_maze.RIGHT, 10, [8]), (blocking_maze.LEFT, 16, [0])),
        (shortcut_maze, 3000, (blocking_maze.LEFT, 16, [0]), (shortcut_maze.BOTH, 10, [0, 8])),
    ],
)
def test_optima_before_and_after(module, change_at, before, after):
    assert module.make.__defaults__[0] == change_at
    for (layout, length, gaps), when in ((before, None), (after, 0)):
        assert maze.shortest_path(layout) == length
        assert len(finite.best_actions(module.make(change_at=when))) == length
        grid = maze.read(layout)
        assert grid.start == (5, 3)
        assert np.argwhere(grid.goals).tolist() == [[0, 8]]
        assert not np.delete(grid.walls, 3, axis=0).any()
        assert np.flatnonzero(~grid.walls[3]).tolist() == gaps


def test_walls_change_only_when_an_episode_begins_and_each_copy_has_its_clock():
    """Two copies on a line; after 3 steps of a life the way back to the left is walled up, at the next beginning."""
    env = maze.changing(((".SG",), ("#SG",)), 3, name="line", max_steps=9)
    copies = env.vector(2)
    states, obs = copies.reset(KEY)

    def step(states, obs, first, second):
        states, seen = jax.jit(copies.step)(KEY, states, jnp.array([first, second], jnp.int32))
        return *jax.jit(copies.restart)(KEY, seen.terminated | seen.truncated, states, seen.obs), seen

    # The first copy wanders to the left for four steps, beyond the change; the second finishes at once, then waits.
    for first, second, columns in ((LEFT, RIGHT, (0, 2)), (UP, LEFT, (0, 0)), (UP, UP, (0, 0)), (UP, UP, (0, 0))):
        states, obs, seen = step(states, obs, first, second)
        np.testing.assert_array_equal(seen.obs[:, 1], columns)
    np.testing.assert_array_equal(states.inner.clock, [4, 4])
    np.testing.assert_array_equal(states.inner.since, [0, 1])
    np.testing.assert_array_equal(states.time, [4, 3])
    # Old enough, but amid an episode: the wall is not there yet, and the first may leave and come back.
    for first, columns in ((RIGHT, (1, 0)), (LEFT, (0, 0)), (RIGHT, (1, 0)), (RIGHT, (2, 0))):
        states, obs, seen = step(states, obs, first, UP)
        np.testing.assert_array_equal(seen.obs[:, 1], columns)
    # The first copy's next episode began at 8 with the wall, the clock kept, the time limit counted anew.
    np.testing.assert_array_equal(states.inner.since, [8, 1])
    np.testing.assert_array_equal(states.inner.clock, [8, 8])
    np.testing.assert_array_equal(states.time, [0, 7])
    np.testing.assert_array_equal(obs, [[0.0, 1.0], [0.0, 0.0]])
    states, obs, seen = step(states, obs, LEFT, RIGHT)
    np.testing.assert_array_equal(seen.obs[:, 1], [1, 1])


def test_an_episode_that_ends_at_the_very_step_sees_the_change_and_a_reset_is_a_new_life():
    env = maze.changing(((".SG",), ("#SG",)), 1, name="line", max_steps=9)
    copies = env.vector(1)
    states, _ = copies.reset(KEY)
    states, seen = copies.step(KEY, states, jnp.array([RIGHT]))
    states, _ = copies.restart(KEY, seen.terminated, states, seen.obs)
    _, seen = copies.step(KEY, states, jnp.array([LEFT]))
    np.testing.assert_array_equal(seen.obs, [[0.0, 1.0]])
    states, _ = copies.reset(KEY)
    _, seen = copies.step(KEY, states, jnp.array([LEFT]))
    np.testing.assert_array_equal(seen.obs, [[0.0, 0.0]])


@pytest.mark.parametrize("wrap", [lambda env: envs.frame_stack(env, 2), envs.with_state])
def test_a_wrapped_changing_maze_keeps_its_clock(wrap):
    copies = wrap(maze.changing(((".SG",), ("#SG",)), 1, name="line", max_steps=9)).vector(1)
    states, _ = copies.reset(KEY)
    states, seen = copies.step(KEY, states, jnp.array([RIGHT]))
    states, _ = copies.restart(KEY, seen.terminated, states, seen.obs)
    _, seen = copies.step(KEY, states, jnp.array([LEFT]))
    np.testing.assert_array_equal(getattr(seen.obs, "obs", seen.obs)[0, -2:], [0.0, 1.0])


def counter(**options):
    """Counts its steps, over episodes too where ``restart`` keeps the count."""
    return envs.from_functions(
        lambda key: (0, jnp.zeros(1)),
        lambda key, state, action: (state + 1, jnp.full(1, state + 1.0), 0.0, False),
        action=Discrete(2),
        max_steps=2,
        name="counter",
        obs_shape=(1,),
        **options,
    )


@pytest.mark.parametrize(
    ("restart", "message"),
    [
        (lambda key, state: state, "restart of counter must return .state, obs."),
        (lambda key, state: ((state, state), jnp.zeros(1)), "changes its structure.*after restart"),
        (lambda key, state: (state + 0.5, jnp.zeros(1)), "int32.*before restart, float32"),
        (lambda key, state: (state, jnp.zeros(3)), r"observation of counter has shape \(3,\)"),
    ],
)
def test_bad_restarts_are_refused(restart, message):
    copies = counter(restart=restart).vector(2)
    states, obs = copies.reset(KEY)
    with pytest.raises(ValueError, match=message):
        copies.restart(KEY, jnp.array([True, False]), states, obs)


def test_bad_options_of_the_border_are_refused():
    with pytest.raises(ValueError, match="reset_pool=4 and restart of counter exclude each other"):
        counter(restart=lambda key, state: (state, jnp.zeros(1)), reset_pool=4)
    with pytest.raises(ValueError, match=r"cells of counter must be a jmbrl\.types\.Cells, got 5"):
        counter(cells=5)


# ------------------------------------------------------------------------------------- windy gridworld


@pytest.mark.parametrize(("kings", "length"), [(False, 15), (True, 7)])
def test_windy_optima(kings, length):
    env = envs.make("windy_gridworld", kings=kings)
    _, reward, ended = walk(env, finite.best_actions(env))
    assert len(reward) == length
    np.testing.assert_array_equal(reward, -1.0)
    np.testing.assert_array_equal(ended, [False] * (length - 1) + [True])


def test_windy_steps_by_hand():
    """The textbook's picture: the wind of the column that is left, stopped at the upper edge."""
    table = finite.tables(envs.make("windy_gridworld", kings=True))
    number = lambda row, column: 10 * row + column  # noqa: E731
    up_left, down_right = 4, 7
    for (row, column), action, wanted in (
        ((3, 0), LEFT, (3, 0)),
        ((3, 2), RIGHT, (3, 3)),
        ((3, 3), RIGHT, (2, 4)),
        ((6, 6), DOWN, (5, 6)),
        ((4, 6), LEFT, (2, 5)),
        ((1, 7), UP, (0, 7)),
        ((3, 9), LEFT, (3, 8)),
        ((3, 8), LEFT, (2, 7)),
        ((4, 8), LEFT, (3, 7)),
        ((3, 6), down_right, (2, 7)),
        ((6, 9), up_left, (5, 8)),
    ):
        assert table.next_state[number(row, column), action] == number(*wanted), (row, column, action)
    assert table.terminated[number(4, 8), LEFT]
    assert not table.terminated[number(3, 8), LEFT]


def test_the_stochastic_wind_is_one_more_or_less_a_third_of_the_time():
    env = envs.make("windy_gridworld", stochastic=True)
    state, _ = env.reset(KEY)
    keys = jax.random.split(jax.random.key(1), 3000)

    @jax.jit
    def rows(cell):
        here = state._replace(inner=state.inner._replace(cell=cell))
        return jax.vmap(lambda key: env.step(key, here, jnp.int32(RIGHT))[1].obs[0])(keys)

    # Wind 2 in column 6, 1 in column 3, none in column 0.
    for column, wanted in ((6, (1, 2, 3)), (3, (2, 3, 4))):
        found, counts = np.unique(rows(jnp.int32(10 * 4 + column)), return_counts=True)
        np.testing.assert_array_equal(found, wanted)
        np.testing.assert_allclose(counts / 3000, 1 / 3, atol=0.035)  # four standard errors
    np.testing.assert_array_equal(rows(jnp.int32(10 * 4)), 4.0)
    with pytest.raises(ValueError, match="the steps of windy_gridworld are random"):
        finite.tables(env)


def test_tables_are_for_worlds_made_of_moves():
    for env in (envs.make("cartpole_swingup"), envs.frame_stack(envs.make("maze"), 2)):
        with pytest.raises(ValueError, match="tables needs a world made from a table of moves"):
            finite.tables(env)


def test_pictures_show_walls_changing_walls_goal_and_agent():
    dark, lighter, goal, agent, white = (70, 70, 80), (178, 178, 188), (176, 224, 178), (214, 69, 65), (255, 255, 255)
    draw = envs.make("blocking_maze").render
    image = draw(np.array([5.0, 3.0]))
    assert (image.shape, image.dtype) == ((156, 234, 3), np.uint8)
    middle = lambda row, column: tuple(image[26 * row + 13, 26 * column + 13].tolist())  # noqa: E731
    assert [middle(3, 0), middle(3, 4), middle(3, 8)] == [lighter, dark, lighter]
    assert [middle(0, 8), middle(5, 3), middle(4, 4)] == [goal, agent, white]
    image = draw(np.array([99.0, np.nan]))
    assert middle(5, 0) == agent
