"""The cart pole and the pendulum of PILCO's code (Deisenroth & Rasmussen 2011): steps of 0.1 s, 4 s, from hanging.

The state is shown as it is, angles included, which are not wrapped; ``theta = 0`` hangs down. The original adds noise
of standard deviation 0.01 to what is observed: ``envs.noisy`` does.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.envs import rewards
from jmbrl.envs.functions import from_functions
from jmbrl.types import Array, Continuous, Env, Key

MAX_STEPS = 40
DT = 0.1  # s
SUBSTEPS = 5
GRAVITY = 9.82


def integrated(slope: Callable, state: Array) -> Array:
    """``state`` after ``DT`` of ``slope(state)``, by the classical Runge-Kutta method."""
    h = DT / SUBSTEPS

    def step(state: Array, _: None) -> tuple[Array, None]:
        one = slope(state)
        two = slope(state + h / 2 * one)
        three = slope(state + h / 2 * two)
        four = slope(state + h * three)
        return state + h / 6 * (one + 2 * two + 2 * three + four), None

    return jax.lax.scan(step, state, None, length=SUBSTEPS)[0]


def swing_up(
    name: str,
    names: tuple[str, ...],
    slope: Callable,
    bound: float,
    reward_fn: Callable,
    max_steps: int,
    spread: float,
) -> Env:
    """A world of ``slope(state, push)``, seen as it is, one push in ``[-bound, bound]``; starts ``N(0, spread^2)``."""
    checks.number("spread", spread, 0.0)

    def reset(key: Key) -> tuple[Array, Array]:
        state = spread * jax.random.normal(key, (len(names),), jnp.float32)
        return state, state

    def step(key: Key, state: Array, action: Array) -> tuple[Array, Array, Array, bool]:
        del key
        following = integrated(lambda s: slope(s, action[0]), state)
        return following, following, reward_fn(state, action, following), False

    return from_functions(
        reset,
        step,
        action=Continuous((-bound,), (bound,)),
        max_steps=max_steps,
        name=name,
        obs_shape=(len(names),),
        obs_names=names,
        reward_fn=reward_fn,
        termination_fn=rewards.never,
        dt=DT,
    )
