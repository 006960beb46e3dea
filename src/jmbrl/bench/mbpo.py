"""What a run of MBPO spends its time on: updates of soft actor-critic, rollouts of its policy, and whole periods.

Sizes are those of Janner et al. 2019 for HalfCheetah. A row's ``fraction`` is as in ``bench.models``: the multiply-adds
of the networks' matrices over the measured time and over the machine's matmul rate in these shapes. ``ratio`` is the
time of the same work in eager PyTorch (``bench.torch_sac``) over ours, where PyTorch is installed.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import agents, checks, data, learners
from jmbrl.agents.imagination import features, imagined_paths
from jmbrl.agents.mbpo import policy_learner
from jmbrl.bench.mbpo_work import (
    Work,
    batch,
    batches,
    ensemble,
    fit_flops,
    space,
    transition_flops,
    update_flops,
    world,
)
from jmbrl.bench.measure import compiled_ahead, memory, peak_bytes, seconds, share, timed
from jmbrl.train import make_train
from jmbrl.types import Array, Env, Key, Learner, Model, Params, PyTree, Transition

CHAIN = 50  # products in one call of the yardstick: one of 256 rows takes hardly longer than calling it
TORCH_SECONDS = 60.0  # calls of the peer begin within so long
REPEATS = {"sac": 20, "rollout": 10, "run": 3}


def mbpo(preset: Work, repeats: int | None = None) -> dict[str, Any]:
    """One part of MBPO, warm.

    Args:
      preset: the part and its sizes.
      repeats: timed calls; None: 20 of ``sac``, 10 of ``rollout``, 3 periods of ``run``.

    Returns:
      ``share``'s numbers, ``program_mb``, ``peak_mb``, ``base_mb`` (the process before it built anything) and
      ``compile_s``. ``sac``: ``updates_per_s``, ``ms_per_update``; ``rollout``: ``transitions_per_s``, ``ms_p50``;
      ``run``: ``env_steps_per_s``, ``ms_per_env_step``, the shares ``share_sac``, ``share_fit``, ``share_rollout`` and
      ``share_rest`` of the time, and ``fit_updates``, gradient steps of the model a period. Of the first two also
      ``torch`` (its version, or why there is none), ``torch_ms``, ``ratio`` of the best calls and ``ratio_p50``.

    Raises:
      ValueError: an unknown part, or a size out of range.
    """
    part = checks.choice("part", preset.part, tuple(REPEATS))
    repeats = checks.integer("repeats", REPEATS[part] if repeats is None else repeats, 1)
    for name in ("updates", "batch_size", "rollouts", "horizon", "obs", "action"):
        checks.integer(name, getattr(preset, name), 1)
    base = peak_bytes()
    row = {"sac": sac_updates, "rollout": model_rollout, "run": whole_periods}[part](preset, repeats)
    return {**preset._asdict(), **row, "base_mb": base / 1e6}


# --------------------------------------------------------------------------------------------------- the parts


def sac_updates(work: Work, repeats: int) -> dict[str, Any]:
    """``updates`` in one scan over batches drawn beforehand, as the agent makes them after each real step."""
    learner = learners.sac(space(work), work.obs, hidden=work.policy_hidden)
    state, rows = learner.init(jax.random.key(0)), batches(work)

    def improve(key: Key, state: PyTree, rows: Transition) -> tuple[PyTree, dict]:
        return jax.lax.scan(
            lambda state, x: learner.update(x[0], state, x[1]), state, (jax.random.split(key, work.updates), rows)
        )

    compiled, compile_s = compiled_ahead(improve, jax.random.key(0), state, rows)
    jax.block_until_ready(compiled(jax.random.key(0), state, rows))
    sizes = memory(compiled)
    call = lambda i: compiled(jax.random.key(i), state, rows)  # noqa: E731
    times, rate = timed(call, repeats, 2, 2 * work.batch_size, work.policy_hidden[-1], CHAIN)  # the twins' product
    flops = work.updates * work.batch_size * update_flops(work.obs, work.action, work.policy_hidden)
    return {
        "updates_per_s": work.updates / np.median(times),
        "ms_per_update": 1e3 * np.median(times) / work.updates,
        **share(flops, times, rate),
        **sizes,
        "compile_s": compile_s,
        **against_torch("updates", work, times, repeats),
    }


def model_rollout(work: Work, repeats: int) -> dict[str, Any]:
    """``agents.imagination.imagined_paths`` of a policy that explores, from ``rollouts`` observations at once."""
    model = ensemble(work)
    learner = learners.sac(space(work), work.obs, hidden=work.policy_hidden)
    obs = jax.random.normal(jax.random.key(0), (work.rollouts, work.obs))
    params = model.set_stats(model.init(jax.random.key(1)), batch(work, 1000), np.ones(1000, bool))
    args = params, learner.init(jax.random.key(2)), obs
    imagine = imagination(model, learner, work.horizon)
    compiled, compile_s = compiled_ahead(imagine, jax.random.key(0), *args)
    jax.block_until_ready(compiled(jax.random.key(0), *args))
    sizes = memory(compiled)
    call = lambda i: compiled(jax.random.key(i), *args)  # noqa: E731
    # Rows are dealt out to the elites: the product of a layer has as many members.
    times, rate = timed(call, repeats, work.elites, work.rollouts, work.hidden[-1])
    transitions = work.rollouts * work.horizon
    return {
        "transitions_per_s": transitions / np.median(times),
        "ms_p50": 1e3 * np.median(times),
        **share(transitions * transition_flops(work, params), times, rate),
        **sizes,
        "compile_s": compile_s,
        **against_torch("rollout", work, times, repeats),
    }


def whole_periods(work: Work, repeats: int) -> dict[str, Any]:
    """``repeats`` periods of ``make_train``, after the warm-up and a first one; then its parts by themselves."""
    env = world(work)
    config = agents.MBPOConfig(
        members=work.members, elites=work.elites, hidden=work.hidden, weight_decay=(0.0,) * (len(work.hidden) + 1),
        rollouts=work.rollouts, rollout=(0, 1, work.horizon, work.horizon), policy_hidden=work.policy_hidden,
        batch_size=work.batch_size, updates=work.updates, fit_every=work.fit_every, warmup=work.warmup,
        capacity=work.warmup + work.fit_every * (repeats + 1),
    )  # fmt: skip
    train = make_train(env, agents.mbpo(env, config), config.capacity)
    key = jax.random.key(0)
    run = jax.jit(train.init)(key)
    run, _ = jax.jit(lambda run: train.chunk(key, run, 0, work.warmup, warmup=True), donate_argnums=0)(run)
    period = lambda run, step: train.chunk(key, run, step, work.fit_every)  # noqa: E731
    compiled, compile_s = compiled_ahead(period, run, jnp.int32(work.warmup), donate=(0,))
    fits: list[float] = []

    def call(i: int) -> Array:
        nonlocal run
        run, metrics = compiled(run, jnp.int32(work.warmup + i * work.fit_every))
        fits.append(float(metrics["model/updates"][0]))
        return metrics["reward"]

    times, rate = timed(call, repeats, 2, 2 * work.batch_size, work.policy_hidden[-1], CHAIN)
    sizes, total, fit_updates = memory(compiled), float(np.mean(times)), float(np.mean(fits[1:]))
    parts = seconds_of_parts(train.agent, env, config, run.agent, work)
    shares = {"sac": work.fit_every * parts["improve"], "fit": fit_updates * parts["fit_update"]}
    shares = {f"share_{name}": value / total for name, value in (shares | {"rollout": parts["rollout"]}).items()}
    flops = work.fit_every * work.updates * work.batch_size * update_flops(work.obs, work.action, work.policy_hidden)
    flops += work.rollouts * work.horizon * transition_flops(work, run.agent.params)
    flops += fit_updates * fit_flops(work, run.agent.params, config.model_batch_size)
    return {
        "env_steps_per_s": work.fit_every / total,
        "ms_per_env_step": 1e3 * total / work.fit_every,
        **shares,
        "share_rest": 1.0 - sum(shares.values()),
        "fit_updates": fit_updates,
        **share(flops, times, rate),
        **sizes,
        "compile_s": compile_s,
    }


def seconds_of_parts(agent: Any, env: Env, config: agents.MBPOConfig, state: PyTree, work: Work) -> dict[str, float]:
    """Best of three warm calls: ``improve`` (the updates of one step), ``rollout`` (of one period), ``fit_update``."""
    key, step = jax.random.key(1), jnp.int32(work.warmup)
    fit, improve = (jax.jit(update) for _, update in agent.phases)
    imagine = jax.jit(imagination(agent.model, policy_learner(env.spec, agent.model, config), work.horizon))
    obs = data.sample(key, state.replay, work.rollouts).obs
    calls: dict[str, Callable] = {
        "improve": lambda: improve(key, state, step),
        "rollout": lambda: imagine(key, state.params, state.learner, obs),
        "fit": lambda: fit(key, state, step),
    }
    best = {}
    for name, call in calls.items():
        jax.block_until_ready(call())
        best[name] = min(seconds(call) for _ in range(3))
    updates = float(fit(key, state, step)[1]["model/updates"])
    return best | {"fit_update": max(best["fit"] - best["rollout"], 0.0) / max(updates, 1.0)}


def imagination(model: Model, learner: Learner, horizon: int) -> Callable:
    """``(key, params, learner_state, obs[N]) -> Paths``."""

    def imagine(key: Key, params: Params, state: PyTree, obs: Array) -> PyTree:
        step_many = lambda key, beliefs, actions: model.step_many(key, params, beliefs, actions)  # noqa: E731
        look = lambda belief: features(model, params, None, belief)  # noqa: E731
        act = lambda key, x: learner.act(key, state, x, True)[0]  # noqa: E731
        return imagined_paths(key, step_many, look, act, obs, horizon)

    return imagine


# ------------------------------------------------------------------------------------------------- beside PyTorch


def against_torch(what: str, work: Work, times: np.ndarray, repeats: int) -> dict[str, Any]:
    """The same work in eager PyTorch, warm, after ours: its threads may wait busily for a while."""
    if importlib.util.find_spec("torch") is None:
        return {"torch": "skipped: not installed"}
    from jmbrl.bench import torch_sac

    call = torch_sac.updates(work) if what == "updates" else torch_sac.rollout(work)
    call()
    taken: list[float] = []
    while len(taken) < repeats and (not taken or sum(taken) < TORCH_SECONDS):
        taken.append(seconds(call))
    return {
        "torch": torch_sac.version(),
        "torch_calls": len(taken),
        "torch_ms": 1e3 * float(np.median(taken)) / (work.updates if what == "updates" else 1),
        "ratio": min(taken) / times.min(),
        "ratio_p50": np.median(taken) / np.median(times),
    }
