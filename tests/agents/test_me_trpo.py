"""ME-TRPO: its rule of acceptance by hand, on learners that only count, and on a line whose best return is known."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import agents, models
from jmbrl.agents.imagination import ImaginationState
from jmbrl.agents.me_trpo import around_the_mean, restarted
from jmbrl.agents.validated import no_worse, policy_in_ensemble
from jmbrl.learners import TRPOState
from jmbrl.rollout import evaluate
from jmbrl.train import make_train
from jmbrl.types import Discrete, Learner

from worlds import line

# x' = x + a / 2 from x uniform on [-1, 1], reward -x'^2: see test_mbpo.
OPTIMUM = -0.0417
STILL = -6.67

NOTHING: Any = None
SMALL = agents.METRPOConfig(
    members=3,
    hidden=(32,),
    model_learning_rate=5e-3,
    model_batch_size=16,
    epochs=60,
    policy_hidden=(8,),
    initial_std=0.5,
    max_kl=0.05,
    batch=400,
    updates=20,
    validation=50,
    tolerated=0.34,
    action_noise=0.5,
    parameter_noise=0.5,
    fit_every=60,
    warmup=60,
    capacity=200,
)


# ------------------------------------------------------------------------------------------ the rule


@pytest.mark.parametrize(
    ("returns", "accepted"),
    [
        ([2, 2, 2, 2, 2, 2, 2, 0, 0, 0], True),  # exactly 70 % improve
        ([2, 2, 2, 2, 2, 2, 0, 0, 0, 0], False),  # 60 % do
        ([1] * 10, True),  # none is worse
        ([2, 2, 2, 2, 2, 2, 2, 0, 0, np.nan], True),
        ([2, 2, 2, 2, 2, 2, 2, 0, 0.5, np.nan], True),
        ([2, 2, 2, 2, 2, 2, 0, 0, 0, np.nan], False),
        ([np.nan] * 10, False),
        ([np.inf] * 10, False),
    ],
)
def test_a_policy_may_be_worse_in_three_of_ten_members(returns, accepted):
    assert bool(no_worse(jnp.asarray(returns, jnp.float32), jnp.ones(10), 0.3)) is accepted


@pytest.mark.parametrize(("members", "allowed"), [(1, 0), (3, 0), (5, 1), (10, 3)])
def test_how_many_members_may_be_worse(members, allowed):
    for worse in range(members + 1):
        returns = jnp.where(jnp.arange(members) < worse, 0.0, 1.0)
        assert bool(no_worse(returns, jnp.full(members, 0.5), 0.3)) is (worse <= allowed)


def test_a_member_that_was_broken_and_no_longer_is_counts_as_better():
    assert bool(no_worse(jnp.ones(2), jnp.asarray([jnp.nan, 1.0]), 0.0))


# ------------------------------------------------------------------------------------------ the phase


@pytest.fixture(scope="module")
def phase():
    """A phase of at most ten updates whose learner only counts them, ``n``; it ends five after it accepted one.

    Member ``k`` pays ``table[n // 2, k]`` whatever is done: it is told ``n`` by the actions.
    """
    env, blocks, members = line(), 6, 4
    inner = models.deterministic_mlp(env.spec, hidden=(4,), reward=env.reward_fn, weight_decay=0.0)

    def step_many(key, params, beliefs, actions):
        block = jnp.round(100 * actions[:, 0]).astype(jnp.int32) // 2
        outcome = inner.step_many(key, params, beliefs, actions)[1]
        return beliefs, outcome._replace(reward=params.weights["pay"][block])

    def init(key):
        params = inner.init(key)
        return params._replace(weights=params.weights | {"pay": jnp.zeros(blocks)})

    model = models.ensemble(inner._replace(init=init, step_many=step_many), members)
    learner = Learner(
        init=lambda key: jnp.zeros(()),
        act=lambda key, state, x, explore: (state[None] / 100, jnp.zeros(())),
        update=lambda key, state, rows, mask: (state + 1, {"skipped": jnp.ones(()), "used": jnp.mean(mask)}),
    )
    improve = policy_in_ensemble(
        model, learner, horizon=2, paths=4, updates=10, validate_every=2, validation=3, tolerated=0.3, stop_after=5
    )

    @jax.jit
    def run(table):
        params = model.init(jax.random.key(0))
        params = params._replace(weights=params.weights | {"pay": table.T})
        starts = lambda key, n: jnp.zeros((n, 1))  # noqa: E731
        return improve(jax.random.key(1), params, lambda belief: belief, starts, jnp.zeros(()))

    def numbers(table):
        state, info = run(jnp.asarray(table, jnp.float32))
        return float(state), {name: float(value) for name, value in info.items()}

    return numbers


def test_the_last_accepted_policy_is_restored(phase):
    """After 2 updates: accepted; 4: accepted, one of four is worse; 6: refused, two are; 8: refused, a NaN and one."""
    nan = np.nan
    state, info = phase([[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 0.5], [3, 3, 0, 0], [3, 3, nan, 0.4], [0, 9, 9, 0]])
    assert state == 4
    assert info["policy/updates"] == 10
    assert info["policy/accepted"] == 2
    assert info["policy/improved"] == 1  # 2, 2, 2, 0.5 against zeros
    assert info["policy/imagined_return"] == 2 * (2 + 2 + 2 + 0.5) / 4  # two steps
    assert info["policy/imagined_before"] == 0
    assert info["learner/skipped"] == 10  # a sum


def test_the_phase_ends_so_many_updates_after_the_last_accepted_policy(phase):
    """2 + 5, rounded up to a whole block."""
    state, info = phase([[0] * 4, [1] * 4, [0] * 4, [0] * 4, [0] * 4, [9] * 4])
    assert (state, info["policy/updates"], info["policy/accepted"]) == (2, 8, 1)
    assert info["policy/imagined_return"] == 2
    state, info = phase([[i] * 4 for i in range(6)])
    assert (state, info["policy/updates"], info["policy/accepted"]) == (10, 10, 5)


def test_what_a_broken_member_imagines_is_left_out_of_the_updates(phase):
    """Two of four pay NaN but in the first two updates of six: half of the rows in two thirds of the time."""
    state, info = phase([[0] * 4] + [[1, 1, np.nan, np.nan]] * 5)
    assert (state, info["policy/updates"], info["policy/accepted"], info["policy/improved"]) == (0, 6, 0, 0)
    assert info["imagine/nonfinite"] == pytest.approx(1 / 3)
    assert info["learner/used"] == pytest.approx(2 / 3)


# ------------------------------------------------------------------------------------------ the system


@pytest.fixture(scope="module")
def trained():
    env = line()
    agent = agents.me_trpo(env, SMALL)
    train = make_train(env, agent, 180)

    @jax.jit
    def run(key):
        state, history = train(key)
        return state.agent, history, evaluate(jax.random.fold_in(key, 7), env, agent, state.agent, 50)["returns"]

    return [run(jax.random.key(seed)) for seed in range(3)]


def test_two_phases_suffice_on_the_line(trained):
    returns = [float(np.mean(found)) for _, _, found in trained]
    assert max(returns) <= 0.0
    assert np.median(returns) > OPTIMUM - 0.25, returns
    assert min(returns) > STILL / 4, returns


def test_metrics_say_what_was_done(trained):
    for _, history, returns in trained:
        assert history["policy/updates"].shape == (2,)  # at steps 60 and 120
        np.testing.assert_array_equal(history["learner/updates"], history["policy/updates"])
        np.testing.assert_array_equal(history["learner/skipped"], [0, 0])
        assert history["policy/improved"][0] == 1
        assert np.all(history["policy/imagined_return"] >= history["policy/imagined_before"] - 1)
        assert history["policy/imagined_return"].max() <= 0
        # Ten imagined steps against twenty real ones, of which the first few pay.
        np.testing.assert_allclose(history["policy/imagined_return"][-1], np.mean(returns), atol=0.3)


def test_exploration_is_a_shaken_policy_for_an_episode_and_noise_in_every_step():
    """A learner whose action is its one weight, which the last phase moved by 0.1."""
    learner = Learner(NOTHING, lambda key, state, x, explore: (state.policy["net"]["w"], jnp.zeros(())), NOTHING)
    space = line().spec
    net = {"w": jnp.asarray([0.2])}
    state = ImaginationState(NOTHING, (), NOTHING, None, TRPOState({"net": net}, ()), {"w": jnp.asarray([0.1])})

    def episodes(action, parameter, steps):
        """``[1000 episodes, steps]`` of actions."""
        noise = around_the_mean(space, learner, action, parameter)

        def episode(key):
            def step(left, key):
                chosen, left = noise.apply(key, state, left, jnp.zeros(1), jnp.zeros(1))
                return left, chosen[0]

            return jax.lax.scan(step, noise.init(), jax.random.split(key, steps))[1]

        return np.asarray(jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), 1000)))

    shaken = episodes(0.0, 2.0, 3)
    np.testing.assert_array_equal(shaken, shaken[:, :1].repeat(3, axis=1))
    np.testing.assert_allclose([shaken.mean(), shaken.std()], [0.2, 2.0 * 0.1], atol=0.02)  # 3 standard errors
    noisy = episodes(0.3, 0.0, 3)
    # sigma^2 E[u^2] = 0.09 / 3, drawn anew in each step.
    np.testing.assert_allclose([noisy.mean(), noisy.std()], [0.2, 0.3 / 3**0.5], atol=0.015)
    assert abs(np.corrcoef(noisy[:, 0], noisy[:, 1])[0, 1]) < 0.1
    assert np.abs(episodes(3.0, 0.0, 3)).max() == 1
    np.testing.assert_allclose(episodes(0.0, 0.0, 3), 0.2)


def test_discrete_actions_are_drawn_from_the_shaken_policy():
    learner = Learner(NOTHING, lambda key, state, x, explore: (jnp.int32(explore), jnp.zeros(())), NOTHING)
    state = ImaginationState(NOTHING, (), NOTHING, None, TRPOState({"net": {}}, ()), {})
    noise = around_the_mean(dataclasses.replace(line().spec, action=Discrete(2)), learner, 3.0, 3.0)
    assert int(noise.apply(jax.random.key(0), state, noise.init(), jnp.zeros(1), jnp.int32(0))[0]) == 1


def test_each_phase_begins_with_the_first_standard_deviation():
    weights = {"net": jnp.ones(2), "log_std": jnp.asarray([-3.0, 1.0])}
    again = restarted(TRPOState(weights, jnp.ones(3)), 0.5)
    np.testing.assert_allclose(again.policy["log_std"], np.log([0.5, 0.5]), rtol=1e-6)
    np.testing.assert_array_equal(again.policy["net"], weights["net"])
    assert "log_std" not in restarted(TRPOState({"net": jnp.ones(2)}, ()), 0.5).policy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 9}, "batch must be at least 20, got 9"),
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"updates": 0}, "updates must be at least 1, got 0"),
        ({"updates": 7}, "updates must be a multiple of validate_every=5, got 7"),
        ({"validation": 0}, "validation must be at least 1, got 0"),
        ({"stop_after": 0}, "stop_after must be at least 1, got 0"),
        ({"tolerated": 1.2}, "tolerated must be at most 1.0, got 1.2"),
        ({"reinitialize": 0}, "reinitialize must be at least 1, got 0"),
        ({"fit_every": 0}, "fit_every must be at least 1, got 0"),
        ({"action_noise": -1.0}, "action_noise must be at least 0.0, got -1.0"),
        ({"parameter_noise": -1.0}, "parameter_noise must be at least 0.0, got -1.0"),
        ({"holdout": 1.0}, "holdout must be at most 0.999, got 1.0"),
        ({"baseline": "none"}, "baseline must be one of network, linear"),
        ({"warmup": 0}, "warmup must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        agents.me_trpo(line(), dataclasses.replace(SMALL, **change))


def test_one_model_is_no_ensemble():
    env = line()
    with pytest.raises(ValueError, match="policy_in_ensemble needs an ensemble"):
        policy_in_ensemble(models.deterministic_mlp(env.spec, (8,)), NOTHING, horizon=1, paths=1)
