"""Parameters found against closed forms and a simulated pendulum in float64; corrections; what is refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jmbrl import data, models
from jmbrl.models import Parameter
from jmbrl.types import Continuous, DataKind, Discrete, Params, Sequence, Spec, Transition

KEY = jax.random.key(0)
PENDULUM = Spec("pendulum", (3,), Continuous((-2.0,), (2.0,)), 200)
LINE = Spec("line", (1,), Continuous((-1.0,), (1.0,)), 50)
TRUE = {"mass": 1.3, "length": 0.8, "friction": 0.15}
KNOWN = {"mass": Parameter(0.2, 5.0), "length": Parameter(0.2, 3.0), "friction": Parameter(0.0, 1.0)}
NOISE = np.array([0.01, 0.01, 0.05])


def swing(state, action, theta):
    """``theta'' = 3 g / 2 l sin(theta) + 3 (u - b theta') / m l^2``, Gym's pendulum with friction."""
    angle, speed = state[0], state[1]
    torque = 2.0 * action[0] - theta["friction"] * speed
    push = 15.0 / theta["length"] * jnp.sin(angle) + 3.0 / (theta["mass"] * theta["length"] ** 2) * torque
    speed = speed + 0.05 * push
    return jnp.stack([angle + 0.05 * speed, speed])


def to_state(obs):
    return jnp.stack([jnp.arctan2(obs[1], obs[0]), obs[2]])


def to_obs(state):
    return jnp.stack([jnp.cos(state[0]), jnp.sin(state[0]), state[1]])


def pendulum(**options):
    return models.equations(PENDULUM, swing, KNOWN, to_state=to_state, to_obs=to_obs, **options)


def noisy_episode(seed: int) -> data.Replay:
    """200 steps under torques held for five steps, in float64, seen through noise."""
    rng = np.random.default_rng(seed)
    angle, speed = rng.uniform(-np.pi, np.pi), rng.uniform(-1, 1)
    actions = np.repeat(rng.choice([-1.0, 1.0], 40), 5)
    path = [(angle, speed)]
    for action in actions:
        torque = 2 * action - TRUE["friction"] * speed
        speed += 0.05 * (15 / TRUE["length"] * np.sin(angle) + 3 / (TRUE["mass"] * TRUE["length"] ** 2) * torque)
        angle += 0.05 * speed
        path.append((angle, speed))
    angle, speed = np.array(path).T
    obs = np.stack([np.cos(angle), np.sin(angle), speed], axis=1) + NOISE * rng.normal(size=(201, 3))
    over = np.arange(200) == 199
    return data.from_arrays(obs[:-1], actions[:, None], np.zeros(200), obs[1:], np.zeros(200, bool), over)


def test_three_parameters_within_two_percent_from_one_noisy_episode():
    model: Any = pendulum(steps=20)
    optimizer = optax.adam(optax.cosine_decay_schedule(0.01, 400))
    trainer = models.sequence_trainer(model, optimizer=optimizer, updates=400, batch_size=1, length=200)
    init, fit = jax.jit(model.init), jax.jit(trainer.fit)
    off, spreads = [], []
    for seed in range(12):
        params = init(jax.random.key(seed))
        params, _, info = fit(KEY, params, trainer.init(params), noisy_episode(seed))
        assert info["skipped"] == 0
        off += [np.asarray(value) / TRUE[name] - 1 for name, value in models.theta(params).items()]
        spreads.append(params.stats.obs.std * jnp.exp(10.0 * params.weights["log_noise"]))
    worst = np.abs(off).max()
    assert worst < 0.02, f"the worst of 12 seeds is off by {100 * worst:.1f} %"
    # The noise of the readings is found besides, from 600 of them each.
    np.testing.assert_allclose(np.mean(spreads, axis=0), NOISE, rtol=0.06)
    # One step from a measured state misses by more than a reading's noise: that is what predict has to say.
    rows, _ = data.rows(noisy_episode(11))
    guess = jax.jit(jax.vmap(model.predict, (None, 0, 0)))(params, rows.obs, rows.action)
    np.testing.assert_allclose(guess.std[0], np.sqrt(np.mean((rows.next_obs - guess.mean) ** 2, axis=0)), rtol=0.02)


def line(state, action, theta):
    return theta["slope"] * state + 0.0 * action


def with_slope(model, slope: float) -> Params:
    """Parameters whose only entry, in (0, 2), has this value."""
    params = model.init(KEY)
    share = slope / 2.0
    return params._replace(weights=params.weights | {"theta": {"slope": jnp.log(share / (1 - share)) / 10.0}})


def pairs(count: int = 400, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Readings of ``s`` and of ``0.7 s``, both with noise."""
    rng = np.random.default_rng(0)
    state = rng.normal(size=count)
    before, after = (x + noise * rng.normal(size=count) for x in (state, 0.7 * state))
    return before.astype(np.float32), after.astype(np.float32)


def windows(before: np.ndarray, after: np.ndarray) -> Sequence:
    """One window in which every row starts anew."""
    obs, following = jnp.asarray(before)[None, :, None], jnp.asarray(after)[None, :, None]
    flat = jnp.zeros(obs.shape[:2])
    rows = Transition(obs, jnp.zeros_like(obs), flat, following, flat.astype(bool), flat.astype(bool))
    return Sequence(rows, jnp.ones(flat.shape, bool), jnp.ones(flat.shape, bool))


def test_estimated_starts_are_total_least_squares_and_measured_ones_are_biased():
    """With one step a path, ``min_s (o - s)^2 + (n - theta s)^2`` has a closed form: orthogonal regression."""
    x, y = pairs()
    sxx, syy, sxy = (float(np.mean(a * b)) for a, b in ((x, x), (y, y), (x, y)))
    orthogonal = (syy - sxx + np.sqrt((syy - sxx) ** 2 + 4 * sxy**2)) / (2 * sxy)
    ordinary = sxy / sxx  # smaller: attenuated by the noise of what is regressed on
    assert ordinary < 0.68 < orthogonal < 0.75
    for wanted, estimated in ((orthogonal, True), (ordinary, False)):
        model = models.equations(LINE, line, {"slope": Parameter(0.0, 2.0)}, steps=1, estimate_start=estimated)
        slope = jax.grad(lambda w, model=model: model.loss(KEY, Params(w, model.init(KEY).stats), windows(x, y))[0])
        at = jax.jit(lambda w, slope=slope: slope(w)["theta"]["slope"])
        scale = abs(float(at(with_slope(model, wanted + 0.1).weights)))
        assert abs(float(at(with_slope(model, wanted).weights))) < 1e-3 * scale
        assert at(with_slope(model, wanted - 0.05).weights) < 0 < at(with_slope(model, wanted + 0.05).weights)


def measured(model, batch: Sequence, count: int):
    """``(params) -> (loss, info)`` after the statistics of a window's rows."""
    rows = jax.tree.map(lambda a: a[0], batch.transition)
    return jax.jit(lambda params: model.loss(KEY, model.set_stats(params, rows, jnp.ones(count, bool)), batch))


def test_priors_weigh_one_row_among_the_rows():
    batch = windows(*pairs(50))
    losses = []
    for prior in ((None, None), (1.0, 0.1)):
        known = {"slope": Parameter(0.0, 2.0, *prior)}
        model = models.equations(LINE, line, known, steps=1, estimate_start=False)
        params = with_slope(model, 0.7)
        loss, info = measured(model, batch, 50)(params)
        losses.append(float(loss))
        assert float(models.theta(params)["slope"]) == pytest.approx(0.7, rel=1e-5)
    assert float(info["prior"]) == pytest.approx(4.5, rel=1e-4), "0.3 from the mean is three deviations: 9 / 2"
    assert losses[1] - losses[0] == pytest.approx(4.5 / 50, rel=1e-2)


def test_parameters_stay_between_their_bounds_and_start_from_their_priors():
    known = {
        "both": Parameter(-1.0, 3.0),
        "above": Parameter(2.0),
        "scaled": Parameter(0.0, prior_mean=1e-3, prior_std=1e-4),
        "prior": Parameter(0.0, 10.0, prior_mean=4.0, prior_std=0.5),
    }
    model = models.equations(LINE, lambda s, a, theta: theta["both"] * s, known)
    params = model.init(KEY)
    zero = params._replace(weights=params.weights | {"theta": dict.fromkeys(known, jnp.zeros(()))})
    found = models.theta(zero)
    half = np.log(2.0)  # softplus(0)
    np.testing.assert_allclose([found[n] for n in known], [1.0, 2.0 + half, 1e-3 * half, 5.0], rtol=1e-6)
    for far in (-100.0, 100.0):
        extreme = params._replace(weights=params.weights | {"theta": dict.fromkeys(known, jnp.asarray(far))})
        value = models.theta(extreme)
        assert -1.0 <= value["both"] <= 3.0
        assert value["above"] >= 2.0
        assert value["scaled"] >= 0.0
    starts = jax.jit(jax.vmap(lambda key: models.theta(model.init(key))))(jax.random.split(KEY, 1000))
    starts = {name: np.asarray(value) for name, value in starts.items()}
    assert -1.0 < starts["both"].min() < starts["both"].max() < 3.0
    np.testing.assert_allclose((starts["prior"].mean(), starts["prior"].std()), (4.0, 0.5), rtol=0.05)
    np.testing.assert_allclose((starts["scaled"].mean(), starts["scaled"].std()), (1e-3, 1e-4), rtol=0.08)


def test_paths_end_where_episodes_do_and_dead_rows_do_not_matter():
    model = models.equations(LINE, line, {"slope": Parameter(0.0, 2.0)}, steps=4)
    params = with_slope(model, 0.7)
    before, after = pairs(8)
    window = windows(before, after)._replace(is_first=jnp.arange(8)[None] == 0)

    @jax.jit
    def evaluated(batch: Sequence) -> tuple:
        (loss, info), grads = jax.value_and_grad(
            lambda w: model.loss(KEY, Params(w, params.stats), batch), has_aux=True
        )(params.weights)
        return loss, info["nll"], grads

    whole, path, _ = evaluated(window)
    short = window._replace(mask=window.mask.at[0, 6:].set(False))
    broken = jax.tree.map(lambda x: x.at[0, 6:].set(jnp.nan) if x.dtype == jnp.float32 else x, window.transition)
    value, _, grads = evaluated(short)
    value_broken, _, grads_broken = evaluated(short._replace(transition=broken))
    assert value_broken == value != whole
    jax.tree.map(np.testing.assert_array_equal, grads_broken, grads)
    # A new episode at row 2 makes the rest of that path of four dead, for the path; so does a gap.
    new = window._replace(is_first=window.is_first.at[0, 2].set(True))
    gap = window._replace(mask=window.mask.at[0, 2].set(False))
    assert evaluated(new)[1] == evaluated(gap)[1] != path


def test_it_is_a_model():
    reward = lambda obs, action, next_obs: next_obs[2] - action[0]  # noqa: E731
    model: Any = pendulum(reward=reward, termination=lambda obs, action, next_obs: next_obs[2] > 1.0)
    assert model.data_kind is DataKind.SEQUENCES
    params = model.init(KEY)
    rows, _ = data.rows(noisy_episode(0))
    same = jax.jit(model.set_stats)(params, rows, jnp.zeros(200, bool))
    jax.tree.map(np.testing.assert_array_equal, same, params)
    params = jax.jit(model.set_stats)(params, rows, jnp.ones(200, bool))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, same)
    beliefs, actions = rows.obs[:5], rows.action[:5]
    following, outcome = jax.jit(model.step_many)(KEY, params, beliefs, actions)
    assert following.shape == (5, 3)
    np.testing.assert_allclose(outcome.reward, following[:, 2] - actions[:, 0], rtol=1e-5)
    np.testing.assert_array_equal(outcome.discount, following[:, 2] <= 1.0)
    one, seen = jax.jit(model.step)(KEY, params, beliefs[0], actions[0])
    assert one.shape == (3,)
    assert seen.reward.shape == seen.discount.shape == ()
    mean, _ = jax.jit(model.expect)(params, beliefs, actions)
    found = {name: float(value) for name, value in models.theta(params).items()}
    wanted = jax.jit(jax.vmap(lambda o, a: to_obs(swing(to_state(o), a, found))))(beliefs, actions)
    np.testing.assert_allclose(mean, wanted, rtol=1e-5, atol=1e-6)
    guess = jax.jit(jax.vmap(model.predict, (None, 0, 0)))(params, beliefs, actions)
    np.testing.assert_allclose(guess.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(guess.std, jnp.broadcast_to(1.0001 * params.stats.obs.std, (5, 3)), rtol=1e-5)
    speed = lambda a: model.step(KEY, params, beliefs[0], a)[0][2]  # noqa: E731
    slope = float(jax.jit(jax.grad(speed))(actions[0])[0])
    assert slope == pytest.approx(0.05 * 6.0 / (found["mass"] * found["length"] ** 2), rel=1e-4)
    unknown = jax.jit(pendulum().step)(KEY, params, beliefs[0], actions[0])[1]
    assert np.isnan(unknown.reward), "an unknown reward is not zero"
    with pytest.raises(ValueError, match="action has shape"):
        model.step(KEY, params, beliefs[0], jnp.zeros(2))


def test_members_of_an_ensemble_start_apart_and_learn_from_the_same_loss():
    member = models.equations(LINE, line, {"slope": Parameter(0.0, 2.0)}, steps=1, estimate_start=False)
    model = models.ensemble(member, 3)
    params = jax.jit(model.init)(KEY)
    slopes = models.theta(params)["slope"]
    assert len(set(np.asarray(slopes).tolist())) == 3
    batch = windows(*pairs(20))
    each = jax.jit(lambda p: member.loss(KEY, p, batch)[0])
    wanted = sum(float(each(models.one_member(params, i))) for i in range(3))
    assert float(jax.jit(lambda p: model.loss(KEY, p, batch)[0])(params)) == pytest.approx(wanted, rel=1e-5)
    assert models.sequence_trainer(model, updates=1) is not None


# ------------------------------------------------------------------------------------------ corrections


def bent_log(count: int = 300) -> data.Replay:
    """``s' = 0.8 s + 0.1 a + 0.2 cos(3 s)``, without noise, from scattered states."""
    rng = np.random.default_rng(1)
    state, action = rng.uniform(-1, 1, (2, count, 1))
    following = 0.8 * state + 0.1 * action + 0.2 * np.cos(3 * state)
    return data.from_arrays(state, action, np.zeros(count), following, np.zeros(count, bool), np.ones(count, bool))


def straight(state, action, theta):
    return theta["slope"] * state + 0.1 * action


def test_a_correction_learns_what_the_equations_lack_and_leaves_them_their_meaning():
    base = models.equations(LINE, straight, {"slope": Parameter(0.0, 2.0)}, steps=1, estimate_start=False)
    model: Any = models.residual(base, (16,), shrinkage=0.01, fit="theta_first")
    rows, _ = data.rows(bent_log())
    state, action, following = (np.asarray(x, np.float64)[:, 0] for x in (rows.obs, rows.action, rows.next_obs))
    slope = state @ (following - 0.1 * action) / (state @ state)  # least squares, as if there were no correction
    left = np.sqrt(np.mean((following - 0.1 * action - slope * state) ** 2))

    params = jax.jit(model.init)(KEY)
    expect = jax.jit(model.expect)
    first = models.theta(params)["slope"] * state + 0.1 * action
    np.testing.assert_allclose(expect(params, rows.obs, rows.action)[0][:, 0], first, atol=0.02, err_msg="at first")
    params = trained(model, params, rows, 1000)
    np.testing.assert_allclose(models.theta(params)["slope"], slope, rtol=0.01)
    miss = np.asarray(expect(params, rows.obs, rows.action)[0])[:, 0] - following
    assert np.sqrt(np.mean(miss**2)) < 0.1 * left


def trained(model, params: Params, rows: Transition, updates: int) -> Params:
    """Adam on all rows at once."""
    count = len(rows.reward)
    batch = jax.tree.map(lambda x: x[None], Sequence(rows, jnp.ones(count, bool), jnp.ones(count, bool)))
    optimizer = optax.adam(optax.cosine_decay_schedule(0.02, updates))

    @jax.jit
    def fit(params: Params) -> Params:
        stats = model.set_stats(params, rows, jnp.ones(count, bool)).stats

        def update(carry, _):
            weights, opt = carry
            grads = jax.grad(lambda w: model.loss(KEY, Params(w, stats), batch)[0])(weights)
            change, opt = optimizer.update(grads, opt, weights)
            return (optax.apply_updates(weights, change), opt), None

        (weights, _), _ = jax.lax.scan(update, (params.weights, optimizer.init(params.weights)), length=updates)
        return Params(weights, stats)

    return fit(params)


def test_shrinkage_is_a_prior_on_the_corrections_weights():
    base = models.equations(LINE, straight, {"slope": Parameter(0.0, 2.0)}, steps=2, estimate_start=False)
    batch = windows(*pairs(20))
    losses = []
    for shrinkage in (0.0, 3.0):
        model = models.residual(base, (4,), shrinkage=shrinkage)
        params = jax.jit(model.init)(KEY)
        losses.append(float(measured(model, batch, 20)(params)[0]))
    total = sum(float(jnp.sum(layer["kernel"] ** 2)) for layer in params.weights["correction"])
    assert losses[1] - losses[0] == pytest.approx(3.0 / 2 * total / 20, rel=1e-3)


# ------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda s, a, theta: jnp.zeros(3), r"f must return the next state, float32\[2\]; got float32\[3\]"),
        (lambda s, a, theta: jnp.zeros(2, jnp.int32), r"float32\[2\]; got int32\[2\]"),
        (lambda s, a, theta: (s, a), "got a tuple"),
        (lambda s, a, theta: s * float(theta["mass"]), "f must be pure JAX"),
    ],
)
def test_equations_of_the_wrong_kind_are_named(f, message):
    with pytest.raises(ValueError, match=message):
        models.equations(PENDULUM, f, KNOWN, to_state=to_state, to_obs=to_obs)


def test_bad_options_are_refused():
    discrete = Spec("line", (1,), Discrete(3), 50)
    assert models.equations(discrete, lambda s, a, theta: s + a, {"x": Parameter(0.0, 1.0)}).members == 0
    cases = [
        ({"to_state": to_state}, "given together"),
        ({"to_state": lambda obs: obs[0], "to_obs": to_obs}, "to_state must return a vector of float32"),
        ({"to_state": to_state, "to_obs": lambda s: s}, r"to_obs must return the observation, float32\[3\]; got"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"termination": "learned"}, "termination must be a function"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            models.equations(PENDULUM, swing, KNOWN, **options)
    parameters = [
        ({}, "at least one name"),
        ({"slope": (0.0, 1.0)}, "must be a Parameter"),
        ({"slope": Parameter(1.0, 0.0)}, "low < high"),
        ({"slope": Parameter(0.0, float("inf"))}, "high of slope must be finite"),
        ({"slope": Parameter(0.0, 1.0, prior_mean=0.5)}, "both prior_mean and prior_std"),
        ({"slope": Parameter(0.0, 1.0, 2.0, 0.1)}, "between its bounds"),
        ({"slope": Parameter(0.0, 1.0, 0.5, 0.0)}, "prior_std of slope must be at least"),
    ]
    for known, message in parameters:
        with pytest.raises(ValueError, match=message):
            models.equations(LINE, line, known)


def test_residual_takes_equations_only():
    base = models.equations(LINE, line, {"slope": Parameter(0.0, 2.0)})
    network = models.deterministic_mlp(LINE, (4,))
    corrected = models.residual(base)
    wrapped = models.with_reward(base, lambda obs, action, next_obs: next_obs[0])
    for wrong in (network, wrapped, corrected):
        with pytest.raises(ValueError, match="made by equations and not be wrapped"):
            models.residual(wrong)
    with pytest.raises(ValueError, match="fit must be one of joint, theta_first"):
        models.residual(base, fit="both")
    with pytest.raises(ValueError, match="shrinkage must be at least 0"):
        models.residual(base, shrinkage=-1.0)
    with pytest.raises(ValueError, match="made by equations"):
        models.theta(network.init(KEY))
