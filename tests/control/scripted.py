"""A plant and agents whose every action is known beforehand."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl.types import Agent, Continuous, Spec

SPEC = Spec("scripted", (1,), Continuous((-2.0,), (2.0,)), max_steps=1000)
PERIOD = 0.1


class Plant:
    """Shows 0.0, 0.1, 0.2, ... and pays 1; one unit of the library's actions is 2 of its own."""

    def __init__(self, clock=None, raises_at=None, error=None, nan_at=(), ends_every=None):
        self.spec, self.clock = SPEC, clock
        self.raises_at, self.error, self.nan_at, self.ends_every = raises_at, error, nan_at, ends_every
        self.applied, self.times, self.calls, self.looks = [], [], [], 0

    def reset(self):
        self.calls.append("reset")
        self.step = 0
        return np.zeros(1)

    def apply(self, action):
        self.calls.append("apply")
        self.applied.append(float(action[0]))
        self.times.append(None if self.clock is None else self.clock.now())

    def observe(self):
        self.step, self.looks = self.step + 1, self.looks + 1
        if self.looks == self.raises_at:
            raise self.error
        obs = np.nan if self.looks in self.nan_at else 0.1 * self.step
        return np.asarray([obs]), 1.0, False, self.step == self.ends_every

    def stop(self):
        self.calls.append("stop")


class Memory(NamedTuple):
    action: jax.Array
    plan: jax.Array
    plan_state: jax.Array


def planner():
    """The action is what is seen, and the plan adds 0.1 a step: 0.2, 0.3, 0.4."""

    def reset(state):
        return Memory(jnp.zeros(1), jnp.zeros((3, 1)), jnp.zeros(()))

    def act(key, state, carry, obs, is_first, explore):
        plan = obs + 0.1 * jnp.arange(3.0)[:, None]
        return plan[0], Memory(plan[0], plan, jnp.where(is_first, 0.0, carry.plan_state + 1)), {}

    return Agent(lambda key, num_envs: {}, reset, act, lambda state, *rest: state)


def climber():
    """0.1 more than the action that led here; NaN for observations above 0.45 that are below 0.55."""

    def act(key, state, carry, obs, is_first, explore):
        action = jnp.where(is_first, 0.0, carry.action) + 0.1
        action = jnp.where(jnp.abs(obs - 0.5) < 0.05, jnp.nan, action)
        return action, carry._replace(action=action), {}

    return planner()._replace(act=act)


def learner(period=5, warmup=0, update=lambda w, step: w + 0.1):
    """Acts by its weight and adds 0.1 to it at each update; remembers the rows it was given."""

    def init(key, num_envs):
        return {"w": jnp.zeros(1), "seen": jnp.zeros((100, 1)), "rows": jnp.zeros((), jnp.int32)}

    def act(key, state, carry, obs, is_first, explore):
        return state["w"], carry, {}

    def record(state, carry, rows, valid):
        at = state["rows"]
        return state | {"seen": state["seen"].at[at].set(jnp.where(valid, rows.obs[0], -1.0)), "rows": at + 1}

    def phase(key, state, step):
        return state | {"w": update(state["w"], step)}, {"rows": state["rows"]}

    return Agent(init, lambda state: jnp.zeros(()), act, record, ((period, phase),), warmup)
