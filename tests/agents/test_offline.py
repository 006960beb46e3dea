"""Learning from a log alone, on a line whose best return is known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import agents, data, lanes, models
from jmbrl.rollout import evaluate
from jmbrl.stages import make_run
from jmbrl.train import make_train
from jmbrl.types import Agent, Transition

from worlds import line

# As in test_mbpo: doing nothing pays -6.67 an episode of 20 steps, the best policy -0.04.
STILL = -6.67
KEY = jax.random.key(0)
SMALL = agents.MOPOConfig(
    members=3, elites=2, hidden=(32,), weight_decay=(0.0, 0.0), learn_reward=False, model_learning_rate=5e-3,
    model_batch_size=32, epochs=60, holdout=0.0, penalty=0.1, length=2, rollouts=100, retain=3, real_ratio=0.2,
    policy_hidden=(32, 32), learning_rate=3e-3, batch_size=64, gamma=0.9, tau=0.02, alpha=0.1, updates=600,
    round_updates=100, evaluations=1, test_episodes=50,
)  # fmt: skip


def line_log(count: int = 200, act=lambda key, obs: jax.random.uniform(key, (1,), minval=-1.0, maxval=1.0)):
    """Rows of a policy on the line."""
    env = line()

    def choose(key, ring, carry, obs, is_first, explore):
        return act(key, obs), carry, {}

    def record(ring, carry, rows, valid):
        return data.add(ring, rows, valid)

    watcher = Agent(lambda key, n: data.empty(env.spec, count, n), lambda ring: (), choose, record)
    return jax.jit(make_train(env, watcher, count))(KEY)[0].agent


@pytest.fixture(scope="module", autouse=True)
def compiled_without_optimising():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lanes, "COMPILER_OPTIONS", {"xla_backend_optimization_level": 0})  # compiling is what costs
        yield


@pytest.fixture(scope="module")
def trained():
    env, log = line(), line_log()
    agent = agents.mopo(env, SMALL, log)
    run, history = make_run(env, agent, 1000)(KEY)
    return agent, log, run.agent, history


def test_a_log_of_random_actions_suffices_on_the_line(trained):
    _, _, state, history = trained
    assert history["episode_return"].shape == (50, 1)
    assert STILL / 4 < np.mean(history["episode_return"]) <= 0.0
    assert history["learner/updates"].tolist() == [100.0] * 6
    assert history["imagine/length"].tolist() == [2.0] * 6
    assert history["model/mse"].shape == (1,)
    assert state.memory.imagined.valid.sum() == 3 * 2 * 100


def test_the_log_stays_and_imagined_rewards_are_pessimistic(trained):
    """The true reward of an imagined row is known: what it lacks is the penalty, 0.1 of the largest spread."""
    _, log, state, _ = trained
    jax.tree.map(np.testing.assert_array_equal, state.replay, log)
    rows, count = data.rows(state.memory.imagined)
    lacking = (-jnp.sum(rows.next_obs**2, axis=-1) - rows.reward)[:count]
    member = models.gaussian_mlp(line().spec, (32,), weight_decay=(0.0, 0.0), reward=line().reward_fn)
    model = models.ensemble(member, 3, elites=2)
    unsure = models.uncertainty(model, state.params, rows.obs, rows.action)[:count]
    np.testing.assert_allclose(lacking, 0.1 * unsure, atol=1e-5)
    assert np.all(unsure > 0)


def test_morel_halts_where_the_log_ends_and_never_touches_the_environment():
    """Threshold from the log, in units of its spread; imagined rows beyond it end and pay the penalty."""

    def touched(*_):
        raise AssertionError("the environment was touched")

    log, env = line_log(), line()._replace(step=touched, reset=touched, vector=touched)
    changes = {
        "pessimism": "morel", "penalty": 50.0, "quantile": 0.5, "scaled": True, "test_episodes": 0, "updates": 100,
        "epochs": 20,
    }  # fmt: skip
    run, history = make_run(env, agents.mopo(env, dataclasses.replace(SMALL, **changes), log), 1)(KEY)
    assert "episode_return" not in history
    memory = run.agent.memory
    np.testing.assert_allclose(memory.scale, jnp.std(log.data.obs, axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(history["model/threshold"], memory.threshold)
    member = models.gaussian_mlp(line().spec, (32,), weight_decay=(0.0, 0.0), reward=line().reward_fn)
    model = models.ensemble(member, 3, elites=2)
    rows, count = data.rows(log)
    seen = models.uncertainty(model, run.agent.params, rows.obs, rows.action, "pairwise", memory.scale)
    np.testing.assert_allclose(jnp.mean(seen[:count] <= memory.threshold), 0.5, atol=0.01)
    imagined, count = data.rows(memory.imagined)
    found = models.uncertainty(model, run.agent.params, imagined.obs, imagined.action, "pairwise", memory.scale)
    clear = np.abs(found / memory.threshold - 1) > 1e-3  # what lies on the threshold may be rounded to either side
    np.testing.assert_array_equal((imagined.terminated == (found > memory.threshold))[:count] | ~clear[:count], True)
    assert 0 < imagined.terminated[:count].sum() < count
    np.testing.assert_array_equal(imagined.reward[:count][imagined.terminated[:count]], -50.0)


def test_tests_lie_evenly_along_the_updates():
    agent = agents.mopo(line(), dataclasses.replace(SMALL, evaluations=3, test_episodes=2), line_log())
    stages = agent.stages(line(), 120)
    assert [stage.name for stage in stages] == ["model", "policy", "test", "policy 2", "test 2", "policy 3", "test 3"]
    assert [stage.length for stage in stages] == [1, 2, 2, 2, 2, 2, 2]
    assert make_run(line(), agent, 120).env_steps(13) == 120


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pessimism": "hope"}, "pessimism must be one of none, mopo, morel; got 'hope'"),
        ({"updates": 150}, r"updates must be a multiple of round_updates \* evaluations = 100, got 150"),
        ({"test_episodes": -1}, "test_episodes must be at least 0, got -1"),
        ({"quantile": 1.5}, "quantile must be at most 1.0, got 1.5"),
        ({"penalty": -1.0}, "penalty must be at least 0.0, got -1.0"),
        ({"measure": "max"}, "measure must be one of std, pairwise, spread; got 'max'"),
        ({"real_ratio": 1.0}, "real_ratio must leave imagined rows"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        agents.mopo(line(), dataclasses.replace(SMALL, **change), line_log(20))


def test_bad_logs_are_named(tmp_path):
    env, log = line(), line_log(20)
    with pytest.raises(ValueError, match=r"log must name an \.npz file .*; got neither"):
        agents.mopo(env, SMALL)
    with pytest.raises(ValueError, match=r"path .*none\.npz must be an \.npz file"):
        agents.mopo(env, dataclasses.replace(SMALL, log=str(tmp_path / "none.npz")))
    with pytest.raises(ValueError, match="log must be one ring with valid rows, got 1 with 0 rows"):
        agents.mopo(env, SMALL, data.empty(env.spec, 5))
    with pytest.raises(ValueError, match="log must be one ring with valid rows, got 2 with 0 rows"):
        agents.bc(env, log=data.empty(env.spec, 5, 2))
    wide = jax.tree.map(lambda x: jnp.concatenate([x, x], axis=-1), log.data.obs)
    with pytest.raises(ValueError, match=r"obs of log has shape \(2,\), but the spec of line says \(1,\)"):
        agents.bc(env, log=log._replace(data=log.data._replace(obs=wide, next_obs=wide)))
    for agent in (agents.mopo(env, SMALL, log), agents.bc(env, log=log)):
        with pytest.raises(ValueError, match="steps must be at least"):
            make_run(env, agent, 10)


def test_a_clone_does_what_was_logged(tmp_path):
    """The log of a = -x, from a file; episodes of the same policy are worth the same."""
    log = line_log(200, lambda key, obs: jnp.clip(-obs, -1.0, 1.0))
    path = tmp_path / "log.npz"
    data.save_npz(path, log, line().spec)
    config = agents.BCConfig(log=str(path), hidden=(32,), learning_rate=1e-2, batch_size=32, epochs=40, every=20)
    agent = agents.bc(line(), config)
    run, history = make_run(line(), agent, 200)(KEY)
    assert history["learner/loss"].shape == (2,)
    assert history["learner/loss"][-1] < 1e-3
    obs = jnp.linspace(-0.8, 0.8, 9)[:, None]
    act = lambda obs: agent.act(KEY, run.agent, (), obs, jnp.asarray(True), False)[0]  # noqa: E731
    np.testing.assert_allclose(jax.vmap(act)(obs), -obs, atol=0.1)
    assert history["episode_return"].shape == (10, 1)
    shown = evaluate(KEY, line(), agent, run.agent, 20)["returns"]
    # x halves at each step: -x0^2 (1/4 + 1/16 + ...) = -x0^2 / 3, and E x0^2 = 1/3
    np.testing.assert_allclose(np.mean(shown), -1 / 9, atol=0.05)


def test_what_was_found_in_the_file_is_told(tmp_path):
    path, log = tmp_path / "log.npz", line_log(30)
    data.save_npz(path, log, line().spec)
    told = agents.SYSTEMS["mopo"].cost(line(), dataclasses.replace(SMALL, log=str(path)), 1000, 1)
    assert told == f"{path}: 30 rows of 2 episodes (0 dropped, 0 cut off); 600 updates of the policy"
    assert isinstance(log.data, Transition)
