"""The same planner and agent as PETS, through a memory instead of an observation."""

import jax
import numpy as np

from jmbrl.agents import PlaNetConfig, planet
from jmbrl.rollout import evaluate
from jmbrl.train import make_train

from worlds import hidden_velocity

SMALL = PlaNetConfig(
    deter=32, stoch=4, hidden=32, units=32, free_nats=0.0, kl_scale=0.02, learning_rate=3e-3, updates=150,
    batch_size=16, length=17, horizon=8, population=60, elites=6, iterations=3, fit_every=120, warmup=300,
    action_noise=0.2, capacity=2000,
)  # fmt: skip


def test_it_learns_to_stop_a_mass_whose_velocity_it_cannot_see():
    env = hidden_velocity()
    agent = planet(env, SMALL)
    train = make_train(env, agent, 900)
    run, history = jax.jit(train)(jax.random.key(0))
    result = jax.jit(lambda key, state: evaluate(key, env, agent, state, 12))(jax.random.key(1), run.agent)
    random = history["reward"][:300].mean() * 30
    assert np.mean(result["returns"]) > 0.35 * random, (np.mean(result["returns"]), random)
    assert np.all(np.asarray(history["model/skipped"]) == 0)
