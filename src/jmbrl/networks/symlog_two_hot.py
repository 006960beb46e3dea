"""Numbers as distributions over even bins of their symlog (TD-MPC2's rewards and values)."""

from typing import NamedTuple

from jmbrl.networks.two_hot import even_bins, symexp, symlog
from jmbrl.types import Array


class SymlogTwoHot(NamedTuple):
    r"""A softmax over ``K`` bins, even from ``-limit`` to ``limit``, of the symlog of a number.

    Unlike ``TwoHot`` of ``symexp_bins`` the mean is taken *before* the exponential, and a target is two-hot there too.
    ``logits``: ``float32[..., K]``, unnormalised. ``limit``: above 0; 10 is a number of 22,025.

    Source: Hansen et al. 2024 (TD-MPC2, arXiv 2310.16828), section 3.1 and the released code.
    """

    logits: Array
    limit: float | Array = 10.0

    def mean(self) -> Array:
        r"""``float32[...]``: :math:`\operatorname{symexp}(\sum_k p_k b_k)`; exactly 0 for equal logits."""
        return symexp(even_bins(self.logits, self.limit).mean())

    def log_prob(self, x: Array) -> Array:
        """``float32[...]``: minus the cross-entropy to the two-hot weights of ``symlog(x)``."""
        return even_bins(self.logits, self.limit).log_prob(symlog(x))
