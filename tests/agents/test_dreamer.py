"""What the Dreamers share: how often they learn, what they remember, and that they solve a small hidden task."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jmbrl import agents, data, envs, learners, models
from jmbrl.agents.dreamer import cost, dreamer, schedule, separate_adam
from jmbrl.agents.imagination import features_shape
from jmbrl.learners import Imagined
from jmbrl.rollout import evaluate
from jmbrl.train import make_train
from jmbrl.types import Transition

from worlds import hidden_velocity, line

FAST = {"xla_backend_optimization_level": 0}
KEY = jax.random.key(0)
TINY = agents.DreamerV3Config(
    deter=8, stoch=2, classes=3, hidden=8, units=8, blocks=2, batch_size=4, length=5, horizon=3, train_ratio=4.0,
    capacity=64,
)  # fmt: skip


def test_the_train_ratio_says_how_often_to_learn():
    assert schedule(256, 16, 64) == (4, 1)
    assert schedule(32, 16, 64) == (32, 1)
    assert schedule(3072, 16, 64) == (1, 3)
    assert schedule(250, 50, 50, every=1000) == (1000, 100)  # Dreamer v1's own numbers
    assert schedule(160, 16, 50) == (5, 1)  # Dreamer v2's
    with pytest.raises(ValueError, match=r"train_ratio must be near .* got 700; 1 every 1 steps is 1024"):
        schedule(700, 16, 64)
    with pytest.raises(ValueError, match="train_ratio must be at least"):
        schedule(0, 16, 64)


def test_the_cost_is_told_in_numbers_that_a_run_keeps():
    """20 steps of warm-up, then an update every 5: at steps 20, 25, 30, 35 and, for the last 2, at 40."""
    config = TINY
    env = line()
    told = cost(env, config, 42, 1)
    assert "one update of 4 x 5 frames every 5 steps, 5 updates in 42 steps; 100 frames replayed" in told
    train = make_train(env, agents.dreamer_v3(env, config), 42)
    _, history = jax.jit(train, compiler_options=FAST)(KEY)
    assert int(history["updates"].sum()) == 5


def test_a_row_is_stored_with_the_belief_that_was_acted_on():
    env = line()
    agent = agents.dreamer_v3(env, TINY)
    state = agent.init(KEY, 2)
    obs = jnp.asarray([[0.1], [0.2]])
    act = jax.jit(jax.vmap(agent.act, in_axes=(0, None, 0, 0, 0, None)), static_argnums=5, compiler_options=FAST)
    carry = jax.tree.map(lambda x: jnp.stack([x, x + jnp.ones_like(x)]), agent.reset(state))
    action, carry, _ = act(jax.random.split(KEY), state, carry, obs, jnp.zeros(2, bool), True)
    flag = jnp.zeros(2, bool)
    rows = Transition(obs, action, jnp.zeros(2), obs, flag, flag)
    state = agent.record(state, carry, rows, ~flag)
    for kept, seen in zip(jax.tree.leaves(state.replay.beliefs), jax.tree.leaves(carry.belief), strict=True):
        np.testing.assert_array_equal(kept[0], seen)
    assert np.any(np.asarray(carry.belief.deter[0]) != np.asarray(carry.belief.deter[1]))


def test_an_update_writes_beliefs_back_and_moves_the_slow_critic():
    env = line()
    agent = agents.dreamer_v3(env, dataclasses.replace(TINY, rate_warmup=0, learning_rate=1e-2))
    train = make_train(env, agent, 30)
    run = jax.jit(train.init)(KEY)
    run, _ = jax.jit(train.chunk, static_argnums=(3, 4), compiler_options=FAST)(KEY, run, 0, 20, True)
    before = run.agent
    assert not np.any(before.replay.beliefs.deter)  # random actions are taken in no belief
    update = jax.jit(agent.phases[0][1], compiler_options=FAST)
    after, info = update(KEY, before, jnp.int32(20))
    written = np.any(np.asarray(after.replay.beliefs.deter) != 0, axis=-1)[:, 0]
    assert written[:20].sum() >= 12  # four windows of five rows, each but for its first
    assert not written[20:].any()
    assert int(after.replay.served) == 4  # the online queue came first
    moved = jax.tree.map(lambda new, old: np.abs(new - old).max(), after.weights, before.weights)
    assert all(np.max(jax.tree.leaves(moved[part])) > 0 for part in ("model", "actor", "critic"))
    slow = jax.tree.map(lambda a, b, c: np.allclose(a - b, 0.02 * (c - b), atol=1e-7), after.memory.slow,
                        before.memory.slow, after.weights["critic"])  # fmt: skip
    assert all(jax.tree.leaves(slow))
    assert info["skipped"] == 0


def test_imagination_begins_at_the_last_frames_of_each_window():
    """What the behaviour is given, of windows of 5 rows drawn with the same key; cost and range say the same."""
    env = line()
    given = {}

    def losses(key, weights, memory, step_many, look, beliefs, alive):
        given["starts"], given["alive"] = beliefs.deter.shape, alive.shape
        return {}, Imagined(jnp.arange(alive.size, dtype=jnp.float32), memory.scale), {}

    def replayed(weights, memory, x, frames, returns):
        given["returns"] = returns.shape
        return jnp.sum(frames.obs)

    model = models.rssm(env.spec, deter=8, stoch=2, classes=3, hidden=8)
    real = learners.behaviour(env.spec.action, features_shape(model)[0], units=8)
    turns = schedule(4.0, 4, 5)
    make = partial(dreamer, env.spec, model, optimizer=optax.sgd(0.0), turns=turns, batch_size=4, length=5, warmup=20)
    agent = make(behaviour=real._replace(losses=losses, replayed=replayed), start_frames=2, replay_value=0.5)
    run = jax.jit(make_train(env, agent, 30).init)(KEY)
    run, _ = jax.jit(make_train(env, agent, 30).chunk, static_argnums=(3, 4), compiler_options=FAST)(
        KEY, run, 0, 20, True
    )
    _, info = jax.jit(agent.phases[-1][1], compiler_options=FAST)(KEY, run.agent, jnp.int32(20))
    assert given == {"starts": (8, 8), "alive": (8,), "returns": (4, 2)}
    _, window = data.sample_latent(jax.random.split(KEY)[0], run.agent.replay, 4, 5)
    last = data.frames(window.sequence)[0].obs[:, -2:]
    np.testing.assert_allclose(info["behaviour/replay_critic"], 0.5 * np.sum(last), rtol=1e-5)
    few = dataclasses.replace(TINY, start_frames=2)
    assert "100 frames replayed, 120 steps imagined" in cost(env, few, 42, 1)  # 5 updates, 4 x 2 starts, 3 steps
    with pytest.raises(ValueError, match="start_frames must be at most 5"):
        agents.dreamer_v3(env, dataclasses.replace(TINY, start_frames=6))


def test_evaluation_draws_where_the_page_says_so():
    """Dreamer v3's own evaluation is a draw, v1's the mode."""
    env = line()
    for system, same in (("dreamer_v3", False), ("dreamer_v1", True)):
        settings = {"deter": 8, "stoch": 2, "hidden": 8, "units": 8, "batch_size": 4, "length": 5, "train_ratio": 4.0}
        agent = agents.SYSTEMS[system].make(env, agents.SYSTEMS[system].config(**settings, train_every=None))
        state = agent.init(KEY, 1)
        act = jax.jit(agent.critic.act, compiler_options=FAST)
        chosen = [act(key, state, agent.reset(state).belief) for key in (KEY, jax.random.key(1))]
        assert np.array_equal(*chosen) == same


def test_an_update_that_is_not_finite_changes_nothing_but_is_counted():
    env = line()
    agent = agents.dreamer_v3(env, TINY)
    train = make_train(env, agent, 30)
    run = jax.jit(train.init)(KEY)
    run, _ = jax.jit(train.chunk, static_argnums=(3, 4), compiler_options=FAST)(KEY, run, 0, 20, True)
    rows = run.agent.replay.replay
    broken = rows._replace(data=rows.data._replace(reward=rows.data.reward.at[:].set(jnp.nan)))
    state = run.agent._replace(replay=run.agent.replay._replace(replay=broken))
    after, info = jax.jit(agent.phases[0][1], compiler_options=FAST)(KEY, state, jnp.int32(20))
    assert info["skipped"] == 1
    for part in ("weights", "opt", "memory"):
        for a, b in zip(jax.tree.leaves(getattr(after, part)), jax.tree.leaves(getattr(state, part)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_each_part_has_its_own_rate_and_its_own_gradients_norm():
    """A gradient of norm 1000 in the model does not shrink the actor's; Adam's first step is the rate."""
    weights = {name: jnp.zeros(2) for name in ("model", "actor", "critic")}
    optimizer = separate_adam(0.1, 0.01, 0.001, max_grad_norm=100.0)
    grads = {"model": jnp.asarray([1e3, 0.0]), "actor": jnp.asarray([0.0, 3.0]), "critic": jnp.asarray([-2.0, 0.0])}
    steps, _ = optimizer.update(grads, optimizer.init(weights), weights)
    np.testing.assert_allclose(steps["model"], [-0.1, 0.0], atol=1e-6)
    np.testing.assert_allclose(steps["actor"], [0.0, -0.01], atol=1e-6)
    np.testing.assert_allclose(steps["critic"], [0.001, 0.0], atol=1e-6)


def test_dreamer_v1_refuses_discrete_actions():
    with pytest.raises(ValueError, match="dynamics must be 0 for discrete actions"):
        agents.dreamer_v1(envs.make("gymnax:CartPole-v1"))


def test_dreamer_v3_learns_to_stop_a_mass_whose_velocity_it_cannot_see():
    env = hidden_velocity()
    config = agents.DreamerV3Config(
        deter=32, stoch=8, classes=4, hidden=16, units=16, blocks=2, batch_size=8, length=16, horizon=8, gamma=0.95,
        train_ratio=64.0, learning_rate=1e-3, rate_warmup=50, capacity=4000,
    )  # fmt: skip
    agent = agents.dreamer_v3(env, config)
    train = make_train(env, agent, 2000)
    run, history = jax.jit(train)(KEY)
    result = jax.jit(lambda key, state: evaluate(key, env, agent, state, 12))(jax.random.key(1), run.agent)
    random = history["reward"][:128].mean() * 30
    assert np.mean(result["returns"]) > 0.35 * random, (np.mean(result["returns"]), random)
    assert np.all(np.asarray(history["skipped"]) == 0)


@pytest.mark.parametrize("system", ["dreamer_v2", "dreamer_v3"])
def test_several_environments_and_seeds_fit_one_program(system):
    """Discrete actions, three environments, two seeds: traced, not run."""
    page = agents.SYSTEMS[system]
    settings = {"batch_size": 4, "length": 6, "horizon": 2, "train_ratio": 4.0, "warmup": 24, "capacity": 32}
    env = envs.make("gymnax:CartPole-v1")
    train = make_train(env, page.make(env, page.config(**settings)), 48, num_envs=3)
    _, history = jax.eval_shape(jax.vmap(train), jax.random.split(KEY))
    assert history["reward"].shape == (2, 16, 3)
    assert history["updates"].shape[:2] == (2, 4)
