"""What on-policy learners must find in the probe worlds. One program a learner and space: compiling is what costs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from learners.probes import NAMES, probe, rollout

from jmbrl.envs.vector import vectorize

GAMMA = 0.7
ROUNDS = 20  # of 256 steps
FAST = {"xla_backend_optimization_level": 0}  # halves the time to compile


def any_probe(which, space):
    """The probe whose number is ``which``, known only when it runs."""
    worlds = [probe(name, space, GAMMA).env for name in NAMES]
    reset = lambda key: jax.lax.switch(which, [world.reset for world in worlds], key)  # noqa: E731
    step = lambda *args: jax.lax.switch(which, [world.step for world in worlds], *args)  # noqa: E731
    return worlds[0]._replace(reset=reset, step=step)


@partial(jax.jit, static_argnums=(0, 1, 2), compiler_options=FAST)
def trained(learner, value_of, space, key, which, obs):
    """Its mode and V of each of ``obs[2, 1]``."""
    world = any_probe(which, space)
    world = world._replace(vector=partial(vectorize, world))

    def body(state, key):
        key_act, key_update = jax.random.split(key)
        rows = rollout(key_act, world, lambda key, x: learner.act(key, state, x, True)[0], 4, 64)
        return learner.update(key_update, state, rows)

    state, _ = jax.lax.scan(body, learner.init(key), jax.random.split(key, ROUNDS))
    return jax.vmap(lambda x: learner.act(key, state, x, False)[0])(obs), value_of(state, obs)


def assert_probes_are_solved(learner, value_of, space):
    """``value_of(state, obs[K, 1])``."""
    for which, name in enumerate(NAMES):
        world = probe(name, space, GAMMA)
        obs = jnp.resize(world.obs, (2, 1))
        action, value = trained(learner, value_of, space, jax.random.key(0), which, obs)
        if world.action is None:
            np.testing.assert_allclose(value, jnp.resize(world.value, 2), atol=0.1, err_msg=name)
        else:
            np.testing.assert_allclose(action[: len(world.obs)], world.action, atol=0.15, err_msg=name)
            np.testing.assert_allclose(value, jnp.resize(world.value, 2), atol=0.3, err_msg=name)  # it still explores
