"""A budget on imagined costs keeps real episodes within it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import agents, envs, models, planners
from jmbrl.rollout import evaluate
from jmbrl.types import Continuous

GOAL, CENTRE, RADIUS = jnp.asarray([1.0, 0.0]), jnp.asarray([0.0, 0.02]), 0.4
EPISODES = 20


def field():
    """A point that moves by a fifth of its action, with a little noise, from the left of a pond to its right."""

    def reset(key):
        x = jnp.asarray([-1.0, 0.0]) + 0.1 * jax.random.normal(key, (2,))
        return x, x

    def step(key, x, action):
        x = x + 0.2 * action + 0.005 * jax.random.normal(key, (2,))
        return x, x, -jnp.sum((x - GOAL) ** 2), False

    return envs.from_functions(
        reset, step, obs_shape=(2,), action=Continuous((-1.0, -1.0), (1.0, 1.0)), max_steps=20, name="field",
        reward_fn=lambda obs, action, next_obs: -jnp.sum((next_obs - GOAL) ** 2, axis=-1),
    )  # fmt: skip


def wet(obs, action, next_obs):
    """1 in the pond and in a rim of 0.1 around it, as the noise may carry the point over an edge."""
    return (jnp.linalg.norm(next_obs - CENTRE, axis=-1) < RADIUS + 0.1).astype(jnp.float32)


@pytest.fixture(scope="module")
def episodes():
    """With and without a budget: returns, and steps spent in the pond, of twenty episodes each."""
    env = envs.with_state(field())
    model = models.with_cost(models.simulator(env), wet)
    planner = planners.icem(env.spec, horizon=8, population=64, elites=8, iterations=3)
    out = {}
    for name, budget in (("free", None), ("bounded", (0.5,))):
        agent = agents.mpc(env.spec, model, planner, budget=budget)
        run = jax.jit(lambda key, agent=agent: evaluate(key, env, agent, agent.init(key, 1), EPISODES, trace=True))
        seen = run(jax.random.key(0))
        distance = np.linalg.norm(np.asarray(seen["observations"].obs) - np.asarray(CENTRE), axis=-1)
        out[name] = np.asarray(seen["returns"]), np.sum(distance < RADIUS, axis=0)
    return out


def test_without_a_budget_the_straight_way_leads_through_the_pond(episodes):
    _, spent = episodes["free"]
    assert np.all(spent >= 2)


def test_with_a_budget_no_episode_enters_it_and_the_goal_is_reached_all_the_same(episodes):
    returns, spent = episodes["bounded"]
    np.testing.assert_array_equal(spent, 0)
    # Standing still would cost 4 a step, 80 in all.
    assert np.median(returns) > -40
