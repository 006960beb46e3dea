"""Behavioural cloning: a policy that does what was demonstrated."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from jmbrl import checks
from jmbrl.health import accept
from jmbrl.learners.policies import policy
from jmbrl.networks import Categorical, Normal
from jmbrl.types import ActionSpace, Array, Key, Learner, PyTree, Transition


class CloningState(NamedTuple):
    """``policy``: the weights of ``learners.policies.policy``, as TRPO and PPO have them. ``opt``: of Adam."""

    policy: PyTree
    opt: PyTree


def cloning(
    action: ActionSpace,
    features: int,
    *,
    hidden: Sequence[int] = (64, 64),
    learning_rate: float | Array = 1e-3,
    activation: Callable[[Array], Array] = jnp.tanh,
    weight_decay: float | Array = 0.0,
) -> Learner:
    r"""Supervised learning of :math:`\pi(s) \approx a` from rows of a demonstration.

    The policy is that of ``learners.trpo`` and ``learners.ppo`` with the same ``hidden`` and ``activation``, so that
    its weights can go on there. Continuous actions: the mean of :math:`(f(s) - a)^2`, :math:`f` the Gaussian's mean;
    beside it one standard deviation per dimension is fitted to the residuals, which exploration draws from (clipped to
    the box). Discrete actions: the cross-entropy of a softmax, from which exploration draws.

    ``update(key, state, batch)`` takes ``Transition[B]`` whose ``obs`` are features ``float32[B, F]`` and reads ``obs``
    and ``action`` alone; ``imitate`` makes many of them. ``act(key, state, features[F], explore)`` gives the action and
    its log-probability (after the clip).

    Args:
      action: any space.
      features: ``F``, the width of the features.
      hidden: widths of the hidden layers.
      learning_rate: of Adam, at least 0.
      activation: of the hidden layers.
      weight_decay: :math:`c` of the penalty :math:`c \sum_l \|W_l\|^2 / 2`, biases excluded; at least 0.

    Returns:
      A ``Learner`` with state ``CloningState``. ``info``: ``loss`` (of the policy alone) and the counters
      ``nonfinite_loss``, ``nonfinite_grad``, ``skipped`` and ``updates``. An update with a number that is not finite
      changes nothing.

    Raises:
      ValueError: a number outside its range.

    Source: Pomerleau 1991, Efficient training of artificial neural networks for autonomous navigation.
    """
    features = checks.integer("features", features, 1)
    hidden = tuple(checks.integer("hidden", width, 1) for width in hidden)
    checks.number("learning_rate", learning_rate, 0.0)
    checks.number("weight_decay", weight_decay, 0.0)
    pi = policy(action, features, hidden=hidden, activation=activation)
    optimizer = optax.adam(learning_rate)

    def init(key: Key) -> CloningState:
        weights = pi.init(key)
        return CloningState(weights, optimizer.init(weights))

    def act(key: Key, state: CloningState, x: Array, explore: bool) -> tuple[Array, Array]:
        checks.same_shape("features", jnp.shape(x)[-1:], (features,), "cloning")
        return pi.act(key, state.policy, x, explore)

    def loss(weights: PyTree, batch: Transition) -> tuple[Array, Array]:
        kernels = [x for x in jax.tree.leaves(weights["net"]) if x.ndim > 1]
        penalty = 0.5 * weight_decay * sum(jnp.sum(x**2) for x in kernels)
        guess = pi.distribution(weights, batch.obs)
        if isinstance(guess, Categorical):
            value = -jnp.mean(guess.log_prob(batch.action))
            return value + penalty, value
        value = jnp.mean((guess.mean - batch.action) ** 2)
        # The spread learns from the residuals and leaves the policy alone.
        around = Normal(jax.lax.stop_gradient(guess.mean), guess.std)
        return value - jnp.mean(around.log_prob(batch.action)) + penalty, value

    def update(key: Key, state: CloningState, batch: Transition) -> tuple[CloningState, dict[str, Array]]:
        del key
        checks.same_shape("obs", batch.obs.shape[1:], (features,), "cloning")
        (total, value), grads = jax.value_and_grad(loss, has_aux=True)(state.policy, batch)
        steps, opt = optimizer.update(grads, state.opt, state.policy)
        new = CloningState(cast(PyTree, optax.apply_updates(state.policy, steps)), opt)
        state, health = accept(new, state, total, grads)
        return state, {"loss": value} | health

    return Learner(init, act, update)


def imitate(
    key: Key,
    learner: Learner,
    state: PyTree,
    demonstration: Transition,
    valid: Array,
    *,
    epochs: int = 100,
    batch_size: int = 128,
) -> tuple[PyTree, dict[str, Array]]:
    """Passes over a demonstration in minibatches, its rows in a new random order each time.

    Args:
      key: consumed.
      learner: ``cloning(...)``, or any that learns from ``Transition[B]`` and reports a ``loss``.
      state: of the learner.
      demonstration: ``Transition[N]``, ``obs`` features.
      valid: ``bool[N]``; the other rows may hold anything.
      epochs: passes over the valid rows.
      batch_size: rows per update; the last batch of a pass begins again at the pass's front.

    Returns:
      The state, unchanged where no row is valid, and ``info``: ``loss`` (mean over the last pass) and the learner's
      counters, summed.

    Raises:
      ValueError: a number outside its range; ``valid`` that is not one flag per row.
    """
    epochs = checks.integer("epochs", epochs, 1)
    batch_size = checks.integer("batch_size", batch_size, 1)
    checks.same_shape("valid", valid.shape, demonstration.action.shape[:1], "demonstration")
    count = jnp.sum(valid, dtype=jnp.int32)
    batches = -(-count // batch_size)
    info = jax.eval_shape(learner.update, key, state, jax.tree.map(lambda x: x[:1], demonstration))[1]
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), info)

    def one_pass(i: Array, loop: tuple) -> tuple:
        key_order, key_update = jax.random.split(jax.random.fold_in(key, i))
        # Valid rows first, at random.
        order = jnp.argsort(jnp.where(valid, jax.random.uniform(key_order, valid.shape), jnp.inf))

        def one(step: Array, loop: tuple) -> tuple:
            state, total = loop
            places = order[(step * batch_size + jnp.arange(batch_size)) % jnp.maximum(count, 1)]
            batch = jax.tree.map(lambda x: x[places], demonstration)
            state, info = learner.update(jax.random.fold_in(key_update, step), state, batch)
            return state, jax.tree.map(jnp.add, total, info)

        state, total, _ = loop
        state, seen = jax.lax.fori_loop(0, batches, one, (state, zeros))
        return state, jax.tree.map(jnp.add, total, seen), seen["loss"] / jnp.maximum(batches, 1)

    state, total, last = jax.lax.fori_loop(0, epochs, one_pass, (state, zeros, zeros["loss"]))
    return state, total | {"loss": last}
