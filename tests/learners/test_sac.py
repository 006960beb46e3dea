"""SAC against numbers worked by hand, an integral, and tiny worlds whose values are known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import health
from jmbrl.health import accept, all_finite
from jmbrl.learners.sac import sac, soft_value, td_target, temperature_loss
from jmbrl.networks import TanhNormal
from jmbrl.types import Continuous, Discrete, Transition

BOX = Continuous((-1.0,), (1.0,))
SMALL = {"hidden": (32, 32), "learning_rate": 3e-3, "tau": 0.05}
COLD = {"alpha": 1e-6, "learn_alpha": False}  # without entropy the values are those of the plain return
GAMMA = 0.7
PROBE = sac(BOX, 1, gamma=GAMMA, **SMALL, **COLD)


@partial(jax.jit, static_argnums=(0, 3))
def train(learner, key, log, updates=1000):
    """``updates`` updates on batches of 64 drawn from the rows of ``log``. One compilation a learner."""
    key_init, key_run = jax.random.split(key)

    def body(state, key):
        key_batch, key_update = jax.random.split(key)
        index = jax.random.randint(key_batch, (64,), 0, len(log.reward))
        return learner.update(key_update, state, jax.tree.map(lambda x: x[index], log))[0], None

    return jax.lax.scan(body, learner.init(key_init), jax.random.split(key_run, updates))[0]


def rows(obs, action, reward, next_obs, terminated, truncated=False):
    flag = lambda x: jnp.broadcast_to(jnp.asarray(x), (len(obs),))  # noqa: E731
    reward = jnp.broadcast_to(jnp.asarray(reward, jnp.float32), (len(obs),))
    return Transition(obs, action, reward, next_obs, flag(terminated), flag(truncated))


def uniform(key, count=32):
    return jax.random.uniform(key, (count, 1), minval=-1.0, maxval=1.0)


# ------------------------------------------------------------------------------------- by hand


def test_critic_target_by_hand():
    # min(3, 2) - 0.5 * (-0.4) = 2.2;  y = 2 * 1 + 0.9 * 2.2 = 3.98;  with the end of the world: 2.
    value = soft_value(jnp.asarray([[3.0, 3.0], [2.0, 2.0]]), jnp.asarray([-0.4, -0.4]), 0.5)
    np.testing.assert_allclose(value, [2.2, 2.2], rtol=1e-6)
    y = td_target(jnp.ones(2), jnp.asarray([False, True]), value, 0.9, reward_scale=2.0)
    np.testing.assert_allclose(y, [3.98, 2.0], rtol=1e-6)


def test_what_follows_the_end_may_be_anything():
    y = td_target(jnp.ones(1), jnp.asarray([True]), jnp.asarray([jnp.inf]), 0.9)
    np.testing.assert_array_equal(y, [1.0])


@pytest.mark.parametrize(("log_prob", "sign"), [(2.0, 1), (-2.0, -1)])
def test_temperature_rises_where_entropy_is_below_its_target(log_prob, sign):
    # Entropy -2 is below the target -1: log alpha must rise, so the loss must fall with it. By hand: -(2 - 1) = -1.
    gradient = jax.grad(temperature_loss)(0.3, jnp.full(4, log_prob), -1.0)
    np.testing.assert_allclose(gradient, -(log_prob - 1.0), rtol=1e-6)
    assert np.sign(-gradient) == sign


def test_one_update_is_the_equations_written_out():
    """Critic loss and target step recomputed outside from what the learner exposes."""
    learner = sac(BOX, 2, gamma=0.9, tau=0.25, **COLD, hidden=(8,))
    state = jax.jit(learner.init)(jax.random.key(0))
    key = jax.random.key(1)
    obs, action = jax.random.normal(key, (4, 2)), uniform(key, 4)
    # Every row ends, so that the target is the reward alone whatever the networks say.
    new, info = jax.jit(learner.update)(key, state, rows(obs, action, 3.0, obs, True))

    def q(weights, twin):
        w = jax.tree.map(lambda x: x[twin], weights)["params"]
        h = jax.nn.relu(jnp.concatenate([obs, action], 1) @ w["Dense_0"]["kernel"] + w["Dense_0"]["bias"])
        return (h @ w["Dense_1"]["kernel"] + w["Dense_1"]["bias"])[:, 0]

    wanted = sum(0.5 * np.mean((q(state.critics, twin) - 3.0) ** 2) for twin in (0, 1))
    np.testing.assert_allclose(info["critic_loss"], wanted, rtol=1e-5)
    blend = jax.tree.map(lambda a, b: 0.25 * a + 0.75 * b, new.critics, state.targets)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), new.targets, blend)


def test_log_prob_of_a_squashed_gaussian_integrates_to_one():
    """And the sample's log-probability is that density: the change of variables has the right sign."""
    pi = TanhNormal(jnp.asarray([0.3]), jnp.asarray([0.7]))
    edges = np.linspace(-1, 1, 20001)
    middle = 0.5 * (edges[1:] + edges[:-1])
    density = np.exp(jax.vmap(pi.log_prob)(jnp.asarray(middle[:, None], jnp.float32)))
    np.testing.assert_allclose(np.sum(density) * (edges[1] - edges[0]), 1.0, atol=1e-3)
    mean = np.sum(density * middle) * (edges[1] - edges[0])
    samples, log_prob = jax.vmap(pi.sample_and_log_prob)(jax.random.split(jax.random.key(0), 20000))
    np.testing.assert_allclose(mean, np.mean(samples), atol=4 * 0.6 / np.sqrt(20000))
    np.testing.assert_allclose(log_prob, jax.vmap(pi.log_prob)(samples), atol=1e-3)


# ------------------------------------------------------------------------------- probe worlds

N = 512
ZERO = jnp.zeros((N, 1))


@jax.jit
def value(state, obs, action):
    """The critics' mean at a point, as an update reports it."""
    x = jnp.full((64, 1), obs)
    return PROBE.update(jax.random.key(0), state, rows(x, jnp.full((64, 1), action), 0.0, x, True))[1]["q"]


def test_a_reward_of_one_once_is_worth_one():
    state = train(PROBE, jax.random.key(0), rows(ZERO, uniform(jax.random.key(1), N), 1.0, ZERO, True))
    for action in (-0.8, 0.0, 0.8):
        np.testing.assert_allclose(value(state, 0.0, action), 1.0, atol=0.05)


def test_a_reward_one_step_later_is_worth_gamma():
    place = (jnp.arange(N) % 2).astype(jnp.float32)[:, None]
    log = rows(place, uniform(jax.random.key(1), N), place[:, 0], jnp.ones((N, 1)), place[:, 0] > 0)
    state = train(PROBE, jax.random.key(0), log)
    np.testing.assert_allclose(value(state, 1.0, 0.0), 1.0, atol=0.05)
    np.testing.assert_allclose(value(state, 0.0, 0.0), GAMMA, atol=0.05)


def test_a_time_limit_does_not_stop_bootstrapping():
    # Reward 1 for ever is worth 1 / (1 - gamma), though every row was cut off by a time limit.
    log = rows(ZERO, uniform(jax.random.key(1), N), 1.0, ZERO, False, truncated=True)
    state = train(PROBE, jax.random.key(0), log)
    np.testing.assert_allclose(value(state, 0.0, 0.0), 1.0 / (1.0 - GAMMA), rtol=0.03)


def test_the_policy_finds_the_best_action_of_each_state():
    obs, action = uniform(jax.random.key(1), N), uniform(jax.random.key(2), N)
    log = rows(obs, action, -jnp.sum((action - 0.5 * obs) ** 2, axis=1), obs, True)
    state = train(PROBE, jax.random.key(0), log)
    for x in (-0.8, 0.0, 0.8):
        action, _ = PROBE.act(jax.random.key(0), state, jnp.asarray([x]), False)
        np.testing.assert_allclose(action, [0.5 * x], atol=0.1)


def test_entropy_settles_at_its_target():
    # Entropy in nats; 0.69 would be uniform on [-1, 1].
    learner = sac(BOX, 1, target_entropy=0.2, **(SMALL | {"learning_rate": 1e-2}))
    action = uniform(jax.random.key(1), N)
    state = train(learner, jax.random.key(0), rows(ZERO, action, -4.0 * action[:, 0] ** 2, ZERO, True))
    keys = jax.random.split(jax.random.key(1), 4000)
    _, log_prob = jax.jit(jax.vmap(lambda key: learner.act(key, state, jnp.zeros(1), True)))(keys)
    np.testing.assert_allclose(-np.mean(log_prob), 0.2, atol=0.1)


# ------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"action": Discrete(3)}, "sac needs continuous actions, got Discrete.*use a planner"),
        ({"features": 0}, "features must be at least 1, got 0"),
        ({"gamma": 1.5}, "gamma must be at most 1.0, got 1.5"),
        ({"tau": -0.1}, "tau must be at least 0.0, got -0.1"),
        ({"alpha": 0.0}, "alpha must be at least 1e-12, got 0.0"),
        ({"hidden": (0,)}, "hidden must be at least 1, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be finite, got nan"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        sac(**({"action": BOX, "features": 2} | arguments))


def test_features_of_another_width_are_refused():
    learner = sac(BOX, 2, hidden=(8,))
    with pytest.raises(ValueError, match=r"features has shape \(3,\), but sac says \(2,\)"):
        learner.act(jax.random.key(0), learner.init(jax.random.key(0)), jnp.zeros(3), True)


def test_accept_takes_all_or_nothing():
    old, new = {"a": jnp.zeros(2), "b": jnp.zeros(())}, {"a": jnp.ones(2), "b": jnp.asarray(jnp.nan)}
    kept, health = accept(new, old, (jnp.ones(()),), (jnp.ones(()),))
    np.testing.assert_array_equal(kept["a"], [0.0, 0.0])
    assert health["skipped"] == 1
    assert health["nonfinite_loss"] == 0
    assert bool(all_finite({"count": jnp.zeros((), jnp.int32)}))


def test_values_beyond_what_rewards_add_up_to_are_reported():
    """Rewards of 2 at gamma 0.9 add up to 20 at most; ten times that is the limit."""
    for value, wanted in ((199.0, 0.0), (-201.0, 1.0)):
        assert float(health.exploded(jnp.full(4, value), jnp.float32(2.0), 0.9)) == wanted
    assert float(health.exploded(jnp.full(4, 1e9), jnp.float32(0.0), 0.9)) == 0.0  # no reward was seen yet
    assert float(health.exploded(jnp.full(4, 1e9), jnp.float32(2.0), 1.0)) == 0.0  # and here there is no bound
