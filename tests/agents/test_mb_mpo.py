"""MB-MPO on a line whose best return is known; whose policy acts, and in whose world it imagines."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import agents, learners, models
from jmbrl.models.ensemble import one_member
from jmbrl.models.fit import Trainer
from jmbrl.rollout import evaluate
from jmbrl.train import make_train
from jmbrl.types import Learner, Transition

from worlds import line

# x' = x + a / 2 from x uniform on [-1, 1], reward -x'^2. The best policy, a = -2x cut to [-1, 1], only pays where
# |x| > 1/2: -E[(|x| - 1/2)+^2] = -(1/2)^3 / 3. Doing nothing pays 20 times -1/3.
FAST = {"xla_backend_optimization_level": 0}  # compiling is what costs
OPTIMUM, STILL = -0.0417, -6.67

SMALL = agents.MBMPOConfig(
    members=2,
    hidden=(32,),
    model_learning_rate=5e-3,
    model_batch_size=32,
    epochs=100,
    holdout=0.0,
    tasks=4,
    paths=30,
    horizon=10,
    from_replay=True,
    meta_steps=25,
    policy_hidden=(8,),
    initial_std=0.5,
    gamma=0.9,
    max_kl=0.02,
    fit_every=60,
    warmup=120,
    capacity=200,
)


@pytest.fixture(scope="module")
def trained():
    env = line()
    agent = agents.mb_mpo(env, SMALL)
    train = make_train(env, agent, 240)

    @partial(jax.jit, compiler_options=FAST)
    def run(key):
        state, history = train(key)
        return state.agent, history, evaluate(jax.random.fold_in(key, 7), env, agent, state.agent, 50)["returns"]

    return jax.tree.map(lambda *x: jnp.stack(x), *[run(jax.random.key(seed)) for seed in range(3)])


def test_two_fits_suffice_on_the_line(trained):
    returns = np.mean(trained[2], axis=1)
    assert returns.max() <= 0.0
    assert np.median(returns) > OPTIMUM - 0.25, returns
    assert returns.min() > STILL / 4, returns


def test_metrics_say_what_was_done(trained):
    history = trained[1]
    for name in ("model/mse", "imagine/clipped", "learner/return_after"):
        assert history[name].shape == (3, 2), name  # fits at steps 120 and 180
    np.testing.assert_array_equal(history["learner/updates"], np.full((3, 2), 25.0))
    np.testing.assert_array_equal(history["learner/skipped"], np.zeros((3, 2)))
    np.testing.assert_array_equal(history["imagine/nonfinite"], np.zeros((3, 2)))
    assert np.all(history["learner/kl"] <= 0.02)
    assert np.all(history["learner/return_after"] <= 0)


def test_members_differ_and_so_do_their_policies(trained):
    learned = trained[0].learner
    for leaf in jax.tree.leaves(learned.adapted):
        assert leaf.shape[:2] == (3, 4)
        assert np.all(np.ptp(leaf.reshape(3, 4, -1), axis=1).max(axis=1) > 1e-6)


# ------------------------------------------------------------------------------- whose policy, whose world


class Spy(NamedTuple):
    """``policy``: the action it takes. ``adapted``: those of the tasks. ``rows``: what was imagined."""

    policy: Any
    adapted: Any
    rows: Any


TASKS, HORIZON, PATHS = 4, 3, 5


def spy():
    """A learner that takes one action, its task's where it is a task's, and remembers what is imagined."""

    def init(key):
        lead = (TASKS, HORIZON, PATHS)
        obs, flag = jnp.zeros((*lead, 1)), jnp.zeros(lead, bool)
        rows = Transition(obs, obs, jnp.zeros(lead), obs, flag, flag)
        return Spy(jnp.full(1, -0.9), 0.1 * jnp.arange(TASKS, dtype=jnp.float32)[:, None], rows)

    def update(key, state, imagine):
        rows, mask, info = imagine(key, state.adapted)
        return state._replace(rows=rows), info | {"kept": jnp.mean(mask, dtype=jnp.float32)}

    return Learner(init, lambda key, state, x, explore: (state.policy, jnp.zeros(())), update)


def stub(**change):
    """An agent with members that stay as they were made."""
    env = line()
    member = models.deterministic_mlp(env.spec, (4,), weight_decay=0.0, reward=env.reward_fn, clip_range=None)
    model = models.ensemble(member, 2)
    trainer = Trainer(lambda params: (), lambda key, params, opt, replay: (params, opt, {}))
    settings = {"tasks": TASKS, "paths": PATHS, "horizon": HORIZON, "meta_steps": 1, "normalize_features": False}
    settings |= {"fit_every": 20, "warmup": 20, "capacity": 64} | change
    return env, agents.meta_imagination(env.spec, model, trainer, spy(), **settings)


@pytest.fixture(scope="module")
def spied():
    env, agent = stub()
    run, history = jax.jit(make_train(env, agent, 100).__call__, compiler_options=FAST)(jax.random.key(0))
    return agent, run.agent, history


def test_each_task_is_imagined_by_its_own_policy_in_its_own_member(spied):
    agent, state, history = spied
    rows = state.learner.rows
    for k in range(TASKS):
        np.testing.assert_allclose(rows.action[k], np.full((HORIZON, PATHS, 1), 0.1 * k, np.float32))
        params = one_member(state.params, k % 2)
        obs, action = (x[k].reshape(-1, 1) for x in (rows.obs, rows.action))
        following, outcome = agent.model.member.step_many(jax.random.key(0), params, obs, action)
        np.testing.assert_allclose(rows.next_obs[k].reshape(-1, 1), following, atol=1e-6)
        np.testing.assert_allclose(rows.reward[k].reshape(-1), outcome.reward, atol=1e-6)
    np.testing.assert_array_equal(rows.obs[:, 1:], rows.next_obs[:, :-1])
    assert not np.allclose(rows.next_obs[0], rows.next_obs[1])  # another member
    np.testing.assert_array_equal(rows.truncated, np.broadcast_to([[False], [False], [True]], (TASKS, HORIZON, PATHS)))
    np.testing.assert_array_equal(history["learner/kept"], np.ones(4))


def test_imagined_paths_begin_where_episodes_did(spied):
    """Real episodes have 20 steps: rows 0, 20, 40 and 60 of the first 80 (the last fit)."""
    state = spied[1]
    begun = state.replay.data.obs.reshape(-1)[:64]
    assert state.replay.is_first.sum() >= 3
    starts = np.unique(state.learner.rows.obs[:, 0])
    assert 1 < len(starts) <= 4
    assert len(np.unique(begun)) > 4
    env, agent = stub(from_replay=True)
    run, _ = jax.jit(make_train(env, agent, 100).__call__, compiler_options=FAST)(jax.random.key(0))
    assert len(np.unique(run.agent.learner.rows.obs[:, 0])) > 4


def test_episodes_are_explored_by_the_adapted_policies_in_turn(spied):
    agent, state, _ = spied
    act = jax.jit(agent.act, static_argnums=5, compiler_options=FAST)
    carry, taken = agent.reset(state), []
    for t in range(12):
        action, carry, _ = act(jax.random.key(t), state, carry, jnp.zeros(1), jnp.asarray(t % 2 == 0), True)
        taken.append(round(float(action[0]) * 10))
    episodes = np.asarray(taken).reshape(6, 2)
    np.testing.assert_array_equal(episodes[:, 0], episodes[:, 1])
    np.testing.assert_array_equal(episodes[:, 0], (episodes[0, 0] + np.arange(6)) % TASKS)
    first = {int(act(jax.random.key(t), state, agent.reset(state), jnp.zeros(1), jnp.asarray(True), True)[1].turn)
             for t in range(30)}  # fmt: skip
    assert first == set(range(TASKS))


def test_without_exploration_the_policy_before_adaptation_acts(spied):
    agent, state, _ = spied
    args = jax.random.key(0), state, agent.reset(state), jnp.zeros(1), jnp.asarray(True)
    np.testing.assert_allclose(agent.act(*args, False)[0], [-0.9])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": 3}, "tasks must be a multiple of the 2 members, got 3"),
        ({"paths": 0}, "paths must be at least 1, got 0"),
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"meta_steps": 0}, "meta_steps must be at least 1, got 0"),
        ({"fit_every": 0}, "fit_every must be at least 1, got 0"),
        ({"warmup": 0}, "warmup must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        stub(**change)


def test_a_single_model_is_no_set_of_tasks():
    env = line()
    model = models.deterministic_mlp(env.spec, (4,), weight_decay=0.0)
    with pytest.raises(ValueError, match="model must be an ensemble, whose members are the tasks; got a single model"):
        agents.meta_imagination(
            env.spec, model, models.trainer(model), learners.meta_policy(env.spec.action, 1), tasks=1
        )


def test_the_paper_s_sizes_are_the_defaults():
    config = agents.MBMPOConfig()
    assert (config.members, config.hidden, config.tasks, config.paths, config.horizon) == (5, (512, 512), 20, 50, 200)
    assert config.tasks * config.horizon == config.fit_every  # one real path by each adapted policy
