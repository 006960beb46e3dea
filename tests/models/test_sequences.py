"""The trainer of models that learn from windows: members of an ensemble."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from models.worlds import CONTINUOUS, linear_replay

from jmbrl import models
from jmbrl.types import DataKind, Params

KEY = jax.random.key(0)
UPDATES = 40


def scaled(start):
    """Predicts the next observation of each row of a window as ``w * obs``; ``w`` starts at ``start(key)``."""

    def loss(key, params, batch):
        rows = batch.transition
        error = jnp.mean((rows.next_obs - params.weights["w"] * rows.obs) ** 2, axis=-1)
        mse = jnp.sum(jnp.where(batch.mask, error, 0.0)) / jnp.maximum(jnp.sum(batch.mask), 1)
        return mse, {"mse": mse}

    base = models.deterministic_mlp(CONTINUOUS, (4,))
    return base._replace(
        init=lambda key: Params({"w": start(key)}, ()), loss=loss, data_kind=DataKind.SEQUENCES,
        set_stats=lambda params, transitions, mask: params,
    )  # fmt: skip


def test_members_draw_their_own_windows_and_a_broken_one_reaches_no_other():
    model = models.ensemble(scaled(lambda key: jnp.zeros(())), 4, elites=2)
    trainer = models.sequence_trainer(model, optimizer=optax.adam(0.05), updates=UPDATES, batch_size=4, length=3)
    fit, replay = jax.jit(trainer.fit), linear_replay(100)
    params = model.init(KEY)
    opt = trainer.init(params)
    assert opt[0].mu["w"].shape == (4,)
    whole, _, info = fit(KEY, params, opt, replay)
    # Same start, other windows: near the same answer and not the same.
    np.testing.assert_allclose(whole.weights["w"], 0.8, atol=0.1)
    assert len(np.unique(whole.weights["w"])) == 4
    assert (info["updates"], info["skipped"], info["diverged"]) == (UPDATES, 0, 0)

    broken = params._replace(weights={"w": params.weights["w"].at[1].set(jnp.nan)})
    rest, _, info = fit(KEY, broken, opt, replay)
    others = np.array([0, 2, 3])
    np.testing.assert_array_equal(rest.weights["w"][others], whole.weights["w"][others])
    assert (info["skipped"], info["nonfinite_loss"], info["diverged"]) == (UPDATES, UPDATES, 1)
    assert 1 not in rest.stats.elites


def test_elites_are_the_members_of_least_late_loss():
    # A rate of 0 leaves every member where it starts; the best factor is 0.8.
    model = models.ensemble(scaled(lambda key: jnp.zeros(())), 4, elites=2)
    trainer = models.sequence_trainer(model, optimizer=optax.sgd(0.0), updates=8, batch_size=16, length=3)
    params = model.init(KEY)._replace(weights={"w": jnp.array([0.0, 0.7, 3.0, 1.0])})
    after, _, _ = jax.jit(trainer.fit)(KEY, params, trainer.init(params), linear_replay(100))
    np.testing.assert_array_equal(after.stats.elites, [1, 3])
    np.testing.assert_array_equal(after.weights["w"], params.weights["w"])
