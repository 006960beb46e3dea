"""Normalisations over the last axis, as plain dictionaries beside those of ``dense.py``."""

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.types import Array


def init_norm(units: int, bias: bool = False) -> dict[str, Array]:
    """``{"scale": ones[units]}``, with ``bias`` also ``"bias": zeros[units]``.

    Raises:
      ValueError: fewer than 1 unit.
    """
    scale = {"scale": jnp.ones(checks.integer("units", units, 1))}
    return scale | {"bias": jnp.zeros(units)} if bias else scale


def _scaled(layer: dict[str, Array], x: Array, inverse: Array) -> Array:
    out = x * inverse * layer["scale"]
    return out + layer["bias"] if "bias" in layer else out


def rms_norm(layer: dict[str, Array], x: Array, eps: float = 1e-4) -> Array:
    r"""Scaled to a root mean square of 1 over the last axis, not centred.

    .. math:: y = s \odot x \Big/ \sqrt{\tfrac{1}{D} \textstyle\sum_i x_i^2 + \epsilon}

    Args:
      layer: ``{"scale": float32[D]}`` and, where there is one, ``"bias"``, added afterwards.
      x: ``float32[..., D]``.
      eps: added to the mean square, above 0: what keeps a row of zeros at 0.

    Source: Zhang & Sennrich 2019 (arXiv 1910.07467), equation 4; ``eps`` as in DreamerV3's code.
    """
    return _scaled(layer, x, jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps))


def layer_norm(layer: dict[str, Array], x: Array, eps: float = 1e-3) -> Array:
    r"""Centred to a mean of 0 and scaled to a variance of 1 over the last axis.

    .. math:: y = s \odot (x - \mu) \big/ \sqrt{\sigma^2 + \epsilon} + b

    Args:
      layer: ``{"scale": float32[D]}`` and, where there is one, ``"bias"``.
      x: ``float32[..., D]``.
      eps: added to the variance, above 0.

    Source: Ba et al. 2016 (arXiv 1607.06450), equation 4; ``eps`` as in DreamerV2's code.
    """
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return _scaled(layer, centred, jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + eps))
