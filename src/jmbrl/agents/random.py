"""Uniformly random actions: the row every table starts with."""

import dataclasses

import jax.numpy as jnp

from jmbrl.agents.system import System
from jmbrl.rollout import random_actions
from jmbrl.types import Agent, Env


@dataclasses.dataclass(frozen=True)
class RandomConfig:
    """Nothing to set."""


def random(env: Env, config: RandomConfig = RandomConfig()) -> Agent:
    """An agent that learns nothing and acts uniformly."""
    del config
    nothing = jnp.zeros(())

    def act(key, state, carry, obs, is_first, explore):
        return random_actions(key, env.spec, 1)[0], carry, {}

    return Agent(
        init=lambda key, num_envs: nothing,
        reset=lambda state: nothing,
        act=act,
        record=lambda state, rows, valid: state,
    )


SYSTEMS = (System("random", RandomConfig, random, "uniformly random actions"),)
