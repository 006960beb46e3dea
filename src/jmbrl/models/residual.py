"""Known equations with a learned correction: for physics that is nearly right."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.models.equation_system import Correction, System
from jmbrl.networks import apply_dense, init_dense
from jmbrl.types import Array, Continuous, Key, Model, PyTree

_START = 0.01  # of its usual size, for the last layer's weights: the equations alone, at first


def residual(model: Model, hidden: Sequence[int] = (64, 64), *, shrinkage: float = 10.0, fit: str = "joint") -> Model:
    r"""Equations of motion plus a network that corrects the next state.

    .. math:: s_{t+1} = f(s_t, a_t, \theta) + \Delta \odot g_w(h(s_t), a_t)

    ``g`` is small at first; :math:`\Delta` is the size of the state's change in one step. Both learn from the
    likelihood of ``equations`` along the same paths, with a Gaussian prior on ``g``'s weights,

    .. math:: L(\theta, w) + \frac{\lambda}{2n} \sum_l \|W_l\|^2

    so that the equations explain what they can: without it parameters and network are not identified apart.

    Args:
      model: made by ``equations``; wrap the result (reward, ensemble), not what goes in.
      hidden: widths of the hidden layers.
      shrinkage: the prior's precision :math:`\lambda`, at least 0. It weighs as much as in ridge regression: less and
        less against more rows.
      fit: ``"joint"`` predicts better, but the network takes over part of what parameters stand for: read those of
        ``equations`` instead. ``"theta_first"``: the parameters fit the data as if there were no network, which
        explains what they leave; they keep their meaning, at twice the cost.

    Returns:
      A ``Model`` as from ``equations``; ``models.theta`` reads its parameters.

    Raises:
      ValueError: ``model`` is not from ``equations`` or is wrapped, or an option outside its range.

    Source: Yin et al. 2021, APHYNITY (arXiv 2010.04456): the smallest correction that explains the data.
    """
    # A wrapper replaces ``step``: what it adds would be lost here.
    system, outermost = (getattr(function, "__self__", None) for function in (model.init, model.step))
    if not isinstance(system, System) or outermost is not system or system.correction is not None:
        raise ValueError("model must be made by equations and not be wrapped: wrap what residual returns")
    shrinkage = checks.number("shrinkage", shrinkage, 0.0)
    checks.choice("fit", fit, ("joint", "theta_first"))
    space = system.frame.spec.action
    actions = space.dim if isinstance(space, Continuous) else space.n
    widths = tuple(checks.integer("hidden", width, 1) for width in hidden)
    sizes = (system.frame.dim + actions, *widths, system.dim)

    def init(key: Key) -> PyTree:
        *layers, last = init_dense(key, sizes)
        return (*layers, {**last, "kernel": _START * last["kernel"]})

    def apply(layers: PyTree, seen: Array, action: Array) -> Array:
        action = action if isinstance(space, Continuous) else jax.nn.one_hot(action, space.n)
        return apply_dense(layers, jnp.concatenate([seen, action]))

    def penalty(layers: PyTree) -> Array:
        return 0.5 * shrinkage * sum((jnp.sum(layer["kernel"] ** 2) for layer in layers), jnp.zeros(()))

    correction = Correction(init, apply, penalty, fit == "theta_first")
    return dataclasses.replace(system, correction=correction).model()
