"""Policy gradients against quadrature, against each other, and against growth that is known."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import agents, diagnostics, envs, learners
from jmbrl.diagnostics.gradients import mixed
from jmbrl.learners import World
from jmbrl.types import Continuous, Outcome

KEY = jax.random.key(3)
BOX = Continuous((-1.0,), (1.0,))
STD, BIAS, GAIN = 0.6, 0.3, -0.4


def world(drag, pay, goes_on=1.0, look=lambda x: x):
    """x' = drag x + a, and the reward is ``pay`` of the state reached."""

    def step_many(key, x, a):
        x = drag * x + a
        reward = pay(x[:, 0])
        none = jnp.zeros((*reward.shape, 0))
        return x, Outcome(reward, jnp.full(reward.shape, goes_on), none, jnp.zeros(reward.shape, bool))

    return World(step_many, look)


def linear(horizon, **settings):
    """a = tanh(GAIN x + BIAS + STD eps): a kernel [1, 2] and a bias [2], of the mean and of the spread's logarithm."""
    learner = learners.bptt(BOX, 1, hidden=(), initial_std=STD, horizon=horizon, gamma=0.9, **settings)
    state = learner.init(KEY)
    dense = {"kernel": jnp.asarray([[GAIN, 0.0]]), "bias": jnp.asarray([BIAS, 0.0])}
    return learner, state._replace(policy={"params": {"Dense_0": dense}})


def slopes(learner, state, world, beliefs, key=KEY):
    run = jax.jit(lambda k, b: diagnostics.policy_gradients(k, learner, state.policy, state.slow, world, b))
    return run(key, beliefs)


def test_one_step_is_what_quadrature_says():
    """d E[-(x + a)^2] by (bias of mean, bias of log spread, gain of both), a Gaussian through tanh."""
    x, count = 0.5, 40_000
    learner, state = linear(1)
    found = slopes(learner, state, world(1.0, lambda x: -(x**2)), jnp.full((count, 1), x))
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    weights = weights / weights.sum()
    action = np.tanh(GAIN * x + BIAS + STD * nodes)
    inner = -2 * (x + action) * (1 - action**2)
    by_mean, by_log_std = np.sum(weights * inner), np.sum(weights * inner * STD * nodes)
    wanted = [by_mean, by_log_std, x * by_mean, x * by_log_std]  # bias, then kernel
    for name in ("reparameterised", "likelihood_ratio", "mixed"):
        rows = np.asarray(getattr(found, name), float)
        error = rows.std(axis=0, ddof=1) / np.sqrt(count)
        assert np.all(np.abs(rows.mean(axis=0) - wanted) < 4 * error), name
        assert np.all(error < 0.02)


def test_the_estimators_agree_over_several_steps_with_ends_and_a_value():
    """Same expectation, whatever is discounted, ends or is worth something in the end; the spreads differ."""
    learner, state = linear(4, terminal_value=True, reward_scale=0.5)
    starts = jax.random.uniform(jax.random.key(8), (30_000, 1), minval=-1.0)
    found = slopes(learner, state, world(0.8, lambda x: jnp.cos(2 * x), 0.7), starts)
    rows = [np.asarray(x, float) for x in found]
    means, errors = [r.mean(axis=0) for r in rows], [r.std(axis=0, ddof=1) / np.sqrt(len(r)) for r in rows]
    for other in (1, 2):
        assert np.all(np.abs(means[0] - means[other]) < 4 * np.hypot(errors[0], errors[other]))
    assert np.linalg.norm(means[0]) > 20 * np.linalg.norm(errors[0])
    spread = [float(diagnostics.signal(x)["spread"]) for x in found]
    assert spread[2] < 1.02 * min(spread[:2])


def test_actions_at_the_bounds_do_not_bias_the_likelihood_ratio():
    """A mean of 9 and a spread of 0.6 before the squash: every action is 1, none is better than another."""
    learner, state = linear(2)
    dense = {"kernel": jnp.zeros((1, 2)), "bias": jnp.asarray([9.0, 0.0])}
    state = state._replace(policy={"params": {"Dense_0": dense}})
    found = slopes(learner, state, world(1.0, lambda x: x), jnp.linspace(-1.0, 1.0, 512)[:, None])
    assert np.all(np.abs(found.reparameterised) < 1e-3)
    rows = np.asarray(found.likelihood_ratio, float)
    error = rows.std(axis=0, ddof=1) / np.sqrt(len(rows))
    assert np.all(error > 0.01)  # what starts are worth still differs
    assert np.all(np.abs(rows.mean(axis=0)) < 4 * error)


def test_a_truncated_derivative_is_another_one():
    """Cut after each step, only a step's own reward teaches its action: x' = x + a, reward x', two steps, a = BIAS.

    Whole: the first action moves both rewards, 1 + 0.9, the second one 0.9; cut: 1 + 0.9.
    """
    starts = jnp.zeros((4, 1))
    for cut, wanted in ((None, 1 + 2 * 0.9), (1, 1 + 0.9)):
        learner = learners.bptt(BOX, 1, hidden=(), initial_std=1e-4, horizon=2, gamma=0.9, truncation=cut)
        state = learner.init(KEY)
        dense = {"kernel": jnp.zeros((1, 2)), "bias": jnp.asarray([BIAS, 0.0])}
        state = state._replace(policy={"params": {"Dense_0": dense}})
        found = slopes(learner, state, world(1.0, lambda x: x), starts).reparameterised
        np.testing.assert_allclose(found[:, 0], wanted * (1 - np.tanh(BIAS) ** 2), rtol=1e-3)


def test_derivatives_of_an_expanding_world_explode_as_fast_as_it_expands():
    """x' = 1.5 x + a, paid x', unseen: the slope by the bias grows by 1.35 a step (0.9 of that discounted)."""

    def learner_of(horizon):
        return learners.bptt(BOX, 1, hidden=(), initial_std=STD, horizon=horizon, gamma=0.9)

    _, state = linear(1)
    traces = []

    def world_of(drag):
        traces.append(1)
        return world(drag, lambda x: x, look=jnp.zeros_like)

    measure = diagnostics.gradients_by_horizon(learner_of, world_of, (20, 30), batch=16)
    found = measure(KEY, state.policy, state.slow, jnp.float32(1.5), jnp.zeros((64, 1)))
    norms = found["reparameterised"]["norm"]
    assert norms[1] / norms[0] == pytest.approx(1.35**10, rel=0.1)
    assert found["likelihood_ratio"]["snr"][0] < found["reparameterised"]["snr"][0]
    again = measure(KEY, state.policy, state.slow, jnp.float32(1.5), jnp.zeros((64, 1)))
    chex.assert_trees_all_equal(found, again)
    assert len(traces) == 2  # a program a horizon


def test_signal_of_known_rows():
    """Rows 3 +- 1 and 4 +- 0: the mean has length 5, the variance is 4 / 3 (four rows), and (25 - 1/3) the signal."""
    rows = jnp.asarray([[2.0, 4.0], [4.0, 4.0], [2.0, 4.0], [4.0, 4.0]])
    size, spread = np.sqrt(25 - 1 / 3), np.sqrt(4 / 3)
    for scale in (1.0, 1e30):  # whose squares do not fit in float32
        found = diagnostics.signal(scale * rows, batch=9)
        wanted = {"norm": scale * size, "spread": scale * spread, "snr": 3 * size / spread, "broken": 0.0}
        chex.assert_trees_all_close({k: float(found[k]) for k in wanted}, wanted, rtol=1e-5)
        assert float(found["largest"]) == pytest.approx(scale * np.sqrt(32), rel=1e-5)
    broken = diagnostics.signal(jnp.concatenate([rows, jnp.full((4, 2), jnp.nan)]), batch=9)
    assert float(broken["broken"]) == 0.5
    assert float(broken["norm"]) == pytest.approx(size, rel=1e-5)


def test_noise_alone_has_no_signal():
    snr = [float(diagnostics.signal(jax.random.normal(jax.random.key(i), (512, 30)))["snr"]) for i in range(8)]
    assert np.median(snr) < 0.6  # 128 of them: their mean's length is all noise


def test_what_varies_less_counts_more():
    exact, loose = jnp.tile(jnp.asarray([[1.0, -2.0]]), (6, 1)), jax.random.normal(KEY, (6, 2))
    np.testing.assert_allclose(mixed(exact, loose), exact, rtol=1e-6)
    np.testing.assert_allclose(mixed(loose, exact), exact, rtol=1e-6)
    np.testing.assert_allclose(mixed(loose, jnp.full((6, 2), jnp.inf)), loose)


def test_the_horizon_where_noise_begins():
    assert diagnostics.first_noise([1, 2, 4], [5.0, 3.0, 2.0]) == np.inf
    assert diagnostics.first_noise([1, 2, 4], [0.5, 3.0, 2.0]) == 1
    assert diagnostics.first_noise([1, 2, 4], [5.0, 3.0, 0.0]) == 4
    assert diagnostics.first_noise([2, 8], [4.0, 0.25]) == pytest.approx(4.0)
    assert diagnostics.first_noise([2, 8], [np.inf, 0.25]) == 8
    assert diagnostics.first_noise([2, 8], [4.0, np.nan]) == 8


def test_the_landscape_is_the_return_along_a_line():
    learner, state = linear(3)
    along = diagnostics.random_direction(KEY, state.policy)
    assert float(jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(along)))) == pytest.approx(1.0)
    there, starts = world(0.9, lambda x: -(x**2)), jnp.linspace(-1, 1, 6)[:, None]
    reach = jnp.asarray([0.0, 0.5])
    line = jax.jit(lambda k: diagnostics.landscape(k, learner, state.policy, (), there, starts, along, reach))
    far = jax.tree.map(lambda w, d: w + 0.5 * d, state.policy, along)
    wanted = [float(jnp.mean(learner.returns(KEY, p, (), there, starts)[0])) for p in (state.policy, far)]
    np.testing.assert_allclose(line(KEY), wanted, rtol=1e-5)


def test_bad_input_is_refused():
    learner, state = linear(2)
    there = world(1.0, lambda x: x)
    for starts in (jnp.zeros((2, 1)), jnp.zeros((5, 1))):
        with pytest.raises(ValueError, match="beliefs must be an even number of at least 4 starts"):
            diagnostics.policy_gradients(KEY, learner, state.policy, (), there, starts)
    with pytest.raises(ValueError, match="horizons must name at least one"):
        diagnostics.gradients_by_horizon(lambda h: learner, lambda c: there, ())
    with pytest.raises(ValueError, match="horizons must be at least 1, got 0"):
        diagnostics.gradients_by_horizon(lambda h: learner, lambda c: there, (0,))
    with pytest.raises(ValueError, match="batch must be at least 1"):
        diagnostics.signal(jnp.zeros((4, 2)), batch=0)


@pytest.fixture(scope="module")
def climber():
    env = envs.make("gymnax:Pendulum-v1")
    small = {"hidden": (4,), "weight_decay": (0.0, 0.0), "members": 2, "policy_hidden": (3,), "warmup": 4}
    return agents.bptt(env, agents.BPTTConfig(**small, truncation=3, capacity=8))


def test_what_a_run_climbs_is_examined(climber, tmp_path):
    state = climber.init(KEY, 1)
    found = diagnostics.diagnose_gradients(KEY, climber, state, horizons=(1, 4), starts=8, batch=4)
    for name in ("reparameterised", "likelihood_ratio", "mixed"):
        assert found[name]["snr"].shape == found[name]["broken"].shape == (2,)
        assert np.all(found[name]["spread"] > 0)
        assert np.all(found[name]["broken"] == 0)
    lines = found["landscape"]
    middle = len(lines["reach"]) // 2
    assert lines["reach"][middle] == 0
    assert lines["along_gradient"][middle] == pytest.approx(lines["along_random"][middle], rel=1e-6)
    assert lines["along_gradient"][middle + 1] > lines["along_gradient"][middle - 1]  # uphill
    path = diagnostics.save_gradients(tmp_path, found, "title")
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_a_system_without_derivatives_is_refused(climber):
    with pytest.raises(ValueError, match="agent must climb derivatives"):
        diagnostics.diagnose_gradients(KEY, climber._replace(ascent=None), climber.init(KEY, 1))
