"""A step along the natural gradient inside a trust region, on functions of one flat vector of parameters."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl.types import Array


def conjugate_gradient(matvec: Callable, b: Array, iterations: int = 10, tolerance: float | Array = 1e-10) -> Array:
    r"""Solves :math:`F x = b` for a symmetric positive definite :math:`F` given by its products.

    Args:
      matvec: ``(v[D]) -> F v``.
      b: ``float32[D]``.
      iterations: at most.
      tolerance: stops where :math:`|b - F x|^2` is below it.

    Source: Hestenes & Stiefel 1952; Golub & Van Loan 2013, algorithm 11.3.3.
    """

    def body(loop: tuple) -> tuple:
        i, x, r, p, rr = loop
        z = matvec(p)
        step = rr / jnp.dot(p, z)
        r = r - step * z
        new = jnp.dot(r, r)
        return i + 1, x + step * p, r, r + (new / rr) * p, new

    start = (0, jnp.zeros_like(b), b, b, jnp.dot(b, b))
    return jax.lax.while_loop(lambda loop: (loop[0] < iterations) & (loop[4] > tolerance), body, start)[1]


def curvature(kl: Callable, at: Array, damping: float | Array = 0.0) -> Callable:
    r"""Products with the Hessian of a divergence at its minimum, ``v -> (F + damping I) v``.

    .. math:: F = \nabla^2_\theta E[KL(\pi_{\theta_0} || \pi_\theta)]_{\theta = \theta_0}

    which is the Fisher information: one gradient and one derivative along ``v``, never a matrix.

    Args:
      kl: ``(theta[D]) -> float32``, 0 at ``at``.
      at: :math:`\theta_0`.
    """
    slope = jax.grad(kl)
    return lambda v: jax.jvp(slope, (at,), (v,))[1] + damping * v


class Step(NamedTuple):
    """What ``natural_step`` did. ``improvement``: of the objective, 0 where nothing was ``accepted``; ``kl``: of the
    step taken; ``backtracks``: how often the step was shrunk; ``gradient, direction``: ``float32[D]``."""

    improvement: Array
    kl: Array
    accepted: Array
    backtracks: Array
    gradient: Array
    direction: Array


def natural_step(
    objective: Callable,
    kl: Callable,
    start: Array,
    *,
    max_kl: float | Array = 0.01,
    damping: float | Array = 0.1,
    iterations: int = 10,
    shrink: float | Array = 0.5,
    backtracks: int = 10,
    slack: float | Array = 1.5,
    fisher: Callable | None = None,
) -> tuple[Array, Step]:
    r"""The largest step along :math:`s = (F + c I)^{-1} g` that raises ``objective`` and keeps near.

    .. math:: \theta_k = \theta_0 + \beta^k \sqrt{2 \delta / s^T (F + c I) s} \; s, \quad k = 0, 1, \ldots

    The first :math:`k` with a larger objective and a divergence of at most ``slack * max_kl`` is taken; without one
    the parameters stay.

    Args:
      objective: ``(theta[D]) -> float32``, to be raised.
      kl: as in ``curvature``.
      start: :math:`\theta_0`, ``float32[D]``.
      max_kl: :math:`\delta`, in nats.
      damping: :math:`c`.
      iterations: of the conjugate gradient.
      shrink: :math:`\beta`, in ``(0, 1)``.
      backtracks: how many steps are tried.
      slack: how far the divergence may go beyond ``max_kl``, as a factor.
      fisher: ``(v[D]) -> F v`` at ``start``, where it is cheaper than two derivatives of ``kl``.

    Source: Schulman et al. 2015 (arXiv 1502.05477), appendix C; ``slack`` as in OpenAI baselines and SLBO's code.
    """
    before, gradient = jax.value_and_grad(objective)(start)
    product = curvature(kl, start, damping) if fisher is None else lambda v: fisher(v) + damping * v
    direction = conjugate_gradient(product, gradient, iterations)
    length = jnp.dot(direction, product(direction))
    # Without a gradient there is no direction, and nothing to divide by.
    full = jnp.where(length > 0, jnp.sqrt(2.0 * max_kl / jnp.where(length > 0, length, 1.0)), 0.0) * direction

    def attempt(loop: tuple) -> tuple:
        k = loop[0]
        theta = start + shrink**k * full
        gain, away = objective(theta) - before, kl(theta)
        return k + 1, (gain > 0) & (away <= slack * max_kl), gain, away

    zero = jnp.zeros(())
    searching = lambda loop: (loop[0] < backtracks) & ~loop[1]  # noqa: E731
    tries, accepted, gain, away = jax.lax.while_loop(
        searching, attempt, (jnp.zeros((), jnp.int32), jnp.zeros((), bool), zero, zero)
    )
    k = tries - 1
    end = jnp.where(accepted, start + shrink**k * full, start)
    gain, away = jnp.where(accepted, gain, zero), jnp.where(accepted, away, zero)
    return end, Step(gain, away, accepted, k, gradient, direction)
