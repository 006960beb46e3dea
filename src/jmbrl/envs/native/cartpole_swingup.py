"""The cart pole of PETS: swing a hanging pole up by pushing its cart.

Chua et al., "Deep Reinforcement Learning in a Handful of Trials" (2018), ``MBRLCartpole-v0``. The original runs
in MuJoCo; the same model (a cart on a rail, a capsule pole, joint damping, a rail 2.5 m to each side with
MuJoCo's soft end stops, Runge-Kutta 4 at 0.02 s, two steps a control) is written out here so that it compiles,
vectorises and differentiates. ``tests/envs/test_cartpole_swingup.py`` steps MuJoCo beside it.

The observation is what PETS feeds its model, ``[sin theta, cos theta, x, xdot, thetadot]``; ``theta = 0`` hangs
down. The reward is a function of the next observation and the action.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl.envs import render
from jmbrl.envs.functions import from_functions
from jmbrl.types import Array, Continuous, Env, Key

MAX_STEPS = 200
TIMESTEP = 0.02  # s, one Runge-Kutta step
SUBSTEPS = 2
LENGTH = 0.6  # m, the pole
MAX_CONTROL = 3.0
GEAR = 100.0  # N for one unit of control
GRAVITY = 9.81
DAMPING = 1.0  # N s/m on the rail, N m s/rad in the hinge
RAIL = 2.5  # m to each side
DENSITY = 1000.0  # kg/m^3
OBS_NAMES = ("sin_theta", "cos_theta", "x", "x_dot", "theta_dot")


def _capsule(radius: float, length: float) -> tuple[float, float]:
    """Mass and moment of inertia about an axis through the middle, across the length, of a solid capsule."""
    cylinder = DENSITY * math.pi * radius**2 * length
    caps = DENSITY * 4 / 3 * math.pi * radius**3
    across = cylinder * (3 * radius**2 + length**2) / 12
    # A half ball's centre is 3/8 of its radius beyond the cylinder's end.
    across += caps * (2 / 5 * radius**2 + length**2 / 4 + 3 / 8 * length * radius)
    return cylinder + caps, across


# The pole's far end is at (0.001, -0.6): one millimetre off, as in the original's model file.
_TIP = (0.001, -LENGTH)
_POLE_LENGTH = math.hypot(*_TIP)
CART_MASS, _ = _capsule(0.1, 0.2)
POLE_MASS, _INERTIA = _capsule(0.049, _POLE_LENGTH)
_ARM = _POLE_LENGTH / 2  # hinge to the pole's middle
_TILT = math.atan2(_TIP[0], -_TIP[1])  # of the pole's middle against straight down at theta = 0
_HINGE_INERTIA = _INERTIA + POLE_MASS * _ARM**2
_TOTAL_MASS = CART_MASS + POLE_MASS

# MuJoCo's defaults for a joint limit: solref (0.02, 1), raised to two time steps; solimp (0.9, 0.95, 0.001, 0.5, 2).
_TIME_CONSTANT = max(0.02, 2 * TIMESTEP)
_IMPEDANCE = (0.9, 0.95, 0.001)


class State(NamedTuple):
    """``position = [x, theta]``, ``velocity = [xdot, thetadot]``, float32[2] each."""

    position: Array
    velocity: Array


def make(max_steps: int = MAX_STEPS) -> Env:
    """PETS' cart pole swing-up.

    Observation ``float32[5]``: ``[sin theta, cos theta, x (m), xdot (m/s), thetadot (rad/s)]``. Action: one
    number, the control in ``[-3, 3]`` (times 100 N). Reward, in ``(-0.09, 1]``:
    ``exp(-|tip - (0, 0.6)|^2 / 0.36) - 0.01 control^2`` with the tip after the step. Never terminates;
    truncated at ``max_steps`` (200 in the paper) of 0.04 s. Starts hanging, every coordinate and speed
    ``N(0, 0.1)``.
    """
    return from_functions(
        _reset,
        _step,
        action=Continuous((-MAX_CONTROL,), (MAX_CONTROL,)),
        max_steps=max_steps,
        name="cartpole_swingup",
        obs_shape=(5,),
        obs_names=OBS_NAMES,
        reward_fn=reward_fn,
        termination_fn=termination_fn,
        render=render.cartpole_swingup,
        dt=SUBSTEPS * TIMESTEP,
    )


def reward_fn(obs: Array, action: Array, next_obs: Array) -> Array:
    """The task's reward; ``action`` in ``[-1, 1]``."""
    del obs
    return _reward(next_obs, MAX_CONTROL * jnp.clip(action[..., 0], -1.0, 1.0))


def termination_fn(obs: Array, action: Array, next_obs: Array) -> Array:
    """Never."""
    del obs, action
    return jnp.zeros(next_obs.shape[:-1], jnp.bool_)


def _reward(obs: Array, control: Array) -> Array:
    sin, cos, x = obs[..., 0], obs[..., 1], obs[..., 2]
    miss = (x - LENGTH * sin) ** 2 + (-LENGTH * cos - LENGTH) ** 2
    return jnp.exp(-miss / LENGTH**2) - 0.01 * control**2


def _observe(state: State) -> Array:
    angle = state.position[1]
    return jnp.stack([jnp.sin(angle), jnp.cos(angle), state.position[0], *state.velocity])


def _reset(key: Key) -> tuple[State, Array]:
    noise = 0.1 * jax.random.normal(key, (2, 2), jnp.float32)
    state = State(noise[0], noise[1])
    return state, _observe(state)


def _step(key: Key, state: State, action: Array) -> tuple[State, Array, Array, Array]:
    del key
    control = action[0]
    for _ in range(SUBSTEPS):
        state = runge_kutta(state, GEAR * control)
    obs = _observe(state)
    return state, obs, _reward(obs, control), jnp.zeros((), jnp.bool_)


def runge_kutta(state: State, force: Array) -> State:
    """One classical Runge-Kutta step of ``TIMESTEP`` under a constant force (N) on the cart."""
    h = TIMESTEP
    slope1 = State(state.velocity, acceleration(state, force))
    slope2 = _slope(state, slope1, h / 2, force)
    slope3 = _slope(state, slope2, h / 2, force)
    slope4 = _slope(state, slope3, h, force)
    return jax.tree.map(
        lambda s, a, b, c, d: s + h / 6 * (a + 2 * b + 2 * c + d), state, slope1, slope2, slope3, slope4
    )


def _slope(state: State, slope: State, h: float, force: Array) -> State:
    moved = jax.tree.map(lambda s, d: s + h * d, state, slope)
    return State(moved.velocity, acceleration(moved, force))


def acceleration(state: State, force: Array) -> Array:
    """``[xddot, thetaddot]`` from the equations of motion and the rail's end stops.

    With ``phi = theta - tilt`` and the pole's middle at ``(x - l sin phi, -l cos phi)``, ``l`` its arm:
    ``M xddot - m l cos(phi) thetaddot = F - d xdot - m l sin(phi) thetadot^2`` and
    ``-m l cos(phi) xddot + I thetaddot = -d thetadot - m g l sin(phi)``.
    """
    angle = state.position[1] - _TILT
    x_dot, spin = state.velocity
    coupling = POLE_MASS * _ARM
    mixed = -coupling * jnp.cos(angle)
    push = force - DAMPING * x_dot - coupling * jnp.sin(angle) * spin**2
    twist = -DAMPING * spin - GRAVITY * coupling * jnp.sin(angle)
    determinant = _TOTAL_MASS * _HINGE_INERTIA - mixed**2
    free = (_HINGE_INERTIA * push - mixed * twist) / determinant
    push = push + _stop(state.position[0], x_dot, free, _HINGE_INERTIA / determinant)
    return jnp.stack([_HINGE_INERTIA * push - mixed * twist, _TOTAL_MASS * twist - mixed * push]) / determinant


def _stop(x: Array, x_dot: Array, free: Array, response: Array) -> Array:
    """Force (N) of a soft end stop on the cart, zero inside the rail.

    MuJoCo's constraint for one joint limit: the force that brings the acceleration along the limit to a
    spring and damper's, weakened by the impedance; never pulling. ``free`` is the acceleration without it,
    ``response`` the acceleration for one newton.
    """
    side = jnp.where(x > 0, -1.0, 1.0)  # the direction back to the rail
    depth = jnp.abs(x) - RAIL
    d0, d1, width = _IMPEDANCE
    y = jnp.clip(depth / width, 0.0, 1.0)
    impedance = d0 + (d1 - d0) * jnp.where(y < 0.5, 2 * y**2, 1 - 2 * (1 - y) ** 2)
    wanted = impedance * depth / (d1 * _TIME_CONSTANT) ** 2 - 2 / (d1 * _TIME_CONSTANT) * side * x_dot
    give = (1 - impedance) / impedance * _REST_RESPONSE
    return side * jnp.where(depth > 0, jnp.maximum(0.0, (wanted - side * free) / (response + give)), 0.0)


def _rest_response() -> float:
    """Acceleration of the resting cart for one newton: MuJoCo scales a limit's softness by it."""
    mixed = -POLE_MASS * _ARM * np.cos(_TILT)
    return float(_HINGE_INERTIA / (_TOTAL_MASS * _HINGE_INERTIA - mixed**2))


_REST_RESPONSE = _rest_response()
