"""BFGS in one loop that evaluates its function at one place: what an expensive function to compile needs."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.types import Array

DECREASE, CURVATURE = 1e-4, 0.9  # Wolfe's conditions


class Minimum(NamedTuple):
    """What ``bfgs`` found.

    Attributes:
      x: ``[P]``, the best point seen.
      value: of it; first: of where it began. Either may be infinite where no value was finite.
      searches: line searches that ended with a step taken.
      evaluations: of the function.
      nonfinite: evaluations whose value or gradient was not finite.
    """

    x: Array
    value: Array
    first: Array
    searches: Array
    evaluations: Array
    nonfinite: Array


class _Search(NamedTuple):
    x: Array  # where this line search began, its value and gradient
    value: Array
    gradient: Array
    inverse: Array  # [P, P], of the Hessian, estimated
    direction: Array
    size: Array  # the step size to try next
    low: Array  # a size that decreased enough and was too short
    high: Array  # one that did not
    tried: Array  # sizes in this line search
    failed: Array  # line searches in a row without a step
    best: Minimum


def bfgs(function: Callable, x: Array, *, searches: int, evaluations: int, tries: int = 20) -> Minimum:
    r"""Minimise a smooth function by Broyden, Fletcher, Goldfarb and Shanno's method with a weak Wolfe line search.

    Step sizes are doubled while the slope is still steep and halved, between one too short and one too long, while the
    value has not decreased. A number that is not finite counts as too long. A line search that finds nothing is
    tried once more along the gradient; then it ends.

    Args:
      function: ``(x[P]) -> (value, gradient[P])``; called once per turn of the loop, and compiled once.
      x: where to begin, in the precision to work with.
      searches: line searches at most.
      evaluations: of the function at most, all line searches together, at least 1.
      tries: step sizes per line search at most.

    Source: Nocedal & Wright 2006, algorithm 6.1; Lewis & Overton 2013, algorithm 2.6, for the line search.
    """
    searches = checks.integer("searches", searches, 0)
    evaluations = checks.integer("evaluations", evaluations, 1)
    tries = checks.integer("tries", tries, 1)

    def begin() -> _Search:
        zero, none = jnp.zeros((), x.dtype), jnp.zeros((), jnp.int32)
        best = Minimum(x, zero + jnp.inf, zero + jnp.inf, none, none, none)
        # The first turn stays where it is: so the function is compiled once.
        still = jnp.zeros_like(x)
        inverse = jnp.eye(len(x), dtype=x.dtype)
        return _Search(x, zero, still, inverse, still, zero, zero, zero + jnp.inf, none, none, best)

    def going(now: _Search) -> Array:
        left = (now.best.evaluations < evaluations) & (now.best.searches < searches)
        steep = jnp.linalg.norm(now.gradient) > 1e-9
        return (now.best.evaluations == 0) | (left & (now.failed < 2) & steep & jnp.isfinite(now.best.value))

    def turn(now: _Search) -> _Search:
        first = now.best.evaluations == 0
        at = now.x + now.size * now.direction
        value, gradient = function(at)
        good = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient))
        slope = now.gradient @ now.direction
        lower = good & (value <= now.value + DECREASE * now.size * slope)
        take = lower & (gradient @ now.direction >= CURVATURE * slope) & ~first
        better = good & (value < now.best.value)
        best = Minimum(
            x=jnp.where(better, at, now.best.x),
            value=jnp.where(better, value, now.best.value),
            first=jnp.where(first & good, value, now.best.first),
            searches=now.best.searches + take,
            evaluations=now.best.evaluations + 1,
            nonfinite=now.best.nonfinite + ~good,
        )
        low, high = jnp.where(lower, now.size, now.low), jnp.where(lower, now.high, now.size)
        size = jnp.where(jnp.isinf(high), 2.0 * low, 0.5 * (low + high))
        same = now._replace(size=size, low=low, high=high, tried=now.tried + 1, best=best)
        # A new line search: from the point taken, or once more from where this one began, along the gradient.
        arrive = take | (first & good)
        x, value, gradient = (
            jnp.where(arrive, new, old) for new, old in ((at, now.x), (value, now.value), (gradient, now.gradient))
        )
        inverse = _updated(now.inverse, at - now.x, gradient - now.gradient, now.best.searches == 0)
        steepest = jnp.eye(len(x), dtype=x.dtype) / jnp.maximum(jnp.linalg.norm(gradient), 1.0)
        inverse = jnp.where(take, inverse, steepest)
        one, failed = jnp.ones_like(size), jnp.where(arrive, 0, now.failed + 1)
        fresh = _Search(
            x, value, gradient, inverse, -inverse @ gradient, one, 0.0 * one, jnp.inf * one, 0 * now.tried, failed, best
        )
        ended = take | first | (now.tried + 1 >= tries)
        return jax.tree.map(lambda a, b: jnp.where(ended, a, b), fresh, same)

    return jax.lax.while_loop(going, turn, begin()).best


def _updated(inverse: Array, step: Array, change: Array, first: Array) -> Array:
    """The inverse Hessian after ``step`` changed the gradient by ``change``; the first step also tells its scale."""
    product = step @ change
    safe = jnp.where(product > 0, product, 1.0)
    # Nocedal & Wright, equation 6.20.
    inverse = jnp.where(
        first, jnp.eye(len(step), dtype=step.dtype) * safe / jnp.maximum(change @ change, 1e-30), inverse
    )
    left = jnp.eye(len(step), dtype=step.dtype) - jnp.outer(step, change) / safe
    return jnp.where(product > 0, left @ inverse @ left.T + jnp.outer(step, step) / safe, inverse)
