"""Analytic policy gradients: the derivative of the true return through a differentiable simulator, an upper bound."""

import jax
import jax.numpy as jnp

from jmbrl import checks, models
from jmbrl.agents.bptt import BPTTConfig, climber, learner_of, world_in
from jmbrl.agents.off_policy import summary
from jmbrl.agents.system import System
from jmbrl.envs.wrappers import vector_size
from jmbrl.learners import BPTTState
from jmbrl.types import Agent, Array, Ascent, Env, Key, PyTree, Transition

DEFAULTS = BPTTConfig()


def analytic(env: Env, config: BPTTConfig = DEFAULTS) -> Agent:
    """A policy that climbs the return of ``horizon`` true steps from start states by the simulator's own derivative.

    Settings are ``bptt``'s; those of a learned model and of a replay mean nothing here, as nothing is remembered.

    The ``updates * batch_size * horizon`` steps that it takes in the simulator in each phase are not counted as the
    environment's: a bound, not a competitor.

    Raises:
      ValueError: an environment on the host, one that says why it has no derivative, or one of pictures.
    """
    if env.no_gradient:
        raise ValueError(f"analytic needs a differentiable environment; {env.spec.name}: {env.no_gradient}")
    vector_size("analytic", env.spec)
    model = models.simulator(env)
    learner = climber(env.spec, model, config)
    updates, batch = checks.integer("updates", config.updates, 1), checks.integer("batch_size", config.batch_size, 1)
    every = checks.integer("fit_every", env.spec.max_steps if config.fit_every is None else config.fit_every, 1)
    params = model.init(jax.random.key(0))
    world = world_in(model, params)

    def starts(key: Key, state: BPTTState, count: int) -> PyTree:
        del state
        return jax.vmap(env.reset)(jax.random.split(key, count))

    def init(key: Key, num_envs: int) -> BPTTState:
        del num_envs
        return learner.init(key)

    def act(key: Key, state: BPTTState, carry: PyTree, obs: PyTree, is_first: Array, explore: bool) -> tuple:
        return learner.act(key, state, jnp.ravel(obs), explore)[0], carry, {}

    def record(state: BPTTState, carry: PyTree, rows: Transition, valid: Array) -> BPTTState:
        return state

    def iterate(key: Key, state: BPTTState, step: Array) -> tuple[BPTTState, dict]:
        del step

        def improve(learned: BPTTState, key: Key) -> tuple[BPTTState, dict]:
            key_reset, key_update = jax.random.split(key)
            return learner.update(key_update, learned, world, starts(key_reset, learned, batch))

        learned, info = jax.lax.scan(improve, state, jax.random.split(key, updates))
        return learned, {f"policy/{name}": summary(name, x) for name, x in info.items()}

    ascent = Ascent(learner_of(env.spec, model, config), lambda state: world, starts, lambda state: state)
    phases = ((every, iterate),)
    return Agent(init, lambda state: (), act, record, phases, 0, model, lambda state: params, ascent=ascent)


SYSTEMS = (
    System("analytic", BPTTConfig, analytic, "policy gradients through the true differentiable simulator: a bound"),
)
