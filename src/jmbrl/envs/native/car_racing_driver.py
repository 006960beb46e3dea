"""A driver for ``car_racing`` that reads the true state: what can be earned there, and demonstrations."""

import jax.numpy as jnp

from jmbrl.envs.native import car_racing as task
from jmbrl.envs.native import car_racing_track as road
from jmbrl.types import Array

_AHEAD = 30  # tiles looked at for a speed limit
_BEND = 3  # tiles to each side over which a bend is measured


def drive(state: task.State, grip: float = 40.0, brake: float = 30.0, boldness: float = 0.8) -> Array:
    """The library's action, ``float32[3]`` in ``[-1, 1]``: pure pursuit of the middle line under a speed limit.

    Steering aims at the line ``6 m + 0.25 s u`` ahead by the arc through the car and that point, ``tan(delta) =
    2 L sin(alpha) / distance``. Speed: the largest ``v`` that can still be braked for every bend ahead,
    ``v^2 = boldness grip radius + 2 boldness brake distance``.

    Args:
      state: ``env_state.inner`` of a ``car_racing`` environment.
      grip, brake: the car's, m/s^2.
      boldness: fraction of them that is used.
    """
    tiles, car = state.track.tiles, state.car
    count = tiles.shape[0]
    spacing = jnp.linalg.norm(tiles[1] - tiles[0])
    nearest = jnp.argmin(jnp.sum((tiles - car.position) ** 2, -1))
    speed = jnp.linalg.norm(car.velocity)

    target = tiles[(nearest + jnp.int32((6.0 + 0.25 * speed) / spacing) + 1) % count] - car.position
    angle = jnp.arctan2(target[1], target[0]) - car.heading
    steering = jnp.arctan(2 * task.WHEELBASE * jnp.sin(angle) / jnp.linalg.norm(target))
    # A point behind is reached by full lock to its side.
    steering = jnp.where(jnp.cos(angle) < 0, task.LOCK * jnp.sign(jnp.sin(angle)), steering)

    along = road.tangents(tiles)
    before, after = jnp.roll(along, _BEND, 0), jnp.roll(along, -_BEND, 0)
    turned = jnp.arccos(jnp.clip(jnp.sum(before * after, -1), -1.0, 1.0))
    radius = 2 * _BEND * spacing / jnp.maximum(turned, 1e-2)
    ahead = jnp.arange(_AHEAD)
    limit = boldness * (grip * radius[(nearest + ahead) % count] + 2 * brake * spacing * ahead)
    spare = jnp.sqrt(jnp.min(limit)) - speed
    gas, slow = jnp.clip(spare, 0.0, 1.0), jnp.clip(-spare / 2, 0.0, 1.0)
    return jnp.stack([jnp.clip(-steering / task.LOCK, -1.0, 1.0), 2 * gas - 1, slow])
