"""What the network models share: layer widths, weight decay, the bounds of a variance, the head of termination."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.models import state_space
from jmbrl.models.state_space import Frame
from jmbrl.types import Array, Model, Params, Prediction, PyTree, Transition

# PETS' half-cheetah (handful-of-trials, config/halfcheetah.py) and MBPO on every task.
_WEIGHT_DECAY = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4)
_MAX_LOGVAR, _MIN_LOGVAR = 0.5, -10.0


def assemble(
    frame: Frame, init: Callable, step_many: Callable, expect: Callable, moments: Callable, loss: Callable | None
) -> Model:
    """A ``Model`` from functions over rows; ``moments``: mean and spread of the targets, in their own units."""

    def step(key: Array, params: Params, belief: Array, action: Array):
        checks.same_shape("action", jnp.shape(action), frame.spec.action.shape, "the model's spec")
        return jax.tree.map(lambda x: x[0], step_many(key, params, belief[None], jnp.asarray(action)[None]))

    def predict(params: Params, belief: Array, action: Array) -> Prediction:
        obs, act = belief[None], jnp.asarray(action)[None]
        return jax.tree.map(lambda x: x[0], frame.prediction(obs, act, *moments(params, obs, act)))

    belief_functions: dict[str, Any] = state_space.identity_belief(frame.dim)
    return Model(
        init=init, step=step, step_many=step_many, loss=loss, set_stats=frame.fit_stats, predict=predict,
        expect=expect, **belief_functions,
    )  # fmt: skip


def sizes(frame: Frame, hidden: Sequence[int], outputs: int) -> tuple[int, ...]:
    """Widths of a network's layers; termination, where it is learned, has the last output."""
    widths = tuple(checks.integer("hidden", width, 1) for width in hidden)
    return (frame.inputs, *widths, outputs + frame.learns_end)


def decays(weight_decay: float | Sequence[float] | None, hidden: int) -> tuple[float, ...]:
    """One weight decay per layer."""
    if weight_decay is None:
        if hidden + 1 == len(_WEIGHT_DECAY):
            return _WEIGHT_DECAY
        return tuple(float(x) for x in np.linspace(_WEIGHT_DECAY[0], _WEIGHT_DECAY[-1], hidden + 1))
    decay = tuple(weight_decay) if isinstance(weight_decay, Sequence) else (weight_decay,) * (hidden + 1)
    if len(decay) != hidden + 1:
        raise ValueError(f"weight_decay must have {hidden + 1} entries, one per layer, got {len(decay)}")
    return tuple(checks.number("weight_decay", wd, low=0.0) for wd in decay)


def penalty(layers: Sequence[dict[str, Array]], decay: Sequence[float]) -> Array | int:
    """``sum_l wd_l ||W_l||^2 / 2``, weights only."""
    return sum(0.5 * wd * jnp.sum(layer["kernel"] ** 2) for wd, layer in zip(decay, layers, strict=True))


def end_loss(frame: Frame, logit: Array, batch: Transition) -> Array:
    """Binary cross-entropy of ``terminated``; 0 where termination is not learned."""
    if not frame.learns_end:
        return jnp.zeros(())
    ended = batch.terminated.astype(jnp.float32)
    return jnp.mean(jax.nn.softplus(logit) - ended * logit)


class LogVarianceBounds:
    """Two soft bounds per target, learned or fixed at their start of -10 and 0.5."""

    def __init__(self, targets: int, learned: bool):
        self.learned = learned
        self.start = np.full(targets, _MIN_LOGVAR, np.float32), np.full(targets, _MAX_LOGVAR, np.float32)

    def init(self) -> dict[str, Array]:
        """What they add to a model's weights."""
        if not self.learned:
            return {}
        return {"min_logvar": jnp.asarray(self.start[0]), "max_logvar": jnp.asarray(self.start[1])}

    def values(self, weights: PyTree) -> tuple[Array | np.ndarray, Array | np.ndarray]:
        return (weights["min_logvar"], weights["max_logvar"]) if self.learned else self.start

    def variance(self, weights: PyTree, raw: Array) -> Array:
        """The variance of a raw log-variance ``[..., targets]``."""
        # The two soft bounds in closed form, exp(l) = exp(min) + exp(max) sigmoid(raw - max): one exponential instead
        # of six transcendental functions, and no rounding past the bounds.
        low, high = self.values(weights)
        return jnp.exp(low) + jnp.exp(high) * jax.nn.sigmoid(raw - high)

    def width(self, weights: PyTree) -> Array | float:
        """``0.01 (sum max - sum min)``, their part of the loss."""
        low, high = self.values(weights)
        return 0.01 * (jnp.sum(high) - jnp.sum(low)) if self.learned else 0.0

    def saturated(self, weights: PyTree, raw: Array) -> Array:
        """The share of outputs ten beyond a bound: the gradient there is exp(-10) of itself, and the noise no longer
        learned."""
        low, high = self.values(weights)
        return jnp.mean((raw > high + 10.0) | (raw < low - 10.0))
