"""The benchmarks run, count what they say they count, and refuse what they do not know."""

import json
import subprocess
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import agents, bench, envs
from jmbrl.bench.measure import flops_per_row, peak_bytes
from jmbrl.bench.models import count_transitions, decision, first_belief
from jmbrl.bench.problem import icem_population, make_model, make_planner, ready, replay
from jmbrl.bench.tabular import steps_until
from jmbrl.train import make_train

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


def test_another_planner_and_another_model_are_rows_of_their_own():
    (row,) = bench.run("planning", preset="planners", planner="mppi", **SMALL)
    per_row = 2 * (5 * 8 + 8 * 8 + 8 * 2 * 4)
    assert (row["planner"], row["model"], row["transitions"]) == ("mppi", "ensemble", 10 * 3 * 2 * 2)
    assert row["gflop"] == pytest.approx(10 * 3 * 2 * 2 * per_row / 1e9)
    (row,) = bench.run("planning", preset="models", model="linear", **SMALL)
    assert (row["planner"], row["model"], row["transitions"]) == ("cem", "linear", 10 * 3 * 2 * 2)
    assert "fraction" not in row  # its arithmetic is not a network's matrices
    assert 0 < row["base_mb"] <= row["peak_mb"]


@pytest.mark.parametrize("name", bench.PLANNERS[:-1])
def test_planners_evaluate_equally_many_sequences(name):
    """50 sequences of 2 steps and 3 particles: 300. iCEM may not use up the last, smaller iteration."""
    preset = bench.PRESETS["planners"]._replace(population=25, horizon=2, particles=3, iterations=2)
    count = count_transitions(make_planner(name, preset), preset)
    assert 290 <= count <= 300 if name == "icem" else count == 300


def test_icem_shrinks_into_the_budget():
    # Sizes 4 elites / 10 x 0.3 = 1 kept: 20 + 16 + 12 and three times 1 is 51; 21 + 16 + 12 + 3 is 52.
    assert icem_population(51, 4, 3) == 20
    assert icem_population(52, 4, 3) == 21
    # CEM's cartpole budget of 350 x 5 with 35 elites, 10 of them kept: 506 + 404 + 323 + 258 + 206 + 50 = 1747.
    assert icem_population(1750, 35, 5) == 506


@pytest.mark.parametrize("name", bench.MODELS)
def test_every_family_plans(name):
    preset = bench.PRESETS["models"]._replace(hidden=(8, 8), population=4, horizon=2, particles=2, iterations=1)
    model = make_model(name, preset, reward=lambda obs, action, next_obs: next_obs[0])

    def decide(key):
        params = ready(model, replay(preset, 20))
        return decision(make_planner("cem", preset), model, 2)(key, params, first_belief(model, params, preset))

    assert jax.eval_shape(decide, jax.random.key(0)).shape == (1,)


def test_arithmetic_of_one_network_and_of_a_member():
    preset = bench.PRESETS["models"]._replace(hidden=(8, 8))
    for name, per_row in (("deterministic_mlp", 5 * 8 + 8 * 8 + 8 * 4), ("ensemble", 5 * 8 + 8 * 8 + 8 * 8)):
        model = make_model(name, preset, reward=lambda obs, action, next_obs: next_obs[0])
        params = jax.eval_shape(model.init, jax.random.key(0))
        assert flops_per_row(params, model.members) == 2 * per_row


def test_rows_of_several_have_processes_of_their_own(monkeypatch):
    commands = []

    def pretend(command, **options):
        commands.append(command[3:])
        return SimpleNamespace(returncode=0, stdout=json.dumps({"row": len(commands)}), stderr="")

    monkeypatch.setattr(subprocess, "run", pretend)
    rows = list(bench.run("planning", preset="planners", hidden=(8, 8)))
    assert rows == [{"row": i + 1} for i in range(6)]
    assert commands[1] == [
        "bench", "planning", "--set", "repeats=5", "--set", "preset=planners", "--set", "hidden=(8, 8)",
        "--set", "planner=cem",
    ]  # fmt: skip
    everything = list(bench.run("planning"))
    assert len(everything) == 2 + len(bench.PLANNERS) + len(bench.MODELS)
    assert len(list(bench.run("fit"))) == 2
    monkeypatch.setattr(subprocess, "run", lambda *a, **b: SimpleNamespace(returncode=2, stdout="", stderr="error: no"))
    with pytest.raises(ValueError, match=r"^no$"):
        list(bench.run("planning"))
    monkeypatch.setattr(subprocess, "run", lambda *a, **b: SimpleNamespace(returncode=1, stdout="", stderr="killed"))
    with pytest.raises(RuntimeError, match=r"bench planning repeats=5 .*planner=random_shooting failed: killed"):
        list(bench.run("planning", preset="planners"))


def test_the_peak_does_not_fall():
    before = peak_bytes()
    jnp.ones((4_000_000,)).block_until_ready()
    assert 50e6 < before <= peak_bytes() < 1e12


def test_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"name must be one of planning, .*dreamer, bptt, search, scale; got 'speed'"):
        list(bench.run("speed"))
    with pytest.raises(ValueError, match="preset must be one of cartpole, halfcheetah"):
        list(bench.run("planning", preset="ant"))
    with pytest.raises(ValueError, match="preset must be one of cartpole, halfcheetah; got 'planners'"):
        list(bench.run("fit", preset="planners"))
    with pytest.raises(ValueError, match=r"planner must be one of random_shooting, cem, .*; got 'dreams'"):
        list(bench.run("planning", preset="cartpole", planner="dreams"))
    with pytest.raises(ValueError, match=r"model must be one of ensemble, .*; got 'dreams'"):
        list(bench.run("planning", preset="cartpole", model="dreams"))
    with pytest.raises(ValueError, match=r"preset must be one of q_learning, .*sweeping_fine; got 'cartpole'"):
        list(bench.run("tabular", preset="cartpole"))
    with pytest.raises(ValueError, match="system must be one of dyna_q, prioritized_sweeping; got 'pets'"):
        list(bench.run("tabular", preset="dyna_q_5", system="pets"))
    with pytest.raises(ValueError, match="episodes must be at least 1, got 0"):
        list(bench.run("tabular", preset="dyna_q_5", episodes=0))
    with pytest.raises(ValueError, match="options of bench planning"):
        list(bench.run("planning", fresh=False, colour="red"))


def test_tabular_counts_its_updates():
    (row,) = bench.run("tabular", preset="dyna_q_5", runs=2, episodes=2, repeats=1, numpy_seconds=0)
    # Planning comes before each real step, and before the first one there is nothing to plan with.
    assert row["updates"] == 2 * (row["steps"] + 5 * (row["steps"] - 1))
    assert row["ns_per_update"] * row["updates"] == pytest.approx(1e6 * row["ms"])
    assert row["us_per_step"] * row["steps"] == pytest.approx(1e3 * row["ms"])
    assert row["numpy_runs"] == 1
    assert row["ratio"] == pytest.approx(row["numpy_ns_per_update"] / row["ns_per_update"])
    (row,) = bench.run("tabular", preset="sweeping", runs=2, episodes=1, repeats=1)
    # Nothing is queued until the first goal; from then on at most 5 a step.
    assert 2 * row["steps"] <= row["updates"] < 2 * 6 * row["steps"]
    assert "ratio" not in row


def test_tabular_stops_with_the_last_runs_last_episode():
    env = envs.make("maze")
    agent = agents.dyna_q(env, agents.DynaQConfig(planning_steps=0))
    keys = jax.random.split(jax.random.key(0), 3)
    steps = steps_until(make_train(env, agent, 100_000), keys, 2)
    history = jax.jit(jax.vmap(make_train(env, agent, steps)))(keys)[1]
    ended = np.asarray(history["episode_length"])[..., 0] > 0
    counts = ended.sum(axis=1)
    assert counts.min() == 2
    assert ended[counts == 2, -1].any()


def test_seeds_side_by_side_are_the_seeds_alone():
    (row,) = bench.run("seeds", count=2, steps=400, system="random")
    assert row["lane_bitwise"]
    assert row["first_episode_difference"] < 1e-4
    assert row["ratio"] == pytest.approx(row["vmap_s"] / row["single_s"])
