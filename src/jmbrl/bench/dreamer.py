"""One gradient step of DreamerV3, everything in it: watching the batch, imagining from it, learning from both.

What the agent's own ``phases`` run, on windows that random actions brought from a world that costs nothing. The
arithmetic of its products is counted in the program as it is written (``bench.products``); ``fraction`` is that over
the time and over the machine's matmul rate in one product of every frame of the batch by a matrix as wide as the
recurrent state. ``share_products`` is the time of the products, each run alone and warm, over that of the whole, both
the best of several: what is left is everything else (the activations, norms and samples between them, the optimiser,
the replay, and the calls of some thousand small kernels).
"""

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import agents, checks, configs, envs
from jmbrl.bench import mbpo_work
from jmbrl.bench.measure import compiled_ahead, memory, peak_bytes, share, timed
from jmbrl.bench.products import products, total_flops, total_seconds
from jmbrl.train import make_train
from jmbrl.types import Array, Continuous, Env, Key

REPEATS = 10


class Work(NamedTuple):
    """``size``: a preset of ``dreamer_v3``; ``pixels``: 0 for ``obs`` numbers, else the side of an image in colours;
    ``capacity``: rows of the replay, of which as many are filled as an update has frames."""

    size: str = "size_1m"
    batch_size: int = 16
    length: int = 64
    horizon: int = 15
    obs: int = 24
    action: int = 6
    pixels: int = 0
    capacity: int = 10_000


WORK = {
    "size_xs": Work("size_xs"),
    "size_1m": Work(),
    "size_1m_64": Work(pixels=64),
    "size_12m": Work("size_12m"),
    "size_25m": Work("size_25m"),
    "size_50m": Work("size_50m"),
    "size_200m": Work("size_200m"),
}
ON_TWO_CORES = ("size_xs", "size_1m", "size_1m_64", "size_12m")  # the others only where they are named


def dreamer(preset: Work, repeats: int | None = None) -> dict[str, Any]:
    """One gradient step of DreamerV3, warm.

    Args:
      preset: the sizes.
      repeats: timed steps; None: 10.

    Returns:
      ``ms_per_update``, ``ms_per_update_best`` and ``cpu_ms_per_update`` (of all threads), medians but the second;
      ``imagined_per_s`` and ``replayed_per_s``, frames; ``parameters`` that are learned, targets not counted;
      ``share``'s numbers, ``products`` (how many in a step), ``products_ms`` and ``share_products``; ``compile_s``,
      ``program_mb``, ``peak_mb`` and ``base_mb`` (the process before it built anything).

    Raises:
      ValueError: an unknown size, or a number out of range.
    """
    repeats = checks.integer("repeats", REPEATS if repeats is None else repeats, 1)
    checks.choice("size", preset.size, tuple(name for name in agents.PRESETS["dreamer_v3"] if name.startswith("size")))
    for name in ("batch_size", "length", "horizon", "obs", "action"):
        checks.integer(name, getattr(preset, name), 1)
    checks.integer("capacity", preset.capacity, preset.length + 1)
    checks.integer("pixels", preset.pixels, 0)
    base, env, settings = peak_bytes(), world(preset), config(preset)
    agent, key = agents.dreamer_v3(env, settings), jax.random.key(0)
    train = make_train(env, agent, agent.warmup)
    run = jax.jit(train.init)(key)
    run, _ = jax.jit(lambda run: train.chunk(key, run, 0, agent.warmup, warmup=True), donate_argnums=0)(run)
    state, update = run.agent, agent.phases[-1][1]
    found = products(update, key, state, jnp.int32(agent.warmup))
    compiled, compile_s = compiled_ahead(update, key, state, jnp.int32(agent.warmup), donate=(1,))
    processor: list[float] = []

    def call(i: int) -> dict[str, Array]:
        nonlocal state
        began = time.process_time()
        state, info = jax.block_until_ready(compiled(jax.random.key(i), state, jnp.int32(agent.warmup + i)))
        processor.append(time.process_time() - began)
        return info

    frames = preset.batch_size * preset.length
    times, rate = timed(call, repeats, 1, frames, settings.deter)
    sizes, median, best, alone = memory(compiled), float(np.median(times)), float(np.min(times)), total_seconds(found)
    return {
        **preset._asdict(),
        "parameters": sum(x.size for x in jax.tree.leaves(state.weights)),
        "ms_per_update": 1e3 * median,
        "ms_per_update_best": 1e3 * best,
        "cpu_ms_per_update": 1e3 * float(np.median(processor[1:])),
        "imagined_per_s": frames * preset.horizon / median,
        "replayed_per_s": frames / median,
        **share(total_flops(found), times, rate),
        "products": sum(product.count for product in found),
        "products_ms": 1e3 * alone,
        "share_products": alone / best,
        **sizes,
        "compile_s": compile_s,
        "base_mb": base / 1e6,
    }


def config(work: Work) -> Any:
    """The settings of that size; one update at a time, whatever the preset's ratio."""
    frames = work.batch_size * work.length
    asked = {name: getattr(work, name) for name in ("batch_size", "length", "horizon", "capacity")}
    once = {"train_ratio": float(frames), "train_every": None, "warmup": frames}
    return configs.make_config(agents.DreamerV3Config, {**agents.PRESETS["dreamer_v3"][work.size], **asked, **once})


def world(work: Work) -> Env:
    """Numbers, or images that move by a row a step: a world that costs nothing."""
    if not work.pixels:
        return mbpo_work.world(mbpo_work.Work(obs=work.obs, action=work.action))
    shape = (work.pixels, work.pixels, 3)

    def reset(key: Key) -> tuple[Array, Array]:
        image = jax.random.bits(key, shape, jnp.uint8)
        return image, image

    def step(key: Key, image: Array, action: Array) -> tuple[Array, Array, Array, Array]:
        del key
        image = jnp.roll(image, 1, axis=0)
        return image, image, jnp.sum(action), jnp.asarray(False)

    space = Continuous((-1.0,) * work.action, (1.0,) * work.action)
    return envs.from_functions(
        reset, step, action=space, max_steps=1000, name="bench", obs_shape=shape, obs_dtype="uint8"
    )
