"""A squashed Gaussian policy that proposes actions to a planner (TD-MPC2)."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from jmbrl import checks
from jmbrl.networks.mish_mlp import apply_mish_mlp, init_mish_mlp
from jmbrl.networks.noise import fast_normal
from jmbrl.types import Array, Key, PyTree

_LOG_SQRT_2PI = 0.9189385332046727


class PolicyPrior(NamedTuple):
    """``init(key) -> weights``; ``sample(key, weights, features[..., F]) -> (action[..., A], log_density[...])``, the
    density of the Gaussian before it is squashed; ``mode(weights, features) -> action``."""

    init: Callable
    sample: Callable
    mode: Callable


def policy_prior(
    features: int, actions: int, *, hidden: int = 512, log_std: tuple[float, float] = (-10.0, 2.0)
) -> PolicyPrior:
    r"""A Gaussian through a hyperbolic tangent, whose spread is squashed between two bounds.

    .. math:: a = \tanh(\mu + \sigma \epsilon), \qquad
              \log \sigma = l + \tfrac12 (h - l)(\tanh(s) + 1), \qquad (\mu, s) = f(z)

    ``f`` has two hidden layers of linear, layer norm and Mish.

    Args:
      features, actions: entries of ``z`` and of ``a``.
      hidden: width of the layers.
      log_std: ``l`` and ``h``, ``l < h``.

    Raises:
      ValueError: a size below 1, or bounds in the wrong order.

    Source: Hansen et al. 2024 (TD-MPC2, arXiv 2310.16828), section 3.1 and the released code.
    """
    sizes = (checks.integer("features", features, 1), *2 * [checks.integer("hidden", hidden, 1)], 2 * actions)
    checks.integer("actions", actions, 1)
    low, high = log_std
    if not low < high:
        raise ValueError(f"log_std must be two bounds, the lower first, got {log_std}")

    def outputs(weights: PyTree, x: Array) -> tuple[Array, Array]:
        mean, raw = jnp.split(apply_mish_mlp(weights, x), 2, axis=-1)
        return mean, low + 0.5 * (high - low) * (jnp.tanh(raw) + 1.0)

    def sample(key: Key, weights: PyTree, x: Array) -> tuple[Array, Array]:
        mean, log_scale = outputs(weights, x)
        noise = fast_normal(key, mean.shape)
        log_density = jnp.sum(-0.5 * noise * noise - log_scale - _LOG_SQRT_2PI, axis=-1)
        return jnp.tanh(mean + jnp.exp(log_scale) * noise), log_density

    return PolicyPrior(
        lambda key: init_mish_mlp(key, sizes), sample, lambda weights, x: jnp.tanh(outputs(weights, x)[0])
    )
