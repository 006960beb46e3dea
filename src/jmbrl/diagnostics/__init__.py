"""How good a model is: error against horizon, calibration, disagreement, latency; and the figures."""

from jmbrl.diagnostics.calibration import calibration
from jmbrl.diagnostics.model_error import model_error
from jmbrl.diagnostics.report import collect, diagnose, diagnose_agent
from jmbrl.diagnostics.timing import act_latency, latency
from jmbrl.diagnostics.windows import open_loop, real_windows

__all__ = [
    "act_latency",
    "calibration",
    "collect",
    "diagnose",
    "diagnose_agent",
    "latency",
    "model_error",
    "open_loop",
    "real_windows",
]
