"""Linear-Gaussian dynamics that change with time, fitted to a few episodes under a prior from many."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.models import cholesky, mixture
from jmbrl.models.mixture import Mixture
from jmbrl.types import Array, Key, Transition


class LinearGaussian(NamedTuple):
    """``y_t = matrix_t z_t + offset_t + N(0, covariance_t)``: dynamics (``z = (x, u)``, ``y`` the next ``x``) or a
    controller (``z = x``, ``y = u``); ``matrix[T, Y, Z]``, ``offset[T, Y]``, ``covariance[T, Y, Y]``."""

    matrix: Array
    offset: Array
    covariance: Array


class Belief(NamedTuple):
    """What is known of the mean and the covariance of rows: a normal-inverse-Wishart distribution.

    Attributes:
      mean: ``[..., D]``.
      covariance: ``[..., D, D]``, the expected one.
      count: how many rows it is worth.
    """

    mean: Array
    covariance: Array
    count: Array


def posterior(prior: Belief, mean: Array, scatter: Array, count: Array) -> Belief:
    r"""The belief after more rows, for one ``D``-vector.

    .. math:: \mu = \frac{m \mu_0 + n \bar z}{m + n}, \qquad
              \Sigma = \frac{m \Sigma_0 + S + \frac{m n}{m + n} (\bar z - \mu_0)(\bar z - \mu_0)^\top}{m + n}

    the posterior expectations where the prior is worth ``m`` rows in its mean and ``m + D + 1`` degrees of freedom.

    Args:
      prior: worth ``m`` rows.
      mean, scatter: of the rows, :math:`\bar z` and :math:`S = \sum (z - \bar z)(z - \bar z)^\top`.
      count: ``n``.

    Source: Murphy 2012, Machine Learning: A Probabilistic Perspective, equations 4.209 to 4.216.
    """
    total = jnp.maximum(prior.count + count, 1e-6)  # nothing known at all: 0
    apart = mean - prior.mean
    pulled = prior.count * count / total * jnp.outer(apart, apart)
    centre = (prior.count * prior.mean + count * mean) / total
    return Belief(centre, (prior.count * prior.covariance + scatter + pulled) / total, total)


def conditional(mean: Array, covariance: Array, inputs: int, floor: float) -> tuple[Array, Array, Array, Array]:
    """``p(y | z)`` of a Gaussian over ``(z, y)``, ``z`` the first ``inputs`` entries: ``matrix[Y, Z]``, ``offset[Y]``,
    ``covariance[Y, Y]`` and how often the covariance of ``z`` had to be raised to be factorised. ``floor`` is added to
    the variances of ``z`` and to those that remain in ``y``."""
    zz = covariance[:inputs, :inputs] + floor * jnp.eye(inputs)
    # Columns of unit variance: their spread at one time may be far below that over all times.
    scale = jnp.sqrt(jnp.maximum(jnp.diagonal(zz), 1e-12))
    zy = covariance[:inputs, inputs:] / scale[:, None]
    unit = zz / (scale[:, None] * scale)
    factor, raised = cholesky.cholesky(unit)
    solved = cholesky.solve(factor, zy)
    solved = solved + cholesky.solve(factor, zy - unit @ solved)
    matrix = (solved / scale[:, None]).T
    rest = covariance[inputs:, inputs:] - solved.T @ zy
    rest = 0.5 * (rest + rest.T)
    keep = jnp.maximum(jnp.diagonal(rest), 0.0) - jnp.diagonal(rest)
    rest = rest + jnp.diag(keep + floor)
    return matrix, mean[inputs:] - matrix @ mean[:inputs], rest, raised


def local_regression(
    key: Key,
    z: Array,
    y: Array,
    time: Array,
    weight: Array,
    seen: Array,
    steps: int,
    *,
    clusters: int = 20,
    strength: float | Array = 1.0,
    floor: float = 1e-6,
    iterations: int = 20,
) -> tuple[LinearGaussian, Array, dict[str, Array]]:
    """One linear-Gaussian regression of ``y`` on ``z`` for each time step, all under priors from one mixture.

    A mixture of Gaussians is fitted to all rows ``(z, y)`` that were seen, whatever their time. The prior of a step is
    a normal-inverse-Wishart distribution with the mean and covariance of the mixture's components weighted by how much
    they are responsible for the rows of that step. Columns are standardised first.

    Args:
      key: of the mixture's start.
      z, y: ``float32[R, Z]`` and ``float32[R, Y]``.
      time: ``int32[R]``, in ``[0, steps)``.
      weight: ``float32[R]``, how often a row counts in the regression of its step.
      seen: ``float32[R]``, how often it counts in the mixture. Rows where both are 0 may hold anything.
      steps: ``T``.
      clusters: of the mixture, at least 1.
      strength: how many rows the prior is worth, at least 0. With 0 a step of fewer rows than dimensions has the
        smallest coefficients that explain them.
      floor: variance added to every column, in units of its variance over all rows; positive.
      iterations: of expectation-maximisation.

    Returns:
      The regressions, the means of ``(z, y)`` at each step ``float32[T, Z + Y]`` (those of the prior where there are no
      rows), and ``info``: ``loss`` (minus the mixture's log-likelihood, standardised), ``raised`` (how often a
      covariance had to be raised to be factorised).

    Raises:
      ValueError: a number outside its range.

    Source: Levine & Abbeel 2014, Learning neural network policies with guided policy search under unknown dynamics,
    section 4; Levine et al. 2016 (arXiv 1504.00702), appendix A.3.
    """
    steps = checks.integer("steps", steps, 1)
    clusters = checks.integer("clusters", clusters, 1)
    checks.number("strength", strength, 0.0)
    floor = checks.number("floor", floor, 1e-9)
    iterations = checks.integer("iterations", iterations, 1)
    inputs = z.shape[1]
    known = (weight > 0) | (seen > 0)
    rows = jnp.where(known[:, None], jnp.concatenate([z, y], axis=1), 0.0)
    total = jnp.maximum(jnp.sum(seen), 1.0)
    middle = seen @ rows / total
    scale = jnp.sqrt(seen @ (rows - middle) ** 2 / total)
    scale = jnp.where(scale > 1e-6 * (1.0 + jnp.abs(middle)), scale, 1.0)  # below is the mean's rounding
    rows = jnp.where(known[:, None], (rows - middle) / scale, 0.0)
    joint, trace, raised = mixture.em(key, rows, seen, clusters, iterations, floor)
    count, mean, scatter = moments_by_time(rows, time, weight, steps)
    prior = Belief(*priors_by_time(joint, rows, time, weight, steps), jnp.full(steps, strength))
    after = jax.vmap(posterior)(prior, mean, scatter, count)
    matrix, offset, covariance, more = jax.vmap(lambda a, b: conditional(a, b, inputs, floor))(*after[:2])
    matrix = matrix * scale[inputs:, None] / scale[:inputs]
    offset = scale[inputs:] * offset + middle[inputs:] - matrix @ middle[:inputs]
    covariance = covariance * scale[inputs:, None] * scale[inputs:]
    info = {"loss": -trace[-1], "raised": raised + jnp.sum(more)}
    return LinearGaussian(matrix, offset, covariance), middle + scale * after.mean, info


def local_linear(
    key: Key, rows: Transition, time: Array, weight: Array, seen: Array, steps: int, **options: float
) -> tuple[LinearGaussian, Array, dict[str, Array]]:
    """Time-varying dynamics ``x_{t+1} = F_t (x_t, u_t) + f_t + N(0, W_t)``: ``local_regression`` of the change.

    Args:
      key: consumed.
      rows: ``Transition[R]`` of vector observations and continuous actions.
      time, weight, seen, steps, options: as in ``local_regression``.

    Returns:
      The dynamics, the mean ``(x, u)`` at each step ``float32[T, X + U]``, and ``info``.
    """
    size = rows.obs.shape[1]
    z = jnp.concatenate([rows.obs, rows.action], axis=1)
    fit, means, info = local_regression(key, z, rows.next_obs - rows.obs, time, weight, seen, steps, **options)  # type: ignore[arg-type]
    return fit._replace(matrix=fit.matrix.at[:, :, :size].add(jnp.eye(size))), means[:, : z.shape[1]], info


def moments_by_time(rows: Array, time: Array, weight: Array, steps: int) -> tuple[Array, Array, Array]:
    """Weighted count ``[T]``, mean ``[T, D]`` and scatter ``[T, D, D]`` of the rows of each time step."""

    def add(x: Array) -> Array:
        return jax.ops.segment_sum(x, time, steps)

    count = add(weight)
    mean = add(weight[:, None] * rows) / jnp.where(count > 0, count, 1.0)[:, None]
    away = rows - mean[time]
    return count, mean, add(weight[:, None, None] * away[:, :, None] * away[:, None, :])


def priors_by_time(joint: Mixture, rows: Array, time: Array, weight: Array, steps: int) -> tuple[Array, Array]:
    """Mean ``[T, D]`` and covariance ``[T, D, D]`` of the components that are responsible for each step's rows; of the
    whole mixture where a step has none."""
    share = mixture.responsibilities(joint, rows) * weight[:, None]
    share = jax.ops.segment_sum(share, time, steps)
    total = jnp.sum(share, axis=1, keepdims=True)
    share = jnp.where(total > 0, share / jnp.where(total > 0, total, 1.0), jnp.exp(joint.log_weight))

    def merged(share: Array) -> tuple[Array, Array]:
        mean = share @ joint.mean
        away = joint.mean - mean
        within = jnp.einsum("k,kij->ij", share, joint.covariance)
        return mean, within + away.T @ (share[:, None] * away)

    return jax.vmap(merged)(share)
