"""The ``mpc`` system: parts by name, options by dotted keys, clear refusals."""

import dataclasses

import jax
import numpy as np
import pytest

from jmbrl import agents, configs
from jmbrl.agents.mpc_by_name import MODELS, PLANNERS, MPCConfig, make_model, make_planner, reduction
from jmbrl.train import make_train
from jmbrl.types import Continuous

from worlds import line, picture_line

OPTIONS = {"tabular": {"low": (-2.0,), "high": (2.0,), "bins": (5,), "action_bins": 3}}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_can_be_named_and_uses_the_given_reward(name):
    env = picture_line() if name == "world_model" else line()
    model = make_model(env, MPCConfig(model=name, model_options=OPTIONS.get(name, {})))
    params = model.init(jax.random.key(0))
    belief = model.initial(params)
    following, outcome = jax.eval_shape(model.step, jax.random.key(0), params, belief, np.zeros(1, np.float32))
    assert jax.tree.structure(following) == jax.tree.structure(belief)
    assert outcome.reward.shape == ()
    ensemble = make_model(line(), MPCConfig(model="gaussian_mlp", members=3, elites=2))
    assert ensemble.members == 3


@pytest.mark.parametrize("name", sorted(PLANNERS))
def test_every_planner_can_be_named(name):
    assert make_planner(line().spec, MPCConfig(planner=name, horizon=6)).horizon == 6


def test_risk_by_name_worked_by_hand():
    returns = np.asarray([[1.0, 2.0], [3.0, 2.0]])  # two particles, two candidates
    for risk, wanted in (("mean", [2, 2]), ("worst", [1, 2]), ("mean_minus_spread", [2 - 0.5, 2])):
        got = reduction(MPCConfig(risk=risk, risk_scale=0.5))(jax.numpy.asarray(returns))
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_options_by_dotted_keys_reach_their_part():
    config = configs.make(
        "mpc", "gymnax:Pendulum-v1", steps=10,
        settings=["planner=icem", "planner_options.population=30", "planner_options.elites=5", "model=linear"],
    )  # fmt: skip
    assert config["config"]["planner_options"] == {"population": 30, "elites": 5}
    built = configs.build(config)
    assert isinstance(built.env.spec.action, Continuous)
    assert built.agent.model.fit is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "gausian_mlp"}, "model must be one of"),
        ({"planner": "mcts"}, "planner must be one of"),
        ({"risk": "bold"}, "risk must be one of"),
        ({"trainer_options": {"epoch": 3}}, "trainer has no option epoch"),
    ],
)
def test_unknown_parts_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        agents.mpc_by_name(line(), MPCConfig(**changes))


def test_the_simulator_by_name_needs_no_trainer_and_a_solved_model_learns():
    page, config = agents.SYSTEMS["mpc"], MPCConfig(model="simulator", horizon=4, planner="icem")
    env = page.wrap(line(), config)
    agent = page.make(env, config)
    assert agent.phases == ()
    learns = dataclasses.replace(config, model="linear", fit_every=20, warmup=20, capacity=100)
    _, history = jax.jit(make_train(line(), page.make(line(), learns), 60))(jax.random.key(0))
    # x' = x + a / 2: a solved model is exact after one episode and leaves about (|x0| - 1/2)^2 to pay.
    assert float(history["episode_return"][59, 0]) > -0.3
