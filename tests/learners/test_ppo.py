"""PPO against losses and a gradient step worked by hand, and worlds whose values are known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learners.on_policy_probes import FAST, GAMMA, assert_probes_are_solved
from learners.probes import BOX, TWO

from jmbrl.learners.policies import policy, value_net
from jmbrl.learners.ppo import clipped_gain, ppo, value_error
from jmbrl.types import Transition

# ------------------------------------------------------------------------------------- by hand


def test_the_clipped_objective_by_hand():
    # epsilon 0.2. A = 2: ratios 1.5 and 1.1 earn 1.2 * 2 = 2.4 and 2.2, and 0.5 earns 0.5 * 2 = 1 (no bound below).
    # A = -2: ratio 1.5 costs -3 (no bound), 0.9 costs -1.8, 0.5 costs 0.8 * -2 = -1.6.
    ratio, advantage = jnp.asarray([1.5, 1.1, 0.5, 1.5, 0.9, 0.5]), jnp.asarray([2.0, 2.0, 2.0, -2.0, -2.0, -2.0])
    np.testing.assert_allclose(clipped_gain(ratio, advantage, 0.2), [2.4, 2.2, 1.0, -3.0, -1.8, -1.6], rtol=1e-6)
    slope = jax.vmap(jax.grad(clipped_gain), in_axes=(0, 0, None))(ratio, advantage, 0.2)
    np.testing.assert_array_equal(slope, [0.0, 2.0, 2.0, -2.0, -2.0, 0.0])


def test_the_value_loss_by_hand():
    # target 5, old 0: 3 is within reach of 4, (3 - 5)^2 = 4 either way; kept within 1 of 0 it is 1: (1 - 5)^2 = 16.
    value, old, target = jnp.asarray(3.0), jnp.asarray(0.0), jnp.asarray(5.0)
    assert [float(value_error(value, old, target, clip)) for clip in (None, 4.0, 1.0)] == [4.0, 4.0, 16.0]


SHAPE = (4, 2)


def rows(reward=1.0, action=None, ended=True):
    action = jnp.asarray([[0, 1], [1, 1], [0, 0], [1, 0]]) if action is None else action
    obs, flag = jnp.ones((*SHAPE, 1)), jnp.full(SHAPE, ended)
    return Transition(obs, action, jnp.broadcast_to(jnp.asarray(reward), SHAPE), obs, flag, jnp.zeros(SHAPE, bool))


LINEAR = {"hidden": (), "minibatches": 1, "gamma": 0.9, "learning_rate": 0.01}
ONE = ppo(TWO, 1, **LINEAR, epochs=1, decay_updates=2, normalize_advantages=False)
init, masked = (jax.jit(f, compiler_options=FAST) for f in (ONE.init, ONE.update))  # one program, with a mask


def update(key, state, data):
    return masked(key, state, data, jnp.ones(SHAPE, bool))


def test_the_first_loss_and_its_gradient_are_the_equations_written_out():
    """One step of Adam moves each weight by the learning rate against its gradient's sign, and ratios are 1 before."""
    state = init(jax.random.key(0))
    data = rows()._replace(reward=rows().action.astype(jnp.float32))  # the second action earns 1, the first nothing
    new, info = update(jax.random.key(1), state, data)
    bias, kernel = (
        np.asarray(state.value["params"]["Dense_0"][name], np.float64).item() for name in ("bias", "kernel")
    )
    v = kernel + bias
    np.testing.assert_allclose(info["value"], v, rtol=1e-5)
    # Every row ends: A = r - V, half of the rewards are 1. Policy loss -E[A]; value loss E[(V - r)^2].
    np.testing.assert_allclose(info["policy_loss"], -(0.5 - v), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(info["value_loss"], 0.5 * (v**2 + (v - 1) ** 2), rtol=1e-4)
    np.testing.assert_allclose(info["entropy"], np.log(2), rtol=1e-3)
    assert (info["kl"], info["clipped"]) == (0.0, 0.0)
    moved = jax.tree.map(lambda a, b: np.asarray(a - b), new, state)
    up = 0.01 if v < 0.5 else -0.01
    np.testing.assert_allclose(moved.value["params"]["Dense_0"]["bias"], [up], rtol=1e-2)
    np.testing.assert_allclose(moved.policy["net"]["params"]["Dense_0"]["bias"], [-0.01, 0.01], rtol=1e-2)


def test_the_learning_rate_falls_to_nothing():
    """In a straight line over two updates: the whole rate, a half, and nothing."""
    state, seen = init(jax.random.key(0)), []
    data = rows(reward=100.0)  # far away: Adam moves the value's bias by its whole rate each time
    for i in range(3):
        new, _ = update(jax.random.key(i), state, data)
        seen.append(float((new.value["params"]["Dense_0"]["bias"] - state.value["params"]["Dense_0"]["bias"])[0]))
        state = new
    np.testing.assert_allclose(seen, [0.01, 0.005, 0.0], rtol=1e-2, atol=1e-7)


def test_the_mask_leaves_out_rows_whatever_they_hold():
    state = init(jax.random.key(0))
    data = rows(jnp.arange(8.0).reshape(SHAPE))
    mask = jnp.ones(SHAPE, bool).at[2, 1].set(False)
    broken = data._replace(reward=data.reward.at[2, 1].set(jnp.nan), obs=data.obs.at[2, 1].set(jnp.inf))
    (one, info), (other, _) = (masked(jax.random.key(1), state, x, mask) for x in (broken, data))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert (info["updates"], info["skipped"]) == (1, 0)
    np.testing.assert_allclose(info["entropy"], np.log(2), rtol=1e-3)  # a mean over the seven rows
    # Without any row there is no update, and it is not counted as one.
    none, info = masked(jax.random.key(1), state, broken, jnp.zeros(SHAPE, bool))
    jax.tree.map(np.testing.assert_array_equal, none, state)
    assert all(info[name] == 0 for name in ("updates", "skipped", "nonfinite_loss", "nonfinite_grad"))


def test_the_spread_of_a_continuous_policy_is_learned():
    """Actions near the mean earn more, so the policy narrows; the entropy bonus widens it where nothing is earned."""
    pi = policy(BOX, 1, hidden=())
    data = rows(action=jax.random.normal(jax.random.key(2), (*SHAPE, 1)).clip(-1, 1))
    spread, key = [], jax.random.key(0)

    @partial(jax.jit, compiler_options=FAST)
    def improved(reward, entropy):
        learner = ppo(BOX, 1, **LINEAR, epochs=20, entropy=entropy)
        return learner.update(key, learner.init(key), data._replace(reward=reward))[0]

    for reward, entropy in ((-jnp.abs(data.action[..., 0]), 0.0), (jnp.zeros(SHAPE), 0.1)):
        new = improved(reward, entropy)
        spread.append(float(pi.distribution(new.policy, jnp.ones(1)).std[0]))
    assert spread[0] < 0.95
    assert spread[1] > 1.05


# ------------------------------------------------------------------------------- probe worlds

SMALL = {"hidden": (16,), "gamma": GAMMA, "learning_rate": 1e-2, "epochs": 8, "minibatches": 4}
LEARNERS = {space: ppo(space, 1, **SMALL) for space in (TWO, BOX)}


def value_of(state, x):
    return value_net((16,)).apply(state.value, x)[:, 0]


@pytest.mark.parametrize("space", [TWO, BOX])
def test_the_probes_are_solved(space):
    assert_probes_are_solved(LEARNERS[space], value_of, space)


# ------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": 0}, "features must be at least 1, got 0"),
        ({"gamma": 1.5}, "gamma must be at most 1.0, got 1.5"),
        ({"lam": -0.1}, "lam must be at least 0.0, got -0.1"),
        ({"clip": 0.0}, "clip must be at least 1e-12, got 0.0"),
        ({"value_clip": -1.0}, "value_clip must be at least 1e-12, got -1.0"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"decay_updates": 0}, "decay_updates must be at least 1, got 0"),
        ({"hidden": (0,)}, "hidden must be at least 1, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be finite, got nan"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ppo(**({"action": BOX, "features": 2} | arguments))


def test_more_minibatches_than_rows_and_features_of_another_width_are_refused():
    learner, state = ppo(TWO, 1, hidden=(), minibatches=9), init(jax.random.key(0))
    with pytest.raises(ValueError, match="minibatches must be at most the number of rows 8, got 9"):
        learner.update(jax.random.key(0), state, rows())
    with pytest.raises(ValueError, match=r"features has shape \(3,\), but ppo says \(1,\)"):
        learner.act(jax.random.key(0), state, jnp.zeros(3), True)
