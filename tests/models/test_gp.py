"""Gaussian processes against a reference in NumPy's float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.worlds import CONTINUOUS

from jmbrl import data, models
from jmbrl.models import gp_math
from jmbrl.models.double import differentiable, in_double, narrow, pair, widen
from jmbrl.models.gp import chosen, process
from jmbrl.models.regression import Problem
from jmbrl.types import Continuous, Spec

KEY = jax.random.key(0)
LINE = Spec("line", (1,), Continuous((-1.0,), (1.0,)), 20)
FLOOR = 1e-3


def wavy(count=30, noise=0.0, seed=0, capacity=40) -> data.Replay:
    """``x <- x + sin(2 x) + a / 2``, where the rows are."""
    rng = np.random.default_rng(seed)
    obs = rng.uniform(-2, 2, (count, 1)).astype(np.float32)
    action = rng.uniform(-1, 1, (count, 1)).astype(np.float32)
    following = obs + np.sin(2 * obs) + 0.5 * action + noise * rng.normal(size=obs.shape)
    return data.from_arrays(obs, action, obs[:, 0], following, np.zeros(count, bool), capacity=capacity)


def still(obs, action, following):
    return -(following[0] ** 2)


@functools.cache
def made(functions=0, **options):
    """A model of 40 points, its compiled fit, and what it learned from 30 rows without noise."""
    options = {"points": 40, "steps": 30, "reward": still, "clip_range": None, "noise_floor": FLOOR, **options}
    model = models.gp_function_samples(LINE, functions, **options) if functions else models.gp(LINE, **options)
    fit = jax.jit(models.trainer(model).fit)
    params, _, info = fit(KEY, model.init(KEY), (), wavy())
    return model, fit, params, info


def reference(weights, targets, obs, action, stats):
    """Mean and variance (noise included) of the change, for one output, in float64 throughout."""
    here = np.asarray(weights.weight) > 0
    x = np.asarray(weights.x, np.float64)[here]
    hyper = jax.tree.map(lambda h: np.asarray(h, np.float64)[0], weights.hyper)
    length, signal = np.exp(hyper.log_length), np.exp(2 * hyper.log_signal)
    noise = np.exp(2 * hyper.log_noise) + FLOOR**2

    def kernel(a, b):
        return signal * np.exp(-0.5 * np.sum(((a[:, None] - b) / length) ** 2, axis=-1))

    # As the model sees it: standardised in float32.
    raw = np.column_stack([obs, action]).astype(np.float32)
    at = ((raw - np.asarray(stats.inputs.mean)) / np.asarray(stats.inputs.std)).astype(np.float64)
    gram = kernel(x, x) + noise * np.eye(len(x))
    cross = kernel(at, x)
    mean = cross @ np.linalg.solve(gram, targets)
    variance = signal + noise - np.sum(cross * np.linalg.solve(gram, cross.T).T, axis=1)
    std = float(stats.targets.std[0])
    return mean * std + float(stats.targets.mean[0]), variance * std**2


def targets_of(weights, replay, stats):
    """The standardised changes of the rows that the model kept, in its order."""
    rows, count = data.rows(replay)
    raw = np.column_stack([rows.obs, rows.action])[: int(count)]
    x = (raw - np.asarray(stats.inputs.mean)) / np.asarray(stats.inputs.std)
    y = (np.asarray(rows.next_obs - rows.obs)[: int(count), 0] - stats.targets.mean[0]) / stats.targets.std[0]
    kept = np.asarray(weights.x)[np.asarray(weights.weight) > 0]
    order = np.argmin(np.sum((kept[:, None] - x) ** 2, axis=-1), axis=1)
    assert len(set(order.tolist())) == int(count)  # each once
    return np.asarray(y, np.float64)[order]


def places():
    return np.linspace(-4, 4, 17, dtype=np.float32)[:, None], np.linspace(1, -1, 17, dtype=np.float32)[:, None]


def test_posterior_is_the_reference():
    model, _, params, info = made()
    obs, action = places()
    mean, variance = reference(
        params.weights, targets_of(params.weights, wavy(), params.stats), obs, action, params.stats
    )
    got = jax.jit(jax.vmap(model.predict, in_axes=(None, 0, 0)))(params, obs, action)
    np.testing.assert_allclose(got.mean[:, 0] - obs[:, 0], mean, atol=1e-6)
    np.testing.assert_allclose(got.std[:, 0] ** 2, variance, atol=1e-6)
    np.testing.assert_allclose(got.std[:, 0] ** 2, variance, rtol=1e-4)  # also where it is small
    assert (info["points"], info["raised"], info["diverged"]) == (30, 0, 0)
    # It knows the wave where the rows are, and that it knows nothing far away.
    inside = np.abs(obs[:, 0]) < 1.6
    np.testing.assert_allclose(mean[inside], (np.sin(2 * obs) + 0.5 * action)[inside, 0], atol=0.05)
    assert np.min(variance[np.abs(obs[:, 0]) > 3.9]) > 100 * np.max(variance[inside])


def test_mean_moves_only_the_mean_and_float32_is_close():
    model, _, params, _ = made()
    obs, action = places()
    expected = jax.jit(model.expect)(params, obs, action)[0]
    got = jax.vmap(model.predict, in_axes=(None, 0, 0))(params, obs, action)
    np.testing.assert_allclose(expected, got.mean, atol=1e-6)
    single = models.gp(LINE, points=40, reward=still, clip_range=None, noise_floor=FLOOR, double=False)
    np.testing.assert_allclose(jax.jit(single.expect)(params, obs, action)[0], expected, atol=2e-3)


def test_steps_have_the_predicted_moments():
    model, _, params, _ = made()
    obs, action = np.full((2000, 1), 3.0, np.float32), np.zeros((2000, 1), np.float32)
    got = model.predict(params, obs[0], action[0])
    following, outcome = jax.jit(model.step_many)(KEY, params, obs, action)  # more rows than are evaluated at a time
    np.testing.assert_allclose(np.mean(following), got.mean[0], atol=0.1 * float(got.std[0]))
    np.testing.assert_allclose(np.std(following), got.std[0], rtol=0.07)
    np.testing.assert_allclose(outcome.reward, -(np.asarray(following)[:, 0] ** 2), rtol=1e-5)


@jax.jit
def on_prior(hyper, x, y, weight):
    return gp_math.loss_and_gradient(hyper, x, y, weight, gp_math.prior(2, FLOOR))


def marginal(hyper, x, y, weight):
    with jax.enable_x64(True):
        return on_prior(*widen((hyper, *(jnp.asarray(v, np.float32) for v in (x, y, weight)))))


def test_marginal_likelihood_and_its_gradient():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(12, 2)).astype(np.float32)
    x[5] = x[4]  # a duplicate, with another value
    x[7] = x[6] + 1e-6
    y, weight = rng.normal(size=12).astype(np.float32), np.ones(12, np.float32)
    weight[-1] = 0.0
    hyper = gp_math.Hyper(jnp.asarray([0.3, -0.2]), jnp.asarray(0.1), jnp.asarray(-3.0))
    value, slope = marginal(hyper, x, y, weight)
    assert value.dtype == slope.log_length.dtype == np.float64
    wide = np.float64(x[:11])
    signal, noise = np.exp(2 * np.float64(hyper.log_signal)), np.exp(-6.0) + FLOOR**2
    square = np.sum(((wide[:, None] - wide) * np.exp(-np.float64(hyper.log_length))) ** 2, axis=-1)
    gram = signal * np.exp(-0.5 * square) + noise * np.eye(11)
    likelihood = -0.5 * (y[:11] @ np.linalg.solve(gram, y[:11]) + np.linalg.slogdet(gram)[1] + 11 * np.log(2 * np.pi))
    length, amplitude, level = np.float64(hyper.log_length), np.float64(hyper.log_signal), -3.0
    centre = 0.5 * np.log(2.0)
    penalty = 0.5 * np.sum((length - centre) ** 2) + 0.5 * amplitude**2 + 0.5 * ((level - np.log(0.1)) / 1.5) ** 2
    np.testing.assert_allclose(value, penalty - likelihood, rtol=1e-9)
    for i, (name, index) in enumerate((("log_length", 0), ("log_length", 1), ("log_signal", ()), ("log_noise", ()))):
        h = 2.0**-10  # exact in float32
        shift = lambda d, name=name, index=index: hyper._replace(**{name: getattr(hyper, name).at[index].add(d)})  # noqa: E731
        up, down = (float(marginal(shift(d), x, y, weight)[0]) for d in (h, -h))
        np.testing.assert_allclose(getattr(slope, name)[index], (up - down) / (2 * h), rtol=1e-4, err_msg=str(i))


def test_duplicates_and_constant_data_do_not_break_it():
    model, fit, params, _ = made()
    obs = np.zeros((30, 1), np.float32) + 1e-7 * np.arange(30)[:, None]
    log = data.from_arrays(obs, np.zeros((30, 1)), np.zeros(30), obs, np.zeros(30, bool), capacity=40)
    for start in (params, model.init(KEY)):
        after, _, info = fit(KEY, start, (), log)
        assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((after, info)) if x.dtype == np.float32 and x.ndim)
        assert info["diverged"] == 0
        assert np.isfinite(jax.jit(model.expect)(after, obs, obs)[0]).all()


def test_a_weight_counts_like_copies():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(7, 2)), rng.normal(size=7)
    hyper = gp_math.Hyper(jnp.zeros(2), jnp.zeros(()), jnp.asarray(-1.0))
    given = gp_math.prior(2, FLOOR)

    @jax.jit
    def moments(hyper, rows, values, weight, at):
        posterior, _ = gp_math.condition(hyper, rows, values, weight, given)
        return gp_math.mean_and_variance(hyper, posterior, rows, weight, at)

    with jax.enable_x64(True):
        copies, at = np.array([0, 0, 0, 1, 2, 3, 4]), np.array([0.3, -0.4])
        weighted = moments(widen(hyper), x, y, np.array([3.0, 1, 1, 1, 1, 0, 0]), at)
        np.testing.assert_allclose(weighted, moments(widen(hyper), x[copies], y[copies], np.ones(7), at), rtol=1e-9)


@pytest.mark.parametrize("subset", ["random", "newest"])
def test_a_subset_of_many_rows(subset):
    options = dict.fromkeys(("reward", "termination", "preprocess", "postprocess", "clip_range", "forecast"))
    options |= {"predict_change": True, "absolute": (), "angles": (), "exogenous": ()}
    few = process("gp", LINE, options, 8, 5, 0, 0.1, FLOOR, subset, True)
    weight = np.where((np.arange(40) < 25) & (np.arange(40) != 20), 1.0, 0.0).astype(np.float32)
    rows = Problem(np.arange(40.0)[:, None].astype(np.float32), np.zeros((40, 1), np.float32), weight)
    kept = np.asarray(chosen(KEY, rows, few).x[:, 0], int)
    usable = set(range(25)) - {20}
    assert len(set(kept.tolist())) == 8
    assert set(kept.tolist()) <= usable
    assert (set(kept.tolist()) == {16, 17, 18, 19, 21, 22, 23, 24}) == (subset == "newest")
    padded = chosen(KEY, rows, few._replace(points=60))
    assert padded.x.shape == (60, 1)
    np.testing.assert_array_equal(padded.weight, np.arange(60) < 24)  # those that count come first


def test_functions_have_the_posteriors_moments():
    model, _, params, _ = made(functions=1500, waves=400, steps=0)
    member = models.one_member(params, 0)
    obs, action = places()
    y = targets_of(member.weights, wavy(), member.stats)
    mean, variance = reference(member.weights, y, obs, action, member.stats)
    predicted = jax.jit(functools.partial(models.members_predict, model))(params, obs, action)
    drawn, noise = predicted.mean[..., 0] - obs[:, 0], float(predicted.std[0, 0, 0])
    spread = np.sqrt(np.maximum(variance - noise**2, 0.0))
    np.testing.assert_array_less(np.abs(np.mean(drawn, axis=0) - mean), 4 * spread / 1500**0.5 + 1e-3)
    np.testing.assert_allclose(np.std(drawn, axis=0), spread, rtol=0.12, atol=2e-3)


def test_a_function_stays_the_same_along_a_trajectory():
    model, _, params, _ = made(functions=1500, waves=400, steps=0)
    # Two rows for each function, far from the data, at two times.
    obs, action = np.full((3000, 1), 4.0, np.float32), np.full((3000, 1), 1.0, np.float32)
    step = jax.jit(model.step_many)
    seen = np.stack([step(jax.random.key(i), params, obs, action)[0][:, 0] for i in range(2)])
    seen = seen.reshape(2, 1500, 2).swapaxes(1, 2).reshape(4, 1500)
    noise = float(jax.jit(model.member.predict)(models.one_member(params, 0), obs[0], action[0]).std[0])
    # What one function shows differs by the noise of the data only; functions differ by far more.
    np.testing.assert_allclose(np.mean(np.std(seen, axis=0, ddof=1)), 0.921 * noise, rtol=0.1)
    assert np.std(np.mean(seen, axis=0)) > 3 * noise


def test_two_starts_leave_a_bad_last_fit_behind():
    """Length-scales, signal and noise e^5 times too large: 30 small steps do not get away from there."""
    losses = []
    for two in (False, True):
        model = models.gp(LINE, points=40, steps=30, reward=still, noise_floor=FLOOR, two_starts=two)
        params = model.init(KEY)
        far = jax.tree.map(lambda x: x + 5.0, params.weights.hyper)
        params = params._replace(weights=params.weights._replace(hyper=far))
        losses.append(float(jax.jit(models.trainer(model).fit)(KEY, params, (), wavy())[2]["loss"]))
    _, _, _, info = made(steps=30)  # from the priors' medians
    assert losses[1] == pytest.approx(float(info["loss"]), rel=1e-4)
    assert losses[1] < losses[0] - 0.5


def test_no_function_before_the_first_fit():
    model, *_ = made(functions=1500, waves=400, steps=0)
    obs, action = np.full((1, 1), 6.0, np.float32), np.zeros((1, 1), np.float32)
    np.testing.assert_array_equal(jax.jit(model.member.expect)(model.member.init(KEY), obs, action)[0], obs)


def test_derivatives_by_the_action_agree():
    model, _, params, _ = made()
    obs = jnp.asarray([0.4])

    def imagined(action):
        def body(belief, _):
            return model.expect(params, belief[None], action[None])[0][0], None

        return jax.lax.scan(body, obs, None, length=3)[0][0]

    action, h = jnp.asarray([0.2]), 1e-2
    slope = jax.jit(jax.vmap(jax.grad(imagined)))(action[None])[0]
    run = jax.jit(imagined)
    np.testing.assert_allclose(slope[0], (run(action + h) - run(action - h)) / (2 * h), rtol=2e-3)


def test_float64_stays_inside():
    exact = differentiable(lambda c, x: jnp.sum(c * x**2) - jnp.sum(c * x) + 1.0)
    c, x = jnp.asarray([1e8, 1.0]), jnp.asarray([1.0, 0.25])
    np.testing.assert_array_equal(jax.jit(exact)(c, x), np.float32(1 + 0.25**2 - 0.25))  # float32 would lose it in 1e8
    for slope in (jax.grad(exact, argnums=1), jax.jacfwd(exact, argnums=1)):
        got = jax.jit(jax.vmap(jax.jit(slope), in_axes=(None, 0)))(c, x[None])
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, [[1e8, -0.5]], rtol=1e-7)
    assert jnp.asarray(1.0).dtype == np.float32
    with jax.enable_x64(True):
        third = jnp.asarray(1.0, np.float64) / 3
        halves = pair(third)
        assert abs(float(widen(halves)) - 1 / 3) < 1e-15
        assert narrow(third).dtype == halves.low.dtype == np.float32


def test_float64_survives_being_mapped_after_it_was_staged():
    """As when ``train`` is mapped over seeds: batching rules then run where float64 is not enabled."""

    def loop(matrix):
        def body(carry, _):
            wide = carry.astype(np.float64)
            inverse = jnp.linalg.inv(jnp.linalg.cholesky(wide @ wide.T + 1e-9 * jnp.eye(2)))
            return carry, jnp.sum(inverse @ inverse.T)

        return jax.lax.scan(body, matrix, None, length=2)[1]

    matrix = jnp.asarray([[[1.0, 0.5], [0.25, 1.0]], [[2.0, 0.0], [0.5, 1.0]]])
    staged = jax.jit(lambda m: jax.lax.scan(lambda c, _: (c, in_double(loop)(m)), 0, None, length=1)[1][0])
    wide = np.float64(matrix)
    gram = wide @ np.swapaxes(wide, 1, 2) + 1e-9 * np.eye(2)
    root = np.linalg.inv(np.linalg.cholesky(gram))
    wanted = np.sum(root @ np.swapaxes(root, 1, 2), axis=(1, 2))
    np.testing.assert_allclose(jax.jit(jax.vmap(staged))(matrix), np.stack([wanted, wanted], axis=1), rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"points": 0}, "points must be at least 1"),
        ({"search_points": 0}, "search_points must be at least 1"),
        ({"steps": -1}, "steps must be at least 0"),
        ({"noise_floor": 0.0}, "noise_floor must be at least"),
        ({"subset": "best"}, "subset must be one of random, newest"),
        ({"termination": "learned"}, "cannot learn termination"),
    ],
)
def test_bad_input_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        models.gp(CONTINUOUS, **options)
    with pytest.raises(ValueError, match=match):
        models.gp_function_samples(CONTINUOUS, 2, **options)
    with pytest.raises(ValueError, match="n must be at least 1"):
        models.gp_function_samples(CONTINUOUS, 0)
