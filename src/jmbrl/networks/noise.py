"""Gaussian noise: for imagination, many rows at a time, and coloured along time for action sequences."""

import jax
import jax.numpy as jnp

from jmbrl.fast_bits import fast_bits
from jmbrl.types import Array, Key


def fast_normal(key: Key, shape: tuple[int, ...]) -> Array:
    """Standard normal ``float32[shape]`` for the particles of a model, at a fraction of ``jax.random.normal``'s cost.

    ``fast_bits`` mapped through the inverse error function. With JAX's generator the noise of a wide observation
    took as long to draw as a layer of the network.
    """
    bits = fast_bits(key, shape)
    # The 23 upper bits, centred between the ends: in (-1, 1), never at them; the largest draw is 5.2.
    uniform = (bits >> 9).astype(jnp.float32) * 2.0**-22 + (2.0**-23 - 1.0)
    return jnp.float32(2.0**0.5) * jax.lax.erf_inv(uniform)


def coloured_noise(key: Key, beta: float | Array, shape: tuple[int, ...]) -> Array:
    r"""Gaussian noise ``float32[shape]`` along the last axis, time, whose power falls as :math:`f^{-\beta}`.

    With :math:`H` steps, :math:`f_k = \max(k, 1)/H` for :math:`k = 0..\lfloor H/2\rfloor` and
    :math:`w_k = f_k^{-\beta/2}`:

    .. math:: y = \frac{1}{\sigma}\operatorname{irfft}\big(w (n_1 + i\,n_2)\big), \qquad
              \sigma = \frac{2}{H}\sqrt{\textstyle\sum_{k\ge1} w_k^2 \, c_k^2}

    where :math:`n_1, n_2` are standard normal, :math:`n_2 = 0` at :math:`k = 0` and, for even :math:`H`, at the last
    :math:`k`, whose :math:`c_k` then is 1/2 (else 1).

    The series drawn has mean 0, but its own mean varies: the term :math:`k = 0` is drawn and :math:`\sigma` does not
    count it, as in iCEM's code. Its variance therefore is :math:`1 + w_0^2 / (4 \sum w_k^2 c_k^2)`: 1.02 for white
    noise of 30 steps, 1.16 for ``beta=2``.

    Args:
      beta: 0 white, 1 pink, 2 red (a random walk's).
      shape: the last axis is time, at least 1 step (a single step is a standard normal).

    Source: Timmer & Koenig 1995; Pinneri et al. 2020 (iCEM, arXiv 2008.06389), section 3.1.
    """
    *lead, steps = shape
    if steps == 1:
        return jax.random.normal(key, shape)
    even = steps % 2 == 0
    key_real, key_imaginary = jax.random.split(key)
    frequency = jnp.maximum(jnp.fft.rfftfreq(steps), 1.0 / steps)
    scale = frequency ** (-beta / 2)
    count = len(frequency)
    inner = scale[1:].at[-1].multiply(0.5 if even else 1.0)
    sigma = 2 * jnp.sqrt(jnp.sum(inner**2)) / steps
    real = jax.random.normal(key_real, (*lead, count))
    imaginary = jax.random.normal(key_imaginary, (*lead, count)).at[..., 0].set(0.0)
    if even:
        imaginary = imaginary.at[..., -1].set(0.0)
    return jnp.fft.irfft(scale * (real + 1j * imaginary), n=steps) / sigma
