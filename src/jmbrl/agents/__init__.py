"""The named systems, about a page each, composed from models, planners and learners."""

from jmbrl.agents import alphazero as _alphazero
from jmbrl.agents import analytic as _analytic
from jmbrl.agents import bptt as _bptt
from jmbrl.agents import cloned as _cloned
from jmbrl.agents import dreamer_v1 as _dreamer_v1
from jmbrl.agents import dreamer_v2 as _dreamer_v2
from jmbrl.agents import dreamer_v3 as _dreamer_v3
from jmbrl.agents import dyna_q as _dyna_q
from jmbrl.agents import gps as _gps
from jmbrl.agents import ilqg as _ilqg
from jmbrl.agents import mb_mf as _mb_mf
from jmbrl.agents import mb_mpo as _mb_mpo
from jmbrl.agents import mbpo as _mbpo
from jmbrl.agents import mcts as _mcts
from jmbrl.agents import me_trpo as _me_trpo
from jmbrl.agents import mopo as _mopo
from jmbrl.agents import mpc_by_name as _mpc
from jmbrl.agents import muzero as _muzero
from jmbrl.agents import off_policy as _off_policy
from jmbrl.agents import on_policy as _on_policy
from jmbrl.agents import opax as _opax
from jmbrl.agents import pets as _pets
from jmbrl.agents import pilco as _pilco
from jmbrl.agents import plan2explore as _plan2explore
from jmbrl.agents import planet as _planet
from jmbrl.agents import prioritized_sweeping as _sweeping
from jmbrl.agents import random as _random
from jmbrl.agents import slbo as _slbo
from jmbrl.agents import svg as _svg
from jmbrl.agents import td_mpc2 as _td_mpc2
from jmbrl.agents import world_models as _world_models
from jmbrl.agents.alphazero import AlphaZeroConfig, alphazero
from jmbrl.agents.analytic import analytic
from jmbrl.agents.bptt import BPTTConfig, bptt, climbing
from jmbrl.agents.cloned import BCConfig, BCState, bc
from jmbrl.agents.dream import dream_fitness
from jmbrl.agents.dreamer import DreamerState, dreamer
from jmbrl.agents.dreamer_v1 import DreamerV1Config, dreamer_v1
from jmbrl.agents.dreamer_v2 import DreamerV2Config, dreamer_v2
from jmbrl.agents.dreamer_v3 import DreamerV3Config, dreamer_v3
from jmbrl.agents.dyna_q import DynaQConfig, DynaQState, dyna_q
from jmbrl.agents.gps import GPSConfig, GPSState, gps
from jmbrl.agents.ilqg import ILQGConfig, ILQGState, ilqg
from jmbrl.agents.imitated_controller import MBMFState, imitated_controller
from jmbrl.agents.mb_mf import MBMFConfig, mb_mf
from jmbrl.agents.mb_mpo import MBMPOConfig, mb_mpo, meta_imagination
from jmbrl.agents.mbpo import MBPOConfig, RolloutLength, imagined_trials, mbpo
from jmbrl.agents.mcts import MCTSConfig, mcts
from jmbrl.agents.me_trpo import METRPOConfig, me_trpo
from jmbrl.agents.mopo import MOPOConfig, mopo
from jmbrl.agents.mpc import mpc
from jmbrl.agents.mpc_by_name import MPCConfig, mpc_by_name
from jmbrl.agents.muzero import MuZeroConfig, muzero
from jmbrl.agents.off_policy import DQNConfig, Priority, SACConfig, dqn, off_policy, sac
from jmbrl.agents.offline import OfflineMemory, offline_trials
from jmbrl.agents.on_policy import PPOConfig, RecurrentPPOConfig, TRPOConfig, on_policy, ppo, recurrent_ppo, trpo
from jmbrl.agents.opax import OPAXConfig, opax
from jmbrl.agents.pets import PETSConfig, pets
from jmbrl.agents.pilco import PILCOConfig, pilco
from jmbrl.agents.plan2explore import Plan2ExploreConfig, plan2explore
from jmbrl.agents.planet import PlaNetConfig, planet
from jmbrl.agents.presets import PRESETS, default_preset
from jmbrl.agents.prioritized_sweeping import PrioritizedSweepingConfig, SweepingState, prioritized_sweeping
from jmbrl.agents.search_update import Learned, Plan, SearchLearner, search_learner
from jmbrl.agents.searching import SearchState, searching
from jmbrl.agents.slbo import SLBOConfig, imagined_turns, ornstein_uhlenbeck, slbo
from jmbrl.agents.svg import SVGConfig, recorded_windows, svg
from jmbrl.agents.system import System
from jmbrl.agents.tabular import greedy_steps
from jmbrl.agents.td_mpc2 import TDMPC2Config, td_mpc2
from jmbrl.agents.validated import policy_in_ensemble
from jmbrl.agents.world_models import WorldModelsConfig, episodes_of_generation, world_models
from jmbrl.agents.world_models_stages import WorldModelsState

_PAGES = (
    _random,
    _mpc,
    _pets,
    _opax,
    _mbpo,
    _mopo,
    _cloned,
    _me_trpo,
    _mb_mf,
    _mb_mpo,
    _slbo,
    _ilqg,
    _gps,
    _bptt,
    _svg,
    _analytic,
    _pilco,
    _dyna_q,
    _sweeping,
    _planet,
    _dreamer_v1,
    _dreamer_v2,
    _dreamer_v3,
    _plan2explore,
    _td_mpc2,
    _mcts,
    _alphazero,
    _muzero,
    _world_models,
    _off_policy,
    _on_policy,
)
SYSTEMS: dict[str, System] = {system.name: system for page in _PAGES for system in page.SYSTEMS}

__all__ = [
    "PRESETS",
    "SYSTEMS",
    "AlphaZeroConfig",
    "BCConfig",
    "BCState",
    "BPTTConfig",
    "DQNConfig",
    "DreamerState",
    "DreamerV1Config",
    "DreamerV2Config",
    "DreamerV3Config",
    "DynaQConfig",
    "DynaQState",
    "GPSConfig",
    "GPSState",
    "ILQGConfig",
    "ILQGState",
    "Learned",
    "MBMFConfig",
    "MBMFState",
    "MBMPOConfig",
    "MBPOConfig",
    "MCTSConfig",
    "METRPOConfig",
    "MOPOConfig",
    "MPCConfig",
    "MuZeroConfig",
    "OPAXConfig",
    "OfflineMemory",
    "PETSConfig",
    "PILCOConfig",
    "PPOConfig",
    "PlaNetConfig",
    "Plan",
    "Plan2ExploreConfig",
    "PrioritizedSweepingConfig",
    "Priority",
    "RecurrentPPOConfig",
    "RolloutLength",
    "SACConfig",
    "SLBOConfig",
    "SVGConfig",
    "SearchLearner",
    "SearchState",
    "SweepingState",
    "System",
    "TDMPC2Config",
    "TRPOConfig",
    "WorldModelsConfig",
    "WorldModelsState",
    "alphazero",
    "analytic",
    "bc",
    "bptt",
    "climbing",
    "default_preset",
    "dqn",
    "dream_fitness",
    "dreamer",
    "dreamer_v1",
    "dreamer_v2",
    "dreamer_v3",
    "dyna_q",
    "episodes_of_generation",
    "gps",
    "greedy_steps",
    "ilqg",
    "imagined_trials",
    "imagined_turns",
    "imitated_controller",
    "mb_mf",
    "mb_mpo",
    "mbpo",
    "mcts",
    "me_trpo",
    "meta_imagination",
    "mopo",
    "mpc",
    "mpc_by_name",
    "muzero",
    "off_policy",
    "offline_trials",
    "on_policy",
    "opax",
    "ornstein_uhlenbeck",
    "pets",
    "pilco",
    "plan2explore",
    "planet",
    "policy_in_ensemble",
    "ppo",
    "prioritized_sweeping",
    "recorded_windows",
    "recurrent_ppo",
    "sac",
    "search_learner",
    "searching",
    "slbo",
    "svg",
    "td_mpc2",
    "trpo",
    "world_models",
]
