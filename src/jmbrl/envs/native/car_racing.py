"""A car on a random closed road, seen from above: Gymnasium's CarRacing written out in JAX.

Klimov, ``CarRacing`` (Gymnasium, ``envs/box2d/car_racing.py``), the pixel task of World Models (Ha & Schmidhuber 2018).
Kept from there: the reward, the ends, the actions, the road's width, the view that turns with the car, 50 steps a
second. Our own: a smaller world, a smooth curve through the checkpoints, and a car of five numbers in place of Box2D's
five bodies, so that it compiles and vectorises. Returns compare with Gymnasium's in kind, not in number.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.envs import render
from jmbrl.envs.functions import from_functions
from jmbrl.envs.native import car_racing_track as road
from jmbrl.envs.native import car_racing_view as view
from jmbrl.types import Array, Continuous, Env, Key

MAX_STEPS = 1000
DT = 1 / 50  # s
WHEELBASE = 3.2  # m
LOCK = 0.4  # rad, the front wheels at full steer
TWIST = 1.3  # how much faster than the grip can bend its way the car may turn


class Physics(NamedTuple):
    """What the car and the ground do; see ``make``."""

    engine: float
    brake: float
    grip: float
    drag: float
    grass_grip: float
    grass_drag: float


class Car(NamedTuple):
    """``position`` and ``velocity`` in the world, ``float32[2]`` m and m/s; ``heading`` rad, anticlockwise from x."""

    position: Array
    heading: Array
    velocity: Array


class State(NamedTuple):
    """The car, which tiles were visited (``bool[TILES]``), and the episode's track."""

    car: Car
    visited: Array
    track: road.Track


def make(
    max_steps: int = MAX_STEPS,
    *,
    size: int = 64,
    channels: int = 3,
    bar: bool = False,
    lap_complete: float = 0.95,
    track: Any = None,
    reset_pool: int | None = 64,
    engine: float = 15.0,
    brake: float = 30.0,
    grip: float = 40.0,
    drag: float = 0.25,
    grass_grip: float = 0.5,
    grass_drag: float = 1.0,
) -> Env:
    """Drive a lap, from pixels.

    Observation ``uint8[size, size, channels]``: 48 m by 48 m seen from above, the car 8 m above the lower edge, always
    upright. Action: steer (-1 full left, 1 full right), gas ``[0, 1]`` and brake ``[-1, 1]``, of which below 0 is none:
    the library's ``t`` in ``[-1, 1]`` is steer ``t``, gas ``(t + 1) / 2``, brake ``max(t, 0)``, as in World Models.

    Reward: ``1000 / 200`` for each of the road's 200 tiles visited for the first time (the car's middle within half a
    road of the tile's), less 0.1 a step. Terminates when all are visited, or at tile 0 with more than ``lap_complete``
    of them; and off the playfield, 160 m from the middle to each side, with -100 for that step. Truncated at
    ``max_steps`` of 0.02 s. The best return is thus below ``1000 - 0.1 steps``.

    The car, with speed ``u`` ahead and ``w`` to its left, steering angle ``delta`` and grip ``g`` of the ground:
    ``turn = clip(u tan(delta) / 3.2, +-1.3 g / |u|)``; then, along the new heading, the tyres' acceleration
    ``(engine gas - brake b, -w / dt)``, shortened to length ``g`` where it is longer (the brake never reverses); then
    the velocity shrinks by ``1 - dt drag``. So a corner taken too fast leaves a side speed ``w``: the car slides
    outwards; and gas or brake in a corner take from the grip that holds it.

    Args:
      max_steps: the time limit.
      size: pixels to a side, 32 or 64.
      channels: 3 colours, or 1 for grey.
      bar: draw the speed as a white bar at the bottom, full at the top speed ``engine / drag``.
      lap_complete: fraction of the tiles after which crossing the start ends the episode, in ``[0, 1]``.
      track: ``[K, 2]``, at least 4 points in metres of one road for all episodes, driven in their order from the first;
        None draws a road an episode.
      reset_pool: roads to draw from, made at the first reset (see ``from_functions``); None makes a new one for
        every episode, at the price of one (some twenty steps) a step.
      engine, brake: largest acceleration, m/s^2.
      grip: largest acceleration that the tyres can pass to the road, m/s^2.
      drag: air and rolling drag, 1/s.
      grass_grip: fraction of ``grip`` on grass. ``grass_drag``: added to ``drag`` there, 1/s.

    Raises:
      ValueError: an option of the wrong kind or out of range, or a track of the wrong shape or beyond the playfield.
    """
    if checks.integer("size", size) not in (32, 64):
        raise ValueError(f"size must be 32 or 64, got {size}")
    if checks.integer("channels", channels) not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels}")
    if not isinstance(bar, bool):
        raise ValueError(f"bar must be True or False, got {bar!r}")
    checks.number("lap_complete", lap_complete, 0.0, 1.0)
    physics = _physics(engine=engine, brake=brake, grip=grip, drag=drag, grass_grip=grass_grip, grass_drag=grass_drag)
    fixed = None if track is None else road.build(_points(track))
    palette = jnp.asarray(view.palette(channels))

    def observe(state: State) -> Array:
        kinds = view.draw_car(view.look(state.track.ground, state.car.position, state.car.heading, size))
        if bar:
            kinds = view.draw_bar(kinds, jnp.linalg.norm(state.car.velocity) * physics.drag / physics.engine)
        return palette[kinds]

    def reset(key: Key) -> tuple[State, Array]:
        state = start(road.build(road.checkpoints(key)) if fixed is None else fixed)
        return state, observe(state)

    def step(key: Key, state: State, action: Array) -> tuple[State, Array, Array, Array]:
        del key
        car = move(physics, state.car, action, jnp.any(within_reach(state)))
        state, reward, terminated = judge(state._replace(car=car), lap_complete)
        return state, observe(state), reward, terminated

    return from_functions(
        reset,
        step,
        action=Continuous((-1.0, 0.0, -1.0), (1.0, 1.0, 1.0)),
        max_steps=max_steps,
        name="car_racing",
        obs_shape=(size, size, channels),
        obs_dtype="uint8",
        render=render.image,
        dt=DT,
        reset_pool=reset_pool if fixed is None else None,
        no_gradient="a picture of whole cells does not change with a small change of the action",
    )


def start(track: road.Track) -> State:
    """The car at rest on the first tile, along the road."""
    along = road.tangents(track.tiles)[0]
    car = Car(track.tiles[0], jnp.arctan2(along[1], along[0]), jnp.zeros(2))
    return State(car, jnp.zeros(track.tiles.shape[:1], jnp.bool_), track)


def within_reach(state: State) -> Array:
    """Which tiles the car is on, ``bool[TILES]``; on none it is on the grass."""
    gap = state.track.tiles - state.car.position
    return jnp.sum(gap**2, -1) <= road.HALF_WIDTH**2


@jax.jit
def judge(state: State, lap_complete: float = 0.95) -> tuple[State, Array, Array]:
    """Count the tiles under the car: ``(state, reward, terminated)``."""
    near = within_reach(state)
    visited = state.visited | near
    count = jnp.sum(visited)
    tiles = visited.shape[0]
    reward = 1000 / tiles * (count - jnp.sum(state.visited)) - 0.1
    lap = (count == tiles) | (near[0] & (count > lap_complete * tiles))
    away = jnp.any(jnp.abs(state.car.position) > road.FIELD)
    return state._replace(visited=visited), jnp.where(away, -100.0, reward), lap | away


@jax.jit
def move(physics: Physics, car: Car, action: Array, on_road: Array) -> Car:
    """One step of the equations in ``make``; ``action`` is ``[steer, gas, brake]`` in the environment's units."""
    steer, gas, brake = action[0], action[1], jnp.maximum(action[2], 0.0)
    grip = physics.grip * jnp.where(on_road, 1.0, physics.grass_grip)
    drag = physics.drag + jnp.where(on_road, 0.0, physics.grass_drag)
    speed = car.velocity @ _direction(car.heading)
    fastest = TWIST * grip / jnp.maximum(jnp.abs(speed), 1e-3)
    # Steering to the right turns clockwise.
    turn = jnp.clip(-speed * jnp.tan(LOCK * steer) / WHEELBASE, -fastest, fastest)
    heading = car.heading + DT * turn
    ahead = _direction(heading)
    left = jnp.stack([-ahead[1], ahead[0]])
    speed, slip = car.velocity @ ahead, car.velocity @ left
    stop = jnp.clip(speed / DT, -physics.brake * brake, physics.brake * brake)
    wanted = jnp.stack([physics.engine * gas - stop, -slip / DT])
    tyres = wanted * jnp.minimum(1.0, grip / jnp.maximum(jnp.linalg.norm(wanted), 1e-6))
    velocity = (1 - DT * drag) * (car.velocity + DT * (tyres[0] * ahead + tyres[1] * left))
    return Car(car.position + DT * velocity, heading, velocity)


def _direction(heading: Array) -> Array:
    return jnp.stack([jnp.cos(heading), jnp.sin(heading)])


def _physics(**values: float) -> Physics:
    lowest = {"drag": 1e-3, "engine": 1e-3, "grip": 1e-3}
    highest = {"grass_grip": 1.0, "drag": 1 / DT / 2, "grass_drag": 1 / DT / 2}
    for name, value in values.items():
        checks.number(name, value, lowest.get(name, 0.0), highest.get(name))
    return Physics(**values)


def _points(track: Any) -> Array:
    points = np.asarray(track, np.float32)
    if points.ndim != 2 or points.shape[1:] != (2,) or len(points) < 4:
        raise ValueError(f"track must be at least 4 points [K, 2] in metres, got shape {points.shape}")
    if not np.all(np.abs(points) < road.FIELD):
        raise ValueError(f"track must lie within {road.FIELD:g} m of the middle, got {np.abs(points).max():g}")
    return jnp.asarray(points)
