"""What every planner promises, on a quadratic that any of them can evaluate."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import planners
from jmbrl.types import Continuous, Discrete, Objective, Spec

BOX = Spec("box", (2,), Continuous((-1.0, -1.0), (1.0, 1.0)), 10)
COINS = Spec("coins", (2,), Discrete(3), 10)
MAKERS = {
    "cem": lambda spec: planners.cem(spec, horizon=4, population=30, elites=5, iterations=3),
    "random_shooting": lambda spec: planners.random_shooting(spec, horizon=4, population=30),
    "random_shooting_keep": lambda spec: planners.random_shooting(spec, horizon=4, population=30, keep=True),
}
CASES = [pytest.param(make, spec, id=f"{name}-{spec.name}") for name, make in MAKERS.items() for spec in (BOX, COINS)]


def goal(target=0.3):
    def returns(key, actions):
        flat = actions.reshape(len(actions), -1).astype(jnp.float32)
        noise = 0.01 * jax.random.normal(key, (len(actions),))
        return -jnp.sum((flat - target) ** 2, axis=1) + noise, jnp.zeros((len(actions), 0)), {"clipped": jnp.zeros(())}

    return Objective(returns, lambda *a: None, None)


def plan_once(planner, key, target=0.3):
    return planner.plan(key, planner.init(), goal(target))


@pytest.mark.parametrize(("make", "spec"), CASES)
def test_shapes_types_and_bounds(make, spec):
    planner = make(spec)
    plan, state, info = plan_once(planner, jax.random.key(0))
    assert plan.shape == (4, *spec.action.shape)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, planner.init())
    chex.assert_trees_all_equal_shapes_and_dtypes(planner.shift(state, 2), planner.init())
    assert {"return", "nonfinite", "clipped"} <= set(info)
    if isinstance(spec.action, Discrete):
        assert plan.dtype == jnp.int32
        assert np.all((plan >= 0) & (plan < spec.action.n))
    else:
        assert np.all(np.abs(plan) <= 1)


@pytest.mark.parametrize(("make", "spec"), CASES)
def test_jit_equals_eager_and_traces_once(make, spec):
    planner = make(spec)
    jitted = jax.jit(lambda key: plan_once(planner, key))
    for seed in range(3):
        key = jax.random.key(seed)
        chex.assert_trees_all_close(jitted(key), plan_once(planner, key), atol=1e-5)
    assert jitted._cache_size() == 1


@pytest.mark.parametrize(("make", "spec"), CASES)
def test_vmap_equals_a_loop(make, spec):
    planner = make(spec)
    keys = jax.random.split(jax.random.key(1), 3)
    targets = jnp.asarray([-0.5, 0.0, 0.8])
    many = jax.vmap(lambda key, target: plan_once(planner, key, target))(keys, targets)
    for i in range(3):
        one = plan_once(planner, keys[i], targets[i])
        chex.assert_trees_all_close(jax.tree.map(lambda x, i=i: x[i], many), one, atol=1e-5)


@pytest.mark.parametrize(("make", "spec"), CASES)
def test_the_same_key_gives_the_same_plan_and_another_key_another(make, spec):
    planner = make(spec)
    a, b, c = (plan_once(planner, jax.random.key(s)) for s in (0, 0, 1))
    chex.assert_trees_all_equal(a, b)
    assert a[2]["return"] != c[2]["return"]


@pytest.mark.parametrize(("make", "spec"), CASES)
def test_no_key_is_used_twice(make, spec):
    planner = make(spec)
    with jax.debug_key_reuse(True):
        plan, _, _ = jax.jit(lambda key: plan_once(planner, key))(jax.random.key(0))
    assert plan.shape[0] == 4


@pytest.mark.parametrize("make", [planners.cem, planners.random_shooting])
def test_a_horizon_of_zero_is_refused_before_anything_is_compiled(make):
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        make(BOX, horizon=0)
