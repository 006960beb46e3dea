"""What the command line knows of a named system: its settings and how to make it."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jmbrl import envs
from jmbrl.types import Env


def as_is(env: Env, config: Any) -> Env:
    del config
    return env


def stacked(env: Env, config: Any) -> Env:
    """The last ``config.frames`` observations as one."""
    return env if config.frames == 1 else envs.frame_stack(env, config.frames)


def numbered_actions(env: Env, config: Any) -> Env:
    """Continuous actions as the numbers of a grid of ``config.action_bins`` per dimension; None: as they are."""
    return env if config.action_bins is None else envs.number_actions(env, config.action_bins)


class System(NamedTuple):
    """A named system.

    Attributes:
      name: as in ``jmbrl train NAME``.
      config: a frozen dataclass of settings; its defaults are the paper's where it names them.
      make: ``(env, config) -> Agent``.
      summary: one line.
      wrap: ``(env, config) -> Env``, what the environment is wrapped in first (the true state for a simulator).
      tables: ``(state, config) -> agents.tabular.Learned``, values and the learned table, for pictures; None where a
        system has no tables.
      cost: ``(env, config, steps, num_envs) -> str``, one line that says before a run how much learning it holds, for
        systems whose settings hide it (a train ratio); None: nothing is said.
    """

    name: str
    config: type
    make: Callable[[Env, Any], Any]
    summary: str
    wrap: Callable[[Env, Any], Env] = as_is
    tables: Callable[[Any, Any], Any] | None = None
    cost: Callable[[Env, Any, int, int], str] | None = None
