"""The world: environments that never reset themselves, from any package or from two functions."""

from jmbrl.envs.changing import changing, with_reward
from jmbrl.envs.check import Report, check_env
from jmbrl.envs.discretise import discretise, number_actions
from jmbrl.envs.frames import car_racing_frames, frames
from jmbrl.envs.functions import from_functions
from jmbrl.envs.gymnasium import from_gymnasium
from jmbrl.envs.host import HostError, host_error
from jmbrl.envs.partial import flickering, masked, rendered
from jmbrl.envs.registry import make, names, register
from jmbrl.envs.vector import vectorize
from jmbrl.envs.versus import player, random_player, versus
from jmbrl.envs.with_state import StateObs, with_state
from jmbrl.envs.wrappers import action_repeat, flatten_obs, frame_stack, mask_obs, noisy

__all__ = [
    "HostError",
    "Report",
    "StateObs",
    "action_repeat",
    "car_racing_frames",
    "changing",
    "check_env",
    "discretise",
    "flatten_obs",
    "flickering",
    "frame_stack",
    "frames",
    "from_functions",
    "from_gymnasium",
    "host_error",
    "make",
    "mask_obs",
    "masked",
    "names",
    "noisy",
    "number_actions",
    "player",
    "random_player",
    "register",
    "rendered",
    "vectorize",
    "versus",
    "with_reward",
    "with_state",
]
