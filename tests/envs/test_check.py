"""check_env finds what is wrong, each fault by a message of its own."""

import dataclasses

import gymnasium
import jax
import jax.numpy as jnp
import pytest

from jmbrl import cells, envs
from jmbrl.envs.check_cells import cells_problems
from jmbrl.envs.vector import vector_factory
from jmbrl.types import Continuous, Env, Spec, TimeStep

QUARTERS = cells.grid(2, -1.0, 1.0, 2)
SPEC = Spec("toy", (2,), Continuous((-1.0,), (1.0,)), 20)


def build(reset=None, step=None, **changes):
    """A hand-made environment, good unless spoiled: a noisy point that is truncated after 20 steps."""

    def good_reset(key):
        return (jax.random.normal(key, (2,)), jnp.int32(0)), jax.random.normal(key, (2,))

    def good_step(key, state, action):
        point, time = state[0] + 0.1 * action + 0.01 * jax.random.normal(key, (2,)), state[1] + 1
        return (point, time), TimeStep(point, jnp.sum(point), jnp.zeros((), bool), time >= 20)

    spec = dataclasses.replace(SPEC, **changes.pop("spec", {}))
    env = Env(spec, reset or good_reset, step or good_step, None, **changes)
    return env._replace(vector=vector_factory(env))


def spoil(**fields):
    """A step whose timestep has other fields."""

    def step(key, state, action):
        state, timestep = build().step(key, state, action)
        return state, timestep._replace(**{k: f(timestep) for k, f in fields.items()})

    return build(step=step)


def test_a_good_environment_passes():
    report = envs.check_env(build())
    assert report.ok, str(report)
    assert "every check passed" in str(report)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (lambda: spoil(reward=lambda t: t.reward[None]), "reward has shape (1,), wanted ()"),
        (lambda: spoil(reward=lambda t: jnp.int32(1)), "reward is int32, wanted float32"),
        (lambda: spoil(reward=lambda t: jnp.asarray(1.0)), "reward has a weak type"),
        (lambda: spoil(reward=lambda t: 1.0), "reward"),
        (lambda: spoil(terminated=lambda t: jnp.float32(0)), "terminated is float32, wanted bool"),
        (lambda: spoil(truncated=lambda t: None), "truncated must be an array, got None"),
        (lambda: spoil(obs=lambda t: jnp.zeros(3)), "observation of step has shape (3,), wanted (2,)"),
        (lambda: build(reset=lambda k: (0, jnp.zeros(2, int))), "observation of reset is int32, wanted float32"),
        (lambda: build(step=lambda k, s, a: (s[0], build().step(k, s, a)[1])), "state changes its structure"),
        (lambda: build(step=lambda k, s, a: float(a[0])), "step could not be traced"),
        (lambda: build(spec={"obs_names": ("one",)}), "1 names for shape (2,)"),
        (lambda: build(spec={"obs_parts": (("one", (3,), "float32"),)}), "obs_parts must fill the observation"),
        (lambda: build(spec={"action": 3}), "spec.action must be Continuous or Discrete, got 3"),
        (lambda: build(spec={"action": Continuous((-jnp.inf,), (1.0,))}), "finite bounds or act_limit"),
    ],
)
def test_stage_one_names_what_came_and_what_was_wanted(env, message):
    report = envs.check_env(env())
    assert any(message in problem for problem in report.problems), str(report)


def test_stage_two_finds_environments_that_reset_themselves():
    def step(key, state, action):
        (point, time), timestep = build().step(key, state, action)
        fresh, obs = build().reset(key)
        state = jax.tree.map(lambda a, b: jnp.where(timestep.truncated, a, b), fresh, (point, time))
        return state, timestep._replace(obs=jnp.where(timestep.truncated, obs, timestep.obs))

    report = envs.check_env(build(step=step))
    assert any("must not reset itself" in p for p in report.problems), str(report)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (lambda: spoil(obs=lambda t: jnp.where(t.truncated, jnp.nan, t.obs)), "observation is not finite at step 19"),
        (lambda: spoil(truncated=lambda t: jnp.zeros((), bool)), "runs for 21 steps or more"),
        (lambda: spoil(terminated=lambda t: t.truncated), "both terminated and truncated"),
        (lambda: build(reward_fn=lambda o, a, n: jnp.sum(o)), "reward_fn is off by"),
        (lambda: build(termination_fn=lambda o, a, n: n[0] > 0), "termination_fn disagrees at"),
        (lambda: build(spec={"max_steps": 30}), "truncated after 20 steps, but spec.max_steps is 30"),
    ],
)
def test_stage_two_runs_and_compares(env, message):
    report = envs.check_env(env(), steps=1)
    assert any(message in problem for problem in report.problems), str(report)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"shape": ()}, None),
        ({"shape": (3, 2)}, "cells.shape (3, 2) has 6 places for 4"),
        ({"count": 3, "shape": ()}, "cells.index must be in [0, 3), got 3 at step 1 (2 such numbers)"),
        ({"count": 0}, "cells.count must be a positive integer, got 0"),
        ({"index": lambda obs: jnp.sum(obs)}, "cells.index of an observation must be int32[], got float32[]"),
        ({"index": lambda obs: obs.astype(int)}, "cells.index of an observation must be int32[], got int32[2]"),
        ({"index": lambda obs: obs[7][3]}, "cells raised"),
        ({"index": lambda obs: QUARTERS.index(-obs)}, "cells.index(cells.centre(0)) is 3 (4 of 4 are wrong)"),
        ({"centre": lambda i: jnp.zeros(3)}, "cells.centre of a number must be float32[2], got float32[3]"),
    ],
)
def test_the_numbering_is_looked_at(changes, message):
    seen = jnp.asarray([[-0.5, -0.5], [0.5, 0.5], [0.1, 7.0]])
    problems = cells_problems(build(cells=QUARTERS._replace(**changes)), [seen, seen])
    assert len(problems) == (message is not None), problems
    assert message is None or message in problems[0], problems


def test_check_env_looks_at_the_numbering():
    report = envs.check_env(build(cells=QUARTERS), steps=1)
    assert report.ok, str(report)
    report = envs.check_env(build(cells=QUARTERS._replace(index=lambda obs: QUARTERS.index(obs) + 4)), steps=1)
    assert ["cells.index must be in [0, 4), got" in p for p in report.problems] == [True], str(report)


def test_strict_raises_the_report():
    with pytest.raises(ValueError, match=r"toy: 1 problem.*\n- reward has shape"):
        envs.check_env(spoil(reward=lambda t: t.reward[None]), strict=True)


def test_an_environment_with_a_memory_of_its_own_is_not_deterministic():
    class Forgetful(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-9, 9, (1,))
        action_space = gymnasium.spaces.Discrete(2)
        count = 0

        def reset(self, seed=None, options=None):
            return jnp.zeros(1), {}

        def step(self, action):
            Forgetful.count += 1
            return jnp.full(1, float(Forgetful.count)), 0.0, False, False, {}

    report = envs.check_env(envs.from_gymnasium(Forgetful, max_steps=5), steps=10)
    assert any("same key gives different runs" in p for p in report.problems), str(report)
