"""Values of numbered actions: plain or in two streams (Wang et al. 2016, arXiv 1511.06581), of sure or noisy layers,
of a vector or of a small image."""

import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.networks.noisy import NoisyDense
from jmbrl.types import Array, Key


def dueling(value: Array, advantage: Array) -> Array:
    r"""Two streams as one: :math:`Q(s, a) = V(s) + A(s, a) - \frac{1}{|A|} \sum_{a'} A(s, a')` (equation 9).

    Args:
      value: ``[..., 1, K]``; ``advantage``: ``[..., A, K]``.

    >>> dueling(jnp.asarray([[5.0]]), jnp.asarray([[1.0], [2.0], [6.0]]))[:, 0].tolist()
    [3.0, 4.0, 8.0]
    """
    return value + advantage - jnp.mean(advantage, axis=-2, keepdims=True)


class Convolution(nn.Module):
    """Kernels of 3 by 3, stride 1, no padding: ``float32[..., H, W, C] -> float32[..., H - 2, W - 2, filters]``.

    A product of patches, whose derivative is fast on CPUs too (``networks.conv``).
    """

    filters: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        *_, high, wide, depth = x.shape
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), (3, 3, depth, self.filters))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.filters,))
        patches = [x[..., i : high - 2 + i, j : wide - 2 + j, :] for i in range(3) for j in range(3)]
        return jnp.concatenate(patches, axis=-1) @ kernel.reshape(-1, self.filters) + bias


def image_of(conv: int, image: tuple[int, ...] | None, features: int) -> tuple[int, int, int] | None:
    """``image`` where there is a convolution of ``conv`` filters that can read it, None where there is none.

    Raises:
      ValueError: ``image`` is smaller than 3 by 3 pixels, or not what ``features`` numbers are.
    """
    if checks.integer("conv", conv, 0) == 0:
        return None
    if image is None or len(image) != 3 or math.prod(image) != features or min(image[:2]) < 3:
        raise ValueError(
            f"conv needs an image (height, width, channels) of at least 3 by 3 pixels whose {features} entries are the "
            f"features, got {image}"
        )
    return (image[0], image[1], image[2])


class QNetwork(nn.Module):
    """``float32[..., F] -> float32[..., actions, atoms]``; with a key noisy layers are noisy, the same for all rows.

    Attributes:
      actions: how many.
      hidden: widths of the hidden layers; with ``dueling`` each stream has a last hidden layer of its own.
      atoms: numbers per action: 1 for a value, more for the logits of a distribution.
      dueling: two streams, per atom where there are several (as in Rainbow).
      noisy: every layer is a ``NoisyDense``.
      sigma: its scale.
      image: ``(H, W, C)`` where the input is a flattened image; None: a vector.
      conv: filters of the convolution that reads the image first (``Convolution``), 0: none. It is never noisy.
      activation: of the hidden layers.
    """

    actions: int
    hidden: Sequence[int] = (256, 256)
    atoms: int = 1
    dueling: bool = False
    noisy: bool = False
    sigma: float = 0.5
    image: tuple[int, int, int] | None = None
    conv: int = 0
    activation: Callable[[Array], Array] = jax.nn.relu

    @nn.compact
    def __call__(self, x: Array, key: Key | None = None) -> Array:
        if self.conv and self.image is not None:
            x = self.activation(Convolution(self.conv)(x.reshape(*x.shape[:-1], *self.image)))
            x = x.reshape(*x.shape[:-3], -1)
        # Drawn at once: a draw a layer would be most of what compiles.
        widest = max(x.shape[-1], *self.hidden, self.actions * self.atoms)
        noise = iter(())
        if self.noisy and key is not None:
            noise = iter(jax.random.normal(key, (len(self.hidden) + 3, 2 * widest)))

        def layer(x: Array, width: int) -> Array:
            if self.noisy:
                return NoisyDense(width, self.sigma)(x, next(noise, None))
            return nn.Dense(width, kernel_init=nn.initializers.glorot_uniform())(x)

        def stream(x: Array, widths: Sequence[int], outputs: int) -> Array:
            for width in widths:
                x = self.activation(layer(x, width))
            return layer(x, outputs * self.atoms).reshape(*x.shape[:-1], outputs, self.atoms)

        if not self.dueling:
            return stream(x, self.hidden, self.actions)
        for width in self.hidden[:-1]:
            x = self.activation(layer(x, width))
        own = self.hidden[-1:]
        return dueling(stream(x, own, 1), stream(x, own, self.actions))
