"""The brax adapter across an episode's end, beside brax's own wrappers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import envs
from jmbrl.envs import spaces

COPIES, STEPS = 3, 60


@pytest.fixture(scope="module")
def run():
    """Sixty random steps of three copies of inverted_pendulum, and brax's AutoReset beside the first episodes."""
    from brax.envs import get_environment
    from brax.envs.wrappers import training

    env = envs.make("brax:inverted_pendulum", reset_pool=8, max_steps=40)
    copies = env.vector(COPIES)
    theirs = training.AutoResetWrapper(training.VmapWrapper(get_environment("inverted_pendulum", backend="spring")))

    def body(carry, key):
        states, obs, reference = carry
        act_key, step_key, restart_key = jax.random.split(key, 3)
        # Strong pushes to one side: every pole falls within the run.
        action = jax.random.uniform(act_key, (COPIES, 1), minval=0.5, maxval=1.5)
        states, timestep = copies.step(step_key, states, action)
        reference = theirs.step(reference, jnp.clip(action, -1, 1))
        done = timestep.terminated | timestep.truncated
        states, next_obs = copies.restart(restart_key, done, states, timestep.obs)
        return (states, next_obs, reference), (obs, action, timestep, next_obs, reference.obs, reference.done)

    def both(key):
        states, obs = copies.reset(key)
        inner = states.current.inner  # brax starts from our state, with what its wrapper keeps for resets
        inner = inner.replace(info={**inner.info, "first_pipeline_state": inner.pipeline_state, "first_obs": inner.obs})
        carry = (states, obs, inner)
        carry, out = jax.lax.scan(body, carry, jax.random.split(key, STEPS))
        return carry[0], out

    return env, *jax.device_get(jax.jit(both)(jax.random.key(0)))


def test_the_true_last_observation_is_kept_where_brax_loses_it(run):
    _, _, (_, _, timestep, _, their_obs, their_done) = run
    for copy in range(COPIES):
        end = int(np.argmax(timestep.terminated[:, copy]))
        assert timestep.terminated[end, copy], "a pole pushed to one side falls"
        assert their_done[end, copy] == 1.0
        np.testing.assert_allclose(timestep.obs[:end, copy], their_obs[:end, copy], atol=1e-5)
        assert abs(timestep.obs[end, copy, 1]) > 0.2, "the fallen pole itself"
        assert abs(their_obs[end, copy, 1]) < 0.02, "brax gives the start of the next episode instead"


def test_known_reward_and_end_agree_with_brax(run):
    env, _, (obs, action, timestep, _, _, _) = run
    reward = jax.vmap(jax.vmap(env.reward_fn))(obs, action, timestep.obs)
    ended = jax.vmap(jax.vmap(env.termination_fn))(obs, action, timestep.obs)
    np.testing.assert_array_equal(reward, timestep.reward)
    np.testing.assert_array_equal(ended, timestep.terminated)


def test_restarts_come_from_the_pool_and_vary(run):
    env, states, (_, _, timestep, next_obs, _, _) = run
    pool = np.asarray(states.starts[1]).reshape(-1, 4)
    assert len(pool) == 9, "eight states asked for, spread over three copies"
    done = timestep.terminated | timestep.truncated
    starts = next_obs[done]
    assert len(starts) >= 6
    for start in starts:
        assert np.isclose(pool, start, atol=1e-6).all(axis=1).any()
    assert len(np.unique(starts[:, 0])) > 2, "brax would start every episode of a copy from the same state"
    assert env.spec.name == "brax:inverted_pendulum/spring"


def test_swimmer_is_refused_with_the_reason():
    with pytest.raises(ValueError, match=r"a_min.*bug in brax"):
        envs.make("brax:swimmer")


def test_names_and_backends_are_checked():
    with pytest.raises(ValueError, match="brax:reacher"):
        envs.make("brax:reachr")
    with pytest.raises(ValueError, match="backend must be one of spring"):
        envs.make("brax:reacher", backend="bullet")
    with pytest.raises(ValueError, match="must agree"):
        envs.make("brax:reacher/mjx", backend="spring")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reacher", "pusher", "humanoidstandup", "halfcheetah", "ant"])
def test_known_functions_agree_on_random_steps(name):
    env = envs.make(f"brax:{name}", max_steps=100)

    def body(carry, key):
        state, obs = carry
        action = spaces.sample(key, env.spec.action)
        state, timestep = env.step(key, state, action)
        return (state, timestep.obs), (obs, action, timestep)

    keys = jax.random.split(jax.random.key(1), 100)
    obs, action, timestep = jax.jit(lambda k: jax.lax.scan(body, env.reset(k), keys)[1])(keys[0])
    assert np.isfinite(timestep.obs).all()
    if env.reward_fn is not None:
        np.testing.assert_allclose(jax.vmap(env.reward_fn)(obs, action, timestep.obs), timestep.reward, rtol=1e-3)
    ended = jax.vmap(env.termination_fn)(obs, action, timestep.obs)
    np.testing.assert_array_equal(ended, timestep.terminated)
