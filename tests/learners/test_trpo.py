"""TRPO against solved systems, an exact Fisher matrix, a step worked by hand, and worlds whose values are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from learners.on_policy_probes import FAST, GAMMA, assert_probes_are_solved
from learners.probes import BOX, TWO

from jmbrl.learners.natural import conjugate_gradient, curvature, natural_step
from jmbrl.learners.policies import policy, value_net
from jmbrl.learners.trpo import trpo
from jmbrl.networks import Categorical, ClippedNormal, Normal
from jmbrl.types import Continuous, Transition

PLANE = Continuous((-1.0, -1.0), (1.0, 1.0))

# ------------------------------------------------------------------------------- the natural gradient


def test_conjugate_gradient_solves_what_numpy_solves():
    root = np.random.default_rng(0).normal(size=(8, 8))
    matrix, b = root @ root.T + np.eye(8), np.arange(8.0)
    solve = jax.jit(lambda b: conjugate_gradient(lambda v: jnp.asarray(matrix, jnp.float32) @ v, b, 30))
    np.testing.assert_allclose(solve(jnp.asarray(b, jnp.float32)), np.linalg.solve(matrix, b), rtol=1e-3, atol=1e-4)
    # n steps are enough in exact arithmetic, so 2 are for the identity's multiples.
    np.testing.assert_allclose(conjugate_gradient(lambda v: 4.0 * v, jnp.ones(3), 1), [0.25] * 3, rtol=1e-6)
    np.testing.assert_array_equal(conjugate_gradient(lambda v: 4.0 * v, jnp.zeros(3)), [0.0] * 3)


def test_curvature_is_the_fisher_matrix_of_a_gaussian_with_linear_mean():
    r"""mean = W^T x + b, one sigma per dimension: F is E[phi phi^T] / sigma_j^2 for the weights of output j with
    phi = (1, x), and 2 for each log sigma."""
    pi = policy(PLANE, 3, hidden=())
    weights = pi.init(jax.random.key(0))
    weights["log_std"] = jnp.asarray([np.log(0.5), np.log(2.0)], jnp.float32)
    x = jax.random.normal(jax.random.key(1), (40, 3))
    theta, unravel = ravel_pytree(weights)
    old = pi.distribution(weights, x)
    product = curvature(lambda at: jnp.mean(old.kl(pi.distribution(unravel(at), x))), theta, damping=0.1)
    got = np.asarray(jax.jit(jax.vmap(product), compiler_options=FAST)(jnp.eye(theta.size))) - 0.1 * np.eye(theta.size)

    phi = np.concatenate([np.ones((40, 1)), np.asarray(x, np.float64)], axis=1)
    moments = phi.T @ phi / 40
    wanted = np.zeros((theta.size, theta.size))
    place = unravel(jnp.arange(theta.size, dtype=jnp.float32))
    dense = place["net"]["params"]["Dense_0"]
    rows = np.concatenate([np.asarray(dense["bias"])[None], np.asarray(dense["kernel"])]).astype(int)  # [1 + 3, 2]
    for j, sigma in enumerate((0.5, 2.0)):
        wanted[np.ix_(rows[:, j], rows[:, j])] = moments / sigma**2
    for at in np.asarray(place["log_std"]).astype(int):
        wanted[at, at] = 2.0
    np.testing.assert_allclose(got, wanted, atol=2e-4)


def shifted(mean, std=0.5):
    return lambda theta: Normal(jnp.atleast_1d(mean), jnp.full(1, std)).kl(Normal(theta, jnp.full(1, std)))


def test_a_step_of_a_policy_with_one_parameter_by_hand():
    # KL = (theta' - theta)^2 / (2 0.25), so F = 4; g = 3; s = 3 / 4.1; the step is sqrt(2 0.01 / (s 4.1 s)) s
    # = sqrt(0.02 / 4.1) = 0.0698430, whatever the length of g; its KL is 0.0698430^2 / 0.5 = 0.00975610.
    theta, step = natural_step(lambda t: 3.0 * t[0], shifted(0.3), jnp.asarray([0.3]), max_kl=0.01, damping=0.1)
    np.testing.assert_allclose(theta, [0.369843], rtol=1e-5)
    np.testing.assert_allclose(step.kl, 0.00975610, rtol=1e-3)
    np.testing.assert_allclose(step.improvement, 0.209529, rtol=1e-5)
    assert (step.accepted, step.backtracks) == (True, 0)


def test_the_line_search_halves_until_the_objective_rises():
    # -(t - 0.01)^2 rises up to 0.02: from 0 the full step 0.069843 fails, so does its half, a quarter is 0.01746.
    objective = lambda t: -((t[0] - 0.01) ** 2)  # noqa: E731
    theta, step = natural_step(objective, shifted(0.0), jnp.zeros(1), max_kl=0.01, damping=0.1)
    np.testing.assert_allclose(theta, [0.069843 / 4], rtol=1e-4)
    assert (step.accepted, step.backtracks) == (True, 2)


def test_the_line_search_halves_until_the_divergence_is_small():
    # A quartic term that the curvature at 0 does not see: KL = 2 t^2 + 1e4 t^4; steps 0.0707 (2.6e-1), 0.0354 (1.8e-2),
    # 0.0177 (1.6e-3); without slack only the third is within 0.01, with a slack of 2 the second.
    kl = lambda t: 2.0 * t[0] ** 2 + 1e4 * t[0] ** 4  # noqa: E731
    take = lambda slack: natural_step(lambda t: t[0], kl, jnp.zeros(1), damping=0.0, slack=slack)  # noqa: E731
    np.testing.assert_allclose(take(1.0)[0], [0.0707107 / 4], rtol=1e-4)
    np.testing.assert_allclose(take(2.0)[0], [0.0707107 / 2], rtol=1e-4)


@pytest.mark.parametrize("objective", [lambda t: -jnp.abs(t[0] - 0.3), lambda t: jnp.zeros(())])
def test_where_nothing_improves_the_parameters_stay(objective):
    theta, step = natural_step(objective, shifted(0.3), jnp.asarray([0.3]), backtracks=5)
    np.testing.assert_array_equal(theta, jnp.asarray([0.3]))
    assert (step.accepted, step.improvement, step.kl) == (False, 0.0, 0.0)


# --------------------------------------------------------------------------------------- the policy


def test_a_clipped_gaussian_has_all_its_mass_in_the_box():
    """Density inside and masses on the borders add up to one, and a sample's share on a border is that mass."""
    pi = ClippedNormal(jnp.asarray([0.3]), jnp.asarray([0.7]))
    edges = np.linspace(-1, 1, 20001)
    middle = (0.5 * (edges[1:] + edges[:-1]))[:, None].astype(np.float32)
    inside = np.sum(np.exp(jax.vmap(pi.log_prob)(middle))) * (edges[1] - edges[0])
    low, high = (float(jnp.exp(pi.log_prob(jnp.asarray([x])))) for x in (-1.0, 1.0))
    np.testing.assert_allclose([low, high], [0.031645, 0.158655], rtol=1e-3)  # Phi(-1.3/0.7), 1 - Phi(0.7/0.7)
    np.testing.assert_allclose(inside + low + high, 1.0, atol=1e-4)
    samples = jax.vmap(pi.sample)(jax.random.split(jax.random.key(0), 20000))
    np.testing.assert_allclose(np.mean(samples == 1.0), high, atol=4 * 0.4 / np.sqrt(20000))


def test_the_gradient_of_a_clipped_log_probability_is_that_of_the_reward():
    """E[grad log pi(a) a] is d E[a] / d mean = P(-1 < a < 1): the score of clipped actions is unbiased."""
    samples = jax.vmap(ClippedNormal(jnp.asarray([0.3]), jnp.asarray([0.7])).sample)(
        jax.random.split(jax.random.key(1), 40000)
    )
    score = jax.grad(lambda mean: jnp.mean(samples[:, 0] * ClippedNormal(mean, jnp.full(1, 0.7)).log_prob(samples)))
    np.testing.assert_allclose(score(jnp.asarray([0.3])), [1 - 0.031645 - 0.158655], atol=0.02)


def test_far_tails_have_finite_log_probabilities_and_gradients():
    pi = lambda mean: ClippedNormal(mean, jnp.full(1, 1e-3)).log_prob(jnp.ones(1))  # noqa: E731
    value, slope = jax.value_and_grad(pi)(jnp.zeros(1))
    np.testing.assert_allclose(value, -0.5e6, rtol=1e-3)
    assert np.all(np.isfinite(slope))
    assert Categorical(jnp.asarray([0.0, -1e4])).log_prob(jnp.asarray(1)) == -1e4


# ----------------------------------------------------------------------------------------- one update


def data(key, time=16, batch=16, features=2):
    """Rows in which one in ten ends a path and an action earns the more the nearer it is to 0.3."""
    keys = jax.random.split(key, 4)
    action = jnp.clip(jax.random.normal(keys[1], (time, batch, 2)), -1, 1)
    obs, following = (jax.random.normal(key, (time, batch, features)) for key in keys[::3])
    ended = jax.random.bernoulli(keys[2], 0.1, (time, batch))
    return Transition(obs, action, -jnp.sum((action - 0.3) ** 2, axis=-1), following, ended, jnp.zeros_like(ended))


TINY = trpo(PLANE, 2, hidden=(8,), value_hidden=(8,))
init, masked = (jax.jit(f, compiler_options=FAST) for f in (TINY.init, TINY.update))  # one program, with a mask


def update(key, state, rows):
    return masked(key, state, rows, jnp.ones(rows.reward.shape, bool))


def test_a_step_stays_near_and_raises_the_surrogate():
    """The divergence recomputed outside; rewards are the action's alone, so the better one has become likelier."""
    state, rows = init(jax.random.key(0)), data(jax.random.key(1))
    new, info = update(jax.random.key(2), state, rows)
    assert info["accepted"] == 1
    assert info["surrogate"] > 0
    pi = policy(PLANE, 2, hidden=(8,))
    old, now = (pi.distribution(x.policy, rows.obs) for x in (state, new))
    np.testing.assert_allclose(np.mean(old.kl(now)), info["kl"], rtol=1e-2)
    assert 0.002 < info["kl"] < 0.015
    better = jnp.full_like(rows.action, 0.3)
    assert np.mean(now.log_prob(better)) > np.mean(old.log_prob(better))


def test_without_a_gradient_the_policy_stays_and_the_value_is_fitted():
    state, rows = init(jax.random.key(0)), data(jax.random.key(1))
    ones = jnp.ones(rows.reward.shape)
    rows = rows._replace(reward=ones, terminated=ones > 0, obs=0 * rows.obs)
    new, info = update(jax.random.key(2), state, rows)
    jax.tree.map(np.testing.assert_array_equal, new.policy, state.policy)
    assert (info["accepted"], info["updates"], info["skipped"]) == (0, 1, 0)
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (new.baseline, state.baseline)), strict=True))


def test_the_mask_leaves_out_rows_whatever_they_hold():
    state, rows = init(jax.random.key(0)), data(jax.random.key(1))
    mask = jnp.ones(rows.reward.shape, bool).at[3, 1].set(False)
    broken = rows._replace(reward=rows.reward.at[3, 1].set(jnp.nan), obs=rows.obs.at[3, 1].set(jnp.inf))
    (one, info), (other, _) = (masked(jax.random.key(2), state, x, mask) for x in (broken, rows))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert (info["updates"], info["skipped"], info["accepted"]) == (1, 0, 1)
    none, info = masked(jax.random.key(2), state, broken, jnp.zeros_like(mask))
    jax.tree.map(np.testing.assert_array_equal, none, state)
    assert all(info[name] == 0 for name in ("updates", "skipped", "nonfinite_loss", "nonfinite_grad", "accepted"))


def test_the_linear_baseline_knows_the_time_and_nothing_follows_a_finite_horizon():
    """A reward of 1 a step for 10 steps, gamma 1: after one batch the value at time t is 10 - t, the advantage 0."""
    learner = trpo(TWO, 1, hidden=(4,), gamma=1.0, lam=1.0, baseline="linear", bootstrap=False)
    shape = (10, 4)
    zeros = jnp.zeros((*shape, 1))
    end = jnp.zeros(shape, bool).at[-1].set(True)
    rows = Transition(zeros, jnp.zeros(shape, jnp.int32), jnp.ones(shape), zeros, jnp.zeros_like(end), end)
    update = jax.jit(learner.update, compiler_options=FAST)
    state, first = update(jax.random.key(0), learner.init(jax.random.key(0)), rows)
    _, second = update(jax.random.key(0), state, rows)
    assert first["value"] == 0.0
    np.testing.assert_allclose(second["value"], 5.5, rtol=1e-3)
    np.testing.assert_allclose(second["value_loss"], 0.0, atol=1e-4)


# ------------------------------------------------------------------------------- probe worlds

SMALL = {"hidden": (16,), "value_hidden": (16,), "gamma": GAMMA, "max_kl": 0.05, "value_learning_rate": 1e-2}
LEARNERS = {space: trpo(space, 1, **SMALL, value_epochs=20) for space in (TWO, BOX)}


def value_of(state, x):
    return value_net((16,)).apply(state.baseline[0], x)[:, 0]


@pytest.mark.parametrize("space", [TWO, BOX])
def test_the_probes_are_solved(space):
    assert_probes_are_solved(LEARNERS[space], value_of, space)


# ------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": 0}, "features must be at least 1, got 0"),
        ({"gamma": 1.5}, "gamma must be at most 1.0, got 1.5"),
        ({"lam": -0.1}, "lam must be at least 0.0, got -0.1"),
        ({"max_kl": -1.0}, "max_kl must be at least 0.0, got -1.0"),
        ({"hidden": (0,)}, "hidden must be at least 1, got 0"),
        ({"baseline": "quadratic"}, "baseline must be one of network, linear; got 'quadratic'"),
        ({"value_hidden": (0,)}, "value_hidden must be at least 1, got 0"),
        ({"cg_iterations": 0}, "cg_iterations must be at least 1, got 0"),
        ({"initial_std": 0.0}, "initial_std must be at least 0.001, got 0.0"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        trpo(**({"action": BOX, "features": 2} | arguments))


def test_features_of_another_width_are_refused():
    learner, state = TINY, init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"features has shape \(3,\), but trpo says \(2,\)"):
        learner.act(jax.random.key(0), state, jnp.zeros(3), True)
    with pytest.raises(ValueError, match=r"obs has shape \(16, 16, 3\), but trpo \(time, batch, features\) says"):
        learner.update(jax.random.key(0), state, data(jax.random.key(1), features=3))
