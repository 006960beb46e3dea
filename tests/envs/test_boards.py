"""The board games: lines in every direction, moves that are not allowed, whose turn it is, perfect play."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import agents, envs
from jmbrl.envs.native import tictactoe
from jmbrl.envs.native.boards import has_line
from jmbrl.rollout import evaluate
from jmbrl.train import make_train

KEY = jax.random.key(0)


def play(env, moves):
    """The rewards, the last time step and state of moves in turn."""
    state, _ = env.reset(KEY)
    step, rewards = jax.jit(env.step), []
    for move in moves:
        state, seen = step(KEY, state, jnp.asarray(move, jnp.int32))
        rewards.append(float(seen.reward))
    return rewards, seen, state


@pytest.mark.parametrize(
    ("moves", "rewards"),
    [
        ([0, 3, 1, 4, 2], [0, 0, 0, 0, 1]),  # the first player's row
        ([0, 3, 1, 4, 8, 5], [0, 0, 0, 0, 0, 1]),  # the second player's row
        ([0, 1, 3, 2, 6], [0, 0, 0, 0, 1]),  # a column
        ([0, 1, 4, 2, 8], [0, 0, 0, 0, 1]),  # a diagonal
        ([2, 1, 4, 0, 6], [0, 0, 0, 0, 1]),  # the other
        ([0, 1, 2, 4, 3, 5, 7, 6, 8], [0] * 9),  # a draw
        ([4, 4], [0, -1]),  # a place that is taken
    ],
)
def test_games_of_tic_tac_toe(moves, rewards):
    found, seen, _ = play(envs.make("tictactoe"), moves)
    assert found == rewards
    assert bool(seen.terminated)
    assert not bool(seen.truncated)


@pytest.mark.parametrize(
    ("moves", "last"),
    [
        ([3, 0, 3, 0, 3, 0, 3], 1),  # upwards
        ([0, 0, 1, 1, 2, 2, 3], 1),  # along the ground
        ([0, 1, 1, 2, 2, 3, 2, 3, 3, 6, 3], 1),  # rising to the right
        ([6, 5, 5, 4, 4, 3, 4, 3, 3, 0, 3], 1),  # rising to the left
        ([2, 2, 2, 2, 2, 2, 2], -1),  # a full column
    ],
)
def test_games_of_connect_four(moves, last):
    found, seen, _ = play(envs.make("connect_four"), moves)
    assert found == [0] * (len(moves) - 1) + [last]
    assert bool(seen.terminated)


def test_stones_fall_and_the_view_changes_sides():
    env = envs.make("connect_four")
    _, seen, state = play(env, [3, 3, 6])
    board = np.zeros((6, 7))
    board[5, 3], board[4, 3], board[5, 6] = -1, 1, -1  # the second player, whose one stone lies above, is to move
    np.testing.assert_array_equal(state.inner, board)
    np.testing.assert_array_equal(seen.obs[..., 0] - seen.obs[..., 1], board)
    assert np.all(env.legal(seen.obs))
    _, seen, _ = play(env, [2] * 6)
    assert env.legal(seen.obs).tolist() == [True, True, False, True, True, True, True]


def test_no_line_wraps_around_the_border():
    stones = np.zeros((6, 7), bool)
    stones[2, 5:], stones[3, :2] = True, True
    assert not has_line(jnp.asarray(stones), 4)


def test_solution_of_tic_tac_toe():
    values, best = tictactoe.solution()
    assert values[0] == 0  # a draw
    assert best[0].all()  # from an empty board every move keeps it
    board = np.zeros(9, int)
    board[4] = 2  # the other took the centre: only corners hold
    number = int(np.sum(board * 3 ** np.arange(9)))
    assert values[number] == 0
    assert np.flatnonzero(best[number]).tolist() == [0, 2, 6, 8]
    assert int(tictactoe.code(jnp.stack([board.reshape(3, 3) == 1, board.reshape(3, 3) == 2], -1))) == number


def test_perfect_play_never_loses_and_beats_chance():
    """As the agent's opponent: a random agent never wins against it, and often loses."""
    env = envs.make("tictactoe", opponent="perfect")
    chance = agents.SYSTEMS["random"].make(env, agents.SYSTEMS["random"].config())
    returns = jax.jit(lambda key: evaluate(key, env, chance, chance.init(key, 1), 200)["returns"])(KEY)
    assert np.all(returns <= 0)
    assert np.mean(returns < 0) > 0.5


def test_one_player_meets_the_game_with_its_own_reward_and_view():
    always = lambda move: lambda key, state, obs: jnp.asarray(move, jnp.int32)  # noqa: E731
    taken = envs.make("tictactoe", opponent=always(0))
    first = [key for key in jax.random.split(KEY, 20) if not np.any(taken.reset(key)[1])]
    second = [key for key in jax.random.split(KEY, 20) if np.any(taken.reset(key)[1])]
    assert first
    assert second
    state, obs = taken.reset(second[0])
    assert obs[0, 0].tolist() == [0, 1]  # the other's stone
    _, seen = taken.step(KEY, state, jnp.asarray(4, jnp.int32))
    assert float(seen.reward) == 1.0  # its second move there is not allowed, which loses it the game
    assert bool(seen.terminated)
    state, obs = taken.reset(first[0])
    state, seen = taken.step(KEY, state, jnp.asarray(4, jnp.int32))
    assert (float(seen.reward), bool(seen.terminated)) == (0.0, False)
    assert seen.obs[0, 0].tolist() == [0, 1]
    assert seen.obs[1, 1].tolist() == [1, 0]
    assert taken.spec.players == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: envs.make("tictactoe", opponent="best"), "opponent must be None, random or a function"),
        (lambda: envs.versus(envs.make("gymnax:CartPole-v1"), None), "two players, got gymnax:CartPole-v1 of 1"),
    ],
)
def test_what_is_no_game_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_systems_of_one_player_refuse_a_game_of_two():
    env = envs.make("tictactoe")
    page = agents.SYSTEMS["dqn"]
    with pytest.raises(ValueError, match=r"tictactoe is played by 2.*opponent"):
        make_train(env, page.make(env, page.config()), 100)


def test_wrappers_keep_or_drop_what_tells_the_moves():
    env = envs.make("tictactoe")
    obs = env.reset(KEY)[1]
    stacked, flat = envs.frame_stack(env, 2), envs.flatten_obs(env)
    for wrapped in (stacked, flat, envs.with_state(env)):
        seen = wrapped.reset(KEY)[1]
        np.testing.assert_array_equal(wrapped.legal(seen), env.legal(obs))
    assert envs.mask_obs(flat, (0, 1)).legal is None


@pytest.mark.parametrize(
    ("legal", "words"),
    [
        (lambda obs: jnp.ones(3, bool), r"legal\(obs\) has shape \(3,\), wanted \(9,\)"),
        (lambda obs: jnp.ones(9), r"legal\(obs\) is float32, wanted bool"),
        (lambda obs: obs.missing, "legal could not be traced: AttributeError"),
    ],
)
def test_a_wrong_legal_is_found_by_its_shape(legal, words):
    report = envs.check_env(envs.make("tictactoe")._replace(legal=legal))
    assert any(re.search(words, problem) for problem in report.problems), str(report)
