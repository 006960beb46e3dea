"""A gated recurrent unit as plain dictionaries of arrays."""

import jax
import jax.numpy as jnp

from jmbrl.networks.orthogonal import orthogonal
from jmbrl.types import Array, Key

Unit = dict[str, dict[str, Array]]


def init_gru(key: Key, inputs: int, units: int) -> Unit:
    """``{"input": {"kernel": [inputs, 3 units], "bias"}, "recurrent": {"kernel": [units, 3 units], "bias"}}``.

    Kernels are orthogonal, gate by gate (Saxe et al. 2014): memories neither fade nor grow at first.
    """
    draw = orthogonal()

    def layer(key: Key, rows: int) -> dict[str, Array]:
        gates = [draw(k, (rows, units)) for k in jax.random.split(key, 3)]
        return {"kernel": jnp.concatenate(gates, axis=1), "bias": jnp.zeros(3 * units)}

    key_input, key_recurrent = jax.random.split(key)
    return {"input": layer(key_input, inputs), "recurrent": layer(key_recurrent, units)}


def gru_gates(layer: dict[str, Array], x: Array) -> Array:
    """What the input gives to the gates, ``float32[..., inputs] -> [..., 3 units]``: of all times in one product."""
    return x @ layer["kernel"] + layer["bias"]


def gru(layer: dict[str, Array], memory: Array, gates: Array) -> Array:
    r"""The next memory, ``float32[..., units]``.

    .. math:: u = \sigma(x_u + h_u), \quad r = \sigma(x_r + h_r), \quad
              m' = u\, m + (1 - u) \tanh(x_n + r\, h_n), \quad h = W m + b

    Args:
      layer: ``kernel [units, 3 units]`` and ``bias``, the gates in the order u, r, n.
      memory: ``m``.
      gates: ``x``, of the input.

    Source: Cho et al. 2014 (arXiv 1406.1078), with the reset gate after the product.
    """
    own = memory @ layer["kernel"] + layer["bias"]
    (keep_in, reset_in, new_in), (keep, reset, new) = (jnp.split(x, 3, axis=-1) for x in (gates, own))
    update = jax.nn.sigmoid(keep_in + keep)
    return update * memory + (1.0 - update) * jnp.tanh(new_in + jax.nn.sigmoid(reset_in + reset) * new)
