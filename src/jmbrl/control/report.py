"""What a control run was like: rows, lateness, what acted instead, and how old the weights were."""

import collections
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from jmbrl import data
from jmbrl.control.learner import Learned
from jmbrl.types import PyTree, Spec

#: Why the agent's action was not applied.
FALLBACKS = ("late", "busy", "observation", "action")


class Tick(NamedTuple):
    """One control period.

    Attributes:
      time: its beginning, in the clock's seconds.
      obs, action, reward, next_obs, terminated, truncated: the row, the action in the plant's own units.
      by: who acted: ``"agent"``; ``"random"`` in the warm-up; else why the fallback did: the plan was ``"late"``, the
        planner ``"busy"`` with an earlier observation, the ``"observation"`` or the agent's ``"action"`` not finite.
      age: periods of experience that the acting weights have not seen.
    """

    time: float
    obs: np.ndarray
    action: np.ndarray
    reward: float
    next_obs: np.ndarray
    terminated: bool
    truncated: bool
    by: str
    age: int


@dataclasses.dataclass(frozen=True)
class Report:
    """The outcome of ``control.run``; ``print`` it for a table.

    Attributes:
      ticks: the control periods, in the order of time.
      returns: of the episodes that ended; rewards that were not finite are left out.
      lengths: of the same, in periods.
      planning: seconds of every plan that was finished, late ones too.
      overruns: periods that the loop itself did not keep (a slow plant or log): the next began late.
      period, deadline: in seconds.
      spec: the plant's.
      state: the agent's, with what was learned.
      learned: what became of learning; None where nothing was to be learned.
      interrupted: whether it was ended by Ctrl-C.
    """

    ticks: list[Tick]
    returns: list[float]
    lengths: list[int]
    planning: np.ndarray
    overruns: int
    period: float
    deadline: float
    spec: Spec
    state: PyTree
    learned: Learned | None
    interrupted: bool

    @property
    def fallbacks(self) -> dict[str, int]:
        """How often the fallback acted, by its reason."""
        count = collections.Counter(tick.by for tick in self.ticks)
        return {reason: count[reason] for reason in FALLBACKS}

    @property
    def late(self) -> int:
        """Periods in which no plan was ready at the deadline."""
        return self.fallbacks["late"] + self.fallbacks["busy"]

    def summary(self) -> dict[str, Any]:
        """The numbers of the table, by name; NaN where there is none."""
        shares = np.percentile(1e3 * self.planning, (50, 95, 99)) if len(self.planning) else np.full(3, np.nan)
        ages = np.asarray([tick.age for tick in self.ticks] or [0])
        found: dict[str, Any] = {"ticks": len(self.ticks), "late": self.late}
        found |= {f"fallback, {reason}": count for reason, count in self.fallbacks.items()}
        found |= dict(zip(("plan p50 (ms)", "plan p95 (ms)", "plan p99 (ms)"), shares.tolist(), strict=True))
        found |= {"overruns": self.overruns, "episodes": len(self.returns)}
        found["mean return"] = float(np.mean(self.returns)) if self.returns else float("nan")
        if self.learned is not None:
            found |= {"weight age, mean (ticks)": float(ages.mean()), "weight age, most": int(ages.max())}
            found |= {name: getattr(self.learned, name) for name in ("updates", "merged", "published", "refused")}
            found |= {"learner": self.learned.error or "well"}
        return found

    def __str__(self) -> str:
        text = lambda value: f"{value:.4g}" if isinstance(value, float) else str(value)  # noqa: E731
        found = {"period / deadline (ms)": f"{1e3 * self.period:.4g} / {1e3 * self.deadline:.4g}", **self.summary()}
        width = max(map(len, found))
        return "\n".join(f"{name:<{width}}  {text(value)}" for name, value in found.items())

    def log(self) -> data.Log:
        """The rows as logged data, to be fitted, saved (``data.save_npz``) or judged; broken ones are left out.

        Raises:
          ValueError: there is no row to keep.
        """
        rows = [tick for tick in self.ticks if _finite(tick)]
        if not rows:
            raise ValueError("log needs at least one finite row, got none")
        column = lambda name: np.stack([np.asarray(getattr(row, name)) for row in rows])  # noqa: E731
        names = ("obs", "action", "reward", "next_obs", "terminated", "truncated")
        columns: dict[str, Any] = {name: column(name) for name in names}
        return data.from_log(**columns, spec=self.spec)


def _finite(tick: Tick) -> bool:
    return all(bool(np.all(np.isfinite(x))) for x in (tick.obs, tick.action, tick.reward, tick.next_obs))


class ControlError(RuntimeError):
    """The plant, the log or the agent raised; the plant was stopped. ``report`` holds what was until then."""

    def __init__(self, message: str, report: Report):
        super().__init__(message)
        self.report = report
