"""TD-MPC2's networks and world model: literals, NumPy, and losses by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.worlds import CONTINUOUS, IMAGES, linear_replay

from jmbrl import data, learners, models
from jmbrl.models import Unrolled
from jmbrl.networks import SymlogTwoHot, apply_mish_mlp, init_mish_mlp, mish, simnorm
from jmbrl.types import Sequence, Transition

KEY = jax.random.key(0)
SMALL = {"latent": 8, "group": 4, "encoder_hidden": 6, "hidden": 6, "bins": 5}
FAST = {"xla_backend_optimization_level": 0}


def test_simnorm_by_hand():
    x = jnp.asarray([0.0, np.log(3.0), 1.0, 1.0, 100.0, -100.0])
    np.testing.assert_allclose(simnorm(x, 2), [0.25, 0.75, 0.5, 0.5, 1.0, 0.0], atol=1e-6)


def test_mish_by_hand():
    """x tanh(ln(1 + e^x)); its slope stays finite far out."""
    np.testing.assert_allclose(mish(jnp.asarray([0.0, 1.0, -1.0, 40.0])), [0, 0.8650984, -0.3034015, 40], rtol=1e-6)
    x = jnp.asarray([-200.0, -3.0, 0.5, 200.0])
    np.testing.assert_allclose(jax.vmap(jax.grad(mish))(x), [0, -0.0933931, 0.8864244, 1], atol=1e-6)


def numpy_mlp(layers, x, group):
    for i, layer in enumerate(layers):
        x = x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)
        if "norm" in layer:
            centred = x - x.mean(-1, keepdims=True)
            x = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
            if i == len(layers) - 1:
                e = np.exp(x.reshape(*x.shape[:-1], -1, group))
                x = (e / e.sum(-1, keepdims=True)).reshape(x.shape)
            else:
                x = x * np.tanh(np.log1p(np.exp(x)))
    return x


@pytest.mark.parametrize("simplicial", [True, False])
def test_layers_equal_numpy(simplicial):
    layers = jax.jit(lambda key: init_mish_mlp(key, (3, 300, 8), simplicial=simplicial), compiler_options=FAST)(KEY)
    np.testing.assert_allclose(np.std(layers[0]["kernel"]), 0.02, rtol=0.1)
    x = jax.random.normal(jax.random.key(1), (5, 3))
    out = jax.jit(lambda layers, x: apply_mish_mlp(layers, x, group=4), compiler_options=FAST)(layers, x)
    np.testing.assert_allclose(out, numpy_mlp(layers, np.asarray(x, np.float64), 4), rtol=1e-4, atol=1e-6)


def test_dropout_leaves_the_mean_and_a_last_layer_may_begin_at_zero():
    assert not np.any(init_mish_mlp(KEY, (3, 8), zero=True)[-1]["kernel"])
    # One plain layer shows what is dropped: a fifth of the entries, the others divided by 0.8.
    plain = ({"kernel": jnp.ones((1, 5000)), "bias": jnp.zeros(5000)},)
    out = np.asarray(apply_mish_mlp(plain, jnp.ones(1), dropout=0.2, key=KEY))
    assert set(np.unique(out)) == {0.0, np.float32(1.25)}
    np.testing.assert_allclose(np.mean(out == 0), 0.2, atol=0.025)  # four standard errors


def test_a_number_as_two_bins_of_its_symlog():
    """Five bins from -2 to 2; e^0.25 - 1 lies a quarter of the way from the third to the fourth."""
    logits = jnp.asarray([0.3, -0.2, 0.5, 1.0, 0.0])
    log_p = np.asarray(jax.nn.log_softmax(logits))
    log_prob = jax.jit(lambda x: SymlogTwoHot(logits, 2.0).log_prob(x), compiler_options=FAST)
    wanted = [0.75 * log_p[2] + 0.25 * log_p[3], log_p[0]]
    np.testing.assert_allclose(log_prob(jnp.asarray([np.exp(0.25) - 1, -1e6])), wanted, rtol=1e-5)
    mean = jax.jit(lambda logits: SymlogTwoHot(logits, 2.0).mean(), compiler_options=FAST)
    np.testing.assert_allclose(mean(jnp.stack([jnp.eye(5)[3] * 200, jnp.zeros(5)])), [np.e - 1, 0.0], rtol=1e-5)
    assert mean(jnp.zeros((1, 5)))[0] == 0.0


def test_values_start_at_zero_two_members_are_drawn_and_each_is_evaluated_by_its_own_weights():
    q = learners.q_ensemble(8, 1, hidden=6, members=5, bins=5)
    weights = jax.jit(q.init, compiler_options=FAST)(KEY)
    x, action = jnp.ones((4, 8)), jnp.zeros((4, 1))
    values_of = jax.jit(lambda weights: q.value(q.logits(weights, x, action, None)), compiler_options=FAST)
    assert np.all(np.asarray(values_of(weights)) == np.zeros((5, 4)))
    bias = jnp.arange(5.0)[:, None] * jnp.ones(5) * jnp.arange(5.0)
    weights = (*weights[:2], weights[2] | {"bias": bias})
    logits = jax.jit(lambda weights: q.logits(weights, x, action, None), compiler_options=FAST)(weights)
    np.testing.assert_allclose(logits[:, 0], bias)
    both = jax.vmap(lambda key: q.logits(q.pair(key, weights), x[:1], action[:1], None)[:, 0, 1])
    drawn = np.asarray(jax.jit(both, compiler_options=FAST)(jax.random.split(KEY, 200)))
    assert np.all(drawn[:, 0] != drawn[:, 1])
    assert set(drawn.ravel()) == {0.0, 1.0, 2.0, 3.0, 4.0}
    np.testing.assert_allclose(q.error(logits[0], jnp.full(4, 3.0)), np.log(5.0), rtol=1e-6)


def test_the_policys_density_is_the_gaussians_and_its_spread_is_bounded():
    policy = learners.policy_prior(8, 2, hidden=6, log_std=(-3.0, 1.0))
    weights = jax.jit(policy.init, compiler_options=FAST)(KEY)
    outputs = jnp.asarray([0.5, -0.5, 0.0, 100.0])  # means; log spreads of the middle, -1, and the upper bound, 1
    weights = (*weights[:2], {"kernel": jnp.zeros((6, 4)), "bias": outputs})
    sample = jax.jit(policy.sample, compiler_options=FAST)
    action, log_density = sample(KEY, weights, jnp.ones((4000, 8)))
    raw, std = np.arctanh(np.asarray(action[:, :1], np.float64)), np.exp(-1.0)
    np.testing.assert_allclose([raw.mean(), raw.std()], [0.5, std], atol=0.03)
    # E[-log N] of both entries: (1 + ln 2 pi) / 2 + log spread, each.
    np.testing.assert_allclose(-np.mean(log_density), 1.0 + np.log(2 * np.pi) + (-1.0 + 1.0), atol=0.07)
    np.testing.assert_allclose(policy.mode(weights, jnp.ones(8)), np.tanh([0.5, -0.5]), rtol=1e-6)


PARTS = models.decoder_free_parts(CONTINUOUS, **SMALL, learn_termination=True)
WEIGHTS = jax.jit(PARTS.model.init, compiler_options=FAST)
UNROLL = jax.jit(PARTS.unroll, compiler_options=FAST)
ENCODE, STEP = (jax.jit(f, compiler_options=FAST) for f in (PARTS.model.encode, PARTS.model.step))


def window(is_first, mask, terminated=(False, False, False)):
    """One window of three rows of ``CONTINUOUS``."""
    obs, flag = jnp.ones((1, 3, 3)), jnp.zeros((1, 3), bool)
    rows = Transition(obs, jnp.zeros((1, 3, 1)), jnp.ones((1, 3)), obs, jnp.asarray([terminated]), flag)
    return Sequence(rows, jnp.asarray([is_first]), jnp.asarray([mask]))


@pytest.mark.parametrize(
    ("is_first", "mask", "alive"),
    [
        ((True, False, False), (True, True, True), (True, True, True)),
        ((True, False, True), (True, True, True), (True, True, False)),
        ((True, True, False), (True, True, True), (True, False, False)),
        ((True, False, False), (True, False, True), (True, False, False)),
        ((True, False, False), (False, True, True), (False, False, False)),
    ],
)
def test_only_rows_of_the_windows_first_episode_count(is_first, mask, alive):
    path = UNROLL(WEIGHTS(KEY).weights, window(is_first, mask))
    np.testing.assert_array_equal(path.alive[:, 0], alive)


def test_latents_are_predicted_from_the_first_and_targets_are_encoded():
    params = WEIGHTS(KEY)
    batch = data.sample_sequences(KEY, linear_replay(40), 1, 3)
    path = UNROLL(params.weights, batch)
    rows, belief = batch.transition, PARTS.model.initial(params)
    true = jnp.asarray(True)
    belief = ENCODE(KEY, params, belief, rows.action[0, 0], rows.obs[0, 0], true)
    for t in range(3):
        np.testing.assert_allclose(path.latents[t, 0], belief, atol=1e-6)
        belief = STEP(KEY, params, belief, rows.action[0, t])[0]
        target = ENCODE(KEY, params, belief, rows.action[0, 0], rows.next_obs[0, t], true)
        np.testing.assert_allclose(path.targets[t, 0], target, atol=1e-6)
    np.testing.assert_allclose(path.latents[3, 0], belief, atol=1e-6)


def test_losses_by_hand():
    """Two windows, the second of one row. Squared errors 1, 2, 4 and 3; rewards of zero logits cost ln 5 each."""
    weights = WEIGHTS(KEY).weights
    weights["end"] = tuple(jax.tree.map(jnp.zeros_like, layer) for layer in weights["end"])
    off = jnp.sqrt(jnp.asarray([[1.0, 3.0], [2.0, 50.0], [4.0, 50.0]]))[..., None]
    latents = jnp.zeros((4, 2, 8)).at[1:].add(off)
    batch = jax.tree.map(lambda x: jnp.swapaxes(jnp.repeat(x, 2, axis=0), 0, 1), window((True,) * 3, (True,) * 3))
    alive = jnp.asarray([[True, True], [True, False], [True, False]])
    path = Unrolled(latents, jnp.zeros((3, 2, 8)), batch.transition, alive)
    total, info = jax.jit(PARTS.losses, compiler_options=FAST)(weights, path)
    consistency = (1.0 * (1 + 3) / 2 + 0.5 * 2 + 0.25 * 4) / 3
    reward = (1 + 0.5 + 0.25) / 3 * np.log(5.0)
    np.testing.assert_allclose(info["consistency_loss"], consistency, rtol=1e-5)
    np.testing.assert_allclose(info["reward_loss"], reward, rtol=1e-5)
    np.testing.assert_allclose(info["termination_loss"], np.log(2.0), rtol=1e-5)
    np.testing.assert_allclose(total, 20 * consistency + 0.1 * reward + np.log(2.0), rtol=1e-5)


def test_a_learned_end_is_a_discount():
    params = WEIGHTS(KEY)
    params.weights["end"][-1]["bias"] = jnp.asarray([np.log(3.0)])
    params.weights["end"][-1]["kernel"] = jnp.zeros((6, 1))
    outcome = STEP(KEY, params, jnp.zeros(8), jnp.zeros(1))[1]
    np.testing.assert_allclose(outcome.discount, 0.25, rtol=1e-6)


def test_there_is_no_decoder():
    with pytest.raises(ValueError, match="decoder_free has no decoder"):
        PARTS.model.decode(WEIGHTS(KEY), jnp.zeros(8))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: models.decoder_free(IMAGES), "decoder_free needs vector observations of float32, got shape"),
        (lambda: models.decoder_free(CONTINUOUS, latent=12), "latent must be a multiple of group=8, got 12"),
        (lambda: models.decoder_free(CONTINUOUS, bins=1), "bins must be at least 2, got 1"),
        (lambda: models.decoder_free(CONTINUOUS, rho=1.5), "rho must be at most 1.0, got 1.5"),
        (lambda: models.decoder_free(CONTINUOUS, reward_scale=-1.0), "reward_scale must be at least 0.0, got -1.0"),
        (lambda: learners.q_ensemble(8, 1, members=1), "members must be at least 2, got 1"),
        (lambda: learners.q_ensemble(8, 1, dropout=1.0), "dropout must be at most 0.999, got 1.0"),
        (lambda: learners.policy_prior(8, 1, log_std=(2.0, -10.0)), "log_std must be two bounds, the lower first"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
