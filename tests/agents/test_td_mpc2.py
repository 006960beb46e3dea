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
from jmbrl.rollout import evaluate
from jmbrl.train import make_train
from jmbrl.types import Agent, Continuous, Discrete, Params, Sequence, Spec, Transition

from worlds import line

SPEC = Spec("box", (2,), Continuous((-1.0,), (1.0,)), 20)
SIZES = {"latent": 8, "group": 4, "encoder_hidden": 6, "hidden": 6, "bins": 5}
SMALL = agents.TDMPC2Config(
    latent=16, encoder_hidden=16, hidden=32, critics=2, learning_rate=3e-3, batch_size=32, population=48, proposals=8,
    elites=8, iterations=3, gamma=0.9, tau=0.05, warmup=60, capacity=300,
)  # fmt: skip
FAST = {"xla_backend_optimization_level": 0}
KEY = jax.random.key(0)


def test_a_hundred_and_forty_steps_suffice_on_the_line():
    """At best -0.04, doing nothing -6.7, random actions about -24 (see test_mbpo.py)."""
    env = line()
    agent = agents.td_mpc2(env, SMALL)
    train = make_train(env, agent, 140)

    @jax.jit
    def run(key):
        state, history = train(key)
        return history, evaluate(jax.random.fold_in(key, 7), env, agent, state.agent, 30)["returns"]

    history, returns = run(jax.random.key(1))
    assert np.mean(returns) > -0.7, returns
    np.testing.assert_array_equal(history["learner/updates"], [60.0] + [1.0] * 79)
    np.testing.assert_array_equal(history["learner/skipped"], np.zeros(80))
    assert history["learner/consistency_loss"][-1] < history["learner/consistency_loss"][0]


# ------------------------------------------------------------------------------------- one update


def rows(reward, terminated=False, truncated=False):
    """One window of one row."""
    one = lambda x: jnp.asarray([[x]])  # noqa: E731
    obs = jnp.ones((1, 1, 2))
    row = Transition(obs, jnp.zeros((1, 1, 1)), one(reward), obs, one(terminated), one(truncated))
    return Sequence(row, one(True), one(True))


def known_values(values, targets):
    """An ensemble whose members' values are numbers; its error is the target itself."""
    say = lambda weights, x, action, key: weights[(...,) + (None,) * (x.ndim - 1)] * jnp.ones(x.shape[:-1])  # noqa: E731
    q = learners.QEnsemble(
        lambda key: jnp.asarray(values), say, lambda key, w: w, lambda x: x, lambda logits, target: target[None]
    )
    return q, jnp.asarray(targets)


@pytest.mark.parametrize(
    ("row", "target"),
    [
        (rows(3.0), 3.0 + 0.5 * 4.0),
        (rows(3.0, truncated=True), 3.0 + 0.5 * 4.0),
        (rows(3.0, terminated=True), 3.0),
    ],
)
def test_targets_bootstrap_from_the_lower_slow_value_unless_the_world_ended(row, target):
    q, slow = known_values([100.0, 200.0], [6.0, 4.0])
    parts = models.decoder_free_parts(SPEC, **SIZES)
    learner = joint_learner(parts, q, learners.policy_prior(8, 1, hidden=6), 1, gamma=0.5, tau=0.25)
    learned = learner.init(KEY)._replace(targets=slow)
    after, info = jax.jit(learner.update, compiler_options=FAST)(KEY, learned, row)
    np.testing.assert_allclose(info["value_loss"], target, rtol=1e-6)
    np.testing.assert_allclose(after.targets, [6 + 0.25 * 94, 4 + 0.25 * 196], rtol=1e-4)


def test_the_policys_loss_by_hand():
    """Values are the latents' first entry: 2, 4 and 8 (and 100, masked). The spread of one value is 0, so S is 1."""
    latents = jnp.asarray([2.0, 4.0, 8.0, 100.0])[:, None, None] * jnp.ones((4, 1, 8))
    alive = jnp.asarray([[True], [True], [False]])
    row = jax.tree.map(lambda x: jnp.repeat(x, 3, axis=0), rows(0.0).transition)
    real = models.decoder_free_parts(SPEC, **SIZES)
    parts = DecoderFree(
        real.model,
        lambda weights, batch: Unrolled(latents, latents[1:], row, alive),
        lambda weights, path: (jnp.zeros(()), {}),
        real.average,
    )
    q = learners.QEnsemble(
        lambda key: jnp.ones(2), lambda w, x, action, key: w[:, None, None] * x[..., 0], lambda key, w: w,
        lambda x: x, lambda logits, target: 0.0 * logits,
    )  # fmt: skip
    policy = learners.PolicyPrior(
        lambda key: jnp.zeros(1),
        lambda key, w, x: (jnp.zeros((*x.shape[:-1], 3)), jnp.full(x.shape[:-1], -1.5) + w[0]),
        lambda w, x: x,
    )
    learner = joint_learner(parts, q, policy, 3, gamma=0.9, entropy_scale=0.1, rho=0.5)
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

    def once(scale):
        off = {"consistency_scale": 20.0 * scale, "reward_scale": scale}
        parts = models.decoder_free_parts(SPEC, **SIZES, **off)
        q, pi = learners.q_ensemble(8, 1, hidden=6, members=2, bins=5), learners.policy_prior(8, 1, hidden=6)
        learner = joint_learner(parts, q, pi, 1, gamma=0.9, learning_rate=1e-3, value_scale=scale, tau=0.01)
        learned = learner.init(KEY)
        # Values that differ between actions, so that the policy has something to follow.
        last = learned.critics[-1] | {"kernel": jax.random.normal(KEY, learned.critics[-1]["kernel"].shape)}
        learned = learned._replace(critics=(*learned.critics[:-1], last))
        batch = jax.tree.map(lambda x: jnp.repeat(x, 4, axis=0), rows(3.0))
        batch = batch._replace(transition=batch.transition._replace(obs=jax.random.normal(KEY, (4, 1, 2))))
        return learned, *jax.jit(learner.update, compiler_options=FAST)(KEY, learned, batch)

    return *once(1.0), once(0.0)[1]


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


@pytest.mark.parametrize(
    ("num_envs", "updates", "total"), [(1, 1, 12 + 7), (2, 1, 12 + 3 * 2), (1, 0.5, 6 + 3), (2, 3, 36 + 3 * 6)]
)
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
    with pytest.raises(ValueError, match="td_mpc2 needs continuous actions, got Discrete.*; use dreamer_v3"):
        agents.td_mpc2(env._replace(spec=dataclasses.replace(env.spec, action=Discrete(3))))
    with pytest.raises(ValueError, match="td_mpc2 needs a vector observation"):
        agents.td_mpc2(env._replace(spec=dataclasses.replace(env.spec, obs_shape=(4, 4, 3), obs_dtype="uint8")))
