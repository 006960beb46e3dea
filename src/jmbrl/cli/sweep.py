"""``jmbrl sweep``: a grid of settings.

Seeds and arrays run side by side in one program, cells of ``--set`` in a pool of processes.
"""

import argparse
import concurrent.futures
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jmbrl import checks

Cell = dict[str, str]


def add_commands(commands: Any) -> None:
    from jmbrl.cli.training import add_run

    sweep = commands.add_parser("sweep", help="train over a grid: --set key=a,b,c")
    add_run(sweep)
    sweep.add_argument("--seed", type=int, default=0, help="the first seed (0)")
    sweep.add_argument("--out", required=True, help="directory of the sweep; one run below it for each cell")
    sweep.add_argument(
        "--array", action="append", metavar="KEY=A,B,C", help="real numbers inside one program, all at once"
    )
    sweep.add_argument("--jobs", type=int, default=1, help="processes at a time (1)")
    sweep.add_argument("--launcher", default="local", help="local, or submitit for Slurm (local)")
    sweep.add_argument(
        "--slurm", action="append", metavar="KEY=VALUE", help="a submitit parameter: slurm_partition=gpu"
    )
    sweep.set_defaults(command=sweep_command)


def sweep_command(arguments: argparse.Namespace) -> int:
    from jmbrl import configs
    from jmbrl.writers import write_json

    checks.integer("jobs", arguments.jobs, low=1)
    checks.choice("launcher", arguments.launcher, ("local", "submitit"))
    cells, out = list(grid(arguments.set or [])), Path(arguments.out)
    arrays = list(grid(arguments.array or []))
    made = {}
    for cell in cells:  # every mistake shows before the first process starts
        for values in arrays:
            whole = cell | values
            made[name_of(whole)] = configs.make(
                arguments.system,
                arguments.env,
                steps=arguments.steps,
                seed=arguments.seed,
                seeds=arguments.seeds,
                num_envs=arguments.num_envs,
                preset=arguments.preset,
                settings=[f"{name}={value}" for name, value in whole.items()],
                env_options=configs.parse_options(arguments.env_set),
            )
    out.mkdir(parents=True, exist_ok=True)
    if arguments.array:
        failed = _side_by_side(cells, arrays, made, out)
    else:
        jobs = [command_of(arguments, cell, out / name_of(cell)) for cell in cells]
        launch = _launch_local if arguments.launcher == "local" else _launch_submitit
        failed = launch(jobs, arguments, out)
    table = [row_of(cell | values, out / name_of(cell | values)) for cell in cells for values in arrays]
    write_json(out / "sweep.json", table)
    print(text_of(table))
    return 1 if failed else 0


def _side_by_side(cells: list[Cell], arrays: list[Cell], made: dict[str, dict], out: Path) -> int:
    """Each cell of ``--set`` is one program of all its arrays; what is finished is left alone."""
    from jmbrl.cli import sweep_arrays

    for cell in cells:
        names = [name_of(cell | values) for values in arrays]
        lanes = [sweep_arrays.cell_of(made[n], v, out / n) for n, v in zip(names, arrays, strict=True)]
        left = [lane for lane in lanes if not sweep_arrays.finished(lane)]
        if left:
            sweep_arrays.train_cells(left)
    return 0


def grid(settings: list[str]) -> Iterator[Cell]:
    """The product of all ``key=a,b,c``; commas inside brackets separate nothing: ``hidden=(64,64),(200,)``."""
    from jmbrl.configs import split_setting

    pairs = [split_setting(text) for text in settings]
    choices = [[(name, value) for value in split_values(text)] for name, text in pairs]
    for combination in itertools.product(*choices):
        yield dict(combination)


def split_values(text: str) -> list[str]:
    """Cut at the commas outside of brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def name_of(cell: Cell) -> str:
    """A directory's name for a cell."""
    return re.sub(r"[^A-Za-z0-9_.=,+-]+", "_", ",".join(f"{k}={v}" for k, v in cell.items())) or "default"


def command_of(arguments: argparse.Namespace, cell: Cell, directory: Path) -> list[str]:
    """What to run for a cell: nothing where it is finished, ``resume`` where it was begun, else ``train``."""
    from jmbrl.runner import holds_run

    python = [sys.executable, "-m", "jmbrl"]
    if _finished(directory, arguments.steps):
        return []
    if holds_run(directory) and (directory / "config.json").exists():
        return [*python, "resume", str(directory), "--steps", str(arguments.steps)]
    command = [*python, "train", arguments.system, "--env", arguments.env, "--out", str(directory)]
    for name in ("steps", "seed", "seeds", "num_envs"):
        command += ["--" + name.replace("_", "-"), str(getattr(arguments, name))]
    if arguments.preset:
        command += ["--preset", arguments.preset]
    for name, value in cell.items():
        command += ["--set", f"{name}={value}"]
    for text in arguments.env_set or []:
        command += ["--env-set", text]
    return command


def _finished(directory: Path, steps: int) -> bool:
    path = directory / "summary.json"
    if not path.exists():
        return False
    summary = json.loads(path.read_text())
    return summary["ended"] == "finished" and summary["env_steps"] == steps


def _launch_local(jobs: list[list[str]], arguments: argparse.Namespace, out: Path) -> int:
    """Run the commands, ``--jobs`` at a time; returns how many failed."""
    # Several processes on one accelerator must not each reserve most of its memory.
    extra = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if arguments.jobs > 1 else {}
    environment = os.environ | extra
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        return sum(pool.map(lambda job: _run_job(job, environment, out), jobs))


def _run_job(command: list[str], environment: dict[str, str], out: Path) -> int:
    if not command:
        return 0
    place = next(Path(word) for word in command if word.startswith(str(out)))
    log = out / f"{place.name}.log"
    print(f"{place.name}: log in {log}", file=sys.stderr)
    with open(log, "ab") as file:
        status = subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT).returncode
    if status:
        print(f"{place.name}: failed with status {status}, see {log}", file=sys.stderr)
    return int(status != 0)


def _launch_submitit(jobs: list[list[str]], arguments: argparse.Namespace, out: Path) -> int:
    """Hand the commands to Slurm and wait; returns how many failed."""
    from jmbrl.configs import parse_options

    try:
        import submitit
    except ImportError:
        raise ValueError("launcher submitit needs the package submitit: `pip install submitit`") from None
    executor = submitit.AutoExecutor(folder=str(out / "submitit"))
    executor.update_parameters(slurm_array_parallelism=arguments.jobs, **parse_options(arguments.slurm))
    with executor.batch():
        submitted = [executor.submit(subprocess.run, job, check=True) for job in jobs if job]
    failed = 0
    for job in submitted:
        error = job.exception()
        if error is not None:
            print(f"job {job.job_id} failed: {error}", file=sys.stderr)
            failed += 1
    return failed


def row_of(cell: Cell, directory: Path) -> dict[str, Any]:
    """A cell's row: its settings and, where there is a summary, the final return of each seed."""
    path = directory / "summary.json"
    summary = json.loads(path.read_text()) if path.exists() else {}
    known = [value for value in summary.get("final_return", []) if value is not None]
    mean = sum(known) / len(known) if known else None
    return {
        "cell": cell,
        "directory": directory.name,
        "ended": summary.get("ended", "failed"),
        "env_steps": summary.get("env_steps"),
        "final_return": summary.get("final_return"),
        "mean": mean,
    }


def text_of(table: list[dict[str, Any]]) -> str:
    """The table in plain text, best mean first."""
    lines = [f"{'mean':>12}  {'seeds':24}  cell"]
    for row in sorted(table, key=lambda row: float("inf") if row["mean"] is None else -row["mean"]):
        mean = "none" if row["mean"] is None else f"{row['mean']:.4g}"
        seeds = " ".join("none" if value is None else f"{value:.4g}" for value in row["final_return"] or [])
        lines.append(f"{mean:>12}  {seeds or row['ended']:24}  {row['directory']}")
    return "\n".join(lines)
