"""The loop around a run: exact however it is chunked, stopped or killed; and nothing outside it can stop it."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from PIL import Image

from jmbrl import cache, policy, records, runner, writers
from jmbrl.checkpoint import CheckpointError, Checkpoints, fingerprint
from jmbrl.diagnostics import figures
from jmbrl.lanes import Programs, seed_keys
from jmbrl.types import DivergedError

import toys

OFTEN = runner.Options(checkpoint_seconds=0, periods_per_chunk=2, eval_every=100, eval_episodes=2, quiet=True)
STEPS = 250  # a warm-up of 20, five chunks of 40, one of 30
CONFIG = {"system": "toy", "env": "line", "steps": STEPS, "lr": 0.01}


@pytest.fixture(scope="module", autouse=True)
def compile_once(tmp_path_factory):
    """The tests run the same few programs again and again."""
    before = {name: getattr(jax.config, name) for name in cache.SETTINGS}
    cache.enable(tmp_path_factory.mktemp("xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of two seeds: ``(directory, result)``."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    return directory, runner.run(toys.toy(STEPS), 3, directory, seeds=2, config=CONFIG, options=OFTEN)


def marks(tree):
    return jax.tree.map(fingerprint, tree)


def rows_of(directory):
    return writers.read_rows(directory / "metrics.jsonl")


# ----------------------------------------------------------------------------------- what a run leaves


def test_the_last_chunk_is_short_and_the_count_exact(whole):
    _, result = whole
    assert result.env_steps == STEPS
    assert result.history["reward"].shape == (2, STEPS, 1)
    assert result.history["model/loss"].shape == (2, 12)
    assert np.asarray(result.run.agent["at"]).tolist() == [STEPS, STEPS]


def test_the_numbers_are_those_of_the_pure_function(whole):
    _, result = whole
    keys, _ = seed_keys(3, 2)
    _, history = jax.jit(jax.vmap(toys.toy(STEPS)))(keys)
    np.testing.assert_array_equal(history["reward"], result.history["reward"])


def test_every_promised_file_and_field_is_there(whole):
    directory, _ = whole
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["system"] == "toy"
    assert summary["env"] == "line"
    assert summary["seeds"] == [3, 4]
    assert summary["env_steps"] == STEPS
    assert len(summary["final_return"]) == 2
    assert 0 < summary["compile_seconds"] < summary["wall_seconds"]
    assert summary["health"]["bad_transitions"] == [0, 0]
    assert json.loads((directory / "config.json").read_text()) == CONFIG
    with Checkpoints(directory / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps() == [220, 250]


def test_metrics_have_a_row_for_each_episode_and_each_chunk_of_each_seed(whole):
    directory, result = whole
    rows = rows_of(directory)
    assert all({"env_steps", "seed"} <= row.keys() for row in rows)
    episodes = [row for row in rows if row["seed"] == 4 and "episode_return" in row]
    assert [row["env_steps"] for row in episodes] == list(range(20, 241, 20))
    wanted = [result.history["reward"][1, i : i + 20, 0].astype(float).sum() for i in range(0, 240, 20)]
    np.testing.assert_allclose([row["episode_return"] for row in episodes], wanted, rtol=1e-5)
    chunks = [row for row in rows if row["seed"] == 4 and "reward" in row]
    assert [row["env_steps"] for row in chunks] == [20, 60, 100, 140, 180, 220, 250]
    np.testing.assert_allclose(chunks[1]["model/loss"], result.history["model/loss"][1, :2].mean(), rtol=1e-6)
    evaluations = [row["env_steps"] for row in rows if row["seed"] == 3 and "eval_return" in row]
    assert evaluations == [100, 220, 250]


def test_the_final_return_is_the_mean_of_the_last_five_episodes(whole):
    directory, result = whole
    returns = [row["episode_return"] for row in rows_of(directory) if row["seed"] == 3 and "episode_return" in row]
    assert result.summary["final_return"][0] == pytest.approx(np.mean(returns[-5:]))


def test_the_learning_curve_is_a_picture_of_something(whole):
    with Image.open(whole[0] / "learning_curve.png") as picture:
        assert picture.format == "PNG"
        pixels = np.asarray(picture.convert("RGB"))
    assert min(pixels.shape[:2]) > 300
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    figure = figures.learning_curve([{"env_steps": 1, "seed": 0}], "nothing yet")  # no episode ended: no crash
    figure.canvas.draw()


def test_the_exported_policy_acts_without_the_replay(whole):
    directory, result = whole
    train = toys.toy(STEPS)
    assert policy.leaves_for_acting(train.agent, train.env) == [sorted(result.run.agent).index("w")]
    loaded = policy.load(directory, seed=4, env=train.env, agent=train.agent)
    weight = np.asarray(result.run.agent["w"])[1]
    np.testing.assert_allclose(loaded.act(np.array([0.5])), np.clip(-weight * 0.5, -1, 1), atol=1e-6)
    with pytest.raises(ValueError, match=r"seed must be one of \[3, 4\], got 5"):
        policy.load(directory, seed=5, env=train.env, agent=train.agent)
    with pytest.raises(ValueError, match=r"obs has shape \(2,\)"):
        loaded.act(np.zeros(2))


# ------------------------------------------------------------------------------ stopped, killed, resumed


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_chunk_saves_and_returns_and_resume_is_exact(whole, tmp_path, name):
    directory, expected = whole

    def interrupt(chunk):
        if chunk.env_steps == 140:
            os.kill(os.getpid(), name)

    options = dataclasses.replace(OFTEN, checkpoint_seconds=3600)
    before = signal.getsignal(name)
    stopped = runner.run(toys.toy(STEPS), 3, tmp_path, seeds=2, config=CONFIG, callbacks=[interrupt], options=options)
    assert (stopped.env_steps, stopped.stopped) == (140, name.name)
    assert signal.getsignal(name) is before
    assert json.loads((tmp_path / "summary.json").read_text())["ended"] == f"stopped by {name.name}"
    result = runner.run(toys.toy(STEPS), 3, tmp_path, seeds=2, config=CONFIG, resume=True, options=OFTEN)
    assert result.history["reward"].shape == (2, STEPS - 140, 1)
    assert marks(result.run) == marks(expected.run)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (directory / "metrics.jsonl").read_bytes()


def test_kill_9_with_a_save_in_flight_loses_nothing_that_was_saved(tmp_path):
    """Three kills, each right after a later step than ever before was reported: its checkpoint is being written."""
    environment = os.environ | {"JMBRL_CACHE": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"}

    def start(directory, *more):
        command = [sys.executable, str(Path(toys.__file__)), str(directory), *more]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    whole = start(tmp_path / "whole")
    whole.communicate()
    assert whole.returncode == 0
    seen, kills = 0, 0
    while True:
        process = start(tmp_path / "killed", *(["resume"] if seen else []))
        first = None
        for line in process.stdout:
            first = int(line) if first is None else first
            # Some progress first, so that there is something new to lose.
            if kills < 3 and int(line) >= max(seen, first) + 400:
                seen, kills = int(line), kills + 1
                time.sleep(0.004 * kills)  # into different moments of the save
                process.kill()
                break
        process.stdout.close()
        if process.wait() == 0:
            break
        assert process.returncode == -signal.SIGKILL
    assert kills == 3
    files = [tmp_path / name / "metrics.jsonl" for name in ("whole", "killed")]
    assert files[0].read_bytes() == files[1].read_bytes()
    abstract = Programs(toys.toy(toys.CONFIG["steps"]), seed_keys(3, 2)[0]).abstract()
    states = []
    for name in ("whole", "killed"):
        with Checkpoints(tmp_path / name / "checkpoints", read_only=True) as checkpoints:
            states.append(checkpoints.restore(abstract)[:2])
    assert states[0][0] == states[1][0] == toys.CONFIG["steps"]
    assert marks(states[0][1]) == marks(states[1][1])


def test_a_finished_run_can_be_trained_for_longer(whole, tmp_path):
    short = runner.run(toys.toy(100), 3, tmp_path, config=CONFIG | {"steps": 100}, options=OFTEN)
    longer = runner.run(toys.toy(140), 3, tmp_path, config=CONFIG | {"steps": 140}, resume=True, options=OFTEN)
    assert (short.env_steps, longer.env_steps) == (100, 140)
    with pytest.raises(ValueError, match="steps must be at least 140"):
        runner.run(toys.toy(100), 3, tmp_path, config=CONFIG | {"steps": 100}, resume=True, options=OFTEN)


def test_another_configuration_is_refused_with_what_differs(whole):
    with pytest.raises(ValueError, match=r"differs in: lr: saved 0\.01, now 0\.02"):
        runner.run(toys.toy(STEPS), 3, whole[0], seeds=2, config=CONFIG | {"lr": 0.02}, resume=True, options=OFTEN)


def test_a_directory_that_holds_a_run_is_refused(whole):
    with pytest.raises(ValueError, match="already holds a run: resume it"):
        runner.run(toys.toy(STEPS), 3, whole[0], config=CONFIG, options=OFTEN)


def test_two_runs_in_one_directory_are_refused(tmp_path):
    with Checkpoints(tmp_path / "checkpoints"), pytest.raises(CheckpointError, match="is being written by process"):
        runner.run(toys.toy(40), 0, tmp_path, resume=True, options=OFTEN)


# ------------------------------------------------------------------------------------------- faults


def test_divergence_names_seed_step_quantity_primitive_and_checkpoint(tmp_path):
    options = dataclasses.replace(OFTEN, checkpoint_seconds=3600, debug=True, eval_every=0)
    wanted = (
        r"seed 5 diverged in steps 60 to 100: model/skipped: 2 of 2 updates were not finite; "
        r"first non-finite: model/loss, row 0 of 2; checkify: .*log.*; last good checkpoint: step 60"
    )
    with pytest.raises(DivergedError, match=wanted):
        runner.run(toys.toy(200, diverges_at=60), 5, tmp_path, config=CONFIG, options=options)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["ended"] == "diverged"
    assert summary["env_steps"] == 60


def test_a_run_told_to_keep_going_warns_once_and_says_so(tmp_path):
    options = dataclasses.replace(OFTEN, keep_going=True, eval_every=0)
    with pytest.warns(UserWarning, match="seed 5 diverged before step 100") as caught:
        result = runner.run(toys.toy(140, diverges_at=60), 5, tmp_path, options=options)
    assert len([w for w in caught if "diverged" in str(w.message)]) == 1
    assert result.env_steps == 140
    assert list(result.summary["diverged"]) == [5]


def test_a_writer_that_fails_is_left_out_and_the_run_goes_on(tmp_path, monkeypatch):
    class Broken:
        def write(self, rows):
            raise ConnectionError("no route to host")

    monkeypatch.setitem(writers.OPTIONAL, "broken", lambda directory, config: Broken())
    monkeypatch.setitem(writers.OPTIONAL, "absent", lambda directory, config: exec("import no_such_package"))
    options = dataclasses.replace(OFTEN, writers=("broken", "absent"), eval_every=0)
    with pytest.warns(writers.WriterWarning) as caught:
        result = runner.run(toys.toy(60), 0, tmp_path, options=options)
    assert result.env_steps == 60
    assert sorted(str(w.message).split(" (")[0] for w in caught) == ["writer Broken failed", "writer absent failed"]
    assert rows_of(tmp_path)[-1]["env_steps"] == 60


def test_tensorboard_gets_the_numbers(tmp_path):
    pytest.importorskip("tensorboardX")
    made = writers.make(tmp_path, ("tensorboard",))
    made.write([{"env_steps": 1, "seed": 0, "reward": 0.5, "model/loss": None}])
    made.close()
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_rows_wait_in_memory_while_the_disk_refuses_them(tmp_path):
    lines = writers.JsonLines(tmp_path / "later" / "metrics.jsonl")
    with pytest.warns(writers.WriterWarning, match="1 rows are not in"):
        lines.write([{"env_steps": 1, "seed": 0}])
    (tmp_path / "later").mkdir()
    lines.write([{"env_steps": 2, "seed": 0, "loss": np.float32("nan")}])
    assert rows_of(tmp_path / "later") == [{"env_steps": 1, "seed": 0}, {"env_steps": 2, "seed": 0, "loss": None}]


def test_truncation_drops_later_rows_and_a_line_cut_off_by_a_kill(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"env_steps": 1}\n{"env_steps": 3}\n{"env_steps": 2}\n{"env_st')
    writers.truncate(path, 2)
    assert path.read_bytes() == b'{"env_steps": 1}\n{"env_steps": 2}\n'


@pytest.mark.parametrize(
    ("seed", "seeds", "message"),
    [
        (2**32, 1, r"seed must be at most 4294967295, got 4294967296"),
        (2**32 - 1, 2, r"seed must be in \[0, 2\*\*32\), got 4294967296"),
        (-1, 1, "seed must be at least 0"),
        (0.5, 1, "seed must be an integer"),
        (0, 0, "seeds must be at least 1, got 0"),
    ],
)
def test_seeds_that_would_wrap_are_refused(seed, seeds, message):
    with pytest.raises(ValueError, match=message):
        runner.run(toys.toy(40), seed, seeds=seeds)


def test_seeds_count_up_and_keys_are_taken_as_they_are():
    keys, names = seed_keys(7, 3)
    assert names == [7, 8, 9]
    assert marks(keys[2]) == marks(jax.random.key(9))
    given = jax.random.split(jax.random.key(1), 4)
    assert marks(seed_keys(given, 4)[0]) == marks(given)


def test_a_host_environment_runs_its_seeds_one_by_one_and_begins_an_episode_on_resume(tmp_path):
    train = toys.toy(60)
    hosted = dataclasses.replace(train, env=train.env._replace(spec=dataclasses.replace(train.env.spec, host=True)))
    options = dataclasses.replace(OFTEN, eval_every=0)
    both = runner.run(hosted, 3, tmp_path, seeds=2, options=options)
    alone = runner.run(train, 4, options=options)
    np.testing.assert_array_equal(both.history["reward"][1], alone.history["reward"][0])
    again = runner.run(hosted, 3, tmp_path, seeds=2, resume=True, options=options)
    assert np.asarray(again.run.is_first).all()
    with pytest.raises(ValueError, match="seeds must be at most 4 for line, which runs on the host, got 5"):
        runner.run(hosted, 3, seeds=5, options=options)
    with pytest.raises(ValueError, match="eval_env must be a second line"):
        runner.run(hosted, 3, options=OFTEN)


# ------------------------------------------------------------------------------------------ records


def metrics(**changes):
    """Two seeds, three rows of time, one environment, two updates."""
    base = {
        "reward": np.zeros((2, 3, 1), np.float32),
        "episode_return": np.full((2, 3, 1), np.nan, np.float32),
        "episode_length": np.zeros((2, 3, 1), np.int32),
        "bad_transitions": np.zeros((2, 3, 1), np.float32),
        "model/loss": np.ones((2, 2), np.float32),
        "model/skipped": np.zeros((2, 2), np.int32),
    }
    return base | changes


def test_a_healthy_chunk_is_not_broken():
    one_of_two = metrics(**{"model/skipped": np.array([[0, 1], [0, 0]])})
    assert records.broken(one_of_two, [0, 1]) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model/skipped": np.array([[0, 0], [1, 1]])}, "model/skipped: 2 of 2 updates were not finite"),
        ({"model/skipped": np.array([[9, 9], [60, 9]]), "model/updates": np.full((2, 2), 60)}, "69 of 120"),
        ({"model/diverged": np.array([[0, 0], [0, 1]])}, "model/diverged is 1"),
        ({"bad_transitions": np.array([[[1], [0], [0]], [[1], [0], [1]]])}, "2 of 3 observations or rewards"),
    ],
)
def test_what_breaks_a_run_is_named_by_seed(changes, message):
    if "model/updates" in changes:  # 69 of 120 is more than half
        changes["model/skipped"] = np.array([[9, 9], [60, 9]])
    found = records.broken(metrics(**changes), [7, 8])
    assert list(found) == [8]
    assert message in found[8]


def test_rows_tell_episodes_apart_from_time_without_an_end():
    length = np.zeros((2, 3, 1), np.int32)
    length[1, 1, 0] = 2
    returns = np.where(length > 0, np.float32(1.5), np.nan)
    rows = records.chunk_rows(
        metrics(episode_length=length, episode_return=returns, extra=np.array([[1, np.nan], [np.nan] * 2])),
        [7, 8],
        start=30,
        end=42,
    )
    assert rows[0] == {"env_steps": 38, "seed": 8, "episode_return": 1.5, "episode_length": 2}
    assert [(row["env_steps"], row["seed"], row["extra"]) for row in rows[1:]] == [(42, 7, 1.0), (42, 8, None)]
    assert rows[1]["model/skipped"] == 0
    assert rows[1]["model/loss"] == 1.0


def test_an_exploding_critic_is_named_by_seed():
    metrics = {
        "learner/updates": np.full((2, 3), 4.0),
        "learner/exploded": np.array([[2.0, 4.0, 0.0], [3.0, 4.0, 0.0]]),
        "other/exploded": np.ones((2, 3)),  # without a count of updates there is no share
    }
    assert records.exploded(metrics, [7, 8]) == {8: "learner/exploded: in 7 of 12 updates"}


def test_a_summary_of_no_episode_says_none():
    assert records.summarise([{"env_steps": 1, "seed": 0}], [0])["final_return"] == [None]


def test_the_band_holds_the_last_value_and_leaves_out_what_not_all_seeds_have():
    grid, values = figures.to_grid([(np.array([1, 3]), np.array([10.0, 30.0])), (np.array([2]), np.array([5.0]))])
    np.testing.assert_array_equal(grid, [1, 2, 3])
    np.testing.assert_array_equal(values, [[10, 10, 30], [np.nan, 5, 5]])


def test_options_are_checked():
    with pytest.raises(ValueError, match="writers must be one of tensorboard, wandb; got 'disk'"):
        runner.Options(writers=("disk",))
    with pytest.raises(ValueError, match="eval_episodes must be at least 1, got 0"):
        runner.Options(eval_episodes=0)


def test_weak_types_do_not_reach_the_compiled_programs():
    train = toys.toy(60)
    programs = Programs(train, seed_keys(0, 2)[0])
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(programs.abstract()))
    assert jnp.result_type(programs.abstract()[0].episode_return) == jnp.float32
