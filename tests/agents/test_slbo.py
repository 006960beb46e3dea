"""SLBO on a line whose best return is known; its noise, its turns and its losses by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import agents, models
from jmbrl.rollout import evaluate
from jmbrl.train import make_train
from jmbrl.types import Continuous, Learner, Outcome, Params, Sequence, Transition

from worlds import line

KEY = jax.random.key(0)
# x' = x + a / 2 from x uniform on [-1, 1], reward -x'^2. The best policy, a = -2x cut to [-1, 1], only pays where
# |x| > 1/2: -E[(|x| - 1/2)+^2] = -(1/2)^3 / 3. Doing nothing pays 20 times -1/3.
OPTIMUM, STILL = -0.0417, -6.67

SMALL = agents.SLBOConfig(
    hidden=(32,),
    model_updates=50,
    model_batch_size=32,
    model_learning_rate=5e-3,
    policy_hidden=(16,),
    value_hidden=(16,),
    value_batch_size=200,
    value_learning_rate=5e-3,
    initial_std=0.5,
    max_kl=0.05,
    gamma=0.9,
    inner=4,
    policy_updates=8,
    imagined=400,
    fit_every=100,
    warmup=100,
    capacity=300,
)


@pytest.fixture(scope="module")
def trained():
    """Three seeds: returns without exploration, and what the stages said."""
    env = line()
    agent = agents.slbo(env, SMALL)

    @jax.jit
    def run(key):
        state, history = make_train(env, agent, 300)(key)
        return evaluate(jax.random.fold_in(key, 7), env, agent, state.agent, 50)["returns"], history

    return jax.tree.map(lambda *x: np.stack(x), *(run(key) for key in jax.random.split(KEY, 3)))


def test_three_hundred_steps_suffice_on_the_line(trained):
    returns = np.mean(trained[0], axis=1)
    assert np.max(returns) <= 0.0
    assert np.median(returns) > OPTIMUM - 0.2, returns
    assert np.min(returns) > STILL / 4, returns


def test_metrics_say_what_was_done(trained):
    """Two stages (at steps 100 and 200) of 4 turns: 50 model updates and 8 policy updates each."""
    history = trained[1]
    np.testing.assert_array_equal(history["model/updates"], np.full((3, 2), 4 * 50))
    np.testing.assert_array_equal(history["policy/updates"], np.full((3, 2), 4 * 8))
    for name in ("model/skipped", "policy/skipped", "model/diverged", "imagine/nonfinite", "imagine/terminated"):
        np.testing.assert_array_equal(history[name], np.zeros((3, 2)))
    # The exploring policy is paid no more than the best one, and by the second stage more than for doing nothing.
    assert np.all(history["imagine/reward"] < 0)
    assert np.all(history["imagine/reward"][:, 1] > STILL / 20)


# --------------------------------------------------------------------------------------------- the noise


def test_without_innovations_the_noise_forgets_a_share_each_step():
    noise = agents.ornstein_uhlenbeck(Continuous((-1.0,), (1.0,)), theta=0.15, sigma=0.0)
    x, actions = jnp.ones(1), []
    for chosen in (0.1, 0.1, 0.1, 0.9):
        action, x = noise.apply(KEY, (), x, (), jnp.asarray([chosen]))
        actions.append(float(action[0]))
    np.testing.assert_allclose(actions, [0.95, 0.8225, 0.714125, 1.0], rtol=1e-6)
    np.testing.assert_array_equal(noise.init(), [0.0])


def test_the_noises_spread_and_memory_are_those_of_the_recursion():
    theta, sigma, steps, copies = 0.15, 0.3, 60, 4000
    noise = agents.ornstein_uhlenbeck(Continuous((-1.0,) * copies, (1.0,) * copies), theta, sigma)
    still = jnp.zeros(copies)
    path = jax.lax.scan(
        lambda x, key: (noise.apply(key, (), x, (), still)[1],) * 2, noise.init(), jax.random.split(KEY, steps)
    )[1]
    variance, wanted = 0.0, []
    for _ in range(steps):
        variance = (1 - theta) ** 2 * variance + sigma**2
        wanted.append(variance**0.5)
    np.testing.assert_allclose(np.std(path, axis=1), wanted, rtol=0.06)
    np.testing.assert_allclose(wanted[-1], sigma / (1 - 0.85**2) ** 0.5, rtol=1e-3)
    np.testing.assert_allclose(np.corrcoef(path[-4], path[-1])[0, 1], 0.85**3, atol=0.04)


def test_the_noise_lasts_through_an_episode_begins_anew_and_leaves_evaluation_alone():
    agent = agents.slbo(line(), agents.SLBOConfig(hidden=(8,), theta=0.0, sigma=0.0, initial_std=0.01, imagined=20))

    @jax.jit
    def acts(key):
        state = agent.init(key, 1)
        carry = agent.reset(state)._replace(noise=jnp.asarray([5.0]))
        act = lambda first, explore: agent.act(key, state, carry, jnp.zeros(1), jnp.asarray(first), explore)[:2]  # noqa: E731
        return act(False, True), act(True, True), act(False, False)

    (loud, kept), (quiet, fresh), (mode, same) = acts(KEY)
    assert float(loud[0]) == 1.0
    assert float(kept.noise[0]) == float(same.noise[0]) == 5.0
    assert abs(float(quiet[0])) < 0.1
    assert float(fresh.noise[0]) == 0.0
    assert abs(float(mode[0])) < 0.1


# --------------------------------------------------------------------------------------------- the turns


def test_model_and_policy_take_turns():
    """A model that pays the number of its fits and a learner that writes down what it is paid, and where it begins."""
    env = line()
    network = models.deterministic_mlp(env.spec, (4,), reward=env.reward_fn)

    def step_many(key, params, beliefs, actions):
        paid = jnp.full(len(beliefs), params.weights)
        return beliefs + 10.0, Outcome(paid, jnp.ones(len(beliefs)), jnp.zeros((len(beliefs), 0)), paid > 99.0)

    def update(key, log, data, mask):
        assert data.reward.shape == (5, 3)
        assert mask.shape == (5, 3)
        at, paid, starts = log
        return (at + 1, paid.at[at].set(data.reward), starts.at[at].set(data.obs[0, :, 0])), {"updates": jnp.ones(())}

    model = network._replace(init=lambda key: Params(jnp.zeros(()), network.init(key).stats), step_many=step_many)
    trainer = models.Trainer(
        lambda params: (), lambda key, params, opt, replay: (params._replace(weights=params.weights + 1.0), opt, {})
    )
    learner = Learner(
        lambda key: (jnp.zeros((), jnp.int32), jnp.zeros((12, 5, 3)), jnp.zeros((12, 3))),
        lambda key, log, x, explore: (jnp.zeros(1), jnp.zeros(())),
        update,
    )
    agent = agents.imagined_turns(
        env.spec, model, trainer, learner, inner=3, policy_updates=2, imagined=17, horizon=5, fit_every=40, warmup=40,
        capacity=200,
    )  # fmt: skip
    run, history = jax.jit(make_train(env, agent, 120))(KEY)
    at, paid, starts = run.agent.learner
    assert at == 12
    np.testing.assert_array_equal(paid[:, 0, 0], [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6])
    np.testing.assert_array_equal(paid, np.broadcast_to(paid[:, :1, :1], paid.shape))
    np.testing.assert_array_equal(history["imagine/reward"], [2, 5])
    np.testing.assert_array_equal(history["policy/updates"], [6, 6])
    # What the learner sees is normalised once per stage, by the 40 and then the 80 rows there were; episodes last 20.
    seen = np.asarray(run.agent.replay.data.obs[:, 0, 0])
    for stage, count in enumerate((40, 80)):
        rows = seen[:count].astype(np.float64)
        began = (rows[::20] - rows.mean()) / rows.std()
        distance = np.abs(np.asarray(starts)[6 * stage : 6 * stage + 6, :, None] - began)
        assert distance.min(axis=-1).max() < 1e-4
        assert distance.reshape(-1, len(began)).argmin(axis=-1).max() > 0  # not always the same one


# --------------------------------------------------------------------------------------------- the loss

OBS = np.array([[0.0, 1.0, 0.5], [0.3, -0.4, -1.0]])
ACTION = np.array([[0.5, -1.0], [0.2, 0.9]])
REWARD = np.array([[1.0, -2.0], [0.5, 3.0]])


def by_hand(weights, stats, steps, norm, rewards):
    """Of two windows of two rows, in float64; columns of a target: the change and, where it is learned, the reward."""
    spread, terms = np.asarray(stats.targets.std, np.float64), []
    for w in range(2):
        x = OBS[w, 0]
        for i in range(2):
            x = OBS[w, i] if steps == 1 else x
            inputs = (np.array([x, ACTION[w, i]]) - np.asarray(stats.inputs.mean)) / np.asarray(stats.inputs.std)
            out = inputs @ weights
            wanted = np.array([OBS[w, i + 1] - OBS[w, i], REWARD[w, i]])[: 1 + rewards] / spread
            error = np.mean((out - wanted) ** 2)
            terms.append(error if norm == "squared" else error**0.5)
            x = x + out[0] * spread[0]
    return np.mean(terms)


@pytest.mark.parametrize(
    ("rewards", "cases"),
    [(False, ((2, "l2"), (1, "l2"), (1, "squared"))), (True, ((2, "l2"),))],
    ids=["given", "learned"],
)
def test_the_ablations_are_other_losses(rewards, cases):
    env = line() if not rewards else line()._replace(reward_fn=None)
    flag = jnp.zeros((2, 2), bool)
    obs, action, reward = (jnp.asarray(x, jnp.float32) for x in (OBS[..., None], ACTION[..., None], REWARD))
    rows = Transition(obs[:, :-1], action, reward, obs[:, 1:], flag, flag)
    batch = Sequence(rows, flag.at[:, 0].set(True), ~flag)
    weights = np.array([[0.3, -0.2], [0.8, 0.4]])[:, : 1 + rewards]
    found = {}
    for steps, norm in cases:
        config = agents.SLBOConfig(hidden=(), weight_decay=0.0, steps=steps, norm=norm, imagined=20)
        model = agents.slbo(env, config).model
        assert model is not None
        assert model.loss is not None
        params = model.set_stats(
            model.init(KEY), jax.tree.map(lambda x: x.reshape(4, *x.shape[2:]), rows), jnp.ones(4, bool)
        )
        layer = {"kernel": jnp.asarray(weights, jnp.float32), "bias": jnp.zeros(1 + rewards)}
        loss, _ = jax.jit(model.loss)(KEY, params._replace(weights={"layers": (layer,)}), batch)
        found[steps, norm] = float(loss)
        np.testing.assert_allclose(loss, by_hand(weights, params.stats, steps, norm, rewards), rtol=1e-4)
    assert len({round(value, 3) for value in found.values()}) == len(cases)


# --------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inner": 0}, "inner must be at least 1, got 0"),
        ({"policy_updates": 0}, "policy_updates must be at least 1, got 0"),
        ({"model_updates": 0}, "updates must be at least 1, got 0"),
        ({"imagined": 19}, "imagined must be at least 20, got 19"),
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"theta": 1.5}, "theta must be at most 1.0, got 1.5"),
        ({"sigma": -0.1}, "sigma must be at least 0.0, got -0.1"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"norm": "l1"}, "norm must be one of squared, l2; got 'l1'"),
        ({"fit_every": 0}, "fit_every must be at least 1, got 0"),
        ({"warmup": 0}, "warmup must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        agents.slbo(line(), agents.SLBOConfig(**({"hidden": (8,)} | change)))
