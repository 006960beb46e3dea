"""Time for the control loop: the machine's own, or a scripted one in which lateness can be repeated.

A clock also runs work beside the loop, as only it knows when that is ready. Each lane (``"plan"``, ``"learn"``) does
one job after another.
"""

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

from jmbrl import checks


class Job(Protocol):
    """Work under way."""

    def done(self) -> bool:
        """Whether it is finished, with a result or an exception."""
        ...

    def result(self) -> Any:
        """What it returned; raises what it raised. To be called once it is done."""
        ...

    def seconds(self) -> float:
        """How long it took; NaN while it is not done."""
        ...


class Clock(Protocol):
    """What the loop asks of time; seconds from an arbitrary origin."""

    def now(self) -> float: ...

    def sleep_until(self, moment: float) -> None:
        """Return at ``moment``, at once where it has passed."""
        ...

    def submit(self, lane: str, work: Callable[[], Any]) -> Job:
        """Begin ``work`` in a lane, behind what was submitted to it before."""
        ...

    def wait(self, job: Job, until: float) -> bool:
        """Return when the job is done, at ``until`` at the latest; whether it was done by then."""
        ...

    def close(self) -> None:
        """Take no more work."""
        ...


class _Threaded:
    def __init__(self, executor: ThreadPoolExecutor, work: Callable[[], Any]):
        self._spent = math.nan

        def timed() -> Any:
            began = time.monotonic()
            try:
                return work()
            finally:
                self._spent = time.monotonic() - began

        self.future: Future = executor.submit(timed)

    def done(self) -> bool:
        return self.future.done()

    def result(self) -> Any:
        return self.future.result()

    def seconds(self) -> float:
        return self._spent


class RealClock:
    """The machine's monotonic clock; a thread a lane."""

    def __init__(self) -> None:
        self._lanes: dict[str, ThreadPoolExecutor] = {}

    def now(self) -> float:
        return time.monotonic()

    def sleep_until(self, moment: float) -> None:
        time.sleep(max(0.0, moment - self.now()))

    def submit(self, lane: str, work: Callable[[], Any]) -> Job:
        if lane not in self._lanes:
            self._lanes[lane] = ThreadPoolExecutor(1, f"jmbrl-{lane}")
        return _Threaded(self._lanes[lane], work)

    def wait(self, job: Job, until: float) -> bool:
        assert isinstance(job, _Threaded)
        wait([job.future], None if math.isinf(until) else max(0.0, until - self.now()))
        return job.done()

    def close(self) -> None:
        for executor in self._lanes.values():
            executor.shutdown(wait=False, cancel_futures=True)
        self._lanes.clear()


class _Scripted:
    def __init__(self, clock: "SimulatedClock", began: float, duration: float, work: Callable[[], Any]):
        self._clock, self.finish, self._duration = clock, began + duration, duration
        self._value, self._error = None, None
        try:
            self._value = work()
        except Exception as error:
            self._error = error

    def done(self) -> bool:
        return self.finish <= self._clock.now()

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value

    def seconds(self) -> float:
        return self._duration if self.done() else math.nan


class SimulatedClock:
    """Time that passes only where it is told to: the same run twice is late at the same ticks.

    Work is done when it is submitted and shown as ready after its scripted time.

    Args:
      durations: seconds that a lane's jobs take: a number, or ``(i) -> seconds`` of its ``i``-th job; 0 for lanes that
        are not named.

    >>> clock = SimulatedClock(plan=lambda i: 0.3 if i == 0 else 0.1)
    >>> job = clock.submit("plan", lambda: "left")
    >>> clock.wait(job, 0.2), clock.wait(job, 0.5), clock.now(), job.result()
    (False, True, 0.3, 'left')
    """

    def __init__(self, **durations: float | Callable[[int], float]):
        self._durations: Mapping[str, Any] = durations
        self._count: dict[str, int] = {}
        self._free: dict[str, float] = {}
        self._now = 0.0

    def now(self) -> float:
        return self._now

    def sleep_until(self, moment: float) -> None:
        self._now = max(self._now, moment)

    def submit(self, lane: str, work: Callable[[], Any]) -> Job:
        i = self._count.get(lane, 0)
        self._count[lane] = i + 1
        told = self._durations.get(lane, 0.0)
        duration = checks.number(f"{lane}'s duration", told(i) if callable(told) else told, 0.0)
        job = _Scripted(self, max(self._now, self._free.get(lane, 0.0)), float(duration), work)
        self._free[lane] = job.finish
        return job

    def wait(self, job: Job, until: float) -> bool:
        assert isinstance(job, _Scripted)
        self.sleep_until(min(job.finish, until))
        return job.done()

    def close(self) -> None:
        """Nothing to end."""
