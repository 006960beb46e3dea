"""Optimism: where a step leads is chosen within the members' spread, worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.worlds import CONTINUOUS, DISCRETE

from jmbrl import models, planners, rollout
from jmbrl.types import Params

KEY = jax.random.key(0)


def halves():
    """Two members that add -1 and +3 to the first entry and 0 to the others: mean 1, spread 2."""
    member = models.deterministic_mlp(CONTINUOUS, (4,), reward=lambda obs, action, after: obs[0], clip_range=None)
    model = models.ensemble(member, 2)
    params = model.init(KEY)
    weights = jax.tree.map(jnp.zeros_like, params.weights)
    last = weights["layers"][-1]
    name = next(name for name, leaf in last.items() if leaf.ndim == 2)
    bias = last[name].at[0, 0].set(-1.0).at[1, 0].set(3.0)
    weights["layers"] = (*weights["layers"][:-1], {**last, name: bias})
    return model, Params(weights, params.stats)


def test_a_step_leads_where_eta_says():
    model, params = halves()
    wrapped = models.hallucinated(model, CONTINUOUS, beta=0.5)
    beliefs = jnp.asarray([[5.0, 1.0, 2.0]] * 3)
    actions = jnp.asarray([[0.3, 0.0, 1.0, 1.0], [0.3, 1.0, 0.0, 0.0], [0.3, -1.0, 0.0, 0.0]])
    following, outcome = jax.jit(wrapped.step_many)(KEY, params, beliefs, actions)
    np.testing.assert_allclose(following, [[6.0, 1.0, 2.0], [7.0, 1.0, 2.0], [5.0, 1.0, 2.0]], rtol=1e-6)
    np.testing.assert_allclose(outcome.reward, [5.0, 5.0, 5.0])
    one, _ = wrapped.step(KEY, params, beliefs[1], actions[1])
    np.testing.assert_allclose(one, following[1], rtol=1e-6)


def test_a_plan_hopes_for_the_best_and_holds_actions_alone():
    """Rewards are the first entry: the best plan lets every step lead up, 2 rather than 1 a step with beta = 0.5."""
    model, params = halves()
    wrapped = models.hallucinated(model, CONTINUOUS, beta=0.5)
    spec = models.hallucinated_spec(CONTINUOUS)
    assert spec.action.dim == 4
    wide = planners.cem(spec, horizon=3, population=200, elites=20, iterations=8)
    goal = rollout.objective(wrapped, params, jnp.zeros(3))
    planner = models.hallucinated_planner(wide, CONTINUOUS)
    plan, state, _ = jax.jit(lambda key: planner.plan(key, planner.init(), goal))(KEY)
    assert plan.shape == (3, 1)
    best, _, _ = wide.plan(KEY, wide.init(), goal)
    total, _, _ = goal.returns(KEY, best[None])
    np.testing.assert_allclose(total, [0.0 + 2.0 + 4.0], atol=0.1)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.shape, b.shape), planner.shift(state, 1), state)


def test_bad_settings_are_refused():
    model, _ = halves()
    with pytest.raises(ValueError, match="continuous"):
        models.hallucinated(models.ensemble(models.deterministic_mlp(DISCRETE, (4,)), 2), DISCRETE)
    with pytest.raises(ValueError, match="beta"):
        models.hallucinated(model, CONTINUOUS, beta=-1.0)
    with pytest.raises(ValueError, match="ensemble"):
        models.hallucinated(models.gaussian_mlp(CONTINUOUS, (4,)), CONTINUOUS)
