"""What guides a search: zero at first, candidates that can be stored, losses by hand, values from far bins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmbrl import learners
from jmbrl.networks import HyperbolicTwoHot
from jmbrl.networks.hyperbolic_two_hot import expand, squash
from jmbrl.types import Continuous, Discrete

KEY = jax.random.key(0)
MOVES, BOX = Discrete(3), Continuous((-1.0, -1.0), (1.0, 1.0))


@pytest.mark.parametrize("bins", [0, 11])
@pytest.mark.parametrize("action", [MOVES, BOX])
def test_at_first_all_moves_are_alike_and_worth_nothing(action, bins):
    reader = learners.policy_value(action, 4, units=8, bins=bins, samples=5)
    thought = reader.read(reader.init(KEY), jnp.ones((2, 4)))
    np.testing.assert_array_equal(reader.value(thought), [0.0, 0.0])
    candidates, logits = reader.candidates(KEY, thought)
    np.testing.assert_array_equal(logits, np.zeros((2, reader.count)))
    assert (candidates is None) == (action is MOVES)
    if candidates is not None:
        assert candidates.shape == (2, 5, 2)
        assert np.all(np.abs(candidates) < 1)


def test_losses_worked_by_hand():
    reader = learners.policy_value(MOVES, 4, bins=0)
    thought = learners.Thought(jnp.log(jnp.asarray([0.5, 0.25, 0.25])), jnp.asarray([jnp.arctanh(0.5)]))
    want = -(0.5 * np.log(0.5) + 0.5 * np.log(0.25))
    np.testing.assert_allclose(reader.policy_loss(thought, jnp.asarray([0.5, 0.5, 0.0]), None), want, rtol=1e-6)
    np.testing.assert_allclose(reader.value_loss(thought, 1.0), 0.25, rtol=1e-6)


def test_a_gaussian_learns_where_the_weighted_candidates_lie():
    reader = learners.policy_value(BOX, 1, samples=2)
    candidates, weights = jnp.tanh(jnp.asarray([[0.5, -1.0], [9.0, 9.0]]).clip(-4, 4)), jnp.asarray([1.0, 0.0])

    def loss(mean):
        return reader.policy_loss(learners.Thought(jnp.concatenate([mean, jnp.zeros(2)]), None), weights, candidates)

    best = 3.0 * np.arctanh(np.asarray([0.5, -1.0]) / 3.0)  # means are bent so that none leaves [-3, 3]
    np.testing.assert_allclose(jax.grad(loss)(jnp.asarray(best, jnp.float32)), 0.0, atol=1e-4)
    assert loss(jnp.asarray(best)) < loss(jnp.zeros(2))


def test_squashed_numbers():
    np.testing.assert_allclose(squash(jnp.asarray([0.0, 3.0, -8.0])), [0.0, 1.003, -2.008], rtol=1e-6)
    x = jnp.asarray([-5e4, -3.0, -1e-4, 0.0, 1e-6, 0.7, 475.0, 6e4])
    np.testing.assert_allclose(expand(squash(x)), x, rtol=2e-6)


def test_a_number_between_two_bins_is_read_back():
    bins = HyperbolicTwoHot(jnp.zeros(5), 2.0)  # -2 -1 0 1 2, squashed
    assert bins.mean() == 0.0
    target = expand(jnp.asarray(1.25))
    want = np.log(5.0)  # equal logits: any target costs the same
    np.testing.assert_allclose(-bins.log_prob(target), want, rtol=1e-6)
    logits = jnp.log(jnp.asarray([1e-30, 1e-30, 1e-30, 0.75, 0.25]))
    np.testing.assert_allclose(HyperbolicTwoHot(logits, 2.0).mean(), target, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"bins": 1}, "bins must be 0 or at least 2"), ({"samples": 1}, "samples must be at least 2")],
)
def test_bad_settings_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        learners.policy_value(BOX, 4, **options)
