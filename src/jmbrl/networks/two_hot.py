"""Numbers as distributions over bins that grow exponentially away from 0 (DreamerV3's rewards and values)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.types import Array


def symlog(x: Array) -> Array:
    """``sign(x) ln(1 + |x|)``: the identity near 0, a logarithm far from it (DreamerV3, arXiv 2301.04104)."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def symexp(x: Array) -> Array:
    """``sign(x) (exp |x| - 1)``, the inverse of ``symlog``."""
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))


def symexp_bins(count: int = 255, limit: float = 20.0) -> np.ndarray:
    """``symexp`` of ``count`` evenly spaced numbers in ``[-limit, limit]``: ``float32[count]``, rising.

    The upper half is the lower one negated, so that bins in pairs cancel exactly.

    Args:
      count: at least 2; odd has a bin at 0.
      limit: in ``symlog`` space, above 0 and at most 80 (beyond it float32 ends).

    Raises:
      ValueError: out of these ranges.
    """
    checks.integer("count", count, 2)
    checks.number("limit", limit, 1e-3, 80.0)
    half = np.expm1(np.linspace(limit, -limit, count)[: count // 2]).astype(np.float32)
    return np.concatenate([-half, np.zeros(count % 2, np.float32), half[::-1]])


def two_hot(x: Array, bins: Array | np.ndarray) -> Array:
    r"""Each number as weights on the two bins around it, whose mean it is.

    .. math:: w_k = \frac{b_{k+1} - x}{b_{k+1} - b_k}, \qquad w_{k+1} = \frac{x - b_k}{b_{k+1} - b_k}
              \qquad (b_k \le x \le b_{k+1})

    What lies beyond the ends has weight 1 on the outermost bin.

    Args:
      x: ``float32[...]``.
      bins: ``float32[K]``, rising, ``K >= 2``.

    Returns:
      ``float32[..., K]``, rows summing to 1.

    Source: Hafner et al. 2023 (arXiv 2301.04104), robust predictions; in raw space, as in their code.
    """
    x, bins = jnp.asarray(x)[..., None], jnp.asarray(bins)
    width = bins[1:] - bins[:-1]
    end = jnp.ones_like(x)
    rising = jnp.concatenate([end, (x - bins[:-1]) / width], axis=-1)
    falling = jnp.concatenate([(bins[1:] - x) / width, end], axis=-1)
    return jnp.clip(jnp.minimum(rising, falling), 0.0, 1.0)


def even_bins(logits: Array, limit: float | Array) -> "TwoHot":
    """``logits``, ``float32[..., K]``, over bins even from ``-limit`` to ``limit``."""
    count = logits.shape[-1]
    even = (2 * np.arange(count) - (count - 1)) / (count - 1)  # exactly antisymmetric
    return TwoHot(logits, limit * jnp.asarray(even, jnp.float32))


class TwoHot(NamedTuple):
    """A distribution over ``bins``, ``float32[K]``, read as a number; ``logits``: ``float32[..., K]``, unnormalised."""

    logits: Array
    bins: Array | np.ndarray

    def mean(self) -> Array:
        r"""``float32[...]``: :math:`\sum_k p_k b_k`; exactly 0 for equal logits over bins symmetric about 0.

        Summed in pairs :math:`(k, K + 1 - k)`, by half their sum and half their difference: left to right, and also
        with a fused multiply-add, bins of 5e8 that should cancel leave a remainder.
        """
        prob, bins = jax.nn.softmax(self.logits), jnp.asarray(self.bins)
        half, odd = divmod(bins.shape[-1], 2)
        low, high = prob[..., :half], prob[..., ::-1][..., :half]
        below, above = bins[:half], bins[::-1][:half]
        total = jnp.sum((high - low) * (0.5 * (above - below)) + (high + low) * (0.5 * (above + below)), axis=-1)
        return total + prob[..., half] * bins[half] if odd else total

    def log_prob(self, x: Array) -> Array:
        """``float32[...]``: minus the cross-entropy to the two-hot weights of ``x[...]``, in the bins' own units.

        ``x`` is a target: stop its gradient where it has one.
        """
        return jnp.sum(two_hot(x, self.bins) * jax.nn.log_softmax(self.logits), axis=-1)
