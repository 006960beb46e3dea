"""Functions that are given rather than learned, against what was seen: by hand and by the run loop itself."""

import json
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import data, runner
from jmbrl.rollout import random_actions
from jmbrl.train import make_train
from jmbrl.types import Agent, Transition

from worlds import line

KEY = jax.random.key(0)


class Seen(NamedTuple):
    replay: data.Replay


def watcher(env, warmup=6):
    """Acts at random and keeps what it sees."""
    nothing = jnp.zeros(())
    return Agent(
        init=lambda key, num_envs: Seen(data.empty(env.spec, 30, num_envs)),
        reset=lambda state: nothing,
        act=lambda key, state, carry, obs, is_first, explore: (random_actions(key, env.spec, 1)[0], carry, {}),
        record=lambda state, carry, rows, valid: Seen(data.add(state.replay, rows, valid)),
        warmup=warmup,
    )


def two_lanes():
    """Two seeds' replays of three rows: the first agrees with reward 2, the second never; one row of each is broken."""
    env = line()._replace(reward_fn=lambda obs, action, next_obs: 2.0 + 0.0 * obs[0])

    def fill(key, reward):
        def body(ring, valid):
            flag = jnp.zeros(1, bool)
            row = Transition(jnp.ones((1, 1)), jnp.zeros((1, 1)), reward[None], jnp.ones((1, 1)), flag, flag)
            return data.add(ring, row, valid[None]), None

        return jax.lax.scan(body, data.empty(env.spec, 5), jnp.asarray([True, False, True]))[0]

    return env, jax.vmap(fill)(jax.random.split(KEY, 2), jnp.asarray([2.0, 0.5]))


def test_one_seeds_rows_are_compared():
    env, replays = two_lanes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert data.check_given(env, replays, lane=0) == (1.0, 0.0, None)
    with pytest.warns(data.AgreementWarning, match=r"in 0.0% of 2 rows; largest error 1.5 in row 0: seen 0.5"):
        assert data.check_given(env, replays, lane=1) == (0.0, 1.5, None)
    with pytest.warns(data.AgreementWarning, match=r"in 0.0% of 1 rows"):
        data.check_given(env, replays, lane=1, limit=1)


def test_nothing_to_compare_is_no_mistake():
    env, replays = two_lanes()
    assert data.check_given(env, None) is None
    assert data.check_given(env._replace(reward_fn=None), replays, lane=0) is None
    assert data.check_given(env, data.empty(env.spec, 5)) is None


def run_of(env, tmp_path=None, **options):
    train = make_train(env, watcher(env), 12)
    return runner.run(train, 0, tmp_path, options=runner.Options(quiet=True), **options)


@pytest.mark.filterwarnings("ignore:the policy was not exported")  # not what is tested here
def test_a_run_says_after_its_warm_up_that_a_given_function_is_wrong_and_goes_on(tmp_path):
    wrong = line()._replace(
        reward_fn=lambda obs, action, next_obs: 1.0 - jnp.sum(next_obs**2),
        termination_fn=lambda obs, action, next_obs: jnp.asarray(True),
    )
    with pytest.warns(data.AgreementWarning) as told:
        result = run_of(wrong, tmp_path, seeds=2)
    texts = [str(one.message) for one in told if one.category is data.AgreementWarning]
    assert len(texts) == 2  # once a run, not once a chunk
    assert texts[0].startswith("reward_fn agrees with the data in 0.0% of 6 rows; largest error 1 in row ")
    assert texts[1].startswith("termination_fn agrees with the data in 0.0% of 6 rows: 6 ends where 0 were seen")
    assert result.env_steps == 12
    saved = json.loads((tmp_path / "summary.json").read_text())["agreement"]
    assert (saved["reward"], saved["termination"]) == (0.0, 0.0)
    np.testing.assert_allclose(saved["reward_error"], 1.0, rtol=1e-5)


def test_a_run_with_the_true_functions_is_silent_and_says_so_in_its_summary():
    summary = run_of(line(noise=0.1)).summary
    assert summary["agreement"]["reward"] == 1.0
    assert summary["agreement"]["reward_error"] < 1e-5
    assert run_of(line()._replace(reward_fn=None)).summary["agreement"] == {}


def test_a_function_that_cannot_be_asked_does_not_end_the_run():
    impure = line()._replace(reward_fn=lambda obs, action, next_obs: float(next_obs[0]))
    with pytest.warns(UserWarning, match=r"were not compared with the data \(reward_fn must be pure JAX"):
        assert run_of(impure).env_steps == 12
