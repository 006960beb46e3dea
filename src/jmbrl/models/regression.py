"""What the solved models of an observed state share: standardised rows, and a ``Model`` made of moments.

They regress standardised targets ``y`` (the change of the observation, and the reward where it is learned) on
standardised inputs ``x``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jmbrl.data import normalizer
from jmbrl.data.normalizer import Normalizer
from jmbrl.models import heads, state_space
from jmbrl.models.solved import counted
from jmbrl.models.state_space import Frame, Stats
from jmbrl.networks import fast_normal
from jmbrl.types import Array, Key, Model, Outcome, Params, Spec, Transition


class Problem(NamedTuple):
    """``x``: ``float32[N, inputs]``, ``y``: ``float32[N, targets]``, both standardised; rows of no ``weight`` are 0."""

    x: Array
    y: Array
    weight: Array


def frame(user: str, spec: Spec, options: dict[str, Any]) -> Frame:
    """The frame of a model without a classifier, from the keyword arguments of its factory."""
    if isinstance(options["termination"], str):
        raise ValueError(
            f"{user} cannot learn termination, got termination={options['termination']!r}: give a function "
            "(obs, action, next_obs) -> bool, or None"
        )
    return state_space.frame(user, spec, **options, normalize_targets=True)


def scale(stats: Stats) -> Normalizer:
    """Of the targets, which ``frame`` asked to be normalised."""
    assert isinstance(stats.targets, Normalizer)
    return stats.targets


def problem(frame: Frame, stats: Stats, rows: Transition, weight: Array) -> Problem:
    """The regression that rows counted ``weight`` times pose; broken or padding rows do not enter."""
    rows = counted(rows, weight)
    here = (weight > 0)[:, None]
    x = frame.normalized_inputs(stats, rows.obs, rows.action)
    y = normalizer.normalize(scale(stats), frame.target(rows))
    return Problem(jnp.where(here, x, 0.0), jnp.where(here, y, 0.0), weight)


def squared_error(stats: Stats, error: Array, weight: Array) -> Array:
    """Mean over rows (by weight) and targets of the squared error, in the targets' units; ``error`` is standardised."""
    return jnp.sum(weight[:, None] * (error * scale(stats).std) ** 2) / (at_least_one(weight) * error.shape[1])


def at_least_one(weight: Array) -> Array:
    """The number of rows counted, 1 where there are none."""
    return jnp.maximum(jnp.sum(weight), 1.0)


def assemble(
    frame: Frame,
    *,
    weights: Callable,
    fit: Callable,
    mean: Callable,
    moments: Callable,
    sample: Callable | None = None,
) -> Model:
    """A ``Model`` from functions of standardised inputs and targets.

    All products are full float32: what was solved carefully is not rounded again on an accelerator.

    Args:
      frame: as ``frame`` made it.
      weights: ``(key) -> weights``.
      fit: ``(key, weights, problem, stats) -> (weights, info)``.
      mean: ``(weights, x[N, inputs]) -> y[N, targets]``.
      moments: ``(weights, x) -> (mean[N, targets], std[N, targets])``, noise included.
      sample: ``(key, weights, x) -> y``; None: a Gaussian of those moments.
    """

    def draw(key: Key, weights: Any, x: Array) -> Array:
        centre, std = moments(weights, x)
        return centre + std * fast_normal(key, centre.shape)

    sample = draw if sample is None else sample

    def init(key: Key) -> Params:
        return Params(weights(key), frame.empty_stats())

    @_precise
    def solve(key: Key, params: Params, rows: Transition, weight: Array) -> tuple[Params, dict[str, Array]]:
        given = problem(frame, params.stats, rows, weight)
        new, info = fit(key, params.weights, given, params.stats)
        return params._replace(weights=new), info

    def inputs(params: Params, obs: Array, actions: Array) -> Array:
        return frame.normalized_inputs(params.stats, obs, actions)

    def outcome(params: Params, obs: Array, actions: Array, y: Array) -> tuple[Array, Outcome]:
        target = normalizer.denormalize(scale(params.stats), y)
        return frame.outcome(params.stats, obs, actions, target, jnp.zeros(obs.shape[0]))

    @_precise
    def step_many(key: Key, params: Params, beliefs: Array, actions: Array) -> tuple[Array, Outcome]:
        return outcome(params, beliefs, actions, sample(key, params.weights, inputs(params, beliefs, actions)))

    @_precise
    def expect(params: Params, beliefs: Array, actions: Array) -> tuple[Array, Outcome]:
        return outcome(params, beliefs, actions, mean(params.weights, inputs(params, beliefs, actions)))

    @_precise
    def target_moments(params: Params, obs: Array, actions: Array) -> tuple[Array, Array]:
        centre, std = moments(params.weights, inputs(params, obs, actions))
        return normalizer.denormalize(scale(params.stats), centre), std * scale(params.stats).std

    return heads.assemble(frame, init, step_many, expect, target_moments, None)._replace(fit=solve)


def _precise(function: Callable) -> Callable:
    """Products of float32 in full precision; accelerators by default round the factors to fewer bits."""

    def run(*args: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            return function(*args)

    return run
