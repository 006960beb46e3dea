"""Model-free agents from a replay: probe worlds whose values are known, the schedule, what is drawn and how often."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learners.probes import BOX, probe

from jmbrl import agents, configs, data
from jmbrl.agents.off_policy import schedule, summary
from jmbrl.networks import QNetwork
from jmbrl.train import make_train
from jmbrl.types import Discrete, Learner

from worlds import counter, line

GAMMA = 0.7
KEY = jax.random.key(1)


def trained(env, agent, steps):
    return jax.jit(make_train(env, agent, steps))(KEY)


def test_dqn_finds_a_probes_values_over_two_steps_by_priority():
    """``later`` pays with its second step: worth gamma at first and 1 then."""
    world = probe("later", gamma=GAMMA)
    config = agents.DQNConfig(
        hidden=(32,), learning_rate=1e-2, gamma=GAMMA, target_every=20, n_step=2, prioritized=True, beta_steps=400,
        batch_size=32, updates=2, warmup=40, capacity=200, epsilon=(1.0, 0.1), epsilon_updates=200,
    )  # fmt: skip
    run, _ = trained(world.env, agents.dqn(world.env, config), 440)
    values: Any = QNetwork(2, (32,)).apply(run.agent.learner.online, world.obs)
    np.testing.assert_allclose(jnp.max(values[..., 0], axis=1), world.value, atol=0.06)


def test_sac_finds_a_probes_best_actions():
    world: Any = probe("both", BOX, gamma=GAMMA)
    config = agents.SACConfig(
        hidden=(32,), learning_rate=1e-2, gamma=GAMMA, alpha=0.01, learn_alpha=False, batch_size=32, updates=2,
        warmup=100, capacity=1000, tau=0.05,
    )  # fmt: skip
    agent = agents.sac(world.env, config)
    run, _ = trained(world.env, agent, 400)
    for obs, best in zip(world.obs, world.action, strict=True):
        action = agent.act(KEY, run.agent, (), obs, jnp.asarray(True), False)[0]
        np.testing.assert_allclose(action, best, atol=0.15)


# ------------------------------------------------------------------------------------- around the learner


def ledger() -> Learner:
    """A learner that only writes down what it was given: updates, rows, sums of rewards, weights and discounts."""

    def act(key, state, features, explore):
        return jnp.zeros(1), jnp.zeros(())

    def update(key, state, batch):
        rows, discount, weight = batch if isinstance(batch, data.NStepRows) else (batch, jnp.zeros(1), jnp.ones(1))
        seen = jnp.stack([1.0, len(rows.reward), jnp.sum(rows.reward), jnp.max(discount), jnp.max(weight)])
        info = {"updates": jnp.ones(()), "size": jnp.float32(len(rows.reward))}
        return state + seen, info | {"priority": rows.obs[:, 0]}

    return Learner(lambda key: jnp.zeros(5), act, update)


def test_updates_rows_and_metrics_are_counted():
    env = line()
    agent = agents.off_policy(env.spec, ledger(), batch_size=6, updates=3, warmup=10, capacity=50)
    run, history = trained(env, agent, 20)
    np.testing.assert_array_equal(run.agent.learner[:2], [30, 180])  # three updates of six rows, ten times
    np.testing.assert_array_equal(history["learner/updates"], np.full(10, 3.0))
    np.testing.assert_array_equal(history["learner/size"], np.full(10, 6.0))
    assert "learner/priority" not in history
    rare = agents.off_policy(env.spec, ledger(), batch_size=6, updates=0.2, warmup=10, capacity=50)
    assert trained(env, rare, 20)[0].agent.learner[0] == 2


def test_rows_are_preferred_by_the_priority_reported_and_broken_ones_never_drawn():
    """The observation is reported as the priority: ``counter`` counts 0 to 7, the row that leads to 4 is broken."""
    env = counter(length=8, breaks_at=4)
    preferred = agents.Priority(alpha=1.0, beta=1.0)
    agent = agents.off_policy(
        env.spec, ledger(), batch_size=8, updates=1, warmup=8, capacity=40, n_step=2, gamma=0.5, prioritized=preferred
    )
    run, history = trained(env, agent, 40)
    assert history["bad_transitions"].sum() == 10
    replay, priorities = run.agent.replay, run.agent.priorities
    leaves = np.asarray(priorities.tree[priorities.tree.shape[0] // 2 :])[:40]
    np.testing.assert_array_equal(leaves > 0, replay.valid[:, 0])
    # A row has its observation as its priority, or still the largest, which new rows get.
    seen = np.asarray(replay.data.obs[:, 0, 0])[replay.valid[:, 0]]
    new = np.isclose(leaves[leaves > 0], priorities.largest, atol=1e-3)
    assert new.sum() < 25
    np.testing.assert_allclose(leaves[leaves > 0][~new], seen[~new], atol=1e-3)
    assert run.agent.learner[4] == 32  # the largest weight of each of 32 batches is 1
    assert 0 < run.agent.learner[3] / 32 <= 0.5  # gamma, or gamma squared


def test_windows_begin_with_the_rows_of_the_batch_and_go_on_in_their_order():
    """Of ``counter``, whose episodes are shorter than a window; the learner adds up what does not fit."""

    def update(key, state, batch, window):
        rows, seen = batch.rows, window.transition
        first = jnp.sum(jnp.abs(rows.obs - seen.obs[:, 0])) + jnp.sum(~window.mask[:, 0])
        goes_on = window.mask[:, 1:] & ~window.is_first[:, 1:]
        gap = jnp.sum(jnp.where(goes_on[..., None], jnp.abs(seen.obs[:, 1:] - seen.next_obs[:, :-1]), 0.0))
        begins = window.mask[:, 1:] & window.is_first[:, 1:]
        wrong = jnp.sum(jnp.where(begins, seen.obs[:, 1:, 0], 0.0))  # an episode begins with 0
        count = jnp.stack([jnp.sum(goes_on), jnp.sum(begins), jnp.sum(~window.mask)]).astype(jnp.float32)
        return state + jnp.concatenate([jnp.stack([first, gap, wrong]), count]), {"updates": jnp.ones(())}

    learner = Learner(lambda key: jnp.zeros(6), ledger().act, update)
    env = counter(length=4)
    agent = agents.off_policy(env.spec, learner, batch_size=8, warmup=12, capacity=16, n_step=2, window=6)
    run, _ = jax.jit(make_train(env, agent, 52, num_envs=2))(KEY)
    np.testing.assert_array_equal(run.agent.learner[:3], 0.0)
    assert np.all(run.agent.learner[3:] > 50)


def test_settings_make_an_encoder_and_its_losses():
    settings = ["encoder=16", "auxiliary.spr=2", "auxiliary.reward=0.5", "auxiliary_steps=3", "hidden=8", "warmup=10"]
    made = configs.make("dqn", "gymnax:CartPole-v1", steps=20, preset="none", settings=settings)
    assert made["config"]["auxiliary"] == {"spr": 2, "reward": 0.5}
    config = configs.settings_of(made)
    env = probe("later").env
    run, history = trained(env, agents.dqn(env, dataclasses.replace(config, updates=1, batch_size=4, capacity=20)), 14)
    assert run.agent.learner.online.encoder["encoder"]["dense"][0]["kernel"].shape == (1, 16)
    assert np.all((history["learner/spr_loss"] > -3.001) & (history["learner/spr_loss"] < 3.0))
    with pytest.raises(ValueError, match="auxiliary losses need an encoder"):
        agents.sac(line(), agents.SACConfig(auxiliary={"spr": 2.0}))
    with pytest.raises(ValueError, match=r"window must be at most 4, got 5"):
        agents.dqn(env, dataclasses.replace(config, capacity=4, auxiliary_steps=5))


def test_several_environments_share_the_priorities():
    env = line()
    agent = agents.off_policy(
        env.spec, ledger(), batch_size=4, updates=1, warmup=4, capacity=10, prioritized=agents.Priority()
    )
    run, _ = jax.jit(make_train(env, agent, 12, num_envs=2))(KEY)
    leaves = run.agent.priorities.tree[32:][:20]
    np.testing.assert_array_equal(leaves > 0, np.arange(20) < 12)


def test_schedules():
    assert [schedule(x) for x in (1, 20, 0.25, 0.1, 1 / 3)] == [(1, 1), (1, 20), (4, 1), (10, 1), (3, 1)]
    for bad in (0, 1.5, 0.4, 0.75):
        with pytest.raises(ValueError, match="updates must be a whole number or 1 divided by one"):
            schedule(bad)
    np.testing.assert_array_equal(summary("skipped", jnp.ones(3)), 3.0)
    np.testing.assert_array_equal(summary("q", jnp.ones(3)), 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"warmup": 0}, "warmup must be at least 1, got 0"),
        ({"n_step": 0}, "n_step must be at least 1, got 0"),
        ({"capacity": 2, "n_step": 3}, "n_step must be at most 2, got 3"),
        ({"updates": -1}, "updates must be at least 0.0, got -1"),
        ({"prioritized": agents.Priority(beta=2.0)}, "beta must be at most 1.0, got 2.0"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        agents.off_policy(line().spec, ledger(), **change)


def test_actions_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"dqn needs discrete actions, got Continuous.*use sac, or envs.discretise"):
        agents.dqn(line())
    with pytest.raises(ValueError, match="sac needs continuous actions"):
        agents.sac(probe("both").env)


def test_bins_make_numbers_of_continuous_actions():
    system = agents.SYSTEMS["dqn"]
    env = system.wrap(line(), agents.DQNConfig(action_bins=3))
    assert env.spec.action == Discrete(3)
    assert env.cells is None
    assert system.wrap(line(), agents.DQNConfig()).spec == line().spec
