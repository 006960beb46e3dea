"""``jmbrl train``, ``resume`` and ``evaluate``."""

import argparse
import json
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

SHOWN_EPISODES = 20
OPTIONS = {  # attributes of runner.Options that have a flag of the same name
    "checkpoint_seconds": (float, "seconds between checkpoints, 0: after every chunk (60)"),
    "keep": (int, "checkpoints kept (2)"),
    "periods_per_chunk": (int, "outermost periods between two looks (about 1000 steps)"),
    "eval_every": (int, "environment steps between evaluations without exploration, 0: none (0)"),
    "eval_episodes": (int, "episodes of each evaluation (10)"),
}


def add_commands(commands: Any) -> None:
    train = commands.add_parser("train", help="train a system on an environment")
    add_run(train)
    train.add_argument("--seed", type=int, default=0, help="the first seed; with --seeds K the others count up (0)")
    train.add_argument("--out", help="directory of the run (runs/SYSTEM-ENV-sSEED)")
    train.add_argument("--fresh", action="store_true", help="remove the run that is in the directory first")
    add_options(train)
    train.set_defaults(command=train_command)

    resume = commands.add_parser("resume", help="go on with a run, bit for bit")
    resume.add_argument("dir")
    resume.add_argument("--steps", type=int, help="a new total, to train for longer")
    add_options(resume)
    resume.set_defaults(command=resume_command)

    evaluate = commands.add_parser("evaluate", help="run episodes without exploration and print their returns as JSON")
    evaluate.add_argument("dir")
    evaluate.add_argument("--episodes", type=int, default=10, help="of each seed (10)")
    evaluate.add_argument("--seed", type=int, help="one seed of the run (all)")
    evaluate.add_argument("--opponent", help="of a game that the run played with itself: random (random), perfect")
    evaluate.add_argument("--key", type=int, default=0, help="seed of the evaluation itself (0)")
    evaluate.set_defaults(command=evaluate_command)


def add_run(command: argparse.ArgumentParser) -> None:
    """What ``train`` and ``sweep`` share."""
    command.add_argument("system", help="see `jmbrl list`")
    command.add_argument("--env", required=True, help="gymnax:NAME, brax:NAME, gymnasium:NAME, or a native name")
    command.add_argument("--steps", type=int, required=True, help="environment steps in all, warm-up included")
    command.add_argument("--seeds", type=int, default=1, help="seeds side by side in one program (1)")
    command.add_argument("--num-envs", type=int, default=1, help="environments side by side for each seed (1)")
    command.add_argument("--preset", help="settings by name; chosen by the environment, `none` for bare defaults")
    command.add_argument("--set", action="append", metavar="KEY=VALUE", help="a setting of the system")
    command.add_argument("--env-set", action="append", metavar="KEY=VALUE", help="an option of the environment")


def add_options(command: argparse.ArgumentParser) -> None:
    """How to run; ``resume`` takes those of the run where none is given."""
    for name, (kind, text) in OPTIONS.items():
        command.add_argument("--" + name.replace("_", "-"), type=kind, help=text)
    command.add_argument("--writer", action="append", help="tensorboard or wandb, beside metrics.jsonl")
    command.add_argument("--mesh", metavar="AXIS=N,...", help="devices by axis: seed=2,row=4 (seeds over all of them)")
    command.add_argument("--coordinator", help="HOST:PORT of the first of several processes, or auto on a cluster")
    command.add_argument("--processes", type=int, help="how many; each is started by a command of its own")
    command.add_argument("--process", type=int, help="which one this is, from 0")
    command.add_argument("--quiet", action="store_true", help="print nothing but errors")
    command.add_argument("--debug", action="store_true", help="on divergence name the primitive; full tracebacks")
    command.add_argument("--keep-going", action="store_true", help="warn of a diverged seed instead of stopping")


def train_command(arguments: argparse.Namespace) -> int:
    from jmbrl import configs, devices

    _join(arguments)
    config = configs.make(
        arguments.system,
        arguments.env,
        steps=arguments.steps,
        seed=arguments.seed,
        seeds=arguments.seeds,
        num_envs=arguments.num_envs,
        preset=arguments.preset,
        settings=arguments.set,
        env_options=configs.parse_options(arguments.env_set),
        options=_options(arguments),
    )
    directory = Path(arguments.out or default_directory(config))
    if arguments.fresh:
        devices.first_only(remove_run, directory)
    return _run(config, directory, arguments, resume=False)


def resume_command(arguments: argparse.Namespace) -> int:
    from jmbrl import configs

    _join(arguments)
    config = configs.read(arguments.dir)
    config["options"] = config["options"] | _options(arguments)
    if arguments.steps is not None:
        config["steps"] = arguments.steps
    config["versions"] = configs.versions()
    return _run(config, Path(arguments.dir), arguments, resume=True)


def _run(config: dict[str, Any], directory: Path, arguments: argparse.Namespace, resume: bool) -> int:
    from jmbrl import configs, devices, runner

    saved: dict[str, Any] = config["options"]
    kept: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in saved.items()}
    options = runner.Options(**kept, quiet=arguments.quiet, debug=arguments.debug)
    built = configs.build(config)
    eval_env = None
    if options.eval_every:  # a host environment must not be evaluated in the copy that is being trained in
        # Both sides of a game have no score: it is measured against chance.
        eval_env = configs.make_env(config, **({"opponent": "random"} if built.env.spec.players == 2 else {}))
    result = runner.run(
        built.train,
        config["seed"],
        directory,
        seeds=config["seeds"],
        config=config,
        resume=resume,
        eval_env=eval_env,
        options=options,
        note=configs.cost(config, built.env),
    )
    if not arguments.quiet and devices.first():
        _report(result, directory)
    if result.stopped:
        print(f"go on with: jmbrl resume {directory}", file=sys.stderr)
        return 128 + signal.Signals[result.stopped]
    return 0


def _join(arguments: argparse.Namespace) -> None:
    """The other processes of the run, where there are any; before JAX looks for its devices."""
    from jmbrl import devices

    if arguments.coordinator is not None:
        devices.start(arguments.coordinator, arguments.processes, arguments.process)
    elif (arguments.processes, arguments.process) != (None, None):
        raise ValueError("processes and process need coordinator, the HOST:PORT of the first process")


def _report(result: Any, directory: Path) -> None:
    summary = result.summary
    returns = ", ".join("none" if value is None else f"{value:.4g}" for value in summary["final_return"])
    print(f"{summary['ended']} at step {summary['env_steps']} in {summary['wall_seconds']:.1f} s", file=sys.stderr)
    print(f"final return of each seed: {returns} ({summary['final_return_is']})", file=sys.stderr)
    _table(directory, summary)
    print(f"kept in {directory}; learning curve: {directory / 'learning_curve.png'}", file=sys.stderr)


def _table(directory: Path, summary: dict[str, Any]) -> None:
    """The last returns of every seed, an episode a line."""
    from rich.console import Console
    from rich.table import Table

    from jmbrl import writers

    rows = [row for row in writers.read_rows(directory / "metrics.jsonl") if row.get("episode_return") is not None]
    of_seed = {seed: [row for row in rows if row["seed"] == seed] for seed in summary["seeds"]}
    shortest = min(map(len, of_seed.values()))
    table = Table("episode", *(f"seed {seed}" for seed in of_seed), title="return of each episode")
    for episode in range(max(0, shortest - SHOWN_EPISODES), shortest):
        table.add_row(str(episode + 1), *(f"{mine[episode]['episode_return']:.1f}" for mine in of_seed.values()))
    if shortest:
        Console(stderr=True).print(table)


def evaluate_command(arguments: argparse.Namespace) -> int:
    import jax
    import numpy as np

    from jmbrl import checks, configs, policy, runner
    from jmbrl.rollout import evaluate

    config = configs.read(arguments.dir)
    built = configs.build(config)
    episodes = checks.integer("episodes", arguments.episodes, low=1)
    env = built.env
    if env.spec.players == 2:
        env = configs.make_env(config, opponent=arguments.opponent or "random")
    elif arguments.opponent:
        raise ValueError(f"opponent is for games of two, but the run's {env.spec.name} has one player")
    names = [config["seed"] + i for i in range(config["seeds"])]
    chosen = names if arguments.seed is None else [arguments.seed]
    runner.load_policy(arguments.dir)  # brings the export up to date
    found: dict[str, list] = {"returns": [], "lengths": []}
    for seed in chosen:
        trained = policy.load(arguments.dir, seed, env=built.env, agent=built.agent)

        def play(key: Any, leaves: Any, trained: policy.Policy = trained) -> dict:
            result = evaluate(key, env, built.agent, trained.state(leaves), episodes)
            return {"returns": result["returns"], "lengths": result["lengths"]}

        result = jax.device_get(jax.jit(play)(checks.key(arguments.key), trained.leaves))
        for name, values in result.items():
            found[name].append(values.tolist())
    facts = policy.read_facts(arguments.dir) or {}
    answer = {
        "system": config["system"],
        "env": config["env"],
        "env_steps": facts.get("env_steps"),
        "episodes": episodes,
        "seeds": chosen,
        "mean_return": [float(np.mean(values)) for values in found["returns"]],
        "std_return": [float(np.std(values)) for values in found["returns"]],
        **found,
    }
    print(json.dumps(answer))
    return 0


def default_directory(config: dict[str, Any]) -> str:
    env = re.sub(r"[^A-Za-z0-9_.-]+", "_", config["env"])
    return f"runs/{config['system']}-{env}-s{config['seed']}"


def remove_run(directory: Path) -> None:
    """Remove what a run left in a directory, and nothing else.

    Raises:
      CheckpointError: a process is writing there.
    """
    from jmbrl.checkpoint import Checkpoints

    if (directory / "checkpoints").is_dir():
        Checkpoints(directory / "checkpoints").close()
    for name in ("checkpoints", "policy", "tensorboard", "render"):
        shutil.rmtree(directory / name, ignore_errors=True)
    files = (
        "config.json",
        "metrics.jsonl",
        "summary.json",
        "learning_curve.png",
        "diagnostics.json",
        "diagnostics.png",
    )
    for name in files:
        (directory / name).unlink(missing_ok=True)


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that were given; the others keep their defaults."""
    given = {name: getattr(arguments, name) for name in OPTIONS if getattr(arguments, name) is not None}
    if arguments.writer:
        given["writers"] = arguments.writer
    if arguments.mesh:
        given["mesh"] = parse_mesh(arguments.mesh)
    if arguments.keep_going:
        given["keep_going"] = True
    return given


def parse_mesh(text: str) -> dict[str, int]:
    """``"seed=2,row=4"`` as a dictionary."""
    pairs = [part.partition("=")[::2] for part in text.split(",")]
    if not all(size.isdigit() for _, size in pairs):
        raise ValueError(f"mesh must be like seed=2,row=4, got {text!r}")
    return {name.strip(): int(size) for name, size in pairs}
