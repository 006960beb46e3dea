"""The Q-network's convolution beside XLA's own, and deep Q-learning from images."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learners.probes import TWO

from jmbrl import agents
from jmbrl.learners import dqn
from jmbrl.networks.q_network import Convolution, QNetwork
from jmbrl.types import Discrete, Learner, Spec, Transition

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def test_the_convolution_is_xlas():
    x = jnp.asarray(RNG.normal(size=(2, 5, 4, 3)), jnp.float32)
    weights = {"kernel": jnp.asarray(RNG.normal(size=(3, 3, 3, 6)), jnp.float32), "bias": jnp.arange(6.0)}
    layer: Any = Convolution(6)
    found = layer.apply({"params": weights}, x)
    wanted = jax.lax.conv_general_dilated(
        x, weights["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(found, wanted + jnp.arange(6.0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(layer.apply({"params": weights}, x[1]), found[1], rtol=1e-4, atol=1e-4)


def test_a_filter_by_hand_and_what_comes_after_it():
    # An image 0 1 2 / 3 4 5 / 6 7 8 / 9 10 11 of one channel, a filter that takes the middle less the upper left
    # corner: 4 - 0 and 7 - 3. The rectifier keeps both; the output layer adds them, and 10 for the second action.
    net: Any = QNetwork(2, (), image=(4, 3, 1), conv=1)
    kernel = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0).at[0, 0].set(-1.0)
    weights = {
        "Convolution_0": {"kernel": kernel, "bias": jnp.zeros(1)},
        "Dense_0": {"kernel": jnp.ones((2, 2)), "bias": jnp.asarray([0.0, 10.0])},
    }
    np.testing.assert_array_equal(net.apply({"params": weights}, jnp.arange(12.0))[:, 0], [8.0, 18.0])
    np.testing.assert_array_equal(net.apply({"params": weights}, -jnp.arange(12.0))[:, 0], [0.0, 10.0])


def test_minatars_network_is_the_papers():
    """16 filters of 3 by 3, 1,024 numbers, 128 units, the actions: Young & Tian 2019."""
    net: Any = QNetwork(3, (128,), image=(10, 10, 4), conv=16)
    shapes = jax.tree.map(jnp.shape, jax.eval_shape(net.init, KEY, jnp.zeros(400))["params"])
    kernels = {name: layer["kernel"] for name, layer in shapes.items()}
    assert kernels == {"Convolution_0": (3, 3, 4, 16), "Dense_0": (1024, 128), "Dense_1": (128, 3)}


class Last(NamedTuple):
    """A learner's state: the last batch it was given."""

    obs: jax.Array
    next_obs: jax.Array


def tallies():
    """A learner whose action is the sum of what it sees."""
    act = lambda key, state, x, explore: (jnp.sum(x).astype(jnp.int32), jnp.zeros(()))  # noqa: E731
    update = lambda key, state, rows: (Last(rows.obs, rows.next_obs), {})  # noqa: E731
    return Learner(lambda key: Last(*jnp.zeros((2, 4, 9))), act, update)


@pytest.mark.parametrize(("pixels", "bright"), [("uint8", 255), ("float32", 1.0)])
def test_a_learner_sees_images_as_vectors_of_numbers_up_to_one(pixels, bright):
    spec = Spec("bright", (3, 3, 1), Discrete(12), 5, pixels)
    agent = agents.off_policy(spec, tallies(), batch_size=4, warmup=4, capacity=8)
    image = jnp.full((1, 3, 3, 1), bright, pixels)
    row = Transition(image, jnp.ones(1, jnp.int32), jnp.ones(1), 0 * image, jnp.ones(1, bool), jnp.zeros(1, bool))

    def run(key):
        state = agent.record(agent.init(key, 1), (), row, jnp.ones(1, bool))
        action, _, _ = agent.act(key, state, (), image[0], jnp.asarray(True), True)
        return action, agent.phases[0][1](key, state, jnp.asarray(4))[0].learner

    action, last = jax.jit(run, compiler_options={"xla_backend_optimization_level": 0})(KEY)
    assert action == 9
    np.testing.assert_array_equal(last.obs, np.ones((4, 9), np.float32))
    np.testing.assert_array_equal(last.next_obs, np.zeros((4, 9), np.float32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"conv": 4}, r"conv needs an image .* whose 18 entries are the features, got None"),
        ({"conv": 4, "image": (3, 3, 3)}, r"conv needs an image .* whose 18 entries are the features, got \(3, 3, 3\)"),
        ({"conv": 4, "image": (2, 3, 3)}, "at least 3 by 3 pixels"),
        ({"conv": -1}, "conv must be at least 0, got -1"),
    ],
)
def test_bad_images_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        dqn(TWO, 18, **arguments)
