"""Policies by derivatives on a line whose best return is known: through a learned model, along real rows, exactly."""

import jax
import numpy as np
import pytest

from jmbrl import agents, envs
from jmbrl.rollout import evaluate
from jmbrl.train import make_train

from worlds import line

FAST = {"xla_backend_optimization_level": 0}
KEY = jax.random.key(0)
# x' = x + 0.5 a from x ~ U(-1, 1): where |x| > 0.5 a first step is not enough, and -(|x| - 0.5)^2 is lost.
BEST = -2 * 0.5 * 0.5**3 / 3
NETWORK = {"members": 2, "hidden": (16, 16), "epochs": 30, "model_batch_size": 32, "capacity": 200}
CLIMB = {"policy_hidden": (16,), "batch_size": 32, "updates": 60, "learning_rate": 1e-2}


def returned(system, steps, **settings):
    """The mean return of 32 episodes after a run, and its history."""
    env = line()
    page = agents.SYSTEMS[system]
    agent = page.make(env, page.config(**settings))
    run, history = jax.jit(make_train(env, agent, steps), compiler_options=FAST)(KEY)
    judge = jax.jit(lambda key, state: evaluate(key, env, agent, state, 32)["returns"], compiler_options=FAST)
    return np.mean(judge(jax.random.key(1), run.agent)), history


def test_the_true_simulators_derivative_leads_to_the_optimum():
    value, history = returned("analytic", 60, horizon=5, **CLIMB)
    assert BEST - 0.03 < value < BEST + 0.02
    assert history["policy/updates"].sum() == 180
    assert history["policy/skipped"].sum() == 0


@pytest.mark.parametrize(
    ("system", "settings"),
    [
        ("bptt", {"horizon": 4}),
        ("svg", {"gamma": 0.9}),  # SVG(1)
        ("svg", {"horizon": 4, "terminal_value": False}),  # SVG(inf), of windows
    ],
)
def test_a_learned_model_leads_near_it(system, settings):
    value, history = returned(system, 140, **CLIMB, **NETWORK, **settings)
    assert value > BEST - 0.25, value
    assert np.all(history["policy/skipped"] == 0)


def test_a_window_with_a_terminal_value_has_one_row():
    with pytest.raises(ValueError, match=r"horizon must be 1 with a terminal value, .* got 5"):
        agents.svg(line(), agents.SVGConfig(horizon=5))


def test_an_environment_without_a_derivative_is_refused():
    with pytest.raises(ValueError, match="analytic needs a differentiable environment"):
        agents.analytic(envs.make("wang/cartpole"))
