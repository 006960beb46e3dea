"""Worlds of one or two steps whose values and best actions are known, for every learner to find (rejax's idea).

A learner that fails on the first of them has a broken value loss; on the second, a value that does not read its
observation; on the third, a wrong discount; on the fourth and fifth, a wrong policy or advantage; on the last, a time
limit taken for the end of the world.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import envs
from jmbrl.rollout import random_actions
from jmbrl.types import ActionSpace, Array, Continuous, Discrete, Env, Transition

BOX, TWO = Continuous((-1.0,), (1.0,)), Discrete(2)
NAMES = ("constant", "sign", "later", "action", "both", "endless")


class Probe(NamedTuple):
    """A world and what is known of it.

    ``obs``: ``float32[K, 1]``, its states. ``value``: ``float32[K]``, of the best policy in each. ``action``: the best
    actions ``[K, ...]``, None where it does not matter what one does.
    """

    env: Env
    obs: Array
    value: Array
    action: Array | None = None


def probe(name: str, action: ActionSpace = TWO, gamma: float = 0.7) -> Probe:
    """One of ``NAMES``; ``action`` is ``TWO`` or ``BOX``.

    * ``constant``: one step, reward 1.
    * ``sign``: one step, observation -1 or 1, the reward is the observation.
    * ``later``: observation 0, then 1; the reward 1 comes with the second step.
    * ``action``: one step; two actions: the second earns 1, the first 0; a box: ``1 - (a - 0.5)^2``.
    * ``both``: one step, observation -1 or 1; two actions: 1 for the first at -1 and for the second at 1, else 0; a
      box: ``1 - (a - 0.5 obs)^2``.
    * ``endless``: reward 1 for ever, cut off by a time limit every 4 steps.
    """
    signs, origin, both = jnp.asarray([[-1.0], [1.0]]), jnp.zeros((1, 1)), jnp.asarray([[0.0], [1.0]])
    box = isinstance(action, Continuous)

    def start(key):
        if name in ("sign", "both"):
            return jnp.where(jax.random.bernoulli(key), jnp.ones(1), -jnp.ones(1))
        return jnp.zeros(1)

    def earned(obs, a):
        if name in ("constant", "endless"):
            return jnp.ones(())
        if name in ("sign", "later"):
            return obs[0]
        goal = 0.5 * obs[0] if name == "both" else 0.5
        if box:
            return 1.0 - (a[0] - goal) ** 2
        return (a == (obs[0] > 0 if name == "both" else 1)).astype(jnp.float32)

    def step(key, obs, a):
        following = jnp.ones(1) if name == "later" else obs
        ends = obs[0] > 0 if name == "later" else name != "endless"
        return following, following, earned(obs, a), ends

    known = {
        "constant": (origin, [1.0], None),
        "sign": (signs, [-1.0, 1.0], None),
        "later": (both, [gamma, 1.0], None),
        "action": (origin, [1.0], [[0.5]] if box else [1]),
        "both": (signs, [1.0, 1.0], [[-0.5], [0.5]] if box else [0, 1]),
        "endless": (origin, [1.0 / (1.0 - gamma)], None),
    }
    obs, value, best = known[name]
    env = envs.from_functions(
        lambda key: (start(key),) * 2, step, obs_shape=(1,), action=action, max_steps=4, name=f"probe_{name}"
    )
    return Probe(env, obs, jnp.asarray(value), None if best is None else jnp.asarray(best))


def rollout(key, env: Env, act=None, length: int = 8, num_envs: int = 64) -> Transition:
    """``Transition[length, num_envs]`` of ``act(key, obs) -> action`` in fresh worlds; None: random actions."""
    worlds = env.vector(num_envs)
    key_reset, key_run = jax.random.split(key)

    def body(carry, key):
        state, obs = carry
        key_act, key_step, key_restart = jax.random.split(key, 3)
        if act is None:
            action = random_actions(key_act, env.spec, num_envs)
        else:
            action = jax.vmap(act)(jax.random.split(key_act, num_envs), obs)
        state, seen = worlds.step(key_step, state, action)
        row = Transition(obs, action, seen.reward, seen.obs, seen.terminated, seen.truncated)
        return worlds.restart(key_restart, seen.terminated | seen.truncated, state, seen.obs), row

    return jax.lax.scan(body, worlds.reset(key_reset), jax.random.split(key_run, length))[1]
