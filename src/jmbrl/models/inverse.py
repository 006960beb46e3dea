"""Inverse dynamics: which action led from one observation to the next."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.data import normalizer
from jmbrl.data.normalizer import Normalizer
from jmbrl.networks import apply_dense, init_dense, swish
from jmbrl.types import Array, Continuous, DataKind, Key, Params, Spec, Transition


class InverseModel(NamedTuple):
    """Guesses actions. It has what ``models.trainer`` asks of a model, and is none: it imagines nothing.

    Attributes:
      init: ``(key) -> Params``.
      action: ``(params, obs, next_obs) -> action``, one row, as the environment's spec has it.
      loss: ``(key, params, Transition[B]) -> (loss, info)``.
      set_stats: ``(params, transitions[N], mask[N]) -> Params``.
      data_kind, members, member, fit: as in ``Model``.
    """

    init: Callable
    action: Callable
    loss: Callable
    set_stats: Callable
    data_kind: DataKind = DataKind.ROWS
    members: int = 0
    member: None = None
    fit: None = None


def inverse_mlp(
    spec: Spec,
    hidden: Sequence[int] = (200, 200),
    *,
    activation: Callable = swish,
    weight_decay: float = 0.0,
) -> InverseModel:
    r"""A network :math:`a = f^{-1}(s, s')`, trained by ``models.trainer`` on any data with actions.

    It reads ``normalise([obs, next_obs - obs])``. Continuous actions: ``tanh`` of its output, and

    .. math:: L = \operatorname{mean}_{batch} \operatorname{mean}_d (f^{-1}(s, s') - a)^2 + wd \sum_l \|W_l\|^2 / 2

    Discrete ones: the likeliest of a softmax, trained by its cross-entropy. Where several actions lead to the same
    place it answers with their mean or the most frequent one; where next to nothing follows from an action, noise.

    Args:
      spec: the environment's; vector observations.
      hidden: widths of the hidden layers.
      activation: between the layers.
      weight_decay: ``wd``, at least 0.

    Returns:
      An ``InverseModel``. ``info``: ``mse``; of discrete actions ``accuracy``.

    Raises:
      ValueError: image observations, or a number outside its range.

    Source: Torabi, Warnell, Stone 2018, Behavioral cloning from observation (arXiv 1805.01954), section 4.1.
    """
    if len(spec.obs_shape) != 1 or spec.obs_dtype != "float32":
        raise ValueError(f"inverse_mlp needs a vector observation of float32, got {spec.obs_shape} of {spec.obs_dtype}")
    widths = tuple(checks.integer("hidden", width, 1) for width in hidden)
    checks.number("weight_decay", weight_decay, 0.0)
    inputs = 2 * spec.obs_shape[0]
    continuous = isinstance(spec.action, Continuous)
    outputs = spec.action.dim if isinstance(spec.action, Continuous) else spec.action.n

    def init(key: Key) -> Params:
        return Params(init_dense(key, (inputs, *widths, outputs)), normalizer.identity(inputs))

    def forward(params: Params, obs: Array, next_obs: Array) -> Array:
        x = normalizer.normalize(params.stats, _pairs(obs, next_obs))
        out = apply_dense(params.weights, x, activation)
        return jnp.tanh(out) if continuous else out

    def action(params: Params, obs: Array, next_obs: Array) -> Array:
        checks.same_shape("obs", obs.shape, spec.obs_shape, "the model's spec")
        checks.same_shape("next_obs", next_obs.shape, spec.obs_shape, "the model's spec")
        out = forward(params, obs, next_obs)
        return out if continuous else jnp.argmax(out, axis=-1).astype(jnp.int32)

    def loss(key: Key, params: Params, batch: Transition) -> tuple[Array, dict[str, Array]]:
        del key
        out = forward(params, batch.obs, batch.next_obs)
        penalty = 0.5 * weight_decay * sum(jnp.sum(layer["kernel"] ** 2) for layer in params.weights)
        if continuous:
            mse = jnp.mean((out - batch.action) ** 2)
            return mse + penalty, {"mse": mse}
        log_p = jnp.take_along_axis(jax.nn.log_softmax(out), batch.action[:, None], axis=-1)
        right = jnp.argmax(out, axis=-1) == batch.action
        return penalty - jnp.mean(log_p), {"accuracy": jnp.mean(right, dtype=jnp.float32)}

    def set_stats(params: Params, rows: Transition, mask: Array) -> Params:
        stats: Normalizer = normalizer.fit(_pairs(rows.obs, rows.next_obs), mask, params.stats)
        return params._replace(stats=stats)

    return InverseModel(init, action, loss, set_stats)


def recover_actions(inverse: InverseModel, params: Params, observations: Array) -> Array:
    """The actions between consecutive observations of *one* episode, for demonstrations without actions.

    Args:
      observations: ``float32[T + 1, D]``.

    Returns:
      ``float32[T, A]`` in ``[-1, 1]``, or ``int32[T]``.

    Raises:
      ValueError: fewer than two observations.
    """
    if observations.ndim != 2 or len(observations) < 2:
        raise ValueError(f"observations must be [T + 1, D] with T at least 1, got shape {observations.shape}")
    return jax.vmap(inverse.action, in_axes=(None, 0, 0))(params, observations[:-1], observations[1:])


def _pairs(obs: Array, next_obs: Array) -> Array:
    return jnp.concatenate([obs, next_obs - obs], axis=-1)
