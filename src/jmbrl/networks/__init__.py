"""Networks and distributions. The only place of jmbrl that imports ``flax.linen``."""

from jmbrl.networks.dense import apply_dense, init_dense, swish
from jmbrl.networks.distributions import Categorical, ClippedNormal, Normal, TanhNormal
from jmbrl.networks.mlp import MLP, fan_in_normal
from jmbrl.networks.noise import coloured_noise, fast_normal
from jmbrl.networks.noisy import NoisyDense
from jmbrl.networks.q_network import QNetwork, dueling

__all__ = [
    "MLP",
    "Categorical",
    "ClippedNormal",
    "NoisyDense",
    "Normal",
    "QNetwork",
    "TanhNormal",
    "apply_dense",
    "coloured_noise",
    "dueling",
    "fan_in_normal",
    "fast_normal",
    "init_dense",
    "swish",
]
