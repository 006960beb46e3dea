"""Refusing bad input with one sentence: the argument's name, what came, what was wanted.

Factories call these before anything is compiled. A traced value (a hyper-parameter under ``vmap``) has no
concrete number to look at and passes.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jmbrl.types import ActionSpace, Array, Continuous, Discrete, Key, Spec

_TINY = float(np.finfo(np.float32).tiny)


def _is_traced(value: Any) -> bool:
    return isinstance(value, jax.core.Tracer)


def integer(name: str, value: Any, low: int | None = None, high: int | None = None) -> int:
    """A static Python integer in ``[low, high]``."""
    if _is_traced(value):
        raise ValueError(f"{name} must be a static Python integer, got a traced value; it sets a shape or a loop count")
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ValueError(f"{name} must be an integer, got {value!r}")
    _bounds(name, value, low, high)
    return int(value)


def number(name: str, value: Any, low: float | None = None, high: float | None = None) -> Any:
    """A finite number in ``[low, high]``; traced values pass."""
    if _is_traced(value):
        return value
    try:
        concrete = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number, got {value!r}") from None
    if not math.isfinite(concrete):
        raise ValueError(f"{name} must be finite, got {value!r}")
    _bounds(name, concrete, low, high)
    return value


def _bounds(name: str, value: float | np.integer, low: float | None, high: float | None) -> None:
    if low is not None and value < low:
        raise ValueError(f"{name} must be at least {low}, got {value}")
    if high is not None and value > high:
        raise ValueError(f"{name} must be at most {high}, got {value}")


def choice(name: str, value: Any, options: tuple[str, ...]) -> str:
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(options)}; got {value!r}")
    return value


def continuous(user: str, action: ActionSpace, instead: str) -> Continuous:
    """The action space of a method that needs a box; ``instead`` names methods that fit discrete actions."""
    if not isinstance(action, Continuous):
        raise ValueError(f"{user} needs continuous actions, got {action}; use {instead}")
    return action


def discrete(user: str, action: ActionSpace, instead: str) -> Discrete:
    if not isinstance(action, Discrete):
        raise ValueError(f"{user} needs discrete actions, got {action}; use {instead}")
    return action


def action_bounds(low: Any, high: Any) -> Continuous:
    """A ``Continuous`` space from bounds, finite and ``low < high`` in every dimension.

    A bound nearer to 0 than float32's smallest normal number is 0: compiled programs read it so.
    """
    low, high = (np.where(np.abs(x) < _TINY, 0.0, x) for x in (np.asarray(low, float), np.asarray(high, float)))
    if low.shape != high.shape or low.ndim != 1:
        raise ValueError(f"action bounds must be two vectors of one length, got shapes {low.shape} and {high.shape}")
    for i, (a, b) in enumerate(zip(low, high, strict=True)):
        if not (math.isfinite(a) and math.isfinite(b)):
            raise ValueError(
                f"action bounds must be finite, got [{a}, {b}] in dimension {i}: give finite bounds or act_limit="
            )
        if a >= b:
            raise ValueError(f"action bounds must have low < high, got [{a}, {b}] in dimension {i}")
    return Continuous(tuple(low.tolist()), tuple(high.tolist()))


def key(value: Any) -> Key:
    """A typed scalar key from a key, an old-style key or an integer seed in ``[0, 2**32)``."""
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        if value.shape:
            raise ValueError(f"key must be one key, got a batch of shape {value.shape}: vmap the function over keys")
        return value
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        if not 0 <= value < 2**32:
            raise ValueError(f"seed must be in [0, 2**32), got {value}: jax.random.key would wrap it silently")
        return jax.random.key(int(value))
    if isinstance(value, jax.Array | np.ndarray) and value.dtype == np.uint32 and value.shape == (2,):
        return jax.random.wrap_key_data(jnp.asarray(value))
    raise ValueError(f"key must be jax.random.key(seed) or an integer seed, got {value!r}")


def pure(name: str, function: Callable, *args: Any) -> Any:
    """``function(*args)``, with advice where it needs a concrete number while JAX traces it."""
    try:
        return function(*args)
    except (
        jax.errors.ConcretizationTypeError,
        jax.errors.TracerArrayConversionError,
        jax.errors.TracerIntegerConversionError,
    ) as error:
        raise ValueError(
            f"{name} must be pure JAX, but it reads a number that is only known when it runs: use jnp.where for an if, "
            f"jax.numpy for numpy ({str(error).splitlines()[0]})"
        ) from error


def row_function(name: str, function: Callable, spec: Spec) -> None:
    """Refuse a reward or termination that is not ``(obs, action, next_obs) -> one number``, by its shapes alone."""
    obs = jax.ShapeDtypeStruct(spec.obs_shape, spec.obs_dtype)
    action = jax.ShapeDtypeStruct(spec.action.shape, np.int32 if isinstance(spec.action, Discrete) else np.float32)
    out = jax.eval_shape(lambda *row: pure(name, function, *row), obs, action, obs)
    got = getattr(out, "shape", None)
    if got != ():
        what = f"a {type(out).__name__}" if got is None else f"shape {got}"
        raise ValueError(f"{name} must return one number for one row, got {what}")


def same_shape(name: str, got: tuple[int, ...], wanted: tuple[int, ...], where: str) -> None:
    if tuple(got) != tuple(wanted):
        raise ValueError(f"{name} has shape {tuple(got)}, but {where} says {tuple(wanted)}")


def finite_rows(name: str, values: Array | np.ndarray) -> None:
    """Refuse logged data with a NaN or an infinity, naming the first row and column."""
    array = np.asarray(values)
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        row, *rest = bad[0].tolist()
        where = f"{name}[{']['.join(map(str, rest))}]" if rest else name
        raise ValueError(f"{name} must be finite: row {row}, {where} is {array[tuple(bad[0])]} ({len(bad)} bad values)")
