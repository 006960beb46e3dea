"""iLQG on a linear-quadratic task whose least cost is known, and its parts by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agents import lq_world
from agents.lq_world import START, H, least_cost, world

from jmbrl import agents, data
from jmbrl.agents.local_tasks import Seen, eigenvalues_above, expanded, quadratic_reward, timed
from jmbrl.models import LinearGaussian
from jmbrl.types import Continuous, Discrete, Spec, Transition

KEY = jax.random.key(0)
FAST = {"xla_backend_optimization_level": 0}
SMALL = agents.ILQGConfig(em_iterations=3, clusters=2, warmup=0)
ITERATIONS = 10


@pytest.fixture(scope="module")
def trained():
    """A seed that learns the reward too, which is quadratic: returns without exploration at the end, and what the
    updates said."""
    env = world(known_reward=False)
    return lq_world.trained(env, agents.ilqg(env, SMALL), SMALL.samples * H * ITERATIONS)


def test_a_few_iterations_reach_the_riccati_cost(trained):
    last, history = trained
    best, K = least_cost()
    assert np.abs(K @ START) < 1.0  # the box does not bind on the mean trajectory
    cost = -last.mean()
    assert 0.97 * best < cost < 1.05 * best, (cost, best)
    assert np.nanmean(history["episode_return"][: SMALL.samples * H]) < -2.0 * best  # what it began with


def test_what_is_promised_comes_true(trained):
    history = trained[1]
    # Before the first episodes there is nothing to learn from.
    np.testing.assert_array_equal(history["controller/skipped"], [1] + [0] * (ITERATIONS - 1))
    late = {name: x[1:] for name, x in history.items() if name.startswith("controller/")}
    assert np.all(late["controller/found"] == 1)
    np.testing.assert_allclose(late["controller/cost"][1:], late["controller/promised"][:-1], rtol=0.25)
    assert np.all(late["controller/kl"] <= 1.1 * H * late["controller/factor"] + 1e-3)


def test_a_reward_can_be_learned():
    rng = np.random.default_rng(0)
    obs, action = rng.normal(5.0, 2.0, (60, 2)), rng.uniform(-1, 1, (60, 1))
    reward = 3.0 - 2.0 * obs[:, 0] ** 2 + obs[:, 0] * action[:, 0] - action[:, 0] ** 2
    flag = np.zeros(60, bool)
    rows = Transition(*(jnp.asarray(x, jnp.float32) for x in (obs, action, reward, obs, flag, flag)))
    known = jnp.arange(60) < 50
    rows = rows._replace(reward=jnp.where(known, rows.reward, jnp.nan))
    seen = Seen(rows, jnp.zeros(60, jnp.int32), known, known.astype(jnp.float32))

    def guessed(seen):
        return jax.vmap(quadratic_reward(seen, ridge=1e-6))(seen.rows.obs, seen.rows.action, seen.rows.obs)

    np.testing.assert_allclose(jax.jit(guessed, compiler_options=FAST)(seen), reward, atol=0.1)


def test_costs_are_expanded_along_the_mean():
    # r = -u^2 + cos(x') at x = 1, u = 2, x' = 2 x + u - 4 = 0; of cos at 0: value 1, slope 0, curvature -1.
    dynamics = LinearGaussian(jnp.asarray([[[2.0, 1.0]]]), jnp.asarray([[-4.0]]), jnp.ones((1, 1, 1)))
    reward = lambda obs, action, following: jnp.cos(following[0]) - action[0] ** 2  # noqa: E731
    cost = jax.jit(lambda z: expanded(dynamics, z, reward), compiler_options=FAST)(jnp.asarray([[1.0, 2.0]]))
    np.testing.assert_allclose(cost.value, [3.0])
    np.testing.assert_allclose(cost.slope, [[0.0, 4.0]], atol=1e-6)
    np.testing.assert_allclose(cost.hessian, [[[4.0, 2.0], [2.0, 3.0]]], atol=1e-5)
    # [[0, 1], [1, 0]] has the eigenvalues 1 and -1 along the diagonals.
    turned = jnp.asarray([[0.0, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(eigenvalues_above(turned, 0.0), [[0.5, 0.5], [0.5, 0.5]], atol=1e-6)


def test_rows_know_their_time_in_the_episode():
    spec = Spec("tiny", (1,), Continuous((-1.0,), (1.0,)), 3)
    replay = data.empty(spec, 7)
    add = jax.jit(data.add)
    for i in range(10):  # episodes of three; the sixth row is broken, and the seventh begins anew; the first are gone
        x = jnp.asarray([[float(i) if i != 5 else np.nan]])
        end = jnp.asarray([i in (2, 8)])
        replay = add(replay, Transition(x, x, x[:, 0], x, jnp.zeros(1, bool), end))
    look = jax.jit(timed, static_argnums=(1, 2), compiler_options=FAST)
    seen = look(replay, 4, 3)
    np.testing.assert_array_equal(seen.rows.obs[:, 0], [3, 4, 0, 6, 7, 8, 9])
    np.testing.assert_array_equal(seen.known, [1, 1, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(seen.time, [0, 1, 0, 0, 1, 2, 0])
    np.testing.assert_array_equal(seen.recent, [0, 0, 0, 1, 1, 1, 1])
    late = add(replay, Transition(x, x, x[:, 0], x, jnp.zeros(1, bool), jnp.zeros(1, bool)))
    np.testing.assert_array_equal(look(late, 4, 3).known, [0, 0, 1, 1, 1, 1, 1])  # its episode's start is gone


def test_it_acts_on_the_time_in_the_episode():
    env = world()
    agent = agents.ilqg(env, SMALL)
    state = agent.init(KEY, 1)
    state = state._replace(controller=state.controller._replace(offset=jnp.linspace(-2.0, 0.8, H)[:, None]))
    act = jax.jit(agent.act, static_argnums=5)
    carry, taken = agent.reset(state), []
    for t in range(H + 2):
        action, carry, _ = act(KEY, state, carry, jnp.zeros(2), jnp.asarray(t == H), False)
        taken.append(float(action[0]))
    np.testing.assert_allclose(taken[:H], np.clip(np.linspace(-2.0, 0.8, H), -1, 1), atol=1e-6)
    np.testing.assert_allclose(taken[H:], [-1.0, -1.0])
    noisy = jax.vmap(lambda key: agent.act(key, state, carry, jnp.zeros(2), jnp.asarray(False), True)[0])
    state = agent.init(KEY, 1)
    np.testing.assert_allclose(np.std(noisy(jax.random.split(KEY, 2000))), 0.47, atol=0.03)  # 0.5, cut at the box


def test_bad_settings_are_refused():
    env = world()
    with pytest.raises(ValueError, match="ilqg needs continuous actions"):
        agents.ilqg(env._replace(spec=dataclasses.replace(env.spec, action=Discrete(3))))
    with pytest.raises(ValueError, match="ilqg needs a vector observation"):
        agents.ilqg(env._replace(spec=dataclasses.replace(env.spec, obs_shape=(4, 4, 1))))
    wrong = {"samples": 0, "past": 2, "kl_step": 0.0, "initial_std": 0.01, "clusters": 0, "cluster_rows": 0}
    for name, value in (wrong | {"warmup": -1, "step_span": (2.0, 1.0), "floor": 0.0, "em_iterations": 0}).items():
        with pytest.raises(ValueError, match=name):
            agents.ilqg(env, agents.ILQGConfig(**{name: value}))
