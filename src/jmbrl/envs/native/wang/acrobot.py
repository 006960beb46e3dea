"""The benchmark's acrobot: swing two links up with a motor between them."""

import math

import jax
import jax.numpy as jnp

from jmbrl.envs import render, rewards
from jmbrl.envs.functions import from_functions
from jmbrl.envs.native.wang import MAX_STEPS, THRESHOLDED
from jmbrl.types import Array, Continuous, Env, Key

GRAVITY = 9.8
MASS, LENGTH, CENTRE, INERTIA = 1.0, 1.0, 0.5, 1.0  # of either link; the inertia is about its middle
TIMESTEP = 0.2  # s, one Runge-Kutta step
MAX_SPEEDS = (4 * math.pi, 9 * math.pi)
BORDER = 0.33  # an action below -0.33 is -1 Nm, below 0.33 none, else +1 Nm
START = 0.1


def make(max_steps: int = MAX_STEPS) -> Env:
    r"""The benchmark's ``gym_acrobot``.

    .. math:: r(s_t, a_t) = -\cos\theta_1 - \cos(\theta_1 + \theta_2)

    the height of the tip, in ``[-2, 2]``. Observation ``float32[6]``: ``[cos theta1, sin theta1, cos theta2,
    sin theta2, thetadot1, thetadot2]``; all zero angles hang. Action: one number in ``[-1, 1]``, below -0.33 a torque
    of -1 Nm on the second joint, below 0.33 none, else +1 Nm, so that it has no derivative (``no_gradient``).
    Runge-Kutta 4 at 0.2 s. The reward is that of the state before the step. Gym's end is ignored: never terminates.

    Source: Wang et al. 2019 (arXiv 1907.02057) and its code; Gymnasium's ``Acrobot-v1`` ("book") for the dynamics.
    """
    return from_functions(
        _reset,
        _step,
        action=Continuous((-1.0,), (1.0,)),
        max_steps=max_steps,
        name="wang/acrobot",
        obs_shape=(6,),
        obs_names=("cos_1", "sin_1", "cos_2", "sin_2", "velocity_1", "velocity_2"),
        reward_fn=reward_fn,
        termination_fn=rewards.never,
        render=render.acrobot,
        dt=TIMESTEP,
        no_gradient=THRESHOLDED,
    )


def reward_fn(obs: Array, action: Array, next_obs: Array) -> Array:
    """The benchmark's reward."""
    del action, next_obs
    cos1, sin1, cos2, sin2 = (obs[..., i] for i in range(4))
    return -cos1 - (cos1 * cos2 - sin1 * sin2)


def _observe(state: Array) -> Array:
    angles = state[:2]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return jnp.stack([cos[0], sin[0], cos[1], sin[1], state[2], state[3]])


def _reset(key: Key) -> tuple[Array, Array]:
    state = jax.random.uniform(key, (4,), minval=-START, maxval=START)
    return state, _observe(state)


def _step(key: Key, state: Array, action: Array) -> tuple[Array, Array, Array, bool]:
    del key
    torque = jnp.where(action[0] < -BORDER, -1.0, jnp.where(action[0] < BORDER, 0.0, 1.0))
    new = runge_kutta(state, torque)
    # The angles are not wrapped, as Gym's are: the observation and the dynamics read their sines and cosines only.
    limit = jnp.asarray([math.inf, math.inf, *MAX_SPEEDS])
    new = jnp.clip(new, -limit, limit)
    return new, _observe(new), reward_fn(_observe(state), action, new), False


def runge_kutta(state: Array, torque: Array) -> Array:
    """One classical Runge-Kutta step of ``TIMESTEP`` under a constant torque."""
    h = TIMESTEP
    slope1 = velocity(state, torque)
    slope2 = velocity(state + h / 2 * slope1, torque)
    slope3 = velocity(state + h / 2 * slope2, torque)
    slope4 = velocity(state + h * slope3, torque)
    return state + h / 6 * (slope1 + 2 * slope2 + 2 * slope3 + slope4)


def velocity(state: Array, torque: Array) -> Array:
    r"""``[thetadot1, thetadot2, thetaddot1, thetaddot2]`` of two equal links.

    With mass ``m``, length ``l``, half length ``c`` and inertia ``I``, the two rows of
    :math:`M(\theta_2)\ddot\theta + h(\theta, \dot\theta) + g(\theta) = (0, u)` (Sutton and Barto 2018, section 11.3;
    Spong 1995).
    """
    angle1, angle2, spin1, spin2 = state
    coupling = MASS * LENGTH * CENTRE
    cos2, sin2 = jnp.cos(angle2), jnp.sin(angle2)
    m22 = MASS * CENTRE**2 + INERTIA
    m12 = m22 + coupling * cos2
    m11 = 2 * m22 + MASS * LENGTH**2 + 2 * coupling * cos2
    gravity2 = MASS * CENTRE * GRAVITY * jnp.sin(angle1 + angle2)
    gravity1 = MASS * (CENTRE + LENGTH) * GRAVITY * jnp.sin(angle1) + gravity2
    force1 = coupling * sin2 * (spin2**2 + 2 * spin1 * spin2) - gravity1
    force2 = torque - coupling * sin2 * spin1**2 - gravity2
    determinant = m11 * m22 - m12**2
    twist1 = (m22 * force1 - m12 * force2) / determinant
    twist2 = (m11 * force2 - m12 * force1) / determinant
    return jnp.stack([spin1, spin2, twist1, twist2])
