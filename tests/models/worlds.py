"""Small worlds and small models that the tests of ``jmbrl.models`` share."""

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import data, models
from jmbrl.types import Array, Continuous, Discrete, Env, Model, Outcome, Params, Spec, TimeStep

CONTINUOUS = Spec("linear", (3,), Continuous((-1.0,), (1.0,)), 20)
DISCRETE = Spec("linear", (3,), Discrete(2), 20)


def reward(obs: Array, action: Array, next_obs: Array) -> Array:
    return jnp.sum(next_obs) - 0.1 * jnp.sum(jnp.asarray(action, jnp.float32) ** 2)


def termination(obs: Array, action: Array, next_obs: Array) -> Array:
    return next_obs[0] > 1.0


def batch(spec: Spec, count: int = 16, seed: int = 0):
    """Observations and actions, ``[count, ...]``."""
    obs = jax.random.normal(jax.random.key(seed), (count, *spec.obs_shape))
    key = jax.random.key(seed + 1)
    if isinstance(spec.action, Discrete):
        return obs, jax.random.randint(key, (count,), 0, spec.action.n)
    return obs, jax.random.uniform(key, (count, spec.action.dim), minval=-1.0, maxval=1.0)


def linear_replay(count: int = 400, noise: float = 0.1, capacity: int | None = None, seed: int = 0) -> data.Replay:
    """``next = 0.8 obs + 0.3 action + noise``; the reward is ``obs[0]``."""
    rng = np.random.default_rng(seed)
    obs = rng.normal(size=(count, 3)).astype(np.float32)
    action = rng.uniform(-1, 1, (count, 1)).astype(np.float32)
    following = 0.8 * obs + 0.3 * action + noise * rng.normal(size=obs.shape).astype(np.float32)
    return data.from_arrays(obs, action, obs[:, 0], following, following[:, 0] > 1, capacity=capacity)


def line_env() -> Env:
    """A point on a line: ``x <- x + 0.1 a``, reward ``-x^2``, over where ``|x| > 1``."""
    spec = Spec("line", (1,), Continuous((-1.0,), (1.0,)), 20)

    def reset(key):
        state = jax.random.uniform(key, (1,), minval=-0.5, maxval=0.5)
        return state, state

    def step(key, state, action):
        state = state + 0.1 * action
        return state, TimeStep(state, -jnp.sum(state**2), jnp.abs(state[0]) > 1.0, jnp.zeros((), bool))

    return Env(spec, reset, step, vector=lambda num_envs: None)


def adder(spec: Spec = CONTINUOUS) -> Model:
    """A model whose one weight is added to the belief: a member tells its number by what it adds."""
    base = models.deterministic_mlp(spec, (4,))

    def step(key: Array, params: Params, belief: Array, action: Array):
        del key, action
        value = params.weights["add"]
        return belief + value, Outcome(value, jnp.ones(()), jnp.zeros(0), jnp.zeros((), bool))

    def step_many(key: Array, params: Params, beliefs: Array, actions: Array):
        return jax.vmap(step, in_axes=(None, None, 0, 0))(key, params, beliefs, actions)

    def init(key: Array) -> Params:
        return Params({"add": jax.random.uniform(key)}, ())

    def expect(params: Params, beliefs: Array, actions: Array):
        return step_many(jax.random.key(0), params, beliefs, actions)

    return base._replace(init=init, step=step, step_many=step_many, loss=None, predict=None, expect=expect)


def adder_params(n: int, elites: list[int] | None = None) -> Params:
    """Member ``i`` adds ``i``."""
    elites = list(range(n)) if elites is None else elites
    return Params({"add": jnp.arange(float(n))}, models.EnsembleStats((), jnp.array(elites, jnp.int32)))
