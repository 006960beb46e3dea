"""Diagnostics against truths from outside: exact, still, biased and over-confident models."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import agents, data, diagnostics, models
from jmbrl.diagnostics.report import fitting_windows, without_pixels
from jmbrl.diagnostics.windows import real_windows
from jmbrl.types import Agent, Model, Outcome, Params, Prediction, Sequence, Transition

from worlds import line

KEY = jax.random.key(0)


def log(episodes=20, length=20, noise=0.0, seed=0):
    """x' = x + a / 2 + noise with random actions, reward -x'^2; every episode starts somewhere else."""
    rng = np.random.default_rng(seed)
    action = rng.uniform(-1, 1, (episodes, length, 1))
    change = 0.5 * action + noise * rng.normal(size=action.shape)
    start = 5.0 * rng.normal(size=(episodes, 1, 1))
    after = start + np.cumsum(change, axis=1)
    before = np.concatenate([start, after[:, :-1]], axis=1)
    last = np.broadcast_to(np.arange(length) == length - 1, (episodes, length))
    flat = lambda x: x.reshape(episodes * length, *x.shape[2:])  # noqa: E731
    reward = -np.sum(after**2, axis=-1)
    return data.from_arrays(*map(flat, (before, action, reward, after, np.zeros_like(last), last)))


def linear(gain=0.5, std=1.0) -> Model:
    """x' = x + gain a + bias, reward -x'^2; the bias is the weight, so that members can differ. Without noise."""

    def step(key, params, belief, action):
        following = belief + gain * action + params.weights
        return following, Outcome(-jnp.sum(following**2), jnp.ones(()), jnp.zeros(0), jnp.zeros((), bool))

    many = jax.vmap(step, in_axes=(None, None, 0, 0))
    return Model(
        init=lambda key: Params(jnp.zeros(1), ()),
        initial=lambda params: jnp.zeros(1),
        encode=lambda key, params, belief, action, obs, is_first: obs,
        step=step,
        step_many=many,
        features=lambda params, belief: belief,
        decode=lambda params, belief: belief,
        loss=None,
        set_stats=lambda params, rows, mask: params,
        predict=lambda params, x, a: Prediction(x + gain * a + params.weights, jnp.full(1, std), 0.0, 0.0),
        expect=lambda params, beliefs, actions: many(None, params, beliefs, actions),
    )


def biased(bias):
    return Params(jnp.full(1, bias), ())


# ------------------------------------------------------------------------------------ model error


def test_the_true_model_has_no_error_and_the_baseline_has_its_own():
    error = diagnostics.model_error(KEY, linear(), biased(0.0), log(), horizon=8, windows=64)
    np.testing.assert_allclose(error["rmse"], np.zeros(8), atol=1e-5)
    np.testing.assert_allclose(error["reward_rmse"], np.zeros(8), atol=1e-3)  # of rewards near -50
    # Sums of k uniform steps of variance 1/12: sqrt(k / 12), 64 windows.
    np.testing.assert_allclose(error["persistence"] * error["scale"][0], np.sqrt(np.arange(1, 9) / 12), rtol=0.3)
    assert error["count"].tolist() == [64] * 8
    assert "disagreement" not in error


def test_a_model_that_says_nothing_changes_is_the_baseline():
    error = diagnostics.model_error(KEY, linear(gain=0.0), biased(0.0), log(), horizon=8, windows=64)
    np.testing.assert_array_equal(error["rmse"], error["persistence"])


def test_a_constant_bias_adds_up_step_by_step():
    error = diagnostics.model_error(KEY, linear(), biased(0.1), log(), horizon=8, windows=64)
    np.testing.assert_allclose(error["rmse"] * error["scale"][0], 0.1 * np.arange(1, 9), rtol=1e-3)
    np.testing.assert_allclose(error["per_dim"][:, 0], error["rmse"], rtol=1e-6)


def test_members_that_err_to_both_sides_disagree_and_their_mean_is_right():
    model = models.ensemble(linear(), 2)
    params = model.init(KEY)._replace(weights=jnp.asarray([[0.1], [-0.1]]))
    error = diagnostics.model_error(KEY, model, params, log(), horizon=5, windows=32)
    np.testing.assert_allclose(error["rmse"], np.zeros(5), atol=1e-5)
    np.testing.assert_allclose(error["disagreement"] * error["scale"][0], 0.1 * np.arange(1, 6), rtol=1e-3)


def test_no_window_reaches_into_the_next_episode():
    """Episodes of 6 steps, horizon 9: beyond 6 there is no truth, and up to 6 the true model stays right."""
    error = diagnostics.model_error(KEY, linear(), biased(0.0), log(40, 6), horizon=9, windows=128)
    np.testing.assert_allclose(error["rmse"][:6], np.zeros(6), atol=1e-5)
    assert np.isnan(error["rmse"][6:]).all()
    assert error["count"][5] > 0
    assert error["count"][6:].tolist() == [0, 0, 0]


def test_windows_with_a_broken_row_stop_there():
    replay = log(1, 10)
    replay = replay._replace(valid=replay.valid.at[4].set(False))
    rows = jax.tree.map(lambda x: x[None, :, 0], replay.data)
    windows = Sequence(rows, jnp.zeros((1, 10), bool), replay.valid[None, :, 0])
    _, alive = real_windows(KEY, windows, 8, 1)
    np.testing.assert_array_equal(alive[:, 0], [True] * 4 + [False] * 4)


def test_a_model_that_must_watch_first_gets_its_context():
    """Constant velocity: the belief is (position, velocity), and one observation does not show the velocity."""
    time = np.arange(12, dtype=np.float32)
    speed = np.linspace(-1, 1, 16, dtype=np.float32)[:, None]
    x = (speed * time)[..., None]
    flags = jnp.zeros((16, 11), bool)
    still, nothing = jnp.zeros((16, 11, 1)), jnp.zeros((16, 11))
    rows = Transition(jnp.asarray(x[:, :-1]), still, nothing, jnp.asarray(x[:, 1:]), flags, flags)
    source = Sequence(rows, flags.at[:, 0].set(True), ~flags)

    def encode(key, params, belief, action, obs, is_first):
        return jnp.concatenate([obs, jnp.where(is_first, 0.0, obs - belief[:1])])

    def step(key, params, belief, action):
        outcome = Outcome(jnp.zeros(()), jnp.ones(()), jnp.zeros(0), jnp.zeros((), bool))
        return jnp.stack([belief[0] + belief[1], belief[1]]), outcome

    model = linear()._replace(
        initial=lambda params: jnp.zeros(2),
        encode=encode,
        step_many=jax.vmap(step, in_axes=(None, None, 0, 0)),
        decode=lambda params, belief: belief[:1],
        expect=None,
    )
    seen_once = diagnostics.model_error(KEY, model, biased(0.0), source, horizon=5, context=1)
    seen_twice = diagnostics.model_error(KEY, model, biased(0.0), source, horizon=5, context=2)
    np.testing.assert_allclose(seen_twice["rmse"], np.zeros(5), atol=1e-5)
    np.testing.assert_array_equal(seen_once["rmse"], seen_once["persistence"])
    with pytest.raises(ValueError, match="sequences must have at least 12 rows for this horizon and context, got 11"):
        diagnostics.model_error(KEY, model, biased(0.0), source, horizon=11, context=2)


def test_a_horizon_of_zero_is_refused():
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        diagnostics.model_error(KEY, linear(), biased(0.0), log(), horizon=0)


# ------------------------------------------------------------------------------------ calibration


def test_the_exact_gaussian_covers_what_it_says_and_half_its_width_does_not():
    noisy = log(100, 20, noise=0.3)
    exact = diagnostics.calibration(KEY, linear(std=0.3), biased(0.0), noisy, rows=2000)
    np.testing.assert_allclose(exact["coverage"], exact["nominal"], atol=0.045)  # 4 standard errors of 2000 rows
    np.testing.assert_allclose(exact["z_rms"], 1.0, atol=0.07)
    proud = diagnostics.calibration(KEY, linear(std=0.15), biased(0.0), noisy, rows=2000)
    # P(|z| <= q / 2) for q of 50, 80 and 95 %: tables of the normal distribution.
    np.testing.assert_allclose(proud["coverage"], [0.264, 0.478, 0.673], atol=0.045)
    np.testing.assert_allclose(proud["z_rms"], 2.0, atol=0.14)


def test_a_model_without_predictions_has_no_calibration():
    with pytest.raises(ValueError, match="model must have predict"):
        diagnostics.calibration(KEY, linear()._replace(predict=None), biased(0.0), log())


# ------------------------------------------------------------------------- latency and the report


def test_latency_is_ordered_and_its_rate_is_its_slowest():
    found = diagnostics.latency(lambda x: jnp.sin(x).sum(), jnp.ones(10), calls=20)
    assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"]
    np.testing.assert_allclose(found["rate_hz"], 1e3 / found["p99_ms"])


def test_keeping_up_is_judged_by_the_slowest_of_a_hundred():
    found = {"p50_ms": 1.0, "p99_ms": 51.0}
    assert diagnostics.keeps_up(found, 0.05) == {"needed_hz": 20.0, "keeps_up": False}
    assert diagnostics.keeps_up(found, 0.051)["keeps_up"] is True
    assert diagnostics.keeps_up(found, None) == {"needed_hz": None, "keeps_up": None}
    with pytest.raises(ValueError, match=r"dt must be at least 1e-09, got 0.0"):
        diagnostics.keeps_up(found, 0.0)


def test_images_are_looked_at_in_fewer_windows():
    assert fitting_windows((4,), 26) >= 256
    assert fitting_windows((64, 64, 3), 30) == 8
    assert fitting_windows((), 1) == 2**21


def test_an_agent_is_diagnosed_on_fresh_episodes():
    # The best controller of the line, by hand.
    act = lambda key, state, carry, obs, is_first, explore: (jnp.clip(-2 * obs, -1, 1), carry, {})  # noqa: E731
    nothing = jnp.zeros(())
    model = models.ensemble(linear(), 2)
    params = model.init(KEY)._replace(weights=jnp.asarray([[0.1], [-0.1]]))
    agent = Agent(lambda key, n: nothing, lambda s: s, act, None, model=model, params=lambda s: params)
    env, state = line(), nothing
    env = env._replace(spec=dataclasses.replace(env.spec, dt=1e4))  # seconds
    numbers, figure = diagnostics.diagnose_agent(env, agent, state, KEY, episodes=3, windows=16, calls=3)
    assert numbers["horizon"] == 20
    assert json.loads(json.dumps(numbers)) == numbers
    np.testing.assert_allclose(numbers["model_error"]["rmse"], np.zeros(20), atol=1e-4)
    assert numbers["calibration"]["coverage"] == [1.0, 1.0, 1.0]
    # What is seen lies between particles that drift apart by 0.1 a step to both sides; of the variance 1 is noise.
    assert np.shape(numbers["calibration_by_horizon"]["coverage"]) == (20, 3)
    assert numbers["calibration_by_horizon"]["coverage"][0] == [1.0, 1.0, 1.0]
    np.testing.assert_allclose(numbers["variance_shares"]["epistemic_share"], [0.01 / 1.01], rtol=1e-4)
    assert numbers["recalibration"][0] < 1e-3
    assert numbers["act_latency"]["keeps_up"] is True
    assert -0.25 <= numbers["episode_return"] <= 0.0  # at most (1 - 1/2)^2 is lost
    assert len(figure.axes) == 9
    assert "keeps up at 0.0001 Hz" in figure.axes[2].get_title()
    with pytest.raises(ValueError, match="agent must have a model"):
        diagnostics.diagnose_agent(env, agents.SYSTEMS["random"].make(env), jnp.zeros(()), KEY)


@pytest.mark.filterwarnings("ignore:the policy was not exported")  # not what is tested here
def test_a_run_on_disk_is_diagnosed(tmp_path):
    """Through the true simulator, whose observations carry the state: its error is exactly zero."""
    from jmbrl import configs, runner

    settings = ["horizon=3", "population=8", "elites=2", "iterations=1"]
    config = configs.make("gt_cem", "gymnax:Pendulum-v1", steps=10, settings=settings)
    built = configs.build(config)
    runner.run(built.train, 0, tmp_path, config=config, options=runner.Options(quiet=True))
    numbers = diagnostics.diagnose(tmp_path, episodes=2, windows=16, calls=3, horizon=10)
    np.testing.assert_allclose(numbers["model_error"]["rmse"], np.zeros(10), atol=1e-4)
    assert numbers["model_error"]["persistence"][-1] > 0.1
    for absent in ("calibration", "recalibration", "variance_shares"):
        assert numbers[absent] is None
    # Two programs of one simulator: its particles are all equal, and right but for rounding.
    np.testing.assert_allclose(numbers["calibration_by_horizon"]["spread"], np.zeros(10), atol=1e-6)
    assert (numbers["system"], numbers["env_steps"]) == ("gt_cem", 10)
    saved = json.loads((tmp_path / "diagnostics.json").read_text())
    assert saved["model_error"]["count"] == numbers["model_error"]["count"]
    assert (tmp_path / "diagnostics.png").read_bytes().startswith(b"\x89PNG")


def test_of_images_no_number_a_pixel_is_told():
    told = {"model_error": {"rmse": [1.0], "per_dim": [[0.0] * 900], "scale": [0.0] * 900}, "calibration": None, "n": 3}
    assert without_pixels(told) == {"model_error": {"rmse": [1.0]}, "calibration": None, "n": 3}
