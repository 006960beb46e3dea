"""V of World Models: a variational autoencoder of images."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.networks import (
    Normal,
    apply_conv,
    apply_conv_transpose,
    apply_dense,
    conv_stack,
    init_conv,
    init_conv_transpose,
)
from jmbrl.types import Array, Key, PyTree


class Vision(NamedTuple):
    """Images to latents and back; every function takes any leading axes unless it says otherwise.

    Attributes:
      init: ``(key) -> weights``.
      encode: ``(weights, obs: uint8[..., H, W, C]) -> Normal``, mean and std ``float32[..., latent]``.
      decode: ``(weights, z: float32[..., latent]) -> float32[..., H, W, C]`` in [0, 1].
      loss: ``(key, weights, obs: uint8[B, H, W, C], mask: bool[B] | None) -> (loss, info)``; images outside the mask do
        not count. ``info``: ``reconstruction`` (squared error, summed over an image) and ``kl`` (in nats, before the
        floor), means over images.
    """

    init: Callable
    encode: Callable
    decode: Callable
    loss: Callable


def vae(
    shape: Sequence[int],
    *,
    latent: int = 32,
    channels: Sequence[int] = (32, 64, 128, 256),
    pixel_weight: float = 1.0,
) -> Vision:
    r"""A convolutional variational autoencoder, sized by the image.

    .. math:: q(z \mid x) = N(\mu(x), \sigma^2(x)), \quad \hat x = D(z), \quad L = \operatorname{mean}_x \Big[
              w \sum_{\text{pixels}} (x - \hat x)^2 + \max\big(KL(q \,\|\, N(0, I)),\ \tfrac12 \dim z\big) \Big]

    with pixels in [0, 1] and :math:`\sigma = e^{v/2}` of the network's output :math:`v`. The floor of half a nat an
    entry keeps the latents from being squeezed out while the images are still grey. Layers as ``networks.conv_stack``
    says: 4,348,547 parameters for 64 by 64 colours and 32 latents, as in the source.

    Args:
      shape: ``(H, W, C)`` of the images, at least 4 by 4 pixels.
      latent: entries of ``z``.
      channels: of the encoder's layers, of which small images use the first ones.
      pixel_weight: :math:`w`, above 0. A small image has so few pixels that a thing in it is not worth its nats: 12
        gives one of 32 by 32 greys the weight of the source's 64 by 64 colours.

    Raises:
      ValueError: ``latent`` below 1, ``pixel_weight`` not above 0, and what ``conv_stack`` refuses.

    Source: Ha and Schmidhuber 2018, World Models (arXiv 1803.10122), appendix A.1 and the released code.
    """
    latent = checks.integer("latent", latent, 1)
    checks.number("pixel_weight", pixel_weight, 1e-8)
    stack = conv_stack(shape, channels)

    def init(key: Key) -> PyTree:
        keys = jax.random.split(key, 4)
        glorot = jax.nn.initializers.glorot_uniform()
        return {
            "encoder": init_conv(keys[0], stack),
            "posterior": ({"kernel": glorot(keys[1], (stack.units, 2 * latent)), "bias": jnp.zeros(2 * latent)},),
            "spread": ({"kernel": glorot(keys[2], (latent, stack.units)), "bias": jnp.zeros(stack.units)},),
            "decoder": init_conv_transpose(keys[3], stack),
        }

    def posterior(weights: PyTree, image: Array) -> Normal:
        mean, logvar = jnp.split(apply_dense(weights["posterior"], apply_conv(weights["encoder"], image)), 2, axis=-1)
        return Normal(mean, jnp.exp(0.5 * logvar))

    def encode(weights: PyTree, obs: Array) -> Normal:
        checks.same_shape("obs", obs.shape[-3:], stack.shape, "the factory's shape")
        return posterior(weights, _scaled(obs))

    def decode(weights: PyTree, z: Array) -> Array:
        return jax.nn.sigmoid(apply_conv_transpose(weights["decoder"], apply_dense(weights["spread"], z)))

    def loss(key: Key, weights: PyTree, obs: Array, mask: Array | None = None) -> tuple[Array, dict[str, Array]]:
        q = encode(weights, obs)
        error = jnp.sum((decode(weights, q.sample(key)) - _scaled(obs)) ** 2, axis=(1, 2, 3))
        kl = q.kl(Normal(jnp.zeros_like(q.mean), jnp.ones_like(q.std)))
        mask = jnp.ones(len(obs), bool) if mask is None else mask

        def mean(x: Array) -> Array:
            return jnp.sum(jnp.where(mask, x, 0.0)) / jnp.maximum(jnp.sum(mask), 1)

        return mean(pixel_weight * error + jnp.maximum(kl, 0.5 * latent)), {
            "reconstruction": mean(error),
            "kl": mean(kl),
        }

    return Vision(init, encode, decode, loss)


def _scaled(obs: Array) -> Array:
    return obs.astype(jnp.float32) / 255.0
