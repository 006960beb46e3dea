"""The border every JAX environment passes: the fault table's rows 4 to 12, 15 and 17."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import envs
from jmbrl.envs import spaces
from jmbrl.types import Continuous, Discrete

KEY = jax.random.key(0)


BOX = Continuous((-1.0,), (1.0,))


def line(reward=0.0, terminated=False, obs=None, action=BOX, **options):
    """A point that counts its steps; what it returns can be spoiled."""

    def reset(key):
        return 0, jnp.zeros(2)

    def step(key, state, action):
        value = jnp.full(2, state + 1.0) if obs is None else obs(state)
        return state + 1, value, reward, terminated

    settings = {"max_steps": 5, "name": "line", "obs_shape": (2,), **options}
    return envs.from_functions(reset, step, action=action, **settings)


def one_step(env, action=None):
    state, _ = env.reset(KEY)
    return env.step(KEY, state, jnp.zeros(env.spec.action.shape) if action is None else action)


@pytest.mark.parametrize("reward", [3, True, np.float64(3.0), np.int64(3), jnp.int32(3)])
def test_rewards_become_strong_float32(reward):
    _, timestep = one_step(line(reward=reward))
    assert timestep.reward.dtype == jnp.float32
    assert not timestep.reward.weak_type
    assert float(timestep.reward) == float(reward)


@pytest.mark.parametrize("flag", [1, 1.0, True, jnp.float32(1)])
def test_flags_become_bool(flag):
    _, timestep = one_step(line(terminated=flag))
    assert timestep.terminated.dtype == jnp.bool_
    assert bool(timestep.terminated)


@pytest.mark.parametrize("dtype", [np.int32, np.float64, np.uint8, bool])
def test_observations_become_float32(dtype):
    _, timestep = one_step(line(obs=lambda s: np.ones(2, dtype)))
    assert timestep.obs.dtype == jnp.float32
    np.testing.assert_array_equal(timestep.obs, 1.0)


def test_images_stay_bytes():
    images = envs.from_functions(
        lambda key: (0, jnp.zeros((2, 2, 3), jnp.uint8)),
        lambda key, state, action: (state, jnp.full((2, 2, 3), 255, jnp.uint8), 0.0, False),
        action=Discrete(2),
        max_steps=5,
        name="images",
        obs_shape=(2, 2, 3),
        obs_dtype="uint8",
    )
    state, _ = images.reset(KEY)
    _, timestep = images.step(KEY, state, jnp.int32(1))
    assert timestep.obs.dtype == jnp.uint8
    assert int(timestep.obs.max()) == 255


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        ({"reward": jnp.zeros(1)}, r"reward of line has shape \(1,\).*\(\)"),
        ({"reward": None}, "reward of line.*None"),
        ({"terminated": None}, "terminated of line must be a bool, got None"),
        ({"terminated": jnp.zeros(2)}, r"terminated of line has shape \(2,\)"),
        ({"obs": lambda s: jnp.zeros(3)}, r"observation of line has shape \(3,\).*\(2,\)"),
    ],
)
def test_what_cannot_be_cast_is_refused(spoiled, message):
    with pytest.raises(ValueError, match=message):
        one_step(line(**spoiled))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda k, s, a: ({"t": s, "v": s}, jnp.zeros(2), 0.0, False), "changes its structure"),
        (lambda k, s, a: (s + 0.5, jnp.zeros(2), 0.0, False), "int32.*before step, float32"),
        (lambda k, s, a: (s, jnp.zeros(2), 0.0), "must return .state, obs, reward, terminated., got 3 values"),
    ],
)
def test_states_that_could_not_be_a_scans_carry_are_refused(step, message):
    env = envs.from_functions(
        lambda key: (0, jnp.zeros(2)), step, action=Discrete(2), max_steps=5, name="bad", obs_shape=(2,)
    )
    state, _ = env.reset(KEY)
    with pytest.raises(ValueError, match=message):
        env.step(KEY, state, jnp.int32(0))


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        ((-np.inf,), (1.0,), "finite bounds or act_limit"),
        ((1.0,), (1.0,), "low < high"),
        ((-1.0,), (1.0, 2.0), "length"),
    ],
)
def test_bad_bounds_are_refused(low, high, message):
    with pytest.raises(ValueError, match=message):
        line(action=Continuous(low, high))


def test_bad_actions_are_refused():
    with pytest.raises(ValueError, match=r"action has shape \(2,\)"):
        one_step(line(), jnp.zeros(2))
    with pytest.raises(ValueError, match=r"must be an integer in \[0, 3\)"):
        one_step(line(action=Discrete(3)), jnp.float32(0.7))
    with pytest.raises(ValueError, match="action must be Continuous"):
        line(action=7)


def test_asymmetric_bounds_are_scaled_and_clipped():
    space = Continuous((-0.4, 0.0), (0.3, 10.0))
    np.testing.assert_allclose(spaces.to_env(space, jnp.array([-1.0, 1.0])), [-0.4, 10.0])
    np.testing.assert_allclose(spaces.to_env(space, jnp.array([0.0, 0.0])), [-0.05, 5.0], atol=1e-7)
    np.testing.assert_allclose(spaces.to_env(space, jnp.array([-24.0, 24.0])), [-0.4, 10.0])
    np.testing.assert_allclose(spaces.from_env(space, [0.3, 5.0]), [1.0, 0.0], atol=1e-6)
    assert int(spaces.to_env(Discrete(3), jnp.int32(9))) == 2


def test_an_endless_environment_is_truncated_and_not_terminated():
    env = line()
    state, _ = env.reset(KEY)
    flags = []
    for _ in range(5):
        state, timestep = env.step(KEY, state, jnp.zeros(1))
        flags.append((bool(timestep.terminated), bool(timestep.truncated)))
    assert flags == [(False, False)] * 4 + [(False, True)]


def test_an_end_at_the_last_step_is_an_end():
    env = line(terminated=True, max_steps=1)
    _, timestep = one_step(env)
    assert bool(timestep.terminated)
    assert not bool(timestep.truncated)


def test_dictionaries_are_flattened_with_names():
    env = envs.from_functions(
        lambda key: (0, {"speed": jnp.float32(1), "at": jnp.arange(2)}),
        lambda key, state, action: (state, {"speed": jnp.float32(3), "at": jnp.arange(2)}, 0.0, False),
        action=Discrete(2),
        max_steps=5,
        name="dictionary",
    )
    assert env.spec.obs_names == ("at[0]", "at[1]", "speed")
    _, timestep = one_step(env, jnp.int32(0))
    np.testing.assert_array_equal(timestep.obs, [0.0, 1.0, 3.0])


def test_restart_touches_only_the_finished_copies():
    copies = envs.make("gymnax:Pendulum-v1").vector(4)
    states, obs = copies.reset(KEY)
    done = jnp.array([True, False, True, False])
    new, new_obs = copies.restart(jax.random.key(1), done, states, obs)
    np.testing.assert_array_equal(new_obs[1::2], obs[1::2])
    np.testing.assert_array_equal(new.inner.theta[1::2], states.inner.theta[1::2])
    assert (np.asarray(new_obs[::2]) != np.asarray(obs[::2])).any(axis=1).all()
    with pytest.raises(ValueError, match="num_envs must be at least 1"):
        envs.make("gymnax:Pendulum-v1").vector(0)


@pytest.mark.parametrize("step", [lambda s: 1.0 if s > 3 else 0.0, lambda s: np.sin(s), lambda s: float(s)])
def test_functions_that_are_not_pure_jax_get_advice(step):
    env = envs.from_functions(
        lambda key: (0, jnp.zeros(2)),
        lambda key, state, action: (state + 1, jnp.zeros(2), step(state), False),
        action=Discrete(2),
        max_steps=5,
        name="plain",
        obs_shape=(2,),
    )
    state, _ = env.reset(KEY)
    with pytest.raises(ValueError, match=r"step of plain is not pure JAX.*jnp\.where.*from_gymnasium"):
        jax.jit(env.step)(KEY, state, jnp.int32(0))
