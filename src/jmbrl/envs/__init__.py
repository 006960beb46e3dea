"""The world: environments that never reset themselves, from any package or from two functions."""

from jmbrl.envs.functions import from_functions
from jmbrl.envs.registry import make, names, register
from jmbrl.envs.vector import vectorize
from jmbrl.envs.wrappers import StateObs, action_repeat, flatten_obs, frame_stack, mask_obs, with_state

__all__ = [
    "StateObs",
    "action_repeat",
    "flatten_obs",
    "frame_stack",
    "from_functions",
    "make",
    "mask_obs",
    "names",
    "register",
    "vectorize",
    "with_state",
]
