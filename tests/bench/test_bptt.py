"""The rows of ``jmbrl bench bptt`` count what they say they count."""

from typing import Any

import pytest

from jmbrl import bench

TINY: dict[str, Any] = {
    "batch_size": 4, "members": 2, "hidden": (8, 8), "policy_hidden": (3,), "obs": 5, "action": 2, "repeats": 2,
}  # fmt: skip


def test_a_gradient_step():
    """Products of one network: 7 x 8, 8 x 8, 8 x 12 (means and variances of 5 changes and a reward); of the policy: 5 x
    3, 3 x 4. Two operations a multiply-add, four rows, six steps: forward, and backward at most twice as much."""
    (row,) = bench.run("bptt", preset="horizon_10", horizon=6, **TINY)
    forward = 2 * 4 * 6 * (7 * 8 + 8 * 8 + 8 * 12 + 5 * 3 + 3 * 4)
    assert 1.5 * forward < row["gflop"] * 1e9 < 3 * forward
    assert row["updates_per_s"] * row["ms_per_update"] == pytest.approx(1e3)
    assert row["imagined_per_s"] == pytest.approx(4 * 6 * row["updates_per_s"])
    assert 0 < row["base_mb"] <= row["peak_mb"]


def test_to_compute_again_is_more_work_and_less_memory():
    rows = [next(bench.run("bptt", preset=f"horizon_100{end}", **TINY)) for end in ("", "_rematerialised")]
    assert rows[1]["gflop"] > 1.2 * rows[0]["gflop"]
    assert rows[1]["program_mb"] < 0.8 * rows[0]["program_mb"]


def test_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"preset must be one of horizon_10, .*horizon_1000_rematerialised; got 'h'"):
        list(bench.run("bptt", preset="h"))
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        list(bench.run("bptt", preset="horizon_10", **TINY | {"horizon": 0}))
