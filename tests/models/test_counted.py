"""Count bonuses: counts of a log by hand, in single models and in ensembles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models.worlds import CONTINUOUS

from jmbrl import data, models
from jmbrl.cells import grid

KEY = jax.random.key(0)
CELLS = grid(3, 0.0, 3.0, (3, 1, 1))  # by the first entry: below 1, 1 to 2, above 2


def still(obs, action, following):
    return jnp.asarray(7.0)


def moved(first: list[float]) -> data.Replay:
    """Rows that led to these first entries, each from 0; every change is 0 so that a model learns to stand still."""
    count = len(first)
    following = np.zeros((count, 3), np.float32)
    following[:, 0] = first
    zeros = np.zeros(count, np.float32)
    return data.from_arrays(following, zeros[:, None], zeros, following, zeros > 0)


def test_the_bonus_is_that_of_the_successors_cell():
    model = models.counted(models.deterministic_mlp(CONTINUOUS, (4,), reward=still), CELLS, bonus=3.0, extrinsic=2.0)
    rows, count = data.rows(moved([0.5, 0.5, 0.5, 1.5, 0.2, 0.9, 0.1, 0.3, 0.4]))
    params = model.set_stats(model.init(KEY), rows, jnp.arange(9) < count)
    np.testing.assert_array_equal(params.stats.visits, [8.0, 1.0, 0.0])
    # Weights of 0 predict no change: the successor is where one stands.
    params = params._replace(weights=jax.tree.map(jnp.zeros_like, params.weights))
    beliefs = jnp.asarray([[0.5, 0.0, 0.0], [1.5, 0.0, 0.0], [2.5, 0.0, 0.0]])
    _, outcome = jax.jit(model.step_many)(KEY, params, beliefs, jnp.zeros((3, 1)))
    np.testing.assert_allclose(outcome.reward, 14.0 + 3.0 / np.sqrt([9.0, 2.0, 1.0]), rtol=1e-5)
    _, one = model.step(KEY, params, beliefs[1], jnp.zeros(1))
    np.testing.assert_allclose(one.reward, outcome.reward[1], rtol=1e-6)


def test_rows_outside_the_mask_are_not_counted_and_counts_begin_anew():
    model = models.counted(models.gaussian_mlp(CONTINUOUS, (4,)), CELLS)
    rows, _ = data.rows(moved([0.5, 1.5, 2.5, 2.5]))
    params = model.init(KEY)
    for _ in range(2):
        params = model.set_stats(params, rows, jnp.asarray([True, True, True, False]))
    np.testing.assert_array_equal(params.stats.visits, [1.0, 1.0, 1.0])


@pytest.mark.parametrize("members", [0, 3])
def test_fitting_counts_the_replay(members):
    model = models.counted(models.deterministic_mlp(CONTINUOUS, (4,)), CELLS)
    model = models.ensemble(model, members) if members else model
    trainer = models.trainer(model, epochs=1)
    params = model.init(KEY)
    fitted, _, _ = jax.jit(trainer.fit)(KEY, params, trainer.init(params), moved([0.5, 0.5, 2.5]))
    stats = fitted.stats.member if members else fitted.stats
    np.testing.assert_array_equal(stats.visits, [2.0, 0.0, 1.0])


def test_a_solved_model_keeps_its_counts():
    model = models.counted(models.linear(CONTINUOUS), CELLS)
    trainer = models.trainer(model)
    params = model.init(KEY)
    fitted, _, _ = jax.jit(trainer.fit)(KEY, params, trainer.init(params), moved([0.5, 1.5, 1.5, 2.5]))
    np.testing.assert_array_equal(fitted.stats.visits, [1.0, 2.0, 1.0])


def test_near_observations_share_a_hash_and_opposite_ones_do_not():
    cells = models.simhash(CONTINUOUS, 8)
    assert cells.count == 256
    obs = jax.random.normal(KEY, (200, 3))
    index = jax.jit(jax.vmap(cells.index))
    numbers = index(obs)
    assert numbers.dtype == jnp.int32
    assert numbers.min() >= 0
    assert numbers.max() < 256
    assert np.mean(numbers == index(obs * 1.001)) > 0.95
    # Far from the origin the constant part does not matter, and every sign of -x is that of x turned round.
    np.testing.assert_array_equal(index(1e4 * obs) + index(-1e4 * obs), np.full(200, 255))


def test_a_centre_lies_in_its_cell():
    cells = models.simhash(CONTINUOUS, 3, scale=jnp.asarray([1.0, 10.0, 0.1]))
    numbers = jnp.arange(8)
    np.testing.assert_array_equal(jax.vmap(cells.index)(jax.vmap(cells.centre)(numbers)), numbers)


def test_bad_settings_are_refused():
    member = models.gaussian_mlp(CONTINUOUS, (4,))
    with pytest.raises(ValueError, match="wrap its member"):
        models.counted(models.ensemble(member, 2), CELLS)
    with pytest.raises(ValueError, match="bonus"):
        models.counted(member, CELLS, bonus=float("inf"))
    with pytest.raises(ValueError, match="bits"):
        models.simhash(CONTINUOUS, 0)
