"""A tree search through MuZero's model: simulations a second by batch and size of the tree, and the same search written
as mctx's examples are, with the model's own functions and nothing of ours between."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks, learners, models
from jmbrl.bench.measure import compiled_ahead, memory, seconds, share, timed
from jmbrl.bench.products import products, total_flops
from jmbrl.planners.tree import Judged, depth_of, mctx, search, search_settings
from jmbrl.types import Array, Discrete, Params, Spec

REPEATS = 10
GAMMA = 0.997


class Work(NamedTuple):
    """``batch`` trees of ``simulations`` steps, through networks of ``units`` with ``bins`` for rewards and values."""

    batch: int = 16
    simulations: int = 64
    depth: int | None = None
    actions: int = 4
    obs: int = 8
    latent: int = 64
    units: int = 128
    bins: int = 101
    method: str = "gumbel"


WORK = {f"batch_{batch}_of_{count}": Work(batch, count) for batch in (1, 16, 256) for count in (16, 64)}


def search_bench(preset: Work, repeats: int | None = None) -> dict[str, Any]:
    """One decision for ``batch`` observations, warm.

    Args:
      preset: the sizes.
      repeats: timed searches; None: 10.

    Returns:
      ``simulations_per_s`` and ``ms_per_search`` (median), ``mean_depth`` (of the trees), ``peer_simulations_per_s``
      and ``peer_ratio`` (ours to mctx written out), ``share``'s numbers, whose ``fraction`` is that of the rate of the
      products alone, ``compile_s`` and ``memory``'s.

    Raises:
      ValueError: a number out of range.
    """
    repeats = checks.integer("repeats", REPEATS if repeats is None else repeats, 1)
    for name in ("batch", "actions", "obs"):
        checks.integer(name, getattr(preset, name), 1)
    settings = search_settings(simulations=preset.simulations, depth=preset.depth, method=preset.method)
    spec = Spec("bench", (preset.obs,), Discrete(preset.actions), 1000)
    parts = models.value_equivalent_parts(spec, latent=preset.latent, units=preset.units, bins=preset.bins, limit=25.0)
    reader = learners.policy_value(spec.action, preset.latent, units=preset.units, bins=preset.bins, limit=25.0)
    key_model, key_read = jax.random.split(jax.random.key(0))
    weights = {"model": parts.model.init(key_model).weights, "read": reader.init(key_read)}
    # Heads begin at 0, where all moves are alike: other numbers make trees of the usual shapes.
    weights = jax.tree.map(lambda x: x + 0.1 * np.random.default_rng(x.size).normal(size=x.shape), weights)
    weights = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), weights)
    obs = jnp.asarray(np.random.default_rng(0).normal(size=(preset.batch, preset.obs)), jnp.float32)

    def ours(key: Array, weights: Any, obs: Array) -> tuple[Array, Array]:
        def judge(key: Array, beliefs: Array) -> Judged:
            thought = reader.read(weights["read"], beliefs)
            candidates, logits = reader.candidates(key, thought)
            return Judged(candidates, logits, reader.value(thought))

        def step_many(key: Array, beliefs: Array, actions: Array) -> tuple:
            return parts.model.step_many(key, Params(weights["model"], ()), beliefs, actions)

        beliefs = parts.see(weights["model"], obs)
        found = search(key, step_many, judge, beliefs, settings, explore=True, gamma=GAMMA)
        return found.action, depth_of(found.tree)

    def peer(key: Array, weights: Any, obs: Array) -> Array:
        def evaluate(latent: Array) -> tuple[Array, Array]:
            thought = reader.read(weights["read"], latent)
            return thought.policy, reader.value(thought)

        def recurrent_fn(weights: Any, key: Array, action: Array, latent: Array) -> tuple:
            latent, outcome = parts.model.step(key, Params(weights["model"], ()), latent, action)
            logits, value = evaluate(latent)
            discount = jnp.full_like(outcome.reward, GAMMA)
            output = mctx.RecurrentFnOutput(reward=outcome.reward, discount=discount, prior_logits=logits, value=value)
            return output, latent

        latent = parts.see(weights["model"], obs)
        logits, value = evaluate(latent)
        root = mctx.RootFnOutput(prior_logits=logits, value=value, embedding=latent)
        policy = mctx.gumbel_muzero_policy if preset.method == "gumbel" else mctx.muzero_policy
        out = policy(weights, key, root, recurrent_fn, preset.simulations, max_depth=preset.depth)
        return out.action

    args = jax.random.key(0), weights, obs
    compiled, compile_s = compiled_ahead(ours, *args)
    written_out, _ = compiled_ahead(peer, *args)
    flops = total_flops(products(ours, *args))
    call = lambda i: compiled(jax.random.key(i), weights, obs)  # noqa: E731
    times, rate = timed(call, repeats, 1, preset.batch, preset.units, chain=16)
    jax.block_until_ready(written_out(*args))
    theirs = [seconds(lambda i=i: written_out(jax.random.key(i), weights, obs)) for i in range(repeats)]
    total = preset.batch * preset.simulations
    median, other = float(np.median(times)), float(np.median(theirs))
    return {
        **preset._asdict(),
        "simulations_per_s": total / median,
        "ms_per_search": 1e3 * median,
        "mean_depth": float(np.mean(call(1)[1])),
        "peer_simulations_per_s": total / other,
        "peer_ratio": other / median,
        **share(flops, times, rate),
        **memory(compiled),
        "compile_s": compile_s,
    }
