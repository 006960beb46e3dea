"""The cart pole and the pendulum of PILCO's code (Deisenroth & Rasmussen 2011): steps of 0.1 s, 4 s, from hanging.

The state is shown as it is, angles included, which are not wrapped; ``theta = 0`` hangs down. The original adds noise
of standard deviation 0.01 to what is observed: ``envs.noisy`` does.
"""

from collections.abc import Callable

import jax

from jmbrl.types import Array

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
