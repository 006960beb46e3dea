"""The on-policy agents' loop: which rows an update sees, what it sees of them, and when."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import agents
from jmbrl.data import running
from jmbrl.train import make_train
from jmbrl.types import Learner, Transition

from worlds import counter, line

KEY = jax.random.key(0)


def watcher(keeps):
    """A learner whose state is the last data it was given, ``keeps`` of an update's ``(T, B)`` rows, 1 feature."""
    time, batch = keeps
    rows = jnp.zeros((time, batch))
    nothing = Transition(
        jnp.zeros((time, batch, 2)), rows[..., None], rows, jnp.zeros((time, batch, 2)), rows > 0, rows > 0
    )

    def update(key, state, data, mask):
        return (data, mask), {"updates": jnp.any(mask).astype(jnp.float32), "rows": jnp.sum(mask)}

    act = lambda key, state, x, explore: (jnp.zeros(1), jnp.zeros(()))  # noqa: E731
    return Learner(lambda key: (nothing, rows > 0), act, update)


def run(env, agent, steps, num_envs=1):
    fast = {"xla_backend_optimization_level": 0}  # halves the time to compile
    return jax.jit(make_train(env, agent, steps, num_envs), compiler_options=fast)(KEY)


def test_each_update_gets_the_period_before_it_and_the_first_gets_nothing():
    # Observation and reward of the counter are its time: 0 1 2 3 4 and anew. Periods [0, 8) and [8, 16) of two copies.
    env = counter(length=5)
    state, history = run(env, agents.on_policy(env.spec, watcher((4, 2)), batch=8), 24, 2)
    np.testing.assert_array_equal(history["learner/rows"], [0, 8, 8])
    data, mask = state.agent.learner
    assert np.all(mask)
    np.testing.assert_array_equal(data.reward[:, 0], [4, 0, 1, 2])  # the second period, of each copy
    np.testing.assert_array_equal(data.obs[:, 1, 0], [4, 0, 1, 2])
    np.testing.assert_array_equal(data.next_obs[:, 0, 0], [5, 1, 2, 3])  # the true successor, not the new start
    np.testing.assert_array_equal(data.terminated[:, 0], [True, False, False, False])


def test_broken_rows_are_masked_and_hold_nothing():
    env = counter(length=8, breaks_at=3)
    state, _ = run(env, agents.on_policy(env.spec, watcher((6, 1)), batch=6), 12)
    data, mask = state.agent.learner
    np.testing.assert_array_equal(mask[:, 0], [True, True, False, True, True, False])
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(data))


def test_what_is_seen_of_an_observation_stays_until_the_update():
    """The first period is seen as it is; in the second the first one's mean is 0 and its spread 1."""
    env = counter(length=100)
    agent = agents.on_policy(env.spec, watcher((4, 1)), batch=4, normalize_observations=True)
    first, _ = run(env, agent, 8)
    np.testing.assert_array_equal(first.agent.learner[0].obs[:, 0], [[0, 1], [1, 1], [2, 1], [3, 1]])
    second, _ = run(env, agent, 12)
    # Times 4 to 7 in units of those before them: mean 1.5, standard deviation sqrt(1.25); the constant is centred.
    wanted = (np.arange(4, 8) - 1.5) / np.sqrt(1.25)
    np.testing.assert_allclose(second.agent.learner[0].obs[:, 0, 0], wanted, rtol=1e-5)
    np.testing.assert_array_equal(second.agent.learner[0].obs[:, 0, 1], 0.0)
    np.testing.assert_allclose(second.agent.seen.mean, [3.5, 1.0])
    np.testing.assert_allclose(first.agent.seen.mean, [1.5, 1.0])


def test_a_line_is_learned():
    """x' = x + 0.5 a, reward -x'^2 for 20 steps: doing nothing costs 20 E x^2 = 6.7, the best policy about 0.2."""
    config = agents.PPOConfig(hidden=(16,), batch=320, gamma=0.9, minibatches=8, learning_rate=3e-3)
    agent = agents.ppo(line(), config)
    final, history = run(line(), agent, 9600, 16)
    returns = np.asarray(history["episode_return"])
    early, late = (np.nanmean(part) for part in (returns[:60], returns[-60:]))
    assert late > -3.0 > early
    # Without exploration it goes to 0 and stays.
    act = lambda x: agent.act(KEY, final.agent, (), x, jnp.asarray(False), False)[0]  # noqa: E731
    np.testing.assert_allclose(jax.vmap(act)(jnp.asarray([[0.4], [-0.4]])), [[-0.8], [0.8]], atol=0.35)
    assert history["learner/updates"].sum() == 29


def test_an_encoder_is_for_ppo_without_a_memory():
    encoded = {"encoder": (8,), "auxiliary": {"spr": 2.0, "inverse": 1.0}, "auxiliary_steps": 2, "hidden": (8,)}
    config = agents.PPOConfig(batch=16, epochs=2, minibatches=2, **encoded)
    final, history = run(line(), agents.ppo(line(), config), 48, 2)
    np.testing.assert_array_equal(history["learner/updates"], [0, 1, 1])
    # Windows of two rows, in a world of 20 steps: those of a batch's last rows, and some others, are shorter.
    assert np.all((history["learner/spr_loss"][1:] > -2.0) & (history["learner/spr_loss"][1:] < 2.0))
    assert final.agent.learner.policy.encoder["inverse"][0]["kernel"].shape == (16, 8)
    with pytest.raises(ValueError, match=r"encoder must be \(\) with a memory, got \(8,\)"):
        agents.recurrent_ppo(line(), agents.RecurrentPPOConfig(**encoded))
    assert agents.recurrent_ppo(line(), agents.RecurrentPPOConfig(memory=0, **encoded)).phases[0][0] == 2048


def test_a_batch_that_the_copies_cannot_share_is_refused():
    agent = agents.on_policy(line().spec, watcher((4, 1)), batch=10)
    with pytest.raises(ValueError, match="batch must be a multiple of num_envs=4, got 10"):
        agent.init(KEY, 4)
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        agents.on_policy(line().spec, watcher((4, 1)), batch=0)


# -------------------------------------------------------------------------------- running statistics


def test_running_statistics_are_those_of_all_rows_at_once():
    """Large offsets keep their spread in float32; what the mask leaves out may be anything."""
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(300, 2)) * [0.01, 3.0] + [1e4, -2.0]).astype(np.float32)
    mask = rng.random(300) < 0.8
    seen = running.nothing_seen(2)
    for part in np.split(np.arange(300), [7, 7, 100]):
        if len(part):
            shown = np.where(mask[part, None], rows[part], np.nan)
            seen = running.observe(seen, jnp.asarray(shown), jnp.asarray(mask[part]))
    kept = rows[mask].astype(np.float64)
    assert seen.count == mask.sum()
    np.testing.assert_allclose(seen.mean, kept.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(seen.squares / seen.count), kept.std(axis=0), rtol=0.02)
    nothing = running.observe(seen, jnp.full((3, 2), jnp.nan), jnp.zeros(3, bool))
    jax.tree.map(np.testing.assert_array_equal, nothing, seen)


def test_before_any_row_and_in_constant_columns_nothing_is_divided():
    x = jnp.asarray([3.0, -40.0])
    np.testing.assert_array_equal(running.standardise(running.nothing_seen(2), x), [3.0, -10.0])
    seen = running.observe(running.nothing_seen(2), jnp.asarray([[3.0, 1.0], [3.0, 3.0]]), jnp.ones(2, bool))
    np.testing.assert_allclose(running.standardise(seen, jnp.asarray([3.5, 4.0])), [0.5, 2.0])
