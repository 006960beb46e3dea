"""The host adapter: beside Gymnasium itself, inside compiled loops, and when an environment misbehaves."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces as gym_spaces

from jmbrl import envs
from jmbrl.envs import spaces
from jmbrl.envs.gymnasium import KNOWN
from jmbrl.envs.host import LIVE_SETS

KEY = jax.random.key(5)
TAXI = max(name for name in gymnasium.registry if name.startswith("Taxi-"))  # v3 or v4, by Gymnasium's version


class Counter:
    """Counts its steps; an object with Gymnasium's API that is not a ``gymnasium.Env``."""

    def __init__(self, obs_space=None, act_space=None, obs=None, trouble=None, ends_at=None):
        self.observation_space = obs_space or gym_spaces.Box(-np.inf, np.inf, (2,))
        self.action_space = act_space or gym_spaces.Box(-1.0, 1.0, (1,))
        self._obs, self._trouble, self._ends_at = obs, trouble, ends_at
        self.steps, self.seeds, self.actions, self.closed = 0, [], [], False

    def observe(self):
        return np.array([self.steps, len(self.seeds)], np.float64) if self._obs is None else self._obs

    def reset(self, seed=None):
        self.steps = 0
        self.seeds.append(seed)
        return self.observe(), {}

    def step(self, action):
        self.steps += 1
        self.actions.append(action)
        if self._trouble and self.steps == 3:
            return self._trouble()
        return self.observe(), 1, self.steps == self._ends_at, False, {}

    def close(self):
        self.closed = True


def rollout(env, num_envs, steps, act=None):
    """A compiled scan of steps and restarts: ``key -> (states, (actions, timesteps, next obs))``."""
    copies = env.vector(num_envs)

    def body(carry, key):
        states, _ = carry
        keys = jax.random.split(key, num_envs)
        actions = jax.vmap(lambda k: spaces.sample(k, env.spec.action))(keys) if act is None else act
        states, timestep = copies.step(key, states, actions)
        done = timestep.terminated | timestep.truncated
        states, obs = copies.restart(key, done, states, timestep.obs)
        return (states, obs), (actions, timestep, obs)

    def run(key):
        (states, _), out = jax.lax.scan(body, copies.reset(key), jax.random.split(key, steps))
        return states, out

    return run


@pytest.mark.parametrize("name", ["Pendulum-v1", "InvertedPendulum-v5", "CartPole-v1"])
def test_steps_beside_gymnasium_from_the_same_seed(name):
    limit = 30
    env = envs.make(f"gymnasium:{name}", max_steps=limit)
    theirs = gymnasium.make(name, max_episode_steps=limit)
    state, obs = env.reset(KEY)
    first, _ = theirs.reset(seed=int(jax.random.bits(KEY, (1,), jnp.uint32)[0]))
    np.testing.assert_allclose(obs, first, rtol=1e-6)
    for i in range(limit):
        action = spaces.sample(jax.random.fold_in(KEY, i), env.spec.action)
        state, timestep = env.step(KEY, state, action)
        raw = np.asarray(spaces.to_env(env.spec.action, action))
        their_obs, reward, terminated, truncated, _ = theirs.step(raw if raw.ndim else int(raw))
        np.testing.assert_allclose(timestep.obs, their_obs, rtol=1e-5, atol=1e-5)
        assert float(timestep.reward) == pytest.approx(float(reward), rel=1e-5, abs=1e-6)
        assert (bool(timestep.terminated), bool(timestep.truncated)) == (terminated, truncated and not terminated)
        if terminated or truncated:
            break
    assert terminated or truncated
    theirs.close()
    env.close()


@pytest.mark.parametrize("name", ["Hopper-v5", "Walker2d-v5", "Ant-v5", "Humanoid-v5", "InvertedPendulum-v5"])
def test_the_known_end_is_gymnasiums_own(name):
    """Random actions; a body that does not fall by itself is pushed off its feet."""
    theirs, end = gymnasium.make(name), KNOWN[name]["termination_fn"]
    theirs.action_space.seed(0)
    ends = 0
    for episode in range(3):
        obs, _ = theirs.reset(seed=episode)
        if name == "Ant-v5":  # random actions never turn it over: throw it into the air
            body = theirs.unwrapped
            speed = body.data.qvel.copy()
            speed[2] = 5.0
            body.set_state(body.data.qpos.copy(), speed)
        for _ in range(200):
            action = theirs.action_space.sample()
            before, (obs, _, terminated, _, _) = obs, theirs.step(action)
            assert bool(end(*map(jnp.asarray, (before, action, obs)))) == terminated
            if terminated:
                ends += 1
                break
    assert ends == 3
    theirs.close()


@pytest.mark.parametrize(
    ("name", "shape", "number"),
    [
        ("FrozenLake-v1", (4, 4), int),
        ("CliffWalking-v1", (4, 12), int),
        (TAXI, (), int),
        ("Blackjack-v1", (32, 11, 2), lambda hand: (hand[0] * 11 + hand[1]) * 2 + hand[2]),
    ],
)
def test_numbers_are_gymnasiums_own_observations(name, shape, number):
    limit, met = 12, []
    env = envs.make(f"gymnasium:{name}", max_steps=limit)
    index = jax.jit(env.cells.index)
    theirs = gymnasium.make(name, max_episode_steps=limit)
    for seed in range(3):
        key = jax.random.key(seed)
        state, obs = env.reset(key)
        raw, _ = theirs.reset(seed=int(jax.random.bits(key, (1,), jnp.uint32)[0]))
        for i in range(limit + 1):
            assert int(index(obs)) == number(raw)
            met.append(number(raw))
            action = spaces.sample(jax.random.fold_in(key, i), env.spec.action)
            state, timestep = env.step(key, state, action)
            raw, reward, terminated, truncated, _ = theirs.step(int(action))
            obs = timestep.obs
            assert (float(timestep.reward), bool(timestep.terminated)) == (reward, terminated)
            if terminated or truncated:
                assert int(index(obs)) == number(raw), "the last observation is the true one"
                break
    assert len(set(met)) > 2
    assert env.cells.shape == shape
    assert env.cells.count == (16 if name == "FrozenLake-v1" else {"C": 48, "T": 500, "B": 704}[name[0]])
    every = jnp.arange(env.cells.count)
    np.testing.assert_array_equal(jax.jit(jax.vmap(lambda i: env.cells.index(env.cells.centre(i))))(every), every)
    theirs.close()
    env.close()


def test_worlds_without_a_time_limit_need_one():
    for name in ("CliffWalking-v1", "Blackjack-v1"):
        with pytest.raises(ValueError, match=f"max_steps must be given for gymnasium:{name}"):
            envs.make(f"gymnasium:{name}")


@pytest.mark.parametrize(
    ("space", "obs", "count", "number"),
    [
        (gym_spaces.Discrete(5, start=3), 4, 5, 1),
        (gym_spaces.MultiDiscrete([2, 3], start=[0, 1]), np.array([1, 3]), 6, 5),
        (gym_spaces.Dict(a=gym_spaces.Discrete(4), b=gym_spaces.Discrete(2)), {"b": 0, "a": 3}, 8, 6),
        (gym_spaces.Tuple([gym_spaces.Discrete(2), gym_spaces.MultiDiscrete([3, 5])]), (1, np.array([0, 4])), 30, 19),
    ],
)
def test_discrete_parts_are_numbered_together(space, obs, count, number):
    env = envs.from_gymnasium(Counter(obs_space=space, obs=obs), max_steps=5)
    seen = env.reset(KEY)[1]
    assert (env.cells.count, int(env.cells.index(seen))) == (count, number)
    np.testing.assert_array_equal(env.cells.centre(jnp.int32(number)), seen)


@pytest.mark.parametrize(
    "space",
    [
        gym_spaces.Box(0, 1, (2,)),
        gym_spaces.Tuple([gym_spaces.Discrete(2), gym_spaces.Box(0, 1, (1,))]),
        gym_spaces.MultiDiscrete([4096, 4097]),
    ],
)
def test_what_is_not_discrete_or_too_much_has_no_numbers(space):
    assert envs.from_gymnasium(Counter(obs_space=space), max_steps=5).cells is None


def test_a_grid_is_believed_only_where_it_fits():
    robot = Counter(obs_space=gym_spaces.Discrete(6), obs=0)
    for wrong in ((2, 2), 6, "six", np.zeros((2, 3))):
        robot.shape = wrong
        assert envs.from_gymnasium(robot, max_steps=5).cells.shape == ()
    robot.shape = np.array([2, 3])
    assert envs.from_gymnasium(robot, max_steps=5).cells.shape == (2, 3)


def test_an_observation_outside_its_space_is_refused():
    env = envs.from_gymnasium(Counter(obs_space=gym_spaces.Discrete(4), obs=4), max_steps=5)
    with pytest.raises(Exception, match=r"observation of Counter must be in .* got 4"):
        jax.block_until_ready(env.reset(KEY))


def test_a_compiled_run_keeps_last_observations_and_counts_episodes():
    made = []

    def make():
        made.append(Counter(ends_at=4))
        return made[-1]

    env = envs.from_gymnasium(make, max_steps=10)
    _, (_, timestep, next_obs) = jax.jit(rollout(env, 3, 12))(KEY)
    np.testing.assert_array_equal(timestep.obs[:, 0, 0], [1, 2, 3, 4] * 3)  # 4 is the true last observation
    np.testing.assert_array_equal(next_obs[:, 0, 0], [1, 2, 3, 0] * 3)
    np.testing.assert_array_equal(timestep.terminated[:, 0], [False, False, False, True] * 3)
    assert not timestep.truncated.any()
    assert timestep.reward.dtype == jnp.float32
    assert len(made) == 3
    assert len({seed for env in made for seed in env.seeds}) == 12, "every reset of every copy has its own seed"
    env.close()
    assert all(env.closed for env in made)


def test_an_endless_environment_is_truncated():
    env = envs.from_gymnasium(Counter(), max_steps=5)
    _, (_, timestep, _) = jax.jit(rollout(env, 1, 10))(KEY)
    np.testing.assert_array_equal(timestep.truncated[:, 0], ([False] * 4 + [True]) * 2)
    assert not timestep.terminated.any()


def test_two_runs_of_one_program_have_their_own_environments():
    env = envs.from_gymnasium(Counter, max_steps=100)
    copies = env.vector(2)
    step = jax.jit(copies.step)
    first, _ = copies.reset(KEY)
    second, _ = copies.reset(KEY)
    for _ in range(3):
        first, at_first = step(KEY, first, jnp.zeros((2, 1)))
    second, at_second = step(KEY, second, jnp.zeros((2, 1)))
    assert float(at_first.obs[0, 0]) == 3.0
    assert float(at_second.obs[0, 0]) == 1.0


def test_many_resets_make_few_environments_and_refuse_forgotten_states():
    made = []
    env = envs.from_gymnasium(lambda: made.append(Counter()) or made[-1], max_steps=100, name="many")
    copies = env.vector(2)
    old, _ = copies.reset(KEY)
    for _ in range(10):
        copies.reset(KEY)
    assert len(made) == 2 * LIVE_SETS
    with pytest.raises(Exception, match="state of many is number 1, which is gone"):
        jax.block_until_ready(copies.step(KEY, old, jnp.zeros((2, 1))))


def test_vmap_over_seeds_is_refused():
    env = envs.from_gymnasium(Counter(), max_steps=5)
    with pytest.raises(ValueError, match="cannot be vmapped over seeds; use num_envs or one process"):
        jax.vmap(env.reset)(jax.random.split(KEY, 2))
    with pytest.raises(ValueError, match="cannot be vmapped"):
        jax.jit(jax.vmap(rollout(env, 1, 3)))(jax.random.split(KEY, 2))
    with pytest.raises(ValueError, match=r"use env\.vector"):
        envs.vectorize(env, 2)


@pytest.mark.parametrize(
    ("trouble", "text"),
    [
        (lambda: (_ for _ in ()).throw(OSError("motor 3 does not answer")), "OSError: motor 3 does not answer"),
        (lambda: (_ for _ in ()).throw(KeyboardInterrupt("stop")), "KeyboardInterrupt: stop"),
        (lambda: (np.zeros(3), 0.0, False, False, {}), r"observation of robot has shape \(3,\).*\(2,\)"),
        (lambda: (np.zeros(2), np.zeros(1), False, False, {}), r"reward of robot must be one number, got shape \(1,\)"),
        (lambda: (np.zeros(2), 0.0, None, False, {}), "terminated of robot must be one number, got None"),
        (lambda: (np.zeros(2), 0.0, False, {}), "must return .obs, reward, terminated, truncated, info., got 4"),
    ],
)
def test_what_an_environment_raises_is_told_in_full(trouble, text):
    env = envs.from_gymnasium(Counter(trouble=trouble), max_steps=9, name="robot")
    with pytest.raises(Exception, match=text) as caught:
        jax.block_until_ready(jax.jit(rollout(env, 1, 9))(KEY))
    assert "test_gymnasium.py" in str(caught.value) or "host.py" in str(caught.value), "the traceback is told too"
    assert envs.host_error() is not None
    assert str(envs.host_error()) in str(caught.value)
    _, (_, timestep, _) = jax.jit(rollout(env, 1, 2))(KEY)  # and the environment can be used again
    assert float(timestep.obs[-1, 0, 0]) == 2.0


def test_actions_are_scaled_clipped_and_checked():
    box = gym_spaces.Box(np.array([-0.4, 0.0], np.float32), np.array([0.3, 10.0], np.float32))
    robot = Counter(act_space=box)
    jax.block_until_ready(jax.jit(rollout(envs.from_gymnasium(robot, max_steps=5), 1, 1, jnp.array([[0.0, 9.0]])))(KEY))
    np.testing.assert_allclose(robot.actions[0], [-0.05, 10.0], atol=1e-6)
    assert robot.actions[0].dtype == np.float32
    shifted = Counter(act_space=gym_spaces.Discrete(3, start=5))
    env = envs.from_gymnasium(shifted, max_steps=5)
    jax.block_until_ready(jax.jit(rollout(env, 1, 1, jnp.array([2])))(KEY))
    assert shifted.actions == [7]
    with pytest.raises(Exception, match=r"must be in \[0, 3\), got 9"):
        jax.block_until_ready(jax.jit(rollout(env, 1, 1, jnp.array([9])))(KEY))
    env = envs.from_gymnasium(Counter(), max_steps=5)
    with pytest.raises(Exception, match="must be finite"):
        jax.block_until_ready(jax.jit(rollout(env, 1, 1, jnp.array([[jnp.nan]])))(KEY))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (gym_spaces.MultiDiscrete([2, 3]), r"must be a Box of floats or Discrete, got MultiDiscrete\(\[2 3\]\)"),
        (gym_spaces.Box(-np.inf, np.inf, (1,)), "give finite bounds or act_limit="),
        (gym_spaces.Box(0, 5, (1,), np.int32), "must be a Box of floats"),
    ],
)
def test_unsupported_action_spaces_are_refused(space, message):
    with pytest.raises(ValueError, match=message):
        envs.from_gymnasium(Counter(act_space=space), max_steps=5)


def test_act_limit_bounds_what_has_none():
    env = envs.from_gymnasium(Counter(act_space=gym_spaces.Box(-np.inf, 1.0, (1,))), max_steps=5, act_limit=3.0)
    assert (env.spec.action.low, env.spec.action.high) == ((-3.0,), (1.0,))


@pytest.mark.parametrize(
    ("space", "obs", "want", "names"),
    [
        (
            gym_spaces.Dict(arm=gym_spaces.Box(-1, 1, (2,)), room=gym_spaces.Discrete(3, start=1)),
            {"arm": np.array([0.5, -0.5], np.float32), "room": 2},
            [0.5, -0.5, 0, 1, 0],
            ("arm[0]", "arm[1]", "room[0]", "room[1]", "room[2]"),
        ),
        (
            gym_spaces.Tuple([gym_spaces.Box(-1, 1, (1,)), gym_spaces.MultiBinary(2)]),
            (np.array([0.25]), np.array([1, 0])),
            [0.25, 1, 0],
            ("0[0]", "1[0]", "1[1]"),
        ),
        (gym_spaces.Discrete(4), 3, [0, 0, 0, 1], ()),
    ],
)
def test_observations_become_vectors_with_names(space, obs, want, names):
    env = envs.from_gymnasium(Counter(obs_space=space, obs=obs), max_steps=5)
    np.testing.assert_array_equal(env.reset(KEY)[1], np.array(want, np.float32))
    assert env.spec.obs_names == names
    assert env.spec.obs_shape == (len(want),)


def test_images_stay_bytes_also_many_of_them():
    image = np.arange(64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    env = envs.from_gymnasium(
        lambda: Counter(obs_space=gym_spaces.Box(0, 255, (64, 64, 3), np.uint8), obs=image), max_steps=5
    )
    _, (_, timestep, _) = jax.jit(rollout(env, 16, 8))(KEY)
    assert timestep.obs.dtype == jnp.uint8
    assert timestep.obs.shape == (8, 16, 64, 64, 3)
    np.testing.assert_array_equal(timestep.obs[-1, -1], image)


def test_a_single_object_is_one_copy():
    env = envs.from_gymnasium(Counter(), max_steps=5, name="robot")
    with pytest.raises(Exception, match=r"num_envs must be at most 1 for robot.*got 2"):
        jax.block_until_ready(env.vector(2).reset(KEY))


def test_a_time_limit_is_needed():
    with pytest.raises(ValueError, match="max_steps must be given for Counter"):
        envs.from_gymnasium(Counter())
    assert envs.make("gymnasium:Pendulum-v1").spec.max_steps == 200


def test_actions_repeat_inside_the_call():
    robot = Counter(ends_at=7)
    env = envs.from_gymnasium(robot, max_steps=20, action_repeat=3)
    assert env.spec.max_steps == 7
    _, (_, timestep, _) = jax.jit(rollout(env, 1, 3))(KEY)
    np.testing.assert_array_equal(timestep.reward[:, 0], [3, 3, 1])
    np.testing.assert_array_equal(timestep.terminated[:, 0], [False, False, True])


def test_an_environment_that_fails_to_reset_is_not_lost():
    class Shy(Counter):
        def reset(self, seed=None):
            super().reset(seed)
            if len(self.seeds) == 1:
                raise OSError("not yet")
            return self.observe(), {}

    robot = Shy()
    env = envs.from_gymnasium(robot, max_steps=5)
    with pytest.raises(Exception, match="OSError: not yet"):
        jax.block_until_ready(env.reset(KEY))
    assert float(env.reset(KEY)[1][1]) == 2.0
    env.close()
    assert robot.closed
