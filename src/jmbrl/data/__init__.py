"""What was seen: replay, sequences, normalisers and logged data."""

from jmbrl.data.replay import Replay, add, empty, finite, from_arrays, rows, sample, sample_sequences

__all__ = ["Replay", "add", "empty", "finite", "from_arrays", "rows", "sample", "sample_sequences"]
