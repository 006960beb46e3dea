"""Films of what a model makes of an episode: a world whose pixels count, and a model that is wrong by known amounts."""

import dataclasses
import subprocess
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from PIL import Image

from jmbrl import agents, cache, dreaming, envs, film
from jmbrl.agents.system import System
from jmbrl.cli import actions, main, render
from jmbrl.envs import registry
from jmbrl.types import Agent, Continuous, Discrete, Model, Outcome, Params, Spec

from worlds import line

END = 20


def picture(count, seen=0):
    """``uint8[4, 4, 1]``: ten times the count in the first pixel, frames seen in the second."""
    pixels = jnp.zeros(16).at[0].set(10 * count).at[1].set(seen)
    return pixels.reshape(4, 4, 1).astype(jnp.uint8)


def glow(max_steps=30):
    """The count grows by the action, 0 to 2, which is also the reward; it ends at 20."""

    def step(key, count, action):
        count = count + action
        return count, picture(count), action.astype(jnp.float32), count >= END

    return envs.from_functions(
        lambda key: (jnp.int32(0), picture(0)), step, action=Discrete(3), max_steps=max_steps, name="glow",
        obs_dtype="uint8",
    )  # fmt: skip


class Belief(NamedTuple):
    count: jax.Array
    seen: jax.Array  # frames


class Stats(NamedTuple):
    temperature: jax.Array


def counting():
    """Sees the count and remembers how many frames it saw; imagines it too large by the temperature in each step.

    What it draws is a tenth of a count brighter than the truth.
    """

    def encode(key, params, belief, action, obs, is_first):
        return Belief(obs[0, 0, 0] / 10.0, jnp.where(is_first, 1, belief.seen + 1))

    def step(key, params, belief, action):
        count = belief.count + action + params.stats.temperature
        discount = jnp.where(count >= END, 0.0, 1.0)
        outcome = Outcome(action.astype(jnp.float32), discount, jnp.zeros(0), jnp.asarray(False))
        return belief._replace(count=count), outcome

    return Model(
        init=lambda key: Params({}, Stats(jnp.float32(1.0))),
        initial=lambda params: Belief(jnp.float32(3.0), jnp.int32(0)),
        encode=encode,
        step=step,
        step_many=jax.vmap(step, in_axes=(None, None, 0, 0)),
        features=lambda params, belief: belief.count[None],
        decode=lambda params, belief: picture(belief.count + 0.1, belief.seen),
        loss=None,
        set_stats=lambda params, rows, mask: params,
        own_belief=True,
    )


MODEL = counting()
PARAMS = MODEL.init(jax.random.key(0))
KEY = jax.random.key(1)


def hasty(model: Model | None = MODEL):
    """Acts by what it sees: 2 while it is darker than 50, then 1. It remembers how often it acted."""

    def act(key, state, carry, obs, is_first, explore):
        return jnp.where(obs[0, 0, 0] < 50, 2, 1), jnp.where(is_first, 0, carry) + 1, {}

    def update(key, state, step):
        return {"model": state["model"]}, {}

    return Agent(
        lambda key, num_envs: {"model": PARAMS}, lambda state: jnp.int32(-9), act, lambda state, *_: state,
        phases=((10, update),), model=model, params=None if model is None else lambda state: state["model"],
    )  # fmt: skip


def first(frames):
    return np.asarray(frames)[:, 0, 0, 0].tolist()


def second(frames):
    return np.asarray(frames)[:, 0, 1, 0].tolist()


# ------------------------------------------------------------------------------------------- dreaming


def test_a_dream_is_played_by_given_actions():
    played = jax.jit(dreaming.play, static_argnums=1)(KEY, MODEL, PARAMS, MODEL.initial(PARAMS), jnp.array([0, 2, 1]))
    assert first(played.frames) == [31, 41, 71, 91]
    assert played.actions.tolist() == [0, 2, 1]
    assert played.rewards.tolist() == [0, 2, 1]
    assert played.discounts.tolist() == [1, 1, 1]
    many = jnp.array([[2, 2], [0, 0]])
    both = jax.vmap(lambda a: dreaming.play(KEY, MODEL, PARAMS, Belief(jnp.float32(15), jnp.int32(1)), a))(many)
    assert both.frames[:, :, 0, 0, 0].tolist() == [[151, 181, 211], [151, 161, 171]]
    assert both.discounts.tolist() == [[1, 0], [1, 1]]
    for none in (jnp.zeros((0,), jnp.int32), jnp.int32(1)):
        with pytest.raises(ValueError, match="number of actions must be at least 1, got 0"):
            dreaming.play(KEY, MODEL, PARAMS, MODEL.initial(PARAMS), none)


def test_an_episode_is_drawn_again_and_imagined():
    moves = jnp.array([1, 0, 2, 1, 0, 1])
    real = np.array([0, 1, 1, 3, 4, 4, 5])
    beliefs = dreaming.filtered(KEY, MODEL, PARAMS, jax.vmap(picture)(real), moves)
    assert beliefs.count.tolist() == real.tolist()
    again = dreaming.reconstruct(MODEL, PARAMS, beliefs)
    assert first(again) == (10 * real + 1).tolist()
    assert second(again) == [1, 2, 3, 4, 5, 6, 7]  # every frame so far was seen
    episode = MODEL, PARAMS, beliefs, moves
    guess = dreaming.imagine_along(KEY, *episode, horizon=4, context=2)
    ages = np.array([0, 1, 1, 2, 3, 1, 2])  # it looks at the times 0, 1 and 4
    assert first(guess) == (10 * (real + ages) + 1).tolist()
    assert second(guess) == [1, 1, 2, 2, 2, 5, 5]
    assert dreaming.ages(dreaming.looked(6, 4, 2)).tolist() == ages.tolist()
    with pytest.raises(ValueError, match="context must be at least 1, got 0"):
        dreaming.imagine_along(KEY, *episode, horizon=4, context=0)
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        dreaming.imagine_along(KEY, *episode, horizon=0, context=1)


@pytest.mark.parametrize(("context", "counts", "memory"), [(0, 3, -9), (1, 0, -9), (3, 4, 2)])
def test_a_dream_begins_after_real_frames(context, counts, memory):
    belief, carry, seen = dreaming.lead_in(KEY, glow(), hasty(), {"model": PARAMS}, PARAMS, context)
    assert (float(belief.count), int(belief.seen), int(seen)) == (counts, context, context)
    assert int(carry) == memory  # it is shown the last of the frames in the dream
    policy = dreaming.policy_of(hasty(), {"model": PARAMS}, context)
    _, carry = policy(KEY, carry, picture(0), jnp.int32(0))
    assert int(carry) == max(memory, 0) + 1
    assert int(policy(KEY, carry, picture(0), jnp.int32(1))[1]) == max(memory, 0) + 2


def test_a_policy_is_shown_what_the_model_draws():
    policy = dreaming.policy_of(hasty(), {"model": PARAMS}, 0)
    dreamt = dreaming.dream(KEY, MODEL, PARAMS, Belief(jnp.float32(0), jnp.int32(1)), policy, jnp.int32(0), 4)
    assert first(dreamt.frames) == [1, 31, 61, 81, 101]
    assert dreamt.actions.tolist() == [2, 2, 1, 1]
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        dreaming.dream(KEY, MODEL, PARAMS, MODEL.initial(PARAMS), policy, (), 0)


def test_temperatures_are_set_where_there_is_one():
    assert dreaming.at_temperature(PARAMS, 0.5).stats.temperature == 0.5
    with pytest.raises(ValueError, match=r"must be left out for a model that has none, got 0\.5"):
        dreaming.at_temperature(Params({}, ()), 0.5)
    with pytest.raises(ValueError, match=r"temperature must be at least 0.0, got -1"):
        dreaming.at_temperature(PARAMS, -1)


# ------------------------------------------------------------------------------------------- commands


@dataclasses.dataclass(frozen=True)
class GlowConfig:
    model: bool = True


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """Systems and worlds by name, and main() without lasting effects."""
    systems = System("hasty", GlowConfig, lambda env, config: hasty(MODEL if config.model else None), "for tests")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(agents.SYSTEMS, "hasty", systems)
        patch.setitem(registry._registered, "glow", glow)
        patch.setattr("warnings.showwarning", print)
        patch.setenv(cache.VARIABLE, str(tmp_path_factory.mktemp("cache")))
        before = {name: getattr(jax.config, name) for name in cache.SETTINGS}
        yield main
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def run(command, tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "glow"
    assert command(["train", "hasty", "--env", "glow", "--steps", "20", "--out", str(directory), "--quiet"]) == 0
    return directory


@pytest.fixture
def labels(monkeypatch):
    """The labels of every column drawn."""
    told, draw = [], film.column
    monkeypatch.setattr(film, "column", lambda images, labels: told.append(labels) or draw(images, labels))
    return told


def frames_of(path):
    with Image.open(path) as picture:
        return getattr(picture, "n_frames", 1), picture.size


def test_render_shows_real_reconstructed_and_imagined(command, run, labels, tmp_path):
    assert command(["render", str(run), "--out", str(tmp_path), "--horizon", "6", "--context", "1"]) == 0
    assert [column[7] for column in labels] == ["step 7: real", "reconstructed", "imagined 1 ahead"]
    # 0 2 4 6 (60 is brighter than 50, as is 50), then one by one up to 20: 17 steps
    assert {len(column) for column in labels} == {18}
    count, size = frames_of(tmp_path / "episode.gif")
    assert count == 18
    assert size == (3 * 160 + 2 * film.GAP, 160 + film.LINE + 4)
    assert frames_of(tmp_path / "sheet.png")[1] == (3 * (size[0] + 18), 5 * (size[1] + 18))


def test_render_columns_hold_what_they_say():
    agent, state = hasty(), {"model": PARAMS}
    columns = render.rollout(KEY, glow(), agent, state, 4, 2, 1)
    assert first(columns["real"]) == [0, 20, 40, 60, 70]
    assert first(columns["reconstructed"]) == [1, 21, 41, 61, 71]
    assert first(columns["imagined"]) == [1, 31, 61, 71, 91]
    exact = MODEL._replace(decode=lambda params, belief: picture(belief.count))
    assert list(render.rollout(KEY, glow(), hasty(exact), state, 4, 2, 1)) == ["real", "imagined"]
    assert list(render.rollout(KEY, glow(), hasty(None), state, 4, 2, 1)) == ["real"]


def test_render_films_a_dream_up_to_its_end(command, run, labels, tmp_path, capsys):
    dream = ["render", str(run), "--out", str(tmp_path), "--dream", "--temperature", "0"]
    assert command([*dream, "--context", "1"]) == 0
    assert capsys.readouterr().err.split() == [str(tmp_path / name) for name in ("dream.gif", "dream_sheet.png")]
    assert frames_of(tmp_path / "dream.gif")[0] == 18
    assert labels[0][0] == "step 0\ndreams from here\n"
    assert labels[0][3] == "step 3  end 0 %\naction 2\nreward 6.00"
    assert labels[0][-1] == "step 17  over\naction 1\nreward 20.00"


def test_render_films_a_dream_under_given_actions(command, run, labels, tmp_path):
    dream = ["render", str(run), "--out", str(tmp_path), "--dream", "--actions", "0*2,2*3"]
    assert command([*dream, "--context", "0"]) == 0  # counts 3, 4, 5, 8, 11, 14: the model is 1 too fast
    assert labels[-1][-1] == "step 5  end 0 %\naction 2\nreward 6.00"
    assert command([*dream, "--context", "9"]) == 0  # 10 by then, 11, 12, 15, 18, 21
    assert labels[-1][-1] == "step 5  over\naction 2\nreward 6.00"
    assert command([*dream, "--context", "0", "--max-steps", "3"]) == 0
    assert len(labels[-1]) == 4


def test_given_actions_are_also_played_in_the_true_world(command, run, labels, tmp_path):
    assert command(["render", str(run), "--out", str(tmp_path), "--actions", "2*4,0", "--temperature", "0"]) == 0
    assert {len(column) for column in labels} == {6}
    replayed = dreaming.replaying(hasty(), jnp.array([2, 2, 2, 2, 0]))
    columns = render.rollout(KEY, glow(), replayed, {"model": PARAMS}, 5, 9, 9)
    assert first(columns["real"]) == [0, 20, 40, 60, 80, 80]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dream", "--context", "18"], "context must be at most 17: the episode of this key ended then; got 18"),
        (["--dream", "--context", "-1"], "context must be at least 0, got -1"),
        (["--context", "0"], "context must be at least 1, got 0"),
        (["--max-steps", "0"], "max_steps must be at least 1, got 0"),
        (["--actions", "3"], "actions of glow must be whole numbers in [0, 3), got '3'"),
        (["--dream", "--temperature", "-1"], "temperature must be at least 0.0, got -1.0"),
        (["--format", "avi"], "format must be one of gif, mp4, both; got 'avi'"),
    ],
)
def test_render_refuses_in_one_sentence(command, run, words, message, capsys, tmp_path):
    assert command(["render", str(run), "--out", str(tmp_path / "none"), *words]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not (tmp_path / "none").exists()


def test_an_agent_without_a_model_cannot_dream(command, tmp_path, capsys):
    words = ["train", "hasty", "--env", "glow", "--steps", "10", "--set", "model=false", "--quiet"]
    assert command([*words, "--out", str(tmp_path / "run")]) == 0
    assert command(["render", str(tmp_path / "run"), "--dream"]) == 2
    assert capsys.readouterr().err == "error: hasty has no model to dream in\n"


# --------------------------------------------------------------------------------------------- actions

CAR = Spec("car", (4,), Continuous((-1.0, 0.0), (1.0, 2.0)), 9)
ROBOT = Spec("robot", (4,), Continuous((-2.0,), (2.0,)), 9)
MAZE = Spec("maze", (4,), Discrete(4), 9)


@pytest.mark.parametrize(
    ("text", "spec", "wanted"),
    [
        ("2*3,0, 1 * 2", MAZE, [2, 2, 2, 0, 1, 1]),
        ("3", MAZE, [3]),
        ("1*2,-2,0.5", ROBOT, [[0.5], [0.5], [-1.0], [0.25]]),  # its own units
        ("0.5;2*2,-1;0", CAR, [[0.5, 1.0], [0.5, 1.0], [-1.0, -1.0]]),
    ],
)
def test_actions_are_written_as_values_and_counts(text, spec, wanted):
    found = actions.parse(text, spec)
    assert found.tolist() == wanted
    assert found.dtype == (np.int32 if spec is MAZE else np.float32)


def test_actions_are_read_from_files(tmp_path):
    np.save(tmp_path / "numbers.npy", np.array([1, 3, 0]))
    assert actions.parse(f"@{tmp_path}/numbers.npy", MAZE).tolist() == [1, 3, 0]
    np.save(tmp_path / "rows.npy", np.array([[0.5, 2.0], [0.0, 1.0]]))
    assert actions.parse(f"@{tmp_path}/rows.npy", CAR).tolist() == [[0.5, 1.0], [0.0, 0.0]]
    (tmp_path / "rows.txt").write_text("0.5 2\n\n0,1\n")
    assert actions.parse(f"@{tmp_path}/rows.txt", CAR).tolist() == [[0.5, 1.0], [0.0, 0.0]]
    (tmp_path / "none.txt").write_text("\n")
    (tmp_path / "word.txt").write_text("left\n")
    for name, message in [
        ("none.txt", "at least one row, got none in "),
        ("word.txt", "could not convert string to float: 'left'"),
        ("gone.npy", "actions cannot be read from .*No such file"),
        ("rows.csv", r"must be in a .npy or .txt file, got "),
        ("numbers.npy", r"must have 2 dimensions, got 1 in row 0 of "),
    ]:
        with pytest.raises(ValueError, match=message):
            actions.parse(f"@{tmp_path}/{name}", CAR)


@pytest.mark.parametrize(
    ("text", "spec", "message"),
    [
        ("", MAZE, r"actions must be value\*count, .*got ''"),
        ("1,,2", MAZE, "got ''"),
        ("left*3", MAZE, r"got 'left\*3'"),
        ("1*1.5", MAZE, r"got '1\*1.5'"),
        ("1*0", MAZE, r"the count of '1\*0' must be at least 1, got 0"),
        ("4", MAZE, r"actions of maze must be whole numbers in \[0, 4\), got '4'"),
        ("0.5", MAZE, "got '0.5'"),
        ("1;2", MAZE, "got '1;2'"),
        ("0,2.5*3", ROBOT, r"in its own units, from \(-2.0,\) to \(2.0,\), got '2.5\*3'"),
        ("nan", ROBOT, "got 'nan'"),
        ("0.5*3", CAR, r"actions of car must have 2 dimensions, got 1 in '0.5\*3'"),
    ],
)
def test_actions_that_do_not_fit_are_refused(text, spec, message):
    with pytest.raises(ValueError, match=message):
        actions.parse(text, spec)


# ----------------------------------------------------------------------------------------------- films


def flat(value, side=32, channels=3):
    return np.full((side, side, channels), value, np.uint8)


def test_images_show_their_own_pixels():
    draw = film.renderer(glow())
    assert draw(flat(7, channels=1)).shape == (32, 32, 3)
    assert film.as_image(np.array([[[0.0, 0.5, 2.0]]])).tolist() == [[[0, 127, 255]]]
    stacked = np.concatenate([flat(value, channels=1) for value in (1, 2, 3, 4)], axis=-1)
    assert np.unique(film.as_image(stacked)).tolist() == [4]  # the newest
    bars = film.renderer(line()._replace(render=None))(np.array([9.0]))
    assert bars[12, 80].tolist() == [0, 114, 178]
    assert bars[150, 80].tolist() == [255, 255, 255]


@pytest.mark.parametrize(("side", "shown"), [(32, 160), (64, 192), (4, 160), (160, 160), (400, 160)])
def test_pixels_stay_squares(side, shown):
    (panel,) = film.column([flat(9, side, 3)], ["a"])
    assert panel.size == (shown, shown + film.LINE + 4)
    assert panel.getpixel((shown // 2, shown // 2)) == (9, 9, 9)


def test_columns_are_as_wide_as_their_longest_label():
    panels = film.column([flat(9), flat(9)], ["short", "a label that is much wider than the picture under it\nand two"])
    assert panels[0].size == panels[1].size
    assert panels[0].width > 200
    assert panels[0].height == 160 + 2 * film.LINE + 4
    (both,) = film.beside(film.column([flat(1)], ["a"]), film.column([flat(2)], ["b"]))
    assert both.width == 2 * 160 + film.GAP
    assert (both.getpixel((80, 99))[0], both.getpixel((160 + film.GAP + 80, 99))[0]) == (1, 2)


def test_sheets_spread_moments_over_the_film(tmp_path):
    frames = [Image.fromarray(flat(i, 50)) for i in range(100)]
    film.save_sheet(tmp_path / "sheet.png", frames, moments=4)  # 68 pixels each: one line holds 23
    with Image.open(tmp_path / "sheet.png") as picture:
        sheet = np.asarray(picture)
    assert sheet.shape == (68, 68 * 23, 3)
    assert [sheet[34, 34 + 68 * i, 0] for i in (0, 11, 22)] == [0, 50, 99]
    film.save_sheet(tmp_path / "few.png", frames[:3])
    assert frames_of(tmp_path / "few.png") == (1, (3 * 68, 68))


def test_mp4_names_what_it_lacks(monkeypatch, tmp_path):
    monkeypatch.setattr(
        film, "importlib", types.SimpleNamespace(util=types.SimpleNamespace(find_spec=lambda name: None))
    )
    film.require("gif")
    with pytest.raises(ValueError, match=r"mp4 needs imageio and imageio_ffmpeg: pip install 'jmbrl\[video\]'"):
        film.save(tmp_path / "film", [Image.fromarray(flat(1, 8))], 50, "mp4")


def test_mp4_holds_the_frames(tmp_path):
    pytest.importorskip("imageio")
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    frames = [Image.fromarray(np.full((33, 49, 3), value, np.uint8)) for value in (0, 120, 240)]
    written = film.save(tmp_path / "film", frames, 50, "both", hold=100)
    assert [path.name for path in written] == ["film.gif", "film.mp4"]
    # Not read by imageio, which leaves its pipes open.
    command = [ffmpeg.get_ffmpeg_exe(), "-i", str(written[1]), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    seen = np.frombuffer(raw, np.uint8).reshape(5, 34, 50, 3)  # sides are even, the last frame is held for two more
    np.testing.assert_allclose(seen.mean(axis=(1, 2, 3)), [0, 120, 240, 240, 240], atol=4)


def test_gifs_hold_the_last_frame(tmp_path):
    frames = [Image.fromarray(flat(value, 8)) for value in (0, 200)]
    film.save(tmp_path / "film", frames, 5, hold=1000)
    with Image.open(tmp_path / "film.gif") as gif:
        times = []
        for i in range(2):
            gif.seek(i)
            times.append(gif.info["duration"])
    assert times == [20, 1020]
