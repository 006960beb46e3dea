r"""Exact moments of functions at a Gaussian input.

Every function here maps a Gaussian ``x ~ N(m, s)`` to the ``Moments`` of its output ``y``: mean, covariance, and the
``gain`` :math:`s^{-1} \operatorname{cov}(x, y)`. With the gain the output joins whatever else is jointly Gaussian with
``x``, and nothing has to be inverted that may be singular (an angle beside its sine).
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jmbrl.models.cholesky import solve
from jmbrl.types import Array


class Gaussian(NamedTuple):
    """``mean[D]``, ``covariance[D, D]``."""

    mean: Array
    covariance: Array


class Moments(NamedTuple):
    """``mean[E]``, ``covariance[E, E]``, ``gain[D, E]``: the input's inverse covariance times that with the output."""

    mean: Array
    covariance: Array
    gain: Array


def affine(matrix: Array, offset: Array | float, at: Gaussian) -> Moments:
    """Of ``matrix[E, D] x + offset``."""
    return Moments(matrix @ at.mean + offset, matrix @ at.covariance @ matrix.T, matrix.T)


def trigonometric(angles: tuple[int, ...], at: Gaussian) -> Moments:
    r"""Of ``[entries that are no angles, sines, cosines]``, in the order of ``models``' ``angles``.

    .. math:: E[\sin x_i] = e^{-s_{ii}/2} \sin m_i, \quad \operatorname{cov}(\sin x_i, \sin x_j) = \tfrac12
              e^{-(s_{ii} + s_{jj})/2} \left[(e^{s_{ij}} - 1) \cos(m_i - m_j) - (e^{-s_{ij}} - 1) \cos(m_i + m_j)\right]

    and likewise for the cosines.

    Source: Deisenroth 2010 (thesis), appendix A.1.
    """
    mean, covariance = at
    angle = np.asarray(angles, int)
    plain = np.delete(np.arange(len(mean)), angle)
    m, s = mean[angle], covariance[angle][:, angle]
    shrunk = jnp.exp(-0.5 * jnp.diagonal(s))
    sine, cosine = shrunk * jnp.sin(m), shrunk * jnp.cos(m)
    less, more = m[:, None] - m, m[:, None] + m
    both = shrunk[:, None] * shrunk
    minus, plus = 0.5 * both * jnp.expm1(s), 0.5 * both * jnp.expm1(-s)
    sines = minus * jnp.cos(less) - plus * jnp.cos(more)
    cosines = minus * jnp.cos(less) + plus * jnp.cos(more)
    mixed = minus * jnp.sin(less) + plus * jnp.sin(more)
    rows = jnp.eye(len(mean), dtype=mean.dtype)
    gain = jnp.concatenate([rows[:, plain], rows[:, angle] * cosine, -rows[:, angle] * sine], axis=1)
    out = (
        (gain.T @ covariance @ gain).at[len(plain) :, len(plain) :].set(jnp.block([[sines, mixed], [mixed.T, cosines]]))
    )
    return Moments(jnp.concatenate([mean[plain], sine, cosine]), out, gain)


def squash(x: Array) -> Array:
    """``(9 sin x + sin 3x) / 8``, entry by entry: in ``[-1, 1]``, and flat where it touches the bounds."""
    return (9.0 * jnp.sin(x) + jnp.sin(3.0 * x)) / 8.0


def squashed(at: Gaussian) -> Moments:
    """Of ``squash``. Source: Deisenroth & Rasmussen 2011, section 2.2; Deisenroth et al. 2015."""
    dim = len(at.mean)
    eye = jnp.eye(dim, dtype=at.mean.dtype)
    waves = affine(jnp.concatenate([eye, 3.0 * eye]), 0.0, at)
    sines = trigonometric(tuple(range(2 * dim)), Gaussian(waves.mean, waves.covariance))
    weights = jnp.concatenate([9.0 * eye, eye], axis=1) / 8.0
    half = slice(None, 2 * dim)
    out = affine(weights, 0.0, Gaussian(sines.mean[half], sines.covariance[half, half]))
    return Moments(out.mean, out.covariance, waves.gain @ sines.gain[:, half] @ out.gain)


def through(first: Moments, second: Moments) -> Moments:
    """Moments of ``second`` after ``first``, by the input of ``first``."""
    return Moments(second.mean, second.covariance, first.gain @ second.gain)


def joined(joint: Gaussian, inputs: slice, moments: Moments) -> Gaussian:
    """``joint`` with the outputs ``moments`` of its entries ``inputs`` behind it."""
    cross = joint.covariance[:, inputs] @ moments.gain
    covariance = jnp.block([[joint.covariance, cross], [cross.T, moments.covariance]])
    return Gaussian(jnp.concatenate([joint.mean, moments.mean]), covariance)


def expected_exponential(rows: Array, at: Gaussian, power: float = 1.0) -> Array:
    r"""``E[exp(-power |rows x|^2 / 2)]``, ``rows[K, D]``.

    .. math:: |I + p C|^{-1/2} \exp(-\tfrac{p}{2} c^T (I + p C)^{-1} c), \quad c = R m, \; C = R s R^T
    """
    centre, covariance = rows @ at.mean, rows @ at.covariance @ rows.T
    factor = jnp.linalg.cholesky(jnp.eye(len(centre), dtype=centre.dtype) + power * covariance)
    return jnp.exp(-0.5 * power * centre @ solve(factor, centre)) / root_determinant(factor)


def root_determinant(factor: Array) -> Array:
    """The square root of the determinant of ``L L^T``."""
    return jnp.prod(jnp.diagonal(factor))
