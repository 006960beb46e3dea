"""The loss over several imagined steps: by hand, at the borders of episodes, and what it is good for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.worlds import trained, windows

from jmbrl import models
from jmbrl.types import Continuous, DataKind, Sequence, Spec, Transition

KEY = jax.random.key(0)
ONE = Spec("one", (1,), Continuous((-1.0,), (1.0,)), 10)


def nothing(obs, action, next_obs):
    return jnp.zeros(())


def window(obs, action, firsts=(0,), mask=None):
    """One window of consecutive scalars; ``obs`` has one entry more than ``action``."""
    obs, action = np.asarray(obs, np.float32)[None, :, None], np.asarray(action, np.float32)[None, :, None]
    length = action.shape[1]
    flag = jnp.zeros((1, length), bool)
    rows = Transition(
        jnp.asarray(obs[:, :-1]), jnp.asarray(action), jnp.zeros((1, length)), jnp.asarray(obs[:, 1:]), flag, flag
    )
    mask = jnp.ones((1, length), bool) if mask is None else jnp.asarray(mask)[None]
    return Sequence(rows, flag.at[:, list(firsts)].set(True), mask)


def halving(steps, **options):
    """``next = 0.5 obs + action`` and its parameters."""
    inner = models.deterministic_mlp(ONE, (), predict_change=False, reward=nothing, weight_decay=0.0)
    model = models.multistep(inner, steps, **options)
    params = jax.jit(model.init)(KEY)
    layer = {"kernel": jnp.array([[0.5], [1.0]]), "bias": jnp.zeros(1)}
    return model, params._replace(weights={"layers": (layer,)})


@pytest.mark.parametrize(
    ("steps", "norm", "terms"),
    [
        # Real 4 -> 1 -> 2 -> 0 without actions; the model halves.
        (1, "squared", [1.0, 1.5**2, 1.0]),  # from the real 4, 1, 2: 2, 0.5, 1
        (2, "squared", [1.0, 1.0, 1.0]),  # 2, then from the imagined 2: 1 (real 2); anchored at 2: 1
        (3, "squared", [1.0, 1.0, 0.5**2]),  # 2, 1, 0.5
        (3, "l2", [1.0, 2.0, 1.5]),  # changes imagined -2, -1, -0.5; real -3, 1, -2
    ],
)
def test_loss_by_hand(steps, norm, terms):
    model, params = halving(steps, norm=norm)
    assert model.data_kind is DataKind.SEQUENCES
    loss, info = jax.jit(model.loss)(KEY, params, window([4.0, 1.0, 2.0, 0.0], [0.0, 0.0, 0.0]))
    np.testing.assert_allclose(loss, np.mean(terms), rtol=1e-5)
    anchored = terms[::steps]
    np.testing.assert_allclose(info["one_step"], np.mean(anchored), rtol=1e-5)


def test_a_new_episode_and_a_gap_put_imagination_back_on_the_real_state():
    model, params = halving(4)
    loss = jax.jit(model.loss)
    obs = [4.0, 1.0, 2.0, 0.0, 3.0]
    # Anchored at rows 0 and 2: 2 and 1 against 1 and 2; from the real 2: 1 and 0.5 against 0 and 3.
    value, _ = loss(KEY, params, window(obs, [0.0] * 4, firsts=(0, 2)))
    np.testing.assert_allclose(value, (1 + 1 + 1 + 2.5**2) / 4, rtol=1e-5)
    # Row 1 is broken: it does not count, and row 2 starts anew.
    gap = window([4.0, 1.0, 2.0, 0.0, 3.0], [0.0] * 4, mask=[True, False, True, True])
    broken = jax.tree.map(lambda x: x.at[0, 1].set(jnp.nan) if x.dtype == jnp.float32 else x, gap.transition)
    gradient = jax.jit(
        jax.value_and_grad(lambda w: model.loss(KEY, params._replace(weights=w), gap._replace(transition=broken))[0])
    )
    value, grads = gradient(params.weights)
    np.testing.assert_allclose(value, (1 + 1 + 2.5**2) / 3, rtol=1e-5)
    assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(grads))


def test_the_gradient_runs_through_the_steps():
    # Two steps of next = w obs from 1 towards 0.5 and 0.5: w - 0.5 and w^2 - 0.5, and both derivatives.
    model, params = halving(2)
    batch = window([1.0, 0.5, 0.5], [0.0, 0.0])
    grads = jax.jit(jax.grad(lambda w: model.loss(KEY, params._replace(weights=w), batch)[0]))(
        {"layers": ({"kernel": jnp.array([[0.8], [0.0]]), "bias": jnp.zeros(1)},)}
    )
    wanted = (2 * (0.8 - 0.5) + 2 * (0.64 - 0.5) * 2 * 0.8) / 2
    np.testing.assert_allclose(grads["layers"][0]["kernel"][0, 0], wanted, rtol=1e-5)


def path(obs, action, length):
    """Windows of consecutive scalars; ``obs`` has one entry more than ``action``."""
    obs, action = (jnp.asarray(x, jnp.float32)[:, None] for x in (obs, action))
    flag = jnp.zeros(len(action), bool)
    rows = Transition(obs[:-1], action, jnp.zeros(len(action)), obs[1:], flag, flag)
    return rows, windows(rows, length)


def test_a_gaussians_variance_stays_that_of_one_step_also_in_an_ensemble():
    rng = np.random.default_rng(0)
    obs, action = np.zeros(601), rng.uniform(-1, 1, 600)
    for t in range(600):
        obs[t + 1] = 0.9 * obs[t] + 0.3 * action[t] + 0.2 * rng.normal()
    model = models.ensemble(models.multistep(models.gaussian_mlp(ONE, (), reward=nothing, weight_decay=0.0), 4), 2)
    rows, batch = path(obs, action, 4)
    params, _ = trained(model, rows, batch, 400, 0.02)
    said = jax.jit(model.predict)(params, jnp.ones(1), jnp.zeros(1))
    np.testing.assert_allclose(said.mean, [0.9], atol=0.06)
    # Four steps of drift have a standard deviation of 0.34.
    np.testing.assert_allclose(said.std, [0.2], atol=0.03)


def test_several_steps_see_through_noisy_observations():
    """Regression on noisy inputs shrinks: 0.95 becomes 0.95 s^2 / (s^2 + noise^2). Over many steps it must not."""
    rng = np.random.default_rng(1)
    state = np.zeros(2001)
    for t in range(2000):
        state[t + 1] = 0.95 * state[t] + 0.3 * rng.normal()
    rows, batch = path(state + 0.6 * rng.normal(size=2001), np.zeros(2000), 10)
    shrunk = 0.95 * state.var() / (state.var() + 0.36)
    inner = models.deterministic_mlp(ONE, (), reward=nothing, weight_decay=0.0)

    def factor(steps):
        model = models.multistep(inner, steps)
        params, _ = trained(model, rows, batch, 300)
        ends = jax.jit(model.expect)(params, jnp.array([[1.0], [0.0]]), jnp.zeros((2, 1)))[0]
        return float(ends[0, 0] - ends[1, 0])

    one, ten = factor(1), factor(10)
    np.testing.assert_allclose(one, shrunk, atol=0.03)
    assert abs(ten - 0.95) < 0.5 * abs(one - 0.95)


def test_refuses():
    inner = models.deterministic_mlp(ONE, (4,))
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        models.multistep(inner, 0)
    with pytest.raises(ValueError, match="norm must be one of squared, l2"):
        models.multistep(inner, 2, norm="l1")
    with pytest.raises(ValueError, match=r"ensemble\(multistep"):
        models.multistep(models.ensemble(inner, 2), 2)
    with pytest.raises(ValueError, match="needs a model with expect and a loss of rows"):
        models.multistep(models.multistep(inner, 2), 2)
    gaussian = models.multistep(models.gaussian_mlp(ONE, (4,)), 2, norm="l2")
    with pytest.raises(ValueError, match=r"'l2' is not for a model whose loss reports .*nll"):
        jax.eval_shape(lambda p: gaussian.loss(KEY, p, window([1.0, 2.0], [0.0])), jax.eval_shape(gaussian.init, KEY))
