"""What the experiments on policy gradients share: a model that BPTT learned from, policies in it, and their returns."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import agents, data, envs
from jmbrl.agents.imagination import beliefs_of
from jmbrl.learners import BPTT, BPTTState
from jmbrl.rollout import evaluate
from jmbrl.train import make_train
from jmbrl.types import Agent, Array, Ascent, Env, Key, PyTree

import common

TASKS = {"pendulum": "gymnax:Pendulum-v1", "cartpole_swingup": "cartpole_swingup"}
SCALE = {"pendulum": 0.1, "cartpole_swingup": 1.0}
STEPS = 3_000


class Setup(NamedTuple):
    """A task, and how BPTT with a stochastic policy imagines in its model; what it learned is a state apart."""

    env: Env
    agent: Agent

    @property
    def ascent(self) -> Ascent:
        assert self.agent.ascent is not None
        return self.agent.ascent


@functools.cache
def setup(task: str) -> Setup:
    # Values learn from rewards of about 1.
    values = {"reward_scale": SCALE[task], "value_learning_rate": 3e-3, "slow_rate": 0.05}
    settings = common.settings_of("bptt", task, {"stochastic": True, **values})
    env = envs.make(TASKS[task])
    return Setup(env, agents.bptt(env, agents.BPTTConfig(**settings)))


@functools.cache
def _run(task: str, steps: int) -> Callable:
    there = setup(task)
    return jax.jit(make_train(there.env, there.agent, steps))


@functools.cache
def known(task: str, seed: int, quick: bool) -> Any:
    """The agent's state after ``STEPS`` real steps. Parameters are no part of a cell: trained once a process."""
    return _run(task, 600 if quick else STEPS)(jax.random.key(seed))[0].agent


def begin(there: Setup, key: Key, state: Any, count: int) -> PyTree:
    """``count`` beliefs of states that episodes began with."""
    key_draw, key_encode = jax.random.split(key)
    obs = data.sample_starts(key_draw, state.replay, count)
    return beliefs_of(key_encode, there.agent.model, there.env.spec, state.params, obs)


def climbed(there: Setup, learner: BPTT, updates: int, batch: int) -> Callable:
    """``(key, agent's state, learner's state) -> (learner's state, imagined return of each update)``: as BPTT climbs,
    from any real state, in the model as it is."""

    def run(key: Key, state: Any, first: BPTTState) -> tuple[BPTTState, Array]:
        world = there.ascent.world(state)

        def improve(now: BPTTState, key: Key) -> tuple[BPTTState, Array]:
            key_start, key_update = jax.random.split(key)
            now, info = learner.update(key_update, now, world, there.ascent.starts(key_start, state, batch))
            return now, info["return"]

        return jax.lax.scan(improve, first, jax.random.split(key, updates))

    return run


def real_return(there: Setup, key: Key, state: Any, policy: PyTree, episodes: int = 10) -> Array:
    """Mean return of a policy's mode in the environment itself."""
    state = state._replace(learner=state.learner._replace(policy=policy))
    return jnp.mean(evaluate(key, there.env, there.agent, state, episodes)["returns"])


def with_policy(learner: BPTT, key: Key, policy: PyTree) -> BPTTState:
    """A fresh state but for its policy."""
    return learner.init(key)._replace(policy=policy)
