"""Layers whose weights are noisy, so that a greedy policy explores (Fortunato et al. 2018, arXiv 1706.10295)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jmbrl.types import Array, Key


class NoisyDense(nn.Module):
    r"""A dense layer with factorised Gaussian noise on its weights.

    .. math:: y = (\mu^w + \sigma^w \odot f(\varepsilon^{in}) f(\varepsilon^{out})^\top)^\top x
              + \mu^b + \sigma^b \odot f(\varepsilon^{out}), \qquad f(x) = \operatorname{sgn}(x) \sqrt{|x|}

    Call: ``float32[..., F] -> float32[..., outputs]``. The noise, standard normal ``float32[F + outputs]`` (of more the
    first are taken), is the same for all rows; without it the layer is the dense one of its means.

    Attributes:
      outputs: width of the output.
      sigma: scale of the noise at the start, times :math:`1 / \sqrt{\text{inputs}}` (0.5 in section 3.2).

    Source: equations 10 and 11, and section 3.2 for how :math:`\mu` (uniform) and :math:`\sigma` begin.
    """

    outputs: int
    sigma: float = 0.5

    @nn.compact
    def __call__(self, x: Array, noise: Array | None = None) -> Array:
        inputs = x.shape[-1]
        bound = inputs**-0.5

        def uniform(key: Key, shape: tuple[int, ...]) -> Array:
            return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

        constant = nn.initializers.constant(self.sigma * bound)
        kernel = self.param("kernel", uniform, (inputs, self.outputs))
        bias = self.param("bias", uniform, (self.outputs,))
        kernel_sigma = self.param("kernel_sigma", constant, (inputs, self.outputs))
        bias_sigma = self.param("bias_sigma", constant, (self.outputs,))
        if noise is not None:
            noise = noise[: inputs + self.outputs]
            into, out = jnp.split(jnp.sign(noise) * jnp.sqrt(jnp.abs(noise)), [inputs])
            kernel = kernel + kernel_sigma * jnp.outer(into, out)
            bias = bias + bias_sigma * out
        return x @ kernel + bias
