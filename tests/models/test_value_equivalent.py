"""MuZero's model and the trunk that reads for it: scaling, halved gradients, the library's convolution, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import models, networks
from jmbrl.types import Continuous, Discrete, Spec

KEY = jax.random.key(0)
SPEC = Spec("s", (3,), Discrete(2), 10)
PARTS = models.value_equivalent_parts(SPEC, latent=4, units=8, bins=5, limit=3.0, consistency=True, projection=8)
PARAMS = PARTS.model.init(KEY)
OBS = jax.random.normal(jax.random.key(1), (6, 3))
ACTIONS = jnp.asarray([[0, 1, 0, 1, 0, 1], [1, 1, 0, 0, 1, 0], [0, 0, 1, 1, 0, 0]])


def test_every_latent_reaches_from_0_to_1():
    path = PARTS.unroll(PARAMS.weights, OBS, ACTIONS)
    assert path.latents.shape == (4, 6, 4)
    assert path.rewards.shape == (3, 6, 5)
    np.testing.assert_allclose(path.latents.min(axis=-1), 0.0, atol=1e-6)
    np.testing.assert_allclose(path.latents.max(axis=-1), 1.0, atol=1e-6)


def test_unrolling_is_encoding_and_then_stepping():
    path = PARTS.unroll(PARAMS.weights, OBS, ACTIONS)
    model = PARTS.model
    belief = model.encode(KEY, PARAMS, model.initial(PARAMS), ACTIONS[0, 0], OBS[2], jnp.asarray(True))
    np.testing.assert_allclose(belief, path.latents[0, 2], rtol=1e-5)
    for t in range(3):
        belief, outcome = model.step(KEY, PARAMS, belief, ACTIONS[t, 2])
        np.testing.assert_allclose(belief, path.latents[t + 1, 2], rtol=1e-4, atol=1e-5)
        assert float(outcome.reward) == 0.0  # the head begins at 0
        assert float(outcome.discount) == 1.0


def test_each_step_halves_the_gradient_that_passes_through_it():
    """The derivative of the k-th latent by the first observation, against plain stepping: 1, 1/2, 1/4, 1/8."""

    def plain(obs, k):
        z = PARTS.see(PARAMS.weights, obs)
        for t in range(k):
            z = PARTS.model.step(KEY, PARAMS, z, ACTIONS[t, 0])[0]
        return z

    for k in range(4):
        halved = jax.jacobian(lambda obs, k=k: PARTS.unroll(PARAMS.weights, obs[None], ACTIONS[:, :1]).latents[k, 0])
        whole = jax.jacobian(lambda obs, k=k: plain(obs, k))(OBS[0])
        assert np.abs(whole).max() > 1e-6
        np.testing.assert_allclose(halved(OBS[0]), whole * 0.5**k, rtol=1e-3, atol=1e-6)


def test_consistency_is_a_cosine_and_moves_no_target():
    latents = PARTS.see(PARAMS.weights, OBS)
    agreement = PARTS.consistency(PARAMS.weights, latents, OBS)
    assert agreement.shape == (6,)
    assert np.all(np.abs(agreement) <= 1.0 + 1e-5)
    grads = jax.grad(lambda obs: jnp.sum(PARTS.consistency(PARAMS.weights, latents, obs)))(OBS)
    np.testing.assert_array_equal(grads, 0.0)


def test_continuous_actions_and_images_are_read():
    spec = Spec("image", (5, 4, 2), Continuous((-1.0,), (1.0,)), 10, "uint8")
    model = models.value_equivalent(spec, latent=4, units=8, channels=3, blocks=2, bins=5)
    params = model.init(KEY)
    obs = jnp.full((5, 4, 2), 255, jnp.uint8)
    belief = model.encode(KEY, params, model.initial(params), jnp.zeros(1), obs, jnp.asarray(True))
    following, outcome = model.step(KEY, params, belief, jnp.asarray([0.3]))
    assert following.shape == (4,)
    assert outcome.reward.shape == ()


def test_there_is_no_decoder():
    with pytest.raises(ValueError, match="no decoder"):
        PARTS.model.decode(PARAMS, jnp.zeros(4))


def test_the_first_convolution_is_the_library_s():
    eyes = networks.trunk((5, 6, 2), units=7, channels=3, blocks=0)
    weights = eyes.init(KEY)
    image = jax.random.normal(jax.random.key(2), (4, 5, 6, 2))
    kernel = weights["first"]["kernel"].reshape(3, 3, 2, 3)
    want = jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    want = jax.nn.relu(networks.layer_norm(weights["first"]["norm"], want)).reshape(4, -1)
    want = networks.apply_normed(weights["dense"], want, jax.nn.relu, "layer")
    np.testing.assert_allclose(eyes.apply(weights, image), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: networks.trunk((5,), channels=3), r"channels need an image's shape.*got \(5,\)"),
        (lambda: networks.trunk((5, 5, 1), units=0), "units must be at least 1, got 0"),
        (lambda: networks.trunk((5,)).apply(networks.trunk((5,)).init(KEY), jnp.zeros(4)), "x has shape"),
        (lambda: models.value_equivalent(SPEC, latent=1), "latent must be at least 2"),
        (lambda: models.value_equivalent(SPEC, bins=1), "bins must be at least 2"),
    ],
)
def test_bad_settings_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
