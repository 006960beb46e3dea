"""What was seen: replay, sequences, normalisers and logged data."""

from jmbrl.data.agreement import Agreement, AgreementWarning, check_actions, check_functions, check_given
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
    sample_sequences,
    sample_starts,
    take,
)

__all__ = [
    "Agreement",
    "AgreementWarning",
    "NStepRows",
    "Replay",
    "add",
    "check_actions",
    "check_functions",
    "check_given",
    "empty",
    "finite",
    "from_arrays",
    "n_step",
    "rows",
    "sample",
    "sample_places",
    "sample_sequences",
    "sample_starts",
    "take",
]
