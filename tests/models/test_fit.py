"""The trainer: what it learns, when it stops, and what cannot reach a healthy member."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from models.worlds import CONTINUOUS, linear_replay, reward

from jmbrl import data, models
from jmbrl.models.shuffle import drawn, permuted, salts
from jmbrl.types import DataKind, Params, Transition

KEY = jax.random.key(0)


@functools.cache
def setup(members=3, elites=None, hidden=(8,), **options):
    """A model, its trainer's compiled fit, and where it starts; compiled once for all tests that ask for the same."""
    model = models.gaussian_mlp(CONTINUOUS, hidden, reward=reward)
    model = models.ensemble(model, members, elites) if members else model
    trainer = models.trainer(model, optimizer=optax.adam(3e-3), **options)
    params = model.init(KEY)
    chex.clear_trace_counter()
    return model, jax.jit(chex.assert_max_traces(trainer.fit, n=1)), params, trainer.init(params)


# One program for most tests: replays of 100 places, 3 members.
COMMON = {"elites": 2, "epochs": 3, "holdout": 0.2, "patience": 3, "max_grad_norm": 1.0}


def test_learns_a_linear_gaussian_world():
    model, fit, params, opt = setup(2, hidden=(32,), epochs=60, batch_size=64)
    params, _, info = fit(KEY, params, opt, linear_replay(1000, noise=0.1))
    obs = jax.random.uniform(jax.random.key(5), (64, 3), minval=-1.0, maxval=1.0)
    action = jnp.linspace(-1.0, 1.0, 64)[:, None]
    prediction = jax.jit(jax.vmap(model.predict, in_axes=(None, 0, 0)))(params, obs, action)
    np.testing.assert_allclose(prediction.mean, 0.8 * obs + 0.3 * action, atol=0.1)
    np.testing.assert_allclose(np.mean(prediction.std, axis=0), 0.1, rtol=0.2)
    np.testing.assert_allclose(info["mse"], 0.01, rtol=0.2)
    assert info["skipped"] == info["diverged"] == 0


def test_counts_epochs_and_updates_of_a_single_model():
    _, fit, params, opt = setup(0, epochs=3, batch_size=16)
    after, _, info = fit(KEY, params, opt, linear_replay(70, capacity=100))
    assert info["epochs"] == 3
    assert info["updates"] == 15  # ceil(70 / 16) = 5 a pass
    assert all(value.dtype == jnp.float32 and value.shape == () for value in info.values())
    chex.assert_trees_all_equal_shapes_and_dtypes(after, params)


def test_an_empty_replay_changes_nothing():
    _, fit, params, opt = setup(**COMMON)
    after, opt_after, info = fit(KEY, params, opt, data.empty(CONTINUOUS, 100))
    jax.tree.map(np.testing.assert_array_equal, (after, opt_after), (params, opt))
    assert info["updates"] == 0
    assert info["epochs"] == 0


def test_one_trace_while_the_data_grow():
    _, fit, params, opt = setup(**COMMON)  # raises on a second trace
    for count in (1, 10, 60, 100):
        params, opt, info = fit(KEY, params, opt, linear_replay(count, capacity=100))
        assert info["updates"] == 3 * -(-(count - int(0.2 * count)) // 32)
        chex.assert_tree_all_finite(params.weights)


def test_warm_start_continues_where_the_last_fit_ended():
    _, fit, params, opt = setup(**COMMON)
    replay = linear_replay(100)
    params, opt, first = fit(KEY, params, opt, replay)
    _, opt, second = fit(jax.random.key(1), params, opt, replay)
    assert second["loss"] < first["loss"]
    assert np.all(opt[0].count == first["updates"] + second["updates"])


def test_rows_that_are_not_valid_never_enter():
    replay = linear_replay(100)
    broken = jax.tree.map(lambda x: x.at[40:60].set(jnp.nan) if x.dtype == jnp.float32 else x, replay.data)
    replay = replay._replace(data=broken, valid=replay.valid.at[40:60].set(False))
    _, fit, params, opt = setup(**COMMON)
    params, _, info = fit(KEY, params, opt, replay)
    assert info["skipped"] == 0
    chex.assert_tree_all_finite((params.weights, params.stats))
    assert info["updates"] == 6  # 64 rows of 80


def test_a_poisoned_member_leaves_the_others_bitwise_alone():
    _, fit, params, opt = setup(**COMMON)
    poisoned = Params(jax.tree.map(lambda w: w.at[1].set(jnp.nan), params.weights), params.stats)
    healthy, _, _ = fit(KEY, params, opt, linear_replay(100))
    hurt, _, info = fit(KEY, poisoned, opt, linear_replay(100))
    for a, b in zip(jax.tree.leaves(healthy.weights), jax.tree.leaves(hurt.weights), strict=True):
        np.testing.assert_array_equal(a[jnp.array([0, 2])], b[jnp.array([0, 2])])
    assert info["diverged"] == 1
    assert info["skipped"] == info["nonfinite_loss"] == info["updates"]
    assert 1 not in hurt.stats.elites


def test_a_non_finite_batch_is_skipped_and_counted():
    replay = linear_replay(70, capacity=100)
    huge = replay.data.next_obs.at[5].set(1e30)  # finite, but its square is not
    replay = replay._replace(data=replay.data._replace(next_obs=huge))
    _, fit, params, opt = setup(0, epochs=3, batch_size=16)
    params, opt, info = fit(KEY, params, opt, replay)
    assert 3 <= info["skipped"] <= 6  # once an epoch, and again where the last batch wraps around to it
    assert opt[0].count == info["updates"] - info["skipped"]
    assert info["diverged"] == 0
    chex.assert_tree_all_finite(params.weights)


def test_statistics_leave_the_held_out_rows_out():
    _, fit, params, opt = setup(**COMMON)
    replay = linear_replay(10, capacity=100)
    seen = np.asarray(replay.data.obs[:10, 0])
    after, _, _ = fit(KEY, params, opt, replay)
    without_two = [np.delete(seen, (i, j), axis=0).mean(axis=0) for i in range(10) for j in range(i)]
    distance = [np.abs(after.stats.member.inputs.mean[:3] - mean).max() for mean in without_two]
    assert min(distance) < 1e-6


def overshooting(members):
    """A model whose error falls with the first updates and rises afterwards: its optimum lies at 1, steps are 0.4."""
    base = models.deterministic_mlp(CONTINUOUS, (4,), reward=reward)

    def init(key):
        return Params({"x": jnp.zeros(()), "bound": jnp.zeros(())}, ())

    def loss(key, params, batch):
        # The gradient always pushes on, the reported error has its least value at x = 1.
        x = params.weights["x"]
        return -(x + params.weights["bound"]), {"mse": (x - 1.0) ** 2 + 0.1}

    model = base._replace(init=init, loss=loss, set_stats=lambda params, transitions, mask: params)
    return models.ensemble(model, members) if members else model


@pytest.mark.parametrize("members", [0, 2])
def test_early_stop_restores_the_best_snapshot(members):
    model = overshooting(members)
    trainer = models.trainer(model, optimizer=optax.sgd(0.4), epochs=50, batch_size=80, holdout=0.2, patience=2)
    params = model.init(KEY)
    params, _, info = jax.jit(trainer.fit)(KEY, params, trainer.init(params), linear_replay(100))
    # x after each epoch: 0.4, 0.8, 1.2 (as good as 0.8: no improvement by 1 %), 1.6, 2.0; then patience is spent.
    assert info["epochs"] == 5
    np.testing.assert_allclose(params.weights["x"], 0.8 * np.ones(members or ()), rtol=1e-5)
    np.testing.assert_allclose(params.weights["bound"], 0.8 * np.ones(members or ()), rtol=1e-5)  # all of the weights
    np.testing.assert_allclose(info["holdout_mse"], 0.14, rtol=1e-4)


def test_elites_are_the_members_of_least_held_out_error():
    model = models.ensemble(overshooting(0), 5, elites=2)
    trainer = models.trainer(model, optimizer=optax.sgd(1e-6), epochs=1, holdout=0.2)
    params = model.init(KEY)
    params = params._replace(weights=params.weights | {"x": jnp.array([3.0, 0.9, jnp.nan, 1.2, -1.0])})
    params, _, _ = jax.jit(trainer.fit)(KEY, params, trainer.init(params), linear_replay(100))
    np.testing.assert_array_equal(params.stats.elites, [1, 3])


@pytest.mark.parametrize("n", [1, 2, 7, 100, 1000])
def test_permuted_is_a_bijection(n):
    got = jax.jit(permuted)(salts(KEY), jnp.arange(n), jnp.asarray(n))
    np.testing.assert_array_equal(np.sort(got), np.arange(n))


def test_permuted_is_uniform():
    keys = jax.random.split(KEY, 3000)
    got = np.asarray(jax.vmap(lambda key: permuted(salts(key), jnp.arange(5), jnp.asarray(5)))(keys))
    for place in range(5):
        np.testing.assert_allclose(np.bincount(got[:, place], minlength=5) / 3000, 0.2, atol=0.04)
    pairs = np.bincount(got[:, 0] * 5 + got[:, 1], minlength=25).reshape(5, 5) / 3000
    np.testing.assert_allclose(pairs[~np.eye(5, dtype=bool)], 0.05, atol=0.02)


def test_drawn_is_a_bootstrap():
    n = 5000
    got = np.asarray(drawn(salts(KEY), jnp.arange(n), jnp.asarray(n)))
    assert 0 <= got.min() <= got.max() < n
    np.testing.assert_allclose(len(set(got)) / n, 1 - np.exp(-1), atol=0.02)
    other = np.asarray(drawn(salts(jax.random.key(1)), jnp.arange(n), jnp.asarray(n)))
    assert np.mean(got == other) < 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"holdout": 1.5}, "holdout must be at most"),
        ({"patience": 3}, "patience needs holdout > 0"),
        ({"holdout": 0.2, "patience": -1}, "patience must be at least 0"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        setup(2, **options)


def test_refuses_models_it_cannot_train():
    model = models.deterministic_mlp(CONTINUOUS, (4,))
    with pytest.raises(ValueError, match="no loss"):
        models.trainer(model._replace(loss=None))
    with pytest.raises(ValueError, match="use sequence_trainer"):
        models.trainer(model._replace(data_kind=DataKind.SEQUENCES))
    with pytest.raises(ValueError, match="use trainer"):
        models.sequence_trainer(model)


def sequence_model():
    """Predicts the next observation of each valid row of a window as ``w * obs``."""
    base = models.deterministic_mlp(CONTINUOUS, (4,))

    def loss(key, params, batch):
        rows: Transition = batch.transition
        error = jnp.mean((rows.next_obs - params.weights["w"] * rows.obs) ** 2, axis=-1)
        mse = jnp.sum(jnp.where(batch.mask, error, 0.0)) / jnp.maximum(jnp.sum(batch.mask), 1)
        return mse, {"mse": mse}

    return base._replace(
        init=lambda key: Params({"w": jnp.zeros(())}, ()), loss=loss, data_kind=DataKind.SEQUENCES,
        set_stats=lambda params, transitions, mask: params,
    )  # fmt: skip


def test_sequence_trainer_learns():
    model = sequence_model()
    trainer = models.sequence_trainer(model, optimizer=optax.adam(0.05), updates=100, batch_size=16, length=4)
    params = model.init(KEY)
    params, _, info = jax.jit(trainer.fit)(KEY, params, trainer.init(params), linear_replay(300, capacity=400))
    np.testing.assert_allclose(params.weights["w"], 0.8, atol=0.03)
    assert info["updates"] == 100
    assert info["skipped"] == info["diverged"] == 0


def test_sequence_trainer_does_nothing_without_data():
    model = sequence_model()
    trainer = models.sequence_trainer(model, updates=3, batch_size=2, length=4)
    params = model.init(KEY)
    after, _, _ = jax.jit(trainer.fit)(KEY, params, trainer.init(params), data.empty(CONTINUOUS, 20))
    assert after.weights["w"] == 0.0


@functools.cache
def solved(members=0, breaks=False):
    """A regression, solved; ``breaks``: its result is not finite where the first reward seen is above 5."""
    model = models.linear(CONTINUOUS, reward=reward)
    if breaks:
        inner = model.fit

        def fit(key, params, rows, weight):
            new, info = inner(key, params, rows, weight)
            bad = jnp.where(jnp.max(weight * rows.reward) > 5.0, jnp.nan, 1.0)
            return new._replace(weights=jax.tree.map(lambda x: x * bad, new.weights)), info | {"mse": info["mse"] * bad}

        model = model._replace(fit=fit)
    model = models.ensemble(model, members, 1) if members else model
    trainer = models.trainer(model)
    params = model.init(KEY)
    return model, jax.jit(trainer.fit), params, trainer.init(params)


def test_a_solved_model_needs_no_optimiser():
    model, fit, params, opt = solved()
    assert opt == ()
    after, opt, info = fit(KEY, params, opt, linear_replay(100))
    assert opt == ()
    assert all(value.dtype == jnp.float32 and value.shape == () for value in info.values())
    assert (info["updates"], info["diverged"]) == (1, 0)
    np.testing.assert_allclose(info["mse"], 0.01, rtol=0.3)
    obs, action = jnp.ones((1, 3)), jnp.ones((1, 1))
    np.testing.assert_allclose(
        jax.jit(model.expect)(after, obs, action)[0], 0.8 * obs + 0.3, atol=0.11
    )  # 4 standard errors
    chex.assert_trees_all_equal_shapes_and_dtypes(after, params)


@pytest.mark.parametrize("members", [0, 3])
def test_an_empty_replay_changes_nothing_in_a_solved_model(members):
    _, fit, params, opt = solved(members, breaks=bool(members))
    after, _, info = fit(KEY, params, opt, data.empty(CONTINUOUS, 100))
    jax.tree.map(np.testing.assert_array_equal, after, params)
    assert all(value == 0 for value in info.values())


def test_a_solution_that_is_not_finite_is_refused_member_by_member():
    _, fit, params, opt = solved(3, breaks=True)
    log = linear_replay(100)
    marked = log._replace(data=log.data._replace(reward=log.data.reward.at[7].set(9.0)))  # in some bootstraps
    good, _, _ = fit(KEY, params, opt, log)
    for key in range(10):
        after, _, info = fit(jax.random.key(key), good, opt, marked)
        kept = [np.array_equal(after.weights["theta"][i], good.weights["theta"][i]) for i in range(3)]
        assert info["diverged"] == sum(kept)
        assert all(np.all(np.isfinite(w)) for w in jax.tree.leaves(after.weights))
        if 0 < sum(kept) < 3:
            assert not kept[int(after.stats.elites[0])]
            break
    else:
        pytest.fail("no bootstrap left the marked row out of one member and had it in another")


def test_a_single_solution_that_is_not_finite_leaves_all_as_it_was():
    _, fit, params, opt = solved(breaks=True)
    good, _, _ = fit(KEY, params, opt, linear_replay(100))
    log = linear_replay(100, seed=1)
    log = log._replace(data=log.data._replace(reward=log.data.reward + 9.0))
    after, _, info = fit(KEY, good, opt, log)
    jax.tree.map(np.testing.assert_array_equal, after, good)  # statistics too: the old weights belong to them
    assert info["diverged"] == 1


@pytest.mark.parametrize(
    "option", [{"epochs": 7}, {"optimizer": optax.sgd(1.0)}, {"holdout": 0.1}, {"bootstrap": False}]
)
def test_gradient_options_are_refused_for_a_solved_model(option):
    with pytest.raises(ValueError, match=f"{next(iter(option))} is for models trained by gradient"):
        models.trainer(solved()[0], **option)


def test_trainer_for_picks_by_the_models_needs():
    rows = models.gaussian_mlp(CONTINUOUS, (8,))
    sequences = rows._replace(data_kind=DataKind.SEQUENCES)
    assert models.trainer_for(solved()[0], epochs=7).init(None) == ()  # options of gradients mean nothing to it
    for model, option, other in ((rows, "epochs", "length"), (sequences, "length", "epochs")):
        opt = models.trainer_for(model, **{option: 2}).init(model.init(KEY))
        assert jax.tree.leaves(opt)
        with pytest.raises(ValueError, match=f"has no option {other}; it has optimizer"):
            models.trainer_for(model, **{other: 2})
    with pytest.raises(ValueError, match="does not learn"):
        models.trainer_for(rows._replace(loss=None))
