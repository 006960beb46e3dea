"""Networks and distributions. The only place of jmbrl that imports ``flax.linen``."""

from jmbrl.networks.conv import ConvStack, apply_conv, apply_conv_transpose, conv_stack, init_conv, init_conv_transpose
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
    "ConvStack",
    "NoisyDense",
    "Normal",
    "QNetwork",
    "TanhNormal",
    "apply_conv",
    "apply_conv_transpose",
    "apply_dense",
    "coloured_noise",
    "conv_stack",
    "dueling",
    "fan_in_normal",
    "fast_normal",
    "init_conv",
    "init_conv_transpose",
    "init_dense",
    "swish",
]
