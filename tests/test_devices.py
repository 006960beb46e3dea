"""Many devices and several processes give the numbers of one: eight simulated devices, two processes on loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jmbrl import bench, cli, devices, runner
from jmbrl.cli.training import parse_mesh

import many_devices

SEEDS = 8
TRAIN = f"train dyna_q --env maze --steps 300 --seeds {SEEDS} --eval-every 150 --eval-episodes 2".split()
SETTINGS = (
    "hidden=(8,) members=2 horizon=3 population=8 elites=2 iterations=2 particles=2 epochs=2 warmup=20 fit_every=20 "
    "weight_decay=(0.0,0.0)"
)
WHERE = "--env gymnax:Pendulum-v1 --preset none --steps 60 --seeds 4 --checkpoint-seconds 0"
PETS = ["train", "pets", *WHERE.split()]
PETS += [word for setting in SETTINGS.split() for word in ("--set", setting)]


def started(*words: str, simulated: int = 1) -> subprocess.Popen:
    """``jmbrl``, on so many simulated devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={simulated}"
    return subprocess.Popen(
        [sys.executable, *words],
        env=os.environ | {"XLA_FLAGS": flags},
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(*processes: subprocess.Popen, status: int = 0) -> list[str]:
    out = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [status] * len(processes), "\n".join(out)
    return out


def joined(count: int = 2) -> list[list[str]]:
    """What each of ``count`` commands of one run says of the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{free.getsockname()[1]}"
    return [["--coordinator", where, "--processes", str(count), "--process", str(i)] for i in range(count)]


def rows(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def assert_same(directory: Path, other: Path) -> None:
    """Their metrics to float32's rounding, their integers exactly."""
    mine, theirs = rows(directory), rows(other)
    assert len(mine) == len(theirs) > SEEDS
    for one, two in zip(mine, theirs, strict=True):
        assert one.keys() == two.keys()
        assert [one[name] for name in ("env_steps", "seed")] == [two[name] for name in ("env_steps", "seed")]
        assert list(one.values()) == pytest.approx(list(two.values()), rel=1e-4, abs=1e-6)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run on one device, to its end."""
    directory = tmp_path_factory.mktemp("alone")
    assert cli.main([*TRAIN, "--quiet", "--out", str(directory)]) == 0
    return directory


def test_eight_devices_give_the_numbers_of_one_and_any_number_goes_on(alone, tmp_path):
    first = list(TRAIN)
    first[first.index("--steps") + 1] = "150"
    (out,) = ended(started("-m", "jmbrl", *first, "--out", str(tmp_path), simulated=8))
    assert "1 of 8 seeds on each of 8 devices" in out
    (out,) = ended(started("-m", "jmbrl", "resume", str(tmp_path), "--steps", "225", "--mesh", "seed=2", simulated=8))
    assert "4 of 8 seeds on each of 2 devices" in out
    assert cli.main(["resume", str(tmp_path), "--steps", "300", "--quiet", "--mesh", "seed=1"]) == 0
    episodes = [[row for row in rows(place) if "episode_return" in row] for place in (tmp_path, alone)]
    assert episodes[0] == episodes[1] != []
    mine, theirs = runner.open_run(tmp_path).run, runner.open_run(alone).run
    for one, two in zip(jax.tree.leaves(mine.agent), jax.tree.leaves(theirs.agent), strict=True):
        if not jax.dtypes.issubdtype(one.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6)


def test_two_processes_give_the_numbers_of_one(alone, tmp_path):
    one, two = ended(
        *(started("-m", "jmbrl", *TRAIN, "--out", str(tmp_path), *which, simulated=2) for which in joined())
    )
    assert "2 of 8 seeds on each of 4 devices" in one
    assert "finished at step 300" in one
    assert "finished" not in two  # the first speaks and writes
    assert_same(tmp_path, alone)
    assert (tmp_path / "policy" / "policy.json").exists()
    summary, other = (json.loads((place / "summary.json").read_text()) for place in (tmp_path, alone))
    assert summary["final_return"] == other["final_return"]
    assert len(summary["seeds"]) == SEEDS

    refused = ended(
        *(started("-m", "jmbrl", *TRAIN, "--out", str(tmp_path), *which) for which in joined()), status=2
    )  # the directory holds a run: both end, at once
    assert "already holds a run" in refused[0]


def test_the_work_of_one_seed_is_shared_and_its_numbers_stay():
    """An ensemble's fit and imagined rows on a mesh: the same numbers, and each device multiplies its part only."""
    (out,) = ended(started("many_devices.py", simulated=8))
    found = json.loads(out.splitlines()[-1])
    wanted = many_devices.measured(None)
    for name, got in found.items():
        np.testing.assert_allclose(got["fitted"], wanted["fitted"], rtol=1e-4, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(got["imagined"], wanted["imagined"], rtol=1e-4, atol=1e-5, err_msg=name)
    assert set(found) == {"row=4", "member=2,row=4", "member=2"}
    assert all(mine < 0.4 * whole for mine, whole in zip(found["row=4"]["batches"], wanted["batches"], strict=True))
    assert found["member=2"]["batches"] == wanted["batches"]
    assert found["row=4"]["flops"] < 0.4 * wanted["flops"]
    assert found["member=2,row=4"]["flops"] < 0.25 * wanted["flops"]


def test_the_benchmark_compares_meshes_with_one_device():
    small = ["--set", "system=random", "--set", "seeds=2", "--set", "steps=400"]
    (out,) = ended(started("-m", "jmbrl", "bench", "scale", *small, simulated=2))
    found = [json.loads(line) for line in out.splitlines()]
    assert [row["devices"] for row in found] == [1, 2]
    assert found[0]["speedup"] == 1
    assert found[1]["difference"] == pytest.approx(0, abs=1e-5)
    if len(jax.devices()) == 1:
        with pytest.raises(ValueError, match="there is one device"):
            next(bench.run("scale", system="random"))


@pytest.mark.slow
def test_pets_on_a_mesh_and_in_two_processes_gives_the_numbers_of_one_device(tmp_path):
    ended(started("-m", "jmbrl", *PETS, "--out", str(tmp_path / "one")))
    for name, mesh in (("rows", "seed=2,row=4"), ("members", "seed=2,member=2,row=2")):
        ended(started("-m", "jmbrl", *PETS, "--out", str(tmp_path / name), "--mesh", mesh, simulated=8))
        assert_same(tmp_path / name, tmp_path / "one")
    ended(*(started("-m", "jmbrl", *PETS, "--out", str(tmp_path / "two"), *w, simulated=2) for w in joined()))
    assert_same(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
def test_a_signal_to_any_process_stops_all_of_them_and_they_go_on(tmp_path):
    endless = list(PETS)
    endless[endless.index("--steps") + 1] = "200000"
    both = [started("-m", "jmbrl", *endless, "--out", str(tmp_path), *which, simulated=2) for which in joined()]
    while not (tmp_path / "metrics.jsonl").exists() or not rows(tmp_path):
        assert all(process.poll() is None for process in both)
        time.sleep(0.2)
    both[1].send_signal(signal.SIGTERM)
    ended(*both, status=128 + signal.SIGTERM)
    stopped = json.loads((tmp_path / "summary.json").read_text())["env_steps"]
    again = ["-m", "jmbrl", "resume", str(tmp_path), "--steps", str(stopped + 20)]
    ended(*(started(*again, *which, simulated=2) for which in joined()))
    assert json.loads((tmp_path / "summary.json").read_text())["env_steps"] == stopped + 20


@pytest.mark.parametrize(
    ("seeds", "sizes", "message"),
    [
        (4, {"seed": 3}, "seeds must be a multiple of the 3 groups of devices that share them, got 4"),
        (4, {"lane": 2}, "mesh axis must be one of"),
        (4, {"row": 0}, "mesh row must be"),
        (4, {"row": 1000}, "mesh needs 1000 devices, there are"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(seeds, sizes, message):
    with pytest.raises(ValueError, match=message):
        devices.mesh(seeds, sizes)


def test_one_device_needs_no_mesh():
    assert devices.mesh(5, {"seed": 1}) is None


def test_the_command_line_names_what_is_wrong(capsys):
    assert parse_mesh("seed=2,row=4") == {"seed": 2, "row": 4}
    with pytest.raises(ValueError, match="mesh must be like seed=2,row=4, got 'seed'"):
        parse_mesh("seed")
    assert cli.main([*TRAIN, "--processes", "2"]) == 2
    assert "need coordinator" in capsys.readouterr().err
    for which, message in (
        (["--coordinator", "here:1"], "needs processes and process"),
        (["--coordinator", "here", "--processes", "2", "--process", "0"], "HOST:PORT"),
        (["--coordinator", "here:1", "--processes", "2", "--process", "2"], "process must be"),
    ):
        assert cli.main([*TRAIN, *which]) == 2
        assert message in capsys.readouterr().err


def test_what_the_first_process_raises_is_raised():
    assert devices.first_only(lambda x: x + 1, 2) == 3
    with pytest.raises(ZeroDivisionError):
        devices.first_only(lambda: 1 / 0)
    assert devices.any_process(True)
    assert not devices.any_process(False)
