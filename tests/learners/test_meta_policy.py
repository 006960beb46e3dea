"""The meta step: an inner step by hand, derivatives against float64, bandits whose answers are known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from learners.on_policy_probes import FAST

from jmbrl.learners import meta_policy
from jmbrl.learners.meta_policy import Rows, adapt, meta_objective
from jmbrl.learners.natural import curvature
from jmbrl.learners.policies import policy
from jmbrl.types import Continuous, Transition

BOX = Continuous((-1.0,), (1.0,))
LINEAR = policy(BOX, 1, hidden=())


def weights_of(slope, bias, log_std):
    dense = {"kernel": jnp.full((1, 1), slope), "bias": jnp.full(1, bias)}
    return {"net": {"params": {"Dense_0": dense}}, "log_std": jnp.full(1, log_std)}


def numbers_of(weights):
    dense = weights["net"]["params"]["Dense_0"]
    return np.asarray([dense["kernel"][..., 0, 0], dense["bias"][..., 0], weights["log_std"][..., 0]])


def test_the_inner_step_by_hand():
    """mean = w x + b at w = b = 0, sigma = 1: the slopes of log pi are a x, a and a^2 - 1, times the advantage."""
    rows = Rows(
        obs=jnp.asarray([[1.0], [2.0], [9.0]]),
        action=jnp.asarray([[0.5], [-0.5], [0.9]]),
        gain=jnp.asarray([1.0, 2.0, 7.0]),
        weight=jnp.asarray([1.0, 1.0, 0.0]),
    )
    new = jax.jit(lambda weights: adapt(LINEAR, weights, rows, 0.1), compiler_options=FAST)(weights_of(0.0, 0.0, 0.0))
    # w: (1/2 - 2) / 2 = -0.75; b: (1/2 - 1) / 2 = -0.25; log sigma: -(3/4 + 2 * 3/4) / 2 = -1.125
    np.testing.assert_allclose(numbers_of(new), [-0.075, -0.025, -0.1125], rtol=1e-5)


# ------------------------------------------------------------------------------- derivatives in float64

THETA = np.asarray([0.3, -0.1, -0.5])
ALPHA = 0.3


def drawn_rows(seed):
    """Two tasks of 30 rows, all actions inside the box."""
    draw = np.random.default_rng(seed)
    obs, gain = draw.normal(size=(2, 30, 1)), draw.normal(size=(2, 30))
    return obs, draw.uniform(-0.9, 0.9, size=(2, 30, 1)), gain, (draw.uniform(size=(2, 30)) < 0.8).astype(float)


def log_prob(theta, obs, action):
    z = (action[:, 0] - theta[0] * obs[:, 0] - theta[1]) / np.exp(theta[2])
    return -0.5 * z**2 - theta[2] - 0.5 * np.log(2 * np.pi)


def adapted_by_hand(theta, obs, action, gain, weight):
    sigma = np.exp(theta[2])
    z = (action[:, 0] - theta[0] * obs[:, 0] - theta[1]) / sigma
    share = gain * weight / weight.sum()
    return theta + ALPHA * np.asarray([share @ (z * obs[:, 0]), share @ z, sigma * (share @ (z**2 - 1))]) / sigma


def meta_by_hand(theta, before, after):
    """The surrogate of the outer step, in float64."""
    total = 0.0
    for k in range(2):
        old, new = (adapted_by_hand(at, *(x[k] for x in before)) for at in (THETA, theta))
        obs, action, gain, weight = (x[k] for x in after)
        ratio = np.exp(log_prob(new, obs, action) - log_prob(old, obs, action))
        total += (weight * gain * ratio).sum() / weight.sum() / 2
    return total


def test_the_meta_gradient_is_that_of_float64_differences():
    before, after = drawn_rows(0), drawn_rows(1)
    steps = 1e-5 * np.eye(3)
    wanted = [(meta_by_hand(THETA + h, before, after) - meta_by_hand(THETA - h, before, after)) / 2e-5 for h in steps]

    inner, outer = (Rows(*(jnp.asarray(x, jnp.float32) for x in rows)) for rows in (before, after))

    def slopes(start):
        """With the inner step's derivative, and with an inner step that does not depend on the weights."""
        fixed = jax.vmap(lambda rows: adapt(LINEAR, start, rows, ALPHA))(inner)
        shift = jax.tree.map(lambda new, old: new - old, fixed, start)
        chosen = lambda weights: jax.vmap(lambda rows: adapt(LINEAR, weights, rows, ALPHA))(inner)  # noqa: E731
        moved = lambda weights: jax.tree.map(jnp.add, weights, shift)  # noqa: E731
        return [jax.grad(meta_objective(LINEAR, g, start, outer).surrogate)(start) for g in (chosen, moved)]

    full, first_order = map(numbers_of, jax.jit(slopes, compiler_options=FAST)(weights_of(*THETA.astype(np.float32))))
    np.testing.assert_allclose(full, wanted, rtol=2e-4, atol=2e-5)
    assert np.max(np.abs(first_order - wanted)) > 0.01


def test_the_fisher_products_are_second_derivatives_of_the_divergence():
    inner, outer = (Rows(*(jnp.asarray(x, jnp.float32) for x in drawn_rows(seed))) for seed in (0, 1))
    start, unravel = ravel_pytree(weights_of(*THETA.astype(np.float32)))
    chosen = lambda theta: jax.vmap(lambda rows: adapt(LINEAR, unravel(theta), rows, ALPHA))(inner)  # noqa: E731
    goal = meta_objective(LINEAR, chosen, start, outer)
    assert float(goal.kl(start)) == 0.0
    both = lambda v: (goal.fisher(v), curvature(goal.kl, start)(v))  # noqa: E731
    got, wanted = jax.jit(jax.vmap(both), compiler_options=FAST)(jnp.eye(3))
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    assert np.linalg.eigvalsh(np.asarray(got))[0] > 0


# ------------------------------------------------------------------------------- bandits

MAX_KL = 0.02
LEARNER = meta_policy(
    BOX, 1, 2, hidden=(), initial_std=0.4, inner_learning_rate=0.003, max_kl=MAX_KL, slack=1.0, damping=1e-3
)


@partial(jax.jit, compiler_options=FAST)
def meta_step(key, state, target, broken=0.0):
    """Two tasks of 400 paths of two steps: task k pays -(a - target_k)^2. The second step is no row."""

    def imagine(key, policies):
        def one(key, weights, target):
            obs = jnp.ones((2, 400, 1))
            action = LINEAR.distribution(weights, obs).sample(key)
            reward = -((action[..., 0] - target) ** 2) + broken
            flag = jnp.zeros((2, 400), bool)
            return Transition(obs, action, reward.at[1].set(jnp.nan), obs, flag, flag)

        mask = jnp.zeros((2, 2, 400), bool).at[:, 0].set(True)
        # The same draws for both: equal tasks see equal paths.
        return jax.vmap(one, in_axes=(None, 0, 0))(key, policies, target), mask, {"imagine/steps": jnp.float32(1)}

    return LEARNER.update(key, state, imagine)


def test_adapted_policies_coincide_in_equal_tasks_and_part_in_others():
    state = LEARNER.init(jax.random.key(0))
    equal, info = meta_step(jax.random.key(1), state, jnp.asarray([0.5, 0.5]))
    slope, bias, log_std = numbers_of(equal.adapted)
    np.testing.assert_array_equal([slope[0], bias[0], log_std[0]], [slope[1], bias[1], log_std[1]])
    assert bias[0] > numbers_of(equal.policy)[1]
    assert float(info["imagine/steps"]) == 1.0

    parted, _ = meta_step(jax.random.key(1), state, jnp.asarray([0.5, -0.5]))
    _, bias, _ = numbers_of(parted.adapted)
    assert bias[0] > float(numbers_of(parted.policy)[1]) > bias[1]


def test_meta_steps_go_where_one_step_reaches_every_task():
    """Of targets 0.5 and 0.5 that is the target, of 0.5 and -0.5 their middle; no step leaves the trust region."""
    for target, reached in (((0.5, 0.5), [0.5, 0.5]), ((0.5, -0.5), [0.0, 0.0])):
        state = LEARNER.init(jax.random.key(0))
        for seed in range(16):
            state, info = meta_step(jax.random.key(seed), state, jnp.asarray(target))
            assert 0 <= float(info["kl"]) <= MAX_KL * 1.0001
            assert float(info["skipped"]) == 0
        slope, bias, _ = numbers_of(state.adapted)
        np.testing.assert_allclose(slope + bias, reached, atol=0.1)
        assert float(info["return_after"]) > float(info["return_before"])


def test_numbers_that_are_not_finite_change_nothing():
    state = LEARNER.init(jax.random.key(0))
    after, info = meta_step(jax.random.key(1), state, jnp.asarray([0.5, 0.5]), jnp.inf)
    jax.tree.map(np.testing.assert_array_equal, after, state)
    assert float(info["skipped"]) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": 0}, "tasks must be at least 1, got 0"),
        ({"hidden": (0,)}, "hidden must be at least 1, got 0"),
        ({"initial_std": 0.0}, "initial_std must be at least 0.001, got 0.0"),
        ({"inner_learning_rate": -1.0}, "inner_learning_rate must be at least 0.0, got -1.0"),
        ({"gamma": 1.5}, "gamma must be at most 1.0, got 1.5"),
        ({"max_kl": -0.1}, "max_kl must be at least 0.0, got -0.1"),
        ({"backtracks": 0}, "backtracks must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        meta_policy(BOX, 1, **change)
