"""What each entry of an observation is: a number that moves, an angle, or something that only the world decides."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.types import Array

_TURN = 2.0 * math.pi


def wrap(angle: Array) -> Array:
    """``angle`` (radians) plus whole turns, in ``[-pi, pi)``; a value already there keeps its bits.

    >>> wrap(jnp.array([0.5, 3.5, -3.5])).round(4).tolist()
    [0.5, -2.7832000255584717, 2.7832000255584717]
    """
    inside = angle - _TURN * jnp.floor((angle + math.pi) / _TURN)
    # Rounding at a border may end on its other side.
    return jnp.where((inside < -math.pi) | (inside >= math.pi), -math.pi, inside)


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """Static facts about the entries of an observation. Methods take rows, ``[N, ...]``; made by ``coordinates``.

    Attributes:
      keep: per entry, 1.0 where the change is predicted and 0.0 where the next value is.
      angles, exogenous, forecast: as in ``models.gaussian_mlp``, indices from 0.
    """

    keep: tuple[float, ...]
    angles: tuple[int, ...]
    exogenous: tuple[int, ...]
    forecast: Callable | None

    @property
    def predicted(self) -> tuple[int, ...]:
        return tuple(i for i in range(len(self.keep)) if i not in self.exogenous)

    @property
    def bounded(self) -> tuple[bool, ...]:
        """Per entry, whether leaving the range of the data is a fault: not for an angle, nor where it is given."""
        return tuple(i not in self.angles and i not in self.exogenous for i in range(len(self.keep)))

    def features(self, obs: Array) -> Array:
        """What a network reads: ``[entries that are no angles, sines, cosines]``."""
        if not self.angles:
            return obs
        plain = [i for i in range(len(self.keep)) if i not in self.angles]
        angle = obs[:, list(self.angles)]
        return jnp.concatenate([obs[:, plain], jnp.sin(angle), jnp.cos(angle)], axis=-1)

    def change(self, obs: Array, next_obs: Array) -> Array:
        """``float32[N, predicted]``: the change, or the next value; of an angle the shortest turn."""
        change = next_obs - self._base(obs)
        if self.angles:
            change = jnp.where(self._is(self.angles), wrap(change), change)
        return change[:, list(self.predicted)] if self.exogenous else change

    def advance(self, obs: Array, change: Array) -> Array:
        """``float32[N, D]``: the next observation after ``change [N, predicted]``."""
        following = self._base(obs) + self._spread(change)
        if self.angles:
            following = jnp.where(self._is(self.angles), wrap(following), following)
        return jnp.where(self._is(self.exogenous), self._given(obs), following) if self.exogenous else following

    def deviation(self, std: Array) -> Array:
        """``float32[N, D]``: the spread per entry of the observation, 0 where nothing is predicted."""
        return self._spread(std)

    def _base(self, obs: Array) -> Array:
        return obs if all(self.keep) else obs * jnp.asarray(self.keep)

    def _is(self, indices: tuple[int, ...]) -> np.ndarray:
        return np.isin(np.arange(len(self.keep)), indices)

    def _spread(self, values: Array) -> Array:
        if not self.exogenous:
            return values
        slots = np.full(len(self.keep), len(self.predicted))
        slots[list(self.predicted)] = np.arange(len(self.predicted))
        return jnp.pad(values, ((0, 0), (0, 1)))[:, slots]

    def _given(self, obs: Array) -> Array:
        """``[N, D]`` with the exogenous entries of the next step; the others mean nothing."""
        if self.forecast is None:
            return obs
        slots = np.zeros(len(self.keep), int)
        slots[list(self.exogenous)] = np.arange(len(self.exogenous))
        return jax.vmap(self.forecast)(obs)[:, slots]


def coordinates(
    dim: int,
    predict_change: bool,
    absolute: tuple[int, ...],
    angles: tuple[int, ...],
    exogenous: tuple[int, ...],
    forecast: Callable | None,
) -> Coordinates:
    """Checks the options. Indices may count from the end.

    Raises:
      ValueError: an index outside, named twice or in two roles; nothing left to predict; a forecast of a wrong shape.
    """
    roles = {
        name: tuple(checks.integer(name, index, -dim, dim - 1) % dim for index in indices)
        for name, indices in (("absolute", absolute), ("angles", angles), ("exogenous", exogenous))
    }
    for name in ("angles", "exogenous"):
        if len(set(roles[name])) < len(roles[name]):
            raise ValueError(f"{name} must name each entry once, got {roles[name]}")
    for one, other in (("angles", "exogenous"), ("angles", "absolute"), ("exogenous", "absolute")):
        both = sorted(set(roles[one]) & set(roles[other]))
        if both:
            raise ValueError(f"{one} and {other} must not share entries, got {both} in both")
    if len(roles["exogenous"]) == dim:
        raise ValueError(f"exogenous must leave an entry to predict, got all {dim}")
    if forecast is not None:
        _check_forecast(forecast, dim, len(roles["exogenous"]))
    change = [i in roles["angles"] or (predict_change and i not in roles["absolute"]) for i in range(dim)]
    return Coordinates(tuple(map(float, change)), roles["angles"], roles["exogenous"], forecast)


def _check_forecast(forecast: Callable, dim: int, count: int) -> None:
    if not count:
        raise ValueError("forecast needs exogenous entries to foretell, got none")
    row = jax.ShapeDtypeStruct((dim,), jnp.float32)
    got = jax.eval_shape(lambda obs: checks.pure("forecast", forecast, obs), row).shape
    if got != (count,):
        raise ValueError(f"forecast must return the {count} exogenous entries, shape ({count},), got shape {got}")
