"""Wrappers: what they change, what they keep, one copy and many."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import envs
from jmbrl.envs.wrappers import rename
from jmbrl.types import Cells, Continuous

KEY = jax.random.key(2)


def ramp(max_steps=10, ends_at=99):
    """obs ``[t, 10 t]``, reward ``t``, ends at ``t = ends_at``."""

    def observe(t):
        return jnp.array([1.0, 10.0]) * t

    def step(key, t, action):
        return t + 1, observe(t + 1), t + 1, t + 1 >= ends_at

    return envs.from_functions(
        lambda key: (0, observe(0)),
        step,
        action=Continuous((-1.0,), (1.0,)),
        max_steps=max_steps,
        name="ramp",
        obs_names=("t", "ten"),
        obs_shape=(2,),
        reward_fn=lambda obs, action, next_obs: next_obs[..., 0],
        termination_fn=lambda obs, action, next_obs: next_obs[..., 0] >= ends_at,
        dt=0.1,
    )


def play(env, steps, num_envs=2):
    """Timesteps of a compiled run of copies with restarts, ``[steps, num_envs, ...]``."""
    copies = env.vector(num_envs)

    def body(carry, key):
        states, _ = carry
        states, timestep = copies.step(key, states, jnp.zeros((num_envs, 1)))
        done = timestep.terminated | timestep.truncated
        carry = copies.restart(key, done, states, timestep.obs)
        return carry, (timestep, carry[1])

    run = jax.jit(lambda key: jax.lax.scan(body, copies.reset(key), jax.random.split(key, steps))[1])
    return run(KEY)


def test_mask_keeps_the_named_entries_and_drops_what_might_read_the_rest():
    env = envs.mask_obs(ramp(max_steps=3), keep=(1,))
    assert env.spec.obs_shape == (1,)
    assert env.spec.obs_names == ("ten",)
    assert env.reward_fn is None
    assert env.termination_fn is None
    timestep, next_obs = play(env, 4)
    np.testing.assert_array_equal(timestep.obs[:, 0, 0], [10, 20, 30, 10])
    np.testing.assert_array_equal(next_obs[:, 0, 0], [10, 20, 0, 10])
    with pytest.raises(ValueError, match=r"keep\[i\] must be at most 1, got 2"):
        envs.mask_obs(ramp(), keep=(2,))
    with pytest.raises(ValueError, match="each once"):
        envs.mask_obs(ramp(), keep=(0, 0))


def test_frames_stack_oldest_first_and_start_afresh():
    env = envs.frame_stack(ramp(max_steps=3), 2)
    assert env.spec.obs_names == ("t[t-1]", "ten[t-1]", "t[t-0]", "ten[t-0]")
    timestep, next_obs = play(env, 4)
    np.testing.assert_array_equal(timestep.obs[:, 0], [[0, 0, 1, 10], [1, 10, 2, 20], [2, 20, 3, 30], [0, 0, 1, 10]])
    np.testing.assert_array_equal(next_obs[2, 0], [0, 0, 0, 0])
    reward = env.reward_fn(timestep.obs[0, 0], jnp.zeros(1), timestep.obs[1, 0])
    assert float(reward) == float(timestep.reward[1, 0]) == 2.0


def test_with_state_gives_what_a_simulator_needs():
    env = envs.with_state(ramp(max_steps=3))
    timestep, next_obs = play(env, 4)
    np.testing.assert_array_equal(timestep.obs.state.inner[:, 0], [1, 2, 3, 1])
    np.testing.assert_array_equal(next_obs.state.inner[:, 0], [1, 2, 0, 1])
    np.testing.assert_array_equal(timestep.obs.obs[:, 0, 0], [1, 2, 3, 1])
    _, again = env.step(KEY, jax.tree.map(lambda x: x[0, 0], timestep.obs.state), jnp.zeros(1))
    assert float(again.obs.obs[0]) == 2.0
    reward = env.reward_fn(again.obs, jnp.zeros(1), again.obs)
    assert float(reward) == 2.0


def ageing():
    """``[episode, t]``: every episode of two steps begins where the last one ended, one episode older."""

    def observe(state):
        return state.astype(jnp.float32)

    def step(key, state, action):
        state = state.at[1].add(1)
        return state, observe(state), 0.0, False

    def restart(key, state):
        state = jnp.stack([state[0] + 1, 0])
        return state, observe(state)

    return envs.from_functions(
        lambda key: (jnp.zeros(2, jnp.int32), jnp.zeros(2)), step, action=Continuous((-1.0,), (1.0,)), max_steps=2,
        name="ageing", obs_shape=(2,), restart=restart,
    )  # fmt: skip


def test_a_world_that_changes_goes_on_changing_when_its_state_is_shown():
    timestep, following = play(envs.with_state(ageing()), 5)
    np.testing.assert_array_equal(timestep.obs.obs[:, 1], [[0, 1], [0, 2], [1, 1], [1, 2], [2, 1]])
    np.testing.assert_array_equal(following.obs[:, 1], [[0, 1], [1, 0], [1, 1], [2, 0], [2, 1]])
    for seen in (timestep.obs, following):
        np.testing.assert_array_equal(seen.state.inner, seen.obs)


def test_a_pool_of_starts_stays_behind_the_state():
    def reset(key):
        start = jax.random.uniform(key, (1,))
        return start, start

    def step(key, x, action):
        return x + 1, x + 1, 0.0, False

    pooled = envs.from_functions(
        reset, step, action=Continuous((-1.0,), (1.0,)), max_steps=2, name="pooled", obs_shape=(1,), reset_pool=3,
    )  # fmt: skip
    env = envs.with_state(envs.frame_stack(pooled, 2))
    timestep, following = play(env, 12)
    starts = np.unique(np.asarray(following.obs)[1::2])
    assert 1 < len(starts) <= 4, "two copies share 2 x 2 starts"
    for seen in (timestep.obs, following):
        np.testing.assert_array_equal(seen.state.inner.inner[..., 0], seen.obs[..., 1])
    one = jax.tree.map(lambda x: x[2, 0], timestep.obs.state)
    np.testing.assert_array_equal(env.step(KEY, one, jnp.zeros(1))[1].obs.obs, timestep.obs.obs[3, 0])


def corridor(image=False):
    """Three rooms in a row, one-hot; every step goes on by one. With ``image`` a ``uint8[1, 3, 1]`` of 0 and 255."""
    shape = (1, 3, 1) if image else (3,)
    dtype = "uint8" if image else "float32"

    def observe(t):
        return jnp.reshape((jnp.arange(3) == t) * (255 if image else 1), shape).astype(dtype)

    def step(key, t, action):
        t = jnp.minimum(t + 1, 2)
        return t, observe(t), 0.0, False

    made = envs.from_functions(
        lambda key: (jnp.int32(0), observe(0)), step, action=Continuous((-1.0,), (1.0,)), max_steps=9,
        name="corridor", obs_shape=shape, obs_dtype=dtype,
    )  # fmt: skip

    def index(obs):
        return jnp.argmax(jnp.ravel(obs) == (255 if image else 1)).astype(jnp.int32)

    return made._replace(cells=Cells(3, index, lambda i: observe(i).astype(jnp.float32)))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda: rename(corridor(), "hall"),
        lambda: envs.noisy(corridor(), action=0.1),
        lambda: envs.flatten_obs(corridor()),
        lambda: envs.flatten_obs(corridor(image=True)),
        lambda: envs.frame_stack(corridor(), 2),
        lambda: envs.frame_stack(corridor(image=True), 2),
        lambda: envs.with_state(corridor()),
        lambda: envs.action_repeat(corridor(), 1),
    ],
)
def test_numbers_go_on_behind_what_loses_nothing(wrap):
    env = wrap()
    timestep, _ = play(env, 3)
    numbers = jax.jit(jax.vmap(jax.vmap(env.cells.index)))(timestep.obs)
    np.testing.assert_array_equal(numbers, [[1, 1], [2, 2], [2, 2]])
    for i in range(3):
        assert env.cells.centre(jnp.int32(i)).shape == env.spec.obs_shape
        assert int(env.cells.index(env.cells.centre(jnp.int32(i)))) == i


def test_numbers_are_dropped_where_observations_lose_something():
    assert envs.noisy(corridor(), obs=0.1).cells is None
    assert envs.mask_obs(corridor(), keep=(0, 2)).cells is None
    repeated = envs.action_repeat(corridor(), 2)
    assert int(repeated.cells.index(play(repeated, 1)[0].obs[0, 0])) == 2


def test_repeated_actions_add_up_and_stop_at_the_end():
    env = envs.action_repeat(ramp(max_steps=10, ends_at=5), 3)
    assert env.spec.max_steps == 4
    assert env.spec.dt == pytest.approx(0.3)
    timestep, _ = play(env, 3)
    np.testing.assert_array_equal(timestep.reward[:, 0], [6, 9, 6])  # 1+2+3, 4+5 and the end, 1+2+3
    np.testing.assert_array_equal(timestep.obs[:, 0, 0], [3, 5, 3])
    np.testing.assert_array_equal(timestep.terminated[:, 0], [False, True, False])
    cut, _ = play(envs.action_repeat(ramp(max_steps=4), 3), 2)
    np.testing.assert_array_equal(cut.truncated[:, 0], [False, True])
    np.testing.assert_array_equal(cut.reward[:, 0], [6, 4])


def test_flatten_makes_a_vector_of_an_image():
    env = envs.flatten_obs(envs.make("gymnax:Breakout-MinAtar", max_steps=5))
    _, obs = env.reset(KEY)
    assert env.spec.obs_shape == obs.shape == (400,)
    with pytest.raises(ValueError, match="needs a vector observation"):
        envs.mask_obs(envs.make("gymnax:Breakout-MinAtar"), keep=(0,))


def test_wrappers_work_on_host_environments_where_they_can():
    env = envs.make("gymnasium:Pendulum-v1", max_steps=3)
    hidden = envs.frame_stack(envs.mask_obs(env, keep=(0, 1)), 3)
    timestep, next_obs = play(hidden, 4)
    assert timestep.obs.shape == (4, 2, 6)
    np.testing.assert_array_equal(timestep.truncated[:, 0], [False, False, True, False])
    np.testing.assert_array_equal(next_obs[2, :, :2], next_obs[2, :, 4:])
    assert not np.array_equal(timestep.obs[2, 0, :2], timestep.obs[2, 0, 4:])
    with pytest.raises(ValueError, match="lives on the host"):
        envs.with_state(env)
    with pytest.raises(ValueError, match="action_repeat=2 where it is made"):
        envs.action_repeat(env, 2)
    env.close()


def drift():
    """``x' = x + a``; the reward is the action that arrived."""

    def step(key, x, action):
        return x + action, x + action, action[0], False

    return envs.from_functions(
        lambda key: (jnp.zeros(1), jnp.zeros(1)), step, action=Continuous((-1.0,), (1.0,)), max_steps=50,
        name="drift", obs_shape=(1,),
    )  # fmt: skip


def test_noise_on_actions_is_uniform_and_clipped_and_noise_on_observations_leaves_the_state():
    env = envs.noisy(drift(), action=0.5, obs=0.1)
    keys = jax.random.split(KEY, 2000)
    _, seen = jax.vmap(lambda key: env.step(key, env.reset(key)[0], jnp.zeros(1)))(keys)
    shown = np.asarray(seen.obs)
    arrived = np.asarray(seen.reward)
    assert np.abs(arrived).max() <= 0.5
    np.testing.assert_allclose(arrived.std(), 0.5 / np.sqrt(3), rtol=0.05)
    gap = shown[:, 0] - arrived
    assert 0.09 < np.abs(gap).max() <= 0.1 + 1e-6
    edge = jax.vmap(lambda key: env.step(key, env.reset(key)[0], jnp.ones(1))[1].reward)(keys)
    assert np.asarray(edge).max() <= 1.0
    assert env.reward_fn is None


def test_noise_of_zero_changes_nothing_and_copies_differ():
    jax.tree.map(np.testing.assert_array_equal, play(envs.noisy(ramp()), 5), play(ramp(), 5))
    shaken = play(envs.noisy(ramp(), obs=0.1), 12)
    obs = np.asarray(shaken[0].obs)
    assert np.all(obs[:, 0] != obs[:, 1])
    # After a restart the first observation is shaken too, and the kept ones are those that were shown.
    np.testing.assert_array_equal(np.asarray(shaken[1])[:8], obs[:8])
    assert np.all(np.abs(np.asarray(shaken[1])[9]) <= 0.1)
    with pytest.raises(ValueError, match="action must be"):
        envs.noisy(ramp(), action=-1.0)
