"""Networks and distributions. The only place of jmbrl that imports ``flax.linen``."""

from jmbrl.networks.blocks import apply_block_linear, init_block_linear
from jmbrl.networks.conv import ConvStack, apply_conv, apply_conv_transpose, conv_stack, init_conv, init_conv_transpose
from jmbrl.networks.dense import apply_dense, init_dense, swish
from jmbrl.networks.distributions import Categorical, ClippedNormal, Normal, TanhNormal, TruncatedNormal
from jmbrl.networks.gru import gru, gru_gates, init_gru
from jmbrl.networks.hyperbolic_two_hot import HyperbolicTwoHot
from jmbrl.networks.latents import OneHotLatents, unimix
from jmbrl.networks.mish_mlp import apply_mish_mlp, init_mish_mlp, mish, simnorm
from jmbrl.networks.mlp import MLP, fan_in_normal
from jmbrl.networks.noise import coloured_noise, fast_normal
from jmbrl.networks.noisy import NoisyDense
from jmbrl.networks.normed import NORMS, apply_linear, apply_normed, init_linear, init_normed
from jmbrl.networks.norms import init_norm, layer_norm, rms_norm
from jmbrl.networks.orthogonal import orthogonal
from jmbrl.networks.q_network import QNetwork, dueling
from jmbrl.networks.scalar_head import ScalarHead, scalar_head
from jmbrl.networks.symlog_two_hot import SymlogTwoHot
from jmbrl.networks.trunk import Trunk, trunk
from jmbrl.networks.two_hot import TwoHot, symexp, symexp_bins, symlog, two_hot

__all__ = [
    "MLP",
    "NORMS",
    "Categorical",
    "ClippedNormal",
    "ConvStack",
    "HyperbolicTwoHot",
    "NoisyDense",
    "Normal",
    "OneHotLatents",
    "QNetwork",
    "ScalarHead",
    "SymlogTwoHot",
    "TanhNormal",
    "TruncatedNormal",
    "Trunk",
    "TwoHot",
    "apply_block_linear",
    "apply_conv",
    "apply_conv_transpose",
    "apply_dense",
    "apply_linear",
    "apply_mish_mlp",
    "apply_normed",
    "coloured_noise",
    "conv_stack",
    "dueling",
    "fan_in_normal",
    "fast_normal",
    "gru",
    "gru_gates",
    "init_block_linear",
    "init_conv",
    "init_conv_transpose",
    "init_dense",
    "init_gru",
    "init_linear",
    "init_mish_mlp",
    "init_norm",
    "init_normed",
    "layer_norm",
    "mish",
    "orthogonal",
    "rms_norm",
    "scalar_head",
    "simnorm",
    "swish",
    "symexp",
    "symexp_bins",
    "symlog",
    "trunk",
    "two_hot",
    "unimix",
]
