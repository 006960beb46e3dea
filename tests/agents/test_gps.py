"""Guided policy search on a linear-quadratic task whose least cost is known."""

import dataclasses

import jax
import numpy as np
import pytest
from agents import lq_world
from agents.lq_world import H, least_cost, world

from jmbrl import agents
from jmbrl.types import Discrete

KEY = jax.random.key(0)
FAST = {"xla_backend_optimization_level": 0}
SMALL = agents.GPSConfig(em_iterations=3, clusters=2, hidden=(16,), updates=600, learning_rate=3e-3)
ITERATIONS = 10


@pytest.fixture(scope="module")
def trained():
    """One seed: returns without exploration at the end, and what the updates said."""
    env = world()
    return lq_world.trained(env, agents.gps(env, SMALL), SMALL.samples * H * ITERATIONS)


def test_a_few_iterations_come_near_the_riccati_cost(trained):
    last, history = trained
    best, _ = least_cost()
    cost = -last.mean()
    assert cost > 0.97 * best
    assert cost < 1.15 * best, (cost, best)
    assert np.nanmean(history["episode_return"][: SMALL.samples * H]) < -2.0 * best  # what it began with


def test_every_update_is_taken_and_learns(trained):
    history = trained[1]
    assert history["controller/cost"].shape == (ITERATIONS - 1,)
    assert np.all(history["controller/skipped"] == 0)
    assert np.all(history["policy/updates"] == SMALL.updates)
    assert np.all(history["policy/skipped"] == 0)
    assert history["controller/cost"][-1] < 0.7 * history["controller/cost"][0]
    assert SMALL.min_std - 1e-6 <= history["policy/std"][-1] < SMALL.initial_std


@pytest.mark.parametrize("clock", [False, True])
def test_the_network_reads_the_time_where_asked(clock):
    agent = agents.gps(world(), dataclasses.replace(SMALL, clock=clock))
    state = agent.init(KEY, 1)
    act = jax.jit(agent.act, static_argnums=5, compiler_options=FAST)
    carry, taken = agent.reset(state), []
    for t in range(3):  # the third row begins an episode
        action, carry, _ = act(KEY, state, carry, np.ones(2, np.float32), np.asarray(t == 2), False)
        taken.append(float(action[0]))
    assert (taken[0] != taken[1]) == clock
    assert taken[2] == taken[0]


def test_bad_settings_are_refused():
    env = world()
    with pytest.raises(ValueError, match="gps needs continuous actions"):
        agents.gps(env._replace(spec=dataclasses.replace(env.spec, action=Discrete(3))))
    wrong = {"samples": 0, "past": 2, "hidden": (0,), "updates": 0, "batch_size": 0, "weight_decay": -1.0}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=name):
            agents.gps(env, agents.GPSConfig(**{name: value}))
