"""The run as one function: schedules, chunks, ends of episodes and broken numbers."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl.train import make_train
from jmbrl.types import Agent

from worlds import counter, tally

KEY = jax.random.key(3)


def log_of(run):
    log = np.asarray(run.agent[1])
    return [tuple(row) for row in log.tolist() if row[0] != -9]


def test_each_update_runs_before_its_period_outermost_first():
    train = make_train(counter(), tally((4, 2), warmup=2), 10)
    run, history = jax.jit(train)(KEY)
    warm = [(-1, 0), (-1, 1)]
    first = [(0, 2), (1, 2), (-1, 2), (-1, 3), (1, 4), (-1, 4), (-1, 5)]
    second = [(0, 6), (1, 6), (-1, 6), (-1, 7), (1, 8), (-1, 8), (-1, 9)]
    assert log_of(run) == warm + first + second
    np.testing.assert_array_equal(history["phase0/step"], [2, 6])
    np.testing.assert_array_equal(history["phase1/step"], [2, 4, 6, 8])
    assert history["reward"].shape == (10, 1)


def test_a_run_that_is_not_a_multiple_of_its_period_ends_exactly():
    train = make_train(counter(), tally((4, 2), warmup=1), 8)
    assert [tuple(span) for span in train.spans()] == [(0, 1, True), (1, 4, False), (5, 3, False)]
    run, history = jax.jit(train)(KEY)
    assert history["reward"].shape == (8, 1)
    assert [row for row in log_of(run) if row[0] >= 0] == [(0, 1), (1, 1), (1, 3), (0, 5), (1, 5), (1, 7)]


def test_a_period_shorter_than_num_envs_updates_more_often():
    train = make_train(counter(), tally((8, 1), warmup=4), 20, num_envs=4)
    run, history = jax.jit(train)(KEY)
    np.testing.assert_array_equal(np.asarray(run.agent[0]), [2, 16, 0])
    np.testing.assert_array_equal(history["phase1/step"], np.repeat([4, 8, 12, 16], 4))
    assert history["reward"].shape == (5, 4)


def test_record_is_given_what_act_remembered_for_the_row():
    """Two environments of 5 steps: the carry is 10 times the time that was seen, and -1 while actions are random."""

    def act(key, state, carry, obs, is_first, explore):
        return jnp.zeros(1), {"seen": 10 * obs[0]}, {}

    def record(state, carry, rows, valid):
        log, at = state
        return log.at[at].set(jnp.stack([rows.obs[:, 0], carry["seen"]], axis=1)), at + 1

    init = lambda key, num_envs: (jnp.zeros((8, num_envs, 2)), 0)  # noqa: E731
    agent = Agent(init, lambda state: {"seen": jnp.float32(-1.0)}, act, record, warmup=4)
    run, _ = jax.jit(make_train(counter(), agent, 16, num_envs=2))(KEY)
    wanted = [[0, -1], [1, -1], [2, 20], [3, 30], [4, 40], [0, 0], [1, 10], [2, 20]]
    np.testing.assert_array_equal(run.agent[0], np.repeat(np.asarray(wanted)[:, None], 2, axis=1))


@pytest.mark.parametrize("num_envs", [1, 2])
def test_chunks_equal_one_scan_bit_for_bit(num_envs):
    train = make_train(counter(), tally((4, 2), warmup=4), 24, num_envs=num_envs)
    whole, history = jax.jit(train)(KEY)
    run, parts = jax.jit(train.init)(KEY), []
    chunk = jax.jit(train.chunk, static_argnums=(3, 4))
    for span in train.spans():
        run, metrics = chunk(KEY, run, span.start, span.length, span.warmup)
        parts.append(metrics)
    jax.tree.map(np.testing.assert_array_equal, run, whole)
    for name, values in history.items():
        np.testing.assert_array_equal(np.concatenate([p[name] for p in parts if name in p]), values)


def test_one_compilation_a_kind_of_chunk():
    train = make_train(counter(), tally((4, 2), warmup=4), 24)
    chex.clear_trace_counter()
    chunk = jax.jit(chex.assert_max_traces(train.chunk, n=2), static_argnums=(3, 4))  # warm-up and body
    run = jax.jit(train.init)(KEY)
    for span in train.spans():
        run, _ = chunk(KEY, run, jnp.asarray(span.start, jnp.int32), span.length, span.warmup)


def test_a_seed_does_not_depend_on_its_lane_and_agrees_with_a_single_run():
    train = make_train(counter(), tally((4,), warmup=4), 24)
    keys = jax.random.split(KEY, 3)
    many = jax.jit(jax.vmap(train))
    forward, backward = many(keys)[1], many(keys[::-1])[1]
    single = jax.jit(train)(keys[1])[1]
    for name in forward:
        np.testing.assert_array_equal(forward[name], backward[name][::-1])
        np.testing.assert_allclose(forward[name][1], single[name], rtol=1e-6)


def test_episode_ends_are_reported_and_the_next_one_starts_fresh():
    run, history = jax.jit(make_train(counter(length=5), tally((100,)), 12))(KEY)
    ended = np.flatnonzero(~np.isnan(history["episode_return"][:, 0]))
    np.testing.assert_array_equal(ended, [4, 9])
    np.testing.assert_array_equal(history["episode_return"][ended, 0], [10.0, 10.0])  # 0+1+2+3+4
    np.testing.assert_array_equal(history["episode_length"][ended, 0], [5, 5])
    np.testing.assert_array_equal(history["act/age"][:, 0], [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 1, 2])
    assert run.episode_return[0] == 1.0


def test_the_agents_memory_begins_anew_after_the_warm_up():
    _, history = jax.jit(make_train(counter(length=5), tally((100,), warmup=3), 6))(KEY)
    np.testing.assert_array_equal(history["act/age"][:, 0], [1, 2, 1])  # t = 3, 4 of the first episode, then a new one


def test_a_broken_observation_is_counted_and_ends_the_episode():
    _, history = jax.jit(make_train(counter(length=5, breaks_at=3), tally((100,)), 7))(KEY)
    np.testing.assert_array_equal(history["bad_transitions"][:, 0], [0, 0, 1, 0, 0, 1, 0])
    np.testing.assert_array_equal(history["act/age"][:, 0], [1, 2, 3, 1, 2, 3, 1])
    assert np.nanmax(history["episode_return"]) == 1.0  # the broken step's reward is not counted


def test_a_broken_action_never_reaches_the_world():
    agent = tally((100,))
    broken = agent._replace(act=lambda *a: (jnp.asarray([jnp.nan]), a[2], {}))
    _, history = jax.jit(make_train(counter(), broken, 3))(KEY)
    np.testing.assert_array_equal(history["bad_actions"], np.ones((3, 1)))
    assert np.all(np.isfinite(history["reward"]))


@pytest.mark.parametrize(
    ("arguments", "periods", "warmup", "message"),
    [
        ({"steps": 0}, (4,), 0, "steps must be at least 1, got 0"),
        ({"steps": 10, "num_envs": 4}, (4,), 0, "steps must be a multiple of num_envs=4, got 10"),
        ({"steps": 8, "num_envs": 4}, (4,), 2, "warmup must be a multiple of num_envs=4, got 2"),
        ({"steps": 8, "num_envs": 4}, (6,), 0, r"phases\[0\] period must divide or be a multiple of num_envs=4, got 6"),
        ({"steps": 8}, (5, 2), 0, r"phases\[0\] period 5 must be a multiple of the next inner period 2"),
        ({"steps": 8}, (0,), 0, r"phases\[0\] period must be at least 1, got 0"),
    ],
)
def test_schedules_that_do_not_fit_are_refused(arguments, periods, warmup, message):
    with pytest.raises(ValueError, match=message):
        make_train(counter(), tally(periods, warmup), **arguments)


def test_seeds_that_would_wrap_are_refused():
    train = make_train(counter(), tally((4,)), 4)
    with pytest.raises(ValueError, match=r"seed must be in \[0, 2\*\*32\)"):
        train(2**40)
    with pytest.raises(ValueError, match="vmap the function over keys"):
        train(jax.random.split(KEY, 2))
