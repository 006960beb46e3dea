"""PETS as a page: every option and preset builds, it learns a line, and the simulator bounds it."""

import dataclasses

import jax
import numpy as np
import pytest

from jmbrl import agents, envs
from jmbrl.agents.pets import PETSConfig, pets, true_model
from jmbrl.rollout import evaluate
from jmbrl.train import make_train

from worlds import line

SMALL = PETSConfig(
    members=2, hidden=(16,), weight_decay=(0.0, 0.0), horizon=4, population=40, elites=5, iterations=3, particles=2,
    epochs=30, learning_rate=3e-3, capacity=200, fit_every=20,
)  # fmt: skip


def mean_return(env, agent, state) -> float:
    return float(jax.jit(lambda key: evaluate(key, env, agent, state, 16))(jax.random.key(9))["returns"].mean())


def test_it_learns_a_line_and_comes_near_the_simulator():
    env = line()
    agent = pets(env, SMALL)
    run, history = jax.jit(make_train(env, agent, 120))(jax.random.key(0))
    learned = mean_return(env, agent, run.agent)
    seen = envs.with_state(env)
    bound = true_model(seen, SMALL)
    best = mean_return(seen, bound, bound.init(jax.random.key(0), 1))
    # x' = x + a / 2 with |a| <= 1: from |x| <= 1/2 nothing is paid, beyond it (|x| - 1/2)^2 once: 1/24 on average.
    np.testing.assert_allclose(best, -1 / 24, atol=0.03)
    assert learned > best - 0.1
    assert history["episode_return"][19, 0] < best - 0.1  # the random episode
    assert np.all(np.asarray(history["model/diverged"]) == 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"propagation": "ts1"},
        {"propagation": "mean", "particles": 1},
        {"probabilistic": False},
        {"learn_reward": True},
        {"planner": "random_shooting"},
        {"replan_every": 2},
    ],
    ids=lambda changes: next(iter(changes)) + "-" + str(next(iter(changes.values()))),
)
def test_every_option_runs(changes):
    env = line()
    agent = pets(env, dataclasses.replace(SMALL, epochs=1, **changes))
    _, history = jax.jit(make_train(env, agent, 30))(jax.random.key(0))
    assert np.all(np.isfinite(history["reward"]))
    assert history["act/plan_return"].shape == (10, 1)


def test_replanning_less_often_executes_the_plan():
    env = line()
    agent = pets(env, dataclasses.replace(SMALL, epochs=1, replan_every=4))
    _, history = jax.jit(make_train(env, agent, 40))(jax.random.key(0))
    planned = np.asarray(history["act/plan_return"][:, 0]) != 0.0  # zero where an old plan was followed
    np.testing.assert_array_equal(planned, np.arange(20) % 4 == 0)


@pytest.mark.parametrize("preset", sorted(agents.PRESETS["pets"]))
def test_every_preset_builds(preset):
    config = PETSConfig(**agents.PRESETS["pets"][preset])
    agent = pets(line(), config)
    shapes = jax.eval_shape(lambda key: agent.init(key, 1), jax.random.key(0))
    kernels = [x.shape for x in jax.tree.leaves(shapes.params.weights) if len(x.shape) == 3]
    assert kernels[0] == (config.members, 2, config.hidden[0])
    assert len(config.weight_decay) == len(config.hidden) + 1


@pytest.mark.parametrize(
    ("env", "preset"),
    [
        ("gymnax:Pendulum-v1", "pendulum"),
        ("cartpole_swingup", "cartpole_swingup"),
        ("gymnasium:InvertedPendulum-v5", "inverted_pendulum"),
        ("brax:inverted_pendulum/spring", "inverted_pendulum"),
        ("gymnasium:HalfCheetah-v5", "halfcheetah"),
        ("pendulum_masked", "pendulum"),
        ("gymnax:CartPole-v1", None),
        ("gymnasium:InvertedDoublePendulum-v5", None),
    ],
)
def test_environments_find_their_preset(env, preset):
    assert agents.default_preset("pets", env) == preset


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"elites": 50}, "elites must be at most 40, got 50"),
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"replan_every": 5}, "replan_every must be at most 4, got 5"),
        ({"planner": "icem"}, "planner must be one of cem, random_shooting; got 'icem'"),
        ({"propagation": "ts2"}, "propagation must be one of ts1, tsinf, mean"),
        ({"members": 0}, "n must be at least 1, got 0"),
        ({"warmup": 0}, "warmup must be at least 1, got 0"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_compiled(changes, message):
    with pytest.raises(ValueError, match=message):
        pets(line(), dataclasses.replace(SMALL, **changes))
