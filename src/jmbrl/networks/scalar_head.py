"""A network that reads features and predicts one number: rewards and values of latent models."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.networks.normed import apply_linear, apply_normed, init_linear, init_normed
from jmbrl.networks.two_hot import TwoHot, symexp_bins
from jmbrl.types import Array, Key, PyTree

KINDS = ("normal", "two_hot")


class UnitNormal(NamedTuple):
    """A Gaussian of standard deviation 1 over one number; ``centre``: ``float32[...]``."""

    centre: Array

    def mean(self) -> Array:
        return self.centre

    def log_prob(self, x: Array) -> Array:
        """Without its constant: ``-(x - centre)^2 / 2``."""
        return -0.5 * (x - self.centre) ** 2


class ScalarHead(NamedTuple):
    """``init(key) -> weights`` and ``predict(weights, features[..., F])``, a distribution ``[...]`` with ``mean`` and
    ``log_prob``."""

    init: Callable
    predict: Callable


def scalar_head(
    features: int,
    *,
    kind: str = "two_hot",
    layers: int = 1,
    units: int = 256,
    norm: str = "rms",
    activation: Callable[[Array], Array] = jax.nn.silu,
) -> ScalarHead:
    """``layers`` hidden layers and a linear one whose weights begin at 0, so that the first prediction is exactly 0.

    Args:
      features: entries it reads.
      kind: ``"two_hot"``, a softmax over 255 bins from -exp(20) to exp(20) (Dreamer v3), or ``"normal"``, a Gaussian of
        unit variance (PlaNet, Dreamer v1 and v2, whose code begins elsewhere than at 0).
      layers, units, norm, activation: of the hidden layers, as in ``networks.init_normed``.

    Raises:
      ValueError: another kind, or a size below 1.

    Source: Hafner et al. 2023 (arXiv 2301.04104), "Critic learning".
    """
    checks.choice("kind", kind, KINDS)
    widths = (checks.integer("features", features, 1), *[checks.integer("units", units, 1)] * layers)
    bins = symexp_bins()
    outputs = len(bins) if kind == "two_hot" else 1

    def init(key: Key) -> PyTree:
        key_hidden, key_out = jax.random.split(key)
        hidden = init_normed(key_hidden, widths, norm)
        return {"hidden": hidden, "out": init_linear(key_out, widths[-1], outputs, scale=0.0)}

    def predict(weights: PyTree, x: Array) -> TwoHot | UnitNormal:
        out = apply_linear(weights["out"], apply_normed(weights["hidden"], x, activation, norm))
        return TwoHot(out, jnp.asarray(bins, jnp.float32)) if kind == "two_hot" else UnitNormal(out[..., 0])

    return ScalarHead(init, predict)
