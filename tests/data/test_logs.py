"""Logged data becomes a replay: small logs worked out by hand, and exact round trips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import data, models
from jmbrl.types import Continuous, Discrete, Spec

BOX = Continuous((-2.0, 0.0), (2.0, 10.0))
OBS = np.arange(12.0).reshape(6, 2)
ACTION = np.asarray([[-2.0, 0.0], [2.0, 10.0], [0.0, 5.0], [1.0, 2.5], [-1.0, 7.5], [0.5, 5.0]])
SCALED = np.asarray([[-1, -1], [1, 1], [0, 0], [0.5, -0.5], [-0.5, 0.5], [0.25, 0]], np.float32)
REWARD = np.arange(6.0)


def column(log, name):
    """A field of a log's rows, as a list."""
    return np.asarray(getattr(log.replay.data, name))[:, 0].tolist()


def test_successors_are_derived_within_episodes_and_last_rows_dropped():
    log = data.from_log(OBS, ACTION, REWARD, episode=[3, 3, 3, 7, 7, 9], space=BOX)
    assert (log.dropped, log.episodes, log.cut, log.clipped) == (3, 2, 2, 0)
    assert column(log, "obs") == OBS[[0, 1, 3]].tolist()
    assert column(log, "next_obs") == OBS[[1, 2, 4]].tolist()
    assert column(log, "reward") == [0.0, 1.0, 3.0]
    assert column(log, "truncated") == [False, True, True]
    assert column(log, "terminated") == [False] * 3
    np.testing.assert_array_equal(log.replay.data.action[:, 0], SCALED[[0, 1, 3]])
    assert np.asarray(log.replay.is_first[:, 0]).tolist() == [True, False, True]
    assert log.spec == Spec("log", (2,), BOX, 2)


def test_given_successors_keep_every_row_and_every_end():
    terminated, truncated = [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0]
    log = data.from_log(OBS, ACTION, REWARD, OBS + 2.0, terminated, truncated, space=BOX)
    assert (log.dropped, log.episodes, log.cut) == (0, 3, 1)
    assert column(log, "terminated") == [False, False, True, False, False, False]
    assert column(log, "truncated") == [False, False, False, False, True, True]
    np.testing.assert_array_equal(log.replay.data.next_obs[:, 0], OBS + 2.0)


def test_a_jump_that_nothing_tells_of_cuts_an_episode():
    """D4RL's files without timeouts: the state is another one, and no flag says so."""
    following = OBS + 2.0
    following[2] = 99.0
    log = data.from_log(OBS, ACTION, REWARD, following, space=BOX)
    assert (log.episodes, log.cut) == (2, 2)
    assert column(log, "truncated") == [False, False, True, False, False, True]


def test_gaps_in_time_cut_episodes():
    log = data.from_log(OBS, ACTION, REWARD, time=[0.0, 0.1, 0.2, 0.5, 0.6, 0.75], space=BOX)
    assert (log.dropped, log.episodes) == (2, 2)  # 0.15 is not yet more than half as long again
    assert column(log, "next_obs") == OBS[[1, 2, 4, 5]].tolist()
    assert column(log, "truncated") == [False, True, False, True]
    np.testing.assert_allclose(log.spec.dt, 0.1)
    whole = data.from_log(OBS, ACTION, REWARD, time=[0.0, 0.1, 0.2, 0.5, 0.6, 0.75], dt=0.2, space=BOX)
    assert (whole.dropped, whole.episodes, whole.spec.dt) == (1, 1, 0.2)


def test_a_last_row_without_an_action_tells_the_end_of_the_row_before():
    action, reward = ACTION.copy(), REWARD.copy()
    action[[2, 5]], reward[[2, 5]] = np.nan, np.nan
    log = data.from_log(
        OBS, action, reward, terminated=[0, 0, 1, 0, 0, 0], truncated=[0, 0, 0, 0, 0, 1],
        episode=[0, 0, 0, 1, 1, 1], space=BOX,
    )  # fmt: skip
    assert (log.dropped, log.cut) == (2, 0)
    assert column(log, "next_obs") == OBS[[1, 2, 4, 5]].tolist()
    assert column(log, "terminated") == [False, True, False, False]
    assert column(log, "truncated") == [False, False, False, True]


def test_ragged_episodes_with_a_last_observation():
    long = {"obs": OBS[:4], "action": ACTION[:3], "reward": REWARD[:3], "terminated": True}
    short = {"obs": OBS[4:], "action": ACTION[4:5], "reward": REWARD[4:5], "truncated": [True]}
    log = data.from_episodes([long, short], space=BOX, names=("x", "v"))
    assert (log.dropped, log.cut, log.episodes) == (0, 0, 2)
    assert column(log, "next_obs") == OBS[[1, 2, 3, 5]].tolist()
    assert column(log, "terminated") == [False, False, True, False]
    assert column(log, "truncated") == [False, False, False, True]
    assert log.spec == Spec("log", (2,), BOX, 3, obs_names=("x", "v"))
    bare = data.from_episodes([{"obs": OBS[:3], "action": [0, 1, 0], "reward": REWARD[:3]}])
    assert (bare.dropped, bare.spec.action) == (1, Discrete(2))
    assert column(bare, "action") == [0, 1]


def test_a_model_learned_from_a_log_alone_has_the_systems_matrices():
    """x' = A x + B u with u in its own units: the model sees (u - centre) / half."""
    rng = np.random.default_rng(0)
    a, b = np.asarray([[0.9, 0.2], [-0.1, 0.8]]), np.asarray([[0.3, 0.0], [0.1, 0.05]])
    u = rng.uniform(BOX.low, BOX.high, (400, 2))
    x = [rng.normal(size=2)]
    for i in range(399):
        x.append(a @ x[-1] + b @ u[i])
    log = data.from_log(np.asarray(x), u, np.zeros(400), space=BOX)
    model = models.linear(log.spec)
    params = jax.jit(models.trainer(model).fit)(jax.random.key(0), model.init(jax.random.key(0)), (), log.replay)[0]
    slope = jax.jacobian(lambda x, u: model.predict(params, x, u).mean, argnums=(0, 1))(jnp.zeros(2), jnp.zeros(2))
    np.testing.assert_allclose(slope[0], a, atol=1e-3)
    np.testing.assert_allclose(slope[1], b * np.asarray([2.0, 5.0]), atol=1e-3)


def test_actions_are_scaled_and_pulled_back_only_when_asked():
    action = ACTION.copy()
    action[1, 0] = 3.0
    with pytest.raises(ValueError, match=r"action must be within .*, got \[ 3. 10.\] in row 1 \(1 rows\); clip=True"):
        data.from_log(OBS, action, REWARD, OBS, space=BOX)
    log = data.from_log(OBS, action, REWARD, OBS, space=BOX, clip=True)
    assert log.clipped == 1
    np.testing.assert_array_equal(log.replay.data.action[:, 0], SCALED)
    assert data.check_actions(log.replay, BOX) == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"obs": np.zeros((0, 2))}, r"obs must have at least one row, got shape \(0, 2\)"),
        ({"reward": REWARD[:5]}, r"reward must have as many rows as obs \(6\), got 5"),
        ({"reward": OBS}, r"reward has shape \(6, 2\), but a log \(one a row\) says \(6,\)"),
        ({"reward": [0, 0, 0, np.nan, 0, 0]}, "reward must be finite: row 3, reward is nan"),
        ({"obs": np.where(OBS == 5, np.nan, OBS)}, r"obs must be finite: row 2, obs\[1\] is nan"),
        ({"obs": [["a", "b"]] * 6}, "obs must hold numbers, got dtype <U1"),
        ({"action": ACTION[:, :1]}, r"action has shape \(1,\), but the action space says \(2,\)"),
        ({"space": None}, "space must tell the bounds of continuous actions, got None"),
        ({"space": Discrete(3), "action": [0, 1, 2, 1, 3, 0]}, r"whole numbers in \[0, 3\), got 3 in row 4"),
        ({"space": Discrete(3), "action": [0, 1, 0.5, 1, 1, 0]}, r"whole numbers in \[0, 3\), got 0.5 in row 2"),
        ({"episode": [0, 0, 1, 1, 0, 0]}, "episode must lie together and never fall, got 0 after 1 in row 4"),
        ({"episode": list("aabbaa")}, "episode must lie together and never fall, got a after b in row 4"),
        ({"episode": [0, 1, 2, 3, 4, 5]}, "next_obs must be given: no row is followed by another one"),
        ({"time": [0, 1, 2, 2, 3, 4]}, "time must rise within an episode, got 2.0 after 2.0 in row 3"),
        ({"time": [0, 1, np.nan, 2, 3, 4]}, "time must be finite: row 2"),
        ({"terminated": [0, 0, 2, 0, 0, 0]}, r"terminated must be true or false \(1 or 0\), got \[2\]"),
        ({"next_obs": OBS[:, :1]}, r"next_obs has shape \(6, 1\), but obs says \(6, 2\)"),
        ({"spec": Spec("there", (3,), BOX, 5)}, r"obs has shape \(2,\), but the spec of there says \(3,\)"),
        ({"spec": Spec("there", (2,), BOX, 5, "uint8")}, "obs must be uint8, as the spec of there says, got float64"),
    ],
)
def test_bad_logs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        data.from_log(**{"obs": OBS, "action": ACTION, "reward": REWARD, "space": BOX} | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": None}, "episode 0 must have reward, got action, obs"),
        ({"rewards": REWARD}, "episode 0 must have no other entries than obs, .*; got rewards"),
        ({"obs": OBS[:4]}, "obs of episode 0 must have 6 rows or one more, as action has, got 4"),
        ({"terminated": [0, 0, 1, 0, 0, 0]}, "episode 0 must end where terminated says so, row 2, got 6 rows"),
        ({"action": ACTION[:0]}, "episode 0 must have at least one action, got none"),
    ],
)
def test_bad_episodes_are_named(change, message):
    episode = {"obs": OBS, "action": ACTION, "reward": REWARD} | change
    with pytest.raises(ValueError, match=message):
        data.from_episodes([{k: v for k, v in episode.items() if v is not None}], space=BOX)


def test_episodes_differ_in_nothing_but_length():
    first = {"obs": OBS, "action": ACTION[:5], "reward": REWARD[:5]}
    with pytest.raises(ValueError, match=r"obs of episode 1 has shape \(1,\), but the first one says \(2,\)"):
        data.from_episodes([first, first | {"obs": OBS[:, :1]}], space=BOX)
    with pytest.raises(ValueError, match="episode 1 must have what the first one has"):
        data.from_episodes([first, first | {"obs": OBS[:5]}], space=BOX)
    with pytest.raises(ValueError, match="episodes must hold at least one, got none"):
        data.from_episodes([])
