"""Model-predictive control in a world that changes: what is forgotten, when, and what the model then believes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import agents, configs, data, envs, models, planners
from jmbrl.models import Trainer
from jmbrl.train import make_train
from jmbrl.types import Continuous

from worlds import line


def geared(gear: float):
    """x' = x / 2 + gear a + noise."""

    def step(key, x, action):
        x = 0.5 * x + gear * action + 0.05 * jax.random.normal(key, (1,))
        return x, x, -jnp.sum(x**2), False

    return envs.from_functions(
        lambda key: (jnp.zeros(1), jnp.zeros(1)), step, action=Continuous((-1.0,), (1.0,)), max_steps=30, name="geared",
        reward_fn=PAY,
    )  # fmt: skip


def PAY(obs, action, next_obs):
    return -jnp.sum(next_obs**2)


@pytest.fixture(scope="module")
def lived():
    """The agent and its metrics after 400 steps, 200 before the gear is reversed and 200 after; with and without
    detection, side by side."""
    env = envs.changing((geared(0.5), geared(-0.5)), 200)
    model = models.linear(env.spec, reward=PAY)
    out = {}
    for name, change in (("detects", models.cusum(1e6, shift=1.0, reference=40)), ("trusts", None)):
        agent = agents.mpc(
            env.spec, model, planners.random_shooting(env.spec, horizon=2, population=20),
            trainer=models.trainer(model), fit_every=20, warmup=40, capacity=500, action_noise=0.5, change=change,
            fewest=30,
        )  # fmt: skip
        run, history = jax.jit(make_train(env, agent, 400))(jax.random.key(0))
        ends = jax.vmap(lambda a, params=run.agent.params: model.predict(params, jnp.zeros(1), a).mean)(
            jnp.asarray([[1.0], [-1.0]])
        )
        out[name] = run.agent, history, float(ends[0, 0] - ends[1, 0]) / 2
    return out


def test_an_alarm_drops_the_old_world_and_the_model_finds_the_new_gear(lived):
    state, history, gear = lived["detects"]
    alarms = np.flatnonzero(history["change/alarm"])  # fits at steps 40, 60, ...: the ninth looks at 180 to 199
    assert alarms.tolist() == [10]  # the first 20 of the new rows are fewer than 30, with the next they are 40
    since = int(history["change/since"][10])  # all but what the detector takes for the old world's
    assert 36 <= since <= 42
    assert int(state.replay.valid.sum()) == since + 160
    np.testing.assert_allclose(gear, -0.5, atol=0.02)
    assert float(history["change/surprise"][9]) > 3 > 1 > float(jnp.abs(history["change/surprise"][1:9]).max())


def test_without_detection_both_worlds_are_believed_at_once(lived):
    state, history, gear = lived["trusts"]
    assert "change/alarm" not in history
    assert state.watched is None
    assert int(state.replay.valid.sum()) == 400
    assert -0.3 < gear < 0.3


@pytest.fixture(scope="module")
def alarmed():
    """``(options) -> ``the state after a first fit and after a second, whose metrics come too; no trainer at work."""
    env = line(0.1)
    model = models.gaussian_mlp(env.spec, hidden=(4,), reward=env.reward_fn)
    idle = Trainer(lambda params: (), lambda key, params, opt, replay: (params, opt, {}))
    planner = planners.random_shooting(env.spec, horizon=2, population=4)
    replay = data.empty(env.spec, 100, 2)
    replay = replay._replace(
        valid=replay.valid.at[:30].set(True), size=jnp.asarray(30), cursor=jnp.asarray(30),
    )  # fmt: skip

    def fit_twice(**options):
        agent = agents.mpc(
            env.spec, model, planner, trainer=idle, fit_every=10, warmup=10, capacity=100, change=models.always(),
            **options,
        )  # fmt: skip

        def run(key):
            once, _ = agent.phases[0][1](key, agent.init(key, 2)._replace(replay=replay), 0)
            return once, *agent.phases[0][1](jax.random.fold_in(key, 1), once, 0)

        return jax.jit(run)(jax.random.key(0))

    return fit_twice


def test_a_model_that_was_never_fitted_is_not_surprised(alarmed):
    once, twice, info = alarmed(fewest=5)
    assert int(once.replay.valid.sum()) == 60
    assert float(info["change/alarm"]) == 1.0
    assert int(twice.replay.valid.sum()) == 10  # five steps of two environments make the ten between fits
    assert unchanged(once, twice)


def test_the_network_starts_anew_at_an_alarm_only(alarmed):
    once, twice, _ = alarmed(fewest=5, reset_weights=True, old_share=1.0)
    assert not unchanged(once, twice)
    assert int(twice.replay.valid.sum()) == 60
    once, twice, info = alarmed(fewest=6, reset_weights=True)  # only five rows lie after the change
    assert float(info["change/alarm"]) == 0.0
    assert unchanged(once, twice)
    assert int(twice.replay.valid.sum()) == 60


def unchanged(before, after) -> bool:
    before, after = (jax.tree.leaves(state.params.weights) for state in (before, after))
    return all(bool(jnp.array_equal(a, b)) for a, b in zip(before, after, strict=True))


def test_by_name_and_refusals():
    built = configs.make(
        "pets", "gymnax:Pendulum-v1", steps=10,
        settings=["change=cusum", "change_options.shift=2", "old_share=0.1", "reset_weights=true"],
    )["config"]  # fmt: skip
    assert built["change_options"] == {"shift": 2}
    with pytest.raises(ValueError, match="change must be one of"):
        agents.pets(line(), agents.PETSConfig(change="page"))
    for options, message in (
        ({"model": "simulator", "change": "cusum"}, "change needs a model that is learned"),
        ({"change": "cusum", "fewest": 0}, "fewest must be at least 1"),
        ({"old_share": 2.0}, "old_share must be at most 1"),
    ):
        with pytest.raises(ValueError, match=message):
            agents.mpc_by_name(line(), agents.MPCConfig(**options))
