"""Auxiliary losses against numbers worked by hand, toys whose best losses are known, and the learners that use them."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jmbrl import learners
from jmbrl.data import Replay
from jmbrl.data.windows import windows_at
from jmbrl.learners.auxiliary import LOSSES, auxiliary, cosine_loss
from jmbrl.types import Continuous, Discrete, Learner, Sequence, Transition

KEY = jax.random.key(0)
THREE, BOX = Discrete(3), Continuous((-1.0, -1.0), (1.0, 1.0))
FEATURES, BATCH, STEPS = 4, 6, 3
FAST = {"xla_backend_optimization_level": 0}  # compiling is what costs


def window(key, action, batch=BATCH, steps=STEPS):
    """Random rows of one episode each."""
    keys = jax.random.split(key, 3)
    seen = jax.random.normal(keys[0], (batch, steps + 1, FEATURES))
    lead, flag = (batch, steps), jnp.zeros((batch, steps), bool)
    if isinstance(action, Continuous):
        acted = jax.random.uniform(keys[1], (*lead, action.dim), minval=-1.0)
    else:
        acted = jax.random.randint(keys[1], lead, 0, action.n)
    rows = Transition(seen[:, :-1], acted, jax.random.normal(keys[2], lead), seen[:, 1:], flag, flag)
    return Sequence(rows, flag.at[:, 0].set(True), ~flag)


def first_rows(data):
    return jax.tree.map(lambda x: x[:, 0], data.transition)


def trained(part, data, updates=400, learning_rate=3e-3):
    """The losses before and after so many steps of Adam on one batch."""
    optimizer = optax.adam(learning_rate)
    weights = jax.jit(part.init)(KEY)
    value = lambda weights, slow: part.loss(weights, slow, data)  # noqa: E731

    def step(carry, _):
        weights, slow, opt = carry
        (_, info), grads = jax.value_and_grad(value, has_aux=True)(weights, slow)
        moves, opt = optimizer.update(grads, opt)
        weights = optax.apply_updates(weights, moves)
        return (weights, part.renew(weights, slow), opt), info

    def run():
        return jax.lax.scan(step, (weights, part.slow(weights), optimizer.init(weights)), None, updates)[1]

    return jax.tree.map(lambda x: (float(x[0]), float(x[-1])), jax.jit(run)())


# ------------------------------------------------------------------------------------- by hand


def test_cosines_by_hand():
    # Equal up to length: -1. Opposite: 1. At a right angle: 0. (3, 4) and (1, 0): -3 / 5. Nothing: 0.
    a = jnp.asarray([[3.0, 4.0], [1.0, -2.0], [1.0, 0.0], [3.0, 4.0], [0.0, 0.0]])
    b = jnp.asarray([[6.0, 8.0], [-1.0, 2.0], [0.0, 5.0], [1.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(cosine_loss(a, b), [-1.0, 1.0, 0.0, -0.6, 0.0], atol=1e-6)
    slope = jax.grad(lambda x: cosine_loss(x, b[4]))(a[4])
    assert np.all(np.isfinite(slope))


def linear_spr(weights):
    """Weights that make everything the identity: what is imagined is what was seen."""
    head, eye = weights["spr"], jnp.eye(FEATURES)
    still = {"kernel": eye, "bias": jnp.zeros(FEATURES)}
    ignore = {"kernel": jnp.concatenate([eye, jnp.zeros((3, FEATURES))]), "bias": jnp.zeros(FEATURES)}
    same = {"transition": (ignore, still), "projection": still, "predictor": still}
    assert jax.tree.map(jnp.shape, same) == jax.tree.map(jnp.shape, head)
    return weights | {"encoder": {"dense": (still,)}, "spr": same}


def constant_window(ends=()):
    """Windows in which nothing changes, but for what follows the rows ``ends``: another episode, the other way."""
    data = window(KEY, THREE)
    obs = jnp.broadcast_to(data.transition.obs[:, :1], data.transition.obs.shape)
    is_first = data.is_first
    for row, end in enumerate(ends):
        obs = obs.at[row, end + 1 :].multiply(-1.0)
        is_first = is_first.at[row, end + 1].set(True)
    return Sequence(data.transition._replace(obs=obs, next_obs=obs), is_first, data.mask)


def test_self_prediction_of_what_stays_is_minus_the_steps_and_stops_at_an_episodes_end():
    part = auxiliary(THREE, FEATURES, hidden=(FEATURES,), steps=STEPS, norm="none", activation=lambda x: x)
    weights = linear_spr(jax.jit(part.init)(KEY))
    slow, evenly = part.slow(weights), jnp.ones(BATCH)
    loss = jax.jit(lambda data, weight=evenly: part.loss(weights, slow, data, weight))
    total, info = loss(constant_window())
    np.testing.assert_allclose([total, info["spr_loss"]], [-2.0 * STEPS, -STEPS], rtol=1e-5)
    # Two of six windows end after one and two rows. Were the next episode seen, each of its rows would count +1.
    np.testing.assert_allclose(loss(constant_window((0, 1)))[1]["spr_loss"], -(4 * 3 + 1 + 2) / 6, rtol=1e-5)
    # The same where rows are no data, whatever they hold; a window of none is no window at all.
    data = constant_window()
    mask = data.mask.at[0, 1:].set(False).at[1].set(False)
    gone = lambda x: jnp.where(mask[..., None], x, jnp.nan)  # noqa: E731
    rows = data.transition._replace(obs=gone(data.transition.obs), next_obs=gone(data.transition.next_obs))
    np.testing.assert_allclose(loss(Sequence(rows, data.is_first, mask))[1]["spr_loss"], -(4 * 3 + 1) / 5, rtol=1e-5)
    # A window counts as its row does.
    weight = jnp.asarray([0.5] + [1.0] * 5)
    np.testing.assert_allclose(loss(data, weight)[1]["spr_loss"], -STEPS * 5.5 / 6, rtol=1e-5)


def test_the_other_losses_by_hand():
    """Heads of zeros: every action as likely, no reward, an observation of zeros."""
    data, cut = window(KEY, THREE), constant_window((0, 1))
    losses = {"inverse": 0.5, "reward": 2.0, "reconstruction": 3.0}
    part = auxiliary(THREE, FEATURES, hidden=(5,), losses=losses, steps=STEPS)
    weights = jax.jit(part.init)(KEY)
    weights |= jax.tree.map(jnp.zeros_like, {name: weights[name] for name in losses})
    assert part.slow(weights) == ()
    total, info = jax.jit(part.loss)(weights, (), data)
    wanted = np.log(3.0), np.mean(data.transition.reward**2), np.mean(data.transition.obs**2)
    np.testing.assert_allclose([info[f"{name}_loss"] for name in losses], wanted, rtol=1e-5)
    np.testing.assert_allclose(total, 0.5 * wanted[0] + 2.0 * wanted[1] + 3.0 * wanted[2], rtol=1e-5)
    # Means over the rows before an end: of 18, those three that follow one do not count.
    rewards = np.asarray(cut.transition.reward) ** 2
    kept = (np.sum(rewards) - rewards[0, 1] - rewards[0, 2] - rewards[1, 2]) / 15
    np.testing.assert_allclose(jax.jit(part.loss)(weights, (), cut)[1]["reward_loss"], kept, rtol=1e-5)
    box = auxiliary(BOX, FEATURES, hidden=(5,), losses={"inverse": 1.0}, steps=STEPS)
    weights, data = jax.jit(box.init)(KEY), window(KEY, BOX)
    weights["inverse"] = jax.tree.map(jnp.zeros_like, weights["inverse"])
    np.testing.assert_allclose(jax.jit(box.loss)(weights, (), data)[0], np.mean(data.transition.action**2), rtol=1e-5)


def test_only_the_moving_average_moves_the_targets():
    part = auxiliary(THREE, FEATURES, hidden=(8,), steps=STEPS, tau=0.25)
    weights, data = jax.jit(part.init)(KEY), window(KEY, THREE)
    slow = part.slow(jax.tree.map(lambda x: 0.5 * x + 0.1, weights))
    by_weights, by_slow = jax.jit(jax.grad(lambda w, s: part.loss(w, s, data)[0], (0, 1)))(weights, slow)
    assert all(np.all(x == 0) for x in jax.tree.leaves(by_slow))
    assert all(np.any(x != 0) for x in jax.tree.leaves(by_weights["encoder"]))
    after = part.renew(weights, slow)
    mixed = lambda a, b: 0.25 * np.asarray(a) + 0.75 * np.asarray(b)  # noqa: E731
    wanted = mixed(weights["encoder"]["dense"][0]["kernel"], slow["encoder"]["dense"][0]["kernel"])
    np.testing.assert_allclose(after["encoder"]["dense"][0]["kernel"], wanted, rtol=1e-6)
    wanted = mixed(weights["spr"]["projection"]["kernel"], slow["projection"]["kernel"])
    np.testing.assert_allclose(after["projection"]["kernel"], wanted, rtol=1e-6)


def test_windows_begin_at_places_and_stop_at_the_newest_row():
    """Two rings of four places: five rows were written, so that row 4 lies at place 0 and row 1 is the oldest."""
    numbers = jnp.asarray([[4, 14], [1, 11], [2, 12], [3, 13]])
    x, never = numbers.astype(jnp.float32), numbers < 0
    rows = Transition(x, x, x, x, never, never)
    one = lambda n: jnp.asarray(n, jnp.int32)  # noqa: E731
    ring = Replay(rows, numbers > 0, (numbers % 10) == 3, one(1), one(4), one(0))
    found = windows_at(ring, jnp.asarray([2, 7, 0]), 3)  # row 1 of ring 0, row 3 of ring 1, row 4 of ring 0
    np.testing.assert_array_equal(found.mask, [[1, 1, 1], [1, 1, 0], [1, 0, 0]])
    reward = np.where(found.mask, found.transition.reward, 0)
    np.testing.assert_array_equal(reward, [[1, 2, 3], [13, 14, 0], [4, 0, 0]])
    np.testing.assert_array_equal(found.is_first & found.mask, [[1, 0, 1], [1, 0, 0], [1, 0, 0]])
    with pytest.raises(ValueError, match="length must be at most the replay's capacity 4, got 5"):
        windows_at(ring, jnp.asarray([0]), 5)


# ------------------------------------------------------------------------------------- toys


def test_actions_that_can_be_read_off_are_found():
    """The action is added to one entry of the observation: nothing is left to guess."""
    data = window(KEY, THREE, 32)
    rows = data.transition
    moved = rows.obs.at[..., 0].add(2.0 * rows.action - 2.0)
    # The next row begins where this one ended.
    obs = jnp.concatenate([rows.obs[:, :1], moved[:, :1]], axis=1)
    second = obs[:, 1].at[:, 0].add(2.0 * rows.action[:, 1] - 2.0)
    following = jnp.stack([moved[:, 0], second], axis=1)
    two = jax.tree.map(lambda x: x[:, :2], data)
    data = two._replace(transition=two.transition._replace(obs=obs, next_obs=following))
    part = auxiliary(THREE, FEATURES, hidden=(32,), losses={"inverse": 1.0}, steps=2)
    before, after = trained(part, data)["inverse_loss"]
    assert before > 0.8
    assert after < 0.02


def test_a_latent_keeps_of_the_reward_what_the_observation_tells():
    """The reward is the sign of the first entry, and 0.5 more or less that nothing tells: what is left is 0.25, where
    knowing nothing leaves 1.25. Inverse dynamics and reconstruction of the same windows leave their own least losses:
    ln 3, as no observation depends on an action, and 0."""
    signs = jnp.asarray(list(itertools.product((-1.0, 1.0), repeat=2)) * 12)
    obs, extra = jnp.tile(signs[:, :1, None], (1, 1, FEATURES)), 0.5 * signs[:, 1:]
    flag = jnp.zeros((48, 1), bool)
    rows = Transition(obs, jnp.arange(48)[:, None] // 4 % 3, obs[..., 0] + extra, obs, flag, flag)
    part = auxiliary(THREE, FEATURES, hidden=(16,), losses=dict.fromkeys(LOSSES, 1.0), steps=1)
    found = trained(part, Sequence(rows, ~flag, ~flag), 600)
    np.testing.assert_allclose(found["reward_loss"][1], 0.25, atol=5e-3)
    np.testing.assert_allclose(found["inverse_loss"][1], np.log(3.0), atol=5e-3)
    np.testing.assert_allclose(found["reconstruction_loss"][1], 0.0, atol=5e-3)
    np.testing.assert_allclose(found["spr_loss"][1], -1.0, atol=5e-3)
    assert found["reward_loss"][0] > 0.9


def test_a_convolution_reads_an_image_first():
    part = auxiliary(THREE, 4 * 5 * 2, hidden=(8,), conv=3, image=(4, 5, 2), losses={})
    weights = jax.jit(part.init)(KEY)
    kernels = weights["encoder"]["conv"]["params"]["kernel"].shape, weights["encoder"]["dense"][0]["kernel"].shape
    assert kernels == ((3, 3, 2, 3), (2 * 3 * 3, 8))
    assert jax.eval_shape(part.encode, weights, jnp.ones((7, 2, 40))).shape == (7, 2, 8)
    assert (part.steps, part.features, part.inputs) == (0, 8, 40)


# ------------------------------------------------------------------------------------- in learners


def built(name, losses, steps=STEPS) -> tuple[Learner, Any]:
    """A learner with an encoder, and arguments of its update."""
    space = BOX if name == "sac" else THREE
    part = None if losses is None else auxiliary(space, FEATURES, hidden=(8,), losses=losses, steps=steps)
    data = window(KEY, space)
    if name == "ppo":
        rows = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), data.transition)
        return learners.ppo(space, FEATURES, hidden=(8,), epochs=1, minibatches=2, auxiliary=part), (rows,)
    make = learners.sac if name == "sac" else learners.dqn
    return make(space, FEATURES, hidden=(8,), auxiliary=part), (first_rows(data), data)


WEIGHTS = {"dqn": "online", "sac": "critics", "ppo": "policy"}  # where the encoder is


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_learners_own_loss_trains_the_encoder_and_only_a_loss_that_weighs_something_does_so_besides(name):
    def update(losses):
        learner, data = built(name, losses)
        start = learner.init(KEY)
        state, info = learner.update(KEY, start, *data)
        return start, state, info

    start, bare, info = jax.jit(lambda: update({}), compiler_options=FAST)()
    with_losses = jax.jit(lambda weight: update(dict.fromkeys(LOSSES, weight))[1:], compiler_options=FAST)
    (idle, idle_info), (taught, taught_info) = with_losses(0.0), with_losses(1.0)
    first, after, same, other = (getattr(state, WEIGHTS[name]) for state in (start, bare, idle, taught))
    moved = lambda a, b: jax.tree.map(lambda a, b: float(jnp.max(jnp.abs(a - b))), a, b)  # noqa: E731
    assert all(change > 1e-5 for change in jax.tree.leaves(moved(after.encoder, first.encoder)))
    assert all(change < 1e-6 for change in jax.tree.leaves(moved(same.own, after.own)))
    assert all(change < 1e-6 for change in jax.tree.leaves(moved(same.encoder["encoder"], after.encoder["encoder"])))
    assert any(change > 1e-5 for change in jax.tree.leaves(moved(other.encoder["encoder"], after.encoder["encoder"])))
    for key in info:
        np.testing.assert_allclose(idle_info[key], info[key], rtol=1e-4, atol=1e-6)
    assert set(taught_info) == set(idle_info) == set(info) | {f"{loss}_loss" for loss in LOSSES}
    if name == "sac":
        # The targets' encoder follows with the target critics; the policy's loss reaches neither.
        mixed = jax.tree.map(lambda new, old: 0.005 * new + 0.995 * old, after, start.targets)
        assert all(change < 1e-6 for change in jax.tree.leaves(moved(bare.targets, mixed)))


def test_what_needs_a_window_says_so_and_bad_input_is_named():
    learner, data = built("dqn", {"spr": 2.0})
    with pytest.raises(ValueError, match="auxiliary losses need a window of 3 rows beside each row, got none"):
        jax.eval_shape(lambda: learner.update(KEY, learner.init(KEY), data[0]))
    with pytest.raises(ValueError, match="auxiliary must encode the learner's 5 features, got one of 4"):
        learners.ppo(THREE, 5, auxiliary=auxiliary(THREE, FEATURES))
    part = auxiliary(THREE, 5, hidden=(4,))
    with pytest.raises(ValueError, match="obs of the window has shape"):
        jax.eval_shape(lambda: part.loss(part.init(KEY), part.slow(part.init(KEY)), data[1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": ()}, r"hidden must have at least one width, the latent's, got \(\)"),
        ({"hidden": (0,)}, "hidden must be at least 1, got 0"),
        ({"losses": {"sprr": 1.0}}, "losses must be one of spr, inverse, reward, reconstruction; got 'sprr'"),
        ({"losses": {"spr": -1.0}}, r"losses\['spr'\] must be at least 0.0, got -1"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"tau": 2.0}, "tau must be at most 1.0, got 2.0"),
        ({"norm": "batch"}, "norm must be one of none, layer, rms; got 'batch'"),
        ({"conv": 4}, "conv needs an image .* whose 4 entries are the features, got None"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        auxiliary(THREE, FEATURES, **change)
