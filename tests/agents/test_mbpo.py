"""MBPO on a line whose best return is known, and its imagined rows by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import agents, envs
from jmbrl.agents.imagination import imagined_rows
from jmbrl.rollout import evaluate
from jmbrl.train import make_train
from jmbrl.types import Outcome, Trajectory

from worlds import line

# x' = x + a / 2 from x uniform on [-1, 1], reward -x'^2. The best policy, a = -2x cut to [-1, 1], only pays where
# |x| > 1/2: -E[(|x| - 1/2)+^2] = -(1/2)^3 / 3.
OPTIMUM = -0.0417
# Doing nothing pays 20 times -1/3; random actions about -24.
STILL = -6.67

SMALL = agents.MBPOConfig(
    members=3,
    elites=2,
    hidden=(32,),
    weight_decay=(0.0, 0.0),
    learn_reward=False,
    model_learning_rate=5e-3,
    model_batch_size=16,
    epochs=200,
    holdout=0.0,
    rollouts=400,
    rollout=(0, 1, 2, 2),
    retain=3,
    real_ratio=0.2,
    policy_hidden=(32, 32),
    learning_rate=3e-3,
    batch_size=64,
    updates=20,
    gamma=0.9,
    tau=0.02,
    alpha=0.1,
    fit_every=20,
    warmup=40,
    capacity=200,
)


@pytest.fixture(scope="module")
def trained():
    env = line()
    agent = agents.mbpo(env, SMALL)
    train = make_train(env, agent, 100)

    @jax.jit
    def run(key):
        state, history = train(key)
        return state.agent, history, evaluate(jax.random.fold_in(key, 7), env, agent, state.agent, 50)["returns"]

    return [run(jax.random.key(seed)) for seed in range(3)]


def test_a_hundred_steps_suffice_on_the_line(trained):
    returns = [float(np.mean(found)) for _, _, found in trained]
    assert max(returns) <= 0.0
    assert np.median(returns) > OPTIMUM - 0.25, returns
    assert min(returns) > STILL / 4, returns


def test_what_is_imagined_obeys_the_world(trained):
    """0.1 is a fifth of the largest step: the model's mean and its predicted noise are both small."""
    for state, _, _ in trained:
        rows, kept = state.memory.data, state.memory.valid
        assert kept.all()
        error = rows.next_obs - rows.obs - 0.5 * rows.action
        assert float(jnp.sqrt(jnp.mean(error**2))) < 0.1
        np.testing.assert_allclose(rows.reward, -jnp.sum(rows.next_obs**2, axis=-1), atol=1e-5)
        np.testing.assert_allclose(rows.obs[1], rows.next_obs[0])  # the second step goes on from the first
        assert not rows.terminated.any()
        np.testing.assert_array_equal(rows.truncated[:, 0], [False, True] * 3)


def test_metrics_say_what_was_done(trained):
    _, history, _ = trained[0]
    assert history["model/mse"].shape == (3,)  # fits at steps 40, 60 and 80
    assert history["imagine/clipped"].shape == (3,)
    assert np.all((history["imagine/clipped"] >= 0) & (history["imagine/clipped"] <= 1))
    np.testing.assert_array_equal(history["learner/updates"], np.full(60, 20.0))
    np.testing.assert_array_equal(history["learner/skipped"], np.zeros(60))


def test_nothing_is_imagined_after_an_end():
    """Two trajectories of three steps; the second ends at its second step."""
    discount = jnp.asarray([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    belief = jnp.arange(6.0).reshape(3, 2, 1)
    outcome = Outcome(10 * belief[..., 0], discount, jnp.zeros((3, 2, 0)), jnp.zeros((3, 2), bool))
    path = Trajectory(belief, -belief, (), outcome, belief + 2)
    rows, alive = imagined_rows(jax.random.key(0), path, lambda belief: 2 * belief)
    np.testing.assert_array_equal(alive, [[True, True], [True, True], [True, False]])
    np.testing.assert_array_equal(rows.terminated, [[False, False], [False, True], [False, False]])
    np.testing.assert_array_equal(rows.truncated, [[False, False], [False, False], [True, True]])
    np.testing.assert_array_equal(rows.next_obs, 2 * (belief + 2))
    np.testing.assert_array_equal(rows.reward, [[0, 10], [20, 30], [40, 50]])


def test_a_learned_end_is_drawn_with_its_probability():
    outcome = Outcome(
        jnp.zeros((1, 4000)), jnp.full((1, 4000), 0.7), jnp.zeros((1, 4000, 0)), jnp.zeros((1, 4000), bool)
    )
    belief = jnp.zeros((1, 4000, 1))
    rows, _ = imagined_rows(jax.random.key(0), Trajectory(belief, belief, (), outcome, belief), lambda belief: belief)
    np.testing.assert_allclose(jnp.mean(rows.terminated), 0.3, atol=0.03)


@pytest.mark.parametrize(
    ("step", "length"),
    [(0, 1), (20_999, 1), (21_000, 1), (29_000, 1), (30_000, 2), (149_000, 14), (150_000, 15), (10**6, 15)],
)
def test_rollouts_grow_as_the_schedule_says(step, length):
    """Hopper's: from 1 to 15 between epochs 20 and 150, an epoch being 1000 steps; 14 / 130 of a step per epoch."""
    grow = agents.RolloutLength(20, 150, 1, 15)
    assert int(grow(jnp.int32(step))) == length


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rollout": (0, 1, 0, 1)}, "rollout k0 must be at least 1, got 0"),
        ({"rollout": (0, 1, 3, 2)}, "rollout k1 must be at least 3, got 2"),
        ({"rollout": (2, 2, 1, 1)}, "rollout must have e0 < e1, got 2 and 2"),
        ({"rollouts": 0}, "rollouts must be at least 1, got 0"),
        ({"real_ratio": 1.5}, "real_ratio must be at most 1.0, got 1.5"),
        ({"updates": 0}, "updates must be a whole number or 1 divided by one, got 0"),
        ({"real_ratio": 1.0}, "real_ratio must leave imagined rows, got 1.0 of 256; without them it is sac"),
        ({"warmup": 0}, "warmup must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        agents.mbpo(line(), agents.MBPOConfig(**({"hidden": (8,), "weight_decay": (0.0, 0.0)} | change)))


def test_discrete_actions_are_learned_by_q_learning():
    """Three pushes on the line, left, none and right: no more than random actions are needed to learn from."""
    env = envs.number_actions(line(), 3)
    agent = agents.mbpo(env, dataclasses.replace(SMALL, epsilon_updates=400, learning_rate=1e-3, updates=10))
    train = make_train(env, agent, 100)
    run = jax.jit(train)(jax.random.key(0))[0]
    found = evaluate(jax.random.key(7), env, agent, run.agent, 50)["returns"]
    assert float(np.mean(found)) > STILL / 2, found


def test_the_ring_holds_the_rows_of_as_many_fits_as_are_retained():
    """Four fits of 5 rollouts: one step each in the first two epochs, then two; the rows of two fits are kept."""
    env = line()
    settings = {"rollouts": 5, "retain": 2, "rollout": (0, 2, 1, 2), "epoch": 20, "updates": 1, "epochs": 1}
    agent = agents.mbpo(env, dataclasses.replace(SMALL, **settings))
    train = make_train(env, agent, 120)
    run, parts = jax.jit(train.init)(jax.random.key(0)), []
    chunk = jax.jit(train.chunk, static_argnums=(3, 4))
    for span in train.spans():
        run, metrics = chunk(jax.random.key(0), run, jnp.int32(span.start), span.length, span.warmup)
        if not span.warmup:
            parts.append((float(metrics["imagine/length"][0]), int(run.agent.memory.valid.sum())))
    assert parts == [(1.0, 5), (1.0, 10), (2.0, 20), (2.0, 20)]
