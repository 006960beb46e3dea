"""The losses and the options of the networks, by hand-worked numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.worlds import CONTINUOUS, batch, reward

from jmbrl import models
from jmbrl.models.coordinates import wrap
from jmbrl.types import Continuous, Params, Spec, Transition

ONE = Spec("one", (1,), Continuous((-1.0,), (1.0,)), 10)


def rows(obs, action, rewards, next_obs, terminated=None):
    n = len(rewards)
    terminated = jnp.zeros(n, bool) if terminated is None else jnp.asarray(terminated)
    column = lambda x: jnp.asarray(x, jnp.float32).reshape(n, 1)  # noqa: E731
    flags = (terminated, jnp.zeros(n, bool))
    return Transition(column(obs), column(action), jnp.asarray(rewards), column(next_obs), *flags)


def linear(model, kernel, bias, **rest):
    params = model.init(jax.random.key(0))
    layer = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
    return params._replace(weights=params.weights | {"layers": (layer,)} | rest)


def test_gaussian_loss_by_hand():
    model = models.gaussian_mlp(ONE, (), reward=reward, weight_decay=0.5)
    # Inputs (obs, action); outputs mean = obs + 2 action and a raw log-variance of 0.
    params = linear(model, [[1.0, 0.0], [2.0, 0.0]], [0.0, 0.0])
    data = rows([1.0, 2.0], [0.5, -0.5], [0.0, 0.0], [4.0, 2.0])  # targets 3 and 0; means 2 and 1; errors 1 and 1
    loss, info = model.loss(jax.random.key(0), params, data)
    # l = 0.5 - softplus(0.5) = -0.474077; l = -10 + softplus(9.525923) = -0.474004; exp(-l) = 1.606412
    # nll = 1.606412 - 0.474004; decay = 0.5 * 0.5 * (1 + 4); bounds = 0.01 * (0.5 + 10)
    np.testing.assert_allclose(info["mse"], 1.0, rtol=1e-6)
    np.testing.assert_allclose(info["nll"], 1.132408, rtol=2e-6)
    np.testing.assert_allclose(loss, 1.132408 + 1.25 + 0.105, rtol=2e-6)


def test_variance_is_the_two_soft_bounds():
    model = models.gaussian_mlp(ONE, (), reward=reward)
    for raw in (-30.0, -12.0, -3.0, 0.0, 0.4, 3.0, 40.0):
        params = linear(model, jnp.zeros((2, 2)), [0.0, raw])
        logvar = 0.5 - np.logaddexp(0.0, 0.5 - raw)
        logvar = -10.0 + np.logaddexp(0.0, logvar + 10.0)
        std = model.predict(params, jnp.zeros(1), jnp.zeros(1)).std
        np.testing.assert_allclose(std, [np.exp(0.5 * logvar)], rtol=1e-5)


def test_saturated_outputs_are_reported():
    model = models.gaussian_mlp(ONE, (), reward=reward)
    data = rows([0.0], [0.0], [0.0], [0.0])
    for raw, wanted in ((0.0, 0.0), (50.0, 1.0), (-50.0, 1.0)):
        params = linear(model, jnp.zeros((2, 2)), [0.0, raw])
        assert model.loss(jax.random.key(0), params, data)[1]["logvar_saturated"] == wanted


def test_deterministic_loss_by_hand():
    model = models.deterministic_mlp(ONE, (), weight_decay=(0.2,))  # outputs: change, reward
    params = linear(model, [[1.0, 0.0], [2.0, 1.0]], [0.0, 0.5])
    data = rows([1.0, 2.0], [0.5, -0.5], [0.0, 1.0], [4.0, 2.0])
    # Errors of the change 1, 1; reward means 1, 0 against 0, 1: errors 1, 1.
    loss, info = model.loss(jax.random.key(0), params, data)
    np.testing.assert_allclose(info["mse"], 1.0, rtol=1e-6)
    np.testing.assert_allclose(loss, 1.0 + 0.5 * 0.2 * 6.0, rtol=1e-6)


def test_termination_head_learns_from_terminated_only():
    model = models.deterministic_mlp(ONE, (), reward=reward, termination="learned", weight_decay=0.0)
    params = linear(model, jnp.zeros((2, 2)), [0.0, 2.0])  # logit 2
    data = rows([0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [True, False])
    ended, truncated = 0.126928, 2.126928  # softplus(2) - 2 and softplus(2)
    loss, _ = model.loss(jax.random.key(0), params, data._replace(truncated=jnp.array([True, True])))
    np.testing.assert_allclose(loss, (ended + truncated) / 2, rtol=1e-5)
    _, outcome = model.step(jax.random.key(0), params, jnp.zeros(1), jnp.zeros(1))
    np.testing.assert_allclose(outcome.discount, 1.0 - 0.880797, rtol=1e-5)


def test_absolute_dimensions_and_preprocess():
    spec = Spec("two", (2,), Continuous((-1.0,), (1.0,)), 10)
    model = models.deterministic_mlp(
        spec, (), absolute=(0,), preprocess=lambda obs: jnp.sin(obs[1:]), reward=reward, clip_range=None
    )
    params = linear(model, [[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0])  # inputs sin(obs[1]) and the action
    got, _ = model.step(jax.random.key(0), params, jnp.array([5.0, 0.5]), jnp.array([0.25]))
    np.testing.assert_allclose(got, [np.sin(0.5), 0.75], rtol=1e-6)
    data = Transition(jnp.array([[5.0, 0.5]]), jnp.array([[0.25]]), jnp.zeros(1), got[None], *[jnp.zeros(1, bool)] * 2)
    np.testing.assert_allclose(model.loss(jax.random.key(0), params, data)[1]["mse"], 0.0, atol=1e-12)


def test_next_state_instead_of_change_and_postprocess():
    model = models.deterministic_mlp(
        ONE, (), predict_change=False, reward=reward, postprocess=lambda obs: jnp.minimum(obs, 1.0)
    )
    params = linear(model, [[0.5], [1.0]], [0.0])
    step = lambda obs: model.step(jax.random.key(0), params, jnp.array([obs]), jnp.array([0.25]))[0]  # noqa: E731
    np.testing.assert_allclose(step(1.0), [0.75])
    np.testing.assert_allclose(step(4.0), [1.0])


def test_predictions_are_pulled_back_to_the_data():
    model = models.deterministic_mlp(ONE, (), reward=lambda obs, action, next_obs: next_obs[0], clip_range=2.0)
    params = linear(model, [[0.0], [100.0]], [0.0])
    data = rows([0.0, 1.0], [0.0, 0.0], [0.0, 0.0], [1.0, 3.0])  # range 0..3, so the border is -6..9
    params = model.set_stats(params, data, jnp.ones(2, bool))
    params = params._replace(stats=params.stats._replace(inputs=model.init(jax.random.key(0)).stats.inputs))
    for action, wanted, clipped in ((0.05, 6.0, False), (1.0, 9.0, True), (-1.0, -6.0, True)):
        got, outcome = model.step(jax.random.key(0), params, jnp.array([1.0]), jnp.array([action]))
        np.testing.assert_allclose((got[0], outcome.reward), (wanted, wanted), rtol=1e-6)
        assert bool(outcome.clipped) == clipped


def test_statistics_follow_the_mask_and_are_kept_without_rows():
    model = models.gaussian_mlp(CONTINUOUS, (8,))
    params = model.init(jax.random.key(0))
    obs, action = batch(CONTINUOUS, 50)
    data = Transition(obs.at[30:].set(jnp.nan), action, jnp.zeros(50), obs, *[jnp.zeros(50, bool)] * 2)
    data = data._replace(next_obs=data.obs)
    fitted = model.set_stats(params, data, jnp.arange(50) < 30)
    np.testing.assert_allclose(fitted.stats.inputs.mean[:3], np.mean(obs[:30], axis=0), atol=1e-6)
    np.testing.assert_allclose(fitted.stats.obs.high, np.max(obs[:30], axis=0))
    kept = model.set_stats(fitted, data, jnp.zeros(50, bool))
    jax.tree.map(np.testing.assert_array_equal, kept, fitted)


def test_bounds_of_the_log_variance_can_be_frozen():
    model = models.gaussian_mlp(CONTINUOUS, (8,), learn_logvar_bounds=False)
    assert set(model.init(jax.random.key(0)).weights) == {"layers"}


def test_initial_weights_are_the_papers():
    weights = models.gaussian_mlp(CONTINUOUS, (200, 200)).init(jax.random.key(0)).weights
    kernel = np.asarray(weights["layers"][1]["kernel"])
    scale = 1 / (2 * np.sqrt(200))
    assert np.abs(kernel).max() <= 2 * scale + 1e-6
    np.testing.assert_allclose(kernel.std(), 0.8796 * scale, rtol=0.02)
    assert all(np.all(layer["bias"] == 0) for layer in weights["layers"])


@pytest.mark.parametrize("factory", [models.gaussian_mlp, models.deterministic_mlp])
@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        (Spec("i", (8, 8, 3), CONTINUOUS.action, 9, "uint8"), {}, "needs a vector observation of float32"),
        (CONTINUOUS, {"absolute": (3,)}, "absolute must be at most 2, got 3"),
        (CONTINUOUS, {"hidden": (0,)}, "hidden must be at least 1, got 0"),
        (CONTINUOUS, {"weight_decay": (1e-4,)}, "weight_decay must have 5 entries"),
        (CONTINUOUS, {"termination": "never"}, "termination must be one of learned"),
        (CONTINUOUS, {"clip_range": -1.0}, "clip_range must be at least 0"),
        (CONTINUOUS, {"preprocess": jnp.sum}, "preprocess must return a vector"),
    ],
)
def test_refuses(factory, spec, options, message):
    with pytest.raises(ValueError, match=message):
        factory(spec, **options)


def test_one_member_of_params():
    model = models.ensemble(models.deterministic_mlp(CONTINUOUS, (8,)), 3)
    params = model.init(jax.random.key(0))
    single = models.one_member(params, 2)
    assert isinstance(single, Params)
    np.testing.assert_array_equal(single.weights["layers"][0]["kernel"], params.weights["layers"][0]["kernel"][2])


TWO = Spec("two", (2,), Continuous((-1.0,), (1.0,)), 10)
THREE = Spec("three", (3,), Continuous((-1.0,), (1.0,)), 10)


def nothing(obs, action, next_obs):
    return jnp.zeros(())


def two_rows(obs, next_obs, action=((0.5,),)):
    obs, next_obs, action = (jnp.asarray(x, jnp.float32) for x in (obs, next_obs, action))
    flag = jnp.zeros(len(obs), bool)
    return Transition(obs, action, jnp.zeros(len(obs)), next_obs, flag, flag)


def test_angles_are_read_as_sine_and_cosine_and_turn_the_short_way():
    # Inputs (obs[1], sin, cos, action); outputs: the turn 2 sin + action, the change of obs[1] 3 cos.
    model = models.deterministic_mlp(TWO, (), angles=(0,), reward=nothing, weight_decay=0.0)
    params = linear(model, [[0.0, 0.0], [2.0, 0.0], [0.0, 3.0], [1.0, 0.0]], [0.0, 0.0])
    obs, action = jnp.array([2.5, 10.0]), jnp.array([0.5])
    following, outcome = model.step(jax.random.key(0), params, obs, action)
    # 2.5 + 2 sin 2.5 + 0.5 = 4.196944 = -2.086241 + 2 pi; 10 + 3 cos 2.5 = 7.596569
    np.testing.assert_allclose(following, [-2.086241, 7.596569], rtol=1e-5)
    np.testing.assert_allclose(model.predict(params, obs, action).mean, following, rtol=1e-6)
    # From 3.0 to -3.0 is a turn of 2 pi - 6 = 0.283185, not of -6; the network says 2 sin 3 + 0.5 = 0.782240.
    data = two_rows([[3.0, 0.0]], [[-3.0, 3 * np.cos(3.0)]])
    mse = model.loss(jax.random.key(0), params, data)[1]["mse"]
    np.testing.assert_allclose(mse, (0.782240 - 0.283185) ** 2 / 2, rtol=1e-5)
    # A turn is no fault however narrow the data's range was; the other entry is pulled back (border 10.2).
    params = model.set_stats(params, two_rows([[0.1, 10.0]], [[0.2, 10.1]]), jnp.ones(1, bool))
    params = params._replace(stats=params.stats._replace(inputs=model.init(jax.random.key(0)).stats.inputs))
    _, outcome = model.step(jax.random.key(0), params, jnp.array([2.5, 12.5]), action)
    assert not outcome.clipped
    following, outcome = model.step(jax.random.key(0), params, jnp.array([0.0, 10.0]), action)
    assert outcome.clipped
    np.testing.assert_allclose(following, [0.5, 10.1 + 2 * 0.1], rtol=1e-5)


@pytest.mark.parametrize("turns", [-3, 0, 2])
def test_wrapped_angles_are_the_same_angle_inside_the_borders(turns):
    angle = np.array([-np.pi, -3.0, -1e-9, 0.0, 1e-9, 3.0, np.pi], np.float32)
    got = np.asarray(wrap(jnp.asarray(angle + np.float32(2 * np.pi) * turns)))
    assert np.all((got >= -np.float32(np.pi)) & (got < np.float32(np.pi)))
    np.testing.assert_allclose(np.exp(1j * got), np.exp(1j * angle.astype(float)), atol=1e-5)
    if turns == 0:
        np.testing.assert_array_equal(got[:-1], angle[:-1])


@pytest.mark.parametrize("factory", [models.deterministic_mlp, models.gaussian_mlp, models.mixture_mlp])
def test_exogenous_entries_are_read_but_neither_predicted_nor_learned(factory):
    model = factory(THREE, (4,), exogenous=(0, -1))
    params = jax.jit(model.init)(jax.random.key(0))
    obs = jnp.array([5.0, 1.0, -7.0])
    key, action = jax.random.key(1), jnp.array([0.5])
    step = jax.jit(model.step)
    following, _ = step(key, params, obs, action)
    np.testing.assert_array_equal(following[jnp.array([0, 2])], [5.0, -7.0])
    assert following[1] != 1.0
    said = jax.jit(model.predict)(params, obs, action)
    np.testing.assert_array_equal(said.mean[jnp.array([0, 2])], [5.0, -7.0])
    np.testing.assert_array_equal(said.std[jnp.array([0, 2])], [0.0, 0.0])
    assert np.any(step(key, params, obs.at[0].set(-5.0), action)[0][1] != following[1])
    measure = jax.jit(lambda following: model.loss(key, params, two_rows(obs[None], following))[0])
    loss = lambda next_obs: float(measure(jnp.asarray([next_obs])))  # noqa: E731
    assert loss([0.0, 2.0, 0.0]) == loss([9.0, 2.0, -9.0])
    assert loss([0.0, 2.0, 0.0]) != loss([0.0, 3.0, 0.0])


def test_exogenous_entries_follow_their_forecast():
    forecast = lambda obs: jnp.stack([obs[2] + obs[0], 0.5 * obs[0]])  # noqa: E731
    model = models.deterministic_mlp(THREE, (), exogenous=(2, 0), forecast=forecast, reward=nothing, clip_range=0.0)
    params = linear(model, [[0.0], [0.0], [0.0], [1.0]], [0.0])
    params = model.set_stats(params, two_rows([[0.0, 0.0, 0.0]], [[1.0, 9.0, 1.0]]), jnp.ones(1, bool))
    params = params._replace(stats=params.stats._replace(inputs=model.init(jax.random.key(0)).stats.inputs))
    following, outcome = model.step(jax.random.key(0), params, jnp.array([4.0, 1.0, 3.0]), jnp.array([0.25]))
    np.testing.assert_allclose(following, [2.0, 1.25, 7.0])
    assert not outcome.clipped


def test_normalised_targets_count_alike_by_hand():
    model = models.deterministic_mlp(TWO, (), reward=nothing, normalize_targets=True, weight_decay=0.0)
    # Changes of (-1, 0.001) and (3, 0.003): standard deviations 2 and 0.001.
    data = two_rows([[0.0, 0.0], [0.0, 1.0]], [[-1.0, 0.001], [3.0, 1.003]], [[0.0], [0.0]])
    params = model.set_stats(model.init(jax.random.key(0)), data, jnp.ones(2, bool))
    np.testing.assert_allclose(params.stats.targets.std, [2.0, 0.001], rtol=1e-3)
    weights = {"layers": ({"kernel": jnp.zeros((3, 2)), "bias": jnp.array([0.5, 2.0])},)}
    params = params._replace(weights=weights)
    # Normalised targets (-0.5, 1) and (1.5, 3) against (0.5, 2): every error is 1.
    np.testing.assert_allclose(model.loss(jax.random.key(0), params, data)[1]["mse"], 1.0, rtol=1e-3)
    following, _ = model.step(jax.random.key(0), params, jnp.zeros(2), jnp.zeros(1))
    np.testing.assert_allclose(following, [1.0, 0.002], rtol=1e-3)
    gaussian = models.gaussian_mlp(TWO, (), reward=nothing, normalize_targets=True, learn_logvar_bounds=False)
    raw = {"layers": ({"kernel": jnp.zeros((3, 4)), "bias": jnp.array([0.5, 2.0, 50.0, 50.0])},)}
    said = gaussian.predict(params._replace(weights=raw), jnp.zeros(2), jnp.zeros(1))
    # The variance is at its upper bound exp(0.5) (+ exp(-10)).
    np.testing.assert_allclose(said.mean, [1.0, 0.002], rtol=1e-3)
    np.testing.assert_allclose(said.std, np.exp(0.25) * np.array([2.0, 0.001]), rtol=1e-3)


@pytest.mark.parametrize("factory", [models.gaussian_mlp, models.deterministic_mlp, models.mixture_mlp])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"angles": (3,)}, "angles must be at most 2, got 3"),
        ({"exogenous": (-4,)}, "exogenous must be at least -3, got -4"),
        ({"angles": (0, -3)}, "angles must name each entry once"),
        ({"angles": (0, 1), "exogenous": (-2,)}, r"angles and exogenous must not share entries, got \[1\]"),
        ({"angles": (1,), "absolute": (1,)}, "angles and absolute must not share"),
        ({"exogenous": (0, 1, 2)}, "exogenous must leave an entry to predict"),
        ({"forecast": lambda obs: obs}, "forecast needs exogenous entries"),
        ({"exogenous": (0,), "forecast": lambda obs: obs}, r"shape \(1,\), got shape \(3,\)"),
    ],
)
def test_refuses_roles_that_do_not_fit(factory, options, message):
    with pytest.raises(ValueError, match=message):
        factory(THREE, (4,), **options)
