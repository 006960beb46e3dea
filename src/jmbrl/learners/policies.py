"""The stochastic policies of learners, and how an on-policy learner reads them and a value from its batch."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp

from jmbrl.learners.advantages import flat
from jmbrl.networks import MLP, Categorical, ClippedNormal, TanhNormal, orthogonal
from jmbrl.types import ActionSpace, Array, Continuous, Key, PyTree, Transition

# A narrower policy is float32 rounding around its mean; a wider one only ever hits the borders.
LOG_STD = (-7.0, 3.0)
# Of a squashed one: narrower than 4.5e-5 the sample minus the mean is float32 rounding and its log-probability noise.
SQUASHED_LOG_STD = (-10.0, 2.0)
_HIDDEN, _SMALL, _ONE = (orthogonal(scale) for scale in (2.0**0.5, 0.01, 1.0))


class Policy(NamedTuple):
    """``init(key) -> weights``, ``distribution(weights, features[..., F])`` and
    ``act(key, weights, features[F], explore) -> (action, log_prob)``."""

    init: Callable
    distribution: Callable
    act: Callable


def policy(
    action: ActionSpace,
    features: int,
    *,
    hidden: Sequence[int],
    activation: Callable[[Array], Array] = jnp.tanh,
    initial_std: float | Array = 1.0,
) -> Policy:
    r"""A Gaussian :math:`N(f(s), \sigma^2)` clipped to the box, or a softmax of :math:`f(s)`.

    :math:`\sigma` is one learned number per dimension, whatever the state, in units of the box ``[-1, 1]``. As in the
    papers' code the Gaussian is not squashed and the world clips it; the probabilities here are those of the action
    after the clip (``networks.ClippedNormal``), because the clipped action is what data hold and models learn from.
    """
    continuous = isinstance(action, Continuous)
    size = action.dim if isinstance(action, Continuous) else action.n
    net = MLP(tuple(hidden), size, activation, kernel_init=_HIDDEN, final_init=_SMALL)

    def init(key: Key) -> PyTree:
        weights = {"net": net.init(key, jnp.zeros(features))}
        log_std = jnp.full(size, jnp.log(jnp.asarray(initial_std, jnp.float32)))
        return weights | {"log_std": log_std} if continuous else weights

    def distribution(weights: PyTree, x: Array) -> ClippedNormal | Categorical:
        out = cast(Array, net.apply(weights["net"], x))
        if not continuous:
            return Categorical(out)
        return ClippedNormal(out, jnp.broadcast_to(jnp.exp(jnp.clip(weights["log_std"], *LOG_STD)), out.shape))

    def act(key: Key, weights: PyTree, x: Array, explore: bool) -> tuple[Array, Array]:
        pi = distribution(weights, x)
        chosen = pi.sample(key) if explore else pi.mode()
        chosen = chosen if continuous else chosen.astype(jnp.int32)
        return chosen, pi.log_prob(chosen)

    return Policy(init, distribution, act)


def squashed_policy(
    dim: int,
    features: int,
    *,
    hidden: Sequence[int],
    activation: Callable[[Array], Array] = jax.nn.relu,
    initial_std: float | Array = 1.0,
) -> Policy:
    r"""SAC's: :math:`\tanh N(\mu(s), \sigma(s)^2)` in ``dim`` dimensions, one network for both.

    ``initial_std``: about what :math:`\sigma` is at first, above 0. ``act`` samples, or takes the mode where not
    ``explore``.
    """
    net = MLP(tuple(hidden), 2 * dim, activation, kernel_init=jax.nn.initializers.glorot_uniform())

    def init(key: Key) -> PyTree:
        return net.init(key, jnp.zeros(features))

    def distribution(weights: PyTree, x: Array) -> TanhNormal:
        mean, log_std = jnp.split(cast(Array, net.apply(weights, x)), 2, axis=-1)
        return TanhNormal(mean, jnp.exp(jnp.clip(log_std + jnp.log(initial_std), *SQUASHED_LOG_STD)))

    def act(key: Key, weights: PyTree, x: Array, explore: bool) -> tuple[Array, Array]:
        pi = distribution(weights, x)
        if explore:
            return pi.sample_and_log_prob(key)
        mode = pi.mode()
        return mode, pi.log_prob(mode)

    return Policy(init, distribution, act)


def value_net(hidden: Sequence[int], activation: Callable[[Array], Array] = jnp.tanh) -> MLP:
    """The network of a state's value; its last axis of size 1 is to be dropped."""
    return MLP(tuple(hidden), 1, activation, kernel_init=_HIDDEN, final_init=_ONE)


class ActorCritic(NamedTuple):
    """A policy and a value function, and how they read a batch of paths.

    Attributes:
      init: ``(key) -> (policy, value)``, weights.
      act: ``(key, policy, x, explore) -> (action, log_prob)``, of what the policy reads in one state.
      judge: ``(weights, rows: Transition[T, B], past) -> (log_prob, value, next_value)``, ``[T, B]`` each.
      pieces: ``(tree[T, B, ...]) -> tree``: what minibatches are drawn from, numbered along ``axis``.
      axis: of the pieces' leaves.
      read: ``(weights, obs, past) -> (distribution, value)`` of some pieces.
    """

    init: Callable
    act: Callable
    judge: Callable
    pieces: Callable
    axis: int
    read: Callable


def actor_critic(
    action: ActionSpace,
    features: int,
    *,
    hidden: Sequence[int],
    activation: Callable[[Array], Array] = jnp.tanh,
    initial_std: float | Array = 1.0,
) -> ActorCritic:
    """Two networks that share nothing and read one observation: there is no past, and every row is a piece."""
    pi = policy(action, features, hidden=hidden, activation=activation, initial_std=initial_std)
    net = value_net(hidden, activation)

    def init(key: Key) -> tuple[PyTree, PyTree]:
        key_policy, key_value = jax.random.split(key)
        return pi.init(key_policy), net.init(key_value, jnp.zeros(features))

    def value_of(weights: PyTree, x: Array) -> Array:
        return cast(Array, net.apply(weights, x))[..., 0]

    def read(weights: tuple[PyTree, PyTree], obs: Array, past: None) -> tuple[ClippedNormal | Categorical, Array]:
        del past
        return pi.distribution(weights[0], obs), value_of(weights[1], obs)

    def judge(weights: tuple[PyTree, PyTree], rows: Transition, past: None) -> tuple[Array, Array, Array]:
        now, value = read(weights, rows.obs, past)
        return now.log_prob(rows.action), value, value_of(weights[1], rows.next_obs)

    return ActorCritic(init, pi.act, judge, flat, 0, read)
