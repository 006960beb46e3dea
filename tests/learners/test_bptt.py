"""Derivatives through time against numbers from elsewhere: differences in NumPy, the paper's recursion, by hand."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import learners
from jmbrl.learners import World
from jmbrl.types import Continuous, Discrete, Outcome, Sequence, Transition

KEY = jax.random.key(0)
BOX = Continuous((-1.0,), (1.0,))
STARTS = jnp.asarray([[0.4], [-0.9], [1.3]])
GAMMA, DRAG = 0.9, 0.8


def outcome(reward, discount):
    return Outcome(reward, discount, jnp.zeros((*reward.shape, 0)), jnp.zeros(reward.shape, bool))


def world():
    """x' = 0.8 x + a - 0.1 x^3, reward -(x'^2 + 0.1 a^2); it goes on with chance 0.95."""

    def step_many(key, x, a):
        x = DRAG * x + a - 0.1 * x**3
        reward = -jnp.sum(x**2 + 0.1 * a**2, axis=-1)
        return x, outcome(reward, jnp.full(reward.shape, 0.95))

    return World(step_many, lambda x: x)


def linear(**settings):
    """A policy of one gain and one bias, deterministic: a = tanh(k x + b)."""
    return learners.bptt(BOX, 1, hidden=(), stochastic=False, gamma=GAMMA, **settings)


def with_gain(learner, gain, bias):
    state = learner.init(KEY)
    dense = {"kernel": jnp.asarray([[gain, 0.0]]), "bias": jnp.asarray([bias, 0.0])}
    return state._replace(policy={"params": {"Dense_0": dense}})


def slope_of(learner, state, starts=STARTS):
    def mean(policy):
        return jnp.mean(learner.returns(KEY, policy, state.slow, world(), starts)[0])

    slope = jax.jit(jax.grad(mean))(state.policy)["params"]["Dense_0"]
    return np.asarray([slope["kernel"][0, 0], slope["bias"][0]], float)


def rolled(gain, bias, horizon, cut=None, seen=None):
    """The return in float64; with ``cut``, the state is set to the one in ``seen`` every so many steps."""
    x, total, weight = np.asarray(STARTS[:, 0], float), 0.0, 1.0
    for t in range(horizon):
        a = np.tanh(gain * x + bias)
        following = DRAG * x + a - 0.1 * x**3
        total = total - weight * (following**2 + 0.1 * a**2)
        weight *= GAMMA * 0.95
        x = following
        if cut is not None and (t + 1) % cut == 0:
            x = seen[t + 1]
    return np.mean(total)


def visited(gain, bias, horizon):
    x, seen = np.asarray(STARTS[:, 0], float), []
    for _ in range(horizon + 1):
        seen.append(x)
        x = DRAG * x + np.tanh(gain * x + bias) - 0.1 * x**3
    return seen


@pytest.mark.parametrize(("cut", "rematerialise"), [(None, False), (None, True), (1, False), (2, True)])
def test_the_slope_of_the_return_is_that_of_differences(cut, rematerialise):
    """With ``truncation`` the derivative is that of a return whose states are given anew every so many steps."""
    horizon, gain, bias, h = 6, -0.7, 0.2, 1e-6
    learner = linear(horizon=horizon, truncation=cut, rematerialise=rematerialise)
    ahead = {"cut": cut, "seen": visited(gain, bias, horizon)}
    wanted = [
        (rolled(gain + h, bias, horizon, **ahead) - rolled(gain - h, bias, horizon, **ahead)) / (2 * h),
        (rolled(gain, bias + h, horizon, **ahead) - rolled(gain, bias - h, horizon, **ahead)) / (2 * h),
    ]
    state = with_gain(learner, gain, bias)
    np.testing.assert_allclose(slope_of(learner, state), wanted, rtol=2e-4)
    total = jnp.mean(learner.returns(KEY, state.policy, state.slow, world(), STARTS)[0])
    np.testing.assert_allclose(total, rolled(gain, bias, horizon), rtol=1e-5)


def test_a_terminal_value_is_worth_what_is_left_of_it():
    learner = linear(horizon=3, terminal_value=True)
    state = with_gain(learner, -0.5, 0.0)
    value = jax.tree.map(jnp.zeros_like, state.slow)
    value["out"]["bias"] = jnp.asarray([2.0])  # V = 2 everywhere
    without = learner.returns(KEY, state.policy, jax.tree.map(jnp.zeros_like, value), world(), STARTS)[0]
    with_it = learner.returns(KEY, state.policy, value, world(), STARTS)[0]
    np.testing.assert_allclose(with_it - without, 2.0 * (GAMMA * 0.95) ** 3, rtol=1e-5)


def test_one_update_moves_the_value_to_the_lambda_return_and_the_slow_one_after_it():
    """lambda 1, V = 0: the targets are the discounted rewards left; the loss weighs a row by how likely it happens."""
    learner = linear(horizon=2, terminal_value=True, lam=1.0, slow_rate=0.5, learning_rate=0.0)
    state = with_gain(learner, 0.0, 0.0)  # a = 0
    after, info = learner.update(KEY, state, world(), STARTS)
    x = np.asarray(STARTS[:, 0], float)
    first = DRAG * x - 0.1 * x**3
    second = DRAG * first - 0.1 * first**3
    left = [-(first**2) - GAMMA * 0.95 * second**2, -(second**2)]
    wanted = np.mean([0.5 * left[0] ** 2, GAMMA * 0.95 * 0.5 * left[1] ** 2])
    np.testing.assert_allclose(info["value_loss"], wanted, rtol=1e-4)
    assert after.value["out"]["bias"][0] < 0
    np.testing.assert_allclose(after.slow["out"]["bias"], 0.5 * after.value["out"]["bias"], rtol=1e-5)
    assert info["skipped"] == 0


def test_the_noise_of_an_action_makes_it_again():
    """Features of step t and row n, whatever is done."""
    learner = learners.bptt(BOX, 2, hidden=(8,), initial_std=0.7, horizon=5)
    state = learner.init(KEY)
    x = jax.random.normal(KEY, (6, 4, 2))
    actions = jnp.linspace(-0.99, 0.99, 20).reshape(5, 4, 1)
    record = learner.record(state.policy, state.policy, x[:5], actions)
    np.testing.assert_array_equal(record.weight, np.ones((5, 4)))  # by the policy that took them

    def step_many(key, belief, a):
        return (belief[0] + 1, belief[1]), outcome(jnp.zeros(4), jnp.ones(4))

    shown = World(step_many, lambda belief: x[belief[0], belief[1]])
    starts = jnp.zeros(4, jnp.int32), jnp.arange(4)
    _, path = learner.returns(KEY, state.policy, (), shown, starts, record)
    np.testing.assert_allclose(path.actions, actions, atol=1e-5)


def test_the_slope_along_real_rows_is_the_papers_recursion():
    r"""Heess et al. 2015, equations 10 and 11, in NumPy: the model's derivatives at real states, real rewards.

    :math:`v_s = r_s + r_a \pi_s + \gamma v'_s (f_s + f_a \pi_s)`,
    :math:`v_\theta = r_a \pi_\theta + \gamma (v'_s f_a \pi_\theta + v'_\theta)`. Window 0 is whole; window 1 ends
    with its episode after row 1.
    """
    horizon, gain, bias = 4, -0.6, 0.1
    rng = np.random.default_rng(0)
    states = rng.normal(size=(2, horizon + 1))
    actions = rng.uniform(-0.9, 0.9, (2, horizon))
    rewards = rng.normal(size=(2, horizon))
    is_first = np.asarray([[True, False, False, False], [False, False, True, False]])
    flags = jnp.zeros((2, horizon), bool)
    column = lambda x: jnp.asarray(x, jnp.float32)[..., None]  # noqa: E731
    rows = Transition(column(states[:, :-1]), column(actions), jnp.asarray(rewards, jnp.float32),
                      column(states[:, 1:]), flags, flags)  # fmt: skip
    sequence = Sequence(rows, jnp.asarray(is_first), ~flags)

    def expect(params, x, a):
        x = DRAG * x + a - 0.1 * x**3
        return x, outcome(-jnp.sum(x**2 + 0.1 * a**2, axis=-1), jnp.ones(len(x)))

    model = SimpleNamespace(expect=expect)
    real = learners.recorded(model, None, sequence, rows.obs, rows.next_obs, lambda x: x)
    learner = learners.bptt(BOX, 1, hidden=(), gamma=GAMMA, horizon=horizon, initial_std=0.4)
    state = with_gain(learner, gain, bias)
    record = learner.record(state.policy, state.policy, real.features, real.actions)

    def total(policy):
        returns, path = learner.returns(KEY, policy, (), real.world, real.starts, record)
        return jnp.sum(returns), (returns, path)

    slope, (returns, path) = jax.grad(total, has_aux=True)(state.policy)
    lengths = (4, 2)
    for n, length in enumerate(lengths):
        np.testing.assert_allclose(path.features[: length + 1, n, 0], states[n, : length + 1], atol=1e-4)
        wanted = sum(GAMMA**t * rewards[n, t] for t in range(length))
        np.testing.assert_allclose(returns[n], wanted, rtol=1e-4)
    wanted = np.zeros(2)
    for n, length in enumerate(lengths):
        v_s, v_theta = 0.0, np.zeros(2)
        for t in reversed(range(length)):
            s, a = states[n, t], actions[n, t]
            f, f_s, f_a = DRAG * s + a - 0.1 * s**3, DRAG - 0.3 * s**2, 1.0
            r_s, r_a = -2 * f * f_s, -2 * f * f_a - 0.2 * a
            squash = 1 - a**2
            pi_s, pi_theta = squash * gain, squash * np.asarray([s, 1.0])
            v_theta = r_a * pi_theta + GAMMA * (v_s * f_a * pi_theta + v_theta)
            v_s = r_s + r_a * pi_s + GAMMA * v_s * (f_s + f_a * pi_s)
        wanted += v_theta
    dense = slope["params"]["Dense_0"]
    np.testing.assert_allclose([dense["kernel"][0, 0], dense["bias"][0]], wanted, rtol=1e-3)


def test_actions_that_grew_unlikely_count_less_and_all_after_them():
    """One step twice, a = 0 of a policy of mean 0 and spread 0.5: a mean of 1 makes it exp(-2) as likely; rewards are
    -1, two steps, no discount."""
    learner = learners.bptt(BOX, 1, hidden=(), gamma=1.0, horizon=2, initial_std=0.5)
    old, now = with_gain(learner, 0.0, 0.0).policy, with_gain(learner, 0.0, 1.0).policy
    x = jnp.zeros((2, 3, 1))
    record = learner.record(now, old, x, jnp.zeros((2, 3, 1)))
    np.testing.assert_allclose(record.weight, np.full((2, 3), np.exp(-2.0)), rtol=1e-5)
    np.testing.assert_allclose(learner.record(old, now, x, jnp.zeros((2, 3, 1))).weight, np.ones((2, 3)))
    paid = World(lambda key, b, a: (b, outcome(-jnp.ones(3), jnp.ones(3))), lambda b: b)
    total, path = learner.returns(KEY, now, (), paid, jnp.zeros((3, 1)), record)
    np.testing.assert_allclose(total, -np.exp(-2.0) - np.exp(-4.0) * np.ones(3), rtol=1e-5)
    np.testing.assert_allclose(path.actions, np.zeros((2, 3, 1)), atol=1e-6)


def test_a_trajectory_that_breaks_ends_there_and_leaves_the_others_their_slope():
    """Row 2, which alone begins beyond 1, breaks at once: it is worth nothing, and the others what they were."""
    learner = linear(horizon=4)
    state = with_gain(learner, -0.3, 0.0)

    def breaks(key, x, a):
        following, seen = world().step_many(key, x, a)
        return jnp.where(x > 1.0, jnp.nan, following), seen

    def total(policy):
        returns, path = learner.returns(KEY, policy, (), World(breaks, lambda x: x), STARTS)
        return jnp.sum(returns), (returns, path)

    slope, (returns, path) = jax.grad(total, has_aux=True)(state.policy)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(slope))
    whole = learner.returns(KEY, state.policy, (), world(), STARTS)[0]
    np.testing.assert_allclose(returns, [*whole[:2], 0.0], rtol=1e-6)
    np.testing.assert_array_equal(path.outcome.clipped[0], [False, False, True])


def test_a_model_without_an_expectation_has_no_noise_to_infer():
    with pytest.raises(ValueError, match="recorded needs a model with expect"):
        learners.recorded(SimpleNamespace(expect=None), None, None, None, None, None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizon": 0}, "horizon must be at least 1"),
        ({"truncation": 30}, "truncation must be at most 20"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be at least"),
        ({"gamma": 1.5}, "gamma must be at most 1"),
    ],
)
def test_numbers_outside_their_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        learners.bptt(BOX, 3, **settings)


def test_discrete_actions_are_refused():
    with pytest.raises(ValueError, match="bptt"):
        learners.bptt(Discrete(3), 3)
