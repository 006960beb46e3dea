"""``jmbrl render``: films and contact sheets of real episodes beside imagined ones, of dreams; maps of tables."""

import argparse
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks, dreaming, film
from jmbrl.cli import actions as written_actions
from jmbrl.envs.spaces import to_env
from jmbrl.rollout import evaluate
from jmbrl.types import Agent, Cells, Continuous, Env, Key, PyTree, Spec

FRAME, HOLD = 150, 3000  # ms, of the film of planning and of its last frame
DREAM_HOLD = 1500  # ms, of a dream's last frame
STEPS = 200


def add_commands(commands: Any) -> None:
    render = commands.add_parser("render", help="films of real frames beside imagined ones; of dreams; maps of tables")
    render.add_argument("dir")
    render.add_argument("--out", help="where (DIR/render)")
    render.add_argument("--seed", type=int, help="of the run (its first)")
    render.add_argument("--key", type=int, default=0, help="seed of the episode (0)")
    render.add_argument("--horizon", type=int, default=50, help="steps imagined before the model looks again (50)")
    render.add_argument("--context", type=int, default=5, help="observations the model sees at first (5)")
    render.add_argument("--max-steps", type=int, help=f"frames at most ({STEPS}, or as many as --actions)")
    render.add_argument("--dream", action="store_true", help="a dream alone, after --context frames (0: from nothing)")
    render.add_argument(
        "--actions", help=f"played in place of the agent's: {written_actions.FORM}; in the environment's units"
    )
    render.add_argument("--temperature", type=float, help="of the imagination, for models that have one")
    render.add_argument("--format", default="gif", help="of films: gif, mp4 or both (gif)")
    render.set_defaults(command=render_command)


def render_command(arguments: argparse.Namespace) -> int:
    from jmbrl import configs, runner

    film.require(arguments.format)
    if arguments.max_steps is not None:
        checks.integer("max_steps", arguments.max_steps, low=1)
    opened = runner.open_run(arguments.dir)
    agent, state, env = opened.agent, opened.one(arguments.seed).agent, opened.env
    played = None if arguments.actions is None else written_actions.parse(arguments.actions, env.spec)
    if arguments.dream or arguments.temperature is not None:
        agent = _dreaming(agent, opened.config["system"], arguments.temperature)
    key, target = checks.key(arguments.key), Path(arguments.out or Path(arguments.dir) / "render")
    milliseconds = round(1000 * (env.spec.dt or 0.05))
    if arguments.dream:
        limit = arguments.max_steps or (min(STEPS, env.spec.max_steps) if played is None else len(played))
        dreamt = dream(key, env, agent, state, limit, arguments.context, played)
        name, sheet, frames, hold = "dream", "dream_sheet.png", dream_frames(env, dreamt), DREAM_HOLD
    else:
        limit = arguments.max_steps or (STEPS if played is None else len(played))
        agent = agent if played is None else dreaming.replaying(agent, jnp.asarray(played[:limit]))
        limit = min(limit, env.spec.max_steps, *(() if played is None else (len(played),)))
        columns = rollout(key, env, agent, state, limit, arguments.horizon, arguments.context)
        frames = episode_frames(env, columns, arguments.horizon, arguments.context)
        name, sheet, hold = "episode", "sheet.png", 0
    target.mkdir(parents=True, exist_ok=True)
    written = film.save(target / name, frames, milliseconds, arguments.format, hold)
    written.append(film.save_sheet(target / sheet, frames))
    system = configs.find_system(opened.config["system"])
    if not arguments.dream and system.tables is not None and env.cells is not None:
        learned = system.tables(state, configs.settings_of(opened.config))
        written += draw_tables(target, key, env, env.cells, learned)
    print(*written, sep="\n", file=sys.stderr)
    return 0


def _dreaming(agent: Agent, system: str, temperature: float | None) -> Agent:
    """The agent with a model that dreams at ``temperature``."""
    params = agent.params
    if agent.model is None or params is None:
        raise ValueError(f"{system} has no model to dream in")
    if temperature is None:
        return agent
    return agent._replace(params=lambda state: dreaming.at_temperature(params(state), temperature))


def rollout(
    key: Key, env: Env, agent: Agent, state: PyTree, steps: int, horizon: int, context: int
) -> dict[str, np.ndarray]:
    """One episode without exploration, and the model's account of it under the same actions.

    Args:
      horizon: steps that the model imagines before it looks at the real observation again.
      context: real observations that it sees first; a recurrent model needs some.

    Returns:
      Observations ``[T + 1, ...]``: ``real``; ``reconstructed``, the decoded belief after each was seen, where that is
      not the observation itself (models whose belief is the observation, or holds it, draw nothing else); ``imagined``.
      An agent without a model has ``real`` only.
    """
    dreaming.looked(1, horizon, context)
    key, key_look, key_guess = jax.random.split(key, 3)
    seen = jax.jit(lambda key, state: evaluate(key, env, agent, state, 1, steps, trace=True))(key, state)
    length = int(seen["lengths"][0])
    observations = jax.tree.map(lambda x: x[: length + 1, 0], seen["observations"])
    actions = seen["actions"][:length, 0]
    columns = {"real": np.asarray(getattr(observations, "obs", observations))}  # a simulator is shown the state, too
    model, params = agent.model, agent.params
    if model is None or params is None or length == 0:
        return columns

    def account(state: PyTree, observations: PyTree, actions: PyTree) -> tuple[PyTree, PyTree]:
        dreamer = model, params(state)
        beliefs = dreaming.filtered(key_look, *dreamer, observations, actions)
        guess = dreaming.imagine_along(key_guess, *dreamer, beliefs, actions, horizon, context)
        return dreaming.reconstruct(*dreamer, beliefs), guess

    again, guess = jax.device_get(jax.jit(account)(state, observations, actions))
    if not np.allclose(again.astype(float), columns["real"].astype(float), 1e-4, 1e-5, equal_nan=True):
        columns["reconstructed"] = again
    return columns | {"imagined": guess}


def episode_frames(env: Env, columns: dict[str, np.ndarray], horizon: int, context: int) -> list[Any]:
    """Labelled pictures of ``rollout``'s columns, side by side."""
    draw, count = film.renderer(env), len(columns["real"])
    ahead = np.asarray(dreaming.ages(dreaming.looked(count - 1, horizon, context)))
    labels = {
        "real": [f"step {t}: real" for t in range(count)],
        "reconstructed": ["reconstructed"] * count,
        "imagined": [f"imagined {n} ahead" if n else "imagined from here" for n in ahead],
    }
    return film.beside(*(film.column([draw(obs) for obs in column], labels[name]) for name, column in columns.items()))


def dream(
    key: Key, env: Env, agent: Agent, state: PyTree, steps: int, context: int, actions: np.ndarray | None = None
) -> dreaming.Dream:
    """A dream of at most ``steps`` steps, up to where its end is likelier than not.

    Args:
      context: real frames before it.
      actions: the library's, of which the first ``steps`` are played. None: the agent plays, and is shown the decoded
        frames as if they were real.

    Raises:
      ValueError: the real episode ended within ``context`` frames.
    """
    checks.integer("context", context, low=0)
    model = agent.model
    assert model is not None  # render_command asked
    key_before, key = jax.random.split(key)

    @jax.jit
    def before(state: PyTree) -> tuple:
        return dreaming.lead_in(key_before, env, agent, state, agent.params(state), context)

    belief, carry, seen = before(state)
    if seen < context:
        raise ValueError(f"context must be at most {seen}: the episode of this key ended then; got {context}")

    @jax.jit
    def asleep(state: PyTree, belief: PyTree, carry: PyTree) -> dreaming.Dream:
        params = agent.params(state)
        if actions is not None:
            return dreaming.play(key, model, params, belief, jnp.asarray(actions[:steps]))
        policy = dreaming.policy_of(agent, state, context)
        return dreaming.dream(key, model, params, belief, policy, carry, steps)

    dreamt = jax.device_get(asleep(state, belief, carry))
    over = np.flatnonzero(dreamt.discounts < 0.5)
    length = int(over[0]) + 1 if len(over) else len(dreamt.discounts)
    return dreaming.Dream(dreamt.frames[: length + 1], *(x[:length] for x in dreamt[1:]))


def dream_frames(env: Env, dreamt: dreaming.Dream) -> list[Any]:
    """Labelled pictures of a dream; the action is the one that led there, in the environment's units."""
    draw, total, labels = film.renderer(env), 0.0, ["step 0\ndreams from here\n"]
    for t, (action, reward, discount) in enumerate(zip(*dreamt[1:], strict=True)):
        total += float(reward)
        end = "over" if discount < 0.5 else f"end {100 * (1 - discount):.0f} %"
        labels.append(f"step {t + 1}  {end}\naction {_text(env.spec, action)}\nreward {total:.2f}")
    return film.column([draw(obs) for obs in dreamt.frames], labels)


def _text(spec: Spec, action: np.ndarray) -> str:
    own = np.asarray(to_env(spec.action, jnp.asarray(action)))
    return " ".join(f"{x:.2f}" for x in own) if isinstance(spec.action, Continuous) else str(own)


def draw_tables(target: Path, key: Key, env: Env, cells: Cells, learned: Any) -> list[Path]:
    """A map of values and greedy actions, and a film of how planning fills in the values of the learned table.

    Args:
      target: the folder.
      key: of the random order in the film.
      env: where it was learned.
      cells: how its states are numbered.
      learned: of ``agents.tabular.learned``.
    """
    from jmbrl.diagnostics import figures, tables

    look = {"names": env.spec.obs_names, "start": tables.start_of(env)}
    title = f"{env.spec.name}: learned values and greedy policy"
    chart = tables.value_map(cells, learned.values, learned.table, title=title, **look)
    frames = tables.planning_frames(key, cells, learned.table, gamma=learned.gamma, initial=learned.initial, **look)
    film.save_gif(target / "planning.gif", frames, FRAME, HOLD)
    return [figures.save(chart, target / "values.png"), target / "planning.gif"]
