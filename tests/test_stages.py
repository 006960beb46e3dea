"""Runs of systems that learn in stages: how they count, that they go on where they stopped, what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import checks, runner, writers
from jmbrl.data.columns import Columns
from jmbrl.stages import make_run, make_staged
from jmbrl.train import make_train
from jmbrl.types import Agent, Stage

import toys
from worlds import line

CONFIG = {"system": "staged", "env": "line", "seed": 0, "seeds": 2}


def agent():
    """Collects numbers into a file (two at a time), then adds up the mean of what the file holds."""

    def init(key, num_envs):
        return {"rows": jnp.zeros((), jnp.int32), "total": jnp.zeros(()), "key": key}

    def table(folder):
        return Columns(folder, {"x": ((), "float32")})

    def collect(call, key, state, folder, start, length):
        found = table(folder)
        found.truncate(int(state["rows"]))
        draw = lambda key: jax.random.normal(key, (length,))  # noqa: E731
        found.append(x=np.asarray(call(("draw", length), draw, jax.random.fold_in(key, start))))
        info = {"episode_return": np.arange(start, start + length)[:, None], "episode_length": np.ones((length, 1))}
        return state | {"rows": jnp.asarray(len(found), jnp.int32)}, info

    def learn(call, key, state, folder, start, length):
        mean = jnp.asarray(table(folder).read("x").mean())
        add = lambda key, total, mean: total + mean + jax.random.normal(key)  # noqa: E731
        total = call(("add",), add, jax.random.fold_in(key, start), state["total"], mean)
        return state | {"total": total}, {"learn/loss": total[None]}

    def stages(env, steps):
        collecting = Stage("collect", "episodes", steps // 10, 2, collect, 10)
        return collecting, Stage("learn", "updates", 3, 1, learn)

    def act(key, state, carry, obs, is_first, explore):
        return jnp.tanh(state["total"])[None], carry, {}

    return Agent(init, lambda state: jnp.zeros(()), act, lambda state, carry, rows, valid: state, stages=stages)


class Stop(Exception):
    """Raised by a callback, as a killed process would end."""


def run(directory, resume=False, **more):
    options = runner.Options(checkpoint_seconds=0, quiet=True, eval_every=20, eval_episodes=2)
    train = make_staged(line(), agent(), 50)
    return runner.run(train, 0, directory, seeds=2, config=CONFIG, resume=resume, options=options, **more)


def stopping_after(count):
    left = [count]

    def stop(chunk):
        left[0] -= 1
        if left[0] == 0:
            raise Stop

    return stop


def test_work_is_counted_in_the_units_of_its_stage():
    train = make_staged(line(), agent(), 50)
    assert train.steps == 5 + 3
    assert [(span.start, span.length) for span in train.spans()] == [(0, 2), (2, 2), (4, 1), (5, 1), (6, 1), (7, 1)]
    assert [train.env_steps(done) for done in (0, 3, 5, 8)] == [0, 30, 50, 50]
    assert [(train.part(done)[0].name, train.part(done)[1]) for done in (0, 4, 5, 7, 8)] == [
        ("collect", 0), ("collect", 0), ("learn", 5), ("learn", 5), ("learn", 5),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    return directory, run(directory)


def test_a_run_keeps_its_files_and_tells_its_stages(whole):
    directory, result = whole
    assert result.env_steps == result.summary["env_steps"] == result.summary["steps"] == 50
    assert result.run.agent["total"].shape == (2,)
    for lane in (0, 1):
        kept = Columns(directory / "data" / f"seed{lane}", {"x": ((), "float32")}).read("x")
        assert len(kept) == 5
    assert not np.array_equal(*(np.fromfile(directory / "data" / f"seed{i}" / "x.bin", np.float32) for i in (0, 1)))
    rows = writers.read_rows(directory / "metrics.jsonl")
    assert [row["env_steps"] for row in rows if row["seed"] == 0 and "episode_return" in row] == [10, 20, 30, 40, 50]
    assert {(row["stage"], row["work"]) for row in rows} == {
        ("collect", 2), ("collect", 4), ("collect", 5), ("learn", 6), ("learn", 7), ("learn", 8),
    }  # fmt: skip
    assert [row["work"] for row in rows if row["seed"] == 1 and "eval_return" in row] == [2, 4, 8]
    assert result.history["learn/loss"].shape == (2, 3)


@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_a_stopped_run_goes_on_bit_for_bit(whole, tmp_path, stop_after):
    """Within the first stage, between the two, within the second; the file has grown beyond the checkpoint."""
    directory, result = whole
    with pytest.raises(Stop):
        run(tmp_path, callbacks=[stopping_after(stop_after)])
    if stop_after == 1:
        for lane in (0, 1):
            Columns(tmp_path / "data" / f"seed{lane}", {"x": ((), "float32")}).append(x=np.float32([7, 8, 9]))
    again = run(tmp_path, resume=True)
    np.testing.assert_array_equal(again.run.agent["total"], result.run.agent["total"])
    assert (tmp_path / "metrics.jsonl").read_bytes() == (directory / "metrics.jsonl").read_bytes()


def test_each_seed_is_a_run_of_its_own_and_needs_no_directory(whole):
    train = make_staged(line(), agent(), 50)
    state, history = train(checks.key(1))
    np.testing.assert_array_equal(state.agent["total"], whole[1].run.agent["total"][1])
    np.testing.assert_array_equal(history["learn/loss"], whole[1].history["learn/loss"][1])


def test_every_stage_has_a_bar_of_its_own(whole, tmp_path, capsys):
    runner.run(make_staged(line(), agent(), 50), 0, tmp_path, config=CONFIG, options=runner.Options())
    shown = capsys.readouterr().err
    assert "5/5 episodes of collect" in shown
    assert "3/3 updates of learn" in shown
    assert "compiling add" in shown


def test_the_wrong_kind_of_run_is_refused():
    with pytest.raises(ValueError, match="use make_staged"):
        make_train(line(), agent(), 50)
    with pytest.raises(ValueError, match="use make_train"):
        make_staged(line(), toys.learner(), 50)
    with pytest.raises(ValueError, match=r"num_envs must be 1 for a system of stages.*got 2"):
        make_run(line(), agent(), 50, num_envs=2)
    assert make_run(line(), toys.learner(), 40, num_envs=2).num_envs == 2
