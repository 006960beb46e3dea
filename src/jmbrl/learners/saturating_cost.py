"""PILCO's cost: near the target a squared distance, far from it 1."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.models.gaussian_moments import Gaussian, expected_exponential
from jmbrl.types import Array


class SaturatingCost(NamedTuple):
    """``target[F]`` and ``rows[K, F]``, the distance's rows divided by the width; NumPy float64."""

    target: np.ndarray
    rows: np.ndarray

    def value(self, z: Array) -> Array:
        """The cost of a point ``z[F]``, in ``[0, 1)``."""
        miss = jnp.asarray(self.rows, z.dtype) @ (z - jnp.asarray(self.target, z.dtype))
        return 1.0 - jnp.exp(-0.5 * jnp.sum(miss**2))

    def moments(self, at: Gaussian) -> tuple[Array, Array]:
        """Mean and variance of the cost of a Gaussian point: exact."""
        rows = jnp.asarray(self.rows, at.mean.dtype)
        here = Gaussian(at.mean - jnp.asarray(self.target, at.mean.dtype), at.covariance)
        first, second = (expected_exponential(rows, here, power) for power in (1.0, 2.0))
        return 1.0 - first, jnp.maximum(second - first**2, 0.0)


def saturating_cost(target: Any, rows: Any = None, width: float = 1.0) -> SaturatingCost:
    r"""A cost that is 0 at the target and saturates at 1, so that being far from it twice as much is no worse.

    .. math:: c(z) = 1 - \exp\left(-\frac{|R (z - z^*)|^2}{2 w^2}\right)

    Under a Gaussian belief its mean rewards spread far from the target (some of it may be near) and punishes spread
    near it: a planner explores where it is lost and is careful where it is not.

    Args:
      target: :math:`z^*`, ``F`` numbers.
      rows: :math:`R`, ``K`` rows of ``F`` numbers, whose values at ``z`` less those at the target are the distance;
        None: the distance is Euclidean.
      width: :math:`w`, the distance at which the cost is 0.39; positive.

    Raises:
      ValueError: numbers that are not finite, shapes that do not fit, or a width that is not positive.

    Source: Deisenroth & Rasmussen 2011 (PILCO), equation 25.
    """
    target = np.asarray([checks.number("target", x) for x in target], np.float64)
    if not len(target):
        raise ValueError("target must have at least one number, got none")
    rows = np.eye(len(target)) if rows is None else [[checks.number("rows", x) for x in row] for row in rows]
    for row in rows:
        if len(row) != len(target):
            raise ValueError(f"rows must have one number per entry of target ({len(target)}), got {len(row)}")
    if not len(rows):
        raise ValueError("rows must have at least one row, got none")
    return SaturatingCost(target, np.asarray(rows, np.float64) / checks.number("width", width, 1e-12))
