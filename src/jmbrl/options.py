"""What goes into ``runner.run`` and what comes out."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from jmbrl import checks, records, writers
from jmbrl.types import PyTree


@dataclasses.dataclass(frozen=True)
class Options:
    """How to run, none of which changes the numbers of a run.

    Attributes:
      checkpoint_seconds: least time between two checkpoints; 0 saves after every chunk. The last state is always saved.
      keep: checkpoints on disk.
      periods_per_chunk: outermost periods between two looks; None chooses about a thousand steps.
      eval_every: environment steps between evaluations, 0 for none; done at the first chunk's end after each multiple.
      eval_episodes: episodes of each.
      writers: beside ``metrics.jsonl``: ``"tensorboard"``, ``"wandb"``.
      quiet: print nothing.
      debug: on divergence run the bad chunk again under checkify and name the primitive.
      mesh: devices by axis, as ``devices.mesh`` takes them: ``{"seed": 2, "row": 4}``; None: seeds over all of them.
      keep_going: warn about a diverged seed instead of stopping: for many seeds side by side.
    """

    checkpoint_seconds: float = 60.0
    keep: int = 2
    periods_per_chunk: int | None = None
    eval_every: int = 0
    eval_episodes: int = 10
    writers: tuple[str, ...] = ()
    quiet: bool = False
    debug: bool = False
    keep_going: bool = False
    mesh: dict[str, int] | None = None

    def __post_init__(self) -> None:
        checks.number("checkpoint_seconds", self.checkpoint_seconds, low=0)
        checks.integer("keep", self.keep, low=1)
        checks.integer("eval_every", self.eval_every, low=0)
        checks.integer("eval_episodes", self.eval_episodes, low=1)
        for name in self.writers:
            checks.choice("writers", name, tuple(writers.OPTIONAL))


class Chunk(NamedTuple):
    """What a callback sees after each chunk.

    Attributes:
      env_steps: done so far.
      steps: in all.
      rows: what went to ``metrics.jsonl``.
      metrics: ``[S, T, ...]``, NumPy.
    """

    env_steps: int
    steps: int
    rows: list[records.Row]
    metrics: dict[str, np.ndarray]


class Result(NamedTuple):
    """What ``run`` returns.

    Attributes:
      run: the state, leaves ``[S, ...]``.
      history: metrics of the chunks that this call ran, leaves ``[S, T, ...]``, NumPy.
      env_steps: environment steps done; fewer than asked for where the run was stopped.
      summary: as in ``summary.json``.
      stopped: the signal that stopped it, ``"SIGTERM"`` or ``"SIGINT"``; empty where it ran to its end.
    """

    run: PyTree
    history: dict[str, np.ndarray]
    env_steps: int
    summary: dict[str, Any]
    stopped: str = ""
