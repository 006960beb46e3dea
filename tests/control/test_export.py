"""An exported agent acts as the one it was made from, bit for bit, and damaged or foreign files are refused."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from control.scripted import PERIOD, Plant, learner

from jmbrl import agents, control, models, planners
from jmbrl.types import Continuous, Spec

SPEC = Spec("line", (2,), Continuous((-2.0, 0.0), (2.0, 1.0)), max_steps=10)


@pytest.fixture(scope="module")
def agent():
    model = models.linear(SPEC, reward=lambda obs, action, next_obs: -jnp.sum(next_obs**2))
    planner = planners.cem(SPEC, horizon=4, population=16, elites=4, iterations=2)
    return agents.mpc(SPEC, model, planner, trainer=models.trainer(model), capacity=20)


@pytest.fixture(scope="module")
def states(agent):
    """Two states whose weights differ."""
    state = agent.init(jax.random.key(0), 1)
    noise = lambda x: x + 0.1 * jnp.arange(x.size, dtype=x.dtype).reshape(x.shape)  # noqa: E731
    other = state._replace(params=state.params._replace(weights=jax.tree.map(noise, state.params.weights)))
    return state, other


@pytest.fixture(scope="module")
def folder(agent, states, tmp_path_factory):
    return control.export(agent, states[0], SPEC, tmp_path_factory.mktemp("robot"))


def copied(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def acts_like(agent, state, policy):
    """Six steps of both from the same keys, compared by their bits."""
    act = jax.jit(agent.act, static_argnums=5)
    rng, key, carry = np.random.default_rng(0), jax.random.key(3), agent.reset(state)
    policy.reset(3)
    actions = []
    for t in range(6):
        obs = rng.normal(size=2).astype(np.float32)
        key, key_act = jax.random.split(key)
        action, carry, _ = act(key_act, state, carry, jnp.asarray(obs), jnp.asarray(t == 0), False)
        low, high = np.asarray([-2.0, 0.0], np.float32), np.asarray([2.0, 1.0], np.float32)
        wanted = low + 0.5 * (np.clip(np.asarray(action), -1, 1) + 1.0) * (high - low)
        np.testing.assert_array_equal(policy.act(obs), wanted)
        actions.append(wanted)
    return np.asarray(actions)


def test_it_acts_as_the_agent_does_bit_for_bit(agent, states, folder):
    policy = control.load(folder)
    actions = acts_like(agent, states[0], policy)
    assert np.ptp(actions[:, 0]) > 0.1
    assert policy.spec == SPEC
    facts = json.loads((folder / "facts.json").read_text())
    assert facts["versions"]["jax"] == jax.__version__
    # Weights are apart: a model of two states and two actions needs not its replay of 20 rows.
    assert sum(np.prod(shape, dtype=int) for _, shape in facts["weights"]) < 60


def test_other_weights_go_beside_the_same_program(agent, states, folder, tmp_path):
    target = copied(folder, tmp_path)
    control.export_weights(states[1], target)
    new = acts_like(agent, states[1], control.load(target))
    old = acts_like(agent, states[0], control.load(folder))
    assert np.abs(new - old).max() > 1e-3
    assert (target / "act.jax").read_bytes() == (folder / "act.jax").read_bytes()


def test_weights_of_other_shapes_are_refused(agent, states, folder, tmp_path):
    target = copied(folder, tmp_path)
    weights = states[0].params.weights
    grown = states[0]._replace(
        params=states[0].params._replace(weights=jax.tree.map(lambda x: jnp.zeros((*x.shape, 2)), weights))
    )
    with pytest.raises(ValueError, match=r"state does not fit the program in .*: leaf 0 is float32"):
        control.export_weights(grown, target)
    with pytest.raises(ValueError, match=r"state must have \d+ leaves"):
        control.export_weights({"w": jnp.zeros(1)}, target)
    with open(target / "weights.npz", "wb") as file:
        np.savez(file, **{"0": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match="holds 1 arrays, and the program takes"):
        control.load(target)


@pytest.mark.parametrize("name", ["act.jax", "reset.jax", "weights.npz", "facts.json"])
def test_a_truncated_or_missing_file_is_refused(name, folder, tmp_path):
    target = copied(folder, tmp_path)
    content = (target / name).read_bytes()
    (target / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"{name} is (missing or )?damaged"):
        control.load(target)
    (target / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing or damaged|holds no exported agent"):
        control.load(target)


def test_a_flipped_byte_in_the_weights_is_found(folder, tmp_path):
    target = copied(folder, tmp_path)
    content = bytearray((target / "weights.npz").read_bytes())
    content[content.index(b"NUMPY") + 130] ^= 255  # behind the first array's header of 128 bytes
    (target / "weights.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"weights.npz is missing or damaged"):
        control.load(target)


def test_another_platform_and_another_kind_of_keys_are_refused(folder, tmp_path):
    target = copied(folder, tmp_path)
    facts = json.loads((target / "facts.json").read_text())
    for changes, message in (
        ({"platforms": ["tpu"]}, "was exported for tpu, and this is cpu"),
        ({"key": "rbg"}, "was exported for keys of rbg"),
        ({"format": 7}, "has format 7, and this jmbrl reads 1"),
    ):
        (target / "facts.json").write_text(json.dumps(facts | changes))
        with pytest.raises(ValueError, match=message):
            control.load(target)


def test_it_can_be_made_for_a_gpu_here_and_run_in_the_loop(tmp_path):
    agent = learner()
    state = agent.init(jax.random.key(0), 1) | {"w": jnp.full(1, 0.25)}
    folder = control.export(agent, state, Plant().spec, tmp_path / "robot", platforms=("cpu", "cuda"))
    policy = control.load(folder)
    plant, clock = Plant(), control.SimulatedClock(plan=0.01)
    report = control.run(plant, policy.agent, policy.state(policy.leaves), period=PERIOD, steps=3, clock=clock)
    assert plant.applied == [0.5] * 3
    assert report.late == 0
    with pytest.raises(ValueError, match="platforms must be one of cpu, cuda, rocm, tpu; got 'fpga'"):
        control.export(agent, state, plant.spec, tmp_path, platforms=("fpga",))


def test_an_agent_that_calls_python_is_refused(tmp_path):
    def act(key, state, carry, obs, is_first, explore):
        return jax.pure_callback(np.asarray, jax.ShapeDtypeStruct((1,), jnp.float32), state["w"]), carry, {}

    agent = learner()._replace(act=act)
    with pytest.raises(ValueError, match="its act calls Python"):
        control.export(agent, agent.init(jax.random.key(0), 1), Plant().spec, tmp_path)
