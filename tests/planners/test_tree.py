"""Tree search against known answers: a tree of four levels, tactics of tic-tac-toe, the signs of two players."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import agents, envs, planners
from jmbrl.planners import tree
from jmbrl.types import Discrete, Objective, Outcome, Spec

# A tree's values are means over what it tried: the best leaf stands out, so that means agree with it.
LEAVES = np.asarray([2, 3, 1, 0, 3, 1, 2, 2, 0, 1, 3, 20, 1, 16, 0, 2], np.float32) / 20
COINS = Spec("coins", (2,), Discrete(2), 10)
FAST = {"xla_backend_optimization_level": 0}


def binary(gamma=1.0, value=None, broken=None):
    """Four choices of left or right; the leaf that they lead to pays. The belief is ``(path, depth)``."""

    def step(key, belief, action):
        path, depth = 2 * belief[0] + action, belief[1] + 1
        reward = jnp.where(depth == 4, jnp.asarray(LEAVES)[jnp.clip(path, 0, 15)], 0.0)
        reward = reward if broken is None else jnp.where((depth == 4) & (path == broken), jnp.nan, reward)
        outcome = Outcome(reward, (depth < 4).astype(jnp.float32), jnp.zeros(0), jnp.zeros((), bool))
        return (path, depth), outcome

    return Objective(None, step, (jnp.asarray(0), jnp.asarray(0)), gamma=gamma, value=value)


def leaf(plan):
    return int(np.asarray(plan) @ [8, 4, 2, 1])


@pytest.mark.parametrize(("method", "least"), [("gumbel", 0.8), ("puct", 1.0)])
def test_a_best_leaf_of_sixteen_is_found_and_the_branch_to_it_returned(method, least):
    planner = planners.tree_search(COINS, horizon=4, simulations=100, method=method, exploration=10.0)
    plan, _, info = jax.jit(lambda key: planner.plan(key, (), binary()), compiler_options=FAST)(jax.random.key(0))
    assert LEAVES[leaf(plan)] >= least
    assert info["return"] <= LEAVES.max() + 1e-6
    assert info["visits"] >= 0.5


def test_a_broken_leaf_is_never_taken_and_is_counted():
    best = int(np.argmax(LEAVES))
    planner = planners.tree_search(COINS, horizon=4, simulations=100, playout=0, exploration=10.0)
    goal = binary(broken=best, value=lambda beliefs: jnp.zeros(beliefs[0].shape[0]))
    plan, _, info = jax.jit(lambda key: planner.plan(key, (), goal), compiler_options=FAST)(jax.random.key(0))
    assert leaf(plan) != best
    assert int(info["nonfinite"]) == 1


def test_games_and_budgets_are_refused():
    with pytest.raises(ValueError, match=r"one player.*agents.mcts"):
        planners.tree_search(envs.make("tictactoe").spec)
    goal = binary()._replace(budget=(1.0,))
    with pytest.raises(ValueError, match="knows no costs"):
        planners.tree_search(COINS).plan(jax.random.key(0), (), goal)


def test_playouts_worked_by_hand():
    """Rewards 1, 2, 4; the second step ends it in belief 1."""

    def step_many(key, beliefs, actions):
        ends = beliefs["ends"] & (beliefs["t"] == 1)
        reward = 2.0 ** beliefs["t"]
        outcome = Outcome(reward, 1.0 - ends, jnp.zeros((2, 0)), ends)
        return {"t": beliefs["t"] + 1, "ends": beliefs["ends"]}, outcome

    beliefs = {"t": jnp.zeros(2), "ends": jnp.asarray([False, True])}
    play = functools.partial(tree.playouts, jax.random.key(0), step_many, lambda key, b: jnp.zeros(2), beliefs)
    np.testing.assert_allclose(play(3, 0.5), [1 + 1 + 1, 1 + 1])
    np.testing.assert_allclose(play(3, 0.5, lambda b: jnp.full(2, 80.0)), [3 + 10, 2])
    np.testing.assert_allclose(play(3, 1.0, lambda b: jnp.full(2, 80.0), 2), [1 - 2 + 4 - 80, 1 - 2])
    np.testing.assert_allclose(play(0, 1.0, lambda b: jnp.full(2, 7.0)), [7.0, 7.0])


@pytest.mark.parametrize(("players", "discount"), [(1, 0.9), (2, -0.9)])
def test_what_mctx_is_told_of_a_step(players, discount):
    def step_many(key, beliefs, actions):
        ends = actions == 1
        return beliefs + 1, Outcome(jnp.asarray([5.0, jnp.inf]), 1.0 - ends, jnp.zeros((2, 0)), ends)

    judge = lambda key, beliefs: tree.Judged(None, jnp.asarray([[0.0, jnp.nan]] * 2), 10.0 * beliefs)  # noqa: E731
    told = tree.recurrent(step_many, judge, 0.9, players)
    node = tree.Node(jnp.asarray([1.0, 2.0]), None, jnp.zeros(2, bool))
    with jax.debug_key_reuse(True):
        out, after = told((), jax.random.key(0), jnp.asarray([0, 1]), node)
    np.testing.assert_allclose(out.reward, [5.0, tree.BROKEN])
    np.testing.assert_allclose(out.discount, [discount, 0.0], atol=1e-6)
    np.testing.assert_allclose(out.value, [20.0, 30.0])
    np.testing.assert_allclose(out.prior_logits, [[0.0, tree.FORBIDDEN]] * 2)
    np.testing.assert_array_equal(after.belief, [2.0, 3.0])
    np.testing.assert_array_equal(after.clipped, [False, True])


def test_depths_of_a_tree():
    class Tree:
        parents = jnp.asarray([[-1, 0, 0, 2, 3, -1], [-1, 0, 0, 0, 0, 0]])

    np.testing.assert_array_equal(tree.depth_of(Tree), [3, 1])


# A line of two is completed, or the other's is blocked; x are the stones of the player to move.
TACTICS = {"xx.oo....": 2, "oo.x.....": 2, "x.o.o...x": 6}


@pytest.fixture(scope="module", params=["puct", "gumbel"])
def thinker(request):
    game = envs.make("tictactoe")
    env = envs.with_state(game)
    agent = agents.mcts(env, agents.MCTSConfig(simulations=600, method=request.param))

    def move(key, board):
        state = jax.tree.map(lambda x: x, game.reset(key)[0])._replace(inner=board)
        obs = jnp.stack([board == 1, board == -1], axis=-1).astype(jnp.float32)
        return envs.player(agent, ())(key, state, obs)

    return jax.jit(move, compiler_options=FAST)


@pytest.mark.parametrize("picture", TACTICS)
def test_plain_search_sees_what_wins_and_what_it_must_stop(thinker, picture):
    board = jnp.asarray([{"x": 1, "o": -1, ".": 0}[c] for c in picture], jnp.int8).reshape(3, 3)
    assert int(thinker(jax.random.key(0), board)) == TACTICS[picture]
