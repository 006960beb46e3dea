"""How good a model is: error against horizon, calibration, what the spread is made of, latency; and the figures.

Of tables: their values and policies, and how planning fills them in.
"""

from jmbrl.diagnostics.calibration import calibration, calibration_by_horizon
from jmbrl.diagnostics.model_error import model_error
from jmbrl.diagnostics.recalibration import recalibrate
from jmbrl.diagnostics.report import collect, diagnose, diagnose_agent
from jmbrl.diagnostics.tables import planning_frames, value_map
from jmbrl.diagnostics.timing import act_latency, keeps_up, latency
from jmbrl.diagnostics.uncertainty import variance_shares
from jmbrl.diagnostics.windows import open_loop, real_windows

__all__ = [
    "act_latency",
    "calibration",
    "calibration_by_horizon",
    "collect",
    "diagnose",
    "diagnose_agent",
    "keeps_up",
    "latency",
    "model_error",
    "open_loop",
    "planning_frames",
    "real_windows",
    "recalibrate",
    "value_map",
    "variance_shares",
]
