"""The policy and the value that guide a tree search, and how they learn from what it found (AlphaZero, MuZero)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.networks import HyperbolicTwoHot, apply_linear, apply_normed, init_linear, init_normed
from jmbrl.types import ActionSpace, Array, Discrete, Key, PyTree

# Raw actions end where tanh is 0.9993: what is stored as an action can be turned back in float32.
LARGEST = 4.0
LOG_STD = (-3.0, 1.0)


class Thought(NamedTuple):
    """``policy``: ``float32[..., n]`` logits, or ``[..., 2 A]`` the mean and raw log-deviation of a Gaussian before
    tanh. ``value``: ``float32[..., bins]`` logits, or ``[..., 1]`` where there are no bins."""

    policy: Array
    value: Array


class PolicyValue(NamedTuple):
    """A policy and a value that read features.

    Attributes:
      init: ``(key) -> weights``.
      read: ``(weights, features[..., F]) -> Thought``.
      value: ``(thought) -> float32[...]``, in units of the return.
      candidates: ``(key, thought[N]) -> (actions[N, K, A] or None, logits[N, K])``, what a search considers.
      policy_loss: ``(thought, weights[..., K], candidates[..., K, A] or None) -> float32[...]``, the cross-entropy to
        what a search found.
      value_loss: ``(thought, target[...]) -> float32[...]``.
      count: ``K``.
    """

    init: Callable
    read: Callable
    value: Callable
    candidates: Callable
    policy_loss: Callable
    value_loss: Callable
    count: int


def policy_value(
    action: ActionSpace,
    features: int,
    *,
    units: int = 128,
    layers: int = 1,
    bins: int = 601,
    limit: float | Array = 300.0,
    samples: int = 20,
) -> PolicyValue:
    r"""Hidden layers of their own for policy and value; both begin at 0: all moves alike, worth nothing.

    With :math:`w` the search's weights of the candidates :math:`a_k`, and :math:`z` a return,

    .. math:: L_\pi = -\sum_k w_k \log \pi(a_k), \qquad L_v = \mathrm{CE}(v, \phi(h(z))) \text{ or } (\tanh v - z)^2

    Candidates of a discrete space are all its actions. Of a continuous one they are ``samples`` draws of the policy,
    all equally likely to the search, as they were drawn with the policy's own chances (Sampled MuZero with
    :math:`\beta = \pi`).

    Args:
      action: the action space.
      features: ``F``.
      units, layers: of the hidden layers of each.
      bins: of the value (``networks.HyperbolicTwoHot``); 0: a number in ``(-1, 1)``, for games that are won or lost.
      limit: squashed value of the outermost bins.
      samples: ``K`` of a continuous space, at least 2.

    Raises:
      ValueError: a number outside its range; 1 bin.

    Source: Silver et al. 2018; Schrittwieser et al. 2020 (arXiv 1911.08265), appendix F; Hubert et al. 2021 (arXiv
    2104.06303), section 4.
    """
    sizes = (checks.integer("features", features, 1), *[checks.integer("units", units, 1)] * layers)
    samples, bins = checks.integer("samples", samples, 2), checks.integer("bins", bins, 0)
    if bins == 1:
        raise ValueError("bins must be 0 or at least 2, got 1")
    checks.number("limit", limit, 1e-6)
    discrete = isinstance(action, Discrete)
    outputs = action.n if isinstance(action, Discrete) else 2 * action.dim

    def init(key: Key) -> PyTree:
        key_policy, key_value = jax.random.split(key)
        weights = {}
        for name, key_head, size in (("policy", key_policy, outputs), ("value", key_value, bins or 1)):
            key_hidden, key_out = jax.random.split(key_head)
            hidden = init_normed(key_hidden, sizes, "layer") if layers else ()
            weights[name] = {"hidden": hidden, "out": init_linear(key_out, sizes[-1], size, scale=0.0)}
        return weights

    def head(weights: PyTree, x: Array) -> Array:
        return apply_linear(weights["out"], apply_normed(weights["hidden"], x, jax.nn.relu, "layer") if layers else x)

    def read(weights: PyTree, x: Array) -> Thought:
        return Thought(head(weights["policy"], x), head(weights["value"], x))

    def gaussian(thought: Thought) -> tuple[Array, Array]:
        mean, raw = jnp.split(thought.policy, 2, axis=-1)
        low, high = LOG_STD
        return 3.0 * jnp.tanh(mean / 3.0), jnp.exp(low + 0.5 * (high - low) * (jnp.tanh(raw) + 1.0))

    def value(thought: Thought) -> Array:
        return HyperbolicTwoHot(thought.value, limit).mean() if bins else jnp.tanh(thought.value[..., 0])

    def candidates(key: Key, thought: Thought) -> tuple[Array | None, Array]:
        if discrete:
            return None, thought.policy
        mean, std = (x[:, None] for x in gaussian(thought))
        raw = mean + std * jax.random.normal(key, (mean.shape[0], samples, mean.shape[-1]))
        return jnp.tanh(jnp.clip(raw, -LARGEST, LARGEST)), jnp.zeros((mean.shape[0], samples))

    def policy_loss(thought: Thought, weights: Array, candidates: Array | None) -> Array:
        if candidates is None:
            return -jnp.sum(weights * jax.nn.log_softmax(thought.policy), axis=-1)
        mean, std = (x[..., None, :] for x in gaussian(thought))
        deviation = (jnp.arctanh(candidates) - mean) / std
        # Less what does not depend on the policy: the derivative of tanh, and the Gaussian's constant.
        return jnp.sum(weights * jnp.sum(0.5 * deviation**2 + jnp.log(std), axis=-1), axis=-1)

    def value_loss(thought: Thought, target: Array) -> Array:
        if bins:
            return -HyperbolicTwoHot(thought.value, limit).log_prob(target)
        return (value(thought) - target) ** 2

    count = action.n if isinstance(action, Discrete) else samples
    return PolicyValue(init, read, value, candidates, policy_loss, value_loss, count)
