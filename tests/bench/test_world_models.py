"""The rows of ``jmbrl bench world_models`` count what they say they count."""

import importlib.util
import sys

import jax
import pytest

from jmbrl import bench
from jmbrl.bench import world_models_work as work
from jmbrl.bench.world_models import conv_rate
from jmbrl.networks import conv_stack

TINY = {
    "env": "dodge", "size": 16, "depth": 1, "channels": (2, 4), "latent": 3, "hidden": 5, "mixtures": 2, "frames": 300,
    "batch_size": 4, "updates": 2, "length": 6, "population": 4, "rollouts": 2, "steps": 3, "copies": 2, "repeats": 1,
}  # fmt: skip
# 16 x 16 x 1 -> 7 x 7 x 2 -> 2 x 2 x 4 = 16 units. Kernels of 6: 1 -> 6 -> 16 pixels.
NARROW = 16 * 1 * 2 * 49, 16 * 2 * 4 * 4
WIDE = 16 * 36 * 2 * 1, 2 * 36 * 1 * 36
ENCODE = sum(NARROW) + 16 * 6
VISION = 3 * (ENCODE + 3 * 16 + sum(WIDE)) - NARROW[0]
GATES, MIXTURES = (3 + 1 + 5) * 20, 5 * (3 * 3 * 2 + 2)


@pytest.fixture(scope="module", autouse=True)
def compiled_without_optimising():
    def compiled_ahead(fn, *args, donate=()):
        lowered = jax.jit(fn, donate_argnums=donate).lower(*args)
        return lowered.compile({"xla_backend_optimization_level": 0}), 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[conv_rate.__module__], "compiled_ahead", compiled_ahead)
        yield


def row_of(preset, **changes):
    (row,) = bench.run("world_models", preset=preset, **{**TINY, **changes})
    assert row["preset"] == preset
    assert row["program_mb"] > 0
    assert 0 < row["base_mb"] <= row["peak_mb"]
    if "fraction" in row:
        assert row["fraction"] == pytest.approx(row["gflop_per_s"] / row["matmul_gflop_per_s"])
        assert row["fraction"] <= row["fraction_best"] * (1 + 1e-9)
    return row


def gflop_per_s(row, name, adds):
    """The rate of the arithmetic from that of what is counted."""
    return pytest.approx(row[f"{name}_per_s"] * 2 * adds / 1e9)


def test_the_count_at_the_papers_sizes():
    """Layer by layer as in appendix A.1: 64 - 31 - 14 - 6 - 2 pixels a side, 1 - 5 - 13 - 30 - 64 back."""
    stack = conv_stack((64, 64, 3))
    assert work.narrowing(stack) == [
        48 * 32 * 31 * 31, 512 * 64 * 14 * 14, 1024 * 128 * 6 * 6, 2048 * 256 * 2 * 2,
    ]  # fmt: skip
    assert work.widening(stack) == [
        1024 * 25 * 128, 128 * 25 * 64 * 5 * 5, 64 * 36 * 32 * 13 * 13, 32 * 36 * 3 * 30 * 30,
    ]  # fmt: skip
    assert work.encode_flops(stack, 32) == 2 * (14_714_368 + 1024 * 64)
    race = work.Work("memory")
    assert work.recur_flops(race, 3) == 2 * 291 * 1024
    assert work.mixture_flops(race) == 2 * 256 * 482
    assert work.memory_flops(race, 3) == 2 * (2 * 35 * 1024 + 3 * 256 * 1024 + 3 * 256 * 482)
    assert work.control_flops(race, 3) == 2 * 288 * 3


def test_frames_through_v():
    row = row_of("encode_32")
    assert row["gflop"] == pytest.approx(300 * 2 * ENCODE / 1e9)
    assert row["gflop_per_s"] == gflop_per_s(row, "frames", ENCODE)
    assert row["conv_fraction"] * row["conv_gflop_per_s"] == pytest.approx(
        row["fraction_best"] * row["matmul_gflop_per_s"]
    )


def test_updates_of_v():
    row = row_of("vision_32")
    assert row["gflop"] == pytest.approx(2 * 4 * 2 * VISION / 1e9)
    assert row["gflop_per_s"] == gflop_per_s(row, "frames", VISION)


def test_updates_of_m():
    row = row_of("memory")
    assert row["gflop"] == pytest.approx(2 * 4 * 6 * 2 * (3 * (GATES + MIXTURES) - 4 * 20) / 1e9)
    assert row["rows_per_s"] == pytest.approx(row["updates_per_s"] * 4 * 6)


def test_a_generation_in_the_dream():
    row = row_of("dream")
    assert row["gflop"] == pytest.approx(4 * 2 * 3 * 2 * (GATES + MIXTURES + 8) / 1e9)
    assert row["dream_steps_per_s"] == pytest.approx(row["generations_per_s"] * 4 * 2 * 3)


@pytest.mark.slow  # seconds of compiling
def test_a_generation_in_the_world():
    row = row_of("world_32")
    assert row["gflop"] == pytest.approx(4 * 2 * 3 * 2 * (ENCODE + GATES + 8) / 1e9)
    assert row["frames_per_s"] == pytest.approx(row["generations_per_s"] * 4 * 2 * 3)
    assert row["fitness"] == 3.0  # every episode lasted as long as was counted: a step alive pays 1
    assert row["full_steps"] == 2100
    episodes = 1 / row["generations_per_s_best"] - row["ms_search"] / 1e3
    wanted = row["ms_search"] / 1e3 + max(episodes, 0.0) * 2100 / 3
    assert row["s_per_full_generation"] == pytest.approx(wanted)


def test_pictures():
    row = row_of("env_dodge_32")
    assert row["frames_per_s"] <= row["frames_per_s_best"]
    assert "fraction" not in row
    if importlib.util.find_spec("Box2D") is None:
        (row,) = bench.run("world_models", preset="env_gymnasium_car_racing")
        assert row["skipped"] == "Box2D is not installed"


def test_the_compilers_convolutions():
    assert conv_rate((16, 16, 1), (2, 4), 2, repeats=1) > 0


def test_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"preset must be one of encode_64, .*env_gymnasium_car_racing; got 'ant'"):
        list(bench.run("world_models", preset="ant"))
    with pytest.raises(ValueError, match="part must be one of encode, vision, memory, world, dream, env; got 'fit'"):
        row_of("memory", part="fit")
    with pytest.raises(ValueError, match="updates must be at least 1, got 0"):
        row_of("vision_32", updates=0)
    with pytest.raises(ValueError, match="frames must be at least 301, got 300"):
        row_of("memory", length=300)
