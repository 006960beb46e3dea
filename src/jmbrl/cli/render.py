"""``jmbrl render``: a GIF of a real episode beside what the model imagines of it, a contact sheet, maps of tables."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.rollout import evaluate
from jmbrl.types import Agent, Array, Cells, Env, Key, PyTree

HEIGHT, TITLE, GAP = 160, 16, 6  # pixels
FRAME, HOLD = 150, 3000  # ms, of the film of planning and of its last frame
SHEET_COLUMNS = 8


def add_commands(commands: Any) -> None:
    render = commands.add_parser("render", help="a GIF of real frames beside imagined ones; maps of tables")
    render.add_argument("dir")
    render.add_argument("--out", help="where (DIR/render)")
    render.add_argument("--seed", type=int, help="of the run (its first)")
    render.add_argument("--key", type=int, default=0, help="seed of the episode (0)")
    render.add_argument("--horizon", type=int, default=50, help="steps imagined before the model looks again (50)")
    render.add_argument("--context", type=int, default=5, help="observations the model sees at first (5)")
    render.add_argument("--max-steps", type=int, default=200, help="frames at most (200)")
    render.set_defaults(command=render_command)


def render_command(arguments: argparse.Namespace) -> int:
    from jmbrl import configs, runner

    opened = runner.open_run(arguments.dir)
    steps = min(checks.integer("max_steps", arguments.max_steps, low=1), opened.env.spec.max_steps)
    state = opened.one(arguments.seed).agent
    real, guess = rollout(
        checks.key(arguments.key), opened.env, opened.agent, state, steps, arguments.horizon, arguments.context
    )
    draw = renderer(opened.env)
    frames = [_labelled(draw(obs), f"step {t}: real") for t, obs in enumerate(real)]
    if guess is not None:
        imagined = [_labelled(draw(obs), "imagined") for obs in guess]
        frames = [_beside(a, b) for a, b in zip(frames, imagined, strict=True)]
    target = Path(arguments.out or Path(arguments.dir) / "render")
    target.mkdir(parents=True, exist_ok=True)
    milliseconds = round(1000 * (opened.env.spec.dt or 0.05))
    save_gif(target / "episode.gif", frames, milliseconds)
    save_sheet(target / "sheet.png", frames)
    written = [target / "episode.gif", target / "sheet.png"]
    system = configs.find_system(opened.config["system"])
    if system.tables is not None and opened.env.cells is not None:
        learned = system.tables(state, configs.settings_of(opened.config))
        written += draw_tables(target, checks.key(arguments.key), opened.env, opened.env.cells, learned)
    print(*written, sep="\n", file=sys.stderr)
    return 0


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
    save_gif(target / "planning.gif", frames, FRAME, HOLD)
    return [figures.save(chart, target / "values.png"), target / "planning.gif"]


def rollout(
    key: Key, env: Env, agent: Agent, state: PyTree, steps: int, horizon: int, context: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """One episode without exploration, and the model's open-loop account of it under the same actions.

    Args:
      horizon: steps that the model imagines before it looks at the real observation again.
      context: real observations that it sees first; a recurrent model needs some.

    Returns:
      Real observations ``[T + 1, ...]`` and imagined ones, None where the agent has no model.
    """
    checks.integer("horizon", horizon, low=1)
    checks.integer("context", context, low=1)
    key, key_model = jax.random.split(key)
    played = jax.jit(lambda key, state: evaluate(key, env, agent, state, 1, steps, trace=True))(key, state)
    length = int(played["lengths"][0])
    observations, actions = played["observations"][: length + 1, 0], played["actions"][:length, 0]
    if agent.model is None or agent.params is None or length == 0:
        return np.asarray(observations), None
    guess = jax.jit(lambda key, state, obs, actions: _imagined(key, state, obs, actions, agent, horizon, context))(
        key_model, state, observations, actions
    )
    return np.asarray(observations), np.asarray(guess)


def _imagined(
    key: Key, state: PyTree, observations: Array, actions: Array, agent: Agent, horizon: int, context: int
) -> Array:
    model, params = agent.model, agent.params(state)
    key, key_first = jax.random.split(key)
    belief = model.encode(
        key_first, params, model.initial(params), jnp.zeros_like(actions[0]), observations[0], jnp.asarray(True)
    )

    def body(belief: PyTree, inputs: tuple) -> tuple[PyTree, Array]:
        key, t, action, obs = inputs
        key_step, key_look = jax.random.split(key)
        following, _ = model.step(key_step, params, belief, action)
        seen = model.encode(key_look, params, belief, action, obs, jnp.asarray(False))
        looks = (t < context) | (t % horizon == 0)
        kept = jax.tree.map(lambda new, old: jnp.where(looks, new, old), seen, following)
        return kept, model.decode(params, following)

    count = len(actions)
    inputs = (jax.random.split(key, count), jnp.arange(1, count + 1), actions, observations[1:])
    _, guess = jax.lax.scan(body, belief, inputs)
    return jnp.concatenate([model.decode(params, belief)[None].astype(guess.dtype), guess])


def renderer(env: Env) -> Callable[[np.ndarray], np.ndarray]:
    """Observation to image: the environment's own drawing, the image itself, or bars for a vector."""
    if env.render is not None:
        return lambda obs: np.asarray(env.render(obs))
    if len(env.spec.obs_shape) == 3:
        return _as_image
    return _bars


def _as_image(obs: np.ndarray) -> np.ndarray:
    image = np.clip(obs if np.issubdtype(obs.dtype, np.integer) else np.nan_to_num(obs) * 255, 0, 255).astype(np.uint8)
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image[..., :3]


def _bars(obs: np.ndarray) -> np.ndarray:
    """One bar an entry, squashed to (-1, 1) so that one scale serves all."""
    values = np.tanh(np.nan_to_num(np.asarray(obs, float).reshape(-1)))
    image = np.full((HEIGHT, HEIGHT, 3), 255, np.uint8)
    edges = np.linspace(8, HEIGHT - 8, len(values) + 1).astype(int)
    middle = HEIGHT // 2
    for value, left, right in zip(values, edges[:-1], edges[1:], strict=True):
        end = middle - round(value * (middle - 8))
        low, high = sorted((middle, end))
        image[low : high + 1, left : max(right - 1, left + 1)] = (0, 114, 178)
    image[middle] = (120, 120, 120)
    return image


def _labelled(image: np.ndarray, text: str) -> Any:
    from PIL import Image, ImageDraw

    picture = Image.fromarray(np.asarray(image, np.uint8))
    scale = HEIGHT / picture.height
    picture = picture.resize((max(1, round(picture.width * scale)), HEIGHT), Image.Resampling.NEAREST)
    framed = Image.new("RGB", (picture.width, HEIGHT + TITLE), "white")
    framed.paste(picture, (0, TITLE))
    pen = ImageDraw.Draw(framed)
    pen.text((4, 2), text, fill="black")
    pen.rectangle((0, TITLE, framed.width - 1, framed.height - 1), outline="#BBBBBB")
    return framed


def _beside(left: Any, right: Any) -> Any:
    from PIL import Image

    both = Image.new("RGB", (left.width + GAP + right.width, max(left.height, right.height)), "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width + GAP, 0))
    return both


def save_gif(path: Path, frames: list, milliseconds: int, hold: int = 0) -> None:
    """An endless GIF that holds its last frame longer; browsers slow down frames shorter than 20 ms."""
    durations = [max(20, milliseconds)] * len(frames)
    durations[-1] += hold
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0)


def save_sheet(path: Path, frames: list, columns: int = SHEET_COLUMNS) -> None:
    """Frames spread evenly over the episode, stacked downwards in a grid."""
    from PIL import Image

    chosen = [frames[i] for i in np.unique(np.linspace(0, len(frames) - 1, 2 * columns).round().astype(int))]
    width, height = frames[0].size
    per_row = max(1, min(columns, 1600 // width))
    rows = -(-len(chosen) // per_row)
    sheet = Image.new("RGB", (per_row * width, rows * height), "white")
    for i, frame in enumerate(chosen):
        sheet.paste(frame, (i % per_row * width, i // per_row * height))
    sheet.save(path)
