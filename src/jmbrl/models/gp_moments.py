"""Exact moments of Gaussian processes at a Gaussian input: what a distribution of states becomes through a model.

Meant for float64: the variance of a process that knows its data is a small difference of large numbers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl.models.cholesky import solve
from jmbrl.models.double import widen
from jmbrl.models.gaussian_moments import Gaussian, Moments, root_determinant
from jmbrl.models.gp import GPWeights
from jmbrl.models.regression import scale
from jmbrl.models.state_space import Stats
from jmbrl.types import Array

_BLOCK = 64  # rows and columns of a sum over pairs of rows that are worked on at a time


class Processes(NamedTuple):
    """``E`` Gaussian processes that share their rows, in the units of the data.

    Attributes:
      x: ``[P, D]``, the rows.
      length: ``[E, D]``, length-scales.
      variance: ``[E]``, of the prior of the function.
      alpha: ``[E, P]``, ``K^-1 y``; 0 for rows that do not count.
      products: ``[E (E + 1) / 2, P, P]``, for each pair ``a <= b`` of outputs what the expected product of their
        kernels is weighted with: ``alpha_a alpha_b^T``, less ``K^-1`` where ``a = b``.
      noise: ``[E]``, variances added to the outputs.
      offset: ``[E]``, means of the prior.
      count: ``int32``, rows from there on do not count.
    """

    x: Array
    length: Array
    variance: Array
    alpha: Array
    products: Array
    noise: Array
    offset: Array
    count: Array


def processes(
    x: Array,
    length: Array,
    variance: Array,
    alpha: Array,
    inverse: Array | None,
    noise: Array,
    offset: Array,
    count: Array | int | None = None,
) -> Processes:
    """``Processes`` from ``inverse = K^-1``, ``[E, P, P]``; None: functions without uncertainty.

    ``count``: rows in front that have an ``alpha`` or ``inverse`` other than 0; None: all.
    """
    x, length, alpha = jnp.asarray(x), jnp.asarray(length), jnp.asarray(alpha)
    first, second = np.triu_indices(len(alpha))
    products = alpha[first, :, None] * alpha[second, None, :]
    if inverse is not None:
        products = products.at[np.flatnonzero(first == second)].add(-inverse)
    count = jnp.asarray(len(x) if count is None else count, jnp.int32)
    return Processes(x, length, jnp.asarray(variance), alpha, products, jnp.asarray(noise), jnp.asarray(offset), count)


def fitted(weights: GPWeights, stats: Stats, floor: float) -> Processes:
    """The processes of a fitted ``models.gp`` in the data's units, float64; call it where float64 is enabled.

    Args:
      weights, stats: of the model's parameters. Its outputs must be normalised targets, as ``models.gp``'s are.
      floor: its ``noise_floor``.
    """
    hyper, rows, weight, posterior = widen(tuple(weights))
    inputs, targets = widen(stats.inputs), widen(scale(stats))
    here = weight > 0
    whitened = jnp.where(here, posterior.inverse, 0.0)
    # A row that does not count is independent of all: its part of the inverse is its own 1, which is taken out.
    whitened = jnp.where(here[:, None], whitened, 0.0)
    square = targets.std**2
    # The last row that counts: models.gp keeps them in front.
    count = jnp.max(jnp.where(here, jnp.arange(len(here)) + 1, 0))
    return processes(
        rows * inputs.std + inputs.mean,
        jnp.exp(hyper.log_length) * inputs.std,
        jnp.exp(2.0 * hyper.log_signal) * square,
        jnp.where(here, posterior.alpha, 0.0) / targets.std[:, None],
        jnp.einsum("eki,ekj->eij", whitened, whitened) / square[:, None, None],
        (jnp.exp(2.0 * hyper.log_noise) + floor**2) * square,
        targets.mean,
        count,
    )


def predict(given: Processes, at: Gaussian, fixed: bool = False) -> Moments:
    r"""Mean and covariance of all outputs at a Gaussian input: exact, by moment matching.

    .. math:: M_a = \sum_i \alpha_{ai} E[k_a(x, x_i)], \quad
              S_{ab} = \sum_{ij} W^{ab}_{ij} E[k_a(x, x_i) k_b(x, x_j)] - M_a M_b + [a = b] (s_a^2 + n_a^2)

    with :math:`W^{ab} = \alpha_a \alpha_b^T - [a = b] K_a^{-1}`, about the prior means, which ``M`` then adds.

    Args:
      given: the processes. Where they are functions without uncertainty (``certain``), leave out ``s_a^2``: see there.
      at: the input.
      fixed: the ``products`` are constants. Their derivative is then taken to be 0, what the others' need is made on
        the way there, so that going back costs next to nothing, and rows that do not count cost nothing.

    Source: Deisenroth & Rasmussen 2011 (PILCO), equations 9 to 23; Quinonero-Candela et al. 2003.
    """
    moments = certain(given, at, fixed)
    return moments._replace(covariance=moments.covariance + jnp.diag(given.variance + given.noise))


def certain(given: Processes, at: Gaussian, fixed: bool = False) -> Moments:
    """``predict`` of the posterior means alone: neither the prior's variance nor noise is added."""
    mean, gain = _mean(given, at)
    first, second = np.triu_indices(len(given.alpha))
    pairs = jax.vmap(lambda a, b, w: _expected_product(given, at, a, b, w, fixed))(first, second, given.products)
    square = jnp.zeros((len(mean), len(mean)), mean.dtype).at[first, second].set(pairs).at[second, first].set(pairs)
    return Moments(mean + given.offset, square - mean[:, None] * mean, gain)


def _mean(given: Processes, at: Gaussian) -> tuple[Array, Array]:
    """``sum_i alpha_i E[k(x, x_i)]`` per output, and the gain."""

    def one(length: Array, variance: Array, alpha: Array) -> tuple[Array, Array]:
        x = (given.x - at.mean) / length
        factor = jnp.linalg.cholesky(jnp.eye(len(length), dtype=x.dtype) + at.covariance / (length[:, None] * length))
        pulled = solve(factor, x.T).T
        weight = alpha * variance * jnp.exp(-0.5 * jnp.sum(x * pulled, axis=1)) / root_determinant(factor)
        return jnp.sum(weight), weight @ pulled / length

    mean, gain = jax.vmap(one)(given.length, given.variance, given.alpha)
    return mean, gain.T


def _expected_product(given: Processes, at: Gaussian, a: Array, b: Array, products: Array, fixed: bool) -> Array:
    """``sum_ij products_ij E[k_a(x, x_i) k_b(x, x_j)]``."""
    x = given.x - at.mean
    precise_a, precise_b = given.length[a] ** -2.0, given.length[b] ** -2.0
    root = jnp.sqrt(precise_a + precise_b)
    inner = root[:, None] * at.covariance * root
    factor = jnp.linalg.cholesky(jnp.eye(len(root), dtype=x.dtype) + inner)
    q = solve(factor, inner) / (root[:, None] * root)
    left, right = x * precise_a, x * precise_b
    # The logarithm of each summand is a_i + b_j + left_i^T q right_j: one product of thin matrices.
    log_a = jnp.log(given.variance[a]) - 0.5 * jnp.sum(x * left, axis=1) + 0.5 * jnp.sum(left @ q * left, axis=1)
    log_b = jnp.log(given.variance[b]) - 0.5 * jnp.sum(x * right, axis=1) + 0.5 * jnp.sum(right @ q * right, axis=1)
    ones = jnp.ones_like(log_a)
    left = jnp.column_stack([left @ q, log_a, ones])
    right = jnp.column_stack([right, ones, log_b])
    total = _fixed_sum(products, left, right, given.count) if fixed else jnp.sum(products * jnp.exp(left @ right.T))
    return total / root_determinant(factor)


@jax.custom_vjp
def _fixed_sum(products: Array, left: Array, right: Array, count: Array) -> Array:
    """``sum(products * exp(left @ right.T))``; rows and columns from ``count`` on hold no products."""
    return _fixed_sum_there(products, left, right, count)[0]


def _fixed_sum_there(products: Array, left: Array, right: Array, count: Array) -> tuple[Array, tuple[Array, Array]]:
    """The sum and its derivatives by ``left`` and ``right``, block by block: each stays in the processor's cache."""
    size = min(_BLOCK, len(left))
    short = -len(left) % size
    products = jnp.pad(products, (0, short))
    left, right = (jnp.pad(x, ((0, short), (0, 0))) for x in (left, right))
    blocks = (count + size - 1) // size

    def block(t: Array, sums: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        i, j = size * (t // blocks), size * (t % blocks)
        a, b = (jax.lax.dynamic_slice_in_dim(x, k, size) for x, k in ((left, i), (right, j)))
        terms = jax.lax.dynamic_slice(products, (i, j), (size, size)) * jnp.exp(a @ b.T)
        total, by_left, by_right = sums
        here, there = (jax.lax.dynamic_slice_in_dim(x, k, size) for x, k in ((by_left, i), (by_right, j)))
        by_left = jax.lax.dynamic_update_slice_in_dim(by_left, here + terms @ b, i, 0)
        by_right = jax.lax.dynamic_update_slice_in_dim(by_right, there + terms.T @ a, j, 0)
        return total + jnp.sum(terms), by_left, by_right

    start = jnp.zeros((), left.dtype), jnp.zeros_like(left), jnp.zeros_like(right)
    total, by_left, by_right = jax.lax.fori_loop(0, blocks**2, block, start)
    return total, (by_left[: len(by_left) - short], by_right[: len(by_right) - short])


def _fixed_sum_back(slopes: tuple[Array, Array], out: Array) -> tuple[None, Array, Array, None]:
    return None, out * slopes[0], out * slopes[1], None


_fixed_sum.defvjp(_fixed_sum_there, _fixed_sum_back)
