"""The gymnax adapter beside gymnax itself, from the same state with the same keys."""

import chex
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import envs
from jmbrl.envs import spaces
from jmbrl.envs.gymnax import NAMES


@pytest.mark.parametrize("name", ["Pendulum-v1", "MountainCarContinuous-v0", "CartPole-v1", "Acrobot-v1"])
def test_steps_beside_gymnax_and_keeps_the_last_observation(name):
    limit = 30
    theirs, params = gymnax.make(name)
    params = params.replace(max_steps_in_episode=limit)
    env = envs.make(f"gymnax:{name}", max_steps=limit)
    key = jax.random.key(3)
    state, obs = jax.jit(env.reset)(key)
    first, their_state = jax.jit(theirs.reset_env)(key, params)
    np.testing.assert_array_equal(obs, first)
    step, their_step = jax.jit(env.step), jax.jit(theirs.step)
    ended = False
    for i in range(limit):
        step_key = jax.random.fold_in(key, i)
        action = spaces.sample(step_key, env.spec.action)
        # gymnax splits the key for its own reset; ours hands it to the step as it is.
        state, timestep = step(jax.random.split(step_key)[0], state, action)
        raw = spaces.to_env(env.spec.action, action)
        _, their_state, reward, terminated, truncated, info = their_step(step_key, their_state, raw, params)
        np.testing.assert_allclose(timestep.obs, info["final_observation"], atol=1e-6)
        assert float(timestep.reward) == pytest.approx(float(reward), abs=1e-5)
        assert bool(timestep.terminated) == bool(terminated)
        assert bool(timestep.truncated) == bool(truncated & ~terminated)
        ended = bool(terminated | truncated)
        if ended:
            break
    assert ended, "the comparison has to reach an episode's end, where gymnax resets and ours does not"


def test_actions_are_scaled_to_the_tasks_own_units():
    env = envs.make("gymnax:Pendulum-v1")
    state, _ = env.reset(jax.random.key(0))
    after, _ = env.step(jax.random.key(0), state, jnp.array([0.5]))
    assert float(after.inner.last_u) == pytest.approx(1.0)
    after, _ = env.step(jax.random.key(0), state, jnp.array([7.0]))
    assert float(after.inner.last_u) == pytest.approx(2.0), "clipped to the bounds"


def test_parameters_change_the_task_and_drop_the_known_reward():
    plain, heavy = envs.make("gymnax:Pendulum-v1"), envs.make("gymnax:Pendulum-v1", g=20.0)
    assert plain.reward_fn is not None
    assert heavy.reward_fn is None
    key = jax.random.key(0)
    obs = [e.step(key, e.reset(key)[0], jnp.zeros(1))[1].obs for e in (plain, heavy)]
    assert not np.allclose(*obs)
    with pytest.raises(ValueError, match=r"no parameter.*gravitas"):
        envs.make("gymnax:Pendulum-v1", gravitas=1.0)


def test_gradients_flow_where_gymnax_allows_them():
    env = envs.make("gymnax:Pendulum-v1")
    state, _ = env.reset(jax.random.key(0))
    slope = jax.jit(jax.grad(lambda a: env.step(jax.random.key(0), state, a)[1].obs[2]))(jnp.zeros(1))
    assert float(slope[0]) == pytest.approx(0.3)  # 3 / (m l^2) dt times 2 Nm


def test_a_scan_over_steps_compiles_once():
    """14 of gymnax's states hold weak Python numbers, which would compile a second time (fault table 11)."""
    env = envs.make("gymnax:Reacher-misc")
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(env.step, n=1))
    state, _ = jax.jit(env.reset)(jax.random.key(0))
    for _ in range(3):
        state, timestep = step(jax.random.key(0), state, jnp.zeros(2))
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((state, timestep)))


def test_frozen_lake_is_numbered_row_by_row():
    env = envs.make("gymnax:FrozenLake-misc")
    key = jax.random.key(0)
    assert (env.cells.count, env.cells.shape) == (16, (4, 4))
    state, obs = env.reset(key)
    assert int(env.cells.index(obs)) == 0
    state = state._replace(inner=state.inner.replace(position=jnp.int32(9)))
    after, seen = env.step(key, state, jnp.int32(1))
    assert int(env.cells.index(seen.obs)) == int(after.inner.position) != 9
    assert envs.make("gymnax:CartPole-v1").cells is None


def test_names_are_gymnaxs():
    assert sorted(NAMES) == sorted(gymnax.registered_envs)
