"""The recurrent policy and value against a recursion in NumPy, and PPO's reading of them in segments."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learners.on_policy_probes import FAST
from learners.probes import BOX, TWO

from jmbrl.learners.recurrent_policy import Past, recurrent_actor_critic, recurrent_ppo
from jmbrl.types import ActionSpace, Transition

KEY = jax.random.key(0)
FEATURES, MEMORY, TIME, BATCH = 3, 4, 6, 2


NOTHING = jnp.zeros((TIME, BATCH, MEMORY)), jnp.zeros((TIME, BATCH, MEMORY))


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def filtered(unit: Any, memory, obs, previous):
    """One step of the unit in float64, written gate by gate."""
    layers = jax.tree.map(lambda x: np.asarray(x, np.float64), unit)
    x = np.concatenate([obs, previous]) @ layers["input"]["kernel"] + layers["input"]["bias"]
    h = memory @ layers["recurrent"]["kernel"] + layers["recurrent"]["bias"]
    update, reset = sigmoid(x[:MEMORY] + h[:MEMORY]), sigmoid(x[MEMORY : 2 * MEMORY] + h[MEMORY : 2 * MEMORY])
    return update * memory + (1.0 - update) * np.tanh(x[2 * MEMORY :] + reset * h[2 * MEMORY :])


def batch(action: ActionSpace = TWO, ended=(2,)):
    """Random rows ``[T, B]`` whose episodes end after the times ``ended``, and the past of each, kept as an agent does
    (a memory that is not empty before the first row)."""
    rng = np.random.default_rng(0)
    discrete = action is TWO
    actions = rng.integers(0, 2, (TIME, BATCH)) if discrete else rng.normal(size=(TIME, BATCH, 1)).clip(-1, 1)
    over = np.isin(np.arange(TIME), ended)[:, None] & np.ones(BATCH, bool)
    obs, after = rng.normal(size=(2, TIME, BATCH, FEATURES))
    after = np.concatenate([np.where(over[:-1, :, None], after[:-1], obs[1:]), after[-1:]])
    columns: list = [obs, actions, rng.normal(size=(TIME, BATCH)), after, over, np.zeros_like(over)]
    rows = Transition(*map(jnp.asarray, columns))
    first = np.concatenate([np.zeros((1, BATCH), bool), over[:-1]])
    before = np.concatenate([actions[:1], actions[:-1]])
    return rows, first, before


def with_memories(unit, rows, first, before, start):
    """The memory before and after each row, by the recursion; before a first row it is rubbish, as an agent's is."""
    memory, befores, afters = np.array(start, np.float64), [], []
    for t in range(TIME):
        befores.append(memory.copy())
        for b in range(BATCH):
            previous = np.eye(2)[before[t, b]] * (not first[t, b])
            held = np.zeros(MEMORY) if first[t, b] else memory[b]
            memory[b] = filtered(unit, held, np.asarray(rows.obs[t, b], np.float64), previous)
        afters.append(memory.copy())
    return np.stack(befores), np.stack(afters)


NET, REMEMBER = recurrent_actor_critic(TWO, FEATURES, memory=MEMORY, length=3, hidden=(5,))


def test_segments_and_single_rows_are_one_recursion_and_forget_at_an_episodes_start():
    weights: Any = jax.jit(NET.init, compiler_options=FAST)(KEY)
    rows, first, before = batch(ended=(1,))  # inside the first segment
    both = [with_memories(w["unit"], rows, first, before, 0.5 * np.ones((BATCH, MEMORY))) for w in weights]
    own, other = (jnp.asarray(memory) for memory, _ in both)
    past = Past((own, other), jnp.asarray(before), jnp.asarray(first))
    after = REMEMBER(weights[0]["unit"], past.memory[0], past, rows.obs)
    np.testing.assert_allclose(after, both[0][1], atol=1e-5)

    read = lambda weights: NET.read(weights, *NET.pieces((rows.obs, past)))  # noqa: E731
    pi, value = jax.jit(read, compiler_options=FAST)(weights)
    log_prob, each, following = jax.jit(NET.judge, compiler_options=FAST)(weights, rows, past)
    np.testing.assert_allclose(value, NET.pieces(each), atol=1e-5)
    np.testing.assert_allclose(pi.log_prob(NET.pieces(rows.action)), NET.pieces(log_prob), atol=1e-5)
    # The value of a row's successor is the next row's, where that goes on.
    np.testing.assert_allclose(following[:-1][~first[1:]], each[1:][~first[1:]], atol=1e-5)
    assert np.all(np.abs(following[:-1] - each[1:])[first[1:]] > 1e-4)


def test_pieces_are_segments_of_one_environment_and_hold_every_row_once():
    number = jnp.arange(TIME * BATCH).reshape(TIME, BATCH)  # row t of environment b is 2 t + b
    cut = NET.pieces(number)
    np.testing.assert_array_equal(cut, [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]])
    whole, _ = recurrent_actor_critic(TWO, FEATURES, memory=MEMORY, length=None)
    np.testing.assert_array_equal(whole.pieces(number), number)


def test_the_gradient_runs_through_time_to_the_segments_first_row_and_no_further():
    net, _ = recurrent_actor_critic(BOX, FEATURES, memory=MEMORY, length=3, hidden=())
    weights = jax.jit(net.init, compiler_options=FAST)(KEY)
    rows, first, before = batch(BOX, ended=(3,))
    past = Past(NOTHING, jnp.asarray(before, rows.action.dtype), jnp.asarray(first))

    def last(obs):
        pi, value = net.read(weights, *net.pieces((obs, past)))
        action = net.pieces(rows.action)
        return jnp.sum(value[-1]) + jnp.sum(pi.log_prob(action)[-1])

    slope = np.abs(jax.jit(jax.grad(last), compiler_options=FAST)(rows.obs)).sum(axis=-1)
    assert np.all(slope[:3] > 1e-6)  # rows 0 to 2 are one segment
    np.testing.assert_array_equal(slope[3], 0.0)  # the episode ends with row 3, in the middle of the other segment
    assert np.all(slope[4:] > 1e-6)


def test_rows_that_do_not_count_change_nothing():
    learner = recurrent_ppo(TWO, FEATURES, memory=MEMORY, length=3, hidden=(), minibatches=2, epochs=1)
    state = jax.jit(learner.init, compiler_options=FAST)(KEY)
    rows, first, before = batch(ended=(1, 4))  # the last two rows of the second segment are an episode of their own
    past = Past(NOTHING, jnp.asarray(before), jnp.asarray(first))
    mask = jnp.ones((TIME, BATCH), bool).at[5].set(False)
    other = rows._replace(obs=rows.obs.at[5].set(jnp.nan), reward=rows.reward.at[5].set(jnp.inf))
    update = jax.jit(learner.update, compiler_options=FAST)
    (one, info), (two, _) = (update(KEY, state, x, mask, past) for x in (rows, other))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert (info["updates"], info["skipped"]) == (1.0, 0.0)
    assert all(
        np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (one.value["unit"], state.value["unit"])), strict=True)
    )


# ------------------------------------------------------------------------------------- a bit to remember

STEPS, MANY = 4, 64


@partial(jax.jit, static_argnums=0, compiler_options=FAST)
def remembered(learner, key):
    """The share of right answers in each update's episodes, and in those without exploration at the end.

    An episode shows a bit, nothing in its other steps, and pays 1 for the bit as the action of the last one.
    """

    def episodes(state, key, explore):
        key_bit, key_act = jax.random.split(key)
        bit = jax.random.bernoulli(key_bit, shape=(MANY,)).astype(jnp.int32)

        def step(before, inputs):
            t, key = inputs
            memory, action = before
            x = jnp.where(t == 0, 2.0 * bit - 1.0, 0.0)[:, None]
            past = Past(memory, action, jnp.full(MANY, t == 0))
            memory = learner.encode(state, past, x)
            choose = lambda key, m, x: learner.act(key, state, m, x, explore)[0]  # noqa: E731
            chosen = jax.vmap(choose)(jax.random.split(key, MANY), memory, x)
            last = jnp.full(MANY, t == STEPS - 1)
            reward = jnp.where(last, (chosen == bit).astype(jnp.float32), 0.0)
            return (memory, chosen), (Transition(x, chosen, reward, 0.0 * x, last, last & False), past)

        empty = jax.tree.map(lambda x: jnp.zeros((MANY, *x.shape)), learner.initial())
        times = jnp.arange(STEPS), jax.random.split(key_act, STEPS)
        return jax.lax.scan(step, (empty, jnp.zeros(MANY, jnp.int32)), times)[1]

    def improve(state, key):
        key_act, key_update = jax.random.split(key)
        rows, past = episodes(state, key_act, True)
        state, _ = learner.update(key_update, state, rows, None, past)
        return state, jnp.mean(rows.reward[-1])

    state, right = jax.lax.scan(improve, learner.init(key), jax.random.split(key, 60))
    return right, jnp.mean(episodes(state, key, False)[0].reward[-1])


def test_a_bit_is_remembered():
    """Without a memory half of the answers are right at best."""
    settings = {"epochs": 4, "minibatches": 2, "learning_rate": 2e-2, "gamma": 1.0, "lam": 1.0}
    early, final = remembered(recurrent_ppo(TWO, 1, memory=8, hidden=(), **settings), KEY)
    assert np.mean(early[:3]) < 0.65
    assert final == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"memory": 0}, "memory must be at least 1, got 0"),
        ({"length": 0}, "length must be at least 1, got 0"),
        ({"features": 0}, "features must be at least 1, got 0"),
        ({"hidden": (0,)}, "hidden must be at least 1, got 0"),
        ({"clip": 0.0}, "clip must be at least 1e-12, got 0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        recurrent_ppo(**({"action": TWO, "features": 2} | arguments))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 4}, "length must divide the 6 steps of each environment in a batch, got 4"),
        ({"length": 3, "minibatches": 5}, "minibatches must be at most the number of segments 4, got 5"),
    ],
)
def test_a_batch_that_cannot_be_cut_is_refused(settings, message):
    learner = recurrent_ppo(TWO, FEATURES, memory=MEMORY, **settings)
    rows, first, before = batch()
    past = Past(NOTHING, jnp.asarray(before), jnp.asarray(first))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(learner.update, KEY, jax.eval_shape(learner.init, KEY), rows, None, past)
    with pytest.raises(ValueError, match=r"features has shape \(2,\), but recurrent_ppo says \(3,\)"):
        learner.act(KEY, None, learner.initial(), jnp.zeros(2), True)
