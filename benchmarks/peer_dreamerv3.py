"""A train step of danijar/dreamerv3 as its authors wrote and compile it, beside which ``jmbrl bench dreamer`` is read.

    git clone https://github.com/danijar/dreamerv3
    python3 -m venv peer
    peer/bin/pip install "jax[cpu]==0.10.2" numpy optax chex einops jaxtyping ruamel.yaml
    peer/bin/pip install elements ninjax granular portal
    peer/bin/python benchmarks/peer_dreamerv3.py --source dreamerv3

One JSON line a size. The revision read was e3f0224 (May 2026); it asks for jax 0.4.33. For 0.10.2, which jmbrl was
measured with, ``jax.jit`` takes its shardings by position again here (``jit_by_position``); no file of it is changed.
The agent is made by its own constructor and trained by its own ``Agent.train``, on a made-up batch of
vectors; environments, replay, logging, checkpoints and its ``report`` program are left out, and so is the copy of the
weights that its actors get. Times are of a call until its weights are there. The batch is put on the device beforehand,
as its loader does in a thread of its own.
"""

import argparse
import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

SIZES = ("size1m", "size12m", "size25m", "size50m", "size100m", "size200m", "size400m")


def jit_by_position(jit: Callable) -> Callable:
    """``jax.jit`` as in jax 0.4.33, where all its arguments could be given by position."""
    names = ("in_shardings", "out_shardings", "static_argnums", "static_argnames", "donate_argnums")

    def called(fun: Callable, *options: Any, **named: Any) -> Any:
        return jit(fun, **dict(zip(names, options, strict=False)), **named)

    return called


def settings(source: Path, size: str, asked: argparse.Namespace) -> Any:
    """What its ``main.make_agent`` gives the agent."""
    import elements
    from ruamel.yaml import YAML

    known = YAML(typ="safe").load((source / "dreamerv3" / "configs.yaml").read_text())
    config = elements.Config(known["defaults"]).update(known[size])
    config = config.update({"batch_size": asked.batch_size, "batch_length": asked.length})
    config = config.update({"agent.imag_length": asked.horizon, "agent.report": False})
    own = {"platform": asked.platform, "compute_dtype": asked.dtype, "enable_policy": False, "prealloc": False}
    return elements.Config(
        **config.agent,
        logdir=os.devnull,
        seed=config.seed,
        jax={**config.jax, **own, "precompile": False, "profiler": False},
        batch_size=config.batch_size,
        batch_length=config.batch_length,
        replay_context=config.replay_context,
        report_length=config.report_length,
        replica=0,
        replicas=1,
    )


def made_up_batch(agent: Any, rows: int, length: int) -> dict[str, Any]:
    """Windows of noise, in the middle of their episodes."""
    import numpy as np

    rng, batch = np.random.default_rng(0), {}
    for name, space in agent.spaces.items():
        shape = (rows, length, *space.shape)
        floats = np.issubdtype(space.dtype, np.floating)
        batch[name] = rng.uniform(-1, 1, shape).astype(space.dtype) if floats else np.zeros(shape, space.dtype)
    return batch


def measure(source: Path, size: str, asked: argparse.Namespace) -> dict[str, Any]:
    import elements
    import jax
    import numpy as np
    from dreamerv3.agent import Agent
    from embodied.jax import internal

    obs = {
        "vector": elements.Space(np.float32, (asked.obs,)),
        "reward": elements.Space(np.float32),
        **{name: elements.Space(bool) for name in ("is_first", "is_last", "is_terminal")},
    }
    config = settings(source, size, asked)
    began = time.perf_counter()
    agent = Agent(obs, {"action": elements.Space(np.float32, (asked.action,), -1.0, 1.0)}, config)
    init_s = time.perf_counter() - began
    with agent.train_mesh:
        agent._compile_train()
    compile_s = time.perf_counter() - began - init_s
    batch = made_up_batch(agent, asked.batch_size, asked.length + config.replay_context)
    batch = internal.device_put(batch, agent.train_sharded)
    state, walls, processor = agent.init_train(asked.batch_size), [], []
    for i in range(asked.warmup + asked.steps):
        data = {**batch, "seed": agent._seeds(i, agent.train_mirrored)}
        jax.block_until_ready(data)
        wall, cpu = time.perf_counter(), time.process_time()
        state, _, told = agent.train(state, data)
        jax.block_until_ready((agent.params, state))
        walls.append(1e3 * (time.perf_counter() - wall))
        processor.append(1e3 * (time.process_time() - cpu))
    walls, processor = walls[asked.warmup :], processor[asked.warmup :]
    kept = ("opt/", "retnorm/", "valnorm/", "advnorm/", "slowval")
    trained = [x.size for name, x in agent.params.items() if not name.startswith(kept)]
    sizes, imagined = agent._train.memory_analysis(), asked.batch_size * asked.length * asked.horizon
    return {
        "size": size,
        "parameters": int(sum(trained)),
        "ms_per_step": float(np.median(walls)),
        "ms_per_step_best": min(walls),
        "cpu_ms_per_step": float(np.median(processor)),
        "imagined_per_s": 1e3 * imagined / float(np.median(walls)),
        "init_s": init_s,
        "compile_s": compile_s,
        "program_mb": (sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes) / 1e6,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
        "loss": float(told["opt/loss"]) if "opt/loss" in told else None,
    }


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="a checkout of danijar/dreamerv3")
    parser.add_argument("--size", action="append", choices=SIZES, help="(size1m)")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--length", type=int, default=64, help="frames of a window, beside one of context")
    parser.add_argument("--horizon", type=int, default=15)
    parser.add_argument("--obs", type=int, default=24, help="entries of the observation")
    parser.add_argument("--action", type=int, default=6, help="entries of the action")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--platform", default="cpu")
    parser.add_argument("--steps", type=int, default=15, help="steps timed")
    parser.add_argument("--warmup", type=int, default=3, help="steps before those")
    asked = parser.parse_args(words)
    sys.path.insert(0, str(asked.source))
    import jax

    jax.jit = jit_by_position(jax.jit)
    for size in asked.size or ["size1m"]:
        with contextlib.redirect_stdout(sys.stderr):  # it prints its spaces and its progress
            row = measure(asked.source, size, asked)
        facts = {name.replace("-", "_"): value for name, value in vars(asked).items() if name not in ("source", "size")}
        print(json.dumps({**row, **facts, "jax": metadata.version("jax")}), flush=True)


if __name__ == "__main__":
    main()
