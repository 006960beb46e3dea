"""The recurrent latent models: filtering, what each frame teaches, and the alignment of rewards with their steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jmbrl import data, models
from jmbrl.data import Frames
from jmbrl.models import RSSMBelief, Scales
from jmbrl.models.multistep import masked_mean
from jmbrl.models.rssm_core import block_gru_memory, gru_memory
from jmbrl.models.rssm_losses import divergence, ends, overshoot
from jmbrl.networks import Normal, OneHotLatents
from jmbrl.types import Continuous, Model, Sequence, Spec, Transition

SPEC = Spec("toy", (1,), Continuous((-1.0,), (1.0,)), 10)
KEY = jax.random.key(0)
FAST = {"xla_backend_optimization_level": 0}
SIGHT = {"units": 16, "layers": 1, "vectors": "normalized"}


def window(batch: int = 3, length: int = 4, firsts=(0,)) -> Sequence:
    rng = np.random.default_rng(0)
    obs = jnp.asarray(rng.normal(size=(batch, length + 1, 1)), jnp.float32)
    action = jnp.asarray(rng.uniform(-1, 1, size=(batch, length, 1)), jnp.float32)
    flag = jnp.zeros((batch, length), bool)
    rows = Transition(obs[:, :-1], action, obs[:, :-1, 0] * 2, obs[:, 1:], flag, flag)
    return Sequence(rows, flag.at[:, list(firsts)].set(True), ~flag)


def small(**options) -> Model:
    return models.rssm(SPEC, **{"deter": 8, "stoch": 3, "hidden": 8, "reward_units": 8, "sight": SIGHT, **options})


@pytest.fixture(scope="module")
def gaussian():
    """A model, its parameters and its compiled loss."""
    model = small(learn_termination=True, free_nats=0.0)
    params = model.init(KEY)
    params.weights["continue"]["out"]["bias"] = jnp.ones(1)  # at 0 both answers cost the same
    return model, params, jax.jit(lambda p, batch: model.loss(KEY, p, batch)[0], compiler_options=FAST)


def test_the_belief_forgets_at_the_start_of_an_episode_and_remembers_otherwise(gaussian):
    model, params, _ = gaussian
    one, two = RSSMBelief(jnp.ones(8), jnp.ones(3)), RSSMBelief(-jnp.ones(8), jnp.ones(3))
    obs, action = jnp.asarray([0.3]), jnp.asarray([0.7])
    first = [model.encode(KEY, params, b, action, obs, jnp.asarray(True)) for b in (one, two)]
    later = [model.encode(KEY, params, b, action, obs, jnp.asarray(False)) for b in (one, two)]
    np.testing.assert_array_equal(first[0].deter, first[1].deter)
    assert np.abs(later[0].deter - later[1].deter).max() > 0.1


def test_the_loss_does_not_reach_across_an_episodes_end_or_into_masked_rows(gaussian):
    _, params, loss = gaussian
    batch = window(firsts=(0, 2))

    def second(batch):  # the second episode alone
        return loss(params, batch._replace(mask=batch.mask.at[:, :2].set(False)))

    rows = batch.transition
    touched = rows._replace(obs=rows.obs.at[:, :2].add(5.0), next_obs=rows.next_obs.at[:, :2].add(5.0))
    assert second(batch) == second(batch._replace(transition=touched))
    masked = batch._replace(mask=batch.mask.at[:, 3].set(False))
    changed = masked._replace(transition=rows._replace(reward=rows.reward.at[:, 3].set(1e3)))
    assert loss(params, masked) == loss(params, changed)


def test_every_step_of_a_window_teaches_and_so_does_an_episodes_last_observation(gaussian):
    _, params, loss = gaussian
    batch = window()
    base = loss(params, batch)
    rows = batch.transition
    for t in range(4):
        for name in ("reward", "action", "next_obs"):
            changed = rows._replace(**{name: getattr(rows, name).at[:, t].add(0.5)})
            assert loss(params, batch._replace(transition=changed)) != base, (name, t)
        ended = rows._replace(terminated=rows.terminated.at[:, t].set(True))
        assert loss(params, batch._replace(transition=ended)) != base
        limit = rows._replace(truncated=rows.truncated.at[:, t].set(True))
        assert loss(params, batch._replace(transition=limit)) == base  # a time limit teaches no end


def test_the_reward_belongs_to_the_step_that_earned_it():
    """The reward equals the action just taken: only a head read at the belief that the action led to can know it."""
    rng = np.random.default_rng(1)
    count = 400
    action = rng.uniform(-1, 1, (count, 1))
    obs = np.zeros((count, 1))
    ends = (np.arange(count) % 10) == 9
    replay = data.from_arrays(obs, action, action[:, 0], obs, np.zeros(count, bool), ends)
    model = small(deter=16, stoch=4, hidden=16, free_nats=0.0)
    trainer = models.sequence_trainer(model, optimizer=optax.adam(5e-3), updates=250, batch_size=16, length=8)
    params = model.init(KEY)
    params, _, info = jax.jit(trainer.fit)(KEY, params, trainer.init(params), replay)
    belief = model.encode(KEY, params, model.initial(params), jnp.zeros(1), jnp.zeros(1), jnp.asarray(True))
    keys = jax.random.split(KEY, 50)
    tried = jnp.linspace(-0.9, 0.9, 7)

    def imagined(action):
        return jnp.mean(jax.vmap(lambda k: model.step(k, params, belief, action[None])[1].reward)(keys))

    np.testing.assert_allclose(jax.vmap(imagined)(tried), tried, atol=0.15)
    assert info["diverged"] == 0


def test_a_given_belief_takes_the_first_frames_place():
    """Filtering on from the belief that filtering reached is filtering the whole."""
    model = small(paths="deterministic")  # draws nothing
    params = model.init(KEY)
    seen, _ = data.frames(window())
    watch = jax.jit(model.watch, compiler_options=FAST)
    whole = watch(KEY, params, seen, None)
    middle = jax.tree.map(lambda x: x[:, 2], whole.beliefs)
    rest = watch(KEY, params, jax.tree.map(lambda x: x[:, 2:], seen), middle)
    for a, b in zip(rest.beliefs, whole.beliefs, strict=True):
        np.testing.assert_allclose(a, b[:, 3:], atol=1e-6)
    assert rest.frames.mask.shape == (3, 2)


def test_paths_leave_out_the_memory_or_the_draws():
    obs, action, no = jnp.asarray([0.3]), jnp.asarray([0.7]), jnp.asarray(False)
    model = small(paths="stochastic")
    params = model.init(KEY)
    seen = [model.encode(KEY, params, RSSMBelief(m * jnp.ones(8), jnp.ones(3)), action, obs, no) for m in (-1.0, 1.0)]
    np.testing.assert_array_equal(seen[0].deter, seen[1].deter)
    assert model.features(params, seen[0]).shape == (3,)
    for options in ({"classes": 4}, {}):
        model = small(paths="deterministic", **options)
        params = model.init(KEY)
        draws = [model.encode(jax.random.key(i), params, model.initial(params), action, obs, no) for i in range(2)]
        np.testing.assert_array_equal(draws[0].stoch, draws[1].stoch)


def test_continuations_are_taught_smoothed_and_imagined_without_the_smoothing():
    """A logit whose chance is 0.9 of a target of 1 - 0.1: certain."""
    model = small(learn_termination=True, end_smoothing=0.1)
    params = model.init(KEY)
    params.weights["continue"]["out"]["bias"] = jnp.asarray([np.log(0.45 / 0.55)], jnp.float32)
    _, outcome = model.step(KEY, params, model.initial(params), jnp.zeros(1))
    np.testing.assert_allclose(outcome.discount, 0.5, rtol=1e-5)
    frames = Frames(None, None, None, jnp.asarray([[False, True]]), None, None)
    logit = jnp.full((1, 2), np.log(0.9 / 0.1))
    expected = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1)), -np.log(0.1)
    np.testing.assert_allclose(ends(logit, frames, 0.1)[0], expected, rtol=1e-5)


def test_a_divergence_is_balanced_and_free_up_to_a_number():
    """Unit Gaussians at distances 1 and 3: 0.5 and 4.5 nats; two are free, frame by frame or of the mean."""
    seen = Normal(jnp.asarray([[[1.0], [3.0]]]), jnp.ones((1, 2, 1)))
    prior = Normal(jnp.zeros((1, 2, 1)), jnp.ones((1, 2, 1)))
    mask, scales = jnp.ones((1, 2), bool), Scales(dynamics=0.8, representation=0.2)
    losses, info = divergence(seen, prior, mask, scales, 2.0, False)
    np.testing.assert_allclose(losses["dynamics"], 0.8 * (2.0 + 4.5) / 2, rtol=1e-6)
    np.testing.assert_allclose(losses["representation"], 0.2 * (2.0 + 4.5) / 2, rtol=1e-6)
    np.testing.assert_allclose(info["kl"], 2.5, rtol=1e-6)
    losses, _ = divergence(seen, prior, mask, scales, 2.0, True)
    np.testing.assert_allclose(losses["dynamics"], 0.8 * 2.5, rtol=1e-6)
    assert masked_mean(jnp.asarray([[1.0, jnp.nan]]), jnp.asarray([[True, False]])) == 1.0

    def total(means, name):
        p, q = means
        return divergence(Normal(q, seen.std), Normal(p, seen.std), mask, scales, 0.0, False)[0][name]

    # Each half teaches its own side: d/dp of (q - p)^2 / 2 is p - q, as a mean over two frames.
    to_prior, to_seen = jax.grad(total)((prior.mean, seen.mean), "dynamics")
    np.testing.assert_allclose(to_prior[0, :, 0], [-0.4, -1.2], rtol=1e-6)
    assert not np.any(to_seen)
    to_prior, to_seen = jax.grad(total)((prior.mean, seen.mean), "representation")
    assert not np.any(to_prior)
    np.testing.assert_allclose(to_seen[0, :, 0], [0.1, 0.3], rtol=1e-6)


def test_looking_further_ahead_starts_at_beliefs_and_stops_at_an_episodes_end():
    """A prior that adds the action to the belief: two steps ahead of frame 0 is 0 + a_1 + a_2, at a unit variance."""
    actions = jnp.asarray([[0.0, 1.0, 2.0, 0.0, 5.0]])[..., None]
    flags = jnp.zeros((1, 5), bool)
    frames = Frames(actions, actions, actions[..., 0], flags, flags.at[0, 3].set(True), ~flags)
    beliefs = jnp.asarray([[[0.0], [10.0], [20.0], [30.0], [40.0]]])
    seen = Normal(beliefs, jnp.ones_like(beliefs))

    def ahead(key, belief, action):
        del key
        return belief + action, Normal(belief + action, jnp.ones_like(belief))

    # Only frame 2 is two steps from a frame of its episode: 0 + 1 + 2 against 20.
    cost = overshoot(KEY, ahead, beliefs, seen, frames, 2, 0.0)
    np.testing.assert_allclose(cost, 0.5 * 17.0**2, rtol=1e-6)


def test_a_gated_memory_by_hand():
    """PlaNet's unit with every weight 0 but the candidate's bias: half of the old, half of tanh(1)."""
    memory = gru_memory(2, 1, 1, 3, jax.nn.relu)
    weights = jax.tree.map(jnp.zeros_like, memory.init(KEY))
    weights["candidate"]["bias"] = jnp.ones(2)
    belief = RSSMBelief(jnp.asarray([0.4, -0.4]), jnp.ones(1))
    new = memory.recur(weights, belief, memory.prepare(weights, jnp.ones(1)))
    np.testing.assert_allclose(new, 0.5 * np.tanh(1) + 0.5 * np.array([0.4, -0.4]), rtol=1e-6)


def test_dreamer_v3s_memory_against_numpy():
    deter, stoch, actions, hidden, blocks = 6, 2, 1, 3, 2
    memory = block_gru_memory(deter, stoch, actions, hidden, blocks)
    weights = memory.init(KEY)
    rng = np.random.default_rng(0)
    weights = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), weights)
    h, z, a = rng.normal(size=deter), rng.normal(size=stoch), rng.normal(size=actions)
    w = jax.tree.map(lambda x: np.asarray(x, np.float64), weights)
    silu = lambda x: x / (1 + np.exp(-x))  # noqa: E731
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    norm = lambda scale, x: scale * x / np.sqrt(np.mean(x**2) + 1e-4)  # noqa: E731
    seen = []
    for name, x in (("deter", h), ("stoch", z), ("action", a)):
        (layer,) = w[name]
        seen.append(silu(norm(layer["norm"]["scale"], x @ layer["kernel"] + layer["bias"])))
    common = np.concatenate(seen)
    y = np.concatenate([h[3 * g : 3 * g + 3] @ w["own"]["kernel"][g] for g in range(blocks)])
    y = silu(norm(w["norm"]["scale"], y + common @ w["common"]["kernel"] + w["common"]["bias"]))
    new = []
    for g in range(blocks):
        block = slice(3 * g, 3 * g + 3)
        out = y[block] @ w["gates"]["kernel"][g] + w["gates"]["bias"][9 * g : 9 * g + 9]
        reset, candidate, update = sigmoid(out[:3]), out[3:6], sigmoid(out[6:] - 1)
        new.append(update * np.tanh(reset * candidate) + (1 - update) * h[block])
    belief = RSSMBelief(jnp.asarray(h, jnp.float32), jnp.asarray(z, jnp.float32))
    found = memory.recur(weights, belief, memory.prepare(weights, jnp.asarray(a, jnp.float32)))
    np.testing.assert_allclose(found, np.concatenate(new), rtol=1e-4, atol=1e-5)


def test_a_decoder_apart_learns_and_teaches_nothing():
    model = small(scales={"reconstruction": 0.0, "dynamics": 0.0, "representation": 0.0, "reward": 0.0})
    slope = jax.jit(jax.grad(lambda w, p: model.loss(KEY, p._replace(weights=w), window())[0]), compiler_options=FAST)
    params = model.init(KEY)
    found = slope(params.weights, params)
    taught = {name: any(np.any(x) for x in jax.tree.leaves(found[name])) for name in ("memory", "posterior", "prior")}
    assert not any(taught.values())
    assert any(np.any(x) for x in jax.tree.leaves(found["codec"]["decoder"]))
    assert not any(np.any(x) for x in jax.tree.leaves(found["codec"]["encoder"]))


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="deter must be at least 1, got 0"):
        small(deter=0)
    with pytest.raises(ValueError, match="deter must be a multiple of blocks=3, got 8"):
        small(memory_kind="block_gru", blocks=3)
    with pytest.raises(ValueError, match="memory must be one of gru"):
        small(memory_kind="lstm")
    with pytest.raises(ValueError, match="paths must be one of both"):
        small(paths="none")
    assert isinstance(OneHotLatents(jnp.zeros((2, 3))).stop(), OneHotLatents)
