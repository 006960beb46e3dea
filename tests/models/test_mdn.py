"""The mixture density network: its loss by hand, its moments, and a fork in the road."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.worlds import CONTINUOUS, reward, trained

from jmbrl import models
from jmbrl.types import Continuous, Spec, Transition

KEY = jax.random.key(0)
ONE = Spec("one", (1,), Continuous((-1.0,), (1.0,)), 10)


def constant(model, bias):
    """Parameters of a network without inputs: its outputs are ``bias``."""
    params = jax.jit(model.init)(KEY)
    layer = {"kernel": jnp.zeros_like(params.weights["layers"][0]["kernel"]), "bias": jnp.asarray(bias, jnp.float32)}
    return params._replace(weights=params.weights | {"layers": (layer,)})


def rows(next_obs):
    n = len(next_obs)
    flag = jnp.zeros(n, bool)
    following = jnp.asarray(next_obs, jnp.float32)[:, None]
    return Transition(jnp.zeros((n, 1)), jnp.zeros((n, 1)), jnp.zeros(n), following, flag, flag)


def soft_variance(raw):
    logvar = 0.5 - np.logaddexp(0.0, 0.5 - raw)
    return np.exp(-10.0 + np.logaddexp(0.0, logvar + 10.0))


def test_loss_moments_and_samples_of_two_components_by_hand():
    model = models.mixture_mlp(ONE, (), 2, reward=reward, weight_decay=0.0)
    # Outputs: means -1, 2; raw log-variances 0, -1; logits log 3, 0, so shares 3/4 and 1/4.
    params = constant(model, [-1.0, 2.0, 0.0, -1.0, np.log(3.0), 0.0])
    target, mean, share = np.array([0.5, 2.0, -1.2]), np.array([-1.0, 2.0]), np.array([0.75, 0.25])
    var = soft_variance(np.array([0.0, -1.0]))
    square = (target[:, None] - mean) ** 2
    density = share * np.exp(-0.5 * square / var) / np.sqrt(var)
    loss, info = jax.jit(model.loss)(KEY, params, rows(target))
    np.testing.assert_allclose(info["nll"], -2.0 * np.mean(np.log(density.sum(1))), rtol=1e-5)
    np.testing.assert_allclose(loss, info["nll"] + 0.01 * 10.5, rtol=1e-5)
    responsible = density / density.sum(1, keepdims=True)
    np.testing.assert_allclose(info["mse"], np.mean((responsible * square).sum(1)), rtol=1e-5)
    np.testing.assert_allclose(info["mean_mse"], np.mean((target + 0.25) ** 2), rtol=1e-5)
    said = model.predict(params, jnp.zeros(1), jnp.zeros(1))
    np.testing.assert_allclose(said.mean, [-0.25], rtol=1e-5)
    np.testing.assert_allclose(said.std**2, [share @ (var + mean**2) - 0.0625], rtol=1e-5)
    np.testing.assert_allclose(model.expect(params, jnp.zeros((1, 1)), jnp.zeros((1, 1)))[0], [[-0.25]], rtol=1e-5)
    samples = np.asarray(jax.jit(model.step_many)(KEY, params, jnp.zeros((20000, 1)), jnp.zeros((20000, 1)))[0])[:, 0]
    # Five standard errors of the mean and of the third moment, from the mixture's own moments.
    np.testing.assert_allclose(samples.mean(), -0.25, atol=5 * said.std[0] / np.sqrt(20000))
    third = share @ (mean**3 + 3 * mean * var)
    np.testing.assert_allclose((samples**3).mean(), third, atol=5 * (samples**3).std() / np.sqrt(20000))


def test_one_component_is_the_gaussian_model():
    mixture, gaussian = (
        models.mixture_mlp(CONTINUOUS, (8,), 1, termination="learned"),
        models.gaussian_mlp(CONTINUOUS, (8,), termination="learned"),
    )
    params = jax.jit(gaussian.init)(KEY)
    first, last = params.weights["layers"]
    # The mixture's one logit stands before the end's.
    wider = {name: jnp.insert(last[name], 8, 0.7, axis=-1) for name in last}
    other = params._replace(weights=params.weights | {"layers": (first, wider)})
    obs = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
    flag = jnp.arange(6) > 3
    batch = Transition(obs, obs[:, :1], obs[:, 0], obs + 0.3, flag, flag)
    a, b = jax.jit(gaussian.loss)(KEY, params, batch), jax.jit(mixture.loss)(KEY, other, batch)
    decay = 0.5 * 1e-4 * 8 * 0.7**2  # of the logit's weights
    np.testing.assert_allclose(b[0] - decay, a[0], rtol=1e-5)
    for name in ("mse", "nll", "end_loss", "weighted_mse"):
        np.testing.assert_allclose(b[1][name], a[1][name], rtol=1e-5)


def test_a_fork_is_two_places_for_the_mixture_and_their_middle_for_a_gaussian():
    rng = np.random.default_rng(0)
    obs, action = rng.normal(size=(300, 1)), rng.uniform(-1, 1, (300, 1))
    following = obs + rng.choice([-1.0, 1.0], size=(300, 1))
    obs, action, following = (jnp.asarray(x, jnp.float32) for x in (obs, action, following))
    flag = jnp.zeros(300, bool)
    fork = Transition(obs, action, jnp.zeros(300), following, flag, flag)

    make = {"reward": lambda obs, action, next_obs: 0.0 * obs[0], "weight_decay": 0.0}
    model = models.ensemble(models.mixture_mlp(ONE, (8,), 3, **make), 2)
    params, info = trained(model, fork, fork, 300, 0.02)
    imagine = lambda key: (model.step_many(key, params, obs, action)[0], model.expect(params, obs, action)[0])  # noqa: E731
    sampled, expected = (np.asarray(x - obs)[:, 0] for x in jax.jit(imagine)(KEY))
    assert np.mean(np.abs(np.abs(sampled) - 1.0) < 0.2) > 0.95
    assert 0.35 < np.mean(sampled > 0) < 0.65
    assert np.abs(expected).mean() < 0.3
    # The mixture's mean misses by 1 wherever it goes: only its components' error tells that the fork was found.
    assert info["mse"] < 0.05
    gaussian = models.gaussian_mlp(ONE, (8,), **make)
    params, _ = trained(gaussian, fork, fork, 300, 0.02)
    said = jax.jit(jax.vmap(gaussian.predict, (None, 0, 0)))(params, obs, action)
    assert np.abs(said.mean - obs).mean() < 0.3
    np.testing.assert_allclose(np.mean(said.std), 1.0, atol=0.1)


def test_refuses_no_component():
    with pytest.raises(ValueError, match="components must be at least 1, got 0"):
        models.mixture_mlp(ONE, (4,), 0)
