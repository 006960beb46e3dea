"""Latent diagnostics against truths from outside: an exact model, policy and critic, and numbers by hand."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import agents, data, diagnostics, runner
from jmbrl.cli import main
from jmbrl.data import Frames
from jmbrl.diagnostics.latent import place_in_episode, whole
from jmbrl.diagnostics.latent_figures import difference
from jmbrl.networks import Normal, OneHotLatents
from jmbrl.types import Agent, Critic, Model, Outcome, Params, Watched

from worlds import picture_line

KEY = jax.random.key(0)
GAMMA, LENGTHS, CONTEXT = 0.5, (12, 9, 12), 2


def log(shift=0):
    """x' = x + a / 2 under a = -0.4 x, so that x' = 0.8 x, and reward -x'^2; the second episode ends for good."""
    x = [start * 0.8 ** np.arange(n + 1) for start, n in zip((5.0, -3.0, 4.0), LENGTHS, strict=True)]
    before, after = (np.concatenate([y[cut] for y in x])[:, None] for cut in (slice(-1), slice(1, None)))
    last = np.cumsum(LENGTHS) - 1
    ended, cut = np.arange(len(before)) == last[1], np.isin(np.arange(len(before)), last[[0, 2]])
    action = np.roll(-0.4 * before, shift, axis=0)
    return data.from_arrays(before, action, -(after[:, 0] ** 2), after, ended, cut)


def exact(says=1.0) -> Model:
    """The world of ``log``; the belief is x. What its one latent carries is 1/2 nat."""

    def step_many(key, params, beliefs, actions):
        reached = beliefs + 0.5 * actions
        count = len(beliefs)
        return reached, Outcome(-(reached[:, 0] ** 2), jnp.full(count, says), jnp.zeros((count, 0)), reached[:, 0] > 99)

    def watch(key, params, frames, context=None):
        one = jnp.ones_like(frames.obs)
        return Watched(frames.obs, Normal(one, one), Normal(0 * one, one), frames, {}, {})

    return Model(
        init=lambda key: Params((), ()),
        initial=lambda params: jnp.zeros(1),
        encode=lambda key, params, belief, action, obs, is_first: obs,
        step=None,
        step_many=step_many,
        features=lambda params, belief: belief,
        decode=lambda params, belief: belief,
        loss=None,
        set_stats=lambda params, rows, mask: params,
        watch=watch,
    )


def agent_of(model, critic=True):
    worth = -0.64 / (1 - 0.64 * GAMMA)  # V(x) = worth x^2 solves V(x) = -(0.8 x)^2 + gamma V(0.8 x)
    judge = Critic(
        act=lambda key, state, x: -0.4 * x,
        value=lambda state, x: worth * x[:, 0] ** 2,
        gamma=GAMMA,
        lam=0.3,
        horizon=3,
    )
    return Agent(None, None, None, None, model=model, params=lambda state: state, critic=judge if critic else None)


def episodes():
    """The frames that two frames pushed in by later episodes leave, in NumPy."""
    x = [start * 0.8 ** np.arange(n + 1) for start, n in zip((5.0, -3.0, 4.0), LENGTHS, strict=True)]
    return [x[0], x[1], x[2][:-2]]


# -------------------------------------------------------------------------------- the exact model


def test_the_exact_model_critic_and_policy_have_no_error():
    report = diagnostics.diagnose_latent(KEY, agent_of(exact()), Params((), ()), log(), horizon=6, context=CONTEXT)
    numbers, left = report.numbers, episodes()
    np.testing.assert_allclose(numbers["open_loop"]["model"], np.zeros(6), atol=1e-6)
    np.testing.assert_allclose(numbers["open_loop"]["posterior"], np.zeros(6), atol=1e-6)
    scale = np.concatenate(left).std()
    for h in range(1, 7):
        change = np.concatenate([x[1 + h :] - x[1:-h] for x in left])  # the first frame alone is no context
        assert numbers["open_loop"]["count"][h - 1] == len(change)
        still = np.sqrt(np.mean(change**2)) / scale
        np.testing.assert_allclose(numbers["open_loop"]["constant"][h - 1], still, rtol=1e-4)
    for kind in ("one_step", "open_loop"):
        assert numbers["reward"][kind]["mse"] < 1e-9
        assert numbers["reward"][kind]["r2"] == pytest.approx(1.0)
    assert numbers["reward"]["one_step"]["count"].sum() == sum(len(x) - 1 for x in left)
    assert (numbers["ends"], numbers["continuation"]) == (1, None)
    assert (numbers["kl"]["active"], numbers["kl"]["total"]) == (1, pytest.approx(0.5))

    returns = numbers["returns"]
    # The second episode ended for good where the exact value goes on: its last rewards are less than promised.
    going = report.points.bootstrap > 0
    assert (~going).sum() == LENGTHS[1]
    np.testing.assert_allclose(report.points.value[going], report.points.real[going], rtol=1e-4)
    np.testing.assert_allclose(report.points.imagined, report.points.value, rtol=1e-4)
    assert returns["count"] == sum(len(x) - 1 for x in left)
    assert returns["value_correlation"] == pytest.approx(1, abs=1e-2)
    x, n = left[1], LENGTHS[1]
    byhand = [-sum(GAMMA**k * x[t + 1 + k] ** 2 for k in range(n - t)) for t in range(n)]
    np.testing.assert_allclose(report.points.real[~going], byhand, rtol=1e-4)

    film = report.film
    np.testing.assert_allclose(film.model[film.alive], film.real[film.alive], atol=1e-5)
    order = np.argsort(-film.real[:, 0, 0])
    for episode, x in zip(film.real[order], (left[0], left[2], left[1]), strict=True):
        np.testing.assert_allclose(episode[:, 0], x[: CONTEXT + 6], rtol=1e-6)


def test_actions_one_step_off_are_seen_and_ends_are_reckoned():
    agent = agent_of(exact(says=0.8), critic=False)
    report = diagnostics.diagnose_latent(KEY, agent, Params((), ()), log(shift=1), horizon=6, context=CONTEXT)
    assert np.all(report.numbers["open_loop"]["model"] > 0.01)
    assert report.numbers["returns"] is None
    found, count = report.numbers["continuation"]["one_step"], sum(len(x) - 1 for x in episodes())
    np.testing.assert_allclose(found["predicted"], [0.8], rtol=1e-6)
    np.testing.assert_allclose(found["real"], [1 - 1 / count], rtol=1e-6)
    assert found["at_ends"] == pytest.approx(0.8)


def test_a_model_that_does_not_filter_is_refused():
    with pytest.raises(ValueError, match="agent must have a model that filters sequences"):
        diagnostics.diagnose_latent(KEY, agent_of(exact()._replace(watch=None)), Params((), ()), log())
    with pytest.raises(ValueError, match="context must be at least 1, got 0"):
        diagnostics.diagnose_latent(KEY, agent_of(exact()), Params((), ()), log(), context=0)


def test_frames_know_their_place():
    frames = whole(log())
    age, room = (np.asarray(x)[0] for x in place_in_episode(frames))
    assert age.tolist() == [*range(13), *range(10), *range(11)]
    assert room.tolist() == [*range(12, -1, -1), *range(9, -1, -1), *range(10, -1, -1)]
    broken = frames._replace(mask=frames.mask.at[0, 5].set(False))
    assert np.asarray(place_in_episode(broken)[1])[0, :5].tolist() == [4, 3, 2, 1, 0]


# ------------------------------------------------------------------------------- numbers by hand


def test_divergence_of_each_latent():
    posterior = Normal(jnp.asarray([[1.0, 0.0]]), jnp.asarray([[1.0, 2.0]]))
    prior = Normal(jnp.zeros((1, 2)), jnp.ones((1, 2)))
    # (mean^2) / 2; (4 - 1) / 2 - ln 2
    np.testing.assert_allclose(diagnostics.kl_per_latent(posterior, prior), [[0.5, 0.806853]], rtol=1e-5)
    two = OneHotLatents(jnp.log(jnp.asarray([[0.5, 0.5], [0.25, 0.75]])))
    other = OneHotLatents(jnp.log(jnp.asarray([[0.25, 0.75], [0.25, 0.75]])))
    # (ln 2 + ln(2 / 3)) / 2; nothing
    np.testing.assert_allclose(diagnostics.kl_per_latent(two, other), [0.143841, 0.0], atol=1e-6)
    with pytest.raises(ValueError, match="posterior must be a Normal or OneHotLatents, got float"):
        diagnostics.kl_per_latent(1.0, 1.0)


def test_rewards_in_bins_of_equal_count():
    predicted, real = np.asarray([3.0, 1.0, 2.0, 4.0, 5.0]), np.asarray([0.0, 1.0, 4.0, 4.0, 6.0])
    found = diagnostics.reward_calibration(predicted, real, bins=2)
    np.testing.assert_allclose(found["predicted"], [2.0, 4.5])
    np.testing.assert_allclose(found["real"], [5 / 3, 5.0])
    assert found["count"].tolist() == [3, 2]
    # Errors 3, 0, -2, 0, -1; the variance is (9 + 4 + 1 + 1 + 9) / 5.
    assert (found["mse"], found["bias"]) == (pytest.approx(2.8), pytest.approx(0.0))
    assert found["r2"] == pytest.approx(1 - 2.8 / 4.8)
    assert np.isnan(diagnostics.reward_calibration(predicted, np.ones(5))["r2"])
    with pytest.raises(ValueError, match="bins must be at least 1, got 0"):
        diagnostics.reward_calibration(predicted, real, bins=0)


def test_ends_in_bins_of_equal_width():
    predicted, ended = np.asarray([0.1, 0.2, 0.9, 1.0]), np.asarray([True, False, False, False])
    found = diagnostics.continuation_calibration(predicted, ended, bins=4)
    np.testing.assert_allclose(found["predicted"], [0.15, 0.95])
    np.testing.assert_allclose(found["real"], [0.5, 1.0])
    assert found["count"].tolist() == [2, 2]
    assert found["brier"] == pytest.approx((0.01 + 0.64 + 0.01) / 4)
    assert found["brier_constant"] == pytest.approx(3 / 16)
    assert (found["at_ends"], found["elsewhere"]) == (pytest.approx(0.1), pytest.approx(0.7))
    assert np.isnan(diagnostics.continuation_calibration(predicted, np.zeros(4, bool))["at_ends"])


def test_returns_to_go_stop_at_ends_and_count_on_the_critic_at_cuts():
    """Frames 0 to 2 end for good, 3 to 5 by a time limit, 6 and 7 where the data does."""
    flags = lambda *at: jnp.isin(jnp.arange(8), jnp.asarray(at))[None]  # noqa: E731
    reward = jnp.asarray([[0.0, 1.0, 2.0, 0.0, 3.0, 4.0, 0.0, 5.0]])
    frames = Frames(jnp.zeros((1, 8)), jnp.zeros((1, 8)), reward, flags(2), flags(0, 3, 6), jnp.ones((1, 8), bool))
    values = 10.0 + jnp.arange(8.0)[None]
    real, weight, counts = diagnostics.returns_to_go(frames, values, 0.5)
    assert counts[0].tolist() == [True, True, False, True, True, False, True, False]
    kept = np.flatnonzero(counts[0])
    # 1 + 2 / 2; 2; 3 + 4 / 2 + 15 / 4; 4 + 15 / 2; 5 + 17 / 2
    np.testing.assert_allclose(np.asarray(real)[0, kept], [2.0, 2.0, 8.75, 11.5, 13.5])
    np.testing.assert_allclose(np.asarray(weight)[0, kept], [0.0, 0.0, 0.25, 0.5, 0.5])
    doubled = diagnostics.returns_to_go(frames, 2 * values, 0.5, reward_scale=2.0)[0]
    np.testing.assert_allclose(np.asarray(doubled)[0, kept], 2 * np.asarray(real)[0, kept])


def test_a_difference_is_grey_where_there_is_none():
    real, model = np.asarray([0, 255, 100, 101], np.uint8), np.asarray([255, 0, 100, 99], np.uint8)
    assert difference(real, model).tolist() == [255, 0, 128, 127]


# -------------------------------------------------------------------------------------- the command


def test_the_command_writes_a_film_and_a_page(tmp_path, monkeypatch, capsys):
    """Of Dreamer v3 as it is made; how a run is read from its folder is tested with the runner."""
    env = picture_line(max_steps=8)
    config = agents.DreamerV3Config(
        deter=4, stoch=2, classes=3, hidden=8, units=8, blocks=2, batch_size=4, length=5, horizon=3, train_ratio=4.0,
        capacity=8,
    )  # fmt: skip
    agent = agents.dreamer_v3(env, config)
    state = jax.jit(agent.init, static_argnums=1, compiler_options={"xla_backend_optimization_level": 0})(KEY, 1)
    about = {"system": "dreamer_v3", "env": "picture_line"}
    one = lambda seed: SimpleNamespace(agent=state)  # noqa: E731
    opened = SimpleNamespace(env=env, agent=agent, one=one, seeds=[0], config=about, env_steps=0)
    monkeypatch.setattr(runner, "open_run", lambda directory: opened)
    assert main(["diagnose", str(tmp_path)]) == 0
    latent = json.loads(capsys.readouterr().out)["latent"]
    assert len(latent["open_loop"]["model"]) == 4  # frames 5 to 8 of eight steps
    assert latent["open_loop"]["count"] == [16, 12, 8, 4]
    assert len(latent["kl"]["per_latent"]) == 2
    assert latent["ends"] == 0
    assert latent["returns"]["count"] == 32
    assert json.loads((tmp_path / "diagnostics.json").read_text())["latent"] == latent
    assert (tmp_path / "latent.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "open_loop.gif").read_bytes().startswith(b"GIF")
