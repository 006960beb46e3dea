"""A grid over a continuous world, and numbers for its actions."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import envs
from jmbrl.types import Continuous

KEY = jax.random.key(4)


def plane(**options):
    """``x' = x + a`` with forces of up to 2 and 4; the reward is the first force in its own units."""

    def step(key, x, action):
        return x + action, x + action, action[0], jnp.any(x + action > 9.0)

    return envs.from_functions(
        lambda key: (jnp.zeros(2), jnp.zeros(2)), step, action=Continuous((-2.0, -4.0), (2.0, 4.0)), max_steps=8,
        name="plane", obs_shape=(2,), reward_fn=lambda obs, action, next_obs: 2.0 * action[..., 0],
        termination_fn=lambda obs, action, next_obs: jnp.any(next_obs > 9.0, axis=-1), **options,
    )  # fmt: skip


MOVES = [[-2, -4], [-2, 4], [0, -4], [0, 4], [2, -4], [2, 4]]  # 3 x 2 values, ends included


def test_actions_are_numbered_points_and_everything_else_stays():
    env = envs.discretise(plane(render=len), low=-8.0, high=(8.0, 0.0), bins=(4, 2), action_bins=(3, 2))
    assert env.spec.action.n == 6
    assert env.spec.obs_shape == (2,)
    assert env.render is len
    assert "numbers of its actions" in env.no_gradient
    state, obs = env.reset(KEY)
    step = jax.jit(env.step)
    for number, move in enumerate(MOVES):
        _, seen = step(KEY, state, jnp.int32(number))
        np.testing.assert_array_equal(seen.obs, move)
        assert float(seen.reward) == move[0] == float(env.reward_fn(obs, jnp.int32(number), seen.obs))
    np.testing.assert_array_equal(
        env.reward_fn(jnp.zeros((6, 2)), jnp.arange(6), jnp.zeros((6, 2))), np.array(MOVES)[:, 0]
    )
    np.testing.assert_array_equal(step(KEY, state, jnp.int32(99))[1].obs, MOVES[5])  # clipped
    copies = env.vector(6)
    assert copies.spec == env.spec
    _, seen = jax.jit(copies.step)(KEY, copies.reset(KEY)[0], jnp.arange(6))
    np.testing.assert_array_equal(seen.obs, MOVES)
    # Cells 4 x 4: rows [-8, -4), ..., [4, 8], columns [-8, -4), [-4, 0]; outside is the outermost.
    np.testing.assert_array_equal(jax.vmap(env.cells.index)(seen.obs), [3, 3, 5, 5, 5, 5])
    assert env.cells.shape == (4, 2)
    report = envs.check_env(env)
    assert report.ok, str(report)


def test_derivatives_were_meaningless_before_too():
    env = envs.discretise(plane(no_gradient="thresholds"), low=0.0, high=1.0, bins=2, action_bins=2)
    assert env.no_gradient == "thresholds"


class Lever:
    """A host world that remembers what it was told."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
    action_space = gymnasium.spaces.Box(0.0, 10.0, (1,))

    def __init__(self):
        self.told = []

    def reset(self, seed=None):
        return np.zeros(1), {}

    def step(self, action):
        self.told.append(float(action[0]))
        return action / 10.0, 0.0, False, False, {}


def test_host_environments_are_told_the_points():
    lever = Lever()
    env = envs.discretise(envs.from_gymnasium(lever, max_steps=9), low=0.0, high=1.0, bins=10, action_bins=2)
    state, _ = env.reset(KEY)
    for number in (0, 1):
        state, seen = jax.jit(env.step)(KEY, state, jnp.int32(number))
        assert int(env.cells.index(seen.obs)) == 9 * number
    copies = env.vector(1)
    jax.block_until_ready(jax.jit(copies.step)(KEY, copies.reset(KEY)[0], jnp.array([1])))
    assert lever.told == [0.0, 10.0, 10.0], "two values are both ends"
    with pytest.raises(ValueError, match="actions has shape"):
        copies.step(KEY, copies.reset(KEY)[0], jnp.array([1, 0]))


def test_known_functions_hold_on_the_host():
    env = envs.discretise(
        envs.make("gymnasium:Pendulum-v1", max_steps=20), low=(-1, -1, -8), high=(1, 1, 8), bins=6, action_bins=5
    )
    report = envs.check_env(env, steps=30)
    assert report.ok, str(report)
    env.close()


def test_discrete_actions_stay_as_they_are():
    car = envs.make("gymnax:MountainCar-v0", max_steps=5)
    env = envs.discretise(car, low=(-1.2, -0.07), high=(0.6, 0.07), bins=(9, 7))  # cells of 0.2 and 0.02
    assert env.spec is car.spec
    assert env.step is car.step
    assert env.no_gradient == car.no_gradient
    assert int(env.cells.index(jnp.asarray([-0.5, 0.005]))) == 3 * 7 + 3
    np.testing.assert_allclose(env.cells.centre(jnp.int32(24)), [-0.5, 0.0], atol=1e-6)


def test_the_true_state_goes_outside():
    env = envs.with_state(envs.discretise(plane(), low=-8.0, high=8.0, bins=4, action_bins=2))
    state, _ = env.reset(KEY)
    _, seen = env.step(KEY, state, jnp.int32(3))
    np.testing.assert_array_equal(seen.obs.state.inner, [2, 4])
    assert int(env.cells.index(seen.obs)) == 2 * 4 + 3


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, r"action_bins must be given for continuous actions \(2 dimensions\)"),
        ({"action_bins": 0}, "action_bins must be at least 1, got 0"),
        ({"action_bins": (2, 2, 2)}, "action_bins must be one number or 2"),
        ({"action_bins": 2, "low": 1.0}, "low must be below high"),
        ({"action_bins": 2, "bins": (2, 2.5)}, "bins must be an integer, got 2.5"),
        ({"action_bins": 2, "bins": 100_000}, "bins must give at most 2147483647 numbers, got 10000000000"),
        ({"action_bins": 2, "high": (1.0, 2.0, 3.0)}, "high must be one number or 2"),
    ],
)
def test_bad_input_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        envs.discretise(plane(), **{"low": 0.0, "high": 1.0, "bins": 2} | options)


def test_images_and_bins_of_discrete_actions_are_refused():
    with pytest.raises(ValueError, match="discretise needs a vector observation"):
        envs.discretise(envs.make("gymnax:Breakout-MinAtar"), low=0.0, high=1.0, bins=2)
    with pytest.raises(ValueError, match="action_bins is for continuous actions, got 3"):
        envs.discretise(envs.make("gymnax:CartPole-v1"), low=0.0, high=1.0, bins=2, action_bins=3)
