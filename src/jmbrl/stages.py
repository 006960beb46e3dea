"""Systems that learn one thing after another, with files in between: the same runner as for all others.

A staged agent says what its stages are; ``make_staged`` makes a ``Staged`` of it, which looks to the runner as any run:
an initial state, chunks, and how far it is. What it counts is work: episodes in one stage, updates in another.
"""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jmbrl import checks
from jmbrl.lanes import Programs
from jmbrl.train import Span, Train, make_train
from jmbrl.types import Agent, Env, Key, PyTree, Stage


class StagedRun(NamedTuple):
    """``agent``: the agent's state, which is all that a staged run needs to go on beside its files."""

    agent: PyTree


@dataclasses.dataclass(frozen=True)
class Staged:
    """A run of ``steps`` units of work in all. Made by ``make_staged``."""

    env: Env
    agent: Agent
    stages: tuple[Stage, ...]
    num_envs: int = 1
    period: int = 1
    warmup: int = 0
    alone: bool = True  # seeds run one after another: their files are of different lengths

    @property
    def steps(self) -> int:
        return sum(stage.length for stage in self.stages)

    def init(self, key: Key) -> StagedRun:
        """The run before its first stage."""
        return StagedRun(self.agent.init(jax.random.fold_in(checks.key(key), 2**31), self.num_envs))

    def spans(self, periods_per_chunk: int | None = 1) -> list[Span]:
        """The run cut into chunks, each within one stage, whose own ``every`` says how long they are."""
        del periods_per_chunk
        spans, first = [], 0
        for stage in self.stages:
            starts = range(first, first + stage.length, stage.every)
            first += stage.length
            spans += [Span(start, min(stage.every, first - start), False) for start in starts]
        return spans

    def part(self, done: int) -> tuple[Stage, int]:
        """The stage that the next unit of work belongs to (the last one at the end), and the work done before it."""
        first = 0
        for stage in self.stages[:-1]:
            if done < first + stage.length:
                return stage, first
            first += stage.length
        return self.stages[-1], first

    def env_steps(self, done: int) -> int:
        """Steps in the environment that so much work takes, were no episode to end before its time limit."""
        total = 0
        for stage in self.stages:
            units = min(done, stage.length)
            total, done = total + units * stage.env_steps, done - units
        return total

    def programs(self, keys: Key, names: list[int], directory: Path | None, **options: Any) -> Programs:
        return StagedPrograms(self, keys, names, directory, **options)

    def __call__(self, key: Key, run: StagedRun | None = None) -> tuple[StagedRun, dict[str, np.ndarray]]:
        """The whole run ``(run, history)``, files in a temporary folder; a Python loop, not to be compiled.

        ``run``: where it begins, ``init(key)`` by default.
        """
        programs = self.programs(checks.key(key)[None], [0], None)
        try:
            runs = programs.init() if run is None else (jax.tree.map(lambda x: jax.numpy.asarray(x)[None], run),)
            parts = []
            for span in self.spans():
                runs, metrics = programs.chunk(runs, span)
                parts.append({name: values[0] for name, values in metrics.items()})
        finally:
            programs.close()
        names = dict.fromkeys(name for part in parts for name in part)
        history = {name: np.concatenate([part[name] for part in parts if name in part]) for name in names}
        return jax.tree.map(lambda x: x[0], runs[0]), history


class StagedPrograms(Programs):
    """As ``Programs``, with a folder for the files of every seed; chunks are Python around compiled pieces.

    Args:
      train: a ``Staged``.
      keys, names: of the seeds.
      directory: of the run; None: files go to a temporary folder, which ``close`` removes.
    """

    def __init__(self, train: Any, keys: Key, names: list[int], directory: Path | None, **options: Any):
        super().__init__(train, keys, **options)
        self._temporary = tempfile.TemporaryDirectory(prefix="jmbrl-") if directory is None else None
        root = Path(self._temporary.name) if self._temporary else Path(directory or ".") / "data"
        self._folders = [root / f"seed{name}" for name in names]

    def chunk(self, runs: tuple, span: Any) -> tuple[tuple, dict[str, np.ndarray]]:
        stage, first = self.train.part(span.start)
        out, metrics = [], []
        for keys, run, folder in zip(self.keys, runs, self._folders, strict=True):
            state = jax.tree.map(lambda x: x[0], run.agent)
            state, info = stage.advance(self._call, keys[0], state, folder, span.start - first, span.length)
            out.append(StagedRun(jax.tree.map(lambda x: jax.numpy.asarray(x)[None], state)))
            metrics.append(jax.device_get(info))
        return tuple(out), {name: np.stack([m[name] for m in metrics]) for name in metrics[0]}

    def explain(self, runs: tuple, span: Any, lane: int) -> str | None:
        del runs, span, lane
        return "a chunk of a staged run is no single program; see the metric that was named"

    def close(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()


def make_staged(env: Env, agent: Agent, steps: int) -> Staged:
    """A whole run of an agent that learns in stages, for ``runner.run``; ``staged(key)`` runs it at once.

    Args:
      env: the real world.
      agent: with ``stages``.
      steps: environment steps that the stages may take in all, counted as if no episode ended early.

    Raises:
      ValueError: an agent without stages, or what its stages refuse.
    """
    if agent.stages is None:
        raise ValueError("agent has no stages: use make_train, or make_run for both kinds")
    return Staged(env, agent, agent.stages(env, checks.integer("steps", steps, 1, 2**31 - 1)))


def make_run(env: Env, agent: Agent, steps: int, num_envs: int = 1) -> Train | Staged:
    """``make_train`` or ``make_staged``, as the agent needs.

    Raises:
      ValueError: as these, and ``num_envs`` for an agent whose stages choose their copies themselves.
    """
    if agent.stages is None:
        return make_train(env, agent, steps, num_envs)
    if num_envs != 1:
        raise ValueError(f"num_envs must be 1 for a system of stages, which has a setting of its own, got {num_envs}")
    return make_staged(env, agent, steps)
