"""What every model that learns from sequences promises; those of rows have a suite of their own."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.worlds import CONTINUOUS, IMAGES, batch, image_replay, linear_replay, reward

from jmbrl import data, models
from jmbrl.types import DataKind, Outcome

KEY = jax.random.key(0)
RSSM = {
    "deter": 8, "stoch": 2, "hidden": 8, "blocks": 2, "reward_units": 8, "learn_termination": True, "overshooting": 2,
    "sight": {"units": 8, "depth": 2, "style": "stride"},
}  # fmt: skip
NET = {"hidden": (8,), "reward": reward}


def drift(state, action, theta):
    return theta["keep"] * state + 0.3 * action


def equations():
    return models.equations(CONTINUOUS, drift, {"keep": models.Parameter(0.1, 1.5)}, reward=reward, steps=3)


MODELS = {
    "multistep": lambda: models.multistep(models.gaussian_mlp(CONTINUOUS, **NET), 3),
    "multistep_ensemble": lambda: models.ensemble(models.multistep(models.deterministic_mlp(CONTINUOUS, **NET), 3), 2),
    "history": lambda: models.history(models.gaussian_mlp, CONTINUOUS, 2, **NET),
    "recurrent": lambda: models.recurrent(CONTINUOUS, memory=8, **NET),
    "rssm": lambda: models.rssm(CONTINUOUS, deter=8, stoch=2, hidden=8, sight={"vectors": "normalized", "units": 8}),
    "rssm_v3": lambda: models.rssm(CONTINUOUS, memory_kind="block_gru", classes=3, norm="rms", mix=0.01, **RSSM),
    "rssm_v2_images": lambda: models.rssm(IMAGES, memory_kind="layer_norm_gru", classes=3, norm="none", **RSSM),
    "latent_curiosity": lambda: models.latent_curiosity(
        models.rssm(CONTINUOUS, classes=3, task_gradient=False, **RSSM), CONTINUOUS, members=2, hidden=(8,)
    ),
    "decoder_free": lambda: models.decoder_free(
        CONTINUOUS, latent=8, encoder_hidden=8, hidden=8, bins=5, learn_termination=True
    ),
    "equations": equations,
    "residual": lambda: models.residual(equations(), (8,)),
    "world_model": lambda: models.world_model(IMAGES, latent=3, channels=(2, 4), hidden=4, learn_termination=True),
}
SEES_IMAGES = {"world_model", "rssm_v2_images"}


@pytest.fixture(scope="module", params=MODELS)
def case(request):
    """What it models with a replay of 40 rows, a model, parameters with statistics, and five beliefs with actions."""
    model = MODELS[request.param]()
    spec, replay = (IMAGES, image_replay()) if request.param in SEES_IMAGES else (CONTINUOUS, linear_replay(40))
    rows, count = data.rows(replay)
    params = jax.jit(model.set_stats)(model.init(KEY), rows, jnp.arange(40) < count)
    obs, actions = batch(spec, 5)
    see = jax.vmap(model.encode, in_axes=(0, None, None, 0, 0, None))
    keys = jax.random.split(KEY, 5)
    beliefs = jax.jit(see)(keys, params, model.initial(params), actions, obs, jnp.asarray(True))
    return spec, replay, model, params, beliefs, actions


def test_a_step_is_the_same_compiled_or_not_and_goes_in_again(case, request):
    spec, _, model, params, beliefs, actions = case
    assert model.data_kind is DataKind.SEQUENCES
    with jax.debug_key_reuse(True):
        eager = model.step_many(jax.random.clone(KEY), params, beliefs, actions)
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(model.step_many, n=1))
    compiled = step(KEY, params, beliefs, actions)
    chex.assert_trees_all_close(eager, compiled, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_equal(compiled, step(KEY, params, beliefs, actions))
    chex.assert_trees_all_equal_shapes_and_dtypes(compiled[0], beliefs)
    step(KEY, params, *(compiled[0], actions))
    outcome = compiled[1]
    assert isinstance(outcome, Outcome)
    assert outcome.reward.shape == outcome.discount.shape == (5,)
    chex.assert_tree_all_finite(compiled)
    if request.node.callspec.params["case"] == "decoder_free":
        with pytest.raises(ValueError, match="decoder_free has no decoder"):
            model.decode(params, compiled[0])
        return
    decoded = jax.vmap(model.decode, in_axes=(None, 0))(params, compiled[0])
    assert decoded.shape == (5, *spec.obs_shape)
    assert decoded.dtype == spec.obs_dtype


def test_rows_are_a_loop(case):
    _, _, model, params, beliefs, actions = case
    keys = jax.random.split(KEY, 5)
    together = jax.jit(jax.vmap(model.step, in_axes=(0, None, 0, 0)))(keys, params, beliefs, actions)
    step = jax.jit(model.step)
    for i in range(2):
        alone = step(keys[i], params, jax.tree.map(lambda x, i=i: x[i], beliefs), actions[i])
        chex.assert_trees_all_close(jax.tree.map(lambda x, i=i: x[i], together), alone, rtol=1e-4, atol=1e-5)


def test_where_an_episode_begins_the_past_is_forgotten(case):
    spec, _, model, params, beliefs, actions = case
    obs, _ = batch(spec, 2, seed=7)
    see = jax.jit(lambda belief, action: model.encode(KEY, params, belief, action, obs[0], jnp.asarray(True)))
    fresh = see(model.initial(params), jnp.zeros(1))
    old = see(jax.tree.map(lambda x: x[0], beliefs), actions[0])
    chex.assert_trees_all_equal(fresh, old)


def test_losses_and_gradients_are_finite_also_across_the_ends_of_episodes(case):
    _, replay, model, params, _, _ = case
    windows = data.sample_sequences(KEY, replay, 4, 6)
    windows = windows._replace(is_first=windows.is_first.at[1, 3].set(True), mask=windows.mask.at[2, 4:].set(False))

    def loss(weights, windows):
        return model.loss(KEY, params._replace(weights=weights), windows)

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (value, info), grads = run(params.weights, windows)
    chex.assert_tree_all_finite((value, info, grads))
    assert any(np.any(np.asarray(g) != 0) for g in jax.tree.leaves(grads))
    # What is masked out decides nothing.
    broken = windows.transition._replace(next_obs=windows.transition.next_obs.at[2, 4:].set(9))
    (again, _), _ = run(params.weights, windows._replace(transition=broken))
    np.testing.assert_allclose(again, value, rtol=1e-5)
