"""DQN and each part of Rainbow against numbers worked by hand, and worlds whose values are known."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learners.probes import probe, rollout

from jmbrl.data import NStepRows
from jmbrl.learners.categorical import expected, project, shifted
from jmbrl.learners.dqn import dqn, q_target
from jmbrl.networks import NoisyDense, QNetwork, dueling
from jmbrl.types import Continuous, Discrete, Transition

GAMMA = 0.7
TWO = Discrete(2)
RAINBOW = {"double": True, "dueling": True, "noisy": True, "atoms": 21, "v_min": -1.0, "v_max": 4.0}
KEY = jax.random.key(0)


# ------------------------------------------------------------------------------------- by hand


def test_targets_by_hand():
    """Of values (5, 1) and (2, 4): DQN bootstraps from 5 and 4, double DQN from what the online network would take."""
    values, online = jnp.asarray([[5.0, 1.0], [2.0, 4.0]]), jnp.asarray([[0.0, 3.0], [9.0, 3.0]])
    reward, ended = jnp.asarray([1.0, -1.0]), jnp.asarray([False, False])
    np.testing.assert_allclose(q_target(reward, ended, 0.5, values, values), [3.5, 1.0])
    np.testing.assert_allclose(q_target(reward, ended, 0.5, values, online), [1.5, 0.0])
    np.testing.assert_allclose(q_target(reward, ~ended, 0.5, values * jnp.inf, online), [1.0, -1.0])
    # Over two steps the rows bring their own discount.
    np.testing.assert_allclose(q_target(reward, ended, jnp.asarray([0.25, 0.5]), values, values), [2.25, 1.0])


def test_two_streams_by_hand():
    # V = 5, A = (1, 2, 6) with mean 3: Q = (3, 4, 8).
    found = dueling(jnp.asarray([[5.0]]), jnp.asarray([[1.0], [2.0], [6.0]]))
    np.testing.assert_allclose(found[:, 0], [3.0, 4.0, 8.0])


def test_the_streams_of_a_network_are_combined_and_each_has_a_layer_of_its_own():
    net = QNetwork(3, (4, 5), dueling=True)
    params: Any = net.init(KEY, jnp.zeros(2))["params"]
    shapes = {name: layer["kernel"].shape for name, layer in params.items()}
    assert shapes == {"Dense_0": (2, 4), "Dense_1": (4, 5), "Dense_2": (5, 1), "Dense_3": (4, 5), "Dense_4": (5, 3)}
    x = jnp.asarray([0.3, -0.8])
    layer = lambda i, h: h @ params[f"Dense_{i}"]["kernel"] + params[f"Dense_{i}"]["bias"]  # noqa: E731
    h = jax.nn.relu(layer(0, x))
    value, advantage = layer(2, jax.nn.relu(layer(1, h))), layer(4, jax.nn.relu(layer(3, h)))
    found: Any = net.apply({"params": params}, x)
    np.testing.assert_allclose(found[:, 0], value + advantage - advantage.mean(), rtol=1e-5)


SUPPORT = jnp.asarray([-1.0, 0.0, 1.0, 2.0])


@pytest.mark.parametrize(
    ("positions", "chance", "wanted"),
    [
        ([-1.0, 0.0, 1.0, 2.0], [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),  # on the atoms already
        ([-0.5, 0.5, 1.5, 9.0], [0.1, 0.2, 0.3, 0.4], [0.05, 0.15, 0.25, 0.55]),  # half-way, and beyond the upper end
        ([-7.0, -3.0, 0.25, 1.0], [0.1, 0.2, 0.4, 0.3], [0.3, 0.3, 0.4, 0.0]),  # beyond the lower end; quarters
        ([2.0, 2.0, 2.0, 2.0], [0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 0.0, 1.0]),  # a single point, as at an end
    ],
)
def test_projection_by_hand(positions, chance, wanted):
    np.testing.assert_allclose(project(jnp.asarray(positions), jnp.asarray(chance), SUPPORT), wanted, atol=1e-6)


def test_a_distribution_is_shifted_shrunk_and_collapses_at_an_end():
    # r = 0.5, discount 0.5: atoms at 0, 0.5, 1, 1.5. Chances 1/2, 1/4, 1/8, 1/8 by their logarithms.
    logits = jnp.log(jnp.asarray([[0.5, 0.25, 0.125, 0.125]] * 2)).at[1, 0].set(jnp.inf)
    reward, ended = jnp.asarray([0.5, 0.5]), jnp.asarray([False, True])
    positions, chance = shifted(reward, ended, jnp.asarray([0.5, 0.5]), logits, SUPPORT)
    np.testing.assert_allclose(positions, [[0.0, 0.5, 1.0, 1.5], [0.5] * 4])
    # 1/2 at 0; 1/4 between 0 and 1; 1/8 at 1; 1/8 between 1 and 2. The end: half at 0, half at 1.
    wanted = [[0.0, 0.625, 0.3125, 0.0625], [0.0, 0.5, 0.5, 0.0]]
    np.testing.assert_allclose(project(positions, chance, SUPPORT), wanted, atol=1e-6)
    np.testing.assert_allclose(expected(logits[:1], SUPPORT), [-0.5 + 0.125 + 0.25], rtol=1e-6)


def test_noise_is_factorised_and_absent_without_its_key():
    """The spread of an output is that of sum_i sigma f(e_i) f(e_j) x_i + sigma f(e_j); E f^2 = E|e| = sqrt(2 / pi)."""
    layer, x = NoisyDense(1, sigma=0.5), jnp.asarray([1.0, -2.0, 3.0, 0.5])
    params: Any = layer.init(KEY, x)
    w = params["params"]
    np.testing.assert_allclose(w["kernel_sigma"], 0.25)  # 0.5 / sqrt(4)
    assert np.abs(w["kernel"]).max() <= 0.5
    mean = (x @ w["kernel"] + w["bias"])[0]
    quiet: Any = layer.apply(params, x)
    np.testing.assert_allclose(quiet, [mean], rtol=1e-6)
    draw: Any = jax.jit(jax.vmap(lambda noise: layer.apply(params, x, noise)))
    seen = np.asarray(draw(jax.random.normal(KEY, (20_000, 5))))[:, 0]
    m = np.sqrt(2 / np.pi)
    variance = 0.25**2 * (m * m * float(x @ x) + m)
    np.testing.assert_allclose(seen.var(), variance, rtol=0.05)
    np.testing.assert_allclose(seen.mean(), mean, atol=5 * np.sqrt(variance / 20_000))


def by_hand(state, x, action):
    """What the network of one hidden layer says, and the layer's activations."""
    w = state["params"]
    h = jax.nn.relu(x @ w["Dense_0"]["kernel"] + w["Dense_0"]["bias"])
    return (h @ w["Dense_1"]["kernel"] + w["Dense_1"]["bias"])[jnp.arange(len(x)), action]


@pytest.mark.parametrize("loss", ["huber", "squared"])
def test_one_update_is_the_equations_written_out(loss):
    """Loss, weights, priorities and the target's renewal; every row ends, so that the target is the reward."""
    learner = dqn(TWO, 3, hidden=(8,), loss=loss, tau=0.25, target_every=2)
    state = jax.jit(learner.init)(KEY)
    x, action = jax.random.normal(KEY, (4, 3)), jnp.asarray([0, 1, 1, 0])
    reward, ended = jnp.asarray([3.0, 0.1, -2.0, 0.0]), jnp.ones(4, bool)
    weight = jnp.asarray([1.0, 0.5, 0.25, 0.0])
    batch = NStepRows(Transition(x, action, reward, x, ended, ~ended), jnp.full(4, 0.9), weight)
    update = jax.jit(learner.update)
    new, info = update(KEY, state, batch)
    error = np.abs(by_hand(state.online, x, action) - reward)
    each = np.where(error < 1, 0.5 * error**2, error - 0.5) if loss == "huber" else 0.5 * error**2
    np.testing.assert_allclose(info["loss"], np.mean(weight * each), rtol=1e-5)
    np.testing.assert_allclose(info["priority"], error, rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, new.target, state.target)  # the second update renews it
    newer, _ = update(KEY, new, batch)
    blend = jax.tree.map(lambda a, b: 0.25 * a + 0.75 * b, newer.online, state.target)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), newer.target, blend)


def test_a_skipped_update_reports_no_priorities():
    learner = dqn(TWO, 1, hidden=(4,))
    ok, x = jnp.zeros(2, bool), jnp.zeros((2, 1))
    rows = Transition(x, jnp.zeros(2, jnp.int32), jnp.asarray([1.0, jnp.inf]), x, ok, ok)
    batch = NStepRows(rows, jnp.ones(2), jnp.ones(2))
    info = jax.jit(lambda key: learner.update(key, learner.init(key), batch)[1])(KEY)
    assert info["skipped"] == 1
    assert np.all(np.isnan(info["priority"]))


def test_chance_of_a_random_action_falls_with_the_updates():
    learner = dqn(Discrete(4), 1, hidden=(4,), epsilon=(1.0, 0.2), epsilon_updates=10)
    state = learner.init(KEY)
    act = jax.jit(jax.vmap(learner.act, in_axes=(0, None, None, None)), static_argnums=3)
    keys, x = jax.random.split(KEY, 4000), jnp.ones(1)
    best = int(learner.act(KEY, state, x, False)[0])
    for updates, eps in ((0, 1.0), (5, 0.6), (30, 0.2)):
        actions, log_prob = act(keys, state._replace(updates=jnp.int32(updates)), x, True)
        chance = np.where(np.arange(4) == best, 1 - eps + eps / 4, eps / 4)
        np.testing.assert_allclose(np.bincount(actions, minlength=4) / 4000, chance, atol=0.04)
        np.testing.assert_allclose(np.exp(log_prob), chance[actions], rtol=1e-5)


# ------------------------------------------------------------------------------- probe worlds


@partial(jax.jit, static_argnums=(0, 3))
def train(learner, key, log, updates=800):
    """``updates`` updates on batches of 64 drawn from the rows of ``log``."""

    def body(state, key):
        key_batch, key_update = jax.random.split(key)
        index = jax.random.randint(key_batch, (64,), 0, len(log.reward))
        return learner.update(key_update, state, jax.tree.map(lambda x: x[index], log))[0], None

    return jax.lax.scan(body, learner.init(key), jax.random.split(key, updates))[0]


@partial(jax.jit, static_argnums=0)
def worth(learner, state, x, action):
    """The value of one action, as updates report it: its mean over a few draws of an update's own noise."""
    obs, flag = jnp.full((16, 1), x), jnp.ones(16, bool)
    rows = Transition(obs, jnp.full(16, action), jnp.zeros(16), obs, flag, flag)
    return jnp.mean(jax.vmap(lambda key: learner.update(key, state, rows)[1]["q"])(jax.random.split(KEY, 16)))


PLAIN = dqn(TWO, 1, hidden=(32,), gamma=GAMMA, learning_rate=1e-2, target_every=20)
FULL = dqn(TWO, 1, hidden=(32,), gamma=GAMMA, learning_rate=1e-2, target_every=20, **RAINBOW)


def known(learner, name, tolerance):
    """Train on a probe and compare each state's value under its best action, and the action."""
    world = probe(name, gamma=GAMMA)
    log = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rollout(KEY, world.env))
    state = train(learner, KEY, log)
    best = jnp.zeros(len(world.value), jnp.int32) if world.action is None else world.action
    for obs, value, action in zip(world.obs[:, 0], world.value, best, strict=True):
        np.testing.assert_allclose(worth(learner, state, obs, action), value, atol=tolerance, err_msg=name)
        if world.action is not None:
            assert learner.act(KEY, state, obs[None], False)[0] == action
    return state


@pytest.mark.parametrize("name", ["later", "both", "endless"])
def test_the_values_of_probe_worlds(name):
    known(PLAIN, name, 0.06)


@pytest.mark.parametrize("name", ["later", "both"])
def test_rainbow_finds_them_too(name):
    """Atoms lie 0.25 apart; the noise of the layers has not quite gone."""
    known(FULL, name, 0.15)


# ------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"action": Continuous((-1.0,), (1.0,))}, "dqn needs discrete actions, got Continuous.*use sac"),
        ({"features": 0}, "features must be at least 1, got 0"),
        ({"gamma": 1.5}, "gamma must be at most 1.0, got 1.5"),
        ({"atoms": 0}, "atoms must be at least 1, got 0"),
        ({"atoms": 5, "v_min": 2.0, "v_max": 1.0}, "v_max - v_min must be at least 1e-06, got -1.0"),
        ({"loss": "absolute"}, "loss must be one of huber, squared; got 'absolute'"),
        ({"epsilon": (1.0, -0.1)}, "epsilon must be at least 0.0, got -0.1"),
        ({"target_every": 0}, "target_every must be at least 1.0, got 0"),
        ({"hidden": (0,)}, "hidden must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        dqn(**({"action": TWO, "features": 2} | arguments))


def test_features_of_another_width_are_refused():
    learner = dqn(TWO, 2, hidden=(8,))
    with pytest.raises(ValueError, match=r"features has shape \(3,\), but dqn says \(2,\)"):
        learner.act(KEY, learner.init(KEY), jnp.zeros(3), True)
