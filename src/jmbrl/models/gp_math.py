"""Exact Gaussian-process regression with one output, in whatever precision its arguments have.

``y = f(x) + noise``, ``f ~ GP(0, k)``, ``k(a, b) = s^2 exp(-|(a - b) / l|^2 / 2)`` (squared exponential with a
length-scale per input), on standardised rows. A row of weight ``c`` has the noise variance ``n^2 / c``, as ``c`` equal
rows would; rows of weight 0 do not enter.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jmbrl.models.cholesky import cholesky, solve, whiten
from jmbrl.types import Array, PyTree


class Hyper(NamedTuple):
    """Logarithms of the length-scales ``l[D]``, the signal's ``s`` and the noise's ``n`` standard deviations."""

    log_length: Array
    log_signal: Array
    log_noise: Array


class Prior(NamedTuple):
    """Normal priors of the logarithms in ``Hyper``; ``floor`` is the least standard deviation of the noise.

    Without them, few or noiseless rows drive length-scales to infinity and the noise to 0, and the Gram matrix to
    where no Cholesky exists (PILCO's best known failure).
    """

    log_length: tuple[float, float]
    log_signal: tuple[float, float]
    log_noise: tuple[float, float]
    floor: float


def prior(inputs: int, floor: float) -> Prior:
    """For standardised rows: distances grow with ``sqrt(inputs)``, and so do the expected length-scales."""
    return Prior((0.5 * math.log(inputs), 1.0), (0.0, 1.0), (math.log(0.1), 1.5), floor)


def start(given: Prior, inputs: int) -> Hyper:
    """The priors' medians."""
    length, signal, noise = given.log_length[0], given.log_signal[0], given.log_noise[0]
    return Hyper(jnp.full(inputs, length), jnp.asarray(signal), jnp.asarray(noise))


def noise_variance(hyper: Hyper, given: Prior) -> Array:
    return jnp.exp(2.0 * hyper.log_noise) + given.floor**2


def kernel(hyper: Hyper, a: Array, b: Array) -> Array:
    """``k`` between rows ``a[N, D]`` and ``b[M, D]``: ``[N, M]``."""
    a, b = a * jnp.exp(-hyper.log_length), b * jnp.exp(-hyper.log_length)
    square = jnp.sum(a**2, axis=1)[:, None] + jnp.sum(b**2, axis=1) - 2.0 * a @ b.T
    return jnp.exp(2.0 * hyper.log_signal - 0.5 * jnp.maximum(square, 0.0))


def gram(hyper: Hyper, x: Array, weight: Array, given: Prior) -> Array:
    """The covariance of the observed ``y``; rows of no weight are independent of all, with variance 1."""
    here = weight > 0
    noise = jnp.where(here, noise_variance(hyper, given) / jnp.where(here, weight, 1.0), 1.0)
    return jnp.where(here[:, None] & here, kernel(hyper, x, x), 0.0) + jnp.diag(noise)


def loss_and_gradient(hyper: Hyper, x: Array, y: Array, weight: Array, given: Prior) -> tuple[Array, Hyper]:
    r"""Minus the log marginal likelihood and the log prior, and its gradient.

    .. math:: L = (y^T K^{-1} y + \log|K| + N \log 2\pi) / 2 - \log p(\theta), \quad
       dL/dK = (K^{-1} - K^{-1} y y^T K^{-1}) / 2

    The gradient by ``K`` is written out: differentiating a Cholesky factor costs more and, where the matrix is nearly
    singular, loses more.

    Source: Rasmussen and Williams 2006, equations 2.30 and 5.9.
    """
    factor, _ = cholesky(gram(hyper, x, weight, given))
    y = jnp.where(weight > 0, y, 0.0)
    alpha = solve(factor, y)
    count = jnp.sum(weight > 0)
    fit = 0.5 * (y @ alpha + count * math.log(2.0 * math.pi)) + jnp.sum(jnp.log(jnp.diagonal(factor)))
    slope = 0.5 * (solve(factor, jnp.eye(x.shape[0], dtype=x.dtype)) - alpha[:, None] * alpha)

    def pulled(hyper: Hyper) -> Array:
        # Its gradient is that of L: the slope by K is held constant.
        return jnp.sum(slope * gram(hyper, x, weight, given)) + _penalty(hyper, given)

    return fit + _penalty(hyper, given), jax.grad(pulled)(hyper)


def optimise(hyper: Hyper, loss: Callable, steps: int, learning_rate: float) -> tuple[Hyper, Array]:
    """``steps`` of Adam, the rate falling to 0 as a cosine; returns the best seen, ``hyper`` included, and its loss.

    ``loss(hyper) -> (value, gradient)``. A step with a number that is not finite is not taken.
    """
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, max(steps, 1)))

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        now, opt, best, least = carry
        value, slope = loss(now)
        better = value < least
        best = jax.tree.map(lambda a, b: jnp.where(better, a, b), now, best)
        updates, new_opt = optimizer.update(slope, opt)
        finite = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm(slope))
        after = (optax.apply_updates(now, updates), new_opt)
        now, opt = jax.tree.map(lambda a, b: jnp.where(finite, a, b), after, (now, opt))
        return (now, opt, best, jnp.where(better, value, least)), None

    infinite = jnp.full((), jnp.inf, hyper.log_signal.dtype)
    begin = (hyper, optimizer.init(hyper), hyper, infinite)
    # Once more than there are steps: the last turn only looks at where the last step led.
    (_, _, best, least), _ = jax.lax.scan(step, begin, None, length=steps + 1)
    return best, least


class Posterior(NamedTuple):
    """``alpha = K^-1 y`` (``[P]``) and ``inverse = L^-1`` (``[P, P]``), ``K = L L^T``."""

    alpha: PyTree
    inverse: PyTree


def condition(hyper: Hyper, x: Array, y: Array, weight: Array, given: Prior) -> tuple[Posterior, Array]:
    """The posterior, and how often the diagonal had to be raised to be factorised."""
    factor, raised = cholesky(gram(hyper, x, weight, given))
    y = jnp.where(weight > 0, y, 0.0)
    return Posterior(solve(factor, y), whiten(factor, jnp.eye(x.shape[0], dtype=x.dtype))), raised


def cross(hyper: Hyper, x: Array, weight: Array, at: Array) -> Array:
    """``k(at, x)``, ``[P]``, for one point ``at[D]``."""
    return jnp.where(weight > 0, kernel(hyper, at[None], x)[0], 0.0)


def mean(hyper: Hyper, posterior: Posterior, x: Array, weight: Array, at: Array) -> Array:
    return cross(hyper, x, weight, at) @ posterior.alpha


def mean_and_variance(hyper: Hyper, posterior: Posterior, x: Array, weight: Array, at: Array) -> tuple[Array, Array]:
    """Of ``f(at)``, noise not included. Source: Rasmussen and Williams 2006, equations 2.25 and 2.26."""
    k = cross(hyper, x, weight, at)
    explained = jnp.sum((posterior.inverse @ k) ** 2)
    return k @ posterior.alpha, jnp.maximum(jnp.exp(2.0 * hyper.log_signal) - explained, 0.0)


def _penalty(hyper: Hyper, given: Prior) -> Array:
    """Minus the log prior, up to a constant."""

    def one(value: Array, centre: float, width: float) -> Array:
        return jnp.sum(0.5 * ((value - centre) / width) ** 2)

    return (
        one(hyper.log_length, *given.log_length)
        + one(hyper.log_signal, *given.log_signal)
        + one(hyper.log_noise, *given.log_noise)
    )
