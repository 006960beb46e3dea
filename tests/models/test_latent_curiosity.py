"""Heads that disagree about the next latent: alignment, gradients and what a run turns to."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from models.worlds import CONTINUOUS, linear_replay

from jmbrl import data, models

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def made():
    inner = models.rssm(CONTINUOUS, deter=6, stoch=2, hidden=8, sight={"vectors": "symlog", "units": 8})
    model = models.latent_curiosity(inner, CONTINUOUS, members=3, hidden=(8,), intrinsic=2.0, extrinsic=0.5)
    sequence = data.sample_sequences(KEY, linear_replay(60), 4, 6)
    return inner, model, model.init(KEY), data.frames(sequence)[0]


def hand(weights, x):
    """One head, layer by layer, in NumPy."""
    for i, layer in enumerate(weights):
        (w,) = (np.asarray(v, np.float64) for v in layer.values() if v.ndim == 2)
        (b,) = (np.asarray(v, np.float64) for v in layer.values() if v.ndim == 1)
        x = x @ w + b
        if i < len(weights) - 1:
            x = np.where(x > 0, x, np.expm1(x))
    return x


def test_the_reward_is_the_heads_spread_at_the_pair(made):
    inner, model, params, _ = made
    belief = models.RSSMBelief(jnp.linspace(-1, 1, 6), jnp.asarray([0.3, -0.4]))
    action = jnp.asarray([0.7])
    own = jax.tree.map(lambda x: x, params)._replace(weights=params.weights["model"], stats=params.stats.inner)
    after, plain = inner.step(KEY, own, belief, action)
    following, outcome = jax.jit(model.step)(KEY, params, belief, action)
    np.testing.assert_allclose(following.deter, after.deter, rtol=1e-5)
    pair = np.concatenate([belief.deter, belief.stoch, action])
    said = np.stack([hand(jax.tree.map(lambda w, k=k: w[k], params.weights["heads"]), pair) for k in range(3)])
    expected = 2.0 * said.std(axis=0).mean() + 0.5 * float(plain.reward)
    np.testing.assert_allclose(outcome.reward, expected, rtol=1e-4)


def test_a_head_is_taught_what_follows_its_pair_within_an_episode(made):
    """The loss by hand: frame t's action led to it, from the belief before; the first frame of an episode has none."""
    _, model, params, frames = made
    frames = frames._replace(is_first=frames.is_first.at[0, 3].set(True), mask=frames.mask.at[1, 2].set(False))
    seen = jax.jit(model.watch)(KEY, params, frames)
    x = np.concatenate([seen.beliefs.deter, seen.beliefs.stoch], axis=-1)
    errors = []
    for b in range(frames.mask.shape[0]):
        for t in range(1, frames.mask.shape[1]):
            if frames.is_first[b, t] or not (frames.mask[b, t] and frames.mask[b, t - 1]):
                continue
            pair = np.concatenate([x[b, t - 1], frames.action[b, t]])
            target = np.asarray(seen.beliefs.stoch[b, t])
            heads = [hand(jax.tree.map(lambda w, k=k: w[k], params.weights["heads"]), pair) for k in range(3)]
            errors.append([0.5 * np.sum((said - target) ** 2) for said in heads])
    assert 0 < len(errors) < 4 * frames.mask.shape[1]
    np.testing.assert_allclose(seen.losses["heads"], np.mean(errors, axis=0).sum(), rtol=1e-4)


def test_heads_teach_the_model_nothing(made):
    _, model, params, frames = made

    def loss(weights, which):
        losses = model.watch(KEY, params._replace(weights=weights), frames).losses
        return losses["heads"] if which else sum(losses.values()) - losses["heads"]

    slope = jax.jit(jax.grad(loss), static_argnums=1)
    heads, rest = slope(params.weights, True), slope(params.weights, False)
    assert all(not np.any(x) for x in jax.tree.leaves(heads["model"]))
    assert all(not np.any(x) for x in jax.tree.leaves(rest["heads"]))
    assert optax.tree.norm(heads["heads"]) > 0
    assert optax.tree.norm(rest["model"]) > 0


def test_rewards_that_only_read_teach_the_latents_nothing():
    """With ``task_gradient=False`` the reward's loss has a slope for its own head alone."""
    for shapes in (True, False):
        model = models.rssm(
            CONTINUOUS, deter=4, stoch=2, hidden=4, sight={"units": 4}, learn_termination=True, task_gradient=shapes
        )
        frames = data.frames(data.sample_sequences(KEY, linear_replay(30), 2, 4))[0]
        params = model.init(KEY)

        def loss(weights, model=model, params=params, frames=frames):
            losses = model.watch(KEY, params._replace(weights=weights), frames).losses
            return losses["reward"] + losses["continuation"]

        # Heads whose last layer is 0, as at the start, have no slope to hand on.
        slope = jax.jit(jax.grad(loss))(jax.tree.map(lambda w: w + 0.1, params.weights))
        outside = jax.tree.leaves({name: part for name, part in slope.items() if name not in ("reward", "continue")})
        assert any(np.any(x) for x in outside) is shapes
        assert optax.tree.norm(slope["reward"]) > 0
        assert optax.tree.norm(slope["continue"]) > 0


def test_a_run_turns_from_exploring_to_a_task_without_being_compiled_again(made):
    inner, model, params, _ = made
    traces = []

    @jax.jit
    def reward(params):
        traces.append(1)
        return model.step(KEY, params, model.initial(params), jnp.ones(1))[1].reward

    own = params._replace(weights=params.weights["model"], stats=params.stats.inner)
    task = params._replace(stats=models.rewarded(params.stats, 0.0, 1.0))
    before, after = reward(params), reward(task)
    np.testing.assert_allclose(after, inner.step(KEY, own, inner.initial(own), jnp.ones(1))[1].reward, rtol=1e-5)
    assert before != after
    assert len(traces) == 1


def test_bad_settings_are_refused(made):
    inner = made[0]
    with pytest.raises(ValueError, match="watch"):
        models.latent_curiosity(models.gaussian_mlp(CONTINUOUS, (4,)), CONTINUOUS)
    with pytest.raises(ValueError, match="members"):
        models.latent_curiosity(inner, CONTINUOUS, members=1)
    with pytest.raises(ValueError, match="measure"):
        models.latent_curiosity(inner, CONTINUOUS, measure="entropy")
