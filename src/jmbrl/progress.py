"""What a person sees while a run goes on: a bar on a terminal, plain lines in a file, nothing when quiet."""

import collections
import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

PLAIN_SECONDS = 10.0  # between two plain lines
RECENT = 5  # chunks by which they guess the time that is left: a warm-up and compiling soon no longer count


class Display(Protocol):
    """Shows a run, or one stage of it after another, each of a known amount of work."""

    def start(self, total: int, done: int, name: str = "training", unit: str = "steps") -> None: ...

    def phase(self, text: str) -> None: ...

    def update(self, done: int, shown: dict[str, float]) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


class Silent:
    """Shows nothing."""

    def start(self, total: int, done: int, name: str = "training", unit: str = "steps") -> None: ...

    def phase(self, text: str) -> None: ...

    def update(self, done: int, shown: dict[str, float]) -> None: ...

    def note(self, text: str) -> None: ...

    def close(self) -> None: ...


class Plain:
    """Lines of text, at most one in ten seconds and one at the end."""

    def __init__(self, file: TextIO, seconds: float = PLAIN_SECONDS):
        self._file, self._seconds = file, seconds
        self._last = -math.inf

    def start(self, total: int, done: int, name: str = "training", unit: str = "steps") -> None:
        self._total = total
        self._marks = collections.deque([(done, time.monotonic())], maxlen=RECENT)
        self._what = unit if name == "training" else f"{unit} of {name}"

    def phase(self, text: str) -> None:
        if text.startswith("compiling"):  # the only one that leaves a person waiting
            self.note(text)

    def update(self, done: int, shown: dict[str, float]) -> None:
        now = time.monotonic()
        first, began = self._marks[0]
        self._marks.append((done, now))
        if now - self._last < self._seconds and done < self._total:
            return
        self._last = now
        rate = (done - first) / max(now - began, 1e-9)
        left = (self._total - done) / rate if rate > 0 else math.inf
        words = [f"{done}/{self._total} {self._what}", *_words(shown), f"{_clock(left)} left"]
        self.note(" | ".join(words))

    def note(self, text: str) -> None:
        print(text, file=self._file, flush=True)

    def close(self) -> None: ...


class Bar:
    """A rich progress bar; compilation shows as a phase of its own."""

    def __init__(self, console: Console):
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TextColumn("{task.fields[shown]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )

    def start(self, total: int, done: int, name: str = "training", unit: str = "steps") -> None:
        self._name = name
        self._task = self._progress.add_task("starting", total=total, completed=done, shown="", unit=unit)
        self._progress.start()

    def phase(self, text: str) -> None:
        if hasattr(self, "_task"):  # compiling comes before the first bar
            self._progress.update(self._task, description=text)

    def update(self, done: int, shown: dict[str, float]) -> None:
        self._progress.update(self._task, completed=done, description=self._name, shown="  ".join(_words(shown)))

    def note(self, text: str) -> None:
        self._progress.console.print(text, highlight=False)

    def close(self) -> None:
        self._progress.stop()


def make(quiet: bool = False, file: TextIO | None = None) -> Display:
    """The display that fits where the text goes; standard error by default, so that output can be piped."""
    if quiet:
        return Silent()
    out: TextIO = sys.stderr if file is None else file
    console = Console(file=out)
    return Bar(console) if console.is_terminal or console.is_jupyter else Plain(out)


class StopFlag:
    """Set by the first SIGTERM or Ctrl-C and looked at between chunks; a second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.reason = ""

    def set(self, reason: str) -> None:
        self.reason = reason
        self._event.set()

    def __bool__(self) -> bool:
        return self._event.is_set()


@contextlib.contextmanager
def stopping() -> Iterator[StopFlag]:
    """Listen for SIGTERM and Ctrl-C inside the block; only possible in the main thread."""
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if flag and number == signal.SIGINT:
            raise KeyboardInterrupt
        flag.set(signal.Signals(number).name)
        # The bar may be in the middle of a line; os-level text keeps the handler free of locks.
        with contextlib.suppress(OSError):
            sys.stderr.write(f"\n{flag.reason}: finishing this chunk and saving (Ctrl-C again ends at once)\n")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class LivePlot:
    """A callback for notebooks: redraws the learning curve after every chunk."""

    def __init__(self, title: str = ""):
        self._title, self._rows = title, []

    def __call__(self, chunk: Any) -> None:
        from IPython.display import clear_output, display

        from jmbrl.diagnostics import figures

        self._rows += chunk.rows
        clear_output(wait=True)
        display(figures.learning_curve(self._rows, self._title))


def size(count: float) -> str:
    """Bytes for people: ``"16.8 MB"``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def amount(count: int) -> str:
    """A large number as a person reads it.

    >>> amount(7_680), amount(7_680_000), amount(115_200_000), amount(1_229_000_000)
    ('7,680', '7.7 million', '115 million', '1.2 billion')
    """
    for unit, name in ((1e9, "billion"), (1e6, "million")):
        if count >= unit:
            return f"{count / unit:.1f} {name}" if count < 9.95 * unit else f"{count / unit:,.0f} {name}"
    return f"{count:,}"


def _words(shown: dict[str, float]) -> list[str]:
    return [f"{name} {value:.4g}" for name, value in shown.items()]


def _clock(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "unknown time"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
