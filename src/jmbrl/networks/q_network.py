"""Values of numbered actions: plain or in two streams (Wang et al. 2016, arXiv 1511.06581), of sure or noisy layers."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmbrl.networks.noisy import NoisyDense
from jmbrl.types import Array


def dueling(value: Array, advantage: Array) -> Array:
    r"""Two streams as one: :math:`Q(s, a) = V(s) + A(s, a) - \frac{1}{|A|} \sum_{a'} A(s, a')` (equation 9).

    Args:
      value: ``[..., 1, K]``; ``advantage``: ``[..., A, K]``.

    >>> dueling(jnp.asarray([[5.0]]), jnp.asarray([[1.0], [2.0], [6.0]]))[:, 0].tolist()
    [3.0, 4.0, 8.0]
    """
    return value + advantage - jnp.mean(advantage, axis=-2, keepdims=True)


class QNetwork(nn.Module):
    """``float32[..., F] -> float32[..., actions, atoms]``.

    Attributes:
      actions: how many.
      hidden: widths of the hidden layers; with ``dueling`` each stream has a last hidden layer of its own.
      atoms: numbers per action: 1 for a value, more for the logits of a distribution.
      dueling: two streams, per atom where there are several (as in Rainbow).
      noisy: every layer is a ``NoisyDense``.
      sigma: its scale.
      activation: of the hidden layers.
    """

    actions: int
    hidden: Sequence[int] = (256, 256)
    atoms: int = 1
    dueling: bool = False
    noisy: bool = False
    sigma: float = 0.5
    activation: Callable[[Array], Array] = jax.nn.relu

    def layer(self, width: int) -> nn.Module:
        # Torso and heads as for other policies and values: Glorot, which keeps first values small.
        glorot = nn.initializers.glorot_uniform()
        return NoisyDense(width, self.sigma) if self.noisy else nn.Dense(width, kernel_init=glorot)

    def stream(self, x: Array, widths: Sequence[int], outputs: int) -> Array:
        for width in widths:
            x = self.activation(self.layer(width)(x))
        return self.layer(outputs * self.atoms)(x).reshape(*x.shape[:-1], outputs, self.atoms)

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if not self.dueling:
            return self.stream(x, self.hidden, self.actions)
        for width in self.hidden[:-1]:
            x = self.activation(self.layer(width)(x))
        own = self.hidden[-1:]
        return dueling(self.stream(x, own, 1), self.stream(x, own, self.actions))
