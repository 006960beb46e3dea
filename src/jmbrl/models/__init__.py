"""How the world moves: one file a family, ``ensemble`` the combinator, ``trainer`` the one gradient trainer."""

from jmbrl.models.change import ChangeDetector, always, change_detector, cusum, surprise
from jmbrl.models.counted import CountedStats, counted, simhash
from jmbrl.models.curious import curious, novelty
from jmbrl.models.decoder_free import DecoderFree, Unrolled, decoder_free, decoder_free_parts
from jmbrl.models.ensemble import EnsembleStats, disagreement, ensemble, members_predict, one_member
from jmbrl.models.equations import equations, theta
from jmbrl.models.features import FeatureMap, polynomial, random_fourier
from jmbrl.models.fit import Trainer, trainer
from jmbrl.models.gmm import gmm
from jmbrl.models.gp import gp
from jmbrl.models.gp_functions import gp_function_samples
from jmbrl.models.hallucinated import hallucinated, hallucinated_planner, hallucinated_spec
from jmbrl.models.history import HistoryBelief, history
from jmbrl.models.inverse import InverseModel, inverse_mlp, recover_actions
from jmbrl.models.latent_curiosity import CuriosityStats, latent_curiosity, rewarded
from jmbrl.models.linear import linear
from jmbrl.models.local_linear import LinearGaussian, local_linear, local_regression
from jmbrl.models.mdn import mixture_mlp
from jmbrl.models.mdn_rnn import LatentSequence, Memory, MixtureOutputs, mdn_rnn
from jmbrl.models.mixture import Mixture, em
from jmbrl.models.mlp import deterministic_mlp, gaussian_mlp
from jmbrl.models.multistep import multistep
from jmbrl.models.parameters import Parameter
from jmbrl.models.pessimistic import pessimistic, uncertainty, uncertainty_quantile
from jmbrl.models.recalibrated import Recalibration, recalibrated
from jmbrl.models.recurrent import RecurrentBelief, recurrent
from jmbrl.models.residual import residual
from jmbrl.models.rewards import with_cost, with_reward, with_termination
from jmbrl.models.rssm import rssm
from jmbrl.models.rssm_core import RSSMBelief
from jmbrl.models.rssm_losses import Scales
from jmbrl.models.sequences import sequence_trainer
from jmbrl.models.simulator import simulator
from jmbrl.models.tabular import tabular
from jmbrl.models.trainers import trainer_for
from jmbrl.models.transition_table import Outcomes, transition_table
from jmbrl.models.vae import Vision, vae
from jmbrl.models.value_equivalent import ValueEquivalent, value_equivalent, value_equivalent_parts
from jmbrl.models.world_model import WorldModelBelief, WorldModelStats, vision_and_memory, world_model

__all__ = [
    "ChangeDetector",
    "CountedStats",
    "CuriosityStats",
    "DecoderFree",
    "EnsembleStats",
    "FeatureMap",
    "HistoryBelief",
    "InverseModel",
    "LatentSequence",
    "LinearGaussian",
    "Memory",
    "Mixture",
    "MixtureOutputs",
    "Outcomes",
    "Parameter",
    "RSSMBelief",
    "Recalibration",
    "RecurrentBelief",
    "Scales",
    "Trainer",
    "Unrolled",
    "ValueEquivalent",
    "Vision",
    "WorldModelBelief",
    "WorldModelStats",
    "always",
    "change_detector",
    "counted",
    "curious",
    "cusum",
    "decoder_free",
    "decoder_free_parts",
    "deterministic_mlp",
    "disagreement",
    "em",
    "ensemble",
    "equations",
    "gaussian_mlp",
    "gmm",
    "gp",
    "gp_function_samples",
    "hallucinated",
    "hallucinated_planner",
    "hallucinated_spec",
    "history",
    "inverse_mlp",
    "latent_curiosity",
    "linear",
    "local_linear",
    "local_regression",
    "mdn_rnn",
    "members_predict",
    "mixture_mlp",
    "multistep",
    "novelty",
    "one_member",
    "pessimistic",
    "polynomial",
    "random_fourier",
    "recalibrated",
    "recover_actions",
    "recurrent",
    "residual",
    "rewarded",
    "rssm",
    "sequence_trainer",
    "simhash",
    "simulator",
    "surprise",
    "tabular",
    "theta",
    "trainer",
    "trainer_for",
    "transition_table",
    "uncertainty",
    "uncertainty_quantile",
    "vae",
    "value_equivalent",
    "value_equivalent_parts",
    "vision_and_memory",
    "with_cost",
    "with_reward",
    "with_termination",
    "world_model",
]
