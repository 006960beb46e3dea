"""The rows of ``jmbrl bench search`` count what they say they count."""

from typing import Any

import pytest

from jmbrl import bench

TINY: dict[str, Any] = {"batch": 3, "simulations": 5, "obs": 3, "latent": 4, "units": 8, "bins": 5, "repeats": 2}


def test_a_search():
    """Products of one tree: the encoder 3 x 8, 8 x 4, at the root policy and value 4 x 8 each with 8 x 4 and 8 x 5; in
    each of five simulations those again, after the dynamics 8 x 8, 8 x 4 and the reward 8 x 5."""
    (row,) = bench.run("search", preset="batch_16_of_16", **TINY)
    judged = 2 * 4 * 8 + 8 * 4 + 8 * 5
    once = 3 * 8 + 8 * 4 + judged + 5 * (judged + 8 * 8 + 8 * 4 + 8 * 5)
    assert row["gflop"] * 1e9 == pytest.approx(2 * 3 * once, rel=0.3)
    assert row["simulations_per_s"] * row["ms_per_search"] == pytest.approx(1e3 * 15)
    assert 1 <= row["mean_depth"] <= 5
    assert row["peer_ratio"] == pytest.approx(row["simulations_per_s"] / row["peer_simulations_per_s"])


def test_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="simulations must be at least 1, got 0"):
        list(bench.run("search", preset="batch_16_of_16", **TINY | {"simulations": 0}))
    with pytest.raises(ValueError, match="preset must be one of batch_1_of_16"):
        list(bench.run("search", preset="b"))
