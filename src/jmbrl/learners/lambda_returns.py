r"""Returns that mix all bootstrap depths, of imagined and of real trajectories (Dreamer)."""

import jax

from jmbrl.types import Array


def lambda_returns(reward: Array, discount: Array, next_value: Array, lam: float | Array) -> Array:
    r"""Returns that weigh the bootstrap after ``n`` steps by :math:`\lambda^{n-1}`.

    .. math:: R_t = r_t + d_t \big( (1 - \lambda) v_{t+1} + \lambda R_{t+1} \big), \qquad
              R_{T-1} = r_{T-1} + d_{T-1} v_T

    Each row is an affine map of the next one's return, and the maps are composed by an associative scan: of depth
    :math:`\log T`, not a loop of ``T`` steps.

    Args:
      reward: :math:`r_t`, ``float32[T, ...]``.
      discount: :math:`d_t`, ``float32[T, ...]``: gamma times the continuation after row ``t``, in ``[0, 1]``.
      next_value: :math:`v_{t+1}`, ``float32[T, ...]``, of the state that row ``t`` leads to; finite also where
        ``discount`` is 0.
      lam: :math:`\lambda` in ``[0, 1]``; 0 is one step, 1 the discounted sum of all rewards and the last value.

    Returns:
      ``float32[T, ...]``.

    Source: Hafner et al. 2020 (arXiv 1912.01603), equation 6; 2021 (arXiv 2010.02193), equation 4.
    """
    slope = lam * discount
    offset = reward + (discount - slope) * next_value
    # The last row bootstraps wholly; its slope multiplies nothing.
    offset = offset.at[-1].set(reward[-1] + discount[-1] * next_value[-1])

    def compose(later: tuple[Array, Array], earlier: tuple[Array, Array]) -> tuple[Array, Array]:
        return earlier[0] * later[0], earlier[1] + earlier[0] * later[1]

    return jax.lax.associative_scan(compose, (slope, offset), reverse=True)[1]
