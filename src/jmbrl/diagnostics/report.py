"""Everything about the model of a trained agent: numbers and one figure, from episodes it was not fitted to."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jmbrl import checks, data
from jmbrl.diagnostics import figures
from jmbrl.diagnostics.calibration import calibration
from jmbrl.diagnostics.model_error import model_error
from jmbrl.diagnostics.model_figures import model_page
from jmbrl.diagnostics.timing import act_latency
from jmbrl.diagnostics.windows import particles, vectors, watch
from jmbrl.train import make_train
from jmbrl.types import Agent, DataKind, Env, Key, Model, Params, PyTree

MAX_STEPS = 500  # of an episode that is looked at
SEQUENCE_CONTEXT = 5  # observations that a recurrent model sees first
PARTICLES = 50


def diagnose(directory: str | Path, seed: int | None = None, **options: Any) -> dict[str, Any]:
    """Examine the model of a run: writes ``diagnostics.json`` and ``diagnostics.png`` beside it.

    Args:
      directory: of a run made by ``jmbrl train``; its newest intact checkpoint is read.
      seed: which of its seeds; the first by default.
      options: of ``diagnose_agent``.

    Returns:
      The numbers, with ``system``, ``env``, ``seed`` and ``env_steps``.

    Raises:
      ValueError: no run there, an unknown seed, or a system without a model.
      CheckpointError: no checkpoint can be read.
    """
    from jmbrl.runner import open_run
    from jmbrl.writers import write_json

    opened = open_run(directory)
    state = opened.one(seed).agent
    seed = opened.seeds[0] if seed is None else seed
    numbers, figure = diagnose_agent(opened.env, opened.agent, state, jax.random.key(seed), **options)
    config = opened.config
    about = {"system": config["system"], "env": config["env"], "seed": seed, "env_steps": opened.env_steps}
    numbers = about | numbers
    figure.suptitle(f"{about['system']} on {about['env']}, seed {seed}, {opened.env_steps} steps", fontsize="medium")
    write_json(Path(directory) / "diagnostics.json", numbers)
    figures.save(figure, Path(directory) / "diagnostics.png")
    return numbers


def diagnose_agent(
    env: Env,
    agent: Agent,
    agent_state: PyTree,
    key: Key,
    *,
    horizon: int | None = None,
    episodes: int = 4,
    windows: int = 256,
    calls: int = 100,
) -> tuple[dict[str, Any], Figure]:
    """Let an agent act in fresh episodes, without exploration, and hold its model against what happened.

    Args:
      env, agent, agent_state: as trained; the state is left as it is.
      key: consumed.
      horizon: imagined steps; 25 by default, less where episodes are shorter.
      episodes: how many, side by side, of at most 500 steps.
      windows: of ``model_error``.
      calls: of ``latency``.

    Returns:
      Numbers, JSON-able: ``model_error``, ``calibration`` (None where the model predicts no intervals),
      ``act_latency``, ``episode_return`` (mean over the episodes that ended) and ``horizon``; and the figure.

    Raises:
      ValueError: the agent has no model.
    """
    if agent.model is None:
        raise ValueError("agent must have a model to be diagnosed, got one without (agent.model is None)")
    steps = min(env.spec.max_steps, MAX_STEPS)
    context = min(SEQUENCE_CONTEXT if agent.model.data_kind is DataKind.SEQUENCES else 1, steps)
    horizon = checks.integer("horizon", min(25, steps - context + 1) if horizon is None else horizon, 1)
    key_data, key_error, key_calibration, key_episode, key_act = jax.random.split(key, 5)
    seen, returns = collect(key_data, env, agent, agent_state, episodes, steps)
    model, params = agent.model, agent.params(agent_state)
    spread = None
    if model.predict is not None:
        spread = calibration(key_calibration, model, params, seen, context=context)
    first = jax.tree.map(lambda x: x[0, 0], seen.data.obs)
    numbers = {
        "horizon": horizon,
        "context": context,
        "model_error": model_error(key_error, model, params, seen, horizon, windows, context),
        "calibration": spread,
        "act_latency": act_latency(key_act, agent, agent_state, first, calls),
        "episode_return": float(np.mean(returns)) if len(returns) else None,
    }
    numbers = jax.tree.map(lambda x: x if isinstance(x, int | float) else np.asarray(x).tolist(), numbers)
    episode = imagined_episode(key_episode, model, params, seen, context)
    return numbers, model_page(numbers, episode, env.spec.obs_names)


def collect(
    key: Key, env: Env, agent: Agent, agent_state: PyTree, episodes: int, steps: int
) -> tuple[data.Replay, np.ndarray]:
    """What an agent sees when it acts without exploring: a replay ``[steps, episodes]`` and the returns of the
    episodes that ended. The ordinary run loop, around an agent that remembers and does not learn."""
    _, obs = jax.eval_shape(env.reset, key)

    def init(key: Key, num_envs: int) -> data.Replay:
        ring = data.empty(env.spec, steps, num_envs)
        # Not from the spec: with the true state beside it an observation is more than an array.
        blank = jax.tree.map(lambda x: jnp.zeros((steps, num_envs, *x.shape), x.dtype), obs)
        return ring._replace(data=ring.data._replace(obs=blank, next_obs=blank))

    @jax.jit
    def watch_it(key: Key, state: PyTree) -> tuple[data.Replay, jax.Array]:
        def act(key: Key, ring: data.Replay, carry: PyTree, obs: PyTree, is_first: jax.Array, explore: bool) -> tuple:
            return agent.act(key, state, carry, obs, is_first, False)

        watcher = Agent(init, lambda ring: agent.reset(state), act, data.add)
        run, metrics = make_train(env, watcher, steps * episodes, num_envs=episodes)(key)
        return run.agent, metrics["episode_return"]

    ring, returns = watch_it(key, agent_state)
    returns = np.asarray(returns)
    return ring, returns[~np.isnan(returns)]


def imagined_episode(key: Key, model: Model, params: Params, seen: data.Replay, context: int) -> dict[str, np.ndarray]:
    """The first episode of a replay and its imagination from its first observations under the same actions.

    Returns:
      ``real[T, D]`` and ``imagined[T, 50, D]``, sampled.
    """
    rows = jax.tree.map(lambda x: x[:, :1], seen.data)
    going = np.asarray(seen.valid[:, 0] & ~seen.is_first[:, 0].at[0].set(False))
    length = max(int(np.argmin(going)) if not going.all() else len(going), context)

    @jax.jit
    def compute(key: Key, params: Params, rows: PyTree) -> jax.Array:
        key_watch, key_roll = jax.random.split(key)
        belief = watch(key_watch, model, params, jax.tree.map(lambda x: x[:context], rows))
        start = jax.tree.map(lambda x: x[0], belief)
        return particles(key_roll, model, params, start, rows.action[context - 1 :, 0], PARTICLES)

    imagined = np.asarray(compute(key, params, rows))[: length - context + 1]
    return {"real": np.asarray(vectors(rows.next_obs, 2))[context - 1 : length, 0], "imagined": imagined}
