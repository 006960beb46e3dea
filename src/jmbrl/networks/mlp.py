"""A multilayer perceptron for policies, values and heads."""

from collections.abc import Callable, Sequence

import flax.linen as nn

from jmbrl.networks.dense import fan_in_normal, swish
from jmbrl.types import Array

__all__ = ["MLP", "fan_in_normal"]


class MLP(nn.Module):
    """Dense layers with an activation between them, none after the last.

    Attributes:
      hidden: widths of the hidden layers, e.g. ``(200, 200)``; ``()`` is a linear map.
      outputs: width of the output.
      activation: applied after every hidden layer.
      kernel_init: weights; the default is a normal of standard deviation ``1 / (2 sqrt(fan_in))`` truncated at two
        standard deviations (PETS, Chua et al. 2018, their code).
      final_init: weights of the last layer; None: as the others.
      layer_norm: normalise each hidden layer before its activation.

    Call: ``float32[..., F] -> float32[..., outputs]``.
    """

    hidden: Sequence[int]
    outputs: int
    activation: Callable[[Array], Array] = swish
    kernel_init: Callable = fan_in_normal
    final_init: Callable | None = None
    layer_norm: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for width in self.hidden:
            x = nn.Dense(width, kernel_init=self.kernel_init)(x)
            if self.layer_norm:
                x = nn.LayerNorm()(x)
            x = self.activation(x)
        return nn.Dense(self.outputs, kernel_init=self.final_init or self.kernel_init)(x)
