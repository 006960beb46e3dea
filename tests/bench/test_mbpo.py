"""The rows of ``jmbrl bench mbpo`` count what they say they count."""

import importlib.util

import jax.numpy as jnp
import pytest

from jmbrl import bench
from jmbrl.bench.mbpo_work import update_flops
from jmbrl.bench.measure import _chained, matmul_rate

SMALL = {
    "obs": 3, "action": 2, "members": 2, "elites": 2, "hidden": (8, 8), "policy_hidden": (8, 8), "batch_size": 16,
    "updates": 2, "rollouts": 20, "repeats": 1,
}  # fmt: skip
MODEL = 5 * 8 + 8 * 8 + 8 * 2 * 4  # mean and log-variance of three changes and the reward
POLICY, CRITIC = 3 * 8 + 8 * 8 + 8 * 4, 5 * 8 + 8 * 8 + 8
# Layer by layer: forward, to the weights, to the layer's inputs.
UPDATE = 2 * (
    (POLICY + 2 * CRITIC)  # the target
    + 2 * (CRITIC + CRITIC + (CRITIC - 5 * 8))  # the critics
    + (POLICY + 2 * CRITIC) + 2 * (CRITIC - 3 * 8)  # the policy, judged by the critics, back to the action
    + POLICY + (POLICY - 3 * 8)
)  # fmt: skip


def row_of(preset, **changes):
    (row,) = bench.run("mbpo", preset=preset, **{**SMALL, **changes})
    return row


def test_an_update_of_sac():
    row = row_of("sac_64")
    assert row["gflop"] == pytest.approx(2 * 16 * UPDATE / 1e9)
    assert row["updates_per_s"] * row["ms_per_update"] == pytest.approx(1e3)
    assert row["fraction"] == pytest.approx(row["gflop_per_s"] / row["matmul_gflop_per_s"])
    assert row["torch"].startswith("skipped") == (importlib.util.find_spec("torch") is None)
    assert ("ratio" in row) != row["torch"].startswith("skipped")
    assert 0 < row["base_mb"] <= row["peak_mb"]


def test_the_count_at_the_papers_sizes():
    """P = 17 x 256 + 256 x 256 + 256 x 12 = 72,960, C = 71,680; XLA, with Adam and activations, counts 3 % more."""
    assert update_flops(17, 6, (256, 256)) == 2 * (4 * 72_960 + 12 * 71_680 - (5 * 17 + 2 * 6) * 256)


def test_a_rollout():
    row = row_of("rollout_of_5", horizon=3)
    assert row["gflop"] == pytest.approx(20 * 3 * 2 * (MODEL + POLICY) / 1e9)
    assert row["transitions_per_s"] * row["ms_p50"] == pytest.approx(20 * 3 * 1e3)


@pytest.mark.slow  # it compiles a whole run and each of its parts
def test_whole_periods():
    row = row_of("run", fit_every=4, warmup=16)
    fit = 256 * 2 * 2 * (3 * MODEL - 5 * 8)  # its batch, members
    flops = 4 * 2 * 16 * UPDATE + 20 * 2 * (MODEL + POLICY) + row["fit_updates"] * fit
    assert row["gflop"] == pytest.approx(flops / 1e9)
    assert row["fit_updates"] >= 1
    assert row["env_steps_per_s"] * row["ms_per_env_step"] == pytest.approx(1e3)
    shares = [row[f"share_{name}"] for name in ("sac", "fit", "rollout", "rest")]
    assert sum(shares) == pytest.approx(1.0)
    assert min(shares[:3]) > 0


def test_a_chain_is_one_product_after_another():
    """[[1, 2]] by [[1, 1], [0, 1]]: [[1, 3]], [[1, 4]], [[1, 5]]."""
    out = _chained(3)(jnp.asarray([[1.0, 2.0]]), jnp.asarray([[1.0, 1.0], [0.0, 1.0]]))
    assert out.tolist() == [[1.0, 5.0]]
    assert matmul_rate(1, 2, 2, repeats=1, chain=3) > 0


def test_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"preset must be one of sac_64, .*run; got 'ant'"):
        list(bench.run("mbpo", preset="ant"))
    with pytest.raises(ValueError, match="part must be one of sac, rollout, run; got 'fit'"):
        row_of("run", part="fit")
    with pytest.raises(ValueError, match="updates must be at least 1, got 0"):
        row_of("sac_64", updates=0)
    with pytest.raises(ValueError, match="elites must be at most 2, got 3"):
        row_of("rollout", elites=3)
