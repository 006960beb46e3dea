"""Better linear-Gaussian controllers along a trajectory, no further from given ones than a divergence allows."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.models.local_linear import LinearGaussian
from jmbrl.types import Array


class Quadratic(NamedTuple):
    """Costs near a trajectory, of ``d = (x, u) - centre_t``: ``value_t + slope_t d + d hessian_t d / 2``.

    ``value[T]``, ``slope[T, D]``, ``hessian[T, D, D]``, ``centre[T, D]``.
    """

    value: Array
    slope: Array
    hessian: Array
    centre: Array


class LocalTask(NamedTuple):
    """A linear-quadratic problem over ``T`` steps.

    Attributes:
      dynamics: ``x_{t+1}`` given ``(x_t, u_t)``.
      cost: to be minimised.
      mean, covariance: of the first ``x``, ``[X]`` and ``[X, X]``.
    """

    dynamics: LinearGaussian
    cost: Quadratic
    mean: Array
    covariance: Array


def trajectory_update(
    task: LocalTask,
    previous: LinearGaussian,
    step: float | Array,
    *,
    eta: float | Array = 1.0,
    low: float = 1e-8,
    high: float = 1e16,
    tolerance: float = 0.1,
    iterations: int = 50,
) -> tuple[LinearGaussian, dict[str, Array]]:
    r"""The controllers of least expected cost within a divergence of the previous ones.

    .. math:: \min_p \; E_p \Big[ \sum_t \ell_t(x_t, u_t) \Big] \quad \text{where} \quad
              E_p \Big[ \sum_t KL\big(p(u_t | x_t) \,\|\, q(u_t | x_t)\big) \Big] \le \epsilon

    For a multiplier :math:`\eta` of the constraint it is the linear-quadratic regulator of
    :math:`\ell_t - \eta \log q(u_t | x_t)`, with :math:`u = K x + k + N(0, \eta Q_{uu}^{-1})`. The multiplier is
    searched in logarithms: above a divergence that is too small it falls to
    :math:`\max(\sqrt{\eta_{\min} \eta_{\max}}, 0.1 \eta_{\max})`, else it rises to
    :math:`\min(\sqrt{\eta_{\min} \eta_{\max}}, 10 \eta_{\min})`, until the divergence is the wanted one within the
    tolerance. One that leaves some :math:`Q_{uu}` without a Cholesky factor is too small. Where even the least allows
    less than the constraint, or the search ends early, the smallest found that keeps the constraint is taken.

    Args:
      task: dynamics, costs and start.
      previous: ``q``, whose covariances must be positive definite.
      step: :math:`\epsilon`, nats over the whole trajectory, positive.
      eta: where the search begins.
      low, high: its range.
      tolerance: share of ``step``.
      iterations: at most so many.

    Returns:
      The controllers, ``previous`` where nothing kept the constraint, and ``info``: ``kl`` (nats, 0 where nothing was
      found), ``eta`` and ``found`` (1 or 0).

    Raises:
      ValueError: a number outside its range.

    Source: Levine & Abbeel 2014, section 3; the search is that of the authors' code (cbfinn/gps).
    """
    checks.number("step", step, 1e-12)
    checks.number("eta", eta, 0.0)
    low = checks.number("low", low, 1e-30)
    high = checks.number("high", high, low)
    tolerance = checks.number("tolerance", tolerance, 0.0)
    iterations = checks.integer("iterations", iterations, 1)
    here, reference = _centred(task, previous)

    def searching(loop: tuple) -> Array:
        i, _, least, most, _, done = loop
        return ~done & (i < iterations) & (most > 1.001 * least)

    def look(loop: tuple) -> tuple:
        i, eta, least, most, best, _ = loop
        candidate, positive = _regulator(here, reference, eta)
        kl = trajectory_kl(candidate, reference, *marginals(here, candidate))
        kl = jnp.where(positive & jnp.isfinite(kl), kl, jnp.inf)
        better = (kl <= (1.0 + tolerance) * step) & (eta <= best[1])
        best = jax.tree.map(lambda a, b: jnp.where(better, a, b), (candidate, eta, kl), best)
        least, most = jnp.where(kl > step, eta, least), jnp.where(kl > step, most, eta)
        middle = jnp.sqrt(least) * jnp.sqrt(most)
        following = jnp.where(kl > step, jnp.minimum(middle, 10.0 * least), jnp.maximum(middle, 0.1 * most))
        return i + 1, following, least, most, best, jnp.abs(kl - step) <= tolerance * step

    bounds = jnp.asarray(low, jnp.float32), jnp.asarray(high, jnp.float32)
    start = jnp.clip(jnp.asarray(eta, jnp.float32), *bounds)
    nothing = (reference, jnp.asarray(jnp.inf), jnp.zeros(()))
    loop = (jnp.zeros((), jnp.int32), start, *bounds, nothing, jnp.asarray(False))
    best, least_eta, kl = jax.lax.while_loop(searching, look, loop)[4]
    found = jnp.isfinite(least_eta)
    centre, size = task.cost.centre, task.mean.shape[0]
    offset = centre[:, size:] + best.offset - jnp.einsum("tij,tj->ti", best.matrix, centre[:, :size])
    new = LinearGaussian(best.matrix, offset, best.covariance)
    new = jax.tree.map(lambda a, b: jnp.where(found, a, b), new, previous)
    info = {"kl": kl, "eta": jnp.where(found, least_eta, start), "found": found.astype(jnp.float32)}
    return new, info


def expected_cost(task: LocalTask, controller: LinearGaussian) -> Array:
    """What the controller is expected to cost over the trajectory, a scalar."""
    here, controller = _centred(task, controller)
    mean, covariance = marginals(here, controller)
    cost = task.cost
    second = covariance + mean[:, :, None] * mean[:, None, :]
    return jnp.sum(cost.value) + jnp.sum(cost.slope * mean) + 0.5 * jnp.sum(cost.hessian * second)


def marginals(task: LocalTask, controller: LinearGaussian) -> tuple[Array, Array]:
    """Mean ``[T, D]`` and covariance ``[T, D, D]`` of ``(x, u)`` at each step."""

    def body(now: tuple[Array, Array], row: tuple[LinearGaussian, LinearGaussian]) -> tuple[tuple, tuple]:
        (x, spread), (controller, dynamics) = now, row
        both = jnp.concatenate([x, controller.matrix @ x + controller.offset])
        across = controller.matrix @ spread
        acted = across @ controller.matrix.T + controller.covariance
        joint = jnp.block([[spread, across.T], [across, acted]])
        after = dynamics.matrix @ joint @ dynamics.matrix.T + dynamics.covariance
        return (dynamics.matrix @ both + dynamics.offset, 0.5 * (after + after.T)), (both, joint)

    return jax.lax.scan(body, (task.mean, task.covariance), (controller, task.dynamics))[1]


def trajectory_kl(new: LinearGaussian, old: LinearGaussian, mean: Array, covariance: Array) -> Array:
    r"""``KL(new || old)`` of two controllers over a trajectory, in nats.

    .. math:: \tfrac12 \sum_t tr(P_t C_t) - \log |P_t C_t| - A + E \big[ d_t^\top P_t d_t \big], \qquad
              d_t = (K_t - K'_t) x_t + k_t - k'_t

    with :math:`P` the old controller's precision and :math:`C` the new one's covariance.

    Args:
      new, old: controllers.
      mean, covariance: of ``(x, u)`` under the new one, as ``marginals`` gives them.
    """
    size = new.matrix.shape[2]
    # One call for both: see ``models.mixture`` for what two of them can do to a machine with two cores.
    old_root, new_root = jnp.linalg.cholesky(jnp.stack([old.covariance, new.covariance]))

    def one(new: LinearGaussian, old: LinearGaussian, roots: tuple, mean: Array, covariance: Array) -> Array:
        right = jnp.concatenate([roots[1], new.matrix - old.matrix, (new.offset - old.offset)[:, None]], axis=1)
        right = jax.scipy.linalg.solve_triangular(roots[0], right, lower=True)
        count = len(right)
        own, turned, back = right[:, :count], right[:, count:-1], right[:, -1]
        shift = turned @ mean[:size] + back
        apart = jnp.sum(shift**2) + jnp.sum((turned @ covariance[:size, :size]) * turned)
        return 0.5 * (jnp.sum(own**2) - count + apart) - jnp.sum(jnp.log(jnp.diagonal(own)))

    return jnp.sum(jax.vmap(one)(new, old, (old_root, new_root), mean, covariance))


def adapted_step(
    multiplier: Array, predicted: Array, actual: Array, span: tuple[float, float] = (0.5, 3.0)
) -> tuple[Array, Array]:
    r"""The factor of the next step's size, from how much the last one should have gained and how much it did.

    With a gain :math:`a \epsilon + b \epsilon^2` that predicts :math:`a \epsilon`, the best size is

    .. math:: m' = m \, \operatorname{clip}\Big( \frac{\Delta_{pred}}{2 \max(10^{-4}, \Delta_{pred} - \Delta_{act})},
              0.1, 5 \Big)

    within ``span``; no change where a gain is not finite. Returns it and the clipped ratio.

    Source: Levine et al. 2016 (arXiv 1504.00702); the range is that of mbbl-GPS (Wang et al. 2019).
    """
    ratio = jnp.clip(predicted / (2.0 * jnp.maximum(1e-4, predicted - actual)), 0.1, 5.0)
    ratio = jnp.where(jnp.isfinite(predicted) & jnp.isfinite(actual), ratio, 1.0)
    return jnp.clip(multiplier * ratio, *span), ratio


def _centred(task: LocalTask, controller: LinearGaussian) -> tuple[LocalTask, LinearGaussian]:
    """Both in differences from the cost's centre, which lose less to rounding."""
    centre, size = task.cost.centre, task.mean.shape[0]
    x, u = centre[:, :size], centre[:, size:]
    reached = jnp.einsum("tij,tj->ti", task.dynamics.matrix, centre) + task.dynamics.offset
    # What follows the last step is not looked at.
    drift = jnp.concatenate([reached[:-1] - x[1:], jnp.zeros_like(x[:1])])
    offset = jnp.einsum("tij,tj->ti", controller.matrix, x) + controller.offset - u
    here = LocalTask(task.dynamics._replace(offset=drift), task.cost, task.mean - x[0], task.covariance)
    return here, controller._replace(offset=offset)


def _regulator(task: LocalTask, previous: LinearGaussian, eta: Array) -> tuple[LinearGaussian, Array]:
    """The regulator of the cost and ``eta`` times the divergence, and whether all its Hessians were positive."""
    size = task.mean.shape[0]

    def body(carry: tuple, row: tuple) -> tuple[tuple, LinearGaussian]:
        v, vv, positive = carry
        dynamics, slope, hessian, pull, back = row
        # -log q(u | x) is half the square of u - K x - k in the metric of its precision.
        q = slope - eta * pull.T @ back + dynamics.matrix.T @ (v + vv @ dynamics.offset)
        qq = hessian + eta * pull.T @ pull + dynamics.matrix.T @ vv @ dynamics.matrix
        qq = 0.5 * (qq + qq.T)
        qux, quu = qq[size:, :size], qq[size:, size:]
        root = jnp.linalg.cholesky(quu)
        positive = positive & jnp.all(jnp.isfinite(root))
        right = jnp.concatenate([-qux, -q[size:, None], jnp.eye(len(root))], axis=1)
        right = jax.scipy.linalg.cho_solve((root, True), right)
        K, k, inverse = right[:, :size], right[:, size], right[:, size + 1 :]
        v = q[:size] + qux.T @ k
        vv = qq[:size, :size] + qux.T @ K
        return (v, 0.5 * (vv + vv.T), positive), LinearGaussian(K, k, eta * 0.5 * (inverse + inverse.T))

    start = jnp.zeros(size), jnp.zeros((size, size)), jnp.asarray(True)
    factor = jnp.linalg.cholesky(previous.covariance)
    eye = jnp.broadcast_to(jnp.eye(factor.shape[1]), factor.shape)
    white = jnp.concatenate([-previous.matrix, eye, previous.offset[:, :, None]], axis=2)
    white = jax.scipy.linalg.solve_triangular(factor, white, lower=True)
    rows = task.dynamics, task.cost.slope, task.cost.hessian, white[:, :, :-1], white[:, :, -1]
    (_, _, positive), controller = jax.lax.scan(body, start, rows, reverse=True)
    return controller, positive
