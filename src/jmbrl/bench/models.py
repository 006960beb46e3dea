"""Planning through an ensemble and fitting it, against what the machine can do: one row a preset.

A row's ``fraction`` is the useful arithmetic of the whole measured call (multiply-adds of the network's matrices,
nothing else counted) divided by its time and by the machine's float32 matmul rate, itself measured beside every
repetition in the same process. ``floor_ms`` is the time the matrices alone would take at that rate.
"""

import resource
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jmbrl import checks, data, models, planners, rollout
from jmbrl.types import Array, Continuous, Params, Spec


class Preset(NamedTuple):
    """One ensemble and one planning problem."""

    obs: int
    action: int
    members: int = 7
    hidden: tuple[int, ...] = (200, 200, 200, 200)
    population: int = 350
    horizon: int = 15
    particles: int = 21
    iterations: int = 5


PRESETS = {"cartpole": Preset(4, 1), "halfcheetah": Preset(17, 6, horizon=30)}


def planning(preset: Preset, repeats: int = 10, propagation: str = "ts1") -> dict[str, Any]:
    """One CEM decision through the ensemble: every iteration runs, warm, from start to the first action."""
    model, spec = _model(preset, propagation)
    elites = max(1, preset.population // 10)
    planner = planners.cem(
        spec, horizon=preset.horizon, population=preset.population, elites=elites, iterations=preset.iterations,
        min_variance=0.0,
    )  # fmt: skip

    def decide(key: Array, params: Params, obs: Array) -> Array:
        goal = rollout.objective(model, params, obs, particles=preset.particles)
        return planner.plan(key, planner.init(), goal)[0][0]

    args = (jax.random.key(0), model.init(jax.random.key(1)), jnp.zeros(preset.obs))
    compiled, compile_s = _compile(decide, *args)
    rows = preset.population * preset.particles
    used = preset.members if propagation == "mean" else 1
    transitions = rows * preset.horizon * preset.iterations
    flops = transitions * used * _flops_per_row(args[1], preset.members)
    times, rate = _timed(lambda i: compiled(jax.random.key(i), *args[1:]), repeats, preset, rows)
    return {
        "ms_p50": 1e3 * np.percentile(times, 50),
        "ms_p95": 1e3 * np.percentile(times, 95),
        "transitions_per_s": transitions / np.median(times),
        **_share(flops, times, rate),
        **_memory(compiled),
        "compile_s": compile_s,
    }


def fit(preset: Preset, repeats: int = 3, batch_size: int = 256, rows: int = 10_000, epochs: int = 5) -> dict[str, Any]:
    """One call of the trainer: Adam, bootstrap, no hold-out; three passes of the matrices per gradient step."""
    model, _ = _model(preset, "ts1", reward=None)
    trainer = models.trainer(model, optimizer=optax.adam(1e-3), epochs=epochs, batch_size=batch_size)
    params = model.init(jax.random.key(0))
    replay = _replay(preset, rows)
    args = (params, trainer.init(params), replay)
    compiled, compile_s = _compile(trainer.fit, jax.random.key(0), *args)
    steps = epochs * -(-rows // batch_size)
    # Forward, and backward to the weights and to the layer's input: which the first layer's data do not need.
    first = 2 * (preset.obs + preset.action) * preset.hidden[0]
    flops = steps * preset.members * batch_size * (3 * _flops_per_row(params, preset.members) - first)
    times, rate = _timed(lambda i: compiled(jax.random.key(i), *args), repeats, preset, preset.members * batch_size)
    return {
        "batch_size": batch_size,
        "ms_per_step": 1e3 * np.median(times) / steps,
        "steps_per_s": steps / np.median(times),
        **_share(flops, times, rate),
        **_memory(compiled),
        "compile_s": compile_s,
    }


def matmul_rate(members: int, rows: int, width: int, repeats: int = 5) -> float:
    """FLOP/s of the best of ``repeats`` products ``[members, rows, width] x [members, width, width]`` in float32."""
    x, w = jnp.ones((members, rows, width)), jnp.ones((members, width, width))
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(x, w))
    best = min(_seconds(lambda: product(x, w)) for _ in range(repeats))
    return 2.0 * members * rows * width * width / best


def numpy_matmul_rate(members: int, rows: int, width: int, repeats: int = 5) -> float:
    """The same product by NumPy, one member after another."""
    x, w = np.ones((members, rows, width), np.float32), np.ones((members, width, width), np.float32)
    best = min(_seconds(lambda: np.matmul(x, w)) for _ in range(repeats))
    return 2.0 * members * rows * width * width / best


def _model(preset: Preset, propagation: str, reward: Callable | None = lambda obs, action, next_obs: next_obs[0]):
    low = (-1.0,) * preset.action
    spec = Spec("bench", (preset.obs,), Continuous(low, (1.0,) * preset.action), 200)
    member = models.gaussian_mlp(spec, preset.hidden, reward=reward)
    return models.ensemble(member, preset.members, propagation=propagation), spec


def _replay(preset: Preset, rows: int) -> data.Replay:
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(rows, preset.obs)).astype(np.float32)
    action = rng.uniform(-1, 1, (rows, preset.action)).astype(np.float32)
    following = (0.9 * obs + 0.1 * rng.normal(size=obs.shape)).astype(np.float32)
    return data.from_arrays(obs, action, obs[:, 0], following, np.zeros(rows, bool))


def _flops_per_row(params: Params, members: int) -> int:
    """Multiply-adds of one member on one row, two operations each; biases and activations are not counted."""
    kernels = [w for w in jax.tree.leaves(params.weights) if w.ndim == 3]
    return 2 * sum(w.size // members for w in kernels)


def _compile(fn: Callable, *args: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    compiled = jax.jit(fn).lower(*args).compile()
    return compiled, time.perf_counter() - start


def _seconds(call: Callable) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def _timed(call: Callable, repeats: int, preset: Preset, rows: int) -> tuple[np.ndarray, dict[str, float]]:
    """Times of ``repeats`` warm calls, and the matmul rate measured before, between and after them."""
    repeats = checks.integer("repeats", repeats, 1)
    width = preset.hidden[-1]
    shape = (preset.members, max(1, rows // preset.members), width)
    jax.block_until_ready(call(0))
    times, rates = [], [matmul_rate(*shape)]
    for i in range(repeats):
        times.append(_seconds(lambda i=i: call(i + 1)))
        rates.append(matmul_rate(*shape))
    return np.asarray(times), {"matmul": max(rates), "numpy": numpy_matmul_rate(*shape)}


def _share(flops: float, times: np.ndarray, rate: dict[str, float]) -> dict[str, float]:
    median = float(np.median(times))
    return {
        "gflop": flops / 1e9,
        "gflop_per_s": flops / median / 1e9,
        "matmul_gflop_per_s": rate["matmul"] / 1e9,
        "numpy_gflop_per_s": rate["numpy"] / 1e9,
        "floor_ms": 1e3 * flops / rate["matmul"],
        "fraction": flops / median / rate["matmul"],
        "fraction_best": flops / float(np.min(times)) / rate["matmul"],
    }


def _memory(compiled: Any) -> dict[str, float]:
    """``program_mb``: arguments, results and temporaries of the compiled call; ``peak_mb``: the process so far."""
    sizes = compiled.memory_analysis()
    program = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes if sizes else 0
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss counts kilobytes on Linux, bytes on macOS
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"program_mb": program / 1e6, "peak_mb": peak / 1e6}
