"""An ensemble of distributional action values: a softmax over bins each, evaluated as one batched matmul."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.networks.mish_mlp import apply_mish_mlp, init_mish_mlp
from jmbrl.networks.symlog_two_hot import SymlogTwoHot
from jmbrl.types import Array, Key, PyTree


class QEnsemble(NamedTuple):
    """Functions of the ensemble's weights, leaves ``[members, ...]``; rows have any leading axes.

    Attributes:
      init: ``(key) -> weights``.
      logits: ``(weights, features[..., F], action[..., A], key) -> float32[members, ..., bins]``; without a key
        (None) nothing is dropped.
      pair: ``(key, weights) -> weights`` of two members, chosen at random.
      value: ``(logits) -> float32[...]``, what they say in units of the reward.
      error: ``(logits, target) -> float32[...]``, the cross-entropy against ``target[...]``.
    """

    init: Callable
    logits: Callable
    pair: Callable
    value: Callable
    error: Callable


def q_ensemble(
    features: int,
    actions: int,
    *,
    hidden: int = 512,
    members: int = 5,
    bins: int = 101,
    limit: float | Array = 10.0,
    dropout: float | Array = 0.01,
) -> QEnsemble:
    r"""Values as distributions over bins of the symlog of a return.

    .. math:: Q(z, a) = \operatorname{symexp}\Big(\sum_k \operatorname{softmax}(f(z, a))_k\, b_k\Big), \qquad
              b_k \text{ even in } [-\mathrm{limit}, \mathrm{limit}]

    Two hidden layers (linear, dropout in the first, layer norm, Mish); the last begins at 0, so every value does.

    Args:
      features, actions: entries of ``z`` and of ``a``.
      hidden: width of the layers.
      members: networks, at least 2.
      bins: at least 2.
      limit: largest symlog of a return, above 0; 10 is a return of 22,025.
      dropout: share of the first layer dropped in training, in ``[0, 1)``.

    Raises:
      ValueError: a number outside its range.

    Source: Hansen et al. 2024 (TD-MPC2, arXiv 2310.16828), section 3.1 and the released code.
    """
    sizes = [checks.integer("features", features, 1) + checks.integer("actions", actions, 1)]
    sizes += 2 * [checks.integer("hidden", hidden, 1)] + [checks.integer("bins", bins, 2)]
    members = checks.integer("members", members, 2)
    checks.number("limit", limit, 1e-6)
    checks.number("dropout", dropout, 0.0, 0.999)

    def init(key: Key) -> PyTree:
        return jax.vmap(lambda key: init_mish_mlp(key, sizes, zero=True))(jax.random.split(key, members))

    def logits(weights: PyTree, x: Array, action: Array, key: Key | None = None) -> Array:
        rows = jnp.concatenate([x, action], axis=-1)
        if key is None:
            return jax.vmap(apply_mish_mlp, in_axes=(0, None))(weights, rows)
        count = jax.tree.leaves(weights)[0].shape[0]
        one = lambda layers, key: apply_mish_mlp(layers, rows, dropout=dropout, key=key)  # noqa: E731
        return jax.vmap(one)(weights, jax.random.split(key, count))

    def pair(key: Key, weights: PyTree) -> PyTree:
        chosen = jax.random.permutation(key, members)[:2]
        return jax.tree.map(lambda x: x[chosen], weights)

    return QEnsemble(
        init,
        logits,
        pair,
        lambda logits: SymlogTwoHot(logits, limit).mean(),
        lambda logits, target: -SymlogTwoHot(logits, limit).log_prob(target),
    )
