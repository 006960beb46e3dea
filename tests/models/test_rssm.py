"""The recurrent latent model: filtering, alignment of rewards with the steps they came from, and learning."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jmbrl import data, models
from jmbrl.models.rssm import RSSMBelief
from jmbrl.types import Continuous, Model, Params, Sequence, Spec, Transition

SPEC = Spec("toy", (1,), Continuous((-1.0,), (1.0,)), 10)
KEY = jax.random.key(0)


def window(batch: int = 3, length: int = 4, firsts=(0,)) -> Sequence:
    rng = np.random.default_rng(0)
    obs = jnp.asarray(rng.normal(size=(batch, length, 1)), jnp.float32)
    action = jnp.asarray(rng.uniform(-1, 1, size=(batch, length, 1)), jnp.float32)
    flag = jnp.zeros((batch, length), bool)
    is_first = flag.at[:, list(firsts)].set(True)
    return Sequence(Transition(obs, action, obs[..., 0] * 2, obs + action, flag, flag), is_first, ~flag)


def small() -> Model:
    return models.rssm(SPEC, deter=8, stoch=3, hidden=16)


def test_the_belief_forgets_at_the_start_of_an_episode_and_remembers_otherwise():
    model = small()
    params = model.init(KEY)
    one, two = RSSMBelief(jnp.ones(8), jnp.ones(3)), RSSMBelief(-jnp.ones(8), jnp.ones(3))
    obs, action = jnp.asarray([0.3]), jnp.asarray([0.7])
    first = [model.encode(KEY, params, b, action, obs, jnp.asarray(True)) for b in (one, two)]
    later = [model.encode(KEY, params, b, action, obs, jnp.asarray(False)) for b in (one, two)]
    np.testing.assert_array_equal(first[0].deter, first[1].deter)
    assert np.abs(later[0].deter - later[1].deter).max() > 0.1


def test_the_loss_does_not_reach_across_an_episodes_end_or_into_masked_rows():
    model = small()
    params = model.init(KEY)
    batch = window(firsts=(0, 2))

    def losses(batch):  # of the second episode's rows alone
        return model.loss(KEY, params, batch._replace(mask=batch.mask.at[:, :2].set(False)))[0]

    touched = batch._replace(transition=batch.transition._replace(obs=batch.transition.obs.at[:, :2].add(5.0)))
    assert losses(batch) == losses(touched)
    masked = batch._replace(mask=batch.mask.at[:, 3].set(False))
    changed = masked._replace(transition=masked.transition._replace(reward=masked.transition.reward.at[:, 3].set(1e3)))
    assert model.loss(KEY, params, masked)[0] == model.loss(KEY, params, changed)[0]


def test_every_row_trains_its_own_step_the_last_of_an_episode_too():
    model = small()
    params = model.init(KEY)
    batch = window(firsts=(0, 2))
    base = model.loss(KEY, params, batch)[0]
    for t in range(4):
        reward = batch.transition.reward.at[:, t].add(3.0)
        assert model.loss(KEY, params, batch._replace(transition=batch.transition._replace(reward=reward)))[0] != base
        following = batch.transition.next_obs.at[:, t].add(3.0)
        moved = batch._replace(transition=batch.transition._replace(next_obs=following))
        assert model.loss(KEY, params, moved)[0] != base


def test_the_reward_belongs_to_the_step_that_earned_it():
    """The reward equals the action just taken: only a head read at the belief that the action led to can know it."""
    rng = np.random.default_rng(1)
    count = 400
    action = rng.uniform(-1, 1, (count, 1))
    obs = np.zeros((count, 1))
    ends = (np.arange(count) % 10) == 9
    replay = data.from_arrays(obs, action, action[:, 0], obs, np.zeros(count, bool), ends)
    model = models.rssm(SPEC, deter=16, stoch=4, hidden=32)
    trainer = models.sequence_trainer(model, optimizer=optax.adam(3e-3), updates=400, batch_size=16, length=8)
    params = model.init(KEY)
    params, _, info = jax.jit(trainer.fit)(KEY, params, trainer.init(params), replay)
    belief = model.encode(KEY, params, model.initial(params), jnp.zeros(1), jnp.zeros(1), jnp.asarray(True))
    keys = jax.random.split(KEY, 50)
    tried = jnp.linspace(-0.9, 0.9, 7)

    def imagined(action):
        return jnp.mean(jax.vmap(lambda k: model.step(k, params, belief, action[None])[1].reward)(keys))

    rewards = jax.vmap(imagined)(tried)
    np.testing.assert_allclose(rewards, tried, atol=0.15)
    assert info["diverged"] == 0


def test_images_are_refused():
    with pytest.raises(ValueError, match="rssm needs a vector observation"):
        models.rssm(Spec("pixels", (8, 8, 3), SPEC.action, 10, obs_dtype="uint8"))
    with pytest.raises(ValueError, match="deter must be at least 1, got 0"):
        models.rssm(SPEC, deter=0)


def test_parameters_are_weights_and_statistics():
    params = small().init(KEY)
    assert isinstance(params, Params)
    assert params.stats.obs.mean.shape == (1,)
