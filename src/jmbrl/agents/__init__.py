"""The named systems, about a page each, composed from models, planners and learners."""

from jmbrl.agents import pets as _pets
from jmbrl.agents import random as _random
from jmbrl.agents.mpc import mpc
from jmbrl.agents.pets import PETSConfig, pets
from jmbrl.agents.presets import PRESETS, default_preset
from jmbrl.agents.system import System

SYSTEMS: dict[str, System] = {system.name: system for page in (_random, _pets) for system in page.SYSTEMS}
presets = PRESETS

__all__ = ["PRESETS", "SYSTEMS", "PETSConfig", "System", "default_preset", "mpc", "pets", "presets"]
