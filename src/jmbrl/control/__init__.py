"""To the robot: a control loop with a deadline, learning beside it, and programs that act without their source."""

from jmbrl.control.clock import Clock, Job, RealClock, SimulatedClock
from jmbrl.control.export import export, export_weights, load
from jmbrl.control.fallback import Fallback
from jmbrl.control.learner import BackgroundLearner, Learned
from jmbrl.control.loop import run
from jmbrl.control.plants import EnvPlant, Plant
from jmbrl.control.report import ControlError, Report, Tick

__all__ = [
    "BackgroundLearner",
    "Clock",
    "ControlError",
    "EnvPlant",
    "Fallback",
    "Job",
    "Learned",
    "Plant",
    "RealClock",
    "Report",
    "SimulatedClock",
    "Tick",
    "export",
    "export_weights",
    "load",
    "run",
]
