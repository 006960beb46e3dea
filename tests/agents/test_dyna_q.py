"""Dyna-Q and Dyna-Q+: planning against plain loops, exact hitting times, shortest paths, value iteration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import agents, envs
from jmbrl.agents import greedy_steps
from jmbrl.data import visits
from jmbrl.envs.native import maze
from jmbrl.train import make_train
from jmbrl.types import Cells, Discrete, Transition

from worlds import line, random_walk_steps

KEY = jax.random.key(0)


def corridor(length=4):
    """States 0 .. length; action 1 goes right, 0 left; 1 for reaching the end."""

    def reset(key):
        return jnp.zeros((), jnp.int32), jnp.zeros(1)

    def step(key, state, action):
        state = jnp.clip(state + 2 * action - 1, 0, length)
        return state, state[None].astype(jnp.float32), (state == length).astype(jnp.float32), state == length

    cells = Cells(length + 1, lambda obs: obs[0].astype(jnp.int32), lambda i: jnp.asarray(i, jnp.float32)[None])
    return envs.from_functions(reset, step, action=Discrete(2), max_steps=50, name="corridor", cells=cells)


def lived(agent, *rows):
    """The agent's state after rows ``(s, a, r, s', terminated)``."""
    state, record = agent.init(KEY, 1), jax.jit(agent.record)
    for s, a, r, following, ended in rows:
        row = Transition([[s]], [a], [r], [[following]], [ended], [False])
        dtypes = (jnp.float32, jnp.int32, jnp.float32, jnp.float32, bool, bool)
        state = record(state, (), Transition(*map(jnp.asarray, row, dtypes)), jnp.asarray([True]))
    return state


WALK = [(0, 1, 0.0, 1, False), (1, 0, 0.0, 0, False), (0, 0, 0.0, 0, False), (0, 1, 0.0, 1, False)]
END = [(1, 1, 0.0, 2, False), (2, 1, 0.0, 3, False), (3, 1, 1.0, 4, True)]


def plan(agent, state, key=KEY):
    return jax.jit(agent.phases[0][1])(key, state, jnp.asarray(0))


def test_planning_is_a_plain_loop_over_the_same_pairs():
    config = agents.DynaQConfig(planning_steps=40, alpha=0.5, gamma=0.9)
    agent = agents.dyna_q(corridor(), config)
    state = lived(agent, *WALK, *END)
    known = {(s, a): (r, following, ended) for s, a, r, following, ended in [*WALK, *END]}
    values = np.asarray(state.learner.values, np.float64)
    np.testing.assert_allclose(values[3], [0.0, 0.5])  # the real step's own update
    new, info = plan(agent, state)
    pairs = visits.sample_visited(jax.random.split(KEY)[0], state.visits, 40, False)
    for s, a in np.stack(pairs, axis=1):
        reward, following, ended = known[s, a]  # only pairs that were tried
        values[s, a] += 0.5 * (reward + 0.9 * (not ended) * values[following].max() - values[s, a])
    np.testing.assert_allclose(new.learner.values, values, rtol=1e-5)
    assert info["plan/backups"] == 40
    assert values[2, 1] > 0


def test_dyna_q_plus_pays_for_elapsed_time_and_for_what_was_never_tried():
    config = agents.DynaQConfig(planning_steps=1, alpha=1.0, gamma=0.5, kappa=0.1, backup="full")
    agent = agents.dyna_q(corridor(), config)
    state = lived(agent, *WALK, *END)  # seven steps; the values are zero but Q(3, right) = 1
    new, _ = plan(agent, state)
    root = lambda elapsed: 0.1 * np.sqrt(elapsed)  # noqa: E731
    wanted = [
        [root(7 - 3), root(7 - 4)],
        [root(7 - 2), root(7 - 5)],
        [root(7 - 1), root(7 - 6) + 0.5 * 1.0],  # never went left from 2: as if tried at step 1, leading back to 2
        [root(7 - 1) + 0.5 * 1.0, root(0) + 1.0],  # the same from 3, whose best value is 1
        [0.0, 0.0],  # the end was never left: nothing is imagined there
    ]
    np.testing.assert_allclose(new.learner.values, wanted, atol=1e-6)


def test_a_bonus_does_not_change_the_real_step_and_untried_actions_can_be_left_out():
    config = agents.DynaQConfig(planning_steps=1, alpha=1.0, gamma=0.5, kappa=0.1, backup="full", untried=False)
    agent = agents.dyna_q(corridor(), config)
    state = lived(agent, *WALK, *END)
    np.testing.assert_allclose(state.learner.values[3], [0.0, 1.0])
    new, _ = plan(agent, state)
    assert new.learner.values[2, 0] == 0


def test_the_first_episode_is_a_random_walk():
    """Its expected length solves (I - P) t = 1 exactly."""
    env = envs.make("maze")
    exact = random_walk_steps(env)
    train = make_train(env, agents.dyna_q(env, agents.DynaQConfig(planning_steps=0)), 6_000)
    _, history = jax.jit(jax.vmap(train))(jax.random.split(KEY, 300))
    first = [row[row > 0][0] for row in np.asarray(history["episode_length"])[..., 0] if row.any()]
    assert len(first) > 290
    np.testing.assert_allclose(np.mean(first), exact, rtol=4 / np.sqrt(300))  # the length's spread is about its mean
    assert 700 < exact < 900  # the sheet's pooled measurement: 750


CASES = {
    "dyna_q": {"planning_steps": 50},
    "expected": {"planning_steps": 50, "backup": "expected", "planning_alpha": 1.0, "outcomes": 2},
    "full": {"planning_steps": 1, "backup": "full", "planning_alpha": 1.0},
}


@pytest.mark.parametrize("settings", CASES.values(), ids=CASES)
def test_greedy_policies_reach_the_shortest_path(settings):
    env = envs.make("maze")
    train = make_train(env, agents.dyna_q(env, agents.DynaQConfig(**settings)), 5_000)
    run, history = jax.jit(train)(jax.random.key(3))
    values = run.agent.learner.values
    assert int(greedy_steps(env, values, 100, KEY)) == maze.shortest_path() == 14
    assert np.max(values) == pytest.approx(1.0, abs=1e-3)  # the last step's; the first is worth gamma^13
    if settings["planning_steps"] == 50:
        assert history["plan/backups"][1:].min() == 50
    assert history["episode_length"][-1000:].max() < 60


def test_full_backups_are_value_iteration_on_what_was_counted():
    """In the stochastic wind: the values solve the optimality equation of the counted frequencies, in float64."""
    env = envs.make("windy_gridworld", stochastic=True, max_steps=500)
    config = agents.DynaQConfig(
        planning_steps=1, backup="full", planning_alpha=1.0, outcomes=3, gamma=0.9, epsilon=0.5, alpha=0.0
    )
    agent = agents.dyna_q(env, config)
    run, _ = jax.jit(make_train(env, agent, 3_000))(KEY)
    table = jax.tree.map(lambda x: np.asarray(x, np.float64), run.agent.params.weights)
    sweep = jax.jit(agent.phases[0][1])
    state = run.agent
    for _ in range(200):
        state, info = sweep(KEY, state, jnp.asarray(0))
    assert info["plan/residual"] < 1e-4
    exact = np.zeros((env.cells.count, 4))
    total = table.count.sum(-1)
    for _ in range(500):
        target = table.reward + 0.9 * (1 - table.ended) * exact.max(1)[table.state.astype(int)]
        exact = np.where(total > 0, (table.count * target).sum(-1) / np.maximum(total, 1), 0)
    np.testing.assert_allclose(state.learner.values, exact, atol=2e-4)
    assert (total > 0).sum() > 100
    assert ((table.count > 0).sum(-1) == 3).any()


def test_only_dyna_q_plus_finds_the_shortcut():
    """Judged by what each has learned of the world: the values of its model without a bonus, solved exactly."""
    env = envs.make("shortcut_maze", change_at=1000)
    open_now = envs.make("shortcut_maze", change_at=0)
    exactly = agents.DynaQConfig(planning_steps=200, planning_alpha=1.0, backup="full")
    solve = jax.jit(jax.vmap(lambda state: agents.dyna_q(env, exactly).phases[0][1](KEY, state, 0)[0].learner.values))
    found = {}
    for kappa in (0.0, 1e-3):
        agent = agents.dyna_q(env, agents.DynaQConfig(planning_steps=50, alpha=1.0, kappa=kappa))
        run, _ = jax.jit(jax.vmap(make_train(env, agent, 4_000)))(jax.random.split(KEY, 4))
        found[kappa] = [int(greedy_steps(open_now, values, 100, KEY)) for values in solve(run.agent)]
    assert found == {0.0: [16] * 4, 1e-3: [10] * 4}


def test_a_greedy_policy_that_does_not_arrive_says_so():
    env = envs.make("maze")
    assert int(greedy_steps(env, jnp.zeros((54, 4)), 50, KEY)) == -1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backup": "half"}, "backup must be one of sample, expected, full"),
        ({"planning_steps": -1}, "planning_steps must be at least 0"),
        ({"kappa": -1.0}, "kappa must be at least 0"),
        ({"planning_alpha": 2.0}, "planning_alpha must be at most 1"),
        ({"outcomes": 0}, "outcomes must be at least 1"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        agents.dyna_q(corridor(), agents.DynaQConfig(**settings))


def test_worlds_without_numbers_are_refused_and_a_grid_helps():
    with pytest.raises(ValueError, match="needs discrete actions"):
        agents.dyna_q(line())
    cartpole = envs.make("gymnax:CartPole-v1")
    with pytest.raises(ValueError, match="has no cells: give low, high and bins"):
        agents.dyna_q(cartpole)
    wrap = agents.SYSTEMS["dyna_q"].wrap
    with pytest.raises(ValueError, match="needs low, high and bins; high, bins not given"):
        wrap(line(), agents.DynaQConfig(low=-1.0))
    config = agents.DynaQConfig(low=-1.0, high=1.0, bins=4, action_bins=2)
    assert agents.dyna_q(wrap(line(), config), config).model is not None
