"""Latents of several one-hot classes (DreamerV2), sampled so that gradients pass through."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.fast_bits import fast_bits
from jmbrl.networks.distributions import Categorical
from jmbrl.types import Array, Key


def unimix(logits: Array, mix: float = 0.01) -> Array:
    r"""Log-probabilities of a mixture with the uniform distribution, over the last axis.

    .. math:: \ln\!\big((1 - m)\,\mathrm{softmax}(l)_i + m / C\big)

    No class's probability falls below :math:`m / C`, and no KL divergence to it exceeds :math:`\ln(C / m)`.

    Args:
      logits: ``float32[..., C]``, unnormalised.
      mix: :math:`m`, in ``[0, 1]``; a static number.

    Returns:
      ``float32[..., C]``, normalised.

    Raises:
      ValueError: ``mix`` out of its range.

    Source: Hafner et al. 2023 (arXiv 2301.04104), "1% unimix".
    """
    checks.number("mix", mix, 0.0, 1.0)
    if mix == 0:  # The logarithm of a probability that underflows is -inf; log_softmax is finite there.
        return jax.nn.log_softmax(logits)
    return jnp.log((1.0 - mix) * jax.nn.softmax(logits) + mix / logits.shape[-1])


@jax.custom_jvp
def _straight_through(value: Array, prob: Array) -> Array:
    """``value``, with the derivative of ``prob``. (``value + prob - stop_gradient(prob)`` is one-hot only nearly.)"""
    del prob
    return value


@_straight_through.defjvp
def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    return primals[0], tangents[1]


class OneHotLatents(NamedTuple):
    """``S`` independent choices among ``C`` classes; ``logits``: ``float32[..., S, C]``, unnormalised.

    An event is ``float32[..., S * C]``: the one-hot rows side by side. Sums run over the ``S`` choices.
    """

    logits: Array

    def sample(self, key: Key) -> Array:
        """One-hot, with the gradient of the probabilities (straight-through; arXiv 2010.02193, algorithm 1)."""
        prob = jax.nn.softmax(self.logits)
        # One uniform number a choice, where Gumbel noise needs C and two logarithms of each.
        point = (fast_bits(key, prob.shape[:-1]) >> 8).astype(jnp.float32)[..., None] * 2.0**-24
        # The cumulative sum as a product with a triangle of ones, on a CPU half as long as the scan.
        triangle = jnp.triu(jnp.ones((prob.shape[-1],) * 2))
        reached = jnp.matmul(jax.lax.stop_gradient(prob), triangle, precision="highest")
        # Below the total that is reached, which rounding leaves beside 1: some class is always chosen.
        index = jnp.sum(reached <= point * reached[..., -1:], axis=-1)
        return self._one_hot(index, prob)

    def mode(self) -> Array:
        """The most probable classes, with the same gradient."""
        return self._one_hot(jnp.argmax(self.logits, axis=-1), jax.nn.softmax(self.logits))

    def kl(self, other: "OneHotLatents") -> Array:
        """``KL(self || other)``, ``float32[...]``."""
        return jnp.sum(Categorical(self.logits).kl(Categorical(other.logits)), axis=-1)

    def entropy(self) -> Array:
        """``float32[...]``, nats."""
        return jnp.sum(Categorical(self.logits).entropy(), axis=-1)

    def stop(self) -> "OneHotLatents":
        """The same with its gradient stopped."""
        return OneHotLatents(jax.lax.stop_gradient(self.logits))

    def _one_hot(self, index: Array, prob: Array) -> Array:
        value = jax.nn.one_hot(index, prob.shape[-1], dtype=prob.dtype)
        return _straight_through(value, prob).reshape(*prob.shape[:-2], -1)
