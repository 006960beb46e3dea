"""How good a model is: error against horizon, calibration, what the spread is made of, latency; and the figures.

Of policies that climb derivatives: how much of these is signal, and what the return looks like around them.

Of tables: their values and policies, and how planning fills them in.
"""

from jmbrl.diagnostics.calibration import calibration, calibration_by_horizon
from jmbrl.diagnostics.gradient_report import diagnose_gradients, save_gradients
from jmbrl.diagnostics.gradients import (
    first_noise,
    gradients_by_horizon,
    landscape,
    policy_gradients,
    random_direction,
    signal,
)
from jmbrl.diagnostics.imagined_returns import imagined_returns, returns_to_go
from jmbrl.diagnostics.latent import diagnose_latent
from jmbrl.diagnostics.latent_calibration import continuation_calibration, kl_per_latent, reward_calibration
from jmbrl.diagnostics.latent_figures import save_latent
from jmbrl.diagnostics.model_error import model_error
from jmbrl.diagnostics.off_policy_value import off_policy_value
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
    "continuation_calibration",
    "diagnose",
    "diagnose_agent",
    "diagnose_gradients",
    "diagnose_latent",
    "first_noise",
    "gradients_by_horizon",
    "imagined_returns",
    "keeps_up",
    "kl_per_latent",
    "landscape",
    "latency",
    "model_error",
    "off_policy_value",
    "open_loop",
    "planning_frames",
    "policy_gradients",
    "random_direction",
    "real_windows",
    "recalibrate",
    "returns_to_go",
    "reward_calibration",
    "save_gradients",
    "save_latent",
    "signal",
    "value_map",
    "variance_shares",
]
