"""Improving a policy or a value from batches: one file a method."""

from jmbrl.learners.advantages import gae, returns
from jmbrl.learners.cloning import CloningState, cloning, imitate
from jmbrl.learners.controllers import Controller, linear_controller
from jmbrl.learners.dqn import DQNState, dqn
from jmbrl.learners.evolution import Evolution, EvolutionState, evolution
from jmbrl.learners.meta_policy import MetaState, meta_policy
from jmbrl.learners.ppo import PPOState, ppo
from jmbrl.learners.q_learning import QState, back_up, bellman_error, q_learning
from jmbrl.learners.sac import SACState, sac
from jmbrl.learners.trpo import TRPOState, trpo

__all__ = [
    "CloningState",
    "Controller",
    "DQNState",
    "Evolution",
    "EvolutionState",
    "MetaState",
    "PPOState",
    "QState",
    "SACState",
    "TRPOState",
    "back_up",
    "bellman_error",
    "cloning",
    "dqn",
    "evolution",
    "gae",
    "imitate",
    "linear_controller",
    "meta_policy",
    "ppo",
    "q_learning",
    "returns",
    "sac",
    "trpo",
]
