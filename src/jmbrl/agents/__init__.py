"""The named systems, about a page each, composed from models, planners and learners."""

from jmbrl.agents import dyna as _dyna
from jmbrl.agents import latent_mpc as _latent_mpc
from jmbrl.agents import mpc_by_name as _mpc
from jmbrl.agents import pets as _pets
from jmbrl.agents import random as _random
from jmbrl.agents.dyna import DynaConfig, dyna, imagined_trials
from jmbrl.agents.latent_mpc import LatentMPCConfig, latent_mpc
from jmbrl.agents.mpc import mpc
from jmbrl.agents.mpc_by_name import MPCConfig, mpc_by_name
from jmbrl.agents.pets import PETSConfig, pets
from jmbrl.agents.presets import PRESETS, default_preset
from jmbrl.agents.system import System

_PAGES = (_random, _mpc, _pets, _dyna, _latent_mpc)
SYSTEMS: dict[str, System] = {system.name: system for page in _PAGES for system in page.SYSTEMS}

__all__ = [
    "PRESETS",
    "SYSTEMS",
    "DynaConfig",
    "LatentMPCConfig",
    "MPCConfig",
    "PETSConfig",
    "System",
    "default_preset",
    "dyna",
    "imagined_trials",
    "latent_mpc",
    "mpc",
    "mpc_by_name",
    "pets",
]
