"""PILCO's policy: radial basis functions with a squashed sum, whose action at a Gaussian state is known in moments."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.models import gp_math
from jmbrl.models.cholesky import solve
from jmbrl.models.gaussian_moments import Gaussian, squash, squashed, through
from jmbrl.models.gp_moments import Processes, certain, processes
from jmbrl.types import Array, Continuous, Key

NOISE = 0.01  # standard deviation of the targets: what keeps the weights of centres that coincide finite
JITTER = 1e-6  # variance added to the unsquashed action


class RBFWeights(NamedTuple):
    """``centres[N, F]``, ``targets[N, A]`` (what the unsquashed policy takes there, nearly), ``log_length[A, F]``."""

    centres: Array
    targets: Array
    log_length: Array


class RBFPolicy(NamedTuple):
    """A policy of features ``F``.

    Attributes:
      init: ``(key, features[N, F]) -> RBFWeights``, with the centres there.
      act: ``(weights, features[F]) -> action[A]`` in ``[-1, 1]``.
      moments: ``(weights, Gaussian[F]) -> Moments`` of the action.
    """

    init: Callable
    act: Callable
    moments: Callable


def rbf_policy(
    action: Continuous, features: int, *, centres: int = 10, spread: float = 0.1, lengths: tuple[float, ...] = (1.0,)
) -> RBFPolicy:
    r"""The posterior mean of a Gaussian process through a few free points, squashed into the box.

    .. math:: u(z) = \sigma\Big(\sum_i \alpha_i e^{-\sum_d (z_d - c_{id})^2 / 2 l_d^2}\Big), \quad
              \alpha = (K + 0.01^2 I)^{-1} t, \quad \sigma(v) = (9 \sin v + \sin 3v) / 8

    Centres, targets and length-scales are learned; the process's variance stays 1 and its noise 0.01.

    Args:
      action: a box.
      features: ``F``.
      centres: how many.
      spread: standard deviation of the first targets.
      lengths: the first length-scales, one for all features or one each.

    Raises:
      ValueError: a number outside its range, or lengths that fit no features.

    Source: Deisenroth & Rasmussen 2011 (PILCO), sections 2.2 and 3.2; constants of its code, ``congp`` and ``gSat``.
    """
    space = checks.continuous("rbf_policy", action, "a policy of discrete actions")
    features, centres = checks.integer("features", features, 1), checks.integer("centres", centres, 1)
    checks.number("spread", spread, 0.0)
    if len(lengths) not in (1, features):
        raise ValueError(f"lengths must be one number or one per feature ({features}), got {len(lengths)}")
    lengths = tuple(checks.number("lengths", x, 1e-6) for x in lengths)

    def init(key: Key, at: Array) -> RBFWeights:
        checks.same_shape("features", at.shape, (centres, features), "the policy")
        first = jnp.broadcast_to(jnp.log(jnp.asarray(lengths, at.dtype)), (space.dim, features))
        return RBFWeights(at, spread * jax.random.normal(key, (centres, space.dim), at.dtype), first)

    def act(weights: RBFWeights, z: Array) -> Array:
        given = _functions(weights)
        square = jnp.sum(((given.x - z) / given.length[:, None, :]) ** 2, axis=-1)
        return squash(jnp.sum(given.alpha * jnp.exp(-0.5 * square), axis=1))

    def moments(weights: RBFWeights, at: Gaussian) -> tuple:
        sums = certain(_functions(weights), at)
        spread = sums.covariance + JITTER * jnp.eye(space.dim, dtype=at.mean.dtype)
        return through(sums, squashed(Gaussian(sums.mean, spread)))

    return RBFPolicy(init, act, moments)


def _functions(weights: RBFWeights) -> Processes:
    """The unsquashed policy as processes without uncertainty, one per entry of the action."""
    zero = jnp.zeros((), weights.centres.dtype)

    def alpha(log_length: Array, targets: Array) -> Array:
        k = gp_math.kernel(gp_math.Hyper(log_length, zero, zero), weights.centres, weights.centres)
        factor = jnp.linalg.cholesky(k + NOISE**2 * jnp.eye(len(k), dtype=k.dtype))
        return solve(factor, targets)

    each = jnp.ones(weights.targets.shape[1], weights.centres.dtype)
    alphas = jax.vmap(alpha)(weights.log_length, weights.targets.T)
    return processes(weights.centres, jnp.exp(weights.log_length), each, alphas, None, 0.0 * each, 0.0 * each)
