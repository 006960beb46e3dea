"""What every ``Learner`` promises, for each that there is. A new learner is one more entry of ``LEARNERS``."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import learners
from jmbrl.types import Continuous, Discrete, Learner, Sequence, Transition

FEATURES, BATCH, STATES = 3, 8, 4
BOX = Continuous((-1.0, -3.0), (1.0, 2.0))


def batch(key, action):
    """Random rows with each kind of end among them."""
    keys = jax.random.split(key, 4)
    actions = jax.random.uniform(keys[1], (BATCH, action.dim), minval=-1.0, maxval=1.0)
    index = jnp.arange(BATCH)
    return Transition(
        obs=jax.random.normal(keys[0], (BATCH, FEATURES)),
        action=actions,
        reward=jax.random.normal(keys[2], (BATCH,)),
        next_obs=jax.random.normal(keys[3], (BATCH, FEATURES)),
        terminated=index % 4 == 1,
        truncated=index % 4 == 2,
    )


def numbered_batch(key, action):
    """The same of numbered states."""
    rows = batch(key, BOX)
    keys = jax.random.split(key, 3)
    numbers = [jax.random.randint(keys[i], (BATCH,), 0, STATES) for i in range(2)]
    return rows._replace(obs=numbers[0], next_obs=numbers[1], action=jax.random.randint(keys[2], (BATCH,), 0, action.n))


def with_choices(key, action):
    """The rows of ``batch`` with numbered actions."""
    return batch(key, BOX)._replace(action=jax.random.randint(key, (BATCH,), 0, action.n))


def trajectories(key, action):
    """The same rows as ``[T, B]``, for learners that read them in their order."""
    rows = batch(key, BOX)
    if isinstance(action, Discrete):
        rows = rows._replace(action=jax.random.randint(key, (BATCH,), 0, action.n))
    return jax.tree.map(lambda x: x.reshape(BATCH // 2, 2, *x.shape[1:]), rows)


class Rollout(NamedTuple):
    """Data of learners that ask for it: what each of ``policies[P, D]`` is worth, linear in its first numbers."""

    obs: object
    reward: object

    def __call__(self, key, policies):
        return policies[:, :FEATURES] @ self.obs.T @ self.reward


def rollout(key, action):
    rows = batch(key, action)
    return Rollout(rows.obs, rows.reward)


def windowed(learner):
    """One that is given the rows as windows of one, too."""

    def update(key, state, data):
        flag = jnp.ones((BATCH, 1), bool)
        return learner.update(key, state, data, Sequence(jax.tree.map(lambda x: x[:, None], data), flag, flag))

    return learner._replace(update=update)


def encoder(action):
    losses = {"spr": 2.0, "inverse": 1.0}
    return learners.auxiliary(action, FEATURES, hidden=(4,), losses=losses, steps=1)


# name -> (make(action), a space that fits, a space that must be refused or None, data(key, space))
LEARNERS = {
    "sac": (lambda action: learners.sac(action, FEATURES, hidden=(16,)), BOX, Discrete(3), batch),
    "ppo": (lambda a: learners.ppo(a, FEATURES, hidden=(8,), epochs=2, minibatches=2), BOX, None, trajectories),
    "trpo": (lambda a: learners.trpo(a, FEATURES, hidden=(8,), value_hidden=(8,)), Discrete(2), None, trajectories),
    "dqn": (lambda a: learners.dqn(a, FEATURES, hidden=(8,)), Discrete(2), BOX, with_choices),
    "ppo, encoded": (
        lambda a: learners.ppo(a, FEATURES, hidden=(8,), epochs=1, minibatches=2, auxiliary=encoder(a)),
        Discrete(2), None, trajectories,
    ),
    "dqn, encoded": (
        # Adam would make a step of a gradient that is rounding: 0, of what a rectifier holds back.
        lambda a: windowed(learners.dqn(a, FEATURES, hidden=(8,), adam_eps=1e-2, auxiliary=encoder(a))),
        Discrete(2), BOX, with_choices,
    ),
    "q_learning": (lambda action: learners.q_learning(action, STATES, initial=1.0), Discrete(2), BOX, numbered_batch),
    "evolution": (lambda a: learners.evolution(a, FEATURES, population=6, strategy="cem"), BOX, None, rollout),
}  # fmt: skip
DETERMINISTIC = ("evolution",)  # explores by whole policies, not by its actions


class Case(NamedTuple):
    learner: Learner
    space: object
    state: object
    data: object
    update: object  # compiled
    traces: list
    random: bool  # its actions, where it explores


@pytest.fixture(params=LEARNERS, scope="module")
def case(request):
    make, space, _, data = LEARNERS[request.param]
    learner, traces = make(space), []

    def update(key, state, data):
        traces.append(1)
        return learner.update(key, state, data)

    state = jax.jit(learner.init)(jax.random.key(0))
    random = request.param not in DETERMINISTIC
    return Case(learner, space, state, data(jax.random.key(1), space), jax.jit(update), traces, random)


def observations(data):
    """One a row, whatever the leading axes."""
    return data.obs.reshape(-1, *data.obs.shape[data.reward.ndim :])


def same(a, b, **tolerance):
    check = np.testing.assert_allclose if tolerance else np.testing.assert_array_equal
    jax.tree.map(lambda x, y: check(x, y, **tolerance), a, b)


def test_jit_equals_eager(case):
    key = jax.random.key(2)
    eager = case.learner.update(key, case.state, case.data)
    same(case.update(key, case.state, case.data), eager, rtol=1e-3, atol=2e-5)


def test_the_same_key_gives_the_same_and_another_another(case):
    key = jax.random.key(2)
    same(case.update(key, case.state, case.data), case.update(key, case.state, case.data))
    features = observations(case.data)[0]
    act = jax.jit(lambda seed: case.learner.act(jax.random.key(seed), case.state, features, True)[0])
    same(act(3), act(3))
    assert any(np.any(act(3) != act(seed)) for seed in range(4, 12)) == case.random
    assert act(3).shape == case.space.shape


def test_updates_are_traced_once(case):
    state = case.state
    for seed in range(3):
        state, _ = case.update(jax.random.key(seed), state, case.data)
    assert len(case.traces) == 1


def test_the_state_keeps_its_shape_and_types(case):
    new, info = jax.eval_shape(case.learner.update, jax.random.key(0), case.state, case.data)
    old = jax.eval_shape(lambda: case.state)
    assert jax.tree.structure(new) == jax.tree.structure(old)
    assert all(
        (a.shape, a.dtype) == (b.shape, b.dtype)
        for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(old), strict=True)
    )
    assert all(value.shape == () for value in info.values())


def test_a_healthy_update_is_finite_changes_something_and_counts_itself(case):
    new, info = case.update(jax.random.key(2), case.state, case.data)
    pairs = list(zip(jax.tree.leaves(new), jax.tree.leaves(case.state), strict=True))
    assert all(np.all(np.isfinite(a) | (a == b)) for a, b in pairs)  # "nothing yet" may be minus infinity
    assert all(np.isfinite(x) for x in info.values())
    assert any(np.any(a != b) for a, b in pairs)
    assert (info["updates"], info["skipped"], info["nonfinite_loss"], info["nonfinite_grad"]) == (1, 0, 0, 0)


@pytest.mark.parametrize("field", ["obs", "action", "reward", "next_obs"])
@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_a_broken_batch_leaves_everything_untouched_and_is_counted(case, field, value):
    values = getattr(case.data, field, jnp.zeros((), jnp.int32))
    if not jnp.issubdtype(values.dtype, jnp.floating):
        pytest.skip("it reads no such field, or numbers of states and actions, which are finite")
    broken = case.data._replace(**{field: values.at[0].set(value)})
    new, info = case.update(jax.random.key(2), case.state, broken)
    same(new, case.state)
    assert info["skipped"] == 1
    assert info["nonfinite_loss"] + info["nonfinite_grad"] > 0


def test_it_maps_over_seeds(case):
    keys = jax.random.split(jax.random.key(5), 2)
    many = jax.jit(jax.vmap(case.learner.update, in_axes=(0, None, None)))(keys, case.state, case.data)
    one = case.update(keys[1], case.state, case.data)
    same(jax.tree.map(lambda x: x[1], many), one, rtol=1e-3, atol=2e-5)


def test_actions_stay_in_the_box_and_without_exploration_repeat(case):
    act = jax.jit(case.learner.act, static_argnums=3)
    keys = jax.random.split(jax.random.key(7), 50)
    features = observations(case.data)
    features = jnp.resize(features, (50, *features.shape[1:]))
    if jnp.issubdtype(features.dtype, jnp.floating):
        features = 100.0 * jax.random.normal(jax.random.key(6), features.shape)
    actions, log_prob = jax.vmap(lambda key, x: act(key, case.state, x, True))(keys, features)
    assert actions.shape == (50, *case.space.shape)
    assert np.abs(actions).max() <= 1.0  # of two discrete actions too
    assert np.all(np.isfinite(log_prob))
    quiet = [act(key, case.state, features[0], False) for key in keys[:2]]
    same(*quiet)


@pytest.mark.parametrize("name", [name for name, case in LEARNERS.items() if case[2] is not None])
def test_an_action_space_that_does_not_fit_is_refused(name):
    make, _, wrong, _ = LEARNERS[name]
    with pytest.raises(ValueError, match=r"needs .* actions, got .*; use"):
        make(wrong)
