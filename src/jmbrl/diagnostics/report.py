"""Everything about the model of a trained agent: numbers and one figure, from episodes it was not fitted to."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jmbrl import checks, data
from jmbrl.diagnostics import figures
from jmbrl.diagnostics.calibration import calibration, calibration_by_horizon
from jmbrl.diagnostics.gradient_report import diagnose_gradients, save_gradients
from jmbrl.diagnostics.latent import CONTEXT, diagnose_latent
from jmbrl.diagnostics.latent_figures import save_latent
from jmbrl.diagnostics.model_error import model_error
from jmbrl.diagnostics.model_figures import model_page
from jmbrl.diagnostics.recalibration import recalibrate
from jmbrl.diagnostics.timing import act_latency
from jmbrl.diagnostics.uncertainty import variance_shares
from jmbrl.diagnostics.windows import open_loop, particles, vectors, watch
from jmbrl.train import make_train
from jmbrl.types import Agent, DataKind, Env, Key, Model, Params, PyTree, Transition

EPISODES, WINDOWS, CALLS = 4, 256, 100
MAX_STEPS = 500  # of an episode that is looked at
SEQUENCE_CONTEXT = CONTEXT  # observations that a recurrent model sees first
PARTICLES = 50
FAN_WINDOWS = 128  # whose futures are sampled, each PARTICLES times
MAX_DIMENSIONS = 256  # whose numbers are told one by one
NUMBERS = 2**21  # of the real windows, at most: images are looked at in fewer of them


def diagnose(directory: str | Path, seed: int | None = None, **options: Any) -> dict[str, Any]:
    """Examine the model of a run: writes ``diagnostics.json`` and ``diagnostics.png`` beside it.

    Of a model that filters sequences (``Model.watch``) the numbers have ``latent``, of ``diagnose_latent``, and there
    are ``latent.png`` and ``open_loop.gif`` or, of vectors, ``open_loop.png``. Of a policy that climbs derivatives
    (``Agent.ascent``) they have ``gradients``, of ``diagnose_gradients``, and there is ``gradients.png``.

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
    key = jax.random.key(seed)
    numbers, figure, seen = _examined(opened.env, opened.agent, state, key, **options)
    config = opened.config
    about = {"system": config["system"], "env": config["env"], "seed": seed, "env_steps": opened.env_steps}
    numbers = about | (without_pixels(numbers) if np.prod(opened.env.spec.obs_shape) > MAX_DIMENSIONS else numbers)
    title = f"{about['system']} on {about['env']}, seed {seed}, {opened.env_steps} steps"
    if opened.agent.model.watch is not None:
        report = diagnose_latent(jax.random.fold_in(key, 1), opened.agent, state, seen)
        numbers["latent"] = jax.tree.map(_plain, report.numbers)
        save_latent(directory, opened.env.spec, report, title)
    if opened.agent.ascent is not None:
        gradients = diagnose_gradients(jax.random.fold_in(key, 2), opened.agent, state)
        numbers["gradients"] = jax.tree.map(_plain, gradients)
        save_gradients(directory, gradients, title)
    figure.suptitle(title, fontsize="medium")
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
    episodes: int = EPISODES,
    windows: int = WINDOWS,
    calls: int = CALLS,
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
      Numbers, JSON-able, and the figure. Parts that a model cannot answer are None: ``calibration`` and
      ``recalibration`` (the factor on each dimension's standard deviation that would mend it) need ``predict``,
      ``variance_shares`` an ensemble of models with it. Always there: ``model_error``, ``calibration_by_horizon``,
      ``act_latency`` with ``keeps_up``, ``episode_return`` (mean over the episodes that ended) and ``horizon``.

    Raises:
      ValueError: the agent has no model.
    """
    return _examined(env, agent, agent_state, key, horizon, episodes, windows, calls)[:2]


def _examined(
    env: Env,
    agent: Agent,
    agent_state: PyTree,
    key: Key,
    horizon: int | None = None,
    episodes: int = EPISODES,
    windows: int = WINDOWS,
    calls: int = CALLS,
) -> tuple[dict[str, Any], Figure, data.Replay]:
    """``diagnose_agent``, and the episodes that it looked at."""
    if agent.model is None or agent.params is None:
        raise ValueError("agent must have a model to be diagnosed, got one without (agent.model is None)")
    steps = min(env.spec.max_steps, MAX_STEPS)
    context = min(SEQUENCE_CONTEXT if agent.model.data_kind is DataKind.SEQUENCES else 1, steps)
    horizon = checks.integer("horizon", min(25, steps - context + 1) if horizon is None else horizon, 1)
    windows = min(checks.integer("windows", windows, 1), fitting_windows(env.spec.obs_shape, horizon + context))
    key_data, key_model, key_episode, key_act = jax.random.split(key, 4)
    seen, returns = collect(key_data, env, agent, agent_state, episodes, steps)
    model, params = agent.model, agent.params(agent_state)
    first = jax.tree.map(lambda x: x[0, 0], seen.data.obs)
    numbers = {
        "horizon": horizon,
        "context": context,
        **examine(key_model, model, params, seen, horizon, windows, context),
        "act_latency": act_latency(key_act, agent, agent_state, first, calls, env.spec.dt),
        "episode_return": float(np.mean(returns)) if len(returns) else None,
    }
    numbers = jax.tree.map(_plain, numbers)
    episode = imagined_episode(key_episode, model, params, seen, context)
    return numbers, model_page(numbers, episode, env.spec.obs_names), seen


def examine(
    key: Key, model: Model, params: Params, seen: data.Replay, horizon: int, windows: int, context: int
) -> dict[str, Any]:
    """Everything that is asked of the model alone; None for what it cannot answer."""
    key_error, key_one, key_map, key_fan, key_shares = jax.random.split(key, 5)
    one_step = shares = factor = None
    if model.predict is not None:
        one_step = calibration(key_one, model, params, seen, context=context)
        factor = recalibrate(key_map, model, params, seen, context=context).std
    if model.member is not None and model.member.predict is not None:
        shares = variance_shares(key_shares, model, params, seen, context=context)
    fans = min(windows, FAN_WINDOWS)
    return {
        "model_error": model_error(key_error, model, params, seen, horizon, windows, context),
        "calibration": one_step,
        "recalibration": factor,
        "calibration_by_horizon": calibration_by_horizon(
            key_fan, model, params, seen, horizon, fans, context, PARTICLES
        ),
        "variance_shares": shares,
    }


def fitting_windows(obs_shape: tuple[int, ...], length: int) -> int:
    """How many windows of ``length`` rows stay below ``NUMBERS`` numbers, at least 8."""
    return max(8, NUMBERS // (length * max(1, int(np.prod(obs_shape)))))


def without_pixels(numbers: dict[str, Any]) -> dict[str, Any]:
    """The numbers without those of each dimension, which for an image are its pixels."""
    each = ("per_dim", "scale")
    return {
        name: without_pixels(value) if isinstance(value, dict) else value
        for name, value in numbers.items()
        if name not in each
    }


def _plain(x: Any) -> Any:
    return x if isinstance(x, bool | int | float) else np.asarray(x).tolist()


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

        def record(ring: data.Replay, carry: PyTree, rows: Transition, valid: jax.Array) -> data.Replay:
            return data.add(ring, rows, valid)

        watcher = Agent(init, lambda ring: agent.reset(state), act, record, players=agent.players)
        run, metrics = make_train(env, watcher, steps * episodes, num_envs=episodes)(key)
        return run.agent, metrics["episode_return"]

    ring, returns = watch_it(key, agent_state)
    returns = np.asarray(returns)
    return ring, returns[~np.isnan(returns)]


def imagined_episode(key: Key, model: Model, params: Params, seen: data.Replay, context: int) -> dict[str, np.ndarray]:
    """The first episode of a replay and its imagination from its first observations under the same actions.

    Returns:
      ``real[T, D]`` and ``imagined[T, 50, D]``, sampled; of an ensemble also ``members[T, M, D]``, each on its own and
      without noise.
    """
    rows = jax.tree.map(lambda x: x[:, :1], seen.data)
    going = np.asarray(seen.valid[:, 0] & ~seen.is_first[:, 0].at[0].set(False))
    length = max(int(np.argmin(going)) if not going.all() else len(going), context)

    @jax.jit
    def compute(key: Key, params: Params, rows: PyTree) -> dict[str, jax.Array]:
        key_watch, key_roll, key_members = jax.random.split(key, 3)
        belief = watch(key_watch, model, params, jax.tree.map(lambda x: x[:context], rows))
        actions = rows.action[context - 1 :]
        start = jax.tree.map(lambda x: x[0], belief)
        out = {"imagined": particles(key_roll, model, params, start, actions[:, 0], PARTICLES)}
        if model.members:
            out["members"] = jnp.swapaxes(open_loop(key_members, model, params, belief, actions)[0][:, :, 0], 0, 1)
        return out

    paths = {name: np.asarray(x)[: length - context + 1] for name, x in compute(key, params, rows).items()}
    return {"real": np.asarray(vectors(rows.next_obs, 2))[context - 1 : length, 0], **paths}
