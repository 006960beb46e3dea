"""A policy's value from logged data, in worlds where it is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import data, models
from jmbrl.diagnostics.off_policy_value import member_returns, off_policy_value, summary
from jmbrl.models import EnsembleStats
from jmbrl.types import Continuous, Discrete, Outcome, Params, Spec

SPEC = Spec("line", (1,), Continuous((-1.0,), (1.0,)), 20)
NOISE, GAIN, HORIZON, GAMMA = 0.3, 0.6, 8, 0.9
KEY = jax.random.key(0)


def value_at(second_moment: float) -> float:
    """Of a = -0.6 x in x' = 0.9 x + 0.5 a + noise with reward -x'^2: E x^2 <- 0.6^2 E x^2 + noise^2, discounted."""
    total = 0.0
    for t in range(HORIZON):
        second_moment = (0.9 - 0.5 * GAIN) ** 2 * second_moment + NOISE**2
        total -= GAMMA**t * second_moment
    return total


def logged(rng: np.random.Generator, count: int) -> data.Replay:
    obs, action = rng.normal(size=(count, 1)), rng.uniform(-1, 1, (count, 1))
    following = 0.9 * obs + 0.5 * action + NOISE * rng.normal(size=(count, 1))
    return data.from_arrays(obs, action, -(following[:, 0] ** 2), following, np.zeros(count, bool))


def test_the_interval_covers_the_true_value_as_often_as_it_says():
    """40 logs of 40 rows, starts from a standard normal; 95 % of 40 is 38, and fewer than 33 has a chance of 0.3 %."""
    reward = lambda obs, action, next_obs: -jnp.sum(next_obs**2)  # noqa: E731
    model = models.ensemble(models.linear(SPEC, reward=reward, clip_range=None), 8)
    fit, act = models.trainer_for(model).fit, lambda key, obs: -GAIN * obs
    numbers = [np.random.default_rng(seed) for seed in range(40)]
    logs = jax.tree.map(lambda *x: jnp.stack(x), *[logged(rng, 40) for rng in numbers])
    starts = jnp.asarray([rng.normal(size=(30, 1)) for rng in numbers], jnp.float32)

    @jax.jit
    @jax.vmap
    def run(key, log, starts):
        params = fit(key, model.init(KEY), (), log)[0]
        return member_returns(key, model, params, starts, act, HORIZON, GAMMA, 4)[0]

    returns = np.asarray(run(jax.random.split(KEY, 40), logs, starts), float)
    found = [summary(values, seed, 500, 0.95) for seed, values in enumerate(returns)]
    low, high = np.asarray([each["interval"] for each in found]).T
    true = value_at(1.0)
    assert np.sum((low <= true) & (true <= high)) >= 33
    assert np.median(high - low) < 2.5 * abs(true)  # no interval covers by being endless


def steady(rewards, std=0.0):
    """Members that pay a constant each and end after three steps; the belief counts them."""
    base = models.deterministic_mlp(SPEC, (4,))

    def step_many(key, params, beliefs, actions):
        reward = params.weights + 0.0 * beliefs[:, 0] + std * jax.random.normal(key, beliefs[:, 0].shape)
        going = (beliefs[:, 0] < 2).astype(jnp.float32)
        return beliefs + 1, Outcome(reward, going, jnp.zeros((len(beliefs), 0)), beliefs[:, 0] > 1)

    member = base._replace(step_many=step_many, init=lambda key: Params(jnp.asarray(rewards[0]), ()))
    elites = jnp.arange(len(rewards), dtype=jnp.int32)
    return models.ensemble(member, len(rewards)), Params(jnp.asarray(rewards), EnsembleStats((), elites))


def test_members_and_starts_by_hand():
    """Members pay 1, 2 and 3 a step for 3 - x0 steps: starts at 0 and 2 last 3 and 1, on average 2."""
    model, params = steady([1.0, 2.0, 3.0])
    starts, act = jnp.asarray([[0.0], [2.0]]), lambda key, obs: jnp.zeros(1)
    found = off_policy_value(KEY, model, params, starts, act, 5)
    np.testing.assert_allclose(found["members"], [2.0, 4.0, 6.0])
    np.testing.assert_allclose(found["value"], 4.0)
    np.testing.assert_allclose(found["std_members"], 2 * np.sqrt(4 / 3), rtol=1e-6)
    # starts are worth 6 and 2 in the mean member: the mean of two draws has the standard deviation 2 / sqrt(2)
    np.testing.assert_allclose(found["std_starts"], np.sqrt(2), rtol=0.05)
    np.testing.assert_allclose(found["clipped"], 2 / 4)  # the last step of each
    short = off_policy_value(KEY, model, params, starts, act, 2, gamma=0.5)
    np.testing.assert_allclose(short["members"], [1.25, 2.5, 3.75])  # 1 + 1/2, and 1


def test_a_single_model_has_the_interval_of_its_starts():
    model, params = steady([1.0])
    single, own = model.member, Params(params.weights[0], ())
    act = lambda key, obs: jnp.zeros(1)  # noqa: E731
    found = off_policy_value(KEY, single, own, jnp.asarray([[0.0], [2.0]]), act, 5)
    assert (found["value"], found["std_members"], found["interval"]) == (2.0, 0.0, (1.0, 3.0))


def test_a_chain_of_two_states_in_tables():
    """From 0 action 1 leads to 1 (reward 0), from 1 back to 0 and pays 1: half of ten steps are paid."""
    spec = Spec("chain", (1,), Discrete(2), 10)
    obs, action = np.asarray([[0], [0], [1], [1]] * 5), np.asarray([0, 1, 0, 1] * 5)
    following = np.where(action[:, None] == 1, 1 - obs, obs)
    log = data.from_arrays(obs, action, obs[:, 0] * action, following, np.zeros(20, bool))
    model = models.ensemble(models.tabular(spec, low=-0.5, high=1.5, bins=2), 3)
    params = jax.jit(models.trainer_for(model).fit)(KEY, model.init(KEY), (), log)[0]
    act = lambda key, obs: jnp.asarray(1, jnp.int32)  # noqa: E731
    found = off_policy_value(KEY, model, params, jnp.zeros((3, 1)), act, 10)
    assert found["members"] == [5.0, 5.0, 5.0]
    assert found["interval"] == (5.0, 5.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"starts": jnp.zeros((1, 1))}, "starts must be at least two and confidence inside"),
        ({"confidence": 1.0}, "starts must be at least two and confidence inside"),
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"rollouts": 0}, "rollouts must be at least 1, got 0"),
        ({"gamma": 1.1}, "gamma must be at most 1.0, got 1.1"),
        ({"starts": jnp.asarray([[0.0], [jnp.nan]])}, "returns imagined from 1 starts are not finite"),
    ],
)
def test_bad_arguments_are_named(change, message):
    model, params = steady([1.0, 2.0])
    given = {"starts": jnp.zeros((2, 1)), "horizon": 2} | change
    with pytest.raises(ValueError, match=message):
        off_policy_value(KEY, model, params, act=lambda key, obs: jnp.zeros(1), **given)
