"""PILCO's objective: the cost of a policy in a Gaussian-process model, the whole distribution of states propagated."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.learners.rbf_policy import RBFPolicy, RBFWeights
from jmbrl.learners.saturating_cost import SaturatingCost
from jmbrl.models.gaussian_moments import Gaussian, affine, joined, trigonometric
from jmbrl.models.gp_moments import Processes, predict
from jmbrl.types import Array, Spec


class Expectation(NamedTuple):
    """``mean[H, D]`` and ``covariance[H, D, D]`` of the states after each step, and ``cost[H]``."""

    mean: Array
    covariance: Array
    cost: Array


def long_term(policy: RBFPolicy, cost: Callable, angles: tuple[int, ...], horizon: int) -> Callable:
    r"""The expected states and costs of a policy: ``(weights, processes, start: Gaussian) -> Expectation``.

    .. math:: J = \sum_{t=1}^H E[c(x_t)], \quad p(x_0) = N(\mu_0, \Sigma_0), \quad p(x_{t+1}) \approx
              N\big(E[x_t + f(z_t, u_t)], \operatorname{cov}[x_t + f(z_t, u_t)]\big), \quad u_t = \pi(z_t)

    with ``z`` the state and its angles' sines and cosines. Each of the approximations replaces a distribution by the
    Gaussian of its mean and covariance, which are exact.

    Args:
      policy: of the features ``z``.
      cost: ``(before[D + A], after[D], joint) -> float``; see ``saturating`` and ``expected``.
      angles: entries of the state that are angles.
      horizon: ``H``, steps.

    Returns:
      A function to be differentiated by ``weights``, backwards; the processes are constants.

    Source: Deisenroth & Rasmussen 2011 (PILCO), sections 2.2 and 2.3; its code, ``propagate`` and ``value``.
    """
    horizon = checks.integer("horizon", horizon, 1)

    def advance(weights: RBFWeights, given: Processes, state: Gaussian) -> tuple[Gaussian, Array]:
        dim = len(state.mean)
        features = dim + len(angles)
        joint = joined(state, slice(dim), trigonometric(angles, state))
        seen = slice(dim, dim + features)
        joint = joined(joint, seen, policy.moments(weights, part(joint, seen)))
        known = slice(dim, len(joint.mean))
        joint = joined(joint, known, predict(given, part(joint, known), fixed=True))
        # [state, action, next state]: the processes tell the change.
        rows = jnp.eye(len(joint.mean), dtype=joint.mean.dtype)
        following = rows[:dim] + rows[-dim:]
        picked = jnp.concatenate([rows[:dim], rows[dim + features : -dim], following])
        step = affine(picked, 0.0, joint)
        covariance = 0.5 * (step.covariance + step.covariance.T)
        row = Gaussian(step.mean, covariance)
        after = part(row, slice(len(step.mean) - dim, None))
        return after, cost(row, after)

    def expect(weights: RBFWeights, given: Processes, start: Gaussian) -> Expectation:
        def body(state: Gaussian, _: None) -> tuple[Gaussian, Expectation]:
            after, value = advance(weights, given, state)
            return after, Expectation(*after, value)

        return jax.lax.scan(body, start, None, length=horizon)[1]

    return expect


def part(joint: Gaussian, entries: slice) -> Gaussian:
    """The marginal of some entries."""
    return Gaussian(joint.mean[entries], joint.covariance[entries, entries])


def saturating(cost: SaturatingCost, angles: tuple[int, ...]) -> Callable:
    """The exact mean of a saturating cost of the next state's features: ``(row, after) -> float``."""

    def mean(row: Gaussian, after: Gaussian) -> Array:
        del row
        seen = trigonometric(angles, after)
        return cost.moments(Gaussian(seen.mean, seen.covariance))[0]

    return mean


def expected(reward: Callable, spec: Spec) -> Callable:
    r"""Minus the mean of any reward ``(obs, action, next_obs)``, by cubature: ``(row, after) -> float``.

    .. math:: E[r(y)] \approx \frac{1}{2n} \sum_{i=1}^n r(m \pm \sqrt{n} L e_i), \quad y = (x, u, x') \sim N(m, L L^T)

    Exact for polynomials of degree 3. The covariance is singular where the action is a function of the state: a
    millionth of each variance is added.

    Source: Arasaratnam & Haykin 2009, cubature Kalman filters, equation 32.
    """
    dim, actions = spec.obs_shape[0], spec.action.shape[0]

    def mean(row: Gaussian, after: Gaussian) -> Array:
        del after
        more = 1e-6 * jnp.diag(jnp.diagonal(row.covariance)) + 1e-12 * jnp.eye(len(row.mean))
        factor = jnp.linalg.cholesky(row.covariance + more)
        away = jnp.sqrt(len(row.mean)) * factor.T
        points = jnp.concatenate([row.mean + away, row.mean - away])
        before, action, following = jnp.split(points, [dim, dim + actions], axis=1)
        return -jnp.mean(jax.vmap(reward)(before, jnp.clip(action, -1.0, 1.0), following)).astype(row.mean.dtype)

    return mean
