"""How the world moves: one file a family, ``ensemble`` the combinator, ``trainer`` the one gradient trainer."""

from jmbrl.models.ensemble import EnsembleStats, disagreement, ensemble, members_predict, one_member
from jmbrl.models.fit import Trainer, trainer
from jmbrl.models.mlp import deterministic_mlp, gaussian_mlp
from jmbrl.models.rewards import with_reward, with_termination
from jmbrl.models.rssm import RSSMBelief, rssm
from jmbrl.models.sequences import sequence_trainer
from jmbrl.models.simulator import simulator

__all__ = [
    "EnsembleStats",
    "RSSMBelief",
    "Trainer",
    "deterministic_mlp",
    "disagreement",
    "ensemble",
    "gaussian_mlp",
    "members_predict",
    "one_member",
    "rssm",
    "sequence_trainer",
    "simulator",
    "trainer",
    "with_reward",
    "with_termination",
]
