"""Linear layers, each followed by a normalisation and an activation: the networks of the Dreamer family."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.networks.dense import fan_in_normal
from jmbrl.networks.norms import init_norm, layer_norm, rms_norm
from jmbrl.types import Array, Key, PyTree

NORMS = ("none", "layer", "rms")
UNCUT = 1.1368  # A normal of this standard deviation, cut at two of them, has the standard deviation 1.


def init_linear(key: Key, inputs: int, outputs: int, scale: float = 1.0) -> dict[str, Array]:
    r"""``{"kernel": float32[inputs, outputs], "bias": zeros[outputs]}``, the kernel of standard deviation
    ``scale / sqrt(inputs)``.

    Drawn from a normal cut at two standard deviations and widened by 1.1368, which makes up for the cut.

    Args:
      scale: at least 0; 0 gives exact zeros, a layer that at first answers 0 whatever it is asked.

    Raises:
      ValueError: fewer than 1 input or output, or a negative ``scale``.

    Source: DreamerV3's code (``trunc_normal``, ``outscale``).
    """
    shape = checks.integer("inputs", inputs, 1), checks.integer("outputs", outputs, 1)
    checks.number("scale", scale, 0.0)
    # fan_in_normal's standard deviation before the cut is 1 / (2 sqrt(inputs)).
    return {"kernel": scale * 2.0 * UNCUT * fan_in_normal(key, shape), "bias": jnp.zeros(outputs)}


def apply_linear(layer: dict[str, Array], x: Array) -> Array:
    """``float32[..., inputs] -> float32[..., outputs]``."""
    return x @ layer["kernel"] + layer["bias"]


def init_normed(key: Key, sizes: Sequence[int], norm: str = "none") -> tuple[dict[str, PyTree], ...]:
    """Layers ``sizes[0] -> ... -> sizes[-1]``: ``({"kernel", "bias"[, "norm"]}, ...)``, kernels as ``init_linear``'s.

    Args:
      norm: ``none``, ``layer`` (with a bias) or ``rms`` (without).

    Raises:
      ValueError: an unknown ``norm``, fewer than 2 sizes, or one below 1.
    """
    checks.choice("norm", norm, NORMS)
    checks.integer("the number of sizes", len(sizes), 2)
    keys = jax.random.split(key, len(sizes) - 1)
    layers = tuple(init_linear(k, i, o) for k, i, o in zip(keys, sizes[:-1], sizes[1:], strict=True))
    if norm == "none":
        return layers
    return tuple(layer | {"norm": init_norm(layer["bias"].shape[0], bias=norm == "layer")} for layer in layers)


def apply_normed(layers: Sequence[dict[str, PyTree]], x: Array, activation: Callable, norm: str = "none") -> Array:
    """``float32[..., sizes[0]] -> float32[..., sizes[-1]]``: every layer, also the last, is linear, norm, activation.

    Args:
      activation: ``float32 -> float32``, elementwise.
      norm: as in ``init_normed``.

    Raises:
      ValueError: an unknown ``norm``, or layers that were made without one.
    """
    checks.choice("norm", norm, NORMS)
    if any(("norm" in layer) != (norm != "none") for layer in layers):
        raise ValueError(f"norm must be what the layers were made with, got {norm!r}")
    normalise = {"none": lambda _, x: x, "layer": layer_norm, "rms": rms_norm}[norm]
    for layer in layers:
        x = activation(normalise(layer.get("norm"), apply_linear(layer, x)))
    return x
