"""The command line: what it promises to print and to leave, and how it refuses."""

import argparse
import dataclasses
import json
import sys
import types
from typing import Literal

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from PIL import Image

from jmbrl import agents, cache, configs, envs, runner, writers
from jmbrl.agents.system import System
from jmbrl.cli import main, sweep, tools

import toys
from worlds import line


@dataclasses.dataclass(frozen=True)
class Inner:
    width: int = 8


@dataclasses.dataclass(frozen=True)
class ToyConfig:
    period: int = 20
    warmup: int | None = 20
    rate: float = 0.1
    hidden: tuple[int, ...] = (8, 8)
    kind: Literal["a", "b"] = "a"
    name: str = "toy"
    fast: bool = False
    inner: Inner = Inner()


SYSTEM = System(
    "toy",
    ToyConfig,
    lambda env, config: toys.learner(config.period, config.warmup or 20),
    "a toy for the tests",
    cost=lambda env, config, steps, num_envs: f"{env.spec.name}: {steps // config.period} x {num_envs} updates",
)


@pytest.fixture(autouse=True)
def command(monkeypatch, tmp_path):
    """A toy system and world by name, and main() without lasting effects."""
    monkeypatch.setitem(agents.SYSTEMS, "toy", SYSTEM)
    monkeypatch.setitem(agents.PRESETS, "toy", {"quick": {"rate": 0.5, "hidden": (4,)}})
    monkeypatch.setitem(envs.registry._registered, "toy_line", lambda **options: line(noise=0.1, **options))
    monkeypatch.setattr("warnings.showwarning", print)
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    before = {name: getattr(jax.config, name) for name in cache.SETTINGS}
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def train(directory, *more):
    return main([*TOY, "100", "--out", str(directory), *more])


def last_line(text):
    return json.loads(text.strip().splitlines()[-1])


def test_train_evaluate_resume_and_load(tmp_path, capsys):
    run = tmp_path / "run"
    assert train(run, "--seeds", "2", "--seed", "5", "--set", "hidden=4,4", "--set", "inner.width=3") == 0
    shown = capsys.readouterr()
    assert shown.out == ""  # standard output is for JSON
    assert shown.err.startswith("line: 5 x 1 updates\n")  # what it costs, before anything of it runs
    assert "state of the run: " in shown.err
    assert "compiled 20 steps in " in shown.err
    assert "100/100 steps" in shown.err
    config = json.loads((run / "config.json").read_text())
    assert config["config"] == configs.to_dict(ToyConfig(hidden=(4, 4), inner=Inner(3)))
    assert json.loads((run / "summary.json").read_text())["seeds"] == [5, 6]

    assert main(["evaluate", str(run), "--episodes", "3"]) == 0
    answer = last_line(capsys.readouterr().out)
    assert (answer["system"], answer["env"], answer["env_steps"]) == ("toy", "toy_line", 100)
    assert np.shape(answer["returns"]) == (2, 3)
    np.testing.assert_allclose(answer["mean_return"], np.mean(answer["returns"], axis=1), rtol=1e-6)

    assert train(run) == 2
    assert "already holds a run: resume it" in capsys.readouterr().err
    assert main(["resume", str(run), "--steps", "140", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert writers.read_rows(run / "metrics.jsonl")[-1]["env_steps"] == 140

    opened = runner.open_run(run)
    assert (opened.env_steps, opened.seeds) == (140, [5, 6])
    assert opened.one(6).agent["w"].shape == (1,)
    (run / "policy" / "policy.json").unlink()  # as after kill -9
    assert runner.load_policy(run).act(np.array([0.5])).shape == (1,)

    assert train(run, "--fresh", "--quiet", "--eval-every", "50", "--eval-episodes", "2", "--num-envs", "2") == 0
    assert [row["env_steps"] for row in writers.read_rows(run / "metrics.jsonl") if "eval_return" in row] == [60, 100]


def test_render_writes_a_gif_and_a_sheet(tmp_path, capsys):
    assert train(tmp_path / "run", "--quiet") == 0
    assert main(["render", str(tmp_path / "run"), "--max-steps", "9"]) == 0
    with Image.open(tmp_path / "run" / "render" / "episode.gif") as film:
        assert film.n_frames == 10
        assert np.asarray(film.convert("L")).std() > 1
    with Image.open(tmp_path / "run" / "render" / "sheet.png") as sheet:
        assert np.asarray(sheet.convert("L")).std() > 1
    assert not (tmp_path / "run" / "render" / "values.png").exists()  # it has no table


def test_render_draws_the_tables_of_a_system_that_has_some(tmp_path, capsys):
    run = tmp_path / "run"
    maze = ["--env", "maze", "--env-set", "layout=('S.G',)", "--steps", "60"]
    assert main(["train", "dyna_q", *maze, "--out", str(run), "--quiet"]) == 0
    assert main(["render", str(run), "--max-steps", "3"]) == 0
    names = ["episode.gif", "sheet.png", "values.png", "planning.gif"]
    assert capsys.readouterr().err.split() == [str(run / "render" / name) for name in names]
    with Image.open(run / "render" / "planning.gif") as film:
        assert film.n_frames > 2
        frames = []
        for place in (0, film.n_frames - 1):
            film.seek(place)
            frames.append(np.asarray(film.convert("RGB"), int))
    assert np.abs(frames[1] - frames[0]).max() > 100
    with Image.open(run / "render" / "values.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 1


TOY = ["train", "toy", "--env", "toy_line", "--steps"]
SWEEP = ["sweep", "toy", "--env", "toy_line", "--steps", "9", "--out", "s"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "toi", "--env", "toy_line", "--steps", "9"], "did you mean 'toy'?"),
        (["train", "toy", "--env", "toy_lime", "--steps", "9"], "nearest: toy_line"),
        (
            [*TOY, "9", "--set", "rte=1"],
            "no setting 'rte'; did you mean 'rate'?",
        ),
        ([*TOY, "9", "--set", "period=x"], "period must be int, got 'x'"),
        ([*TOY, "9", "--set", "period"], "must be key=value, got 'period'"),
        ([*TOY, "9", "--preset", "quik"], "did you mean 'quick'?"),
        ([*TOY, "0"], "steps must be at least 1, got 0"),
        ([*TOY, "40", "--seed", str(2**32)], "seed must be at most"),
        (["resume", "nowhere"], "holds no run: there is no config.json"),
        (["evaluate", "nowhere"], "holds no run"),
        (
            [*SWEEP, "--set", "rate=1,x"],
            "rate must be float",
        ),
        ([*SWEEP, "--launcher", "sge"], "launcher must be one of"),
    ],
)
def test_mistakes_are_one_sentence_on_standard_error(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert message in error
    assert "\n" not in error


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("period=1e3", ("period", 1000)),
        ("warmup=none", ("warmup", None)),
        ("warmup=7", ("warmup", 7)),
        ("rate=1", ("rate", 1.0)),
        ("hidden=64", ("hidden", (64,))),
        ("hidden=(64, 32)", ("hidden", (64, 32))),
        ("kind=b", ("kind", "b")),
        ("name=1", ("name", "1")),
        ("fast=true", ("fast", True)),
        ("inner.width=9", ("inner.width", 9)),
    ],
)
def test_settings_take_the_declared_type(setting, wanted):
    name, text = configs.split_setting(setting)
    value = configs.typed(ToyConfig, name, text, "--set")
    assert (name, value) == wanted
    assert type(value) is type(wanted[1])


@pytest.mark.parametrize("setting", ["period=1.5", "period=true", "fast=1", "kind=c", "hidden=a,b", "rate=none"])
def test_values_of_another_type_are_refused(setting):
    name, text = configs.split_setting(setting)
    with pytest.raises(ValueError, match=f"--set: {name} must be "):
        configs.typed(ToyConfig, name, text, "--set")


def test_a_preset_lies_under_the_settings():
    config = configs.make("toy", "toy_line", steps=10, preset="quick", settings=["rate=0.7"])
    assert config["config"]["rate"] == 0.7
    assert config["config"]["hidden"] == [4]
    assert configs.make("toy", "toy_line", steps=10, preset="none")["config"]["rate"] == 0.1


def test_every_preset_of_every_system_fits_its_settings():
    for system, presets in agents.PRESETS.items():
        for preset in presets:
            config = configs.make(system, "toy_line", steps=10, preset=preset)
            assert config["preset"] == preset


def test_list_names_what_there_is(capsys):
    assert main(["list", "--json"]) == 0
    found = last_line(capsys.readouterr().out)
    assert found["systems"]["toy"] == "a toy for the tests"
    assert "gymnax:Pendulum-v1" in found["environments"]
    assert "cem" in found["planners"]
    assert main(["list", "systems"]) == 0
    assert "toy " in capsys.readouterr().out


def test_doctor_solves_a_known_problem(capsys):
    assert main(["doctor", "--json"]) == 0
    report = last_line(capsys.readouterr().out)
    assert report["solve"]["cem_cost"] == pytest.approx(report["solve"]["exact_cost"], rel=0.02)
    assert report["devices"]


def test_riccati_is_the_least_cost_of_one_step():
    one = np.eye(1)
    # min over u of x^2 + u^2 + (x + u)^2 at x = 1: u = -1/2, cost 1.5
    assert tools._riccati(one, one, one, one, np.ones(1), 1) == pytest.approx(1.5)


def test_bench_and_diagnose_print_json_lines(monkeypatch, capsys):
    bench = types.ModuleType("jmbrl.bench")
    bench.run = lambda name, **options: iter([{"name": name, **options}, {"rate": float("nan")}])
    monkeypatch.setitem(sys.modules, "jmbrl.bench", bench)
    assert main(["bench", "planners", "--set", "n=3"]) == 0
    assert capsys.readouterr().out == '{"name": "planners", "n": 3}\n{"rate": null}\n'
    monkeypatch.setattr("jmbrl.diagnostics.diagnose", lambda directory: {"rmse": [1.0]}, raising=False)
    assert main(["diagnose", "somewhere"]) == 0
    assert capsys.readouterr().out == '{"rmse": [1.0]}\n'


def test_a_grid_is_a_product_and_brackets_keep_their_commas():
    cells = list(sweep.grid(["hidden=(64,64),(200,)", "rate=0.1,0.2"]))
    assert cells[1] == {"hidden": "(64,64)", "rate": "0.2"}
    assert len({sweep.name_of(cell) for cell in cells}) == 4
    assert list(sweep.grid([])) == [{}]


def test_a_cell_is_trained_resumed_or_left_alone(tmp_path):
    arguments = argparse.Namespace(
        system="toy", env="toy_line", steps=100, seed=0, seeds=2, num_envs=1, preset=None, env_set=["max_steps=5"]
    )
    command = sweep.command_of(arguments, {"rate": "0.1"}, tmp_path)
    assert command[3:6] == ["train", "toy", "--env"]
    assert command[-4:] == ["--set", "rate=0.1", "--env-set", "max_steps=5"]
    (tmp_path / "config.json").write_text("{}")
    assert sweep.command_of(arguments, {}, tmp_path)[3] == "resume"
    (tmp_path / "summary.json").write_text('{"ended": "finished", "env_steps": 100}')
    assert sweep.command_of(arguments, {}, tmp_path) == []


def test_a_sweep_runs_its_cells_in_processes_and_prints_a_table(tmp_path, capsys):
    arguments = ["sweep", "random", "--env", "pendulum_masked", "--steps", "400", "--seeds", "2"]
    assert main([*arguments, "--out", str(tmp_path / "s")]) == 0
    table = json.loads((tmp_path / "s" / "sweep.json").read_text())
    assert table[0]["ended"] == "finished"
    assert len(table[0]["final_return"]) == 2
    assert "default" in capsys.readouterr().out
    assert main([*arguments, "--out", str(tmp_path / "s")]) == 0  # finished cells are kept


def test_submitit_is_asked_for_by_name_where_it_is_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    arguments = ["sweep", "toy", "--env", "toy_line", "--steps", "9", "--out", str(tmp_path), "--launcher", "submitit"]
    assert main(arguments) == 2
    assert "pip install submitit" in capsys.readouterr().err


def test_a_game_is_learned_by_both_sides_and_judged_against_an_opponent(tmp_path, capsys):
    small = ["--set", "simulations=4", "--set", "batch_size=8", "--set", "capacity=64", "--set", "units=8"]
    run = ["train", "alphazero", "--env", "tictactoe", "--steps", "64", "--num-envs", "8", *small]
    assert main([*run, "--out", str(tmp_path / "game"), "--eval-every", "64", "--eval-episodes", "5", "--quiet"]) == 0
    capsys.readouterr()
    rows = [json.loads(line) for line in (tmp_path / "game" / "metrics.jsonl").read_text().splitlines()]
    assert any(abs(row.get("eval_return", 2.0)) <= 1.0 for row in rows)
    assert main(["evaluate", str(tmp_path / "game"), "--episodes", "5", "--opponent", "perfect"]) == 0
    assert max(json.loads(capsys.readouterr().out)["returns"][0]) <= 0.0  # perfect play does not lose
    assert main(["train", "dqn", "--env", "tictactoe", "--steps", "64", "--out", str(tmp_path / "dqn")]) == 2
    assert "is played by 2 in turn" in capsys.readouterr().err
