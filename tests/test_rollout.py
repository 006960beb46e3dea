"""Imagination: rewards, discounts and values sit where they belong. Numbers worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

from jmbrl import envs
from jmbrl.models import with_cost
from jmbrl.rollout import (
    discounts,
    evaluate,
    imagine,
    mean_minus_spread,
    mean_return,
    objective,
    within_budget,
    worst_return,
)
from jmbrl.types import Agent, Continuous, Model, Outcome, Params

from worlds import counter as counting
from worlds import line

KEY = jax.random.key(0)


def counter() -> Model:
    """Belief b becomes b + a; the reward is 10 b + a *before* the step; it terminates on reaching 3."""

    def step(key, params, belief, action):
        following = belief + action
        outcome = Outcome(10 * belief + action, jnp.where(following >= 3, 0.0, 1.0), jnp.stack([belief]), following > 3)
        return following, outcome

    def step_many(key, params, beliefs, actions):
        return jax.vmap(step, in_axes=(None, None, 0, 0))(key, params, beliefs, actions)

    return Model(None, None, None, step, step_many, None, None, None, None)


PARAMS = Params((), ())


def test_imagined_rows_belong_together():
    model = counter()
    actions = jnp.asarray([[1.0, 2.0], [1.0, 0.0], [1.0, 1.0]])
    last, path = imagine(
        KEY, lambda k, b, a: model.step_many(k, PARAMS, b, a), jnp.zeros(2), lambda k, b, t: (actions[t], t), 3
    )
    np.testing.assert_array_equal(path.belief, [[0, 0], [1, 2], [2, 2]])
    np.testing.assert_array_equal(path.action, actions)
    np.testing.assert_array_equal(path.next_belief, [[1, 2], [2, 2], [3, 3]])
    np.testing.assert_array_equal(path.outcome.reward, [[1, 2], [11, 20], [21, 21]])
    np.testing.assert_array_equal(path.aux, [0, 1, 2])
    np.testing.assert_array_equal(last, [3, 3])


def test_the_reward_of_the_terminating_step_counts_and_nothing_after_it():
    outcome = Outcome(jnp.asarray([1.0, 2.0, 4.0]), jnp.asarray([1.0, 0.0, 1.0]), jnp.zeros((3, 0)), jnp.zeros(3, bool))
    np.testing.assert_allclose(discounts(outcome, 0.5), [1.0, 0.5, 0.0])


def test_objective_by_hand():
    # From 1: a=1 -> r 11, at 2; a=1 -> r 21, terminates at 3; a=5 -> masked.   11 + 0.5 * 21 = 21.5
    # From 1: a=0 -> r 10, a=0 -> r 10, a=1 -> r 11; ends at 2, value 100.       10 + 5 + 2.75 + 12.5 = 30.25
    goal = objective(
        counter(), PARAMS, jnp.asarray(1.0), particles=3, gamma=0.5, terminal_value=lambda b: jnp.full_like(b, 100.0)
    )
    returns, costs, info = goal.returns(KEY, jnp.asarray([[1.0, 1.0, 5.0], [0.0, 0.0, 1.0]]))
    np.testing.assert_allclose(returns, [21.5, 30.25])
    np.testing.assert_allclose(costs, [[1 + 0.5 * 2], [1 + 0.5 + 0.25]])
    np.testing.assert_allclose(info["clipped"], 1 / 6)  # one candidate's last step of three, all particles


def test_rows_are_particle_major_and_risk_reduces_over_particles():
    def step_many(key, params, beliefs, actions):
        rows = jnp.arange(len(beliefs), dtype=jnp.float32)
        zero = jnp.zeros(len(beliefs))
        return beliefs, Outcome(rows, zero + 1, zero[:, None], zero > 0)

    model = counter()._replace(step_many=step_many)
    goal = objective(model, PARAMS, jnp.asarray(0.0), particles=3, reduce=lambda returns: jnp.min(returns, axis=0))
    np.testing.assert_array_equal(goal.returns(KEY, jnp.zeros((4, 1)))[0], [0, 1, 2, 3])
    worst = objective(model, PARAMS, jnp.asarray(0.0), particles=3, reduce=lambda returns: jnp.max(returns, axis=0))
    np.testing.assert_array_equal(worst.returns(KEY, jnp.zeros((4, 1)))[0], [8, 9, 10, 11])


def test_a_horizon_of_zero_is_refused():
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        imagine(KEY, None, None, None, 0)
    with pytest.raises(ValueError, match="particles must be at least 1, got 0"):
        objective(counter(), PARAMS, jnp.zeros(()), particles=0)


RETURNS = jnp.asarray([[1.0, 5.0], [3.0, 5.0], [8.0, 5.0]])  # three particles of two plans


def test_attitudes_to_risk():
    np.testing.assert_allclose(mean_return(RETURNS), [4, 5])
    np.testing.assert_allclose(worst_return(RETURNS), [1, 5])
    np.testing.assert_allclose(mean_minus_spread(1.5)(RETURNS), [4 - 1.5 * np.std([1, 3, 8]), 5], rtol=1e-6)
    slope = jax.grad(lambda x: jnp.sum(mean_minus_spread(1.5)(x)))(RETURNS)
    np.testing.assert_allclose(
        slope[:, 1], 1 / 3, rtol=1e-6
    )  # where particles agree, a square root's slope is infinite
    np.testing.assert_allclose(
        slope[:, 0], jax.grad(lambda x: jnp.mean(x) - 1.5 * jnp.std(x))(RETURNS[:, 0]), rtol=1e-5
    )
    with pytest.raises(ValueError, match="k must be finite"):
        mean_minus_spread(float("nan"))


def test_plans_beyond_the_budget_rank_below_the_others_by_their_excess():
    returns = jnp.asarray([-1e9, 7.0, 9.0, 8.0, 1.0])
    costs = jnp.asarray([[1.0, 0.0], [2.0, 0.0], [2.5, 4.0], [2.25, 0.0], [jnp.nan, 0.0]])
    score, over = within_budget(returns, costs, (2.0, 3.0))
    np.testing.assert_array_equal(over, [False, False, True, True, True])
    np.testing.assert_array_equal(score[:2], returns[:2])
    np.testing.assert_allclose(score[2:4], [-1e12 * (1 + np.log(2.5)), -1e12 * (1 + np.log(1.25))], rtol=1e-6)
    assert np.isnan(score[4])
    slope = jax.grad(lambda c: within_budget(jnp.zeros(1), c, (2.0, 3.0))[0][0])(jnp.asarray([[2.5, 1.0]]))
    assert slope[0, 0] < 0
    assert slope[0, 1] == 0


def test_costs_count_until_the_end_and_the_budget_is_theirs():
    # The belief before each step is its cost. From 1: 1 + 2 and the end, then 9 more that do not count; or 1 + 1 + 1.
    goal = objective(counter(), PARAMS, jnp.asarray(1.0), particles=2, budget=(3.0,))
    returns, costs, info = goal.returns(KEY, jnp.asarray([[1.0, 6.0, 9.0], [0.0, 0.0, 1.0], [1.0, 0.5, 0.0]]))
    np.testing.assert_allclose(costs, [[3.0], [3.0], [5.5]])
    np.testing.assert_allclose(returns[:2], [11 + 26, 10 + 10 + 11])
    assert returns[2] < -1e11
    np.testing.assert_allclose(info["violating"], 1 / 3)


def test_what_is_infinite_after_the_end_does_not_count():
    def step_many(key, params, beliefs, actions):
        following, outcome = counter().step_many(key, params, beliefs, actions)
        late = beliefs >= 3
        reward = jnp.where(late, jnp.inf, outcome.reward)
        return following, outcome._replace(reward=reward, cost=jnp.where(late[:, None], jnp.nan, outcome.cost))

    model = counter()._replace(step_many=step_many)
    goal = objective(model, PARAMS, jnp.asarray(1.0), terminal_value=lambda b: b * jnp.nan, budget=(100.0,))
    returns, costs, _ = goal.returns(KEY, jnp.asarray([[1.0, 1.0, 5.0]]))
    np.testing.assert_allclose(returns, [11 + 21])
    np.testing.assert_allclose(costs, [[1 + 2]])


def test_a_cost_function_becomes_the_models_cost():
    model = counter()._replace(decode=lambda params, belief: belief)
    seen = with_cost(model, lambda obs, action, next_obs: jnp.stack([obs, action, next_obs]))
    costs = objective(seen, PARAMS, jnp.asarray(1.0)).returns(KEY, jnp.asarray([[0.5, 0.25]]))[1]
    np.testing.assert_allclose(costs, [[1 + 1.5, 0.5 + 0.25, 1.5 + 1.75]])
    one = with_cost(model, lambda obs, action, next_obs: next_obs > 1.6)
    np.testing.assert_allclose(one.step(KEY, PARAMS, jnp.asarray(1.0), jnp.asarray(0.7))[1].cost, [1.0])
    with pytest.raises(ValueError, match=r"cost_fn must return one number or a vector for one row, got shape \(2, 2\)"):
        with_cost(model, lambda *row: jnp.zeros((2, 2))).step(KEY, PARAMS, jnp.asarray(1.0), jnp.asarray(0.7))


def test_a_budget_for_other_costs_is_refused():
    with pytest.raises(ValueError, match="budget must have one number per imagined cost, got 2 for 1 costs"):
        objective(counter(), PARAMS, jnp.asarray(1.0), budget=(1.0, 2.0)).returns(KEY, jnp.zeros((1, 2)))
    with pytest.raises(ValueError, match="budget must be a number, got 'a'"):
        objective(counter(), PARAMS, jnp.asarray(1.0), budget=("a",))


# ------------------------------------------------------------------------------------ whole episodes

FAST = {"xla_backend_optimization_level": 0}


def played(act):
    """An agent that only acts; its carry counts its steps from 0."""

    def step(key, state, carry, obs, is_first, explore):
        return act(key, carry, obs), carry + 1, {}

    return Agent(lambda key, num_envs: (), lambda state: jnp.zeros(()), step, None)


def leaving():
    """``line`` that ends where its walker leaves [-1, 1], at another step in each episode."""
    base = line(noise=0.3, max_steps=30)
    return base._replace(
        step=(step := lambda key, x, action: ended(base.step(key, x, action))),
        vector=lambda n: envs.vectorize(base._replace(step=step), n),
    )


def ended(result):
    state, seen = result
    return state, seen._replace(terminated=jnp.abs(seen.obs[0]) > 1.0)


@pytest.mark.parametrize("episodes", [1, 6])
def test_episodes_are_the_same_with_and_without_a_trace(episodes):
    env = leaving()
    agent = played(lambda key, age, obs: jax.random.uniform(key, (1,), minval=-1.0) * jnp.cos(age))
    run = [
        jax.jit(lambda key, trace=trace: evaluate(key, env, agent, (), episodes, trace=trace), compiler_options=FAST)
        for trace in (False, True)
    ]
    short, full = (f(jax.random.key(3)) for f in run)
    for name in ("returns", "lengths"):
        np.testing.assert_array_equal(short[name], full[name])
    lengths = np.asarray(full["lengths"])
    assert set(short) == {"returns", "lengths"}
    assert episodes == 1 or (lengths.min() < lengths.max() < 30)
    for i, length in enumerate(lengths):  # what a trace tells is what was added up
        np.testing.assert_allclose(full["returns"][i], full["rewards"][:length, i].sum(), rtol=1e-5)
        assert full["terminated"][length - 1, i]


@pytest.mark.parametrize(("trace", "steps"), [(False, 5), (True, 40)])
def test_nothing_is_played_after_the_last_end_unless_it_is_traced(trace, steps):
    ages = []

    def act(key, age, obs):
        return io_callback(lambda age: ages.append(float(age)) or np.zeros(1, np.float32), jnp.zeros(1), age)

    result = evaluate(KEY, counting(length=5, max_steps=40), played(act), (), 1, trace=trace)
    assert result["lengths"] == 5
    assert result["returns"] == 0 + 1 + 2 + 3 + 4
    assert sorted(ages) == list(range(steps))


def test_episodes_can_begin_with_memories_of_their_own():
    env = envs.from_functions(
        lambda key: (jnp.zeros(1), jnp.zeros(1)),
        lambda key, x, action: (x, x, action[0], False),
        obs_shape=(1,), action=Continuous((-1.0,), (1.0,)), max_steps=3, name="paid",
    )  # fmt: skip
    agent = played(lambda key, age, obs: 0.25 * age[None])
    run = jax.jit(lambda carry: evaluate(KEY, env, agent, (), 2, carry=carry)["returns"], compiler_options=FAST)
    # The memory counts up from where it began.
    np.testing.assert_allclose(run(None), [0.25 * 3, 0.25 * 3])
    np.testing.assert_allclose(run(jnp.asarray([-1.0, 1.0])), [0.0, 0.25 * 6])
