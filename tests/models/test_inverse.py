"""Inverse dynamics, and cloning an expert whose actions nobody wrote down."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from models.worlds import trained

from jmbrl import data, learners, models
from jmbrl.types import Continuous, Discrete, Spec, Transition

KEY = jax.random.key(0)
PLANE = Spec("double integrator", (2,), Continuous((-1.0,), (1.0,)), 60)
DT = 0.2


def advance(obs, action):
    """Position and velocity of a mass on a rail, pushed with at most one unit of force."""
    return jnp.stack([obs[0] + DT * obs[1], obs[1] + DT * action[0]])


def riccati_gain():
    """The optimal ``u = -K x`` for the cost ``x^T x + 0.1 u^2``, by iterating the Riccati equation in float64."""
    a, b = np.array([[1.0, DT], [0.0, 1.0]]), np.array([[0.0], [DT]])
    p = np.eye(2)
    for _ in range(500):
        k = np.linalg.solve(0.1 + b.T @ p @ b, b.T @ p @ a)
        p = np.eye(2) + a.T @ p @ (a - b @ k)
    return jnp.asarray(k, jnp.float32)


def episodes(act, count, seed):
    """``observations [count, T + 1, 2]``, ``actions [count, T, 1]``, and returns ``[count]``."""
    start = jax.random.uniform(jax.random.key(seed), (count, 2), minval=-1.0, maxval=1.0)

    def body(obs, key):
        action = act(key, obs)
        following = advance(obs, action)
        return following, (following, action, -jnp.sum(obs**2) - 0.1 * action[0] ** 2)

    def one(start, key):
        _, (later, actions, rewards) = jax.lax.scan(body, start, jax.random.split(key, PLANE.max_steps))
        return jnp.concatenate([start[None], later]), actions, jnp.sum(rewards)

    return jax.vmap(one)(start, jax.random.split(jax.random.key(seed + 1), count))


def random_action(key, obs):
    return jax.random.uniform(key, (1,), minval=-1.0, maxval=1.0)


def rows_of(observations, actions):
    before, after = observations[:, :-1].reshape(-1, 2), observations[:, 1:].reshape(-1, 2)
    flag = jnp.zeros(len(before), bool)
    return Transition(before, actions.reshape(-1, 1), jnp.zeros(len(before)), after, flag, flag)


def test_cloning_from_observations_alone_is_nearly_as_good_as_with_the_actions():
    gain = riccati_gain()
    expert = lambda key, obs: jnp.clip(-gain @ obs, -1.0, 1.0)  # noqa: E731
    wandered, tried, chance = jax.jit(lambda: episodes(random_action, 100, 0))()
    seen, done, best = jax.jit(lambda: episodes(expert, 100, 0))()

    inverse = models.inverse_mlp(PLANE, (16,))
    trainer = models.trainer(inverse, optimizer=optax.adam(5e-3), epochs=40, batch_size=64)
    params = jax.jit(inverse.init)(KEY)
    replay = data.from_arrays(*(np.asarray(x) for x in rows_of(wandered[:10], tried[:10])))
    params, _, info = jax.jit(trainer.fit)(KEY, params, trainer.init(params), replay)
    assert info["mse"] < 0.01
    shown = seen[:10]
    recovered = jax.jit(jax.vmap(lambda x: models.recover_actions(inverse, params, x)))(shown)
    assert np.sqrt(np.mean((recovered - done[:10]) ** 2)) < 0.15

    learner = learners.cloning(PLANE.action, 2, hidden=(16,), learning_rate=5e-3)

    @jax.jit
    @jax.vmap
    def clone(actions):
        batch = rows_of(shown, actions)
        update = lambda state, key: (learner.update(key, state, batch)[0], None)  # noqa: E731
        state, _ = jax.lax.scan(update, learner.init(KEY), jax.random.split(KEY, 400))
        *_, got = episodes(lambda key, obs: learner.act(key, state, obs, False)[0], 100, 0)
        return jnp.mean(got)

    returns = clone(jnp.stack([done[:10], recovered]))
    told, guessed = (returns - chance.mean()) / (best.mean() - chance.mean())
    assert told > 0.9
    assert guessed >= 0.9 * told


def test_discrete_actions_are_told_apart():
    spec = Spec("steps", (1,), Discrete(3), 10)
    inverse = models.inverse_mlp(spec, (8,))
    obs = jax.random.normal(KEY, (200, 1))
    action = jax.random.randint(jax.random.key(1), (200,), 0, 3)
    flag = jnp.zeros(200, bool)
    rows = Transition(obs, action, obs[:, 0], obs + (action[:, None] - 1) * 0.1, flag, flag)
    params, info = trained(inverse, rows, rows, 200, 0.03)
    assert info["accuracy"] == 1.0
    # 0.1 up, 0.1 down, nothing.
    guessed = jax.jit(models.recover_actions, static_argnums=0)(
        inverse, params, jnp.array([[0.0], [0.1], [0.0], [0.0]])
    )
    np.testing.assert_array_equal(guessed, [2, 0, 1])
    assert guessed.dtype == jnp.int32


def test_continuous_loss_by_hand_and_the_bound():
    inverse = models.inverse_mlp(PLANE, (), weight_decay=0.5)
    # Reads position, velocity and their changes; says tanh of 3 times the velocity's change.
    kernel = jnp.array([[0.0], [0.0], [0.0], [3.0]])
    params = jax.jit(inverse.init)(KEY)._replace(weights=({"kernel": kernel, "bias": jnp.zeros(1)},))
    flag = jnp.zeros(1, bool)
    row = Transition(jnp.zeros((1, 2)), jnp.ones((1, 1)), jnp.zeros(1), jnp.array([[5.0, 0.2]]), flag, flag)
    loss, info = inverse.loss(KEY, params, row)
    np.testing.assert_allclose(info["mse"], (1 - np.tanh(0.6)) ** 2, rtol=1e-5)
    np.testing.assert_allclose(loss, (1 - np.tanh(0.6)) ** 2 + 0.5 * 0.5 * 9.0, rtol=1e-5)
    assert abs(float(inverse.action(params, jnp.zeros(2), jnp.array([0.0, 100.0]))[0])) <= 1.0


def test_refuses():
    with pytest.raises(ValueError, match="inverse_mlp needs a vector observation"):
        models.inverse_mlp(Spec("i", (8, 8, 3), PLANE.action, 9, "uint8"))
    inverse = models.inverse_mlp(PLANE, (4,))
    params = jax.jit(inverse.init)(KEY)
    with pytest.raises(ValueError, match="T at least 1"):
        models.recover_actions(inverse, params, jnp.zeros((1, 2)))
    with pytest.raises(ValueError, match="obs has shape"):
        models.recover_actions(inverse, params, jnp.zeros((3, 4)))
