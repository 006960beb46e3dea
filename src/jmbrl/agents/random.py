"""Random actions: the row every table starts with, and the first data of many systems."""

import dataclasses

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.agents.system import System
from jmbrl.rollout import no_action, random_actions
from jmbrl.types import Agent, Array, Env, Key, PyTree


@dataclasses.dataclass(frozen=True)
class RandomConfig:
    """Settings: an action lasts 1 to ``hold`` steps, each as likely."""

    hold: int = 1


def random(env: Env, config: RandomConfig = RandomConfig()) -> Agent:
    """An agent that learns nothing and acts uniformly.

    Held actions reach further than independent ones, whose effects cancel out (World Models, Doom: up to 10 steps).

    Raises:
      ValueError: ``hold`` below 1.
    """
    hold = checks.integer("hold", config.hold, 1)
    nothing = jnp.zeros(())

    def act(
        key: Key, state: PyTree, carry: tuple, obs: PyTree, is_first: Array, explore: bool
    ) -> tuple[Array, tuple, dict]:
        del state, obs, explore
        drawn = random_actions(key, env.spec, 1)[0]
        if hold == 1:
            return drawn, carry, {}
        held, left = carry
        anew = is_first | (left == 0)
        length = jax.random.randint(jax.random.fold_in(key, hold), (), 1, hold + 1)
        action, left = jnp.where(anew, drawn, held), jnp.where(anew, length, left) - 1
        return action, (action, left), {}

    return Agent(
        init=lambda key, num_envs: nothing,
        reset=lambda state: nothing if hold == 1 else (no_action(env.spec), jnp.zeros((), jnp.int32)),
        act=act,
        record=lambda state, carry, rows, valid: state,
    )


SYSTEMS = (System("random", RandomConfig, random, "uniformly random actions"),)
