"""Improving a policy or a value from batches: one file a method."""

from jmbrl.learners.cloning import CloningState, cloning
from jmbrl.learners.q_learning import QState, q_learning
from jmbrl.learners.sac import SACState, sac

__all__ = [
    "CloningState",
    "QState",
    "SACState",
    "cloning",
    "q_learning",
    "sac",
]
