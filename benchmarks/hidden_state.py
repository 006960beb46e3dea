"""How much of a step one observation explains, and how much two do: ``python benchmarks/hidden_state.py [ENV]``.

A least-squares fit of the change of each entry on quadratic functions of the observation and the action, and of the
last two of both, over random actions. Where two explain much more than one, the observation is not the state.
"""

import sys

import jax
import numpy as np

from jmbrl import data, envs
from jmbrl.rollout import random_actions
from jmbrl.train import make_train
from jmbrl.types import Agent


def explained(inputs: np.ndarray, change: np.ndarray) -> np.ndarray:
    """The share of each column's variance that a quadratic function of the inputs explains."""
    x = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    rows, columns = np.triu_indices(x.shape[1])
    basis = x[:, rows] * x[:, columns]
    rest = change - basis @ np.linalg.lstsq(basis, change, rcond=None)[0]
    return 1.0 - rest.var(axis=0) / change.var(axis=0)


def main(name: str = "brax:inverted_pendulum", copies: int = 64, steps: int = 6400) -> None:
    env = envs.make(name)

    def act(key, ring, carry, obs, is_first, explore):
        return random_actions(key, env.spec, 1)[0], carry, {}

    agent = Agent(lambda key, n: data.empty(env.spec, steps // n, n), lambda ring: (), act, data.add)
    ring = jax.jit(make_train(env, agent, steps, copies))(jax.random.key(0))[0].agent
    obs, action, following = (np.asarray(x, np.float64) for x in (ring.data.obs, ring.data.action, ring.data.next_obs))
    goes_on = ~np.asarray(ring.is_first)[1:]
    change, now = (following - obs)[1:][goes_on], np.concatenate([obs, action], axis=-1)
    for count, inputs in ((1, now[1:]), (2, np.concatenate([now[1:], now[:-1]], axis=-1))):
        print(f"{name}, {count} observation(s):", np.round(explained(inputs[goes_on], change), 4).tolist())


if __name__ == "__main__":
    main(*sys.argv[1:2])
