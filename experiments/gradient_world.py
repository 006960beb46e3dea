"""What the experiments on policy gradients share: a model that BPTT learned from, policies in it, and their returns."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import agents, data, envs, learners
from jmbrl.agents.bptt import climber, ensemble_of
from jmbrl.agents.imagination import beliefs_of, features
from jmbrl.learners import BPTT, BPTTState, World
from jmbrl.rollout import evaluate
from jmbrl.train import make_train
from jmbrl.types import Agent, Array, Env, Key, Model, PyTree

import common

TASKS = {"pendulum": "gymnax:Pendulum-v1", "cartpole_swingup": "cartpole_swingup"}
STEPS = 3_000


class Known(NamedTuple):
    """A task after ``STEPS`` real steps of a stochastic BPTT, one seed: its agent's state, and how to imagine in it."""

    env: Env
    agent: Agent
    model: Model
    settings: dict[str, Any]
    state: Any


@functools.cache
def known(task: str, seed: int, steps: int = STEPS) -> Known:
    """Trained here, as parameters are no part of a cell; an experiment trains each once."""
    settings = common.settings_of("bptt", task, {"stochastic": True})
    env, config = envs.make(TASKS[task]), agents.BPTTConfig(**settings)
    agent = agents.bptt(env, config)
    train = make_train(env, agent, steps)
    run = jax.jit(train)(jax.random.key(seed))[0]
    return Known(env, agent, ensemble_of(env, config), settings, run.agent)


def learner_of(there: Known, **changes: Any) -> BPTT:
    """A learner on the task's features: the system's own settings, and ``changes``."""
    config = agents.BPTTConfig(**{**there.settings, **changes})
    return climber(there.env.spec, there.model, config)


def world_of(there: Known) -> Callable[[Any], World]:
    """The world, given the agent's state."""

    def of(state: Any) -> World:
        step = lambda key, beliefs, actions: there.model.step_many(key, state.params, beliefs, actions)  # noqa: E731
        return World(step, lambda belief: features(there.model, state.params, state.seen, belief))

    return of


def starts(there: Known, key: Key, count: int, episodes: bool = False) -> PyTree:
    """``count`` beliefs of real states, or of those that episodes began with."""
    key_draw, key_encode = jax.random.split(key)
    replay = there.state.replay
    obs = data.sample_starts(key_draw, replay, count) if episodes else data.sample(key_draw, replay, count).obs
    return beliefs_of(key_encode, there.model, there.env.spec, there.state.params, obs)


def learned(there: Known, learner: BPTT, updates: int, batch: int) -> Callable[[Key, Any], tuple[BPTTState, Array]]:
    """``(key, agent's state) -> (learner's state, imagined return of each update)``: a policy from scratch, in the
    model as it is, from any real state."""

    def run(key: Key, state: Any) -> tuple[BPTTState, Array]:
        key_init, key_climb = jax.random.split(key)
        world = world_of(there)(state)

        def improve(policy: BPTTState, key: Key) -> tuple[BPTTState, Array]:
            key_draw, key_encode, key_update = jax.random.split(key, 3)
            obs = data.sample(key_draw, state.replay, batch).obs
            beliefs = beliefs_of(key_encode, there.model, there.env.spec, state.params, obs)
            policy, info = learner.update(key_update, policy, world, beliefs)
            return policy, info["return"]

        return jax.lax.scan(improve, learner.init(key_init), jax.random.split(key_climb, updates))

    return run


def real_return(there: Known, key: Key, state: Any, policy: PyTree, episodes: int = 10) -> Array:
    """Mean return of a policy's mode in the environment itself."""
    state = state._replace(learner=state.learner._replace(policy=policy))
    return jnp.mean(evaluate(key, there.env, there.agent, state, episodes)["returns"])


def with_value(there: Known, key: Key, policy: PyTree, updates: int, **changes: Any) -> PyTree:
    """The value of a policy that stays as it is, learned in the model."""
    learner = learner_of(there, terminal_value=True, learning_rate=0.0, **changes)
    key_init, key_learn = jax.random.split(key)

    @jax.jit
    def run(state: Any, first: BPTTState) -> PyTree:
        world = world_of(there)(state)

        def step(now: BPTTState, key: Key) -> tuple[BPTTState, None]:
            key_draw, key_encode, key_update = jax.random.split(key, 3)
            obs = data.sample(key_draw, state.replay, 128).obs
            beliefs = beliefs_of(key_encode, there.model, there.env.spec, state.params, obs)
            return learner.update(key_update, now, world, beliefs)[0], None

        return jax.lax.scan(step, first, jax.random.split(key_learn, updates))[0].slow

    return run(there.state, learners.BPTTState(policy, *learner.init(key_init)[1:]))


def median(values: Any) -> float:
    return float(np.median(np.asarray(values, float)))
