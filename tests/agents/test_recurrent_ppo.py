"""Recurrent PPO's loop: what the batch keeps of the memory, and that without one it is PPO."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import agents
from jmbrl.learners import RecurrentLearner
from jmbrl.train import make_train
from jmbrl.types import Transition

from worlds import counter, line

KEY = jax.random.key(0)
FAST = {"xla_backend_optimization_level": 0}  # halves the time to compile


def run(env, agent, steps, num_envs=1):
    return jax.jit(make_train(env, agent, steps, num_envs), compiler_options=FAST)(KEY)


def summing(time, batch):
    """A learner whose memory adds up the observed times of its episode and whose action is 0.1 of it; its state is the
    last data it was given."""
    rows = jnp.zeros((time, batch))
    wide = jnp.zeros((time, batch, 2))
    nothing = Transition(wide, rows[..., None], rows, wide + 0, rows > 0, rows < 0)

    def encode(state, past, x):
        return jnp.where(past.is_first, 0.0, past.memory) + x[0]

    def act(key, state, memory, x, explore):
        return 0.1 * memory[None], jnp.zeros(())

    def update(key, state, data, mask, past):
        return (data, mask, past), {"updates": jnp.any(mask).astype(jnp.float32)}

    def init(key):
        past = agents.on_policy(counter().spec, learner, batch=time * batch).reset(None).past
        return nothing, rows > 1, jax.tree.map(lambda x: jnp.zeros((time, batch, *x.shape), x.dtype), past)

    learner = RecurrentLearner(init, lambda: jnp.zeros(()), encode, act, update)
    return learner


def test_each_row_keeps_what_was_remembered_before_it_across_batches_and_episodes():
    # The counter's observations are 0 1 2 3 4 and anew; after each the memory is 0 1 3 6 10. Periods of 8 rows of one
    # environment; the last one seen is rows 8 to 15: times 3 4 0 1 2 3 4 0.
    env = counter(length=5)
    state, _ = run(env, agents.on_policy(env.spec, summing(8, 1), batch=8), 24)
    data, mask, past = jax.tree.map(lambda x: x[:, 0], state.agent.learner)
    assert np.all(mask)
    np.testing.assert_array_equal(data.obs[:, 0], [3, 4, 0, 1, 2, 3, 4, 0])
    np.testing.assert_array_equal(past.is_first, [False, False, True, False, False, False, False, True])
    inside = ~past.is_first
    np.testing.assert_array_equal(past.memory[inside], [3, 6, 0, 1, 3, 6])  # the first from the batch before
    np.testing.assert_allclose(past.action[inside, 0], [0.3, 0.6, 0.0, 0.1, 0.3, 0.6], rtol=1e-6)
    np.testing.assert_allclose(data.action[:, 0], [0.6, 1.0, 0.0, 0.1, 0.3, 0.6, 1.0, 0.0], rtol=1e-6)


def test_after_a_broken_row_an_episode_begins():
    env = counter(length=8, breaks_at=3)
    state, _ = run(env, agents.on_policy(env.spec, summing(6, 1), batch=6), 12)
    data, mask, past = jax.tree.map(lambda x: x[:, 0], state.agent.learner)
    np.testing.assert_array_equal(mask, [True, True, False, True, True, False])
    np.testing.assert_array_equal(past.is_first, [True, False, False, True, False, False])
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((data, past)))


def without_memory(config):
    return {name: x for name, x in dataclasses.asdict(config).items() if name not in ("memory", "length")}


def test_without_a_memory_it_is_ppo_bit_for_bit():
    settings = {"hidden": (4,), "batch": 40, "epochs": 2, "minibatches": 2}
    plain = agents.ppo(line(), agents.PPOConfig(**settings))
    none = agents.recurrent_ppo(line(), agents.RecurrentPPOConfig(memory=0, **settings))
    one, two = (jax.jit(make_train(line(), agent, 80, 2)).lower(KEY).as_text() for agent in (plain, none))
    assert one == two  # the same program
    assert agents.PPOConfig(minibatches=8) == agents.PPOConfig(**without_memory(agents.RecurrentPPOConfig()))


def test_segments_that_do_not_fit_the_batch_are_refused():
    config = agents.RecurrentPPOConfig(hidden=(4,), batch=40, minibatches=2, length=16)
    agent = agents.recurrent_ppo(line(), config)
    with pytest.raises(ValueError, match="length must divide the 20 steps of each environment in a batch, got 16"):
        jax.eval_shape(make_train(line(), agent, 80, 2), KEY)
    with pytest.raises(ValueError, match="memory must be at least 1, got -1"):
        agents.recurrent_ppo(line(), agents.RecurrentPPOConfig(memory=-1))
