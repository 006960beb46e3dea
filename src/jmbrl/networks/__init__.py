"""Networks and distributions. The only place of jmbrl that imports ``flax.linen``."""

from jmbrl.networks.dense import apply_dense, init_dense, swish
from jmbrl.networks.distributions import Categorical, ClippedNormal, Normal, TanhNormal
from jmbrl.networks.mlp import MLP, fan_in_normal
from jmbrl.networks.noise import coloured_noise, fast_normal, mix32

__all__ = [
    "MLP",
    "Categorical",
    "ClippedNormal",
    "Normal",
    "TanhNormal",
    "apply_dense",
    "coloured_noise",
    "fan_in_normal",
    "fast_normal",
    "init_dense",
    "mix32",
    "swish",
]
