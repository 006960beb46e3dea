"""Tiny worlds with known answers, shared by the tests."""

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import envs
from jmbrl.envs.finite import tables
from jmbrl.types import Agent, Continuous, Env


def counter(length: int = 5, breaks_at: int | None = None, max_steps: int = 100) -> Env:
    """Observation (t, 1); the reward is t before the step; terminates on reaching ``length``.

    ``breaks_at``: the observation becomes NaN there, once per episode.
    """

    def reset(key):
        return jnp.zeros(()), jnp.asarray([0.0, 1.0])

    def step(key, state, action):
        following = state + 1
        obs = jnp.stack([following, jnp.ones(())])
        if breaks_at is not None:
            obs = jnp.where(following == breaks_at, jnp.nan, obs)
        return following, obs, state, following >= length

    return envs.from_functions(
        reset, step, obs_shape=(2,), action=Continuous((-2.0,), (2.0,)), max_steps=max_steps, name="counter"
    )


def line(noise: float = 0.0, max_steps: int = 20, breaks_beyond: float = jnp.inf) -> Env:
    """x' = x + 0.5 a + noise, reward -x'^2: a linear world whose best action is known.

    ``breaks_beyond``: the observation is NaN where |x'| is larger, and the loop starts anew.
    """

    def reset(key):
        x = jax.random.uniform(key, (1,), minval=-1.0, maxval=1.0)
        return x, x

    def step(key, x, action):
        x = x + 0.5 * action + noise * jax.random.normal(key, (1,))
        return x, jnp.where(jnp.abs(x) > breaks_beyond, jnp.nan, x), -jnp.sum(x**2), False

    return envs.from_functions(
        reset,
        step,
        obs_shape=(1,),
        action=Continuous((-1.0,), (1.0,)),
        max_steps=max_steps,
        name="line",
        reward_fn=lambda obs, action, next_obs: -jnp.sum(next_obs**2),
    )


def picture_line(max_steps: int = 20, breaks_beyond: float = jnp.inf) -> Env:
    """``line`` as 10 x 10 pictures of a bright column at x, from -2 to 2; it breaks by rewards, as bytes cannot."""
    world = line(0.01, max_steps, breaks_beyond)

    def picture(x):
        column = jnp.clip(jnp.round((jnp.nan_to_num(x[0]) + 2.0) / 4.0 * 9.0), 0, 9)
        return jnp.tile(jnp.where(jnp.arange(10) == column, 255, 0)[None, :, None], (10, 1, 1)).astype(jnp.uint8)

    def reset(key):
        state, x = world.reset(key)
        return state, picture(x)

    def step(key, state, action):
        state, seen = world.step(key, state, action)
        return state, picture(seen.obs), jnp.where(jnp.isnan(seen.obs[0]), jnp.nan, seen.reward), False

    return envs.from_functions(
        reset, step, obs_shape=(10, 10, 1), obs_dtype="uint8", action=world.spec.action, max_steps=max_steps,
        name="picture_line",
    )  # fmt: skip


def random_walk_steps(env: Env) -> float:
    """Expected steps of uniformly random actions from the start to an end of a deterministic world: (I - P) t = 1."""
    true = tables(env)
    here = int(env.cells.index(env.reset(jax.random.key(0))[1]))
    reach, found = {here}, [here]
    while found:
        pairs = ((s, a) for s in found for a in range(true.next_state.shape[1]) if not true.terminated[s, a])
        found = list({int(true.next_state[pair]) for pair in pairs} - reach)
        reach |= set(found)
    states = np.asarray(sorted(reach))
    system = np.eye(len(states))
    for action in range(true.next_state.shape[1]):
        going = np.flatnonzero(~true.terminated[states, action])
        into = np.searchsorted(states, true.next_state[states[going], action])
        np.subtract.at(system, (going, into), 1 / true.next_state.shape[1])
    return float(np.linalg.solve(system, np.ones(len(states)))[np.searchsorted(states, here)])


def tally(periods=(), warmup: int = 0) -> Agent:
    """An agent that only counts: its state holds how often each phase ran, and the order."""

    def update(i):
        def run(key, state, step):
            calls, log, at, seen = state
            row = jnp.asarray([i, step], jnp.int32)
            return (calls.at[i].add(1), log.at[at].set(row), at + 1, seen), {f"phase{i}/step": step}

        return run

    def record(state, carry, rows, valid):
        calls, log, at, seen = state
        row = jnp.asarray([-1, seen], jnp.int32)
        return calls, log.at[at].set(row), at + 1, seen + rows.reward.shape[0]

    def init(key, num_envs):
        zero = jnp.zeros((), jnp.int32)
        return jnp.zeros(3, jnp.int32), jnp.full((64, 2), -9, jnp.int32), zero, zero

    def act(key, state, carry, obs, is_first, explore):
        steps = jnp.where(is_first, 0, carry) + 1
        return jax.random.uniform(key, (1,), minval=-1, maxval=1), steps, {"age": steps}

    phases = tuple((period, update(i)) for i, period in enumerate(periods))
    return Agent(init, lambda state: jnp.zeros((), jnp.int32), act, record, phases, warmup)


def hidden_velocity(max_steps: int = 30) -> Env:
    """A point mass seen without its velocity: x'' = 4 a, reward -x^2 - 0.1 v^2. Standing still needs a memory."""

    def reset(key):
        state = jnp.stack([jax.random.uniform(key, (), minval=-1.0, maxval=1.0), 0.0])
        return state, state[:1]

    def step(key, state, action):
        velocity = state[1] + 0.4 * action[0]
        state = jnp.stack([state[0] + 0.1 * velocity, velocity])
        return state, state[:1], -(state[0] ** 2) - 0.1 * velocity**2, False

    return envs.from_functions(
        reset, step, obs_shape=(1,), action=Continuous((-1.0,), (1.0,)), max_steps=max_steps, name="hidden_velocity"
    )
