"""Improving a policy or a value from batches: one file a method."""

from jmbrl.learners.advantages import gae, returns
from jmbrl.learners.auxiliary import Auxiliary, auxiliary
from jmbrl.learners.bptt import BPTT, BPTTState, Record, World, bptt
from jmbrl.learners.cloning import CloningState, cloning, imitate
from jmbrl.learners.controllers import Controller, linear_controller
from jmbrl.learners.dqn import DQNState, dqn
from jmbrl.learners.evolution import Evolution, EvolutionState, evolution
from jmbrl.learners.imagined_actor_critic import Behaviour, BehaviourMemory, Imagined, behaviour
from jmbrl.learners.lambda_returns import lambda_returns
from jmbrl.learners.meta_policy import MetaState, meta_policy
from jmbrl.learners.optimizers import adaptive_clip, laprop
from jmbrl.learners.policy_prior import PolicyPrior, policy_prior
from jmbrl.learners.policy_value import PolicyValue, Thought, policy_value
from jmbrl.learners.ppo import PPOState, ppo
from jmbrl.learners.q_ensemble import QEnsemble, q_ensemble
from jmbrl.learners.q_learning import QState, back_up, bellman_error, q_learning
from jmbrl.learners.rbf_policy import RBFPolicy, RBFWeights, rbf_policy
from jmbrl.learners.recorded import Recorded, recorded
from jmbrl.learners.recurrent_policy import RecurrentLearner, recurrent_ppo
from jmbrl.learners.return_scale import ReturnScale
from jmbrl.learners.sac import SACState, sac
from jmbrl.learners.saturating_cost import SaturatingCost, saturating_cost
from jmbrl.learners.search_targets import Targets, search_targets
from jmbrl.learners.trajectory_update import LocalTask, Quadratic, trajectory_update
from jmbrl.learners.trpo import TRPOState, trpo

__all__ = [
    "BPTT",
    "Auxiliary",
    "BPTTState",
    "Behaviour",
    "BehaviourMemory",
    "CloningState",
    "Controller",
    "DQNState",
    "Evolution",
    "EvolutionState",
    "Imagined",
    "LocalTask",
    "MetaState",
    "PPOState",
    "PolicyPrior",
    "PolicyValue",
    "QEnsemble",
    "QState",
    "Quadratic",
    "RBFPolicy",
    "RBFWeights",
    "Record",
    "Recorded",
    "RecurrentLearner",
    "ReturnScale",
    "SACState",
    "SaturatingCost",
    "TRPOState",
    "Targets",
    "Thought",
    "World",
    "adaptive_clip",
    "auxiliary",
    "back_up",
    "behaviour",
    "bellman_error",
    "bptt",
    "cloning",
    "dqn",
    "evolution",
    "gae",
    "imitate",
    "lambda_returns",
    "laprop",
    "linear_controller",
    "meta_policy",
    "policy_prior",
    "policy_value",
    "ppo",
    "q_ensemble",
    "q_learning",
    "rbf_policy",
    "recorded",
    "recurrent_ppo",
    "returns",
    "sac",
    "saturating_cost",
    "search_targets",
    "trajectory_update",
    "trpo",
]
