"""V and M together: what a belief holds, how a dream goes on, and which part learns from what."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.worlds import CONTINUOUS

from jmbrl import models
from jmbrl.models import WorldModelBelief
from jmbrl.types import Continuous, Discrete, Sequence, Spec, Transition

KEY = jax.random.key(0)
SPEC = Spec("small", (4, 4, 1), Discrete(3), 20, obs_dtype="uint8")
FAST = {"xla_backend_optimization_level": 0}
SMALL = {"latent": 2, "channels": (3,), "hidden": 4, "mixtures": 2}


def small(**options):
    model = models.world_model(SPEC, **SMALL, **options)
    return model, jax.jit(model.init, compiler_options=FAST)(KEY)


def images(*lead, seed=0):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 256, (*lead, 4, 4, 1)), jnp.uint8)


def at_temperature(params, tau):
    return params._replace(stats=params.stats._replace(temperature=jnp.float32(tau)))


def says(params, **bias):
    """M's outputs as constants: ``reward``, ``end``, and zeros (standard normals) for the latents."""
    layer = params.weights["memory"]["output"][0]
    new = jnp.zeros_like(layer["bias"]).at[-2].set(bias.get("reward", 0.0)).at[-1].set(bias.get("end", 0.0))
    output = ({"kernel": jnp.zeros_like(layer["kernel"]), "bias": new},)
    return params._replace(weights=params.weights | {"memory": params.weights["memory"] | {"output": output}})


def test_features_are_the_sources():
    car = Spec("car", (64, 64, 3), Continuous((-1.0,) * 3, (1.0,) * 3), 1000, obs_dtype="uint8")
    belief = WorldModelBelief(jnp.full(32, 1.0), jnp.full(256, 2.0), jnp.full(256, 3.0))
    features = models.world_model(car).features(None, belief)
    np.testing.assert_array_equal(features, [1.0] * 32 + [2.0] * 256)
    belief = WorldModelBelief(jnp.full(64, 1.0), jnp.full(512, 2.0), jnp.full(512, 3.0))
    doom = models.world_model(car, latent=64, hidden=512, inputs="zch")
    np.testing.assert_array_equal(doom.features(None, belief), [1.0] * 64 + [3.0] * 512 + [2.0] * 512)


def test_a_belief_is_the_latent_seen_and_the_memory_of_what_came_before():
    model, params = small()
    vision, memory = models.vision_and_memory(SPEC, **SMALL)
    shapes = jax.eval_shape(lambda: {"vision": vision.init(KEY), "memory": memory.init(KEY)})
    chex.assert_trees_all_equal_shapes(shapes, params.weights)
    obs, first = images(2), jnp.asarray(True)
    encode = jax.jit(model.encode, compiler_options=FAST)
    start = encode(KEY, params, model.initial(params), jnp.int32(0), obs[0], first)
    np.testing.assert_array_equal([start.h, start.c], np.zeros((2, 4)))
    then = encode(KEY, params, start, jnp.int32(2), obs[1], ~first)
    action = jnp.asarray([0.0, 0.0, 1.0])
    h, c = memory.recur(params.weights["memory"], jnp.zeros(4), jnp.zeros(4), start.z, action)
    np.testing.assert_allclose(then.h, h, rtol=1e-6)
    np.testing.assert_allclose(then.c, c, rtol=1e-6)
    q = jax.jit(vision.encode, compiler_options=FAST)(params.weights["vision"], obs[1])
    keys = jax.random.split(KEY, 4000)
    z = jax.vmap(encode, (0, None, None, None, None, None))(keys, params, start, jnp.int32(2), obs[1], ~first).z
    np.testing.assert_allclose(jnp.mean(z, axis=0), q.mean, atol=0.1 * float(q.std.max()))
    np.testing.assert_allclose(jnp.std(z, axis=0), q.std, rtol=0.1)


def test_a_dream_follows_the_mixture_at_a_temperature_that_needs_no_compiling():
    model, params = small(temperature=0.5)
    assert params.stats.temperature == 0.5
    belief = WorldModelBelief(
        *(jax.random.normal(k, (6, n)) for k, n in zip(jax.random.split(KEY, 3), (2, 4, 4), strict=True))
    )
    actions = jnp.arange(6) % 3
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(model.step_many, n=1))
    keys = jax.random.split(KEY, 2)
    cold = [step(k, at_temperature(params, 0.0), belief, actions) for k in keys]
    chex.assert_trees_all_equal(*cold)  # no chance left
    warm, hot = (jnp.std(step(keys[0], at_temperature(params, tau), belief, actions)[0].z) for tau in (0.5, 50.0))
    assert hot > 3 * warm
    # All at once as one by one, and the memory as when seeing.
    each = jax.jit(jax.vmap(model.step, in_axes=(None, None, 0, 0)), compiler_options=FAST)
    alone = each(keys[0], at_temperature(params, 0.0), belief, actions)
    chex.assert_trees_all_close(alone, cold[0], rtol=1e-5, atol=1e-6)
    see = jax.jit(jax.vmap(model.encode, in_axes=(None, None, 0, 0, 0, None)), compiler_options=FAST)
    seen = see(KEY, params, belief, actions, images(6), jnp.asarray(False))
    np.testing.assert_allclose(seen.h, cold[0][0].h, rtol=1e-5, atol=1e-6)


def test_without_noise_a_dream_is_the_mixtures_mean():
    model, params = small()
    _, memory = models.vision_and_memory(SPEC, **SMALL)
    belief = model.initial(params)
    keys = jax.random.split(KEY, 20_000)
    many = jax.jit(jax.vmap(model.step, in_axes=(0, None, None, None)), compiler_options=FAST)
    drawn = many(keys, params, belief, jnp.int32(1))[0].z
    assert model.expect is not None
    ahead = jax.jit(model.expect, compiler_options=FAST)(params, belief, jnp.int32(1))[0]
    # The components are about standard normals: ten standard errors.
    np.testing.assert_allclose(jnp.mean(drawn, axis=0), ahead.z, atol=0.1)
    out = memory.outputs(params.weights["memory"], ahead.h)
    np.testing.assert_allclose(ahead.z, jnp.sum(jnp.exp(out.log_weight) * out.mean, axis=-1), rtol=1e-5)


def test_rewards_are_in_their_own_units_and_ends_are_hard():
    model, params = small(learn_termination=True)
    rows = transitions(3)
    rows = rows._replace(reward=jnp.asarray([0.0, 4.0, 99.0]))
    params = jax.jit(model.set_stats, compiler_options=FAST)(
        at_temperature(params, 0.7), rows, jnp.asarray([True, True, False])
    )
    assert params.stats.temperature == np.float32(0.7)
    run = jax.jit(lambda params: model.step(KEY, params, model.initial(params), jnp.int32(0))[1], compiler_options=FAST)
    for end, discount in ((-0.1, 1.0), (0.1, 0.0)):
        outcome = run(says(params, reward=1.5, end=end))
        np.testing.assert_allclose(outcome.reward, 5.0)  # a mean of 2 and 1.5 times a spread of 2
        assert outcome.discount == discount
    assert outcome.cost.shape == (0,)
    silent, weights = small(learn_reward=False)
    weights = weights._replace(stats=params.stats)
    outcome = jax.jit(silent.step, compiler_options=FAST)(KEY, weights, silent.initial(weights), jnp.int32(0))[1]
    assert outcome.reward == 0.0
    assert outcome.discount == 1.0


def test_decoded_beliefs_look_like_observations():
    model, params = small()
    vision, _ = models.vision_and_memory(SPEC, **SMALL)
    belief = model.initial(params)._replace(z=jnp.asarray([0.5, -2.0]))
    image = model.decode(params, belief)
    assert image.dtype == jnp.uint8
    exact = 255 * np.asarray(vision.decode(params.weights["vision"], belief.z))
    np.testing.assert_allclose(image, exact, atol=0.51)


def transitions(*lead):
    rng = np.random.default_rng(1)
    flag = jnp.zeros(lead, bool)
    action = jnp.asarray(rng.integers(0, 3, lead), jnp.int32)
    return Transition(images(*lead), action, jnp.asarray(rng.normal(size=lead), jnp.float32), images(*lead), flag, flag)


def test_v_learns_from_images_only_and_m_from_everything():
    model, params = small(learn_termination=True)
    obs = images(2, 5, seed=3)
    rows = transitions(2, 4)._replace(obs=obs[:, :-1], next_obs=obs[:, 1:])
    flag = jnp.zeros((2, 4), bool)
    batch = Sequence(rows, flag.at[:, 0].set(True).at[0, 2].set(True), ~flag)
    run = jax.jit(
        jax.value_and_grad(lambda w, b: model.loss(KEY, params._replace(weights=w), b), has_aux=True),
        compiler_options=FAST,
    )
    (value, info), grads = run(params.weights, batch)
    assert set(info) == {"reconstruction", "kl", "nll", "nll_sum", "reward_error", "end_error"}
    vision, _ = models.vision_and_memory(SPEC, **SMALL)
    # Frames of the windows, the last row's successor too, each once.
    key = jax.random.split(KEY)[0]
    alone_run = jax.value_and_grad(lambda w: vision.loss(key, w, obs.reshape(-1, 4, 4, 1))[0])
    alone, dv = jax.jit(alone_run, compiler_options=FAST)(params.weights["vision"])
    chex.assert_trees_all_close(grads["vision"], dv, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(alone, info["reconstruction"] + jnp.maximum(info["kl"], 1.0), rtol=1e-2)
    assert value > alone
    for name, new in (
        ("action", (rows.action + 1) % 3),
        ("reward", rows.reward + 1),
        ("terminated", flag.at[0, 1].set(True)),
    ):
        (_, _), other = run(params.weights, batch._replace(transition=rows._replace(**{name: new})))
        chex.assert_trees_all_equal(other["vision"], grads["vision"])
        assert np.any(np.asarray(other["memory"]["output"][0]["bias"]) != grads["memory"]["output"][0]["bias"])


def test_what_it_cannot_model_is_refused():
    with pytest.raises(ValueError, match="world_model needs an image of uint8, got shape"):
        models.world_model(CONTINUOUS)
    with pytest.raises(ValueError, match="of float32"):
        models.world_model(Spec("floats", (4, 4, 1), Discrete(3), 20))
    with pytest.raises(ValueError, match="temperature must be at least 0"):
        models.world_model(SPEC, temperature=-1.0)
    with pytest.raises(ValueError, match="hidden must be at least 1"):
        models.world_model(SPEC, hidden=0)
