"""Improving a policy or a value from batches: one file a method."""

from jmbrl.learners.cloning import CloningState, cloning
from jmbrl.learners.q_learning import QState, back_up, bellman_error, q_learning
from jmbrl.learners.sac import SACState, sac

__all__ = [
    "CloningState",
    "QState",
    "SACState",
    "back_up",
    "bellman_error",
    "cloning",
    "q_learning",
    "sac",
]
