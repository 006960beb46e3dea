"""The policies that Dreamer's actors learn: three Gaussians for a box, a softmax for choices."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.networks import (
    Categorical,
    Normal,
    TanhNormal,
    TruncatedNormal,
    apply_linear,
    apply_normed,
    init_linear,
    init_normed,
)
from jmbrl.types import ActionSpace, Array, Continuous, Key, PyTree

Actions = Categorical | Normal | TanhNormal | TruncatedNormal
POLICIES = ("tanh_normal", "truncated_normal", "bounded_normal")
_SOFTPLUS_IS_5 = 4.993239  # softplus of it is 5


class ActorNetwork(NamedTuple):
    """``init(key) -> weights`` and ``distribution(weights, features[..., F])``, of actions ``[...]``."""

    init: Callable
    distribution: Callable


def actor_network(
    action: ActionSpace,
    features: int,
    *,
    policy: str,
    layers: int,
    units: int,
    norm: str,
    activation: Callable[[Array], Array],
    scale: float,
) -> ActorNetwork:
    r"""Hidden layers and one of these, with ``m`` and ``s`` the outputs:

    - ``"tanh_normal"`` (Dreamer v1): :math:`\tanh N(5 \tanh(m / 5), \operatorname{softplus}(s + 4.99) + 10^{-4})`;
    - ``"truncated_normal"`` (v2): a Gaussian cut to the box, of mean :math:`\tanh m` and standard deviation
      :math:`2 \operatorname{sigmoid}(s / 2) + 0.1`;
    - ``"bounded_normal"`` (v3): :math:`N(\tanh m, 0.9 \operatorname{sigmoid}(s + 2) + 0.1)`, which the world clips;
    - discrete actions: a softmax, whatever ``policy`` says.

    Args:
      action: any. features: entries it reads.
      layers, units, norm, activation: of the hidden layers, as in ``networks.init_normed``.
      scale: of the last layer's weights at the start.

    Raises:
      ValueError: another policy, or a size below 1.
    """
    kind = checks.choice("policy", policy, POLICIES) if isinstance(action, Continuous) else "categorical"
    outputs = 2 * action.dim if isinstance(action, Continuous) else action.n
    widths = (checks.integer("features", features, 1), *[checks.integer("units", units, 1)] * layers)

    def init(key: Key) -> PyTree:
        key_hidden, key_out = jax.random.split(key)
        out = init_linear(key_out, widths[-1], outputs, scale=scale)
        return {"hidden": init_normed(key_hidden, widths, norm), "out": out}

    def distribution(weights: PyTree, x: Array) -> Actions:
        out = apply_linear(weights["out"], apply_normed(weights["hidden"], x, activation, norm))
        if kind == "categorical":
            return Categorical(out)
        mean, raw = jnp.split(out, 2, axis=-1)
        if kind == "bounded_normal":
            return Normal(jnp.tanh(mean), 0.9 * jax.nn.sigmoid(raw + 2.0) + 0.1)
        if kind == "truncated_normal":
            return TruncatedNormal(jnp.tanh(mean), 2.0 * jax.nn.sigmoid(raw / 2.0) + 0.1)
        return TanhNormal(5.0 * jnp.tanh(mean / 5.0), jax.nn.softplus(raw + _SOFTPLUS_IS_5) + 1e-4)

    return ActorNetwork(init, distribution)


def entropy_of(pi: Actions) -> Array:
    """Of a squashed Gaussian, which has no closed form, the Gaussian's before the squash (v1 uses none)."""
    return Normal(pi.mean, pi.std).entropy() if isinstance(pi, TanhNormal) else pi.entropy()
