"""Checkpoints: exact, checked, and never two writers."""

import contextlib
import resource
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl.checkpoint import CheckpointError, Checkpoints, CheckpointWarning, config_diff, fingerprint

# Where a file is damaged, orbax's other readers find their event loop closed; Python prints that and goes on.
STRAY = r"ignore:Exception ignored in. None[\s\S]*Event loop is closed:pytest.PytestUnraisableExceptionWarning"
pytestmark = pytest.mark.filterwarnings(STRAY)


def make_state(key):
    return {
        "key": key,
        "keys": jax.random.split(key, 3),
        "weights": jax.random.normal(key, (64, 64)),
        "empty": jnp.zeros((0, 3)),
        "nothing": None,
        "tuple": (jnp.bfloat16(1.5), jnp.asarray(True), jnp.int32(-3), jnp.float32(1e-30)),
    }


STATE = make_state(jax.random.key(3))
SHAPES = jax.eval_shape(make_state, jax.random.key(0))


def later(step):
    return STATE | {"weights": STATE["weights"] + step}


def same(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_equal(fingerprint(x), fingerprint(y)), a, b)


@pytest.fixture
def saved(tmp_path):
    """A directory with the steps 10, 20 and 30 saved, of which two are kept."""
    with Checkpoints(tmp_path / "c") as checkpoints:
        for step in (10, 20, 30):
            assert checkpoints.save(step, later(step), {"config": {"lr": 0.1, "hidden": (8, 8)}})
    return tmp_path / "c"


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def test_every_kind_of_leaf_comes_back_bit_for_bit(saved):
    with Checkpoints(saved) as checkpoints:
        assert checkpoints.steps() == [20, 30]
        step, state, metadata = checkpoints.restore(SHAPES, {"lr": 0.1, "hidden": (8, 8)})
    assert step == 30
    assert metadata["config"] == {"lr": 0.1, "hidden": [8, 8]}
    same(state, later(30))
    np.testing.assert_array_equal(jax.random.normal(state["key"]), jax.random.normal(STATE["key"]))
    assert state["nothing"] is None


def test_nothing_saved_restores_nothing(tmp_path):
    with Checkpoints(tmp_path / "c") as checkpoints:
        assert checkpoints.restore(SHAPES) is None
    with pytest.raises(CheckpointError, match="no checkpoints in"):
        Checkpoints(tmp_path / "elsewhere", read_only=True)


def test_a_relative_path_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Checkpoints("here") as checkpoints:
        assert checkpoints.save(1, STATE)
    assert (tmp_path / "here" / "1").is_dir()


# What orbax itself never reads again (its copies of the manifest) may be damaged without harm.
@pytest.mark.parametrize("which", ["arrays", "metadata", "types"])
def test_a_flipped_byte_falls_back_to_the_step_before(saved, which):
    where = {
        "arrays": max((saved / "30" / "default" / "d").iterdir(), key=lambda path: path.stat().st_size),
        "metadata": saved / "30" / "_CHECKPOINT_METADATA",
        "types": saved / "30" / "default" / "_METADATA",
    }
    flip(where[which])
    with Checkpoints(saved) as checkpoints:
        with pytest.warns(CheckpointWarning, match="checkpoint 30 in .* is damaged"):
            step, state, _ = checkpoints.restore(SHAPES)
        assert step == 20
        same(state, later(20))
        # The damaged step would stay the newest for ever and make orbax refuse this one.
        assert checkpoints.save(30, later(30))
        checkpoints.wait()
        assert checkpoints.restore(SHAPES)[0] == 30


def test_numbers_changed_on_disk_are_noticed_even_where_orbax_reads_them(saved, monkeypatch):
    manager = "orbax.checkpoint.CheckpointManager.restore"
    import orbax.checkpoint as ocp

    real = ocp.CheckpointManager.restore

    def rotten(self, step, **options):
        leaves = real(self, step, **options)
        return jax.tree.map(lambda x: x + 1 if x.shape == (64, 64) and step == 30 else x, leaves)

    monkeypatch.setattr(manager, rotten)
    with Checkpoints(saved, read_only=True) as checkpoints, pytest.warns(CheckpointWarning, match="has wrong bytes"):
        assert checkpoints.restore(SHAPES)[0] == 20


def test_nothing_intact_is_an_error_that_names_the_steps(saved):
    for step in ("20", "30"):
        flip(saved / step / "_CHECKPOINT_METADATA")
    with Checkpoints(saved) as checkpoints:
        with pytest.warns(CheckpointWarning), pytest.raises(CheckpointError, match=r"steps \[20, 30\] are damaged"):
            checkpoints.restore(SHAPES)
        assert checkpoints.steps() == [20, 30]  # nothing is removed where nothing replaces it


def test_another_configuration_is_refused_with_what_differs(saved):
    with Checkpoints(saved) as checkpoints, pytest.raises(ValueError, match=r"lr: saved 0.1, now 0.2; seed: saved"):
        checkpoints.restore(SHAPES, {"lr": 0.2, "hidden": (8, 8), "seed": 1})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"weights": jax.ShapeDtypeStruct((64, 32), jnp.float32)},
            r"saved 'float32\[64, 64\]', now 'float32\[64, 32\]'",
        ),
        ({"weights": jax.ShapeDtypeStruct((64, 64), jnp.bfloat16)}, r"now 'bfloat16\[64, 64\]'"),
        ({"more": jax.ShapeDtypeStruct((), jnp.float32)}, r"\['more'\]: saved '\(absent\)'"),
    ],
)
def test_other_arrays_are_refused_by_name(saved, change, message):
    with Checkpoints(saved) as checkpoints, pytest.raises(ValueError, match=message):
        checkpoints.restore(SHAPES | change)


def test_another_key_implementation_is_refused(saved):
    rbg = jax.eval_shape(lambda: jax.random.key(0, impl="rbg"))
    with Checkpoints(saved) as checkpoints, pytest.raises(ValueError, match=r"saved 'key<fry>\[\]'"):
        checkpoints.restore(SHAPES | {"key": rbg})


def test_a_second_writer_is_refused_and_a_reader_is_not(saved):
    code = f"from jmbrl.checkpoint import Checkpoints\nCheckpoints({str(saved)!r})"
    with Checkpoints(saved):
        with pytest.raises(CheckpointError, match=r"is being written by process \d+"):
            Checkpoints(saved)
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert other.returncode != 0
        assert "is being written by process" in other.stderr
        with Checkpoints(saved, read_only=True) as reader:
            assert reader.restore(SHAPES)[0] == 30
    Checkpoints(saved).close()  # released


def test_a_step_that_is_there_is_not_written_twice(saved):
    with Checkpoints(saved) as checkpoints, pytest.warns(CheckpointWarning, match="checkpoint 30 was not saved"):
        assert not checkpoints.save(30, STATE)


@contextlib.contextmanager
def full_disk():
    """No file may grow beyond 8 kB: what orbax writes in the background fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_warns_and_training_goes_on(saved):
    with Checkpoints(saved) as checkpoints:
        with full_disk(), pytest.warns(CheckpointWarning, match="was not saved to .* training goes on"):
            assert not (checkpoints.save(40, later(40)) and checkpoints.wait())
        assert checkpoints.restore(SHAPES)[0] == 30
        assert checkpoints.save(50, later(50))
        assert not list(saved.glob("40*"))  # it would keep the disk full
    with Checkpoints(saved) as checkpoints:
        assert checkpoints.restore(SHAPES)[0] == 50


def test_leftovers_of_a_kill_are_cleared(saved):
    left = saved / "40.orbax-checkpoint-tmp"
    left.mkdir()
    with Checkpoints(saved):
        assert not left.exists()


def test_bad_arguments_are_refused(tmp_path):
    with pytest.raises(ValueError, match="keep must be at least 1, got 0"):
        Checkpoints(tmp_path, keep=0)
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(ValueError, match="step must be at least 0, got -1"):
        checkpoints.save(-1, STATE)


def test_config_diff_reaches_into_nested_entries():
    assert config_diff({"a": 1, "b": {"c": (1, 2)}}, {"a": 1, "b": {"c": [1, 2]}}) == []
    assert config_diff({"b": {"c": 1}}, {"b": {"c": 2}}) == ["b.c: saved 1, now 2"]
