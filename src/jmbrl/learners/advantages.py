"""Returns and advantages of trajectories, and the rows that on-policy learners improve from."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.health import accept
from jmbrl.types import Array, PyTree, Transition


def gae(
    reward: Array,
    value: Array,
    next_value: Array,
    terminated: Array,
    truncated: Array,
    gamma: float | Array,
    lam: float | Array,
) -> Array:
    r"""Generalised advantage estimates, from the last row to the first.

    .. math:: \delta_t = r_t + \gamma (1 - \mathrm{term}_t) V(s'_t) - V(s_t), \qquad
              A_t = \delta_t + \gamma \lambda (1 - \mathrm{term}_t)(1 - \mathrm{trunc}_t) A_{t+1}

    with :math:`A = 0` after the last row: a time limit and the end of the data cut the trace and still bootstrap.

    Args:
      reward, value, next_value: ``float32[T, ...]``; ``next_value`` of the true successor, also at a cut. What it is
        where ``terminated`` does not matter.
      terminated, truncated: ``bool[T, ...]``.
      gamma, lam: discount and trace decay, in ``[0, 1]``.

    Returns:
      ``float32[T, ...]``. :math:`A_t + V(s_t)` is the TD(:math:`\lambda`) target of the value.

    Source: Schulman et al. 2016 (arXiv 1506.02438), equation 16.
    """
    delta = reward + gamma * jnp.where(terminated, 0.0, next_value) - value

    def body(following: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        delta, ended = row
        advantage = delta + gamma * lam * jnp.where(ended, 0.0, following)
        return advantage, advantage

    return jax.lax.scan(body, jnp.zeros_like(delta[0]), (delta, terminated | truncated), reverse=True)[1]


def returns(reward: Array, next_value: Array, terminated: Array, truncated: Array, gamma: float | Array) -> Array:
    r"""Discounted sums of rewards to the end of each path, from the last row to the first.

    .. math:: R_t = r_t + \gamma \begin{cases} 0 & \mathrm{term}_t \\ V(s'_t) & \mathrm{trunc}_t \text{ or } t = T - 1
              \\ R_{t+1} & \text{otherwise} \end{cases}

    Args:
      reward, next_value, terminated, truncated, gamma: as in ``gae``; ``next_value`` is read at cuts only.
    """

    def body(following: Array, row: tuple) -> tuple[Array, Array]:
        reward, value, ended, cut = row
        total = reward + gamma * jnp.where(ended, 0.0, jnp.where(cut, value, following))
        return total, total

    return jax.lax.scan(body, next_value[-1], (reward, next_value, terminated, truncated), reverse=True)[1]


def elapsed(ended: Array) -> Array:
    """Steps since the path's first row, ``int32[T, ...]``; paths begin at row 0 and after each ``ended`` row."""

    def body(time: Array, ended: Array) -> tuple[Array, Array]:
        return jnp.where(ended, 0, time + 1), time

    return jax.lax.scan(body, jnp.zeros(ended.shape[1:], jnp.int32), ended)[1]


def weighted_mean(x: Array, weight: Array) -> Array:
    """Of ``x[N]``; 0 where no row counts."""
    return jnp.sum(weight * x) / jnp.maximum(jnp.sum(weight), 1e-12)


def standardised(x: Array, weight: Array) -> Array:
    """``x[N]`` with the mean 0 and the (biased) standard deviation 1 of the rows that count; equal ones become 0."""
    centred = x - weighted_mean(x, weight)
    return centred / (jnp.sqrt(weighted_mean(centred**2, weight)) + 1e-8)


class Paths(NamedTuple):
    """Trajectories made safe to compute with: ``[T, B]``, zeros in rows that do not count.

    ``rows.truncated`` also cuts before such a row. ``weight``: ``float32[T, B]``, 1 where a row counts, else 0.
    """

    rows: Transition
    weight: Array


def paths(data: Transition, mask: Array | None, features: int, user: str) -> Paths:
    """``data`` and its ``mask`` as ``Paths``.

    Raises:
      ValueError: observations that are not ``[T, B, features]``.
    """
    time, batch = data.reward.shape if data.reward.ndim == 2 else (0, 0)
    checks.same_shape("obs", data.obs.shape, (time, batch, features), f"{user} (time, batch, features)")
    mask = jnp.ones((time, batch), bool) if mask is None else mask
    keep = lambda x: jnp.where(mask.reshape(mask.shape + (1,) * (x.ndim - 2)), x, jnp.zeros_like(x))  # noqa: E731
    followed = jnp.concatenate([mask[1:], jnp.ones_like(mask[:1])])
    rows = jax.tree.map(keep, data)
    return Paths(rows._replace(truncated=rows.truncated | ~followed), mask.astype(jnp.float32))


def flat(tree: PyTree) -> PyTree:
    """``[T, B, ...]`` as ``[T * B, ...]``."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)


def settle(new: PyTree, old: PyTree, losses: PyTree, grads: PyTree, weight: Array) -> tuple[PyTree, dict[str, Array]]:
    """``health.accept``, for which an update from no rows is none: the old state, and every counter 0."""
    kept, health = accept(new, old, losses, grads)
    some = jnp.any(weight > 0)
    kept = jax.tree.map(lambda a, b: jnp.where(some, a, b), kept, old)
    return kept, {name: jnp.where(some, count, 0.0) for name, count in health.items()}
