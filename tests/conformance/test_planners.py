"""What every planner promises, on a quadratic that any of them can evaluate."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import planners
from jmbrl.types import Continuous, Discrete, Objective, Outcome, Spec

BOX = Spec("box", (2,), Continuous((-1.0, -1.0), (1.0, 1.0)), 10)
COINS = Spec("coins", (2,), Discrete(3), 10)
MAKERS = {
    "cem": lambda spec: planners.cem(spec, horizon=4, population=30, elites=5, iterations=3),
    "icem": lambda spec: planners.icem(spec, horizon=4, population=20, elites=5, iterations=3),
    "mppi": lambda spec: planners.mppi(spec, horizon=4, population=30, iterations=2, temperature=0.1),
    "random_shooting": lambda spec: planners.random_shooting(spec, horizon=4, population=30),
    "tree_search": lambda spec: planners.tree_search(spec, horizon=4, simulations=12, candidates=3),
    "tree_search_puct": lambda spec: planners.tree_search(spec, horizon=4, simulations=12, candidates=3, method="puct"),
    "random_shooting_keep": lambda spec: planners.random_shooting(spec, horizon=4, population=30, keep=True),
}
CONTINUOUS = {
    "pddm": lambda spec: planners.mppi(spec, horizon=4, population=30, temperature=0.1, filter=0.7),
    "policy_mppi": lambda spec: planners.policy_mppi(spec, horizon=4, population=30, elites=5, iterations=2),
    "gradient": lambda spec: planners.gradient(spec, horizon=4, restarts=3, steps=5),
    "gradient_differences": lambda spec: planners.gradient(
        spec, horizon=4, restarts=3, steps=5, derivative="differences"
    ),
    "ilqr": lambda spec: planners.ilqr(spec, horizon=4, iterations=2),
    "ilqr_differences": lambda spec: planners.ilqr(spec, horizon=4, iterations=2, derivative="differences"),
}
NAMES = [(name, spec) for name in MAKERS for spec in (BOX, COINS)] + [(name, BOX) for name in CONTINUOUS]
FAST = {"xla_backend_optimization_level": 0}  # halves the time to compile
CASES = [pytest.param(name, spec, id=f"{name}-{spec.name}") for name, spec in NAMES]


def goal(target=0.3):
    """Every action should be ``target``; the belief counts the steps, and the true return is seen with noise."""

    def returns(key, actions):
        flat = actions.reshape(len(actions), -1).astype(jnp.float32)
        noise = 0.01 * jax.random.normal(key, (len(actions),))
        return -jnp.sum((flat - target) ** 2, axis=1) + noise, jnp.zeros((len(actions), 0)), {"clipped": jnp.zeros(())}

    def step(key, belief, action):
        outcome = Outcome(-jnp.sum((action - target) ** 2), jnp.ones(()), jnp.zeros(0), jnp.zeros((), bool))
        return {"x": belief["x"] + 0.0 * jax.random.normal(key), "t": belief["t"] + 1}, outcome

    return Objective(returns, step, {"x": jnp.zeros(()), "t": jnp.asarray(0)})


def plan_once(planner, key, target=0.3):
    return planner.plan(key, planner.init(), goal(target))


@functools.cache
def prepared(name, spec):
    """The planner, one compiled plan and what it was traced with, for all the tests of a case."""
    planner = {**MAKERS, **CONTINUOUS}[name](spec)
    traces = []

    def plan(key, target):
        traces.append(target.aval)
        return plan_once(planner, key, target)

    return planner, jax.jit(plan, compiler_options=FAST), traces


@pytest.mark.parametrize(("name", "spec"), CASES)
def test_shapes_types_and_bounds(name, spec):
    planner, plan_of, _ = prepared(name, spec)
    plan, state, info = plan_of(jax.random.key(0), 0.3)
    assert plan.shape == (4, *spec.action.shape)
    for other in (state, planner.shift(state, 2), planner.shift(state, 9)):
        chex.assert_trees_all_equal_shapes_and_dtypes(other, planner.init())
    assert {"return", "nonfinite", "clipped"} <= set(info)
    assert all(x.shape == () for x in info.values())
    assert info["nonfinite"].dtype == jnp.int32
    if isinstance(spec.action, Discrete):
        assert plan.dtype == jnp.int32
        assert np.all((plan >= 0) & (plan < spec.action.n))
    else:
        assert np.all(np.abs(plan) <= 1)


@pytest.mark.parametrize("name", planners.__all__)
def test_jit_equals_eager_and_traces_once(name):
    planner, plan_of, traces = prepared(name, BOX)
    chex.assert_trees_all_close(plan_of(jax.random.key(0), 0.3), plan_once(planner, jax.random.key(0)), atol=1e-5)
    for seed in range(1, 3):
        plan_of(jax.random.key(seed), 0.3)
    assert len(traces) == len(set(traces))


@pytest.mark.parametrize(("name", "spec"), CASES)
def test_vmap_equals_a_loop(name, spec):
    _, plan_of, _ = prepared(name, spec)
    keys = jax.random.split(jax.random.key(1), 3)
    targets = [-0.5, 0.0, 0.8]
    many = jax.vmap(plan_of)(keys, jnp.asarray(targets))
    for i in range(3):
        one = plan_of(keys[i], targets[i])
        chex.assert_trees_all_close(jax.tree.map(lambda x, i=i: x[i], many), one, atol=1e-5)


@pytest.mark.parametrize(("name", "spec"), CASES)
def test_the_same_key_gives_the_same_plan_and_another_key_another(name, spec):
    _, plan_of, _ = prepared(name, spec)
    a, b, c = (plan_of(jax.random.key(s), 0.3) for s in (0, 0, 1))
    chex.assert_trees_all_equal(a, b)
    assert a[2]["return"] != c[2]["return"]


# mctx hands one key to both branches of a condition, which under vmap looks like two uses.
OWN_KEYS = [pytest.param(name, spec, id=f"{name}-{spec.name}") for name, spec in NAMES if "tree" not in name]


@pytest.mark.parametrize(("name", "spec"), OWN_KEYS)
def test_no_key_is_used_twice(name, spec):
    planner, _, _ = prepared(name, spec)
    with jax.debug_key_reuse(True):  # checked on the way to the compiler; `clone` marks what repeats on purpose
        jax.jit(lambda key: plan_once(planner, key)).lower(jax.random.key(0))


def test_a_key_used_twice_is_seen_on_the_way_to_the_compiler():
    with jax.debug_key_reuse(True), pytest.raises(jax.errors.KeyReuseError):
        jax.jit(lambda key: jax.random.normal(key) + jax.random.uniform(key)).lower(jax.random.key(0))


@pytest.mark.parametrize("name", planners.__all__)
def test_a_horizon_of_zero_is_refused_before_anything_is_compiled(name):
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        getattr(planners, name)(BOX, horizon=0)


@pytest.mark.parametrize("name", ["gradient", "ilqr"])
def test_derivatives_by_a_discrete_action_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} needs continuous actions, got .*; use cem"):
        getattr(planners, name)(COINS)
