"""The rows of ``jmbrl bench dreamer`` count what they say they count."""

import dataclasses
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

from jmbrl import agents, bench, data
from jmbrl.types import Agent

MODULE = sys.modules["jmbrl.bench.dreamer"]  # which the function of that name hides
TINY: dict[str, Any] = {"batch_size": 2, "length": 4, "horizon": 3, "obs": 5, "action": 2, "capacity": 16, "repeats": 2}


@dataclasses.dataclass(frozen=True)
class Config:
    deter: int = 6
    batch_size: int = 16
    length: int = 64
    horizon: int = 15
    capacity: int = 1000
    warmup: int | None = None
    train_ratio: float = 32.0
    train_every: int | None = None


class State(NamedTuple):
    weights: Any
    replay: Any


def toy(env, config):
    """One product of every frame by a square matrix, and the gradient by the matrix: two products an update."""
    frames = config.batch_size * config.length

    def init(key, num_envs):
        return State({"w": jnp.eye(config.deter)}, data.empty(env.spec, config.capacity, num_envs))

    def act(key, state, carry, obs, is_first, explore):
        return jnp.zeros(env.spec.action.shape), carry, {}

    def record(state, carry, rows, valid):
        return state._replace(replay=data.add(state.replay, rows, valid))

    def update(key, state, step):
        rows = data.sample(key, state.replay, frames)
        x = jnp.ones((frames, config.deter)) + jnp.mean(rows.obs)
        loss, gradient = jax.value_and_grad(lambda w: jnp.mean((x @ w) ** 2))(state.weights["w"])
        return state._replace(weights={"w": state.weights["w"] - 0.1 * gradient}), {"loss": loss}

    return Agent(init, lambda state: (), act, record, ((1, update),), config.warmup)


@pytest.fixture
def toys(monkeypatch):
    monkeypatch.setattr(agents, "dreamer_v3", toy, raising=False)
    monkeypatch.setattr(agents, "DreamerV3Config", Config, raising=False)
    monkeypatch.setitem(agents.PRESETS, "dreamer_v3", {"size_1m": {"deter": 8}, "walker": {}})


def test_a_step(toys):
    (row,) = bench.run("dreamer", preset="size_1m", **TINY)
    assert (row["bench"], row["preset"], row["size"]) == ("dreamer", "size_1m", "size_1m")
    assert row["parameters"] == 64
    assert row["products"] == 2
    assert row["gflop"] == pytest.approx(2 * 2 * 8 * 8 * 8 / 1e9)
    assert row["replayed_per_s"] * row["ms_per_update"] == pytest.approx(2 * 4 * 1e3)
    assert row["imagined_per_s"] == pytest.approx(3 * row["replayed_per_s"])
    assert row["ms_per_update_best"] <= row["ms_per_update"]
    assert row["share_products"] * row["ms_per_update_best"] == pytest.approx(row["products_ms"])
    assert 0 < row["base_mb"] <= row["peak_mb"]
    assert row["program_mb"] > 0


@pytest.mark.parametrize(
    ("deter", "width", "parameters"),
    [(512, 64, 640_867), (2048, 256, 9_738_019)],
)
def test_as_many_parameters_as_the_peer(deter, width, parameters):
    """What danijar/dreamerv3 counts for size1m and size12m, 24 numbers seen and 6 actions."""
    config = agents.DreamerV3Config(
        deter=deter, hidden=width, classes=width // 16, depth=width // 16, units=width, capacity=64
    )
    agent = agents.dreamer_v3(MODULE.world(MODULE.Work()), config)
    state = jax.eval_shape(lambda key: agent.init(key, 1), jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(state.weights)) == parameters


def test_its_images_move():
    env = MODULE.world(MODULE.Work(pixels=8))
    assert (env.spec.obs_shape, env.spec.obs_dtype) == ((8, 8, 3), "uint8")
    state, image = env.reset(jax.random.key(0))
    _, seen = jax.jit(env.step)(jax.random.key(1), state, jnp.zeros(6))
    assert jnp.array_equal(seen.obs[1:], image[:-1])


def test_only_sizes_for_two_cores_run_unasked():
    known = bench.DREAMER_WORK
    assert set(MODULE.ON_TWO_CORES) < set(known)
    assert [name for name in known if name not in MODULE.ON_TWO_CORES] == ["size_25m", "size_50m", "size_200m"]


def test_refuses_what_it_does_not_know(toys):
    with pytest.raises(ValueError, match=r"preset must be one of size_xs, .*size_200m; got 'walker'"):
        list(bench.run("dreamer", preset="walker"))
    with pytest.raises(ValueError, match="size must be one of size_1m; got 'size_2m'"):
        list(bench.run("dreamer", preset="size_1m", **TINY, size="size_2m"))
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        list(bench.run("dreamer", preset="size_1m", **TINY | {"horizon": 0}))
    with pytest.raises(ValueError, match="capacity must be at least 5, got 4"):
        list(bench.run("dreamer", preset="size_1m", **TINY | {"capacity": 4}))
