"""Which member imagines which row, told by members that add their own number."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.worlds import CONTINUOUS, adder, adder_params, batch, linear_replay

from jmbrl import models
from jmbrl.models.grouping import groups
from jmbrl.models.solved import bootstrap
from jmbrl.types import Params


def assigned(model, params, count, key=0):
    """Which number each row got."""
    obs = jnp.zeros((count, 3))
    following, outcome = jax.jit(model.step_many)(jax.random.key(key), params, obs, jnp.zeros((count, 1)))
    np.testing.assert_array_equal(following[:, 0], outcome.reward)
    return np.asarray(outcome.reward)


@pytest.mark.parametrize("count", [16000, 7350, 700, 64, 65, 7, 8, 3, 1])
def test_every_row_comes_back_in_its_place(count):
    model = models.ensemble(adder(), 7)
    obs = jnp.arange(3.0 * count).reshape(count, 3)
    following, outcome = jax.jit(model.step_many)(jax.random.key(0), adder_params(7), obs, jnp.zeros((count, 1)))
    np.testing.assert_array_equal(following, obs + outcome.reward[:, None])


def test_ts1_shares_are_equal_and_redrawn():
    model, params = models.ensemble(adder(), 7), adder_params(7)
    first, second = assigned(model, params, 7350, 0), assigned(model, params, 7350, 1)
    np.testing.assert_array_equal(np.bincount(first.astype(int)), [1050] * 7)
    assert np.mean(first != second) > 0.5


def test_ts1_deals_out_whole_units():
    plan = groups(7350, 7, stable=False)
    got = assigned(models.ensemble(adder(), 7), adder_params(7), 7350).reshape(plan.units, plan.rows)
    assert np.all(got == got[:, :1])


@pytest.mark.parametrize("count", [700, 30, 4])  # many units, one unit a member, fewer rows than members
def test_ts1_marginals_are_uniform(count):
    model = models.ensemble(adder(), 5)
    step = jax.vmap(model.step_many, in_axes=(0, None, None, None))
    keys = jax.random.split(jax.random.key(0), 2000)
    got = step(keys, adder_params(5), jnp.zeros((count, 3)), jnp.zeros((count, 1)))[1].reward
    shares = np.stack([np.mean(np.asarray(got) == m, axis=0) for m in range(5)])
    np.testing.assert_allclose(shares, 0.2, atol=0.05)  # 5 standard errors


@pytest.mark.parametrize(("count", "members"), [(60, 5), (2100, 7), (16000, 7), (2000, 7)])
def test_tsinf_keeps_contiguous_blocks(count, members):
    model, params = models.ensemble(adder(), members, propagation="tsinf"), adder_params(members)
    first, second = assigned(model, params, count, 0), assigned(model, params, count, 1)
    np.testing.assert_array_equal(first, second)
    plan = groups(count, members, stable=True)
    np.testing.assert_array_equal(first, np.arange(count) // (plan.chunks * plan.block))


def test_mean_is_the_average_for_every_row():
    got = assigned(models.ensemble(adder(), 5, propagation="mean"), adder_params(5), 13)
    np.testing.assert_array_equal(got, np.full(13, 2.0))


@pytest.mark.parametrize("propagation", ["ts1", "tsinf", "mean"])
def test_only_elites_are_used(propagation):
    model, params = models.ensemble(adder(), 5, 2, propagation), adder_params(5, elites=[4, 1])
    got = np.concatenate([assigned(model, params, count, key) for key in range(5) for count in (300, 1)])
    assert set(got) == ({2.5} if propagation == "mean" else {1.0, 4.0})
    step = jax.jit(model.step)
    one = {float(step(jax.random.key(i), params, jnp.zeros(3), jnp.zeros(1))[1].reward) for i in range(20)}
    assert one == ({2.5} if propagation == "mean" else {1.0, 4.0})


def test_padding_changes_no_bit():
    # 130 rows in 2 x 1 x 65 need no padding, 129 one row of it; both have the same shapes, so the same program.
    model = models.ensemble(models.gaussian_mlp(CONTINUOUS, (16, 16)), 2, propagation="tsinf")
    params = model.init(jax.random.key(0))
    obs, action = batch(CONTINUOUS, 130)
    whole, _ = jax.jit(model.step_many)(jax.random.key(1), params, obs, action)
    padded, _ = jax.jit(model.step_many)(jax.random.key(1), params, obs[:129], action[:129])
    np.testing.assert_array_equal(whole[:129], padded)


@pytest.mark.parametrize("propagation", ["ts1", "tsinf"])
def test_poisoned_member_leaves_the_rows_of_others_alone(propagation):
    model = models.ensemble(models.gaussian_mlp(CONTINUOUS, (16, 16)), 3, propagation=propagation)
    params = model.init(jax.random.key(0))
    broken = Params(jax.tree.map(lambda w: w.at[1].set(jnp.nan), params.weights), params.stats)
    obs, action = batch(CONTINUOUS, 600)
    step = jax.jit(model.step_many)
    healthy, _ = step(jax.random.key(1), params, obs, action)
    hurt, outcome = step(jax.random.key(1), broken, obs, action)
    bad = np.isnan(np.asarray(hurt)).any(axis=1)
    assert bad.sum() == 200
    np.testing.assert_array_equal(np.asarray(hurt)[~bad], np.asarray(healthy)[~bad])
    np.testing.assert_array_equal(outcome.clipped, bad)  # told, not hidden


def test_disagreement_is_the_spread_of_the_members():
    model = models.ensemble(models.deterministic_mlp(CONTINUOUS, (8,)), 4, 3)
    params = model.init(jax.random.key(0))
    params = params._replace(stats=params.stats._replace(elites=jnp.array([3, 0, 1], jnp.int32)))
    obs, action = batch(CONTINUOUS, 6)
    mean = jax.jit(partial(models.members_predict, model))(params, obs, action).mean
    assert mean.shape == (4, 6, 3)
    got = jax.jit(partial(models.disagreement, model))(params, obs, action)
    np.testing.assert_allclose(got, np.std(np.asarray(mean)[[0, 1, 3]], axis=0), rtol=1e-5)


def test_predict_is_the_mixture():
    model = models.ensemble(models.gaussian_mlp(CONTINUOUS, (8,)), 3)
    params = model.init(jax.random.key(0))
    obs, action = batch(CONTINUOUS, 1)
    each = jax.jit(partial(models.members_predict, model))(params, obs, action)
    got = jax.jit(model.predict)(params, obs[0], action[0])
    np.testing.assert_allclose(got.mean, np.mean(each.mean[:, 0], axis=0), rtol=1e-5, atol=1e-6)
    variance = np.mean(np.asarray(each.std[:, 0]) ** 2, axis=0) + np.var(np.asarray(each.mean[:, 0]), axis=0)
    np.testing.assert_allclose(got.std, np.sqrt(variance), rtol=1e-5)


def test_a_shape_of_groups():
    assert groups(7350, 7, False)[:5] == (7350, 1, 7, 7, 150)
    assert groups(22050, 7, False)[:5] == (22050, 3, 7, 2, 525)
    assert groups(2000, 5, False)[:5] == (2000, 1, 5, 5, 80)
    assert groups(7000, 5, True)[:5] == (7000, 1, 5, 1, 1400)
    assert groups(3, 7, False)[:5] == (3, 1, 7, 1, 1)
    assert groups(129, 2, True).padding == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n must be at least 1"),
        ({"n": 3, "elites": 4}, "elites must be at most 3, got 4"),
        ({"n": 3, "elites": 0}, "elites must be at least 1"),
        ({"n": 3, "propagation": "ds"}, "propagation must be one of ts1, tsinf, mean; got 'ds'"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        models.ensemble(adder(), **options)


def test_refuses_an_ensemble_of_ensembles():
    with pytest.raises(ValueError, match="got an ensemble of 2 members"):
        models.ensemble(models.ensemble(adder(), 2), 2)


def test_bootstrap_draws_as_many_rows_as_count():
    weight = jnp.asarray([1.0, 0.0, 2.0, 1.0, 0.0, 0.0])
    counts = np.asarray(
        jax.jit(jax.vmap(bootstrap, in_axes=(0, None)))(jax.random.split(jax.random.key(0), 2000), weight)
    )
    np.testing.assert_array_equal(np.sum(counts, axis=1), 4.0)
    np.testing.assert_array_equal(counts[:, [1, 4, 5]], 0.0)
    np.testing.assert_allclose(np.mean(counts, axis=0), weight, atol=0.1)  # 4 standard errors
    np.testing.assert_allclose(np.var(counts[:, 0]), 4 * 0.25 * 0.75, rtol=0.15)  # multinomial


def test_solved_members_differ_by_their_bootstrap():
    model = models.ensemble(models.linear(CONTINUOUS), 40, 5)
    params, _, info = jax.jit(models.trainer(model).fit)(
        jax.random.key(0), model.init(jax.random.key(1)), (), linear_replay(100, noise=0.1)
    )
    obs, action = jnp.zeros((1, 3)), jnp.zeros((1, 1))
    mean = jax.jit(partial(models.members_predict, model))(params, obs, action).mean[:, 0]
    # The standard error of a mean of 100 rows of noise 0.1, as the bootstrap estimates it.
    np.testing.assert_allclose(np.std(mean, axis=0), 0.01, rtol=0.4)
    assert info["diverged"] == 0
    assert len(set(params.stats.elites.tolist())) == 5


def test_numbered_beliefs_cannot_be_averaged():
    table = models.tabular(CONTINUOUS, low=-1, high=1, bins=2, action_bins=2)
    assert models.ensemble(table, 2).members == 2
    with pytest.raises(ValueError, match=r'propagation="mean" averages beliefs.*int32'):
        models.ensemble(table, 2, propagation="mean")


@pytest.mark.parametrize("memory", ["recurrent", "rssm"])
def test_memories_that_only_their_own_weights_read_are_no_members(memory):
    with pytest.raises(ValueError, match=r"memory that only its own weights understand; put models\.history"):
        models.ensemble(getattr(models, memory)(CONTINUOUS), 2)
