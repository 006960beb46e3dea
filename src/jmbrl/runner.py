"""The Python loop around a run: compile, run chunk by chunk, log, save, stop, resume.

    result = run(make_train(env, agent, 2_000), 0, "runs/first", seeds=4)

Everything that a run computes lies in ``train.chunk``; what is here only looks between the chunks, so a run
gives the same bits with or without it, however it is chunked, stopped or killed and resumed.
"""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jmbrl import configs, devices, policy, progress
from jmbrl.checkpoint import CheckpointError, Checkpoints
from jmbrl.lanes import seed_keys, together
from jmbrl.options import Chunk, Options, Result
from jmbrl.session import Session, holds_run
from jmbrl.types import Env, Key, PyTree

__all__ = ["Chunk", "Opened", "Options", "Result", "holds_run", "load_policy", "open_run", "run"]


def run(
    train: Any,
    seed: int | Key,
    directory: str | Path | None = None,
    *,
    seeds: int = 1,
    config: dict | None = None,
    resume: bool = False,
    eval_env: Env | None = None,
    callbacks: Sequence[Callable[[Chunk], None]] = (),
    options: Options | None = None,
    note: str | None = None,
) -> Result:
    """Train, seeds side by side, and keep everything in a directory.

    Args:
      train: from ``make_train``.
      seed: the first seed, in ``[0, 2**32)``: lane ``i`` runs seed ``seed + i``; or a key to be split, or keys ``[S]``.
      directory: where checkpoints, metrics, summary and figure go; None keeps nothing.
      seeds: how many.
      config: what to write to ``config.json``; a run resumes only under the same one.
      resume: go on from the newest intact checkpoint; without it a directory that holds a run is refused.
      eval_env: another environment for evaluation; ``train.env`` by default, which a host environment cannot be.
      callbacks: called with a ``Chunk`` between chunks.
      options: how to run; ``Options()`` by default.
      note: a line to show first, such as what the run will cost.

    Returns:
      The state, also when SIGTERM or Ctrl-C stopped it: the chunk is finished and saved first.

    Raises:
      ValueError: the directory holds a run, or one made with another configuration.
      CheckpointError: another process writes to the directory, or no checkpoint in it is intact.
      DivergedError: a seed's updates or data stayed non-finite; the newest checkpoint is from before.
    """
    options = Options() if options is None else options
    keys, names = seed_keys(seed, seeds)
    if options.eval_every and eval_env is None and train.env.spec.host:
        # Its copies are limited in number, and evaluation would take over those of a seed in training.
        raise ValueError(f"eval_env must be a second {train.env.spec.name}: it runs on the host, got None")
    with contextlib.ExitStack() as stack:
        display = progress.make(options.quiet or not devices.first())
        stack.callback(display.close)
        loop = Session(train, keys, names, directory, config, eval_env or train.env, callbacks, options, display)
        stack.callback(loop.close)
        stop = stack.enter_context(progress.stopping())
        if note is not None:
            display.note(note)
        loop.start(resume)
        reason = ""
        for span in loop.spans():
            loop.advance(span)
            if devices.any_process(bool(stop)):
                reason = stop.reason or "SIGTERM"  # which another process was told
                display.note(f"stopped by {reason} at step {loop.done}")
                break
        return loop.finish(reason)


class Opened(NamedTuple):
    """A run as it lies on disk.

    Attributes:
      config: of ``config.json``.
      env, agent, train: made from it.
      run: the state of every seed, leaves ``[S, ...]``; ``one(seed)`` takes one.
      seeds: their names.
      env_steps: where the checkpoint stands.
      work: the same as the checkpoints count it, which differs for systems that learn in stages.
    """

    config: dict[str, Any]
    env: Env
    agent: Any
    train: Any
    run: PyTree
    seeds: list[int]
    env_steps: int
    work: int

    def one(self, seed: int | None = None) -> PyTree:
        """The run of one seed, the first by default."""
        if seed is not None and seed not in self.seeds:
            raise ValueError(f"seed must be one of {self.seeds}, got {seed}")
        lane = 0 if seed is None else self.seeds.index(seed)
        return jax.tree.map(lambda x: x[lane], self.run)


def open_run(directory: str | Path) -> Opened:
    """The newest intact checkpoint of a run that the command line made, read only; the run may still go on.

    Raises:
      ValueError: no run there.
      CheckpointError: no checkpoint yet, or none is intact.
    """
    opened, runs = _open(directory)
    return opened._replace(run=together(runs))


def load_policy(
    directory: str | Path,
    seed: int | None = None,
    *,
    env: Env | None = None,
    agent: Any = None,
    explore: bool = False,
) -> policy.Policy:
    """A trained agent to act with: ``policy.act(obs)`` takes and gives NumPy in the environment's own units.

    Args:
      directory: of the run.
      seed: which of its seeds; the first by default.
      env, agent: as trained; needed only where ``run`` was called from Python and ``config.json`` names no system.
      explore: act as in training.

    Raises:
      ValueError: no run there, an unknown seed, or an agent of another shape.

    Where the newest checkpoint is newer than the export (a run that goes on or was killed), that is exported first.
    """
    if env is None or agent is None:
        built = configs.build(configs.read(directory))
        env, agent = built.env, built.agent
        _bring_up_to_date(directory)
    return policy.load(directory, seed, env=env, agent=agent, explore=explore)


def _bring_up_to_date(directory: str | Path) -> None:
    facts, folder = policy.read_facts(directory), Path(directory) / "checkpoints"
    if folder.is_dir():
        with Checkpoints(folder, read_only=True) as checkpoints:
            newest = max(checkpoints.steps(), default=-1)
        if newest > (facts.get("work", facts["env_steps"]) if facts else -1):
            opened, runs = _open(directory)
            policy.export(directory, opened.train, runs, opened.seeds, opened.work)


def _open(directory: str | Path) -> tuple[Opened, tuple]:
    config = configs.read(directory)
    built = configs.build(config)
    keys, names = seed_keys(config["seed"], config["seeds"])
    with Checkpoints(Path(directory) / "checkpoints", read_only=True) as checkpoints:
        restored = checkpoints.restore(built.train.programs(keys, names, Path(directory)).abstract())
    if restored is None:
        raise CheckpointError(f"{directory} holds no checkpoint yet")
    step, runs, _ = restored
    env_steps = built.train.env_steps(step)
    return Opened(config, built.env, built.agent, built.train, None, names, env_steps, step), runs
