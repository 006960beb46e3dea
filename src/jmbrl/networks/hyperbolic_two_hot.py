"""Numbers as distributions over even bins of their squashed size (MuZero's rewards and values)."""

from typing import NamedTuple

import jax.numpy as jnp

from jmbrl.networks.two_hot import even_bins
from jmbrl.types import Array

EPSILON = 1e-3


def squash(x: Array) -> Array:
    r""":math:`h(x) = \operatorname{sign}(x) (\sqrt{|x| + 1} - 1) + \epsilon x`, :math:`\epsilon = 0.001`.

    Source: Pohlen et al. 2018 (arXiv 1805.11593), proposition A.2; Schrittwieser et al. 2020, appendix F.
    """
    x = jnp.asarray(x)
    size = jnp.abs(x)
    # sqrt(1 + x) - 1 would lose the digits of small numbers.
    return x / (jnp.sqrt(size + 1.0) + 1.0) + EPSILON * x


def expand(x: Array) -> Array:
    """The inverse of ``squash``."""
    x = jnp.asarray(x)
    size = jnp.abs(x)
    # The root u of eps u^2 + (1 + 2 eps) u = |x|, where u = sqrt(1 + |h^-1(x)|) - 1, by the form that does not cancel.
    half = 0.5 + EPSILON
    u = size / (half + jnp.sqrt(half * half + EPSILON * size))
    return jnp.sign(x) * u * (u + 2.0)


class HyperbolicTwoHot(NamedTuple):
    r"""A softmax over ``K`` bins, even from ``-limit`` to ``limit``, of the squashed number.

    The mean is taken before it is expanded, and a target is two-hot there too. ``logits``: ``float32[..., K]``,
    unnormalised. ``limit``: above 0; 300 with 601 bins is the source's, a number of about 67,000.

    Source: Schrittwieser et al. 2020 (MuZero, arXiv 1911.08265), appendix F.
    """

    logits: Array
    limit: float | Array = 300.0

    def mean(self) -> Array:
        r"""``float32[...]``: :math:`h^{-1}(\sum_k p_k b_k)`; exactly 0 for equal logits."""
        return expand(even_bins(self.logits, self.limit).mean())

    def log_prob(self, x: Array) -> Array:
        """``float32[...]``: minus the cross-entropy to the two-hot weights of ``squash(x)``."""
        return even_bins(self.logits, self.limit).log_prob(squash(x))
