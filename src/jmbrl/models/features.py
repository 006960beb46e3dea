"""Feature maps for linear models: what makes a regression on them nonlinear in the inputs."""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.types import Array, Key, PyTree

_MOST = 4096  # columns; a regression solves a square system of so many


class FeatureMap(NamedTuple):
    """Columns computed from inputs.

    ``init(key, inputs) -> constants``; ``apply(constants, x[N, inputs]) -> float32[N, size(inputs)]``, the first
    column being 1.
    """

    init: Callable
    apply: Callable
    size: Callable


def polynomial(degree: int) -> FeatureMap:
    """All monomials of the inputs up to ``degree``; 1: the inputs themselves and the constant.

    Raises:
      ValueError: ``degree`` below 1; when used, more than 4096 columns.
    """
    degree = checks.integer("degree", degree, 1)

    def size(inputs: int) -> int:
        columns = math.comb(inputs + degree, degree)
        if columns > _MOST:
            raise ValueError(f"degree={degree} gives {columns} columns, at most {_MOST}: use random_fourier")
        return columns

    def apply(constants: PyTree, x: Array) -> Array:
        del constants
        # With a 1 among the factors, products of exactly `degree` of them are all monomials up to it.
        factors = jnp.concatenate([jnp.ones((x.shape[0], 1)), x], axis=1)
        chosen = np.array(list(itertools.combinations_with_replacement(range(factors.shape[1]), degree)))
        out = factors[:, chosen[:, 0]]
        for i in range(1, degree):
            out = out * factors[:, chosen[:, i]]
        return out

    return FeatureMap(lambda key, inputs: (), apply, size)


def random_fourier(count: int, lengthscale: float = 2.0) -> FeatureMap:
    r"""``sqrt(2 / count) cos(w_i . x + b_i)``, ``w ~ N(0, I / lengthscale^2)``, ``b ~ U[0, 2 pi]``, and the constant.

    Regression on them approximates a Gaussian process with the kernel ``exp(-|x - x'|^2 / 2 lengthscale^2)``. The
    frequencies are drawn by ``init``, so members of an ensemble have their own.

    Args:
      count: features, in ``[1, 4095]``.
      lengthscale: in standard deviations of the inputs, positive.

    Source: Rahimi and Recht 2007, algorithm 1.
    """
    count = checks.integer("count", count, 1, _MOST - 1)
    lengthscale = checks.number("lengthscale", lengthscale, 1e-6)

    def init(key: Key, inputs: int) -> PyTree:
        key_w, key_b = jax.random.split(key)
        frequency = jax.random.normal(key_w, (inputs, count)) / lengthscale
        return frequency, jax.random.uniform(key_b, (count,), maxval=2.0 * math.pi)

    def apply(constants: PyTree, x: Array) -> Array:
        frequency, phase = constants
        waves = math.sqrt(2.0 / count) * jnp.cos(x @ frequency + phase)
        return jnp.concatenate([jnp.ones((x.shape[0], 1)), waves], axis=1)

    return FeatureMap(init, apply, lambda inputs: count + 1)
