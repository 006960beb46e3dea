"""Physical parameters between bounds, with Gaussian priors, as weights that an optimiser may move anywhere."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.types import Array, Key


class Parameter(NamedTuple):
    """What is known of one number before any data.

    Attributes:
      low, high: bounds in physical units; ``high=None``: none.
      prior_mean, prior_std: a Gaussian belief, both or neither; None: anything between the bounds is as likely.
    """

    low: float
    high: float | None = None
    prior_mean: float | None = None
    prior_std: float | None = None


class Bounds(NamedTuple):
    """Per name: ``low``, and ``width`` (negative: no upper bound; its size is then the scale)."""

    low: dict[str, Array]
    width: dict[str, Array]

    @classmethod
    def of(cls, parameters: Mapping[str, Parameter]) -> "Bounds":
        return cls(
            {name: jnp.float32(p.low) for name, p in parameters.items()},
            {name: jnp.float32(_width(p)) for name, p in parameters.items()},
        )


def _width(parameter: Parameter) -> float:
    if parameter.high is not None:
        return parameter.high - parameter.low
    return -1.0 if parameter.prior_mean is None else -(parameter.prior_mean - parameter.low)


def physical(weights: dict[str, Array], bounds: Bounds, pace: float) -> dict[str, Array]:
    """Values in physical units: ``low + width sigmoid(x)``, or ``low + scale softplus(x)`` without an upper bound."""

    def one(weight: Array, low: Array, width: Array) -> Array:
        x = pace * weight
        return low + jnp.abs(width) * jnp.where(width > 0, jax.nn.sigmoid(x), jax.nn.softplus(x))

    return {name: one(weight, bounds.low[name], bounds.width[name]) for name, weight in weights.items()}


def draw(key: Key, parameters: Mapping[str, Parameter], pace: float) -> dict[str, Array]:
    """Where to start: a draw of the prior, else of the middle half of the bounds."""

    def one(key: Key, p: Parameter) -> Array:
        width = jnp.float32(_width(p))
        if p.prior_mean is not None:
            share = (p.prior_mean + p.prior_std * jax.random.normal(key) - p.low) / jnp.abs(width)
        else:
            share = jax.random.uniform(key, minval=0.25, maxval=0.75)
        share = jnp.clip(share, 0.02, 0.98 if p.high is not None else None)
        inverse = jnp.log(share) - jnp.log1p(-share) if p.high is not None else jnp.log(jnp.expm1(share))
        return inverse / pace

    keys = jax.random.split(key, len(parameters))
    return {name: one(k, p) for k, (name, p) in zip(keys, parameters.items(), strict=True)}


def penalty(weights: dict[str, Array], bounds: Bounds, parameters: Mapping[str, Parameter], pace: float) -> Array:
    r"""The priors' :math:`\sum ((\theta - \mu) / s)^2 / 2`."""
    values = physical(weights, bounds, pace)
    total = jnp.zeros(())
    for name, p in parameters.items():
        if p.prior_mean is not None and p.prior_std is not None:
            total = total + 0.5 * ((values[name] - p.prior_mean) / p.prior_std) ** 2
    return total


def check_parameters(parameters: Mapping[str, Parameter]) -> dict[str, Parameter]:
    """Names and numbers that make sense together.

    Raises:
      ValueError: none at all, bounds out of order, half a prior, or one outside its bounds.
    """
    if not isinstance(parameters, Mapping) or not parameters:
        raise ValueError(f"parameters must map at least one name to a Parameter, got {parameters!r}")
    for name, p in parameters.items():
        if not isinstance(p, Parameter):
            raise ValueError(f"parameters[{name!r}] must be a Parameter, got {p!r}")
        checks.number(f"low of {name}", p.low)
        if p.high is not None and checks.number(f"high of {name}", p.high) <= p.low:
            raise ValueError(f"parameters[{name!r}] must have low < high, got [{p.low}, {p.high}]")
        if (p.prior_mean is None) != (p.prior_std is None):
            raise ValueError(f"parameters[{name!r}] must have both prior_mean and prior_std or neither, got {p}")
        if p.prior_mean is not None and p.prior_std is not None:
            mean = checks.number(f"prior_mean of {name}", p.prior_mean)
            checks.number(f"prior_std of {name}", p.prior_std, 1e-12)
            if mean <= p.low or (p.high is not None and mean >= p.high):
                raise ValueError(f"prior_mean of {name} must lie between its bounds, got {mean} in [{p.low}, {p.high}]")
    return dict(parameters)
