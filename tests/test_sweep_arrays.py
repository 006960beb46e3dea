"""Values as lanes of one program: the numbers of single runs, kept cells, and settings that cannot be lanes."""

import json

import pytest

from jmbrl import load
from jmbrl.cli import main

SAC = "sac --env gymnax:Pendulum-v1 --env-set max_steps=20 --preset none --steps 60"
SETTINGS = "hidden=(8,) batch_size=8 warmup=20 capacity=64"
WORDS = [*SAC.split(), *(word for setting in SETTINGS.split() for word in ("--set", setting))]


def rows(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep")
    arrays = ["--array", "learning_rate=0.0,1e-2", "--array", "tau=0.1"]
    assert main(["sweep", *WORDS, *arrays, "--seeds", "2", "--out", str(out)]) == 0
    return out


def test_a_lane_is_the_run_of_its_values(swept, tmp_path):
    table = json.loads((swept / "sweep.json").read_text())
    assert [row["cell"]["learning_rate"] for row in table] == ["0.0", "1e-2"]
    for row in table:
        alone = tmp_path / row["directory"]
        values = [f"--set={name}={value}" for name, value in row["cell"].items()]
        assert main(["train", *WORDS, *values, "--seeds", "2", "--out", str(alone), "--quiet"]) == 0
        mine = [r["episode_return"] for r in rows(swept / row["directory"]) if "episode_return" in r]
        theirs = [r["episode_return"] for r in rows(alone) if "episode_return" in r]
        assert mine == pytest.approx(theirs, rel=1e-4)
        assert row["final_return"] == pytest.approx(json.loads((alone / "summary.json").read_text())["final_return"])
    assert table[0]["final_return"] != table[1]["final_return"]


def test_a_cell_is_a_directory_to_work_with(swept, capsys):
    cell = swept / json.loads((swept / "sweep.json").read_text())[1]["directory"]
    assert json.loads((cell / "config.json").read_text())["config"]["learning_rate"] == 1e-2
    assert (cell / "learning_curve.png").exists()
    assert main(["evaluate", str(cell), "--episodes", "1"]) == 0
    assert len(json.loads(capsys.readouterr().out)["mean_return"]) == 2
    assert load(cell).act([1.0, 0.0, 0.0]).shape == (1,)


def test_finished_cells_are_kept_and_others_run(swept, monkeypatch):
    from jmbrl.cli import sweep_arrays

    ran = []
    monkeypatch.setattr(sweep_arrays, "train_cells", lambda cells: ran.extend(cell.values for cell in cells))
    arrays = ["--array", "learning_rate=0.0,1e-2,1e-3", "--array", "tau=0.1"]
    assert main(["sweep", *WORDS, *arrays, "--seeds", "2", "--out", str(swept)]) == 0
    assert ran == [{"learning_rate": 1e-3, "tau": 0.1}]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*WORDS, "--array", "batch_size=8,16"], "array batch_size must be of real numbers, got 8"),
        ([*WORDS, "--array", "tua=0.1,0.2"], "did you mean 'tau'"),
        (
            ["sac", "--env", "gymnasium:Pendulum-v1", "--steps", "10", "--array", "tau=0.1,0.2"],
            "needs runs side by side",
        ),
        (
            ["dreamer_v3", "--env", "gymnax:Pendulum-v1", "--steps", "20", "--array", "train_ratio=1.0,2.0"],
            "before it compiles",
        ),
    ],
)
def test_what_cannot_be_a_lane_is_refused(words, message, tmp_path, capsys):
    assert main(["sweep", *words, "--out", str(tmp_path / "s")]) == 2
    assert message in capsys.readouterr().err
