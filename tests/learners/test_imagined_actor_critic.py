"""Dreamer's actor and critic on made-up models whose returns and gradients are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl.data import Frames
from jmbrl.learners import behaviour
from jmbrl.learners.return_scale import ReturnScale
from jmbrl.types import Continuous, Discrete, Outcome

KEY = jax.random.key(0)
BOX = Continuous((-1.0,), (1.0,))
FAST = {"xla_backend_optimization_level": 0}
PLAIN = {
    "layers": 1, "units": 4, "norm": "none", "critic": "normal", "entropy": 0.0, "normalise": False, "slow_weight": 0.0,
    "actor_scale": 0.0,
}  # fmt: skip


def outcome(reward, discount):
    return Outcome(reward, discount, jnp.zeros((*reward.shape, 0)), jnp.zeros(reward.shape, bool))


def counting(key, beliefs, actions):
    """From belief 0: rewards 1, 2, 3 and continuations 1, 0.5, 1."""
    del key, actions
    return beliefs + 1, outcome(beliefs[:, 0] + 1, jnp.where(beliefs[:, 0] == 1, 0.5, 1.0))


def run(learner, weights, step_many, beliefs, alive=None):
    alive = jnp.ones(len(beliefs)) if alive is None else alive
    memory = learner.remember(weights)
    look = lambda belief: belief  # noqa: E731
    return learner.losses(KEY, weights, memory, step_many, look, beliefs, alive)


def test_an_imagined_reward_belongs_to_the_step_that_earned_it():
    """By hand with gamma 0.9, lambda 0.5, values 0: R_2 = 3, R_1 = 2 + 0.9 * 0.5 * 0.5 * 3, R_0 = 1 + 0.9 * 0.5 R_1."""
    learner = behaviour(BOX, 1, horizon=3, gamma=0.9, lam=0.5, **PLAIN)
    weights = learner.init(KEY)
    losses, imagined, info = run(learner, weights, counting, jnp.zeros((2, 1)))
    returns = np.array([1 + 0.45 * 2.675, 2.675, 3.0])
    np.testing.assert_allclose(imagined.returns, np.full(2, 2.20375), rtol=1e-6)
    # A row counts as far as it happens: 1, then 0.9, then 0.9 * 0.9 * 0.5.
    weight = np.array([1.0, 0.9, 0.405])
    np.testing.assert_allclose(losses["critic"], np.mean(weight * 0.5 * returns**2), rtol=1e-6)
    np.testing.assert_allclose(info["imagined_reward"], 2.0, rtol=1e-6)
    # From where the world has ended nothing is learned.
    halved, _, _ = run(learner, weights, counting, jnp.zeros((2, 1)), jnp.asarray([1.0, 0.0]))
    np.testing.assert_allclose(halved["critic"], losses["critic"] / 2, rtol=1e-6)


def test_values_bootstrap_the_last_step_wholly_and_reward_scale_multiplies_rewards_alone():
    learner = behaviour(BOX, 1, horizon=2, gamma=0.5, lam=0.0, reward_scale=10.0, **PLAIN)
    weights = learner.init(KEY)
    weights["critic"]["out"]["bias"] = jnp.asarray([4.0])  # v = 4 everywhere
    _, imagined, _ = run(learner, weights, counting, jnp.zeros((1, 1)))
    np.testing.assert_allclose(imagined.returns, [10.0 * 1 + 0.5 * 4.0], rtol=1e-6)
    learner = behaviour(BOX, 1, horizon=2, gamma=0.5, lam=1.0, reward_scale=10.0, **PLAIN)
    _, imagined, _ = run(learner, weights, counting, jnp.zeros((1, 1)))
    np.testing.assert_allclose(imagined.returns, [10.0 + 0.5 * (20.0 + 0.25 * 4.0)], rtol=1e-6)


def test_backpropagation_through_the_model_is_exact_for_a_linear_reward():
    """The reward is 3 a, so the actor's loss falls by 3 for each unit of its mean, whatever was drawn."""
    step = lambda key, beliefs, actions: (beliefs, outcome(3.0 * actions[:, 0], jnp.ones(len(actions))))  # noqa: E731
    learner = behaviour(BOX, 1, horizon=1, dynamics=1.0, **PLAIN)
    weights = learner.init(KEY)
    weights["actor"]["out"]["bias"] = jnp.asarray([0.0, -30.0])  # standard deviation 0.1: never at the border
    slope = jax.grad(lambda w: run(learner, w, step, jnp.zeros((8, 1)))[0]["actor"])(weights)
    np.testing.assert_allclose(slope["actor"]["out"]["bias"][0], -3.0, rtol=1e-5)
    assert not np.any(slope["critic"]["out"]["bias"])


def test_the_score_function_estimates_the_same_slope():
    """Two actions at even chances, the second pays 1: the derivative of the mean reward by the logits is -+1/4."""
    step = lambda key, beliefs, actions: (beliefs, outcome(actions.astype(jnp.float32), jnp.ones(len(actions))))  # noqa: E731
    learner = behaviour(Discrete(2), 1, horizon=1, **PLAIN)
    weights = learner.init(KEY)
    slope = jax.grad(lambda w: run(learner, w, step, jnp.zeros((20_000, 1)))[0]["actor"])(weights)
    np.testing.assert_allclose(slope["actor"]["out"]["bias"], [0.25, -0.25], atol=0.012)


def test_returns_are_divided_by_their_range_once_it_exceeds_one():
    """A range of 100 moves a hundredth towards that of the batch, here 0: 99."""
    learner = behaviour(Discrete(2), 1, horizon=1, **{**PLAIN, "normalise": True})
    step = lambda key, beliefs, actions: (beliefs, outcome(jnp.full(len(actions), 7.0), jnp.ones(len(actions))))  # noqa: E731
    weights = learner.init(KEY)
    memory = learner.remember(weights)._replace(scale=ReturnScale(jnp.float32(-50.0), jnp.float32(50.0)))
    look = lambda belief: belief  # noqa: E731
    _, imagined, info = learner.losses(KEY, weights, memory, step, look, jnp.zeros((4, 1)), jnp.ones(4))
    np.testing.assert_allclose(info["return_range"], 99.0, rtol=1e-5)
    np.testing.assert_allclose(info["advantage_size"], 7.0 / 99.0, rtol=1e-5)
    assert learner.settle(memory, weights, imagined).scale == imagined.scale


@pytest.mark.parametrize("dynamics", [0.0, 1.0])
def test_nothing_reaches_the_model_or_the_beliefs_that_imagination_starts_from(dynamics):
    learner = behaviour(BOX, 1, horizon=2, dynamics=dynamics, **{**PLAIN, "actor_scale": 1.0})
    weights = learner.init(KEY)

    def total(beliefs, slope):
        fixed = jax.lax.stop_gradient(slope)  # as the agent hands its model over

        def step(key, beliefs, actions):
            following = beliefs + fixed * actions
            return following, outcome(following[:, 0], jnp.ones(len(actions)))

        return sum(run(learner, weights, step, beliefs)[0].values())

    gradients = jax.jit(jax.grad(total, argnums=(0, 1)), compiler_options=FAST)(jnp.ones((3, 1)), jnp.float32(2.0))
    assert not any(np.any(g) for g in gradients)


def test_real_rewards_teach_the_critic_up_to_where_an_episode_ends():
    """Five frames, the third the last of its episode (a time limit), the fourth another's first.

    With gamma 0.5, lambda 1 and imagined returns 8: frame 0 earns 1, then 2, then 8 at the cut:
    R_0 = 1 + 0.5 (2 + 0.5 * 8), R_1 = 2 + 0.5 * 8; frame 2 leads nowhere; frame 3 earns 4 and the world ends.
    """
    learner = behaviour(BOX, 1, gamma=0.5, lam=1.0, **PLAIN)
    weights = learner.init(KEY)
    flags = lambda *places: jnp.zeros((1, 5), bool).at[0, jnp.asarray(places, int)].set(True)  # noqa: E731
    frames = Frames(
        obs=jnp.zeros((1, 5, 1)),
        action=jnp.zeros((1, 5, 1)),
        reward=jnp.asarray([[0.0, 1.0, 2.0, 0.0, 4.0]]),
        terminated=flags(4),
        is_first=flags(3),
        mask=jnp.ones((1, 5), bool),
    )
    loss = learner.replayed(weights, learner.remember(weights), jnp.zeros((1, 5, 1)), frames, jnp.full((1, 5), 8.0))
    returns = np.array([1 + 0.5 * 6.0, 6.0, 4.0])
    np.testing.assert_allclose(loss, 0.5 * np.sum(returns**2) / 4, rtol=1e-6)
    broken = frames._replace(mask=frames.mask.at[0, 1].set(False))
    loss = learner.replayed(weights, learner.remember(weights), jnp.zeros((1, 5, 1)), broken, jnp.full((1, 5), 8.0))
    np.testing.assert_allclose(loss, 0.5 * 4.0**2 / 4, rtol=1e-6)


def test_the_slow_critic_follows_a_little_each_time_or_wholly_now_and_then():
    weights = {"actor": (), "critic": {"w": jnp.asarray(10.0)}}
    for rate, every, after in ((0.02, 1, [0.2, 0.396]), (1.0, 2, [0.0, 10.0])):
        learner = behaviour(BOX, 1, slow_rate=rate, slow_every=every)
        memory = learner.remember({"critic": {"w": jnp.asarray(0.0)}})
        for wanted in after:
            memory = learner.settle(memory, weights, _Imagined())
            np.testing.assert_allclose(memory.slow["w"], wanted, rtol=1e-6)


class _Imagined:
    scale = ReturnScale(0.0, 0.0)


def test_a_slow_target_and_a_slow_pull_use_the_slow_critic():
    options = {**PLAIN, "slow_weight": 2.0, "slow_target": True}
    learner = behaviour(BOX, 1, horizon=1, gamma=0.5, **options)
    weights = learner.init(KEY)
    memory = learner.remember(weights)
    slow = memory.slow | {"out": {"kernel": jnp.zeros((4, 1)), "bias": jnp.asarray([6.0])}}
    look = lambda belief: belief  # noqa: E731
    step = lambda key, beliefs, actions: (beliefs, outcome(jnp.ones(len(actions)), jnp.ones(len(actions))))  # noqa: E731
    losses, imagined, _ = learner.losses(
        KEY, weights, memory._replace(slow=slow), step, look, jnp.zeros((2, 1)), jnp.ones(2)
    )
    np.testing.assert_allclose(imagined.returns, 1.0 + 0.5 * 6.0, rtol=1e-6)
    np.testing.assert_allclose(losses["critic"], 0.5 * 4.0**2 + 2.0 * 0.5 * 6.0**2, rtol=1e-6)


def test_policies_explore_inside_the_box_and_are_calm_otherwise():
    for policy in ("tanh_normal", "truncated_normal", "bounded_normal"):
        learner = behaviour(BOX, 1, policy=policy, **PLAIN)
        weights = learner.init(KEY)
        act = jax.jit(jax.vmap(lambda k, w=weights, a=learner.act: a(k, w, jnp.zeros(1), True)), compiler_options=FAST)
        drawn = act(jax.random.split(KEY, 200))
        assert np.abs(drawn).max() <= 1.0
        assert drawn.std() > 0.4
        np.testing.assert_allclose(learner.act(KEY, weights, jnp.zeros(1), False), [0.0], atol=1e-6)


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="dynamics must be 0 for discrete actions"):
        behaviour(Discrete(2), 3, dynamics=1.0)
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        behaviour(BOX, 3, horizon=0)
    with pytest.raises(ValueError, match="lam must be at most 1"):
        behaviour(BOX, 3, lam=1.5)
    with pytest.raises(ValueError, match="policy must be one of tanh_normal"):
        behaviour(BOX, 3, policy="beta")
