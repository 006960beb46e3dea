"""Planning through a model and fitting an ensemble, against what the machine can do.

A row's ``fraction`` is the useful arithmetic of the whole measured call (multiply-adds of the network's matrices,
nothing else counted) divided by its time and by the machine's float32 matmul rate, itself measured beside every
repetition in the same process. ``floor_ms`` is the time the matrices alone would take at that rate.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jmbrl import checks, models, rollout
from jmbrl.bench.measure import compiled_ahead, flops_per_row, memory, peak_bytes, share, timed
from jmbrl.bench.problem import MODELS, NETWORKS, PASSES, PLANNERS, Preset, make_model, make_planner, ready, replay
from jmbrl.types import Array, Model, Outcome, Params, Planner, PyTree

ROWS = 1000  # that a solved model is fitted to


def planning(
    preset: Preset, repeats: int = 10, propagation: str = "ts1", planner: str = "cem", model: str = "ensemble"
) -> dict[str, Any]:
    """One decision by a planner through a model, warm, from start to the first action; nothing stops early.

    Args:
      preset: the sizes; the planners evaluate equally many sequences (``bench.problem.make_planner``).
      repeats: timed calls.
      propagation: of the ensemble.
      planner, model: names in ``bench.problem.PLANNERS`` and ``MODELS``.

    Returns:
      ``transitions``: evaluations of the model's step in a decision, counted in a run of their own; what derivatives
      cost beyond them is not in it.
      ``ms_p50``, ``ms_p95``, ``transitions_per_s``, ``compile_s``; ``program_mb``, ``peak_mb`` and ``base_mb`` (the
      process before it built the model). For networks, except through iLQR, their arithmetic too (``share``).
    """
    checks.choice("planner", planner, PLANNERS)
    checks.choice("model", model, MODELS)
    base = peak_bytes()
    search, dynamics = make_planner(planner, preset), make_model(model, preset, propagation, lambda o, a, n: n[0])
    params = ready(dynamics, replay(preset, ROWS))
    transitions = count_transitions(search, preset)
    decide = decision(search, dynamics, preset.particles)
    args = (jax.random.key(0), params, first_belief(dynamics, params, preset))
    compiled, compile_s = compiled_ahead(decide, *args)
    jax.block_until_ready(compiled(*args))
    sizes = memory(compiled)
    rows, members = preset.population * preset.particles, max(dynamics.members, 1)
    times, rate = timed(lambda i: compiled(jax.random.key(i), *args[1:]), repeats, members, rows, preset.hidden[-1])
    arithmetic = {}
    passes = PASSES.get(planner, 1)
    if model in NETWORKS and passes is not None:
        used = members if propagation == "mean" else 1
        arithmetic = share(transitions * passes * used * flops_per_row(params, dynamics.members), times, rate)
    return {
        "planner": planner,
        "model": model,
        "transitions": transitions,
        "ms_p50": 1e3 * np.percentile(times, 50),
        "ms_p95": 1e3 * np.percentile(times, 95),
        "transitions_per_s": transitions / np.median(times),
        **arithmetic,
        **sizes,
        "base_mb": base / 1e6,
        "compile_s": compile_s,
    }


def fit(preset: Preset, repeats: int = 3, batch_size: int = 256, rows: int = 10_000, epochs: int = 5) -> dict[str, Any]:
    """One call of the trainer: Adam, bootstrap, no hold-out; three passes of the matrices per gradient step."""
    model = make_model("ensemble", preset)
    trainer = models.trainer(model, optimizer=optax.adam(1e-3), epochs=epochs, batch_size=batch_size)
    params = model.init(jax.random.key(0))
    args = (params, trainer.init(params), replay(preset, rows))
    compiled, compile_s = compiled_ahead(trainer.fit, jax.random.key(0), *args)
    steps = epochs * -(-rows // batch_size)
    # Forward, and backward to the weights and to the layer's input: which the first layer's data do not need.
    first = 2 * (preset.obs + preset.action) * preset.hidden[0]
    flops = steps * preset.members * batch_size * (3 * flops_per_row(params, preset.members) - first)
    batch, width = preset.members * batch_size, preset.hidden[-1]
    times, rate = timed(lambda i: compiled(jax.random.key(i), *args), repeats, preset.members, batch, width)
    return {
        "batch_size": batch_size,
        "ms_per_step": 1e3 * np.median(times) / steps,
        "steps_per_s": steps / np.median(times),
        **share(flops, times, rate),
        **memory(compiled),
        "compile_s": compile_s,
    }


def decision(planner: Planner, model: Model, particles: int) -> Any:
    """``(key, params, belief) -> action``, as an agent decides."""

    def decide(key: Array, params: Params, belief: PyTree) -> Array:
        goal = rollout.objective(model, params, belief, particles=particles)
        return planner.plan(key, planner.init(), goal)[0][0]

    return decide


def first_belief(model: Model, params: Params, preset: Preset) -> PyTree:
    """The belief after one observation."""
    nothing, obs = jnp.zeros(preset.action), jnp.zeros(preset.obs)
    return model.encode(jax.random.key(3), params, model.initial(params), nothing, obs, jnp.asarray(True))


def count_transitions(planner: Planner, preset: Preset) -> int:
    """How many steps one decision imagines, by a decision through a model that does nothing but count."""
    seen: list[int] = []

    def add(rows: int, action: Array) -> None:
        jax.debug.callback(lambda _: seen.append(rows), jnp.ravel(action)[0])  # an operand, for vmap to map

    def step(key: Array, params: Params, belief: Array, action: Array) -> tuple:
        del key, params
        after = 0.9 * belief + jnp.sum(action)
        return after, Outcome(after[0], jnp.ones(()), jnp.zeros(0), jnp.zeros((), bool))

    def one(key: Array, params: Params, belief: Array, action: Array) -> tuple:
        add(1, action)
        return step(key, params, belief, action)

    def many(key: Array, params: Params, beliefs: Array, actions: Array) -> tuple:
        add(actions.shape[0], actions)
        return jax.vmap(step, in_axes=(None, None, 0, 0))(key, params, beliefs, actions)

    model = make_model("linear", preset)._replace(step=one, step_many=many)
    decide = decision(planner, model, preset.particles)
    jax.block_until_ready(jax.jit(decide)(jax.random.key(0), Params((), ()), jnp.zeros(preset.obs)))
    jax.effects_barrier()
    return sum(seen)
