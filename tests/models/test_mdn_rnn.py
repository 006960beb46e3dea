"""The recurrent mixture network: its unit and its densities by hand, what its loss sees, and that it remembers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jmbrl import models
from jmbrl.models import LatentSequence, MixtureOutputs
from jmbrl.models.mdn_rnn import log_prob
from jmbrl.networks import Normal

KEY = jax.random.key(0)
FAST = {"xla_backend_optimization_level": 0}


def test_it_has_as_many_parameters_as_the_source_says():
    def count(memory):
        return sum(x.size for x in jax.tree.leaves(jax.eval_shape(memory.init, KEY)))

    assert count(models.mdn_rnn(32, 3)) == 422_368
    # Doom's: one action, its flag of a new episode, and the head of the end.
    assert count(models.mdn_rnn(64, 2, hidden=512, learn_termination=True)) == 1_678_785


def test_the_unit_is_an_lstm():
    memory = models.mdn_rnn(2, 1, hidden=3)
    weights = memory.init(KEY)
    np.testing.assert_array_equal(weights["input"][0]["bias"], [0.0] * 6 + [1.0] * 3 + [0.0] * 3)
    rng = np.random.default_rng(0)
    z, a, h, c = (rng.normal(size=n) for n in (2, 1, 3, 3))
    kernel = np.concatenate([weights["input"][0]["kernel"], weights["recurrent"]]).astype(np.float64)
    i, j, f, o = np.split(np.concatenate([z, a, h]) @ kernel + np.asarray(weights["input"][0]["bias"]), 4)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    cell = sigmoid(f) * c + sigmoid(i) * np.tanh(j)
    got = memory.recur(weights, *(jnp.asarray(x, jnp.float32) for x in (h, c, z, a)))
    np.testing.assert_allclose(got[1], cell, rtol=1e-5)
    np.testing.assert_allclose(got[0], sigmoid(o) * np.tanh(cell), rtol=1e-5)
    # Without a memory what came before is nothing.
    forgetful = models.mdn_rnn(2, 1, hidden=3, memoryless=True)
    z, a, h, c = (jnp.asarray(x, jnp.float32) for x in (z, a, h, c))
    kept, fresh = (forgetful.recur(weights, s * h, s * c, z, a) for s in (1.0, 0.0))
    np.testing.assert_array_equal(kept[0], fresh[0])
    np.testing.assert_allclose(fresh[0], memory.recur(weights, 0 * h, 0 * c, z, a)[0], rtol=1e-6)


def mixture(share, mean, std):
    """Of one latent's entry."""
    log = [jnp.log(jnp.asarray(x, jnp.float32))[None] for x in (share, std)]
    return MixtureOutputs(log[0], jnp.asarray([mean], jnp.float32), log[1], jnp.zeros(()), jnp.zeros(()))


def test_a_density_by_hand():
    # 0.25 N(1; 0, 1) + 0.75 N(1; 2, 2^2) = 0.25 * 0.2419707 + 0.75 * 0.1760327.
    got = log_prob(mixture([0.25, 0.75], [0.0, 2.0], [1.0, 2.0]), jnp.asarray([1.0]))
    np.testing.assert_allclose(got, [np.log(0.1925172)], rtol=1e-5)


def test_one_component_is_a_gaussian():
    memory = models.mdn_rnn(4, 1, hidden=3, mixtures=1)
    out = memory.outputs(memory.init(KEY), jnp.asarray([[0.3, -0.8, 0.5]]))
    z = jax.random.normal(KEY, (1, 4))
    wanted = Normal(out.mean[..., 0], jnp.exp(out.log_std[..., 0])).log_prob(z)
    np.testing.assert_allclose(jnp.sum(log_prob(out, z), axis=-1), wanted, rtol=1e-5)
    np.testing.assert_array_equal(out.log_weight, jnp.zeros((1, 4, 1)))


def test_temperature_sharpens_and_widens():
    draw = models.mdn_rnn(1, 1).sample
    out = mixture([0.2, 0.8], [-1.0, 3.0], [0.5, 0.1])
    np.testing.assert_allclose(draw(KEY, out, 0.0), [3.0], rtol=1e-6)
    keys = jax.random.split(KEY, 40_000)
    for tau in (1.0, 0.5):
        z = np.asarray(jax.jit(jax.vmap(draw, (0, None, None)), compiler_options=FAST)(keys, out, jnp.float32(tau)))
        low = {1.0: 0.2, 0.5: 1 / 17}[tau]  # 0.2^2 / (0.2^2 + 0.8^2)
        mean = low * -1.0 + (1 - low) * 3.0
        variance = low * (1 - low) * 16 + tau * (low * 0.25 + (1 - low) * 0.01)
        # The mean's standard error is at most 0.0082, the variance's 0.025: eight of them.
        np.testing.assert_allclose(z.mean(), mean, atol=0.065)
        np.testing.assert_allclose(z.var(), variance, atol=0.2)
        np.testing.assert_allclose((z < 1.0).mean(), low, atol=0.016)


def test_entries_are_drawn_by_themselves_along_all_axes():
    half = jnp.full((2, 3, 4, 2), jnp.log(0.5))
    mean = jnp.broadcast_to(jnp.asarray([-1.0, 1.0]), half.shape)
    out = MixtureOutputs(half, mean, jnp.full_like(half, -10.0), jnp.zeros((2, 3)), jnp.zeros((2, 3)))
    z = np.asarray(models.mdn_rnn(4, 1).sample(KEY, out, 1.0))
    assert z.shape == (2, 3, 4)
    np.testing.assert_allclose(np.abs(z), 1.0, atol=1e-3)
    assert len({tuple(np.sign(row)) for row in z.reshape(6, 4)}) > 1  # all alike once in 10^6


def sequence(batch=2, steps=4, latent=2, std=0.0, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=(batch, *shape)), jnp.float32)  # noqa: E731
    flag = jnp.zeros((batch, steps), bool)
    mean = draw(steps + 1, latent)
    return LatentSequence(
        mean, jnp.full_like(mean, std), draw(steps, 1), draw(steps), flag, flag.at[:, 0].set(True), ~flag
    )


HEADS = {"hidden": 3, "mixtures": 2, "learn_reward": True, "learn_termination": True}


def test_the_loss_by_hand():
    memory = models.mdn_rnn(2, 1, **HEADS)
    weights = jax.tree.map(lambda x: jnp.zeros(x.shape), jax.eval_shape(memory.init, KEY))
    # Standard normals for the latents, a reward of 0.5 and an end of logit log 3 (chance 3/4), whatever happened.
    bias = jnp.zeros(14).at[12].set(0.5).at[13].set(jnp.log(3.0))
    weights["output"] = (weights["output"][0] | {"bias": bias},)
    batch = sequence()
    batch = batch._replace(terminated=batch.terminated.at[0, 1].set(True), is_first=batch.is_first.at[0, 2].set(True))
    value, info = jax.jit(memory.loss, compiler_options=FAST)(KEY, weights, batch)
    nll = 0.5 * np.asarray(batch.mean[:, 1:], np.float64) ** 2 + 0.5 * np.log(2 * np.pi)
    keep = np.ones((2, 4), bool)
    keep[0, 1] = False  # the frame after it belongs to another episode
    error = np.mean((np.asarray(batch.reward, np.float64) - 0.5) ** 2)
    end = (7 * np.log(4.0) + np.log(4.0 / 3.0)) / 8
    np.testing.assert_allclose(info["nll"], nll[keep].mean(), rtol=1e-5)
    np.testing.assert_allclose(info["nll_sum"], 2 * nll[keep].mean(), rtol=1e-5)
    np.testing.assert_allclose(info["reward_error"], error, rtol=1e-5)
    np.testing.assert_allclose(info["end_error"], end, rtol=1e-5)
    weighted = (7 * np.log(4.0) + 10 * np.log(4.0 / 3.0)) / 8
    np.testing.assert_allclose(value, nll[keep].mean() + 0.5 * error + weighted, rtol=1e-5)


def test_what_is_masked_or_before_an_episode_decides_nothing():
    memory = models.mdn_rnn(2, 1, **HEADS)
    weights = memory.init(KEY)
    loss = jax.jit(lambda batch: memory.loss(KEY, weights, batch)[0], compiler_options=FAST)
    batch = sequence(steps=5)
    batch = batch._replace(is_first=batch.is_first.at[:, 3].set(True), mask=batch.mask.at[:, :3].set(False))
    past = batch._replace(mean=batch.mean.at[:, :3].add(9.0), action=batch.action.at[:, :3].add(9.0))
    assert loss(batch) == loss(past)
    assert loss(batch) != loss(past._replace(is_first=batch.is_first.at[:, 3].set(False)))
    tail = sequence(steps=5)
    tail = tail._replace(mask=tail.mask.at[:, 3:].set(False))
    changed = tail._replace(
        mean=tail.mean.at[:, 4:].add(9.0),
        action=tail.action.at[:, 3:].add(9.0),
        reward=tail.reward.at[:, 3:].add(9.0),
        terminated=tail.terminated.at[:, 3:].set(True),
    )
    assert loss(tail) == loss(changed)
    assert np.isfinite(loss(tail._replace(mask=jnp.zeros_like(tail.mask))))


def test_latents_are_drawn_anew_at_every_call_one_a_frame():
    """A frame's own sample is its target and the next row's input: a unit that copies its input would see it."""
    memory = models.mdn_rnn(2, 1, hidden=3)
    weights = memory.init(KEY)
    sure, unsure = sequence(), sequence(std=1.0)
    keys = jax.random.split(KEY, 2)
    loss = jax.jit(memory.loss, compiler_options=FAST)
    assert loss(keys[0], weights, sure)[0] == loss(keys[1], weights, sure)[0]
    values = [loss(k, weights, unsure)[0] for k in keys]
    assert values[0] != values[1]
    drawn = unsure.mean + jax.random.normal(keys[0], unsure.mean.shape)
    again = loss(keys[1], weights, sure._replace(mean=drawn))[0]
    np.testing.assert_allclose(again, values[0], rtol=1e-6)


def learn(memory, batch, updates=200):
    optimizer = optax.adam(1e-2)

    def update(carry, key):
        weights, opt = carry
        grads, info = jax.grad(lambda w: memory.loss(key, w, batch), has_aux=True)(weights)
        steps, opt = optimizer.update(grads, opt)
        return (optax.apply_updates(weights, steps), opt), info

    weights = jax.jit(memory.init, compiler_options=FAST)(KEY)
    run = jax.jit(lambda carry, keys: jax.lax.scan(update, carry, keys), compiler_options=FAST)
    (weights, _), info = run((weights, optimizer.init(weights)), jax.random.split(KEY, updates))
    return weights, jax.tree.map(lambda x: float(jnp.mean(x[-20:])), info)


def test_memory_knows_what_one_frame_does_not_tell():
    """``z_{t+1} = z_{t-1}``: one frame says nothing of the next, two say all but the noise."""
    ends = jnp.asarray([[a, b] for a in (-1.0, 1.0) for b in (-1.0, 1.0)] * 4)
    mean = jnp.tile(ends, (1, 5))[..., None]
    batch = sequence(batch=16, steps=9, latent=1)._replace(mean=mean, std=jnp.full_like(mean, 0.1))
    batch = batch._replace(action=jnp.zeros((16, 9, 1)))
    _, two = learn(models.mdn_rnn(1, 1, hidden=16, mixtures=2), batch)
    _, one = learn(models.mdn_rnn(1, 1, hidden=16, mixtures=2, memoryless=True), batch, 100)
    noise = 0.5 * np.log(2 * np.pi * np.e * 0.1**2)  # -0.88, the entropy of what cannot be known
    # The first of nine rows is a coin for everyone; the bounds hold up to the sampling of 20 batches.
    assert noise + np.log(2) / 9 - 0.1 < two["nll"] < noise + 0.5
    assert one["nll"] > noise + np.log(2) - 0.1


def test_the_end_is_learned_from_the_row_that_ends():
    """Over where the action is 1: also rows whose next frame belongs to another episode tell of the end."""
    batch = sequence(batch=16, steps=6, latent=1, std=0.1)
    batch = batch._replace(action=jnp.sign(batch.action))
    ended = batch.action[..., 0] > 0
    first = jnp.concatenate([jnp.ones_like(ended[:, :1]), ended[:, :-1]], axis=1)
    batch = batch._replace(terminated=ended, is_first=first)
    memory = models.mdn_rnn(1, 1, hidden=16, mixtures=1, learn_termination=True)
    weights, info = learn(memory, batch, 100)
    assert info["end_error"] < 0.1  # a coin has 0.69
    zero = jnp.zeros((2, 16))
    h, _ = memory.recur(weights, zero, zero, jnp.zeros((2, 1)), jnp.asarray([[-1.0], [1.0]]))
    logit = memory.outputs(weights, h).end_logit
    assert logit[0] < 0 < logit[1]


def test_heads_that_are_not_learned_say_nothing_and_never_end():
    memory = models.mdn_rnn(2, 1, hidden=3)
    out = memory.outputs(memory.init(KEY), jnp.ones((5, 3)))
    np.testing.assert_array_equal(out.reward, np.zeros(5))
    np.testing.assert_array_equal(out.end_logit, np.full(5, -np.inf))
    np.testing.assert_allclose(jnp.sum(jnp.exp(out.log_weight), axis=-1), np.ones((5, 2)), rtol=1e-5)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="hidden must be at least 1, got 0"):
        models.mdn_rnn(2, 1, hidden=0)
    with pytest.raises(ValueError, match="mixtures must be at least 1, got 0"):
        models.mdn_rnn(2, 1, mixtures=0)
    with pytest.raises(ValueError, match="latent must be at least 1"):
        models.mdn_rnn(0, 1)
    with pytest.raises(ValueError, match="actions must be at least 1"):
        models.mdn_rnn(2, 0)
    with pytest.raises(ValueError, match="end_weight must be at least 0"):
        models.mdn_rnn(2, 1, end_weight=-1.0)
