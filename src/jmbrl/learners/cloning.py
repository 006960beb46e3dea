"""Behavioural cloning: a policy that does what was demonstrated."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from jmbrl import checks
from jmbrl.health import accept
from jmbrl.networks import MLP, Categorical, Normal
from jmbrl.types import ActionSpace, Array, Continuous, Key, Learner, PyTree, Transition

_LOG_STD = (-5.0, 0.0)


class CloningState(NamedTuple):
    """``policy``: the network's weights. ``log_std``: ``float32[A]``, of the demonstrator around it (continuous)."""

    policy: PyTree
    log_std: Array
    opt: PyTree


def cloning(
    action: ActionSpace,
    features: int,
    *,
    hidden: Sequence[int] = (64, 64),
    learning_rate: float | Array = 1e-3,
    activation: Callable[[Array], Array] = jnp.tanh,
) -> Learner:
    r"""Supervised learning of :math:`\pi(s) \approx a` from rows of a demonstration.

    Continuous actions: :math:`\pi(s) = \tanh f(s)` and the mean of :math:`(\pi(s) - a)^2`; beside it one standard
    deviation per dimension is fitted to the residuals, which exploration draws from (clipped to the box). Discrete
    actions: the cross-entropy of a softmax, from which exploration draws.

    ``update(key, state, batch)`` takes ``Transition[B]`` whose ``obs`` are features ``float32[B, F]`` and reads ``obs``
    and ``action`` alone. ``act(key, state, features[F], explore)`` gives the action and its log-probability (of the
    Gaussian before the clip).

    Args:
      action: any space.
      features: ``F``, the width of the features.
      hidden: widths of the hidden layers.
      learning_rate: of Adam, at least 0.
      activation: of the hidden layers.

    Returns:
      A ``Learner`` with state ``CloningState``. ``info``: ``loss`` (of the policy alone) and the counters
      ``nonfinite_loss``, ``nonfinite_grad``, ``skipped`` and ``updates``. An update with a number that is not finite
      changes nothing.

    Raises:
      ValueError: a number outside its range.

    Source: Pomerleau 1991, Efficient training of artificial neural networks for autonomous navigation.
    """
    features = checks.integer("features", features, 1)
    widths = tuple(checks.integer("hidden", width, 1) for width in hidden)
    checks.number("learning_rate", learning_rate, 0.0)
    size = action.dim if isinstance(action, Continuous) else action.n
    net = MLP(widths, size, activation)
    optimizer = optax.adam(learning_rate)

    def init(key: Key) -> CloningState:
        policy = net.init(key, jnp.zeros(features))
        log_std = jnp.zeros(size if isinstance(action, Continuous) else 0)
        return CloningState(policy, log_std, optimizer.init((policy, log_std)))

    def output(policy: PyTree, x: Array) -> Array:
        return cast(Array, net.apply(policy, x))

    def distribution(policy: PyTree, log_std: Array, x: Array) -> Normal | Categorical:
        if isinstance(action, Continuous):
            mean = jnp.tanh(output(policy, x))
            return Normal(mean, jnp.broadcast_to(jnp.exp(jnp.clip(log_std, *_LOG_STD)), mean.shape))
        return Categorical(output(policy, x))

    def act(key: Key, state: CloningState, x: Array, explore: bool) -> tuple[Array, Array]:
        checks.same_shape("features", jnp.shape(x)[-1:], (features,), "cloning")
        pi = distribution(state.policy, state.log_std, x)
        chosen = pi.sample(key) if explore else pi.mode()
        log_prob = pi.log_prob(chosen)
        return jnp.clip(chosen, -1.0, 1.0) if isinstance(action, Continuous) else chosen, log_prob

    def loss(weights: tuple[PyTree, Array], batch: Transition) -> tuple[Array, Array]:
        pi = distribution(*weights, batch.obs)
        if isinstance(pi, Categorical):
            value = -jnp.mean(pi.log_prob(batch.action))
            return value, value
        value = jnp.mean((pi.mean - batch.action) ** 2)
        # The spread learns from the residuals and leaves the policy alone.
        around = Normal(jax.lax.stop_gradient(pi.mean), pi.std)
        return value - jnp.mean(around.log_prob(batch.action)), value

    def update(key: Key, state: CloningState, batch: Transition) -> tuple[CloningState, dict[str, Array]]:
        del key
        checks.same_shape("obs", batch.obs.shape[1:], (features,), "cloning")
        weights = state.policy, state.log_std
        (total, value), grads = jax.value_and_grad(loss, has_aux=True)(weights, batch)
        steps, opt = optimizer.update(grads, state.opt, weights)
        policy, log_std = cast(tuple, optax.apply_updates(weights, steps))
        new = CloningState(policy, log_std, opt)
        state, health = accept(new, state, total, grads)
        return state, {"loss": value} | health

    return Learner(init, act, update)
