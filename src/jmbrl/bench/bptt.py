"""One gradient step of a policy through an ensemble, against the horizon: time, and the memory that the way back needs.

The step of ``learners.bptt`` as ``agents.bptt`` takes it, from made-up states. The arithmetic of its products is
counted in the program as it is written (``bench.products``), so what ``rematerialise`` computes twice counts twice; the
yardstick is the product of one imagined step of the ensemble, all members together.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import agents, checks, configs
from jmbrl.agents.bptt import climber, ensemble_of, world_in
from jmbrl.agents.imagination import beliefs_of
from jmbrl.bench import mbpo_work
from jmbrl.bench.measure import compiled_ahead, memory, peak_bytes, share, timed
from jmbrl.bench.products import products, total_flops
from jmbrl.types import Array

REPEATS = 10


class Work(NamedTuple):
    """``batch_size`` trajectories of ``horizon`` steps through ``members`` networks, halfcheetah's sizes."""

    horizon: int = 20
    rematerialise: bool = False
    truncation: int | None = None
    terminal_value: bool = False
    batch_size: int = 100
    members: int = 5
    hidden: tuple[int, ...] = (200, 200)
    policy_hidden: tuple[int, ...] = (64, 64)
    obs: int = 17
    action: int = 6


HORIZONS = (10, 30, 100, 300, 1000)
WORK = {
    f"horizon_{horizon}{'_rematerialised' if again else ''}": Work(horizon, again)
    for horizon in HORIZONS
    for again in (False, True)
}


def bptt(preset: Work, repeats: int | None = None) -> dict[str, Any]:
    """One gradient step, warm.

    Args:
      preset: the sizes.
      repeats: timed steps; None: 10.

    Returns:
      ``updates_per_s`` and ``ms_per_update`` (median), ``imagined_per_s`` (steps of single trajectories), ``share``'s
      numbers, ``compile_s``, ``program_mb`` (arguments, results and temporaries), ``peak_mb`` and ``base_mb`` (the
      process before it built anything).

    Raises:
      ValueError: a number out of range.
    """
    repeats = checks.integer("repeats", REPEATS if repeats is None else repeats, 1)
    for name in ("batch_size", "members", "obs", "action"):
        checks.integer(name, getattr(preset, name), 1)
    base, env = peak_bytes(), mbpo_work.world(mbpo_work.Work(obs=preset.obs, action=preset.action))
    fields = [name for name in preset._fields if name not in ("obs", "action")]
    decay = (0.0,) * (len(preset.hidden) + 1)
    wanted = {name: getattr(preset, name) for name in fields} | {"weight_decay": decay, "learn_reward": True}
    config = configs.make_config(agents.BPTTConfig, wanted)
    model = ensemble_of(env, config)
    learner = climber(env.spec, model, config)
    key = jax.random.key(0)
    params, state = model.init(key), learner.init(key)
    obs = jnp.asarray(np.random.default_rng(0).normal(size=(preset.batch_size, preset.obs)), jnp.float32)
    beliefs = beliefs_of(key, model, env.spec, params, obs)

    def step(key: Array, state: Any, params: Any, beliefs: Any) -> tuple[Any, dict[str, Array]]:
        return learner.update(key, state, world_in(model, params), beliefs)

    flops = total_flops(products(step, key, state, params, beliefs))
    compiled, compile_s = compiled_ahead(step, key, state, params, beliefs)
    call = lambda i: compiled(jax.random.key(i), state, params, beliefs)  # noqa: E731
    times, rate = timed(call, repeats, preset.members, preset.batch_size, preset.hidden[0])
    median = float(np.median(times))
    return {
        **preset._asdict(),
        "updates_per_s": 1.0 / median,
        "ms_per_update": 1e3 * median,
        "imagined_per_s": preset.batch_size * preset.horizon / median,
        **share(flops, times, rate),
        **memory(compiled),
        "compile_s": compile_s,
        "base_mb": base / 1e6,
    }
