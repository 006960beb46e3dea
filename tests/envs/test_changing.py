"""A world that changes: which rules hold at which step, over episodes and copies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import envs
from jmbrl.types import Continuous

KEY = jax.random.key(3)


def walk(stride: float, max_steps: int = 4, shape: int = 0, start: float = 0.0, **options):
    """x' = x + stride + a; pays x'. Begins at ``start``; every episode takes ``max_steps``."""

    def reset(key):
        x = jnp.full((), start)
        return (x, *[jnp.zeros(())] * shape), x[None]

    def step(key, state, action):
        x = state[0] + stride + action[0]
        return (x, *state[1:]), x[None], x, False

    return envs.from_functions(
        reset, step, action=Continuous((-1.0,), (1.0,)), max_steps=max_steps, name=f"walk{stride:g}", **options
    )


def lived(env, steps: int, num_envs: int):
    """Rewards and what was seen at the beginning of each step, ``[steps, num_envs]``."""
    world = env.vector(num_envs)

    def body(carry, key):
        states, obs = carry
        states, seen = world.step(key, states, jnp.zeros((num_envs, 1)))
        carry = world.restart(key, seen.truncated, states, seen.obs)
        return carry, (seen.reward, obs[..., 0])

    def run(key):
        return jax.lax.scan(body, world.reset(key), jax.random.split(key, steps))[1]

    return jax.jit(jax.vmap(run))(jax.random.split(KEY, 2))


@pytest.mark.parametrize("num_envs", [1, 3])
def test_the_rules_change_within_an_episode_and_stay_changed_over_episodes(num_envs):
    # Strides 1, 10, 100 from steps 0, 6, 9 on; episodes of 4 steps, the later worlds begin at 0.5 and at 0.25.
    env = envs.changing((walk(1.0), walk(10.0, start=0.5), walk(100.0, start=0.25)), at=(6, 9))
    reward, obs = lived(env, 13, num_envs)
    paid = [1, 2, 3, 4, 1, 2, 12, 22, 10.5, 110.5, 210.5, 310.5, 100.25]
    np.testing.assert_array_equal(reward, np.broadcast_to(np.asarray(paid)[:, None], (2, 13, num_envs)))
    np.testing.assert_array_equal(obs[0, [0, 4, 8, 12], 0], [0, 0, 0.5, 0.25])
    assert env.spec.name == "walk1/changing"


def test_it_is_each_environment_in_its_time_side_by_side():
    light = envs.make("gymnax:Pendulum-v1", max_steps=5)
    heavy = envs.make("gymnax:Pendulum-v1", max_steps=5, m=2.0)
    env = envs.changing((light, heavy), at=3)
    keys = jax.random.split(KEY, 5)
    world, singles = env.vector(2), (light.vector(2), heavy.vector(2))
    states, obs = world.reset(KEY)
    own, wanted = singles[0].reset(KEY)
    np.testing.assert_array_equal(obs, wanted)
    together, *apart = (jax.jit(each.step) for each in (world, *singles))
    for t, key in enumerate(keys):
        action = jnp.asarray([[0.7], [-0.3]])
        states, seen = together(key, states, action)
        own, wanted = apart[int(t >= 3)](key, own, action)
        for a, b in zip(seen, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # two programs
    assert bool(seen.truncated.all())  # the episode's own clock ran through the change
    np.testing.assert_array_equal(states.age, [5, 5])
    # A single copy begins its life anew at a reset.
    state, _ = env.reset(KEY)
    assert int(state.age) == 0
    assert int(env.step(KEY, state, jnp.zeros(1))[0].age) == 1


def test_only_what_is_shared_is_kept():
    def pay(obs, action, next_obs):
        return next_obs[0]

    same = envs.changing((walk(1.0, reward_fn=pay), walk(2.0, reward_fn=pay)), 5)
    assert same.reward_fn is pay
    other = envs.changing((walk(1.0, reward_fn=pay), walk(2.0, reward_fn=lambda *row: row[2][0])), 5)
    assert other.reward_fn is None


@pytest.mark.parametrize("num_envs", [1, 3])
def test_another_reward_in_the_same_world(num_envs):
    env = envs.with_reward(walk(1.0), lambda obs, action, next_obs: 100 * obs[0] + next_obs[0] + action[0])
    reward, _ = lived(env, 5, num_envs)
    np.testing.assert_array_equal(reward[0, :, 0], [1, 102, 203, 304, 1])
    changed = envs.changing((envs.with_reward(walk(1.0), lambda *row: 0.0), env), 2)
    np.testing.assert_array_equal(lived(changed, 5, num_envs)[0][0, :, 0], [0, 0, 203, 304, 1])


def test_a_pool_of_starts_is_kept():
    env = envs.changing((walk(1.0, reset_pool=4), walk(10.0, reset_pool=4)), 6)
    reward, _ = lived(env, 9, 2)
    np.testing.assert_array_equal(reward[0, :, 0], [1, 2, 3, 4, 1, 2, 12, 22, 10])
    with pytest.raises(ValueError, match="states made alike"):
        envs.changing((walk(1.0), walk(10.0, reset_pool=4)), 6).vector(2)


@pytest.mark.parametrize(
    ("environments", "at", "message"),
    [
        ((walk(1.0),), 5, "two or more"),
        (walk(1.0), 5, "two or more"),
        ((walk(1.0), walk(2.0, max_steps=9)), 5, "spec.max_steps: walk1 has 4, walk2 has 9"),
        ((walk(1.0), walk(2.0, shape=1)), 5, "states made alike"),
        ((walk(1.0), walk(2.0)), 0, r"at\[0\] must be at least 1"),
        ((walk(1.0), walk(2.0)), (3, 4), "each of the 1 changes"),
        ((walk(1.0), walk(2.0), walk(3.0)), (4, 4), "must rise"),
    ],
)
def test_what_does_not_fit_is_refused(environments, at, message):
    with pytest.raises(ValueError, match=message):
        envs.changing(environments, at)


def test_a_reward_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match="reward_fn must return one number"):
        envs.with_reward(walk(1.0), lambda obs, action, next_obs: next_obs)
