"""DreamerV3's optimiser: gradients clipped by the size of what they change, normalised before they are averaged."""

import jax
import jax.numpy as jnp
import optax

from jmbrl import checks
from jmbrl.types import Array, PyTree


def adaptive_clip(clipping: float = 0.3, eps: float = 1e-3) -> optax.GradientTransformation:
    r"""Scales each array's gradient down to a share of the array's own norm.

    .. math:: g \leftarrow g \cdot \min\!\big(1,\ c \max(\lVert w \rVert, \epsilon) / \lVert g \rVert\big)

    with the norms of whole arrays (``optax.adaptive_grad_clip`` takes those of single units).

    Args:
      clipping: :math:`c`, above 0.
      eps: :math:`\epsilon`, above 0: lets weights leave 0.

    Raises:
      ValueError: out of these ranges.

    Source: Brock et al. 2021 (arXiv 2102.06171), equation 3; per array as in DreamerV3's code.
    """
    checks.number("clipping", clipping, 1e-9)
    checks.number("eps", eps, 1e-20)

    def clip(grad: Array, weight: Array) -> Array:
        most = clipping * jnp.maximum(jnp.linalg.norm(weight.ravel()), eps)
        return grad / jnp.maximum(1.0, jnp.linalg.norm(grad.ravel()) / most)

    def update(updates: PyTree, params: PyTree = None) -> PyTree:
        if params is None:
            raise ValueError("params must be given to adaptive_clip's update: it clips by their norms")
        return jax.tree.map(clip, updates, params)

    return optax.stateless(update)


def laprop(
    learning_rate: float | Array,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-20,
    warmup: int = 1000,
    clipping: float = 0.3,
) -> optax.GradientTransformation:
    r"""LaProp after ``adaptive_clip``: Adam with the division before the average, which so forgets old scales.

    .. math:: v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \qquad
              m \leftarrow \beta_1 m + (1 - \beta_1) \frac{g}{\sqrt{\hat v} + \epsilon}, \qquad
              w \leftarrow w - \eta \min(1, n / W)\, \hat m

    where a hat corrects the start at 0 and :math:`n` counts the updates before this one: the first has rate 0.

    Args:
      learning_rate: :math:`\eta`, at least 0.
      b1, b2: decays, in ``[0, 1)``.
      eps: added to the root, at least 0. Where an entry's gradients always were below 3e-18, their squares vanish in
        float32, and ``eps`` alone divides them: with 1e-20 by up to 300 times the rate.
      warmup: :math:`W`, updates until the full rate; 0: at once.
      clipping: as in ``adaptive_clip``.

    Raises:
      ValueError: out of these ranges.

    Source: Ziyin et al. 2020 (arXiv 2002.04839), algorithm 1; the chain and its numbers as in DreamerV3's code.
    """
    checks.number("learning_rate", learning_rate, 0.0)
    checks.number("b1", b1, 0.0, 1.0 - 1e-6)
    checks.number("b2", b2, 0.0, 1.0 - 1e-6)
    checks.number("eps", eps, 0.0)
    checks.integer("warmup", warmup, 0)
    # Over 0 steps linear_schedule would stay at its start.
    rate = optax.linear_schedule(0.0, learning_rate, warmup) if warmup else optax.constant_schedule(learning_rate)
    return optax.chain(
        adaptive_clip(clipping),
        optax.scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True),
        optax.ema(b1, debias=True),
        optax.scale_by_learning_rate(rate),
    )
