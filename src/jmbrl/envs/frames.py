"""Image observations made smaller, and World Models' view of Gymnasium's CarRacing."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.envs import render
from jmbrl.envs.wrappers import map_obs
from jmbrl.types import Array, Continuous, Env, VectorEnv

_BRIGHTNESS = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601
_CAR_RACING = Continuous((-1.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def frames(env: Env, *, size: Sequence[int] = (64, 64), crop: Sequence[int] | None = None, grey: bool = False) -> Env:
    """Image observations cropped, then resized, then turned grey where asked; ``uint8`` in, ``uint8`` out.

    Resizing is linear and, where the image shrinks, averages over what falls into a pixel (``jax.image.resize`` with
    antialiasing), rounded to whole values. Host environments too: their images are changed outside the call.
    ``reward_fn``, ``termination_fn`` and ``cells`` are dropped, as they read the old images; ``render`` shows the new.

    Args:
      env: an environment with ``uint8[H, W, C]`` observations.
      size: ``(height, width)`` of the new images.
      crop: pixels cut away first at ``(top, bottom, left, right)``; None cuts nothing.
      grey: three colours become one channel of brightness ``0.299 R + 0.587 G + 0.114 B``; one channel stays as it is.

    Raises:
      ValueError: no images, a size below one, a crop that leaves nothing, or ``grey`` with other than 1 or 3 channels.
    """
    spec = env.spec
    if len(spec.obs_shape) != 3 or spec.obs_dtype != "uint8":
        raise ValueError(
            f"frames needs uint8 images [H, W, C], but {spec.name} has {spec.obs_dtype}{list(spec.obs_shape)}"
        )
    rows, columns, channels = spec.obs_shape
    height, width = (checks.integer("size[i]", n, low=1) for n in _entries("size", size, 2))
    top, bottom, left, right = (checks.integer("crop[i]", n, low=0) for n in _entries("crop", crop or (0,) * 4, 4))
    if top + bottom >= rows or left + right >= columns:
        raise ValueError(
            f"crop of {spec.name} must leave something of {rows} x {columns} pixels, got {tuple(crop or ())}"
        )
    if grey and channels not in (1, 3):
        raise ValueError(f"grey needs images of 1 or 3 channels, but {spec.name} has {channels}")
    shape = (height, width, 1 if grey else channels)

    def change(obs: Array) -> Array:
        image = obs[top : rows - bottom, left : columns - right].astype(jnp.float32)
        if grey and channels == 3:
            image = image @ jnp.array(_BRIGHTNESS, jnp.float32)[:, None]
        image = jax.image.resize(image, shape, "linear", antialias=True)
        return jnp.clip(jnp.round(image), 0, 255).astype(jnp.uint8)

    changed = map_obs(env, dataclasses.replace(spec, obs_shape=shape), change)
    return changed._replace(render=render.image if shape[2] in (1, 3) else None)


def car_racing_frames(env: Env, *, size: Sequence[int] = (64, 64)) -> Env:
    """World Models' view of ``gymnasium:CarRacing-v3``: no bar, 64 x 64 pixels, and a brake in ``[-1, 1]``.

    Of the 96 rows the upper 84 are kept. A brake below 0 is none, so an action ``t`` in ``[-1, 1]`` is steer ``t``,
    gas ``(t + 1) / 2``, brake ``max(t, 0)``. The native ``car_racing`` is made that way.

    Raises:
      ValueError: ``env`` has not CarRacing's images and actions (made with ``continuous=False``, say).

    Source: Ha & Schmidhuber 2018 (arXiv 1803.10122) and their code (``carracing/env.py``), which inverts the colours
      besides: left out, as it changes nothing for a network.
    """
    if env.spec.action != _CAR_RACING or env.spec.obs_shape != (96, 96, 3):
        raise ValueError(
            "car_racing_frames needs gymnasium:CarRacing-v3 with its 96 x 96 images and continuous actions, got "
            f"{env.spec.name} with {env.spec.obs_shape} and {env.spec.action}"
        )
    spec = dataclasses.replace(env.spec, action=Continuous((-1.0, 0.0, -1.0), (1.0, 1.0, 1.0)))

    def braked(step: Callable) -> Callable:
        def mapped(key: Array, state: Array, action: Array) -> tuple:
            # The environment's own brake begins at the library's -1.
            action = jnp.asarray(action)
            return step(key, state, action.at[..., 2].set(2 * jnp.maximum(action[..., 2], 0.0) - 1))

        return mapped

    def vector(num_envs: int) -> VectorEnv:
        inner = env.vector(num_envs)
        return inner._replace(spec=spec, step=braked(inner.step))

    mapped = env._replace(spec=spec, step=braked(env.step), vector=vector, reward_fn=None, termination_fn=None)
    return frames(mapped, size=size, crop=(0, 12, 0, 0))


def _entries(name: str, values: Sequence[int], count: int) -> tuple[int, ...]:
    if not isinstance(values, Sequence) or len(values) != count:
        raise ValueError(f"{name} must have {count} entries, got {values!r}")
    return tuple(values)
