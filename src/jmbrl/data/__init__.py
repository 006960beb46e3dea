"""What was seen: replay, sequences, normalisers and logged data."""

from jmbrl.data.agreement import Agreement, AgreementWarning, check_actions, check_functions, check_given
from jmbrl.data.frames import Frames, frames
from jmbrl.data.latent_replay import LatentReplay, Window, add_latent, empty_latent, sample_latent, write_latent
from jmbrl.data.n_step import NStepRows, n_step
from jmbrl.data.replay import (
    Replay,
    add,
    empty,
    finite,
    from_arrays,
    rows,
    sample,
    sample_places,
    sample_starts,
    take,
)
from jmbrl.data.windows import sample_sequences

__all__ = [
    "Agreement",
    "AgreementWarning",
    "Frames",
    "LatentReplay",
    "NStepRows",
    "Replay",
    "Window",
    "add",
    "add_latent",
    "check_actions",
    "check_functions",
    "check_given",
    "empty",
    "empty_latent",
    "finite",
    "frames",
    "from_arrays",
    "n_step",
    "rows",
    "sample",
    "sample_latent",
    "sample_places",
    "sample_sequences",
    "sample_starts",
    "take",
    "write_latent",
]
