"""Prioritized sweeping against a plain one with a dictionary and a heap, and its order by hand."""

import heapq

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agents.test_dyna_q import KEY, corridor, lived, plan

from jmbrl import agents, envs
from jmbrl.agents import greedy_steps
from jmbrl.envs.native import maze
from jmbrl.train import make_train
from jmbrl.types import Cells, Discrete, Transition


def test_one_reward_travels_back_to_the_beginning_in_order():
    config = agents.PrioritizedSweepingConfig(planning_steps=1, alpha=1.0, gamma=0.5)
    agent = agents.prioritized_sweeping(corridor(), config)
    there = [(0, 1, 0.0, 1, False), (1, 1, 0.0, 2, False), (2, 1, 0.0, 3, False), (2, 0, 0.0, 1, False)]
    state = lived(agent, *there, (3, 1, 1.0, 4, True))
    wanted = np.zeros((5, 2))
    changed = [(3, 1, 1.0), (2, 1, 0.5), (1, 1, 0.25), (0, 1, 0.125), (2, 0, 0.125)]
    for s, a, value in changed:  # the pair back from 2 waits with the priority 0.125 too, and comes after (0, right)
        state, info = plan(agent, state)
        wanted[s, a] = value
        np.testing.assert_allclose(state.learner.values, wanted)
        assert (info["sweep/backups"], info["sweep/change"]) == (1, value)
    _, info = plan(agent, state)
    assert (info["sweep/backups"], info["sweep/queue"]) == (0, 0)


def plain_sweeping(rows, config):
    """Values and the order of updates: one entry per pair, re-prioritised, errors by counted frequencies."""
    values, model, leads, queue, order = np.zeros((6, 2)), {}, {}, {}, []

    def error(pair):
        outcomes = model[pair]
        total = sum(count for count, _ in outcomes.values())
        targets = [
            count / total * (reward + config.gamma * (not ended) * values[following].max())
            for (following, ended), (count, reward) in outcomes.items()
        ]
        return sum(targets) - values[pair]

    def consider(pair):
        if abs(error(pair)) > config.threshold:
            queue[pair] = abs(error(pair))

    for s, a, reward, following, ended in rows:
        outcomes = model.setdefault((s, a), {})
        count, mean = outcomes.get((following, ended), (0, 0.0))
        outcomes[following, ended] = (count + 1, mean + (reward - mean) / (count + 1))
        leads.setdefault(following, set()).add((s, a))
        consider((s, a))
        for _ in range(config.planning_steps):
            if not queue:
                break
            heap = [(-priority, pair) for pair, priority in queue.items()]
            heapq.heapify(heap)
            pair = heap[0][1]
            del queue[pair]
            order.append(pair)
            values[pair] += config.alpha * error(pair)
            for before in leads.get(pair[0], ()):
                consider(before)
    return values, order


@pytest.mark.parametrize("outcomes", [2, 3])
def test_it_is_the_plain_algorithm(outcomes):
    """The same real steps in a random world to both.

    Not with one outcome: there all predecessors of a state have changed by the same, and rounding decides the order.
    """
    rng = np.random.default_rng(2)
    following, reward, ends = rng.integers(6, size=(6, 2, outcomes)), rng.normal(size=(6, 2)), rng.random((6, 2)) < 0.2
    rows = []
    for pair in rng.permutation(np.tile(np.arange(12), 8)):
        s, a = divmod(int(pair), 2)
        rows.append((s, a, reward[s, a], int(rng.choice(following[s, a])), bool(ends[s, a])))
    config = agents.PrioritizedSweepingConfig(planning_steps=3, outcomes=outcomes, threshold=0.01, gamma=0.9)
    cells = Cells(6, lambda obs: obs[0].astype(jnp.int32), lambda i: jnp.asarray(i, jnp.float32)[None])
    world = envs.from_functions(
        lambda key: (jnp.zeros(()), jnp.zeros(1)),
        lambda key, state, action: (state, jnp.zeros(1), 0.0, False),
        action=Discrete(2), max_steps=5, name="any", cells=cells,
    )  # fmt: skip
    agent = agents.prioritized_sweeping(world, config)
    wanted, order = plain_sweeping(rows, config)
    state, total, sweep = agent.init(KEY, 1), 0, jax.jit(agent.phases[0][1])
    record = jax.jit(lambda state, row: lived_on(agent, state, row))
    for row in rows:
        state, info = sweep(KEY, record(state, row), 0)
        total += int(info["sweep/backups"])
    assert total == len(order) > 150
    np.testing.assert_allclose(state.learner.values, wanted, atol=1e-4)


def lived_on(agent, state, row):
    s, a, reward, following, ended = (jnp.asarray(x) for x in row)
    column = lambda x: x.astype(jnp.float32)[None, None]  # noqa: E731
    rows = Transition(
        column(s), a.astype(jnp.int32)[None], reward.astype(jnp.float32)[None], column(following), ended[None],
        jnp.zeros(1, bool),
    )  # fmt: skip
    return agent.record(state, (), rows, jnp.ones(1, bool))


def test_the_maze_is_solved_with_fewer_updates_than_steps_of_a_random_walk():
    env = envs.make("maze")
    agent = agents.prioritized_sweeping(env)
    run, history = jax.jit(make_train(env, agent, 3_000))(jax.random.key(1))
    assert int(greedy_steps(env, run.agent.learner.values, 100, KEY)) == maze.shortest_path()
    first = int(np.flatnonzero(history["reward"][:, 0])[0])
    assert np.all(history["sweep/backups"][: first + 1] == 0)  # nothing to learn before the first reward
    assert history["sweep/dropped"][-1] == 0


def test_predecessors_without_room_are_counted():
    env = envs.make("maze")
    agent = agents.prioritized_sweeping(env, agents.PrioritizedSweepingConfig(predecessors=1))
    _, history = jax.jit(make_train(env, agent, 200))(KEY)
    assert history["sweep/dropped"][-1] > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"planning_steps": 0}, "planning_steps must be at least 1"),
        ({"threshold": -1.0}, "threshold must be at least 0"),
        ({"predecessors": 0}, "predecessors must be at least 1"),
        ({"alpha": 2.0}, "alpha must be at most 1"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        agents.prioritized_sweeping(corridor(), agents.PrioritizedSweepingConfig(**settings))
