"""Every planner against the linear-quadratic optimum: Riccati and SciPy's constrained minimiser, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from jmbrl import planners
from jmbrl.rollout import objective
from jmbrl.types import Continuous, Model, Outcome, Params, Spec

# A double integrator; the reward is that of the state reached, the cost the energy spent.
A = np.asarray([[1.0, 0.1], [0.0, 1.0]])
B = np.asarray([[0.025], [0.5]])
Q = np.diag([1.0, 0.1])
R = 0.1
H = 20
START = np.asarray([0.5, -0.3])
SPEC = Spec("double_integrator", (2,), Continuous((-1.0,), (1.0,)), 50)
KEY = jax.random.key(0)
FAST = {"xla_backend_optimization_level": 0}  # halves the time to compile


def integrator(step_action=lambda a: a, no_gradient=""):
    def step(key, params, belief, action):
        following = jnp.asarray(A, jnp.float32) @ belief + jnp.asarray(B, jnp.float32) @ step_action(action)
        reward = -(following @ jnp.asarray(Q, jnp.float32) @ following + R * jnp.sum(action**2))
        return following, Outcome(reward, jnp.ones(()), jnp.sum(action**2)[None], jnp.zeros((), bool))

    def step_many(key, params, beliefs, actions):
        return jax.vmap(step, in_axes=(None, None, 0, 0))(key, params, beliefs, actions)

    return Model(None, None, None, step, step_many, None, None, None, None, no_gradient=no_gradient)


def goal(start=START, model=None, **options):
    return objective(model or integrator(), Params((), ()), jnp.asarray(start, jnp.float32), **options)


PLANNERS = {
    "ilqr": planners.ilqr(SPEC, horizon=H),
    "gradient": planners.gradient(SPEC, horizon=H, steps=100),
    "cem": planners.cem(SPEC, horizon=H, population=400, elites=40, iterations=15, min_variance=0.0),
    "icem": planners.icem(SPEC, horizon=H, population=300, elites=20, iterations=15, decay=1.0, beta=0.25),
    "mppi": planners.mppi(SPEC, horizon=H, population=4000, iterations=60, temperature=1e-3, sigma=0.1),
    "pddm": planners.mppi(SPEC, horizon=H, population=500, iterations=40, temperature=0.02, sigma=0.1, filter=1.0),
    "random_shooting": planners.random_shooting(SPEC, horizon=H),
}


@functools.cache
def compiled(name):
    planner = PLANNERS[name]

    def plan(key, state, start, gamma, budget):
        return planner.plan(key, state, goal(start, gamma=gamma, budget=(budget,)))

    return jax.jit(plan, compiler_options=FAST)


def planned(name, start=START, gamma=1.0, budget=np.inf, state=None):
    state = PLANNERS[name].init() if state is None else state
    actions, _, info = compiled(name)(KEY, state, jnp.asarray(start), gamma, budget)
    return np.asarray(actions, np.float64), info


def loss(actions, start=START, gamma=1.0):
    x, total = start, 0.0
    for t, u in enumerate(np.asarray(actions, np.float64).reshape(-1)):
        x = A @ x + B[:, 0] * u
        total += gamma**t * (x @ Q @ x + R * u**2)
    return total


def riccati():
    """The optimal actions without bounds, and the quadratic cost-to-go before each number of steps."""
    to_go, gains = [Q], []  # the first of Q counts the state reached at the end
    for _ in range(H):
        P = to_go[-1]
        gains.append(np.linalg.solve(R + B.T @ P @ B, B.T @ P @ A))
        to_go.append(Q + A.T @ P @ (A - B @ gains[-1]))
    x, actions = START, []
    for gain in reversed(gains):
        actions.append(-gain @ x)
        x = A @ x + B @ actions[-1]
    return np.asarray(actions), to_go


@functools.cache
def constrained(start=tuple(START), gamma=1.0, energy=None):
    """The least loss within the action box and the energy, by SciPy."""
    limits = [] if energy is None else [{"type": "ineq", "fun": lambda u: energy - u @ u}]
    found = minimize(
        lambda u: loss(u, np.asarray(start), gamma), np.zeros(H), bounds=[(-1, 1)] * H, constraints=limits,
        method="SLSQP", options={"ftol": 1e-12, "maxiter": 500},
    )  # fmt: skip
    assert found.success
    return found.x[:, None], found.fun


def test_the_references_agree():
    actions, _ = riccati()
    assert np.abs(actions).max() < 0.8  # the bounds are not active
    np.testing.assert_allclose(constrained()[1], loss(actions), rtol=1e-8)


@pytest.mark.parametrize(
    ("name", "within"),
    [("ilqr", 1e-5), ("gradient", 0.01), ("cem", 0.03), ("icem", 0.03), ("mppi", 0.03), ("pddm", 0.03)],
)
def test_the_riccati_loss_is_reached(name, within):
    best = loss(riccati()[0])
    actions, info = planned(name)
    assert 1 - 1e-6 <= loss(actions) / best <= 1 + within
    assert info["nonfinite"] == 0
    assert loss(planned("random_shooting")[0]) > 1.2 * best  # what is asked of the others means something


@pytest.mark.parametrize(("name", "within"), [("ilqr", 1e-5), ("gradient", 0.01)])
def test_active_bounds(name, within):
    start = (3.0, 2.0)
    reference, best = constrained(start)
    assert np.sum(np.abs(reference) > 0.999) > 10
    actions, _ = planned(name, start)
    assert 1 - 1e-6 <= loss(actions, np.asarray(start)) / best <= 1 + within


@pytest.mark.parametrize(
    ("name", "within"), [("ilqr", 0.03), ("gradient", 0.002), ("cem", 0.1), ("icem", 0.1), ("mppi", 0.12)]
)
def test_half_the_energy_is_a_budget_that_every_planner_keeps(name, within):
    energy = 0.5 * float(np.sum(riccati()[0] ** 2))
    actions, info = planned(name, budget=energy)
    assert np.sum(actions**2) <= energy * (1 + 1e-5)
    assert loss(actions) <= (1 + within) * constrained(energy=energy)[1]
    assert 0 < info["violating"] < 1


def test_ilqr_returns_into_the_budget_from_a_plan_beyond_it():
    actions, info = planned("ilqr", budget=1.0, state=jnp.full((H, 1), 0.5))
    assert np.sum(actions**2) <= 1.0
    assert info["return"] > -1.5


def test_ilqr_discounts():
    np.testing.assert_allclose(planned("ilqr", gamma=0.8)[0], constrained(gamma=0.8)[0], atol=1e-3)


@pytest.mark.parametrize(("name", "options", "atol"), [("ilqr", {}, 1e-4), ("gradient", {"steps": 100}, 0.02)])
def test_the_value_of_the_end_counts(name, options, atol):
    # Five steps, then the cost-to-go of the other fifteen: the same five actions. The state reached is charged already.
    actions, to_go = riccati()
    rest = jnp.asarray(to_go[H - 5] - Q, jnp.float32)
    valued = goal(terminal_value=lambda x: -jnp.einsum("ni,ij,nj->n", x, rest, x))
    planner = getattr(planners, name)(SPEC, horizon=5, **options)
    plan = jax.jit(lambda key: planner.plan(key, planner.init(), valued)[0], compiler_options=FAST)(KEY)
    np.testing.assert_allclose(plan, actions[:5], atol=atol)


@pytest.mark.parametrize(
    ("name", "options", "within"), [("ilqr", {}, 0.1), ("gradient", {"steps": 100, "restarts": 2}, 0.3)]
)
def test_a_model_without_a_gradient_needs_differences(name, options, within):
    why = "the converter has eleven levels"
    coarse = goal(model=integrator(lambda a: jnp.round(5 * a) / 5, why))
    planner = getattr(planners, name)(SPEC, horizon=H)
    with pytest.raises(ValueError, match=f'{name} .*{why}; use derivative="differences".*cem'):
        planner.plan(KEY, planner.init(), coarse)
    planner = getattr(planners, name)(SPEC, horizon=H, derivative="differences", difference=0.3, **options)
    info = jax.jit(lambda key: planner.plan(key, planner.init(), coarse)[2], compiler_options=FAST)(KEY)
    assert -info["return"] < (1 + within) * loss(riccati()[0])  # doing nothing: 1.6 times
