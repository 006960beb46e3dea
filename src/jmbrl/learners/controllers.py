"""Small controllers whose parameters are one flat vector, for methods that search over such vectors."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.types import ActionSpace, Array, Continuous, Key


class Controller(NamedTuple):
    """A function of features whose parameters are a vector.

    Attributes:
      size: how many parameters, ``D``.
      init: ``(key, scale=0.0) -> float32[D]``: ``scale`` times standard Cauchy numbers. At 0 the zeros from which the
        search of World Models starts; its first random episodes are such controllers of a small scale.
      act: ``(policy float32[D], features float32[F]) -> action``.
    """

    size: int
    init: Callable
    act: Callable


def linear_controller(
    action: ActionSpace, features: int, *, hidden: Sequence[int] = (), bias: bool = True
) -> Controller:
    r"""A linear map of the features, squashed: :math:`a = \tanh(x W + b)`; the largest of scores where actions are
    discrete, :math:`a = \arg\max (x W + b)`.

    ``hidden`` puts layers :math:`x \leftarrow \tanh(x W_i + b_i)` before it. A policy is read from the first layer to
    the last, in each the bias ``[out]`` and then the weights ``[in, out]``, row after row, as in the paper's files.

    Args:
      action: the space; its dimensions or its choices are the outputs.
      features: ``F``, at least 1.
      hidden: widths of tanh layers in between; the paper tries one of 40.
      bias: whether layers have one. 288 features and 3 actions make 867 parameters; 1088, 1 action and no bias 1088.

    Raises:
      ValueError: a number outside its range; ``act`` where policy or features have another width.

    Source: Ha & Schmidhuber 2018 (arXiv 1803.10122), "Controller (C) Model" and its appendix.
    """
    features = checks.integer("features", features, 1)
    hidden = tuple(checks.integer("hidden", width, 1) for width in hidden)
    continuous = isinstance(action, Continuous)
    outputs = action.dim if isinstance(action, Continuous) else action.n
    widths = (features, *hidden, outputs)
    layers = tuple(pairwise(widths))
    size = sum(fan_in * fan_out + bias * fan_out for fan_in, fan_out in layers)

    def init(key: Key, scale: float | Array = 0.0) -> Array:
        return scale * jax.random.cauchy(key, (size,))

    def act(policy: Array, x: Array) -> Array:
        checks.same_shape("policy", jnp.shape(policy), (size,), "linear_controller")
        checks.same_shape("features", jnp.shape(x), (features,), "linear_controller")
        at = 0
        for i, (fan_in, fan_out) in enumerate(layers):
            offset = policy[at : at + fan_out] if bias else 0.0
            at += bias * fan_out
            x = x @ policy[at : at + fan_in * fan_out].reshape(fan_in, fan_out) + offset
            at += fan_in * fan_out
            if i < len(hidden):
                x = jnp.tanh(x)
        return jnp.tanh(x) if continuous else jnp.argmax(x).astype(jnp.int32)

    return Controller(size, init, act)
