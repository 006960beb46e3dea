"""Cholesky factors of matrices that rounding has made slightly indefinite."""

import jax
import jax.numpy as jnp

from jmbrl.types import Array


def cholesky(matrix: Array, relative: float = 0.0, tries: int = 6) -> tuple[Array, Array]:
    """The factor of ``matrix + j * mean(diag) * I`` for the first ``j`` that gives a finite one.

    ``j`` is ``relative``, then ten times more at each try, from a few units in the last place upwards. Only where even
    the last fails is the factor NaN.

    Args:
      matrix: ``[n, n]``, symmetric.
      relative: what is added in any case, relative to the mean of the diagonal.
      tries: how often more is added.

    Returns:
      The lower factor ``[n, n]`` and ``int32``, how often more had to be added.
    """
    scale = jnp.mean(jnp.diagonal(matrix))
    scale = jnp.where(scale > 0, scale, 1.0)
    least = 10.0 * float(jnp.finfo(matrix.dtype).eps)
    eye = jnp.eye(matrix.shape[0], dtype=matrix.dtype)

    def factor(count: Array) -> Array:
        more = jnp.where(count > 0, max(relative, least) * 10.0 ** count.astype(matrix.dtype), relative)
        return jnp.linalg.cholesky(matrix + more * scale * eye)

    def broken(carry: tuple[Array, Array]) -> Array:
        return ~jnp.all(jnp.isfinite(carry[0])) & (carry[1] < tries)

    def again(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        return factor(carry[1] + 1), carry[1] + 1

    # The first try is the loop's too: one factorisation to compile.
    return jax.lax.while_loop(broken, again, (jnp.full_like(matrix, jnp.nan), jnp.full((), -1, jnp.int32)))


def whiten(factor: Array, x: Array) -> Array:
    """``L^-1 x`` for a lower factor ``L``."""
    return jax.scipy.linalg.solve_triangular(factor, x, lower=True)


def solve(factor: Array, x: Array) -> Array:
    """``(L L^T)^-1 x`` for a lower factor ``L``."""
    return jax.scipy.linalg.cho_solve((factor, True), x)
