"""Stacked observations: what the belief holds, which rows are trained on, and a velocity that no frame shows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.worlds import hidden_velocity, trained, windows

from jmbrl import models
from jmbrl.models.history import HistoryBelief
from jmbrl.types import Continuous, DataKind, Discrete, Params, Sequence, Spec, Transition

KEY = jax.random.key(0)
TWO = Spec("two", (2,), Continuous((-1.0,), (1.0,)), 10)
ONE = Spec("one", (1,), Continuous((-1.0,), (1.0,)), 10)
CHOICE = Spec("choice", (1,), Discrete(3), 10)


def test_encode_keeps_the_last_frames_and_actions():
    model = models.history(models.deterministic_mlp, CHOICE, 3, hidden=())
    params = jax.jit(model.init)(KEY)
    belief = model.initial(params)
    encode = jax.jit(model.encode)
    for t, (obs, action) in enumerate([(1.0, 2), (2.0, 0), (3.0, 2), (4.0, 1)]):
        belief = encode(KEY, params, belief, jnp.int32(action), jnp.array([obs]), jnp.asarray(t == 0))
        if t == 0:
            np.testing.assert_array_equal(belief.frames[:, 0], [1.0, 1.0, 1.0])
            np.testing.assert_array_equal(belief.actions, np.zeros((2, 3)))
    np.testing.assert_array_equal(belief.frames[:, 0], [4.0, 3.0, 2.0])
    np.testing.assert_array_equal(belief.actions, [[0, 1, 0], [0, 0, 1]])
    assert belief.seen == 3.0
    np.testing.assert_array_equal(model.decode(params, belief), [4.0])
    np.testing.assert_allclose(model.features(params, belief), [4, 3, 2, 0, 1, 0, 0, 0, 1, 1])


def test_a_step_predicts_the_newest_frame_and_moves_the_others():
    reward = lambda obs, action, next_obs: 100.0 * obs[0] + 10.0 * next_obs[0] + action[0]  # noqa: E731
    model = models.history(models.deterministic_mlp, TWO, 2, hidden=(), reward=reward, clip_range=None)
    params = jax.jit(model.init)(KEY)
    # Inputs: newest (2), older (2), the action between, share seen, the action now. Change = newest - older + (0, now).
    kernel = jnp.array([[1.0, 0], [0, 1], [-1, 0], [0, -1], [0, 0], [0, 0], [0, 1]])
    params = params._replace(weights={"layers": ({"kernel": kernel, "bias": jnp.zeros(2)},)})
    belief = HistoryBelief(jnp.array([[3.0, 5.0], [2.0, 4.5]]), jnp.array([[0.3]]), jnp.float32(2))
    following, outcome = jax.jit(model.step)(KEY, params, belief, jnp.array([0.25]))
    np.testing.assert_allclose(following.frames, [[4.0, 5.75], [3.0, 5.0]])
    np.testing.assert_allclose(following.actions, [[0.25]])
    np.testing.assert_allclose(outcome.reward, 100 * 3 + 10 * 4 + 0.25, rtol=1e-6)
    said = jax.jit(model.predict)(params, belief, jnp.array([0.25]))
    np.testing.assert_allclose(said.mean, [4.0, 5.75])
    many = jax.tree.map(lambda x: x[None], (belief, jnp.array([0.25])))
    expected, _ = jax.jit(model.expect)(params, *many)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b), expected, following)
    assert model.data_kind is DataKind.SEQUENCES


def reading(spec, **options):
    """An inner model whose loss, ``reward (obs . p + next_obs . q)``, shows the rows that it is given."""
    inner = models.deterministic_mlp(spec, (), **options)
    width = spec.obs_shape[0]

    def loss(key, params, batch):
        value = batch.obs @ params.weights["p"] + batch.next_obs @ params.weights["q"]
        return jnp.mean(batch.reward * value), {"mse": jnp.mean(value)}

    return inner._replace(init=lambda key: Params({"p": jnp.zeros(width), "q": jnp.zeros(width)}, ()), loss=loss)


def test_windows_become_the_beliefs_that_encode_would_have_had():
    model = models.history(reading, TWO, 3)
    params = jax.jit(model.init)(KEY)
    rng = np.random.default_rng(0)
    obs = jnp.asarray(rng.normal(size=(1, 8, 2)), jnp.float32)
    action = jnp.asarray(rng.uniform(-1, 1, (1, 8, 1)), jnp.float32)
    flag = jnp.zeros((1, 8), bool)
    first = flag.at[0, jnp.array([0, 4])].set(True)
    rows = Transition(obs, action, jnp.zeros((1, 8)), obs + 1.0, flag, flag)

    @jax.jit
    @jax.vmap
    def stack(one_row):
        batch = Sequence(rows._replace(reward=one_row[None]), first, ~flag)
        return jax.grad(lambda w: model.loss(KEY, params._replace(weights=w), batch)[0])(params.weights)

    got = stack(jnp.eye(8))  # divided by the six rows that count: the past of the first two lies outside the window
    np.testing.assert_array_equal(got["p"][:2], 0.0)
    belief, previous = model.initial(params), jnp.zeros(1)
    encode = jax.jit(model.encode)
    for t in range(8):
        belief = encode(KEY, params, belief, previous, obs[0, t], first[0, t])
        if t >= 2:
            np.testing.assert_allclose(6 * got["p"][t], model.features(params, belief), rtol=1e-5)
            newest = np.concatenate([obs[0, t] + 1, obs[0, t]])
            np.testing.assert_allclose(6 * got["q"][t, :4], newest, rtol=1e-5)
            np.testing.assert_allclose(6 * got["q"][t, 6:7], action[0, t], rtol=1e-5)
        previous = action[0, t]


def test_statistics_are_those_of_single_frames_and_actions():
    model = models.history(models.deterministic_mlp, TWO, 2, hidden=(), normalize_targets=True)
    obs = jnp.array([[0.0, 10.0], [2.0, 30.0]])
    flag = jnp.zeros(2, bool)
    rows = Transition(
        obs, jnp.array([[0.5], [-0.5]]), jnp.zeros(2), obs + jnp.array([[1.0, 4.0], [3.0, 0.0]]), flag, flag
    )
    stats = jax.jit(lambda key: model.set_stats(model.init(key), rows, ~flag).stats)(KEY)
    np.testing.assert_allclose(stats.inputs.mean, [1, 20, 1, 20, 0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(stats.inputs.std, [1, 10, 1, 10, 0.5, 1, 0.5], rtol=1e-6)
    np.testing.assert_allclose(stats.targets.std[:2], [1.0, 2.0], rtol=1e-6)


def test_two_frames_show_the_velocity_that_one_hides():
    rows = hidden_velocity(60)
    make = {"hidden": (), "reward": lambda obs, action, next_obs: obs[0], "weight_decay": 0.0, "clip_range": None}
    model = models.ensemble(models.history(models.gaussian_mlp, ONE, 2, **make), 2)
    params, _ = trained(model, rows, windows(rows, 30), 400, 0.03)
    # At 1 after 0.5 without an action; then on without one: 1.5, 2, 2.5.
    belief = HistoryBelief(jnp.array([[[1.0], [0.5]]]), jnp.zeros((1, 1, 1)), jnp.full(1, 2.0))
    expect = jax.jit(model.expect)
    for wanted in (1.5, 2.0, 2.5):
        belief, outcome = expect(params, belief, jnp.zeros((1, 1)))
        np.testing.assert_allclose(belief.frames[0, 0, 0], wanted, atol=0.1)
    assert outcome.reward.shape == (1,)


def test_options_are_those_of_the_newest_frame():
    model = models.history(models.gaussian_mlp, TWO, 2, hidden=(4,), angles=(-1,), exogenous=(0,))
    params = jax.jit(model.init)(KEY)
    belief = model.encode(KEY, params, model.initial(params), jnp.zeros(1), jnp.array([7.0, 3.1]), jnp.asarray(True))
    following, _ = jax.jit(model.step)(KEY, params, belief, jnp.array([1.0]))
    assert following.frames[0, 0] == 7.0
    assert -np.pi <= following.frames[0, 1] < np.pi
    assert params.weights["layers"][0]["kernel"].shape[0] == 2 * 3 + 1 + 1 + 1  # sines and cosines of both frames


def test_refuses():
    with pytest.raises(ValueError, match="frames must be at least 1, got 0"):
        models.history(models.gaussian_mlp, TWO, 0)
    with pytest.raises(ValueError, match="history needs a vector observation"):
        models.history(models.gaussian_mlp, Spec("i", (8, 8, 3), TWO.action, 9, "uint8"), 2)
    with pytest.raises(ValueError, match="put ensemble around history"):
        models.history(lambda spec, **o: models.ensemble(models.gaussian_mlp(spec, (4,), **o), 2), TWO, 2)
    with pytest.raises(ValueError, match="angles must be at most 1, got 2"):
        models.history(models.gaussian_mlp, TWO, 2, angles=(2,))
    model = models.history(models.gaussian_mlp, ONE, 6, hidden=(4,))
    with pytest.raises(ValueError, match="windows must have at least frames"):
        jax.eval_shape(lambda p: model.loss(KEY, p, windows(hidden_velocity(2), 6)), jax.eval_shape(model.init, KEY))
