"""What World Models spends its time on: V and M learning, V encoding, generations of C, and the environments' pictures.

The agent's own stages run, files included, on made-up frames. A row's ``fraction`` is as in ``bench.models``: the
multiply-adds of the layers, counted from their shapes (``bench.world_models_work``), over the measured time and the
machine's matmul rate; ``conv_fraction`` the same over the rate of the compiler's own convolutions, the encoder's first
two layers without bias and rectifier. NumPy's rate is not shown: its threads are one here, as in a run, where those of
CMA-ES's decompositions would wait for each other.
"""

import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import agents, checks, envs, learners
from jmbrl.bench.measure import compiled_ahead, memory, peak_bytes, seconds, share, timed
from jmbrl.bench.world_models_work import (
    EPISODE,
    Work,
    config,
    control_flops,
    encode_flops,
    memory_flops,
    mixture_flops,
    narrowing,
    recur_flops,
    vision_flops,
    world,
    write,
)
from jmbrl.networks import conv_stack
from jmbrl.rollout import random_actions
from jmbrl.types import Array, Continuous, Env, Key, PyTree, Spec

ROWS = 4096  # of V's yardstick, as wide as its widest layer
CHAIN = 20  # products in one call of M's and C's, which are small
REPEATS = {"encode": 5, "vision": 3, "memory": 3, "world": 3, "dream": 3, "env": 5}


def world_models(preset: Work, repeats: int | None = None) -> dict[str, Any]:
    """One part of World Models, warm.

    Args:
      preset: the part and its sizes.
      repeats: timed calls; None: 5 of ``encode`` and ``env``, 3 of the others.

    Returns:
      Throughputs ``..._per_s`` by the median call and ``..._per_s_best``: ``frames`` of ``encode``, ``vision`` and
      ``env``; ``updates`` and ``rows`` of ``memory``; ``generations`` and ``frames`` of ``world`` or ``dream_steps`` of
      ``dream``. Also ``compile_s``, ``program_mb``, ``peak_mb``, ``base_mb`` (the process before it built anything)
      and, but for ``env``, ``share``'s numbers; of V ``conv_gflop_per_s`` and ``conv_fraction`` (best call); of C
      ``fitness`` (the candidates' mean), ``ms_search`` (what a generation takes beside its episodes, best of three)
      and ``s_per_full_generation``, extrapolated to episodes of the environment's own length, ``full_steps``. Where
      the environment's package is missing ``skipped`` says so instead.

    Raises:
      ValueError: an unknown part, or a size out of range.
    """
    part = checks.choice("part", preset.part, tuple(REPEATS))
    repeats = checks.integer("repeats", REPEATS[part] if repeats is None else repeats, 1)
    for name in ("batch_size", "updates", "length", "rollouts", "steps", "copies"):
        checks.integer(name, getattr(preset, name), 1)
    checks.integer("population", preset.population, 4)
    checks.integer("frames", preset.frames, max(EPISODE, preset.length + 1))
    if preset.env.startswith("gymnasium:") and importlib.util.find_spec("Box2D") is None:
        return {**preset._asdict(), "skipped": "Box2D is not installed"}
    base, env = peak_bytes(), world(preset)
    measure = {"encode": vision, "vision": vision, "memory": rows_of_memory, "env": pictures}.get(part, generations)
    try:
        row = measure(preset, env, repeats)
    finally:
        env.close()
    return {**preset._asdict(), **row, "base_mb": base / 1e6}


# --------------------------------------------------------------------------------------------------- the parts


def vision(work: Work, env: Env, repeats: int) -> dict[str, Any]:
    """``updates`` of V on batches drawn from the disk, or every frame there through it, and its latents to the disk."""
    stack, learns = conv_stack(env.spec.obs_shape, work.channels), work.part == "vision"
    frames = work.updates * work.batch_size if learns else work.frames
    flops = frames * (vision_flops if learns else encode_flops)(stack, work.latent)
    convolution = conv_rate(stack.shape, stack.channels, work.batch_size)
    times, rate, more = stage_times(work, env, repeats, work.updates if learns else -(-work.frames // EPISODE))
    convolution = max(convolution, conv_rate(stack.shape, stack.channels, work.batch_size))
    return {
        **throughput("frames", frames, times),
        **arithmetic(flops, times, rate),
        "conv_gflop_per_s": convolution / 1e9,
        "conv_fraction": flops / float(np.min(times)) / convolution,
        **more,
    }


def rows_of_memory(work: Work, env: Env, repeats: int) -> dict[str, Any]:
    """``updates`` of M on windows drawn from the disk."""
    times, rate, more = stage_times(work, env, repeats, work.updates)
    rows = work.updates * work.batch_size * work.length
    return {
        **throughput("updates", work.updates, times),
        **throughput("rows", rows, times),
        **arithmetic(rows * memory_flops(work, inputs(env.spec)), times, rate),
        **more,
    }


def generations(work: Work, env: Env, repeats: int) -> dict[str, Any]:
    """A generation of C: candidates, their episodes of ``steps`` side by side, and what the search makes of them."""
    times, rate, more = stage_times(work, env, repeats, 1)
    steps, actions = work.population * work.rollouts * work.steps, inputs(env.spec)
    flops = recur_flops(work, actions) + control_flops(work, actions)
    if work.part == "world":
        flops += encode_flops(conv_stack(env.spec.obs_shape, work.channels), work.latent)
    else:
        flops += mixture_flops(work)
    search, full = seconds_of_search(work, env.spec), envs.make(work.env).spec.max_steps
    best = float(np.min(times))
    return {
        **throughput("generations", 1, times),
        **throughput("frames" if work.part == "world" else "dream_steps", steps, times),
        **arithmetic(steps * flops, times, rate),
        "ms_search": 1e3 * search,
        "full_steps": full,
        "s_per_full_generation": search + max(best - search, 0.0) * full / work.steps,
        **more,
    }


def pictures(work: Work, env: Env, repeats: int) -> dict[str, Any]:
    """``steps`` of ``copies`` by random actions; finished ones begin anew."""
    worlds = env.vector(work.copies)

    def play(key: Key, states: PyTree, obs: Array) -> tuple[tuple, Array]:
        def step(now: tuple, key: Key) -> tuple[tuple, Array]:
            key_act, key_step, key_restart = jax.random.split(key, 3)
            states, seen = worlds.step(key_step, now[0], random_actions(key_act, env.spec, work.copies))
            now = worlds.restart(key_restart, seen.terminated | seen.truncated, states, seen.obs)
            return now, jnp.sum(seen.obs, dtype=jnp.float32)  # which needs the whole picture

        return jax.lax.scan(step, (states, obs), jax.random.split(key, work.steps))

    now = jax.jit(worlds.reset)(jax.random.key(0))
    compiled, compile_s = compiled_ahead(play, jax.random.key(0), *now)

    def call(i: int) -> Array:
        nonlocal now
        now, seen = compiled(jax.random.key(i), *now)
        return seen

    jax.block_until_ready(call(0))
    times = np.asarray([seconds(lambda i=i: call(i + 1)) for i in range(repeats)])
    return {
        **throughput("frames", work.steps * work.copies, times),
        **memory(compiled),
        "compile_s": compile_s,
    }


# ---------------------------------------------------------------------------------------------------- how


def stage_times(work: Work, env: Env, repeats: int, units: int) -> tuple[np.ndarray, dict[str, float], dict[str, Any]]:
    """Times of ``units`` of the part's stage, the matmul rate beside them, and the program's sizes."""
    agent, name = agents.world_models(env, config(work)), {"world": "controller", "dream": "controller"}
    (stage,) = (s for s in agent.stages(env, 10**12) if s.name == name.get(work.part, work.part))
    programs: dict[tuple, tuple[Callable, float]] = {}
    told: dict[str, Array] = {}

    def call(name: tuple, function: Callable, *arguments: Any, donate: tuple = ()) -> Any:
        if name not in programs:
            programs[name] = compiled_ahead(function, *arguments, donate=donate)
        return programs[name][0](*arguments)

    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        if work.part in ("encode", "vision", "memory"):
            write(folder, env, work)
        state = agent.init(jax.random.key(0), 1)._replace(rows=jnp.asarray(work.frames, jnp.int32))

        def advance(i: int) -> PyTree:
            nonlocal state, told
            # Encoding always begins with the first frame; updates but the first draw other rows.
            start = i + 1 if work.part in ("vision", "memory") else 0
            state, told = stage.advance(call, jax.random.key(i), state, folder, start, units)
            return state, told

        times, rate = timed(advance, repeats, 1, *yardstick(work))
    ((compiled, compile_s),) = programs.values()
    more = {**memory(compiled), "compile_s": compile_s}
    if stage.name == "controller":
        more["fitness"] = float(told["controller/fitness_mean"][0])
    return times, rate, more


def yardstick(work: Work) -> tuple[int, int, int]:
    """Rows and width of the product that a part is measured by, and how many in one call."""
    if work.part in ("encode", "vision"):
        return ROWS, work.channels[-1], 1
    return work.batch_size if work.part == "memory" else work.population * work.rollouts, work.hidden, CHAIN


def conv_rate(shape: tuple[int, int, int], channels: Sequence[int], images: int, repeats: int = 5) -> float:
    """FLOP/s of ``lax.conv_general_dilated`` in the encoder's first two layers, the best of ``repeats``."""
    used, depths = channels[:2], (shape[2], *channels)
    kernels = [jnp.full((4, 4, i, o), 0.01) for i, o in zip(depths, used, strict=False)]

    def narrow(x: Array) -> Array:
        for kernel in kernels:
            x = jax.lax.conv_general_dilated(x, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return x

    x, convolve = jnp.ones((images, *shape)), jax.jit(narrow)
    jax.block_until_ready(convolve(x))
    best = min(seconds(lambda: convolve(x)) for _ in range(repeats))
    return 2.0 * images * sum(narrowing(conv_stack(shape, channels))[:2]) / best


def seconds_of_search(work: Work, spec: Spec) -> float:
    """A generation without episodes, one after another, the best of three."""
    evolution = learners.evolution(spec.action, work.latent + work.hidden, population=work.population)
    update = jax.jit(lambda key, state: evolution.update(key, state, lambda key, policies: policies[:, 0])[0])
    state = jax.jit(evolution.init)(jax.random.key(0))

    def call(i: int) -> PyTree:
        nonlocal state
        state = update(jax.random.key(i), state)
        return state

    jax.block_until_ready(call(0))
    return min(seconds(lambda i=i: call(i + 1)) for i in range(3))


def inputs(spec: Spec) -> int:
    """Entries of an action as the networks see it."""
    return spec.action.dim if isinstance(spec.action, Continuous) else spec.action.n


def throughput(name: str, count: float, times: np.ndarray) -> dict[str, float]:
    return {f"{name}_per_s": count / float(np.median(times)), f"{name}_per_s_best": count / float(np.min(times))}


def arithmetic(flops: float, times: np.ndarray, rate: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in share(flops, times, rate).items() if name != "numpy_gflop_per_s"}
