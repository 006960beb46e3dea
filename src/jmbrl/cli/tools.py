"""``jmbrl list``, ``diagnose``, ``bench`` and ``doctor``."""

import argparse
import importlib
import importlib.metadata
import json
import platform
import sys
import time
from typing import Any

PACKAGES = ("jax", "jaxlib", "flax", "optax", "chex", "brax", "gymnax", "gymnasium", "orbax-checkpoint", "numpy")
KINDS = {"models": "jmbrl.models", "planners": "jmbrl.planners", "learners": "jmbrl.learners"}


def add_commands(commands: Any) -> None:
    listing = commands.add_parser("list", help="systems, environments, models, planners, learners")
    listing.add_argument("kind", nargs="?", choices=("systems", "environments", *KINDS), help="one kind only")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(command=list_command)

    diagnose = commands.add_parser("diagnose", help="how good is the model of a run: figures and numbers")
    diagnose.add_argument("dir")
    diagnose.set_defaults(command=diagnose_command)

    bench = commands.add_parser("bench", help="run a benchmark; one JSON line a row")
    bench.add_argument("name")
    bench.add_argument("--set", action="append", metavar="KEY=VALUE", help="an option of the benchmark")
    bench.set_defaults(command=bench_command)

    doctor = commands.add_parser("doctor", help="versions, devices, cache, and a five-second solve")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.set_defaults(command=doctor_command)


def list_command(arguments: argparse.Namespace) -> int:
    found = {kind: names for kind, names in everything().items() if arguments.kind in (None, kind)}
    if arguments.json:
        print(json.dumps(found))
        return 0
    for kind, names in found.items():
        print(f"{kind}:")
        for name, text in names.items():
            print(f"  {name:28} {text}".rstrip())
    return 0


def everything() -> dict[str, dict[str, str]]:
    """Kind -> name -> one line about it."""
    from jmbrl import agents, envs

    found = {
        "systems": {name: system.summary for name, system in sorted(agents.SYSTEMS.items())},
        "environments": dict.fromkeys(envs.names(), ""),
    }
    for kind, module_name in KINDS.items():
        module = importlib.import_module(module_name)
        found[kind] = {name: _first_line(getattr(module, name)) for name in sorted(getattr(module, "__all__", ()))}
    return found


def diagnose_command(arguments: argparse.Namespace) -> int:
    from jmbrl.diagnostics import diagnose
    from jmbrl.writers import encode

    result = diagnose(arguments.dir)
    if isinstance(result, dict):
        sys.stdout.write(encode(result).decode())
    return 0


def bench_command(arguments: argparse.Namespace) -> int:
    from jmbrl import configs
    from jmbrl.writers import encode

    bench = importlib.import_module("jmbrl.bench")
    for row in bench.run(arguments.name, **configs.parse_options(arguments.set)):
        sys.stdout.write(encode(row).decode())
        sys.stdout.flush()
    return 0


def doctor_command(arguments: argparse.Namespace) -> int:
    report = examine()
    if arguments.json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            print(f"{name:14} {value}")
    return 0 if report["solve"]["ok"] else 1


def examine() -> dict[str, Any]:
    """What one wants to know when something does not work."""
    import jax

    import jmbrl
    from jmbrl import cache

    where = cache.directory()
    return {
        "jmbrl": jmbrl.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "devices": [f"{device.platform}:{device.id} {device.device_kind}" for device in jax.devices()],
        "cache": {"directory": str(where), "programs": len(list(where.glob("*-cache"))) if where.is_dir() else 0},
        "solve": solve(),
    }


def solve() -> dict[str, Any]:
    """Plan a linear system with quadratic cost by CEM and compare with Riccati's exact answer."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jmbrl import planners
    from jmbrl.types import Continuous, Objective, Spec

    horizon, start = 5, np.array([0.3, 0.0])
    a, b = np.array([[1.0, 0.2], [0.0, 1.0]]), np.array([[0.0], [0.2]])
    q, r = np.eye(2), 0.1 * np.eye(1)

    def returns(key: Any, actions: Any) -> tuple:
        def cost(actions: Any) -> Any:
            def step(x: Any, u: Any) -> tuple:
                return a @ x + b @ u, x @ q @ x + u @ r @ u

            last, costs = jax.lax.scan(step, jnp.asarray(start, jnp.float32), actions)
            return jnp.sum(costs) + last @ q @ last

        return -jax.vmap(cost)(actions), jnp.zeros((len(actions), 0)), {}

    began = time.perf_counter()
    spec = Spec("doctor", (2,), Continuous((-1.0,), (1.0,)), horizon)
    planner = planners.cem(spec, horizon=horizon, population=500, elites=50, iterations=12)
    plan = jax.jit(lambda key: planner.plan(key, planner.init(), Objective(returns, lambda *_: None, start))[0])
    actions = plan(jax.random.key(0))
    found = -float(returns(None, actions[None])[0][0])
    exact = _riccati(a, b, q, r, start, horizon)
    return {
        "cem_cost": round(found, 5),
        "exact_cost": round(exact, 5),
        "seconds": round(time.perf_counter() - began, 2),
        "ok": bool(exact * (1 - 1e-4) <= found <= exact * 1.02),
    }


def _riccati(a: Any, b: Any, q: Any, r: Any, start: Any, horizon: int) -> float:
    """The least cost from ``start``: P_t = Q + A' P (A - B K), K = (R + B' P B)^-1 B' P A."""
    import numpy as np

    value = q
    for _ in range(horizon):
        gain = np.linalg.solve(r + b.T @ value @ b, b.T @ value @ a)
        value = q + a.T @ value @ (a - b @ gain)
    return float(start @ value @ start)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _first_line(thing: Any) -> str:
    text = (getattr(thing, "__doc__", "") or "").strip().splitlines()
    return text[0] if text and not isinstance(thing, str | int | float | tuple | dict) else ""
