"""What was seen: replay, sequences, normalisers and logged data."""

from jmbrl.data.agreement import Agreement, AgreementWarning, check_actions, check_functions, check_given
from jmbrl.data.episodes import episodes, joined, split_episodes
from jmbrl.data.frames import Frames, frames
from jmbrl.data.latent_replay import LatentReplay, Window, add_latent, empty_latent, sample_latent, write_latent
from jmbrl.data.log_episodes import from_episodes
from jmbrl.data.log_files import from_csv, from_npz, save_npz
from jmbrl.data.log_minari import from_minari
from jmbrl.data.logs import Log, from_log
from jmbrl.data.n_step import NStepRows, n_step
from jmbrl.data.replay import (
    Replay,
    add,
    empty,
    finite,
    forget,
    from_arrays,
    newest,
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
    "Log",
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
    "episodes",
    "finite",
    "forget",
    "frames",
    "from_arrays",
    "from_csv",
    "from_episodes",
    "from_log",
    "from_minari",
    "from_npz",
    "joined",
    "n_step",
    "newest",
    "rows",
    "sample",
    "sample_latent",
    "sample_places",
    "sample_sequences",
    "sample_starts",
    "save_npz",
    "split_episodes",
    "take",
    "write_latent",
]
