"""PILCO's objective by hand and by differences, and the system on a line whose best return is known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import agents, data, learners
from jmbrl.agents.pilco import cost_of, starts
from jmbrl.agents.pilco_cost import expected, long_term, saturating
from jmbrl.learners.rbf_policy import RBFWeights
from jmbrl.models.gaussian_moments import Gaussian
from jmbrl.models.gp_moments import processes
from jmbrl.rollout import evaluate
from jmbrl.types import Continuous, Spec

from worlds import line

FAST = {"xla_backend_optimization_level": 0}  # compiling is what costs
BOX = Continuous((-1.0,), (1.0,))
# As in test_slbo: of 20 steps of x' = x + a / 2, reward -x'^2, from x uniform on [-1, 1].
OPTIMUM, STILL = -0.0417, -6.67
SMALL = agents.PILCOConfig(
    start_mean=(0.0,),
    start_std=(0.6,),
    horizon=4,
    points=48,
    search_points=20,
    fit_steps=30,
    centres=4,
    searches=20,
    evaluations=30,
    capacity=64,
)


def pendulum_like():
    """A policy and two processes of ``[speed, sin, cos, action]`` through six rows, NumPy float64."""
    rng = np.random.default_rng(0)
    x, length = rng.normal(size=(6, 4)), rng.uniform(0.8, 1.5, (2, 4))
    square = np.sum(((x[:, None] - x) / length[:, None, None]) ** 2, axis=-1)
    inverse = np.linalg.inv(np.exp(-0.5 * square) + 0.01 * np.eye(6))
    alpha = np.einsum("eij,ej->ei", inverse, 0.3 * rng.normal(size=(2, 6)))
    weights = RBFWeights(rng.normal(size=(3, 3)), rng.normal(size=(3, 1)), np.zeros((1, 3)))
    given = x, length, np.ones(2), alpha, inverse, np.full(2, 0.01), np.array([0.05, -0.02])
    return weights, given, (np.array([0.2, 0.4]), np.diag([0.02, 0.03]))


@pytest.fixture(scope="module")
def objective():
    """``(weights, mean, covariance) -> ((cost of four steps, Expectation), gradient)``, compiled, float64."""
    policy = learners.rbf_policy(BOX, 3, centres=3)
    cost = saturating(learners.saturating_cost((0.0, 0.0, -1.0), width=0.7), (1,))
    expect = long_term(policy, cost, (1,), 4)
    given = pendulum_like()[1]

    def total(weights, mean, covariance):
        found = expect(weights, processes(*given), Gaussian(mean, covariance))
        return jnp.sum(found.cost), found

    slope = jax.jit(jax.value_and_grad(total, has_aux=True), compiler_options=FAST)

    def run(*args):
        with jax.enable_x64(True):
            return slope(*args)

    return run


def test_one_step_from_a_certain_state_by_hand(objective):
    weights, given, (mean, _) = pendulum_like()
    x, length, _, alpha, inverse, noise, offset = given
    (_, found), _ = objective(weights, mean, 1e-12 * np.eye(2))
    z = np.array([0.2, np.sin(0.4), np.cos(0.4)])
    kernel = lambda a, b: np.exp(-0.5 * np.sum((a - b) ** 2, axis=-1))  # noqa: E731
    gram = kernel(weights.centres[:, None], weights.centres) + 1e-4 * np.eye(3)
    v = kernel(weights.centres, z) @ np.linalg.solve(gram, weights.targets[:, 0])
    at = np.append(z, (9 * np.sin(v) + np.sin(3 * v)) / 8)
    k = np.stack([np.exp(-0.5 * np.sum(((x - at) / length[e]) ** 2, axis=1)) for e in range(2)])
    # The unsquashed action's variance of 1e-6 leaves its trace.
    np.testing.assert_allclose(found.mean[0], mean + offset + np.sum(k * alpha, axis=1), atol=1e-5)
    variance = 1 + noise - np.einsum("ei,eij,ej->e", k, inverse, k)
    np.testing.assert_allclose(np.diag(found.covariance[0]), variance, atol=1e-5)


def test_the_gradient_agrees_with_differences(objective):
    weights, _, start = pendulum_like()
    _, gradient = objective(weights, *start)
    for name in RBFWeights._fields:
        for index in ((0, 0), (-1, 0)):
            ends = []
            for h in (1e-5, -1e-5):
                moved = getattr(weights, name).copy()
                moved[index] += h
                ends.append(float(objective(weights._replace(**{name: moved}), *start)[0][0]))
            np.testing.assert_allclose(getattr(gradient, name)[index], (ends[0] - ends[1]) / 2e-5, rtol=1e-5)


def test_the_mean_of_a_quadratic_reward_is_exact():
    spec = Spec("plane", (2,), BOX, 5)
    mean, spread = np.array([0.1, -0.2, 0.3, 0.5, 0.4]), np.random.default_rng(0).normal(size=(5, 5)) / 10
    covariance = spread @ spread.T
    reward = lambda obs, action, after: obs[0] * after[1] - 2 * action[0] * after[0]  # noqa: E731
    with jax.enable_x64(True):
        row = Gaussian(jnp.asarray(mean), jnp.asarray(covariance))
        got = jax.jit(lambda row: expected(reward, spec)(row, row), compiler_options=FAST)(row)
    wanted = mean[0] * mean[4] + covariance[0, 4] - 2 * (mean[2] * mean[3] + covariance[2, 3])
    np.testing.assert_allclose(got, -wanted, rtol=1e-6)


def rows_of_the_line(count, seed=0):
    rng = np.random.default_rng(seed)
    x, action = rng.uniform(-1.5, 1.5, (count, 1)), rng.uniform(-1, 1, (count, 1))
    after = x + 0.5 * action
    return data.from_arrays(x, action, -(after[:, 0] ** 2), after, np.zeros(count, bool), capacity=64)


@pytest.fixture(scope="module")
def improved():
    """The agent, its compiled phase, and two of them on 20 and 40 rows: the state and what they said."""
    agent = agents.pilco(line(), SMALL)
    phase = jax.jit(agent.phases[0][1], compiler_options=FAST)
    state, said = agent.init(jax.random.key(0), 1), []
    for count in (20, 40):
        state, info = phase(jax.random.key(count), state._replace(replay=rows_of_the_line(count)), jnp.int32(0))
        said.append(jax.device_get(info))
    return agent, phase, state, said


def test_it_solves_the_line(improved):
    agent, _, state, said = improved
    play = lambda state: evaluate(jax.random.key(7), line(), agent, state, 50)["returns"]  # noqa: E731
    assert STILL < 10 * OPTIMUM < np.mean(jax.jit(play, compiler_options=FAST)(state)) <= 0
    for info, count in zip(said, (20, 40), strict=True):
        assert info["policy/cost"] <= info["policy/cost_before"]
        assert info["policy/nonfinite_loss"] == 0
        assert info["model/points"] == count
    assert said[-1]["policy/cost"] < 0.1
    assert state.memory == 2


def test_a_broken_model_leaves_the_policy_as_it_is(improved):
    _, phase, state, _ = improved
    weights = state.params.weights._replace(x=jnp.full_like(state.params.weights.x, jnp.nan))
    nothing = state.replay._replace(valid=jnp.zeros_like(state.replay.valid))  # so that it is not fitted again
    broken = state._replace(params=state.params._replace(weights=weights), replay=nothing)
    after, info = phase(jax.random.key(1), broken, jnp.int32(0))
    jax.tree.map(np.testing.assert_array_equal, after.learner, broken.learner)
    assert info["policy/skipped"] == 1
    assert info["policy/nonfinite_loss"] == 1


def test_the_mean_of_the_starts():
    first = np.array([True, False, True])
    obs = np.array([[1.0], [7.0], [2.0]])
    replay = data.from_arrays(obs, np.zeros((3, 1)), np.zeros(3), obs, np.roll(first, -1), capacity=5)
    np.testing.assert_allclose(starts(replay), [1.5])


def test_the_cost_of_a_target_is_what_the_reward_lacks():
    config = dataclasses.replace(SMALL, target=(0.0, -1.0), rows=((2.0, 0.0), (0.0, 1.0)), width=0.5, angles=(0,))
    _, reward = cost_of(line()._replace(reward_fn=None), config)
    square = (2 * np.sin(0.3)) ** 2 + (np.cos(0.3) + 1) ** 2
    np.testing.assert_allclose(reward(None, None, jnp.array([0.3])), np.exp(-square / 0.5), rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": ((1.0,),)}, "rows need a target"),
        ({"target": (0.0, 1.0)}, "target has shape"),
        ({"start_mean": (0.0, 1.0)}, "start_mean has shape"),
        ({"start_std": (0.1, 0.1)}, "start_std must be one number or one per entry"),
        ({"horizon": 0}, "horizon must be at least 1"),
        ({"evaluations": 0}, "evaluations must be at least 1"),
    ],
)
def test_refusals(changes, words):
    with pytest.raises(ValueError, match=words):
        agents.pilco(line(), dataclasses.replace(SMALL, **changes))


def test_a_world_without_reward_needs_a_target():
    with pytest.raises(ValueError, match="line has no reward function: pilco needs a target"):
        agents.pilco(line()._replace(reward_fn=None), SMALL)
