"""Local expansions and box-constrained quadratic programs, for iLQR."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl.types import Array, PyTree


class Expansion(NamedTuple):
    """One step around ``z = (x, u)``: ``next_x[n]`` and a loss; ``D = n + A``."""

    jacobian: Array  # [n, D], of the next x
    slope: Array  # [D], of the loss
    hessian: Array  # [D, D], of the loss


def box_qp(hessian: Array, slope: Array, low: Array, high: Array, iterations: int | None = None) -> tuple[Array, Array]:
    r"""Minimise a convex quadratic in a box by projected Newton steps.

    .. math:: \min_x \tfrac12 x^\top H x + g^\top x, \quad l \le x \le h

    Args:
      hessian: ``float32[A, A]``, positive definite.
      slope, low, high: ``float32[A]``, with 0 in the box.
      iterations: at most this many, ``2 A + 8`` by default; it ends once nothing moves.

    Returns:
      The minimiser and which of its entries are free, ``bool[A]`` (not held by a bound).

    Source: Tassa, Mansard & Todorov 2014, appendix.
    """
    limit = 2 * slope.shape[0] + 8 if iterations is None else iterations
    sizes = 0.5 ** jnp.arange(20.0)  # an ill-conditioned step can be a thousand times the box

    def value(x: Array) -> Array:
        return 0.5 * x @ hessian @ x + slope @ x

    def is_free(x: Array) -> Array:
        gradient = hessian @ x + slope
        return ~(((x <= low) & (gradient > 0)) | ((x >= high) & (gradient < 0)))

    def body(loop: tuple) -> tuple:
        i, x, _ = loop
        free = is_free(x)
        newton = -solve_free(hessian, jnp.where(free, hessian @ x + slope, 0.0), free)
        tried = jnp.concatenate([x[None], jnp.clip(x + sizes[:, None] * newton, low, high)])
        new = tried[jnp.argmin(jax.vmap(value)(tried))]
        return i + 1, new, jnp.any(new != x)

    start = 0, jnp.zeros_like(slope), jnp.asarray(True)
    _, x, _ = jax.lax.while_loop(lambda loop: (loop[0] < limit) & loop[2], body, start)
    return x, is_free(x)


def solve_free(hessian: Array, right: Array, free: Array) -> Array:
    """``H_ff^-1 right_f`` in the free rows, 0 in the others; ``right`` is ``[A]`` or ``[A, n]``."""
    both = free[:, None] & free[None, :]
    inner = jnp.where(both, hessian, jnp.eye(len(free)))
    rows = free if right.ndim == 1 else free[:, None]
    return jnp.where(rows, jnp.linalg.solve(inner, jnp.where(rows, right, 0.0)), 0.0)


def expand(f: Callable, z: Array) -> Expansion:
    """By automatic differentiation, ``f`` traced once; ``f(z) -> (next_x[n], loss)``."""

    def with_slope(z: Array) -> tuple[Array, Array]:
        (following, loss), pull = jax.vjp(f, z)
        return following, pull((jnp.zeros_like(following), jnp.ones_like(loss)))[0]

    def along(direction: Array) -> tuple[Array, Array, Array]:
        (_, slope), (following, curve) = jax.jvp(with_slope, (z,), (direction,))
        return following, slope, curve

    jacobian, slope, hessian = jax.vmap(along, out_axes=(1, None, 1))(jnp.eye(len(z)))
    return Expansion(jacobian, slope, hessian)


def expand_by_differences(f: Callable, z: Array, steps: Array) -> Expansion:
    """By central differences of ``steps[D]`` to either side: ``2 D + D (D + 1)`` evaluations in one batch."""
    dim = len(z)
    units = jnp.diag(steps)
    rows, columns = np.triu_indices(dim)
    pairs = units[rows] + units[columns]
    offsets = jnp.concatenate([jnp.zeros((1, dim)), units, -units, pairs, -pairs])
    following, losses = jax.vmap(f)(z + offsets)
    up, down = following[1 : dim + 1], following[dim + 1 : 2 * dim + 1]
    middle, above, below = losses[0], losses[1 : dim + 1], losses[dim + 1 : 2 * dim + 1]
    far_up, far_down = losses[2 * dim + 1 :].reshape(2, -1)
    curve = far_up - above[rows] - above[columns] + 2 * middle - below[rows] - below[columns] + far_down
    curve = curve / (2 * steps[rows] * steps[columns])
    hessian = jnp.zeros((dim, dim)).at[rows, columns].set(curve).at[columns, rows].set(curve)
    return Expansion(((up - down) / (2 * steps[:, None])).T, (above - below) / (2 * steps), hessian)


def vector_of(belief: PyTree, user: str) -> tuple[Callable, Callable]:
    """Flatten the floating-point leaves of a belief, and put a vector back into a belief like it.

    Other leaves (a step counter, a key) are left as they are.

    Returns:
      ``flatten(belief) -> float32[n]`` and ``replace(belief, float32[n]) -> belief``.

    Raises:
      ValueError: no floating-point leaf: such a belief has no derivative.
    """
    smooth = [jnp.issubdtype(x.dtype, jnp.floating) for x in jax.tree.leaves(belief)]
    if not any(smooth):
        kinds = ", ".join(sorted({str(x.dtype) for x in jax.tree.leaves(belief)})) or "nothing"
        raise ValueError(
            f"{user} needs a belief of real numbers to differentiate, got one that holds {kinds}; "
            "use cem, icem, mppi or random_shooting"
        )

    def flatten(belief: PyTree) -> Array:
        leaves = jax.tree.leaves(belief)
        return jnp.concatenate([jnp.ravel(x).astype(jnp.float32) for x, s in zip(leaves, smooth, strict=True) if s])

    def replace(belief: PyTree, vector: Array) -> PyTree:
        leaves, structure = jax.tree.flatten(belief)
        at = 0
        for i, leaf in enumerate(leaves):
            if smooth[i]:
                leaves[i] = vector[at : at + leaf.size].reshape(leaf.shape).astype(leaf.dtype)
                at += leaf.size
        return jax.tree.unflatten(structure, leaves)

    return flatten, replace
