"""Gaussian mixtures with full covariances: expectation-maximisation, and conditioning."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl.models import cholesky
from jmbrl.types import Array, Key


class Mixture(NamedTuple):
    """``log_weight[K]``, ``mean[K, D]``, ``covariance[K, D, D]``."""

    log_weight: Array
    mean: Array
    covariance: Array


class Conditional(NamedTuple):
    """``p(y | x)`` of a mixture over ``(x, y)``, ready to be evaluated.

    Component ``k``: ``y ~ N(mean_y + gain (x - mean_x), factor factor^T)``, responsible with
    ``softmax_k(log_weight - |white (x - mean_x)|^2 / 2)``.
    """

    log_weight: Array  # [K], the normaliser of N(x; ...) included
    mean_x: Array  # [K, X]
    mean_y: Array  # [K, Y]
    white: Array  # [K, X, X]
    gain: Array  # [K, Y, X]
    factor: Array  # [K, Y, Y]


def em(
    key: Key, z: Array, weight: Array, components: int, iterations: int, floor: float
) -> tuple[Mixture, Array, Array]:
    r"""Fits a mixture to weighted rows by expectation-maximisation.

    Covariances get ``floor`` on their diagonal. That is the exact M-step of

    .. math:: \sum_i c_i \log \sum_k \pi_k N(z_i; \mu_k, \Sigma_k) e^{-\mathrm{floor}\, tr(\Sigma_k^{-1}) / 2}

    over ``sum_i c_i``, so this objective, the likelihood but for a small penalty, rises at every step. A component
    that has lost its rows keeps its place.

    Args:
      key: of the start: centres drawn far from each other (k-means++), rows assigned to the nearest.
      z: ``float32[N, D]``, standardised; no NaN even where ``weight`` is 0.
      weight: ``float32[N]``, ``c``.
      components, iterations: ``K``, and how many steps.
      floor: added to each variance; in units of a standardised column.

    Returns:
      The mixture, the objective before each step and after the last (``[iterations + 1]``), and how often a covariance
      had to be raised before it could be factorised.

    Source: Bishop 2006, section 9.2.2; Arthur and Vassilvitskii 2007 (the start).
    """
    total = jnp.maximum(jnp.sum(weight), 1.0)
    centres = spread_out(key, z, weight, components)
    nearest = jnp.argmin(_distances(z, centres), axis=1)
    same = Mixture(jnp.zeros(components), centres, jnp.broadcast_to(jnp.eye(z.shape[1]), (components, *_square(z))))
    start = _maximise(same, z, jax.nn.one_hot(nearest, components) * weight[:, None], floor)

    def score(mixture: Mixture) -> tuple[Array, Array, Array]:
        factor, raised = jax.vmap(cholesky.cholesky)(mixture.covariance)
        each = mixture.log_weight + jax.vmap(_log_density, in_axes=(None, 0, 0, None), out_axes=1)(
            z, mixture.mean, factor, floor
        )
        whole = jax.nn.logsumexp(each, axis=1)
        share = jnp.exp(each - whole[:, None]) * weight[:, None]
        return jnp.sum(whole * weight) / total, share, jnp.sum(raised)

    def step(mixture: Mixture, last: Array) -> tuple[Mixture, tuple[Array, Array]]:
        objective, share, raised = score(mixture)
        new = _maximise(mixture, z, share, floor)
        return jax.tree.map(lambda a, b: jnp.where(last, a, b), mixture, new), (objective, raised)

    # The last turn only looks at where the last step led: one score to compile.
    mixture, (trace, raised) = jax.lax.scan(step, start, jnp.arange(iterations + 1) == iterations)
    return mixture, trace, jnp.sum(raised)


def spread_out(key: Key, z: Array, weight: Array, count: int) -> Array:
    """``float32[count, D]``: rows drawn in turn, each with a chance by its squared distance to those before."""

    def draw(carry: tuple[Array, Array], key: Key) -> tuple[tuple[Array, Array], Array]:
        distance, seen = carry
        chance = jnp.where(seen, weight * distance, weight)
        chance = jnp.where(jnp.sum(chance) > 0, chance, weight)  # all rows taken: any of them again
        centre = z[jax.random.categorical(key, jnp.log(chance))]
        return (jnp.minimum(distance, jnp.sum((z - centre) ** 2, axis=1)), jnp.asarray(True)), centre

    start = (jnp.full(z.shape[0], jnp.inf), jnp.asarray(False))
    return jax.lax.scan(draw, start, jax.random.split(key, count))[1]


def responsibilities(mixture: Mixture, z: Array) -> Array:
    """``float32[N, K]``: how likely each component is to have made each of the rows ``z[N, D]``."""
    factor, _ = jax.vmap(cholesky.cholesky)(mixture.covariance)
    density = jax.vmap(_log_density, in_axes=(None, 0, 0, None), out_axes=1)(z, mixture.mean, factor, 0.0)
    return jax.nn.softmax(mixture.log_weight + density, axis=1)


def condition(mixture: Mixture, inputs: int) -> tuple[Conditional, Array]:
    """``p(y | x)`` where ``x`` are the first ``inputs`` columns; and how often a covariance had to be raised."""

    def one(log_weight: Array, mean: Array, covariance: Array) -> tuple[Conditional, Array]:
        xx, xy = covariance[:inputs, :inputs], covariance[:inputs, inputs:]
        factor, raised = cholesky.cholesky(xx)
        white = cholesky.whiten(factor, jnp.eye(inputs))
        half = cholesky.whiten(factor, xy)
        gain = jax.scipy.linalg.solve_triangular(factor, half, lower=True, trans="T").T
        rest, more = cholesky.cholesky(covariance[inputs:, inputs:] - half.T @ half)
        log_weight = log_weight - jnp.sum(jnp.log(jnp.diagonal(factor)))
        return Conditional(log_weight, mean[:inputs], mean[inputs:], white, gain, rest), raised + more

    conditional, raised = jax.vmap(one)(*mixture)
    return conditional, jnp.sum(raised)


def empty(components: int, inputs: int, targets: int) -> Conditional:
    """Predicts 0 without noise, whatever ``x``."""
    shapes = ((), (inputs,), (targets,), (inputs, inputs), (targets, inputs), (targets, targets))
    return Conditional(*(jnp.zeros((components, *shape)) for shape in shapes))


def responsible(given: Conditional, x: Array) -> tuple[Array, Array]:
    """For rows ``x[N, X]``: ``log`` of the responsibilities ``[N, K]``, not normalised, and means ``[N, K, Y]``."""
    away = x[:, None] - given.mean_x
    far = jnp.sum(jnp.einsum("kab,nkb->nka", given.white, away) ** 2, axis=-1)
    return given.log_weight - 0.5 * far, given.mean_y + jnp.einsum("kya,nka->nky", given.gain, away)


def moments(given: Conditional, x: Array) -> tuple[Array, Array]:
    """Mean and standard deviation ``[N, Y]`` of the mixture at rows ``x[N, X]``."""
    log_share, means = responsible(given, x)
    share = jax.nn.softmax(log_share, axis=1)[:, :, None]
    mean = jnp.sum(share * means, axis=1)
    variance = jnp.sum(given.factor**2, axis=-1) + (means - mean[:, None]) ** 2
    return mean, jnp.sqrt(jnp.sum(share * variance, axis=1))


def _maximise(old: Mixture, z: Array, share: Array, floor: float) -> Mixture:
    """The M-step for responsibilities ``share[N, K]`` that count rows."""
    eye = jnp.eye(z.shape[1])

    def one(share: Array, log_weight: Array, mean: Array, covariance: Array) -> Mixture:
        count = jnp.sum(share)
        n = jnp.maximum(count, 1e-6)
        centre = share @ z / n
        away = z - centre
        new = Mixture(jnp.log(n), centre, away.T @ (share[:, None] * away) / n + floor * eye)
        kept = Mixture(jnp.log(n), mean, covariance)
        return jax.tree.map(lambda a, b: jnp.where(count > 1e-3, a, b), new, kept)

    new = jax.vmap(one, in_axes=(1, 0, 0, 0))(share, *old)
    return new._replace(log_weight=jax.nn.log_softmax(new.log_weight))


def _log_density(z: Array, mean: Array, factor: Array, floor: float) -> Array:
    """``log N(z; mean, L L^T) - floor tr((L L^T)^-1) / 2`` for rows ``z``."""
    dim = z.shape[1]
    # One triangular solve, not two at once: batched ones wait in XLA's pool of threads for each other, and with two
    # threads the whole program then stands still.
    inverse = cholesky.whiten(factor, jnp.eye(dim))
    white = inverse @ (z - mean).T
    constant = jnp.sum(jnp.log(jnp.diagonal(factor))) + 0.5 * dim * math.log(2.0 * math.pi)
    return -0.5 * jnp.sum(white**2, axis=0) - constant - 0.5 * floor * jnp.sum(inverse**2)


def _distances(z: Array, centres: Array) -> Array:
    return jnp.sum((z[:, None] - centres) ** 2, axis=-1)


def _square(z: Array) -> tuple[int, int]:
    return (z.shape[1], z.shape[1])
