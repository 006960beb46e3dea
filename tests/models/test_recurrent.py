"""The recurrent model: filtering as in training, borders of episodes, and a velocity that no observation shows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.worlds import hidden_velocity, trained, windows

from jmbrl import models
from jmbrl.types import Continuous, Discrete, Sequence, Spec, Transition

KEY = jax.random.key(0)
ONE = Spec("one", (1,), Continuous((-1.0,), (1.0,)), 10)
CHOICE = Spec("choice", (2,), Discrete(3), 10)


def small(spec=ONE, **options):
    return models.recurrent(spec, memory=8, hidden=(8,), **options)


def random_window(length=5, firsts=(0,)):
    rng = np.random.default_rng(0)
    obs = jnp.asarray(rng.normal(size=(2, length, 2)), jnp.float32)
    action = jnp.asarray(rng.integers(0, 3, (2, length)), jnp.int32)
    flag = jnp.zeros((2, length), bool)
    is_first = flag.at[:, list(firsts)].set(True)
    return Sequence(Transition(obs, action, obs[..., 0], obs + 0.5, flag, flag), is_first, ~flag)


def test_training_filters_as_encode_does():
    """The loss of one row of a window is that of the belief which acting would have had there."""
    model = small(CHOICE, termination="learned", normalize_targets=False)
    params = jax.jit(model.init)(KEY)
    batch = random_window(firsts=(0, 2))
    belief, previous = model.initial(params), jnp.int32(0)
    encode, predict = jax.jit(model.encode), jax.jit(model.predict)
    mse = jax.jit(lambda mask: model.loss(KEY, params, batch._replace(mask=mask))[1]["mse"])
    for t in range(5):
        row = jax.tree.map(lambda x, t=t: x[0, t], batch.transition)
        belief = encode(KEY, params, belief, previous, row.obs, batch.is_first[0, t])
        said = predict(params, belief, row.action)
        error = np.append(np.asarray(said.mean - row.next_obs), said.reward_mean - row.reward)
        # Both windows up to here, less both up to the row before, less the other window's row.
        upto = jnp.zeros((2, 5), bool).at[0, : t + 1].set(True)
        total = mse(upto) * (t + 1)
        before = mse(upto.at[0, t].set(False)) * t
        np.testing.assert_allclose(total - before, np.mean(error**2), rtol=1e-3, atol=1e-5)
        previous = row.action
    beliefs = jax.tree.map(lambda x: jnp.stack([x, 2.0 * x]), belief)
    following, outcome = jax.jit(model.step_many)(KEY, params, beliefs, jnp.array([0, 2]))
    assert following.memory.shape == (2, 8)
    assert outcome.reward.shape == (2,)
    assert np.all((outcome.discount > 0) & (outcome.discount < 1))
    np.testing.assert_array_equal(model.decode(params, following), following.obs)
    assert model.features(params, belief).shape == (10,)


def test_nothing_crosses_the_start_of_an_episode_or_a_row_that_is_not_valid():
    model = small(CHOICE)
    params = jax.jit(model.init)(KEY)
    batch = random_window(firsts=(0, 2))
    late = batch._replace(mask=batch.mask.at[:, :2].set(False))
    loss = jax.jit(jax.value_and_grad(lambda w, batch: model.loss(KEY, params._replace(weights=w), batch)[0]))
    value, grads = loss(params.weights, late)
    broken = late.transition._replace(obs=late.transition.obs.at[:, :2].set(jnp.nan))
    again, other = loss(params.weights, late._replace(transition=broken))
    assert value == again
    jax.tree.map(np.testing.assert_array_equal, grads, other)
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(grads))


def test_memory_finds_the_hidden_velocity_and_imagination_keeps_it():
    rows = hidden_velocity(80)
    options = {"reward": lambda obs, action, next_obs: obs[0], "clip_range": None}
    model = models.recurrent(ONE, memory=16, hidden=(16,), **options)
    params, _ = trained(model, rows, windows(rows, 24), 800, 0.01)
    encode, expect = jax.jit(model.encode), jax.jit(model.expect)
    for velocity in (-0.5, 0.5):
        belief = model.initial(params)
        for t in range(3):
            belief = encode(KEY, params, belief, jnp.zeros(1), jnp.array([velocity * t]), jnp.asarray(t == 0))
        belief = jax.tree.map(lambda x: x[None], belief)
        for _ in range(3):
            belief, _ = expect(params, belief, jnp.zeros((1, 1)))
        # A model without memory would stay near 2 velocity.
        np.testing.assert_allclose(belief.obs[0, 0], 5 * velocity, atol=0.3)
    # The first step of an episode cannot know: the standard deviation of the velocity is 0.5; later ones can.
    predict = jax.jit(model.predict)
    fresh = encode(KEY, params, model.initial(params), jnp.zeros(1), jnp.zeros(1), jnp.asarray(True))
    assert predict(params, fresh, jnp.zeros(1)).std[0] > 0.35
    known = encode(KEY, params, fresh, jnp.zeros(1), jnp.array([0.5]), jnp.asarray(False))
    assert predict(params, known, jnp.zeros(1)).std[0] < 0.15


def test_refuses():
    with pytest.raises(ValueError, match="memory must be at least 1, got 0"):
        models.recurrent(ONE, memory=0)
    with pytest.raises(ValueError, match="recurrent needs a vector observation"):
        models.recurrent(Spec("i", (8, 8, 3), ONE.action, 9, "uint8"))
    model = small()
    params = jax.eval_shape(model.init, KEY)
    with pytest.raises(ValueError, match="action has shape"):
        jax.eval_shape(lambda p: model.step(KEY, p, model.initial(p), jnp.zeros(2)), params)
