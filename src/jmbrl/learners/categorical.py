"""Returns as distributions over fixed atoms (Bellemare et al. 2017, C51, arXiv 1707.06887)."""

import jax
import jax.numpy as jnp

from jmbrl.types import Array


def project(positions: Array, chance: Array, support: Array) -> Array:
    r"""A distribution moved onto the atoms that there are: each mass is shared by its two neighbours.

    .. math:: m_i = \sum_j \left[ 1 - \frac{|[x_j]_{z_1}^{z_K} - z_i|}{\Delta z} \right]_0^1 p_j

    What lies beyond the ends goes to the outermost atom.

    Args:
      positions: :math:`x`, ``float32[..., J]``.
      chance: :math:`p`, ``float32[..., J]``, summing to 1.
      support: :math:`z`, ``float32[K]``, evenly spaced and rising.

    Source: equation 7 and algorithm 1.

    >>> project(jnp.asarray([0.5, 9.0]), jnp.asarray([0.5, 0.5]), jnp.asarray([0.0, 1.0, 2.0])).tolist()
    [0.25, 0.25, 0.5]
    """
    inside = jnp.clip(positions, support[0], support[-1])
    distance = jnp.abs(inside[..., None] - support) / (support[1] - support[0])
    return jnp.sum(jnp.clip(1.0 - distance, 0.0, 1.0) * chance[..., None], axis=-2)


def shifted(
    reward: Array, terminated: Array, discount: Array | float, logits: Array, support: Array
) -> tuple[Array, Array]:
    """What is projected: the atoms ``r + discount z`` with the chances of the next state, all of it at ``r`` at an end.

    Args:
      reward, terminated, discount: ``[B]``.
      logits: ``float32[B, K]``, of the next state and its action; where ``terminated`` they may be anything.
    """
    further = jnp.where(terminated, 0.0, discount)[:, None] * support
    even = jnp.full_like(logits, 1.0 / support.shape[0])
    return reward[:, None] + further, jnp.where(terminated[:, None], even, jax.nn.softmax(logits))


def expected(logits: Array, support: Array) -> Array:
    """The mean of each distribution, ``float32[..., K] -> float32[...]``."""
    return jax.nn.softmax(logits) @ support
