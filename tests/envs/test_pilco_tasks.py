"""PILCO's cart pole and pendulum against SciPy's integration of the equations of its code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from jmbrl import envs
from jmbrl.envs.functions import Timed
from jmbrl.envs.native.pilco import cartpole

G = 9.82


def cartpole_by_hand(_, z, force):
    m = big = length = 0.5
    _, v, w, a = z
    total, s, c = m + big, np.sin(a), np.cos(a)
    dv = (2 * m * length * w**2 * s + 3 * m * G * s * c + 4 * force - 4 * 0.1 * v) / (4 * total - 3 * m * c**2)
    dw = -3 * m * length * w**2 * s * c - 6 * total * G * s - 6 * (force - 0.1 * v) * c
    return [v, dv, dw / (4 * length * total - 3 * m * length * c**2), w]


def pendulum_by_hand(_, z, torque):
    return [(torque - 0.01 * z[0] - G * np.sin(z[1]) / 2) * 3, z[0]]


CASES = {
    "pilco/cartpole": (cartpole_by_hand, [0.1, -0.2, 0.3, -0.1], 10.0),
    "pilco/pendulum": (pendulum_by_hand, [0.3, -0.1], 2.5),
}


@pytest.mark.parametrize("name", CASES)
def test_trajectories(name):
    slope, start, bound = CASES[name]
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 1))
    theirs, z = [], start
    for action in actions:
        z = solve_ivp(slope, (0, 0.1), z, args=(bound * action[0],), rtol=1e-10, atol=1e-10).y[:, -1]
        theirs.append(z)
    env = envs.make(name)

    def step(state, action):
        state, seen = env.step(jax.random.key(0), state, action)
        return state, seen

    first = Timed(jnp.asarray(start, jnp.float32), jnp.int32(0))
    _, seen = jax.jit(lambda a: jax.lax.scan(step, first, a))(jnp.asarray(actions, jnp.float32))
    np.testing.assert_allclose(seen.obs, theirs, rtol=1e-4, atol=2e-4)
    np.testing.assert_allclose(seen.reward, jax.vmap(env.reward_fn)(seen.obs, actions, seen.obs), rtol=1e-6)
    assert not np.any(seen.terminated)


def test_rewards_and_starts():
    pole, rod = (envs.make(name) for name in CASES)
    upright = jnp.array([0.0, 1.0, 2.0, jnp.pi])
    np.testing.assert_allclose(pole.reward_fn(upright, None, upright), 1.0)
    # Hanging, the tips are 1 and 2 m away: 1 / (2 0.25^2) = 4 / (2 0.5^2) = 8.
    np.testing.assert_allclose(pole.reward_fn(None, None, jnp.zeros(4)), np.exp(-8), rtol=1e-6)
    np.testing.assert_allclose(rod.reward_fn(None, None, jnp.zeros(2)), np.exp(-8), rtol=1e-6)
    np.testing.assert_allclose(cartpole.miss(jnp.array([0.3, 0.0, 0.0, jnp.pi])), 0.3, rtol=1e-5)
    _, obs = pole.vector(2000).reset(jax.random.key(0))
    np.testing.assert_allclose(obs.std(axis=0), 0.1, rtol=0.1)
    assert (pole.spec.max_steps, pole.spec.dt) == (40, 0.1)
    with pytest.raises(ValueError, match="spread must be at least 0"):
        envs.make("pilco/pendulum", spread=-1.0)
