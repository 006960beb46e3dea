"""The plain loop and the library's agent are the same algorithm: against exact hitting times, and each other."""

import jax
import numpy as np
import pytest

from jmbrl import agents, envs
from jmbrl.bench.numpy_dyna_q import dyna_q, maze
from jmbrl.train import make_train

LIMIT = 2000  # steps of the first episode that are looked at


def survival(resolution, steps):
    """P(a uniform random walk has not met a goal after t steps), t = 0 .. steps - 1, exactly."""
    leads, goals, start = maze(resolution)
    walk = np.zeros((len(leads), len(leads)))
    for s, following in enumerate(leads):
        for s2 in following:
            walk[s, s2] += 1 / 4
    walk[:, sorted(goals)] = 0.0
    now = np.eye(len(leads))[start]
    left = []
    for _ in range(steps):
        left.append(now.sum())
        now = now @ walk
    return np.asarray(left)


def agree(lengths, limit=LIMIT):
    """The mean of ``min(T, limit)`` lies within 4 standard errors of its exact value."""
    left = survival(1, limit)
    mean = left.sum()
    spread = np.sqrt(((2 * np.arange(limit) + 1) * left).sum() - mean**2)
    assert abs(np.mean(lengths) - mean) < 4 * spread / np.sqrt(len(lengths))


@pytest.mark.parametrize("resolution", [1, 2])
def test_the_maze_is_the_environments(resolution):
    """The library draws its own: random moves, 16 walks to their end."""
    leads, goals, start = maze(resolution)
    env = envs.make("maze", resolution=resolution)
    moves = np.random.default_rng(0).integers(4, size=(16, 600))

    def one(state, move):
        following, seen = env.step(jax.random.key(0), state, move)
        return following, (env.cells.index(seen.obs), seen.terminated)

    state, obs = env.reset(jax.random.key(0))
    walks = jax.jit(jax.vmap(lambda moves: jax.lax.scan(one, state, moves)[1]))(moves)
    assert int(env.cells.index(obs)) == start
    met = set()
    for path, numbers, ended in zip(moves.tolist(), *(np.asarray(x).tolist() for x in walks), strict=True):
        at = start
        for move, number, end in zip(path, numbers, ended, strict=True):
            at = leads[at][move]
            met.add(at)
            assert (number, end) == (at, at in goals)
            if end:  # what follows is not defined
                break
    assert len(met) > 0.8 * 47 * resolution**2
    assert met & goals


def test_the_exact_hitting_time_is_a_linear_systems():
    """Without a limit the survival function sums to m of (I - P) m = 1, over the states that can be reached."""
    leads, goals, start = maze()
    free = {start}
    while new := {s2 for s in free for s2 in leads[s]} - free - goals:
        free |= new
    order = sorted(free)
    place = {s: i for i, s in enumerate(order)}
    walk = np.zeros((len(order), len(order)))
    for s in order:
        for s2 in leads[s]:
            if s2 not in goals:
                walk[place[s], place[s2]] += 1 / 4
    mean = np.linalg.solve(np.eye(len(order)) - walk, np.ones(len(order)))[place[start]]
    assert len(order) == 54 - 7 - 1  # walls, goal
    assert survival(1, 30_000).sum() == pytest.approx(mean, rel=1e-9)
    assert mean == pytest.approx(868.73, abs=0.01)


@pytest.mark.parametrize("planning_steps", [0, 5])
def test_the_loops_first_episode_is_a_random_walk(planning_steps):
    """All values are 0 until the first goal."""
    first = [dyna_q(seed, LIMIT, planning_steps, episodes=1) or [LIMIT] for seed in range(100)]
    agree([min(length, LIMIT) for (length,) in first])


def test_the_agents_first_episode_is_a_random_walk():
    env = envs.make("maze")
    train = make_train(env, agents.dyna_q(env, agents.DynaQConfig(planning_steps=0)), LIMIT)
    history = jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(0), 400))[1]
    lengths = np.asarray(history["episode_length"])[..., 0]
    agree([row[row > 0][0] if (row > 0).any() else LIMIT for row in lengths])


def test_both_learn_as_fast():
    """n = 50: 14 steps are optimal; with one action in ten at random the source measures 16 to 18 from episode 3 on."""
    env = envs.make("maze")
    train = make_train(env, agents.dyna_q(env, agents.DynaQConfig(planning_steps=50)), 3000)
    lengths = np.asarray(jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(1), 10))[1]["episode_length"])[..., 0]
    ours = [row[row > 0][:25] for row in lengths]
    loop = [np.asarray(dyna_q(seed, 3000, 50, episodes=25)) for seed in range(4)]
    for runs in (ours, loop):
        late = np.concatenate([run[5:25] for run in runs if len(run) >= 10])
        assert len(late) >= 60
        assert late.min() >= 14
        assert 15.5 < late.mean() < 18.5
        second = [run[1] for run in runs if len(run) > 1]
        assert np.mean(second) < 100  # without planning: 700
