"""Logs in files: hand-written tables, round trips through .npz, a small Minari data set, and files that are broken."""

import jax
import numpy as np
import pytest

from jmbrl import data
from jmbrl.types import Continuous, Discrete, Spec

BOX = Continuous((-2.0,), (2.0,))
TABLE = """t,x,v,u,r,run,end
0.0,1,2,-2,0.5,a,0
0.1,3,4,2,1.5,a,0
0.2,5,6,,,a,1
0.0,7,8,1,2.5,b,0
0.1,9,10,0,3.5,b,0
0.4,11,12,-1,4.5,b,false
0.5,13,14,2,5.5,b,
"""
COLUMNS = {"obs": ["x", "v"], "action": ["u"], "reward": "r", "episode": "run", "terminated": "end", "time": "t"}


@pytest.fixture
def table(tmp_path):
    def write(text=TABLE):
        path = tmp_path / "log.csv"
        path.write_text(text)
        return path

    return write


def test_a_table_by_hand(table):
    log = data.from_csv(table(), **COLUMNS, space=BOX)
    assert (log.dropped, log.episodes, log.cut) == (3, 3, 2)
    rows = jax.tree.map(lambda x: np.asarray(x)[:, 0], log.replay.data)
    np.testing.assert_array_equal(rows.obs, [[1, 2], [3, 4], [7, 8], [11, 12]])
    np.testing.assert_array_equal(rows.next_obs, [[3, 4], [5, 6], [9, 10], [13, 14]])
    np.testing.assert_array_equal(rows.action, [[-1], [1], [0.5], [-0.5]])
    np.testing.assert_array_equal(rows.reward, [0.5, 1.5, 2.5, 4.5])
    np.testing.assert_array_equal(rows.terminated, [False, True, False, False])
    np.testing.assert_array_equal(rows.truncated, [False, False, True, True])
    assert log.spec.obs_names == ("x", "v")


def test_a_column_of_discrete_actions(table):
    text = "x;a;r\n0;1;0\n1;0;1\n2;;\n"
    log = data.from_csv(table(text), obs=["x"], action="a", reward="r", delimiter=";")
    assert log.spec.action == Discrete(2)
    assert np.asarray(log.replay.data.action[:, 0]).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("text", "change", "message"),
    [
        (TABLE, {"reward": "q"}, "reward column 'q' is not in .*, which has t, x, v, u, r, run, end"),
        (TABLE.replace("t,x,v", "x,x,v"), {"time": None}, "obs column 'x' is twice in"),
        (TABLE.replace("0.1,3,4,2", "0.1,3,four,2"), {}, "line 3, column 'v' must be a number, got 'four'"),
        (TABLE[:-5], {}, "line 8 must have 7 cells, as the header has, got 5"),
        (TABLE.replace("0.4,11,12,-1,4.5,b,false", "0.4,11,12,-1,4.5,b,no"), {}, "column 'end' must be 0, 1, true or"),
        (TABLE.replace("0.1,3,4,2", "0.1,3,4,"), {}, r"action must be finite: row 1, action\[0\] is nan"),
        ("t,x,v,u,r,run,end\n", {}, "must have a header and at least one row, got 1 lines"),
        (TABLE, {"action": []}, "action must name at least one column, got none"),
    ],
)
def test_bad_tables_are_refused(table, text, change, message):
    with pytest.raises(ValueError, match=message):
        data.from_csv(table(text), **COLUMNS | change, space=BOX)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "log.csv").write_bytes(b"\xff\xfe\x00x")
    with pytest.raises(ValueError, match="must be a table in UTF-8"):
        data.from_csv(tmp_path / "log.csv", **COLUMNS, space=BOX)
    with pytest.raises(ValueError, match=r"must be a table in UTF-8: .*No such file"):
        data.from_csv(tmp_path / "none.csv", **COLUMNS, space=BOX)


def log_of(count=40, seed=0):
    """Two ends, one time limit, and the data's own end."""
    rng = np.random.default_rng(seed)
    obs = rng.normal(size=(count + 1, 2)).astype(np.float32)
    flags = np.zeros((2, count), bool)
    flags[0, [9, 29]], flags[1, [19, count - 1]] = True, True
    return data.from_log(obs[:-1], rng.uniform(-2, 2, (count, 1)), rng.normal(size=count), obs[1:], *flags, space=BOX)


def test_a_round_trip_is_exact(tmp_path):
    log = log_of()
    data.save_npz(tmp_path / "log.npz", log.replay, log.spec)
    again = data.from_npz(tmp_path / "log.npz", spec=log.spec)
    jax.tree.map(np.testing.assert_array_equal, again.replay, log.replay)
    assert again._replace(replay=None) == log._replace(replay=None)


def test_names_of_others(tmp_path):
    path = tmp_path / "theirs.npz"
    seen = jax.tree.map(lambda x: np.asarray(x)[:, 0], log_of().replay.data)
    theirs = {"observations": seen.obs, "actions": 2 * seen.action, "rewards": seen.reward}
    theirs |= {"next_observations": seen.next_obs, "terminals": seen.terminated, "timeouts": seen.truncated}
    np.savez(path, **theirs)
    again = data.from_npz(path, space=BOX)
    jax.tree.map(np.testing.assert_array_equal, again.replay.data, log_of().replay.data)
    np.savez(path, **{name: x for name, x in theirs.items() if name != "rewards"}, gain=seen.reward)
    with pytest.raises(ValueError, match="it has no array reward or rewards, only observations, actions"):
        data.from_npz(path, space=BOX)
    named = data.from_npz(path, names={"reward": "gain"}, space=BOX)
    np.testing.assert_array_equal(named.replay.data.reward, again.replay.data.reward)
    with pytest.raises(ValueError, match=r"names must be of obs, .*; got 'rewards'"):
        data.from_npz(path, names={"rewards": "gain"}, space=BOX)


def test_broken_files_are_refused(tmp_path):
    whole, part = tmp_path / "whole.npz", tmp_path / "part.npz"
    log = log_of()
    data.save_npz(whole, log.replay, log.spec)
    part.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"path .*part\.npz must be an \.npz file of arrays"):
        data.from_npz(part, spec=log.spec)
    with pytest.raises(ValueError, match=r"none\.npz must be an \.npz file"):
        data.from_npz(tmp_path / "none.npz", spec=log.spec)
    np.savez(part, obs=np.asarray([{}, {}], object), action=np.zeros(2, int), reward=np.zeros(2))
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        data.from_npz(part)
    np.save(tmp_path / "single.npy", np.zeros(3))
    with pytest.raises(ValueError, match="it holds a single array"):
        data.from_npz(tmp_path / "single.npy")
    with pytest.raises(ValueError, match=r"path must end in \.npz, got log\.txt"):
        data.save_npz("log.txt", log.replay, log.spec)
    with pytest.raises(ValueError, match="replay must hold at least one valid row"):
        data.save_npz(part, data.empty(log.spec, 3), log.spec)


# ------------------------------------------------------------------------------------------------- Minari


@pytest.fixture
def minari(tmp_path, monkeypatch):
    module = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return module


def buffers(minari, observations, actions):
    """Two episodes: of three steps, ending, and of two, cut off."""
    from minari.data_collector import EpisodeBuffer

    def one(number, steps, rows, terminated):
        flags = [False] * (steps - 1)
        return EpisodeBuffer(
            id=number, observations=observations(rows), actions=actions(rows[:-1]),
            rewards=[float(i) for i in rows[:-1]], terminations=[*flags, terminated],
            truncations=[*flags, not terminated], infos={},
        )  # fmt: skip

    return [one(0, 3, [0, 1, 2, 3], True), one(1, 2, [10, 11, 12], False)]


def make(minari, name, episodes, obs_space, action_space):
    return minari.create_dataset_from_buffers(
        name, episodes, observation_space=obs_space, action_space=action_space, algorithm_name="none", author="none",
        author_email="none", code_permalink="none", description="none",
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_data_set_of_minari(minari):
    from gymnasium import spaces

    space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    episodes = buffers(
        minari,
        lambda rows: [np.asarray([i, -i], np.float32) for i in rows],
        lambda rows: [np.asarray([i % 3 - 1], np.float32) * 2 for i in rows],
    )
    dataset = make(minari, "small/box-v0", episodes, space, spaces.Box(-2.0, 2.0, (1,), np.float32))
    for source in (dataset, "small/box-v0"):
        log = data.from_minari(source)
        rows = jax.tree.map(lambda x: np.asarray(x)[:, 0], log.replay.data)
        np.testing.assert_array_equal(rows.obs[:, 0], [0, 1, 2, 10, 11])
        np.testing.assert_array_equal(rows.next_obs[:, 1], [-1, -2, -3, -11, -12])
        np.testing.assert_array_equal(rows.action[:, 0], [-1, 0, 1, 0, 1])
        np.testing.assert_array_equal(rows.reward, [0, 1, 2, 10, 11])
        np.testing.assert_array_equal(rows.terminated, [0, 0, 1, 0, 0])
        np.testing.assert_array_equal(rows.truncated, [0, 0, 0, 0, 1])
        assert (log.dropped, log.cut, log.episodes) == (0, 0, 2)
        assert log.spec == Spec("small/box-v0", (2,), BOX, 3)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_dictionaries_and_discrete_actions_of_minari(minari):
    from gymnasium import spaces

    space = spaces.Dict({"place": spaces.Discrete(20), "speed": spaces.Box(-99, 99, (1,), np.float32)})
    episodes = buffers(
        minari,
        lambda rows: {"place": np.asarray(rows), "speed": np.asarray(rows, np.float32)[:, None]},
        lambda rows: np.asarray([i % 2 + 5 for i in rows]),
    )
    dataset = make(minari, "small/dict-v0", episodes, space, spaces.Discrete(2, start=5))
    log = data.from_minari(dataset)
    rows = jax.tree.map(lambda x: np.asarray(x)[:, 0], log.replay.data)
    assert rows.obs.shape == (5, 21)
    np.testing.assert_array_equal(np.argmax(rows.next_obs[:, :20], axis=1), [1, 2, 3, 11, 12])
    np.testing.assert_array_equal(rows.next_obs[:, 20], [1, 2, 3, 11, 12])
    np.testing.assert_array_equal(rows.action, [0, 1, 0, 0, 1])
    assert log.spec.action == Discrete(2)
    assert log.spec.obs_names[-1] == "speed[0]"
    assert [part[0] for part in log.spec.obs_parts] == ["place", "speed"]


def test_what_is_not_there_is_said(minari, monkeypatch):
    with pytest.raises(ValueError, match="dataset 'no/such-v0' is not on this machine"):
        data.from_minari("no/such-v0")
    monkeypatch.setitem(__import__("sys").modules, "minari", None)
    with pytest.raises(ImportError, match=r"pip install jmbrl\[minari\]"):
        data.from_minari("no/such-v0")
