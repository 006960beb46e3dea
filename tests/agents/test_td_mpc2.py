"""TD-MPC2: targets and weights by hand, who learns from what, the schedule, and a line whose best return is known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import agents, learners, models
from jmbrl.agents.td_mpc2 import discount, improvement
from jmbrl.agents.td_mpc2_update import JointLearner, Learned, joint_learner, moved
from jmbrl.models import DecoderFree, Unrolled
from jmbrl.train import make_train
from jmbrl.types import Agent, Continuous, Discrete, Params, Sequence, Spec, Transition

from worlds import line

SPEC = Spec("box", (2,), Continuous((-1.0,), (1.0,)), 20)
SIZES: dict = {"latent": 8, "group": 4, "encoder_hidden": 6, "hidden": 6, "bins": 5}
SMALL = agents.TDMPC2Config(
    latent=16, encoder_hidden=16, hidden=32, critics=2, learning_rate=3e-3, batch_size=32, population=48, proposals=8,
    elites=8, iterations=3, temperature=5.0, gamma=0.9, tau=0.05, limit=4.0, bins=41, warmup=100, capacity=300,
)  # fmt: skip
FAST = {"xla_backend_optimization_level": 0}
KEY = jax.random.key(0)


def test_two_hundred_steps_suffice_on_the_line():
    """At best -0.04, doing nothing -6.7, random actions about -24 (see test_mbpo.py); the last ones still explore."""
    train = make_train(line(), agents.td_mpc2(line(), SMALL), 200)
    _, history = jax.jit(train, compiler_options=FAST)(KEY)
    returns = history["episode_return"][~np.isnan(history["episode_return"])]
    assert np.mean(returns[:5]) < -20
    assert np.mean(returns[-3:]) > -1.2, returns
    np.testing.assert_array_equal(history["learner/updates"], [100.0] + [1.0] * 99)
    np.testing.assert_array_equal(history["learner/skipped"], np.zeros(100))
    assert history["learner/consistency_loss"][-1] < history["learner/consistency_loss"][0]


# ------------------------------------------------------------------------------------- one update


def rows(reward, terminated=False, truncated=False):
    """One window of one row."""
    one = lambda x: jnp.asarray([[x]])  # noqa: E731
    obs = jnp.ones((1, 1, 2))
    row = Transition(obs, jnp.zeros((1, 1, 1)), one(reward), obs, one(terminated), one(truncated))
    return Sequence(row, one(True), one(True))


def fixed_latents(latents, alive):
    """A model without weights worth the name, whose windows are these latents ``[T + 1, B]`` wide."""
    wide = jnp.asarray(latents)[..., None] * jnp.ones(8)
    real = models.decoder_free_parts(SPEC, **SIZES)

    def unroll(weights, batch):
        row = jax.tree.map(lambda x: jnp.broadcast_to(jnp.swapaxes(x, 0, 1), (len(alive), 1, *x.shape[2:])), batch)
        return Unrolled(wide, wide[1:], row.transition, jnp.asarray(alive))

    model = real.model._replace(init=lambda key: Params({"encoder": jnp.zeros(1)}, ()))
    return DecoderFree(model, unroll, lambda weights, path: (jnp.zeros(()), {}), real.average)


def ensemble(start, logits, error):
    """Two members; the logits are the values."""
    return learners.QEnsemble(lambda key: jnp.asarray(start), logits, lambda key, w: w, lambda x: x, error)


def policy(log_density):
    """Always 0, with a log-density that is its one weight above ``log_density``."""
    sample = lambda key, w, x: (jnp.zeros((*x.shape[:-1], 3)), jnp.full(x.shape[:-1], log_density) + w[0])  # noqa: E731
    return learners.PolicyPrior(lambda key: jnp.zeros(1), sample, lambda w, x: x)


def test_targets_bootstrap_from_the_lower_slow_value_unless_the_world_ended():
    """Slow values of 6 and 4, whatever is asked; the error is the target itself."""
    say = lambda w, x, action, key: w[:, None, None] * jnp.ones(x.shape[:-1])  # noqa: E731
    q = ensemble([100.0, 200.0], say, lambda logits, target: target[None])
    learner = joint_learner(fixed_latents([[1.0], [1.0]], [[True]]), q, policy(0.0), 3, gamma=0.5, tau=0.25)
    learned = learner.init(KEY)._replace(targets=jnp.asarray([6.0, 4.0]))
    update = jax.jit(learner.update, compiler_options=FAST)
    for row, target in (
        (rows(3.0), 3.0 + 0.5 * 4.0),
        (rows(3.0, truncated=True), 3.0 + 0.5 * 4.0),
        (rows(3.0, terminated=True), 3.0),
    ):
        after, info = update(KEY, learned, row)
        np.testing.assert_allclose(info["value_loss"], target, rtol=1e-6)
    np.testing.assert_allclose(after.targets, [6 + 0.25 * 94, 4 + 0.25 * 196], rtol=1e-4)


def test_the_policys_loss_by_hand():
    """Values are the latents' first entry: 2, 4 and 8 (and 100, masked). The spread of one value is 0, so S is 1."""
    parts = fixed_latents([[2.0], [4.0], [8.0], [100.0]], [[True], [True], [False]])
    say = lambda w, x, action, key: w[:, None, None] * x[..., 0]  # noqa: E731
    q = ensemble([1.0, 1.0], say, lambda logits, target: 0.0 * logits)
    learner = joint_learner(parts, q, policy(-1.5), 3, gamma=0.9, entropy_scale=0.1)
    learned = learner.init(KEY)
    after, info = jax.jit(learner.update, compiler_options=FAST)(KEY, learned, rows(0.0))
    gains = np.asarray([2.0, 4.0, 8.0, 0.0]) + 0.1 * 3 * 1.5 * np.asarray([1, 1, 1, 0])
    np.testing.assert_allclose(info["policy_loss"], -np.sum(gains * 0.5 ** np.arange(4)) / 4, rtol=1e-5)
    np.testing.assert_allclose([info["value"], info["entropy"]], [14 / 3, 1.5], rtol=1e-6)
    assert after.policy[0] < 0  # a lower density is more entropy
    np.testing.assert_array_equal(after.critics, learned.critics)


@pytest.fixture(scope="module")
def updated():
    """One update of everything, and one where only the policy's loss has weight: before, after, after."""

    def build(scale):
        off = {"consistency_scale": 20.0 * scale, "reward_scale": scale}
        parts = models.decoder_free_parts(SPEC, **SIZES, **off)
        q, pi = learners.q_ensemble(8, 1, hidden=6, members=2, bins=5), learners.policy_prior(8, 1, hidden=6)
        return joint_learner(parts, q, pi, 1, gamma=0.9, learning_rate=1e-3, value_scale=scale, tau=0.01)

    learned = jax.jit(build(1.0).init, compiler_options=FAST)(KEY)
    # Values that differ between actions, so that the policy has something to follow.
    last = learned.critics[-1] | {"kernel": jax.random.normal(KEY, learned.critics[-1]["kernel"].shape)}
    learned = learned._replace(critics=(*learned.critics[:-1], last))
    batch = jax.tree.map(lambda x: jnp.repeat(x, 4, axis=0), rows(3.0))
    batch = batch._replace(transition=batch.transition._replace(obs=jax.random.normal(KEY, (4, 1, 2))))
    update = jax.jit(lambda scale: build(scale).update(KEY, learned, batch), compiler_options=FAST)
    return learned, *update(1.0), update(0.0)[0]


def largest_change(before, after):
    return max(float(jnp.max(jnp.abs(a - b))) for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True))


def test_the_policys_loss_reaches_neither_values_nor_model(updated):
    before, _, _, alone = updated
    assert largest_change(before.params, alone.params) == 0
    assert largest_change(before.critics, alone.critics) == 0
    assert largest_change(before.policy, alone.policy) > 1e-4


def test_the_encoder_learns_more_slowly_and_slow_values_follow(updated):
    """Adam's first step is as long as the learning rate, however small the gradient."""
    before, after, info, _ = updated
    weights = before.params.weights, after.params.weights
    np.testing.assert_allclose(largest_change(*(x["encoder"] for x in weights)), 0.3e-3, rtol=0.01)
    np.testing.assert_allclose(largest_change(*(x["dynamics"] for x in weights)), 1e-3, rtol=0.01)
    np.testing.assert_allclose(largest_change(before.critics, after.critics), 1e-3, rtol=0.01)
    slow = jax.tree.map(lambda old, new: 0.99 * old + 0.01 * new, before.targets, after.critics)
    assert largest_change(slow, after.targets) < 1e-7
    assert info["updates"] == 1
    assert info["skipped"] == 0


def test_the_spread_by_hand():
    values = jnp.arange(101.0)
    np.testing.assert_allclose(moved(jnp.ones(()), values, values >= 0, 0.01), 1 + 0.01 * 89)  # 95 - 5
    np.testing.assert_allclose(moved(jnp.asarray(3.0), 0.001 * values, values >= 0, 0.5), 2.0)  # at least 1
    assert moved(jnp.ones(()), values, values < 1, 0.5) == 1.0


# ------------------------------------------------------------------------------------- the system


@pytest.mark.parametrize(("num_envs", "updates", "total"), [(2, 3, 36 + 3 * 6), (1, 0.5, 6 + 3)])
def test_the_steps_of_the_warmup_are_made_up_for_at_once(num_envs, updates, total):
    """A learner that only counts its updates: 12 steps of warm-up, then 8 of training."""
    nothing = jnp.zeros(())

    def update(key, learned, batch):
        assert batch.mask.shape == (4, 3)
        return learned._replace(spread=learned.spread + 1), {"updates": jnp.ones(()), "seen": learned.spread}

    start = Learned(Params((), ()), (), (), (), nothing, ((), ()))
    phase = improvement(JointLearner(lambda key: start, update), 4, 3, updates, 12)
    agent = agents.td_mpc2(line(), SMALL)

    def init(key, count):
        return agent.init(key, count)._replace(learned=start)

    act = lambda *arguments: (jnp.zeros(1), (), {})  # noqa: E731
    counting = Agent(init, lambda state: (), act, agent.record, (phase,), 12)
    run, history = jax.jit(make_train(line(), counting, 20, num_envs), compiler_options=FAST)(KEY)
    assert run.agent.learned.spread == total
    assert history["learner/updates"].sum() == total


def test_the_discount_follows_from_the_episodes_length():
    np.testing.assert_allclose([discount(x) for x in (4, 50, 200, 500, 5000)], [0.95, 0.95, 0.975, 0.99, 0.995])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"critics": 1}, "members must be at least 2, got 1"),
        ({"latent": 12}, "latent must be a multiple of group=8, got 12"),
        ({"elites": 600}, "elites must be at most 512, got 600"),
        ({"gamma": 1.5}, "gamma must be at most 1.0, got 1.5"),
        ({"warmup": 2}, "warmup must be at least 3, got 2"),
        ({"updates": 1.5}, "updates must be a whole number or 1 divided by one, got 1.5"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        agents.td_mpc2(line(), agents.TDMPC2Config(**change))


def test_discrete_actions_and_images_are_refused():
    env = line()
    with pytest.raises(ValueError, match=r"td_mpc2 needs continuous actions, got Discrete.*; use dreamer_v3"):
        agents.td_mpc2(env._replace(spec=dataclasses.replace(env.spec, action=Discrete(3))))
    with pytest.raises(ValueError, match="td_mpc2 needs a vector observation"):
        agents.td_mpc2(env._replace(spec=dataclasses.replace(env.spec, obs_shape=(4, 4, 3), obs_dtype="uint8")))
