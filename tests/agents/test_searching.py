"""AlphaZero and MuZero: what they remember, what teaches them, that they keep to the rules and learn a game."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import agents, data, envs, learners, models
from jmbrl.agents.search_update import Plan, search_learner
from jmbrl.rollout import evaluate
from jmbrl.train import make_train
from jmbrl.types import Discrete, Sequence, Spec, Transition

KEY = jax.random.key(0)
FAST = {"xla_backend_optimization_level": 0}


@pytest.fixture(scope="module")
def game():
    """Tic-tac-toe, learned for 9,600 moves of self-play."""
    plain = envs.make("tictactoe")
    settings = {**agents.PRESETS["alphazero"]["tictactoe"], "simulations": 8}
    agent = agents.alphazero(envs.with_state(plain), agents.AlphaZeroConfig(**settings))
    train = make_train(envs.with_state(plain), agent, 9_600, num_envs=32)
    run, history = jax.jit(train)(KEY)
    return train, run, history


def test_it_keeps_to_the_rules_of_the_game(game):
    _, run, history = game
    assert np.all(history["reward"] >= 0)  # -1 is a move that is not allowed
    lengths = history["episode_length"][history["episode_length"] > 0]
    assert lengths.min() >= 5
    assert lengths.max() <= 9
    plans = run.agent.replay.beliefs
    taken = run.agent.replay.replay.data.obs.sum(axis=-1).reshape(*plans.value.shape, 9) > 0
    known = np.asarray(run.agent.replay.replay.valid)
    assert np.all(np.asarray(plans.weights)[known][np.asarray(taken)[known]] < 1e-6)


def test_what_the_search_found_lies_beside_its_row(game):
    _, run, _ = game
    replay, plans = run.agent.replay.replay, run.agent.replay.beliefs
    np.testing.assert_allclose(plans.weights.sum(axis=-1)[replay.valid], 1.0, rtol=1e-5)
    assert np.all(plans.searched[replay.valid])
    won = np.asarray(replay.valid & (replay.data.reward == 1))
    assert won.sum() > 20
    # A player that can make a line now knows it: its search says that it is winning.
    late = slice(200, 300)  # of 300 moves in each of 32 games
    value, won = np.asarray(plans.value)[late], won[late]
    assert np.mean(value[won]) > np.mean(value[~won]) + 0.3


def test_it_learns_to_beat_chance(game):
    train, run, _ = game
    against = envs.with_state(envs.make("tictactoe", opponent="random"))
    play = jax.jit(lambda key, state: evaluate(key, against, train.agent, state, 200)["returns"], compiler_options=FAST)
    before, after = play(KEY, train.agent.init(KEY, 1)), play(KEY, run.agent)
    assert np.mean(after < 0) < 0.08
    assert np.mean(after) > np.mean(before)


def rows(reward, terminated, searched=True):
    """One window of rows of a world seen as [t, 1], and the plans of a search that preferred action 1."""
    count = len(reward)
    t = jnp.arange(float(count))
    obs = jnp.stack([t, jnp.ones(count)], axis=-1)
    row = Transition(obs, jnp.arange(count) % 2, jnp.asarray(reward), obs + 1, jnp.asarray(terminated), t < 0)
    window = Sequence(row, t == 0, t >= 0)
    plan = Plan(jnp.full(count, searched), jnp.tile(jnp.asarray([0.0, 1.0]), (count, 1)), None, jnp.zeros(count))
    return jax.tree.map(lambda x: x[None], (window, plan))


SPEC = Spec("toy", (2,), Discrete(2), 10)
PARTS = models.value_equivalent_parts(SPEC, latent=4, units=16, bins=21, limit=5.0)
READER = learners.policy_value(SPEC.action, 4, units=16, bins=21, limit=5.0)


def learner(**options):
    see = lambda weights, obs: PARTS.see(weights["model"], obs)  # noqa: E731
    options = {"unroll": 2, "n_step": 1, "gamma": 0.5, "learning_rate": 3e-3, "weight_decay": 0.0, **options}
    return search_learner(READER, see, PARTS, **options)


def test_rewards_values_and_policies_are_learned_where_they_belong():
    """Rewards 1, 2, then an end that pays 4: values 1 + 0.5 (2 + 0.5 4), 2 + 0.5 4, 4, by returns of three steps."""
    one = learner(unroll=2, n_step=3)
    window, plans = rows([1.0, 2.0, 4.0, 9.0, 9.0, 9.0], [False, False, True, False, False, False])

    @jax.jit
    def fit(learned):
        return jax.lax.scan(lambda learned, _: one.update(learned, window, plans), learned, None, 400)

    learned, info = fit(one.init(KEY))
    assert np.all(np.asarray(info["skipped"]) == 0)
    path = PARTS.unroll(learned.weights["model"], window.transition.obs[:, 0], window.transition.action[0, :2, None])
    thought = READER.read(learned.weights["read"], path.latents[:, 0])
    np.testing.assert_allclose(READER.value(thought), [3.0, 4.0, 4.0], atol=0.15)
    want = PARTS.reward_loss(path.rewards[:, 0], jnp.asarray([1.0, 2.0]))
    wrong = PARTS.reward_loss(path.rewards[:, 0], jnp.asarray([2.0, 4.0]))
    assert np.all(want < wrong)
    assert np.all(jax.nn.softmax(thought.policy)[:, 1] > 0.95)


def test_random_actions_teach_no_policy():
    window, plans = rows([1.0, 2.0, 4.0, 9.0], [False, False, True, False], searched=False)
    _, info = jax.jit(learner().update)(learner().init(KEY), window, plans)
    assert float(info["policy_loss"]) == 0.0
    assert float(info["value_loss"]) > 0.0


def test_a_broken_batch_changes_nothing_and_is_counted():
    window, plans = rows([1.0, jnp.nan, 4.0, 9.0], [False, False, True, False])
    one = learner()
    before = one.init(KEY)
    after, info = jax.jit(one.update)(before, window, plans)
    assert float(info["skipped"]) == 1.0
    jax.tree.map(np.testing.assert_array_equal, after.weights, before.weights)


def test_reanalysed_plans_come_from_the_newest_weights():
    """A replay whose old plans say nothing of the policy still teaches one where all of it is searched again."""
    env = envs.make("gymnax:CartPole-v1", max_steps=20)
    tiny = {"simulations": 4, "latent": 4, "units": 8, "bins": 5, "limit": 3.0, "unroll": 1, "n_step": 2}
    tiny |= {"batch_size": 4, "updates": 1.0, "warmup": 40, "capacity": 64}
    losses = {}
    for share in (0.0, 1.0):
        agent = agents.muzero(env, agents.MuZeroConfig(**tiny, reanalyze=share))
        train = make_train(env, agent, 40, num_envs=4)  # random actions alone
        run, _ = jax.jit(train, compiler_options=FAST)(KEY)
        _, info = jax.jit(agent.phases[0][1], compiler_options=FAST)(KEY, run.agent, jnp.asarray(40))
        losses[share] = float(info["learner/policy_loss"])
    assert losses[0.0] == 0.0
    assert losses[1.0] > 0.1


def test_windows_and_capacity_must_fit():
    env = envs.make("gymnax:CartPole-v1")
    with pytest.raises(ValueError, match="capacity must be at least 16, got 10"):
        agents.muzero(env, agents.MuZeroConfig(capacity=10))
    with pytest.raises(ValueError, match="method must be one of gumbel, puct; got 'uct'"):
        agents.muzero(env, agents.MuZeroConfig(method="uct"))
    with pytest.raises(ValueError, match="bootstrap must be one of search, network"):
        agents.muzero(env, agents.MuZeroConfig(bootstrap="target"))
    with pytest.raises(ValueError, match=r"runs on the host"):
        agents.alphazero(envs.make("gymnasium:CartPole-v1"))


def test_a_latent_replay_keeps_plans_of_any_kind():
    """Continuous candidates are part of a plan, as they were drawn once."""
    env = envs.make("gymnax:Pendulum-v1", max_steps=10)
    config = agents.MuZeroConfig(
        simulations=3, samples=4, latent=4, units=8, bins=5, unroll=1, n_step=1, batch_size=2, updates=0.5, warmup=0,
        capacity=32,
    )  # fmt: skip
    train = make_train(env, agents.muzero(env, config), 20, num_envs=2)
    run, history = jax.jit(train, compiler_options=FAST)(KEY)
    plans = run.agent.replay.beliefs
    assert isinstance(run.agent.replay, data.LatentReplay)
    assert plans.candidates.shape == (32, 2, 4, 1)
    taken = run.agent.replay.replay.data.action[:10]
    gap = np.abs(plans.candidates[:10] - taken[:, :, None]).max(axis=-1).min(axis=-1)
    np.testing.assert_allclose(gap, 0.0, atol=1e-6)
    assert np.all(history["bad_actions"] == 0)
