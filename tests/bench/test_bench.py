"""The benchmarks run, count what they say they count, and refuse what they do not know."""

import pytest

from jmbrl import bench

SMALL = {
    "members": 2, "hidden": (8, 8), "population": 10, "horizon": 2, "particles": 3, "iterations": 2, "repeats": 2,
}  # fmt: skip


def test_planning_counts_its_arithmetic():
    (row,) = bench.run("planning", preset="cartpole", **SMALL)
    per_row = 2 * (5 * 8 + 8 * 8 + 8 * 2 * 4)  # inputs 4 + 1; means and log-variances of 4 dimensions
    assert row["gflop"] == pytest.approx(10 * 3 * 2 * 2 * per_row / 1e9)
    assert row["transitions_per_s"] * row["ms_p50"] / 1e3 == pytest.approx(10 * 3 * 2 * 2)
    assert row["fraction"] == pytest.approx(row["gflop_per_s"] / row["matmul_gflop_per_s"])
    assert row["floor_ms"] == pytest.approx(row["fraction"] * row["ms_p50"])
    assert row["program_mb"] > 0
    assert row["peak_mb"] > 0


def test_fit_counts_three_passes():
    (row,) = bench.run("fit", preset="cartpole", members=2, hidden=(8, 8), repeats=1, rows=64, epochs=2, batch_size=32)
    per_row = 2 * (5 * 8 + 8 * 8 + 8 * 2 * 5)  # the reward is learned too
    assert row["gflop"] == pytest.approx(4 * 2 * 32 * (3 * per_row - 2 * 5 * 8) / 1e9)
    assert row["steps_per_s"] * row["ms_per_step"] == pytest.approx(1e3)


def test_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="name must be one of planning, fit, seeds; got 'speed'"):
        list(bench.run("speed"))
    with pytest.raises(ValueError, match="preset must be one of cartpole, halfcheetah"):
        list(bench.run("planning", preset="ant"))
    with pytest.raises(ValueError, match="options of bench planning"):
        list(bench.run("planning", colour="red"))


def test_seeds_side_by_side_are_the_seeds_alone():
    (row,) = bench.run("seeds", count=2, steps=400, system="random")
    assert row["lane_bitwise"]
    assert row["first_episode_difference"] < 1e-4
    assert row["ratio"] == pytest.approx(row["vmap_s"] / row["single_s"])
