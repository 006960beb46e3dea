"""The ``jmbrl`` command. ``jmbrl COMMAND --help`` explains each; every mistake is one sentence on standard error."""

import argparse
import logging
import os
import signal
import sys
import warnings
from typing import Any

WRONG_INPUT, FAILED = 2, 1


def main(argv: list[str] | None = None) -> int:
    """Run the command and return its exit status: 0, 2 for a wrong argument, 1 for a failed run, 128 + n for a
    signal (the run is saved then)."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] != ["bench"] or "world_models" in words:  # other benchmarks show NumPy's own rate, on all cores
        # Before jax loads it: its threads wait for each other on small matrices, up to 100 times as long as one takes.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    arguments = parser().parse_args(argv)
    warnings.showwarning = _one_line
    logging.getLogger("absl").setLevel(logging.ERROR)  # orbax tells its own options there
    from jmbrl import cache
    from jmbrl.checkpoint import CheckpointError
    from jmbrl.types import DivergedError

    cache.enable()
    try:
        return arguments.command(arguments) or 0
    except (ValueError, CheckpointError) as error:
        return _fail(error, WRONG_INPUT, arguments)
    except (DivergedError, MemoryError) as error:
        return _fail(error, FAILED, arguments)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # `jmbrl list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    from jmbrl import __version__
    from jmbrl.cli import render, sweep, tools, training

    top = argparse.ArgumentParser(prog="jmbrl", description="Model-based reinforcement learning in JAX.")
    top.add_argument("--version", action="version", version=f"jmbrl {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for module in (training, render, tools, sweep):
        module.add_commands(commands)
    return top


def _fail(error: Exception, status: int, arguments: argparse.Namespace) -> int:
    if getattr(arguments, "debug", False):
        raise error
    print(f"error: {error}", file=sys.stderr)
    return status


def _one_line(message: Any, category: type, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
    print(f"warning: {message}", file=file or sys.stderr)
