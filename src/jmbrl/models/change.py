"""Whether the world is still the one that a model was fitted to: cumulative sums of one-step surprise."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.types import Array, Model, Params, PyTree, Transition

SHORTFALL = 1.166  # of a barrier that a Gaussian walk oversteps, both ends together: Siegmund 1985


class ChangeDetector(NamedTuple):
    """Watches a stream of numbers for a lasting rise.

    Attributes:
      init: ``() -> state``.
      update: ``(state, surprise) -> (state, alarm)``, one number; an alarm stays until a new ``init``.
      since: ``(state) -> int32``, how many of the newest numbers lie after the estimated change.
    """

    init: Callable
    update: Callable
    since: Callable


class Cusum(NamedTuple):
    """``statistic``: Page's. ``since``: numbers since it was last 0. ``count, mean, squares``: numbers seen before the
    alarm, their mean, summed squared deviations from it."""

    statistic: Array
    since: Array
    count: Array
    mean: Array
    squares: Array


def cusum(
    false_alarm_every: float = 1e6, shift: float = 2.0, reference: int = 200, clip: float = 5.0
) -> ChangeDetector:
    r"""Page's cumulative sum for a mean that rises.

    .. math:: S_t = \max(0, S_{t-1} + \min(z_t, c) - \delta / 2), \qquad \text{alarm: } S_t > h

    The change is estimated to lie where :math:`S` was last 0. The threshold :math:`h` is chosen by the mean run length
    to a false alarm on independent standard normal numbers (``run_length``). Among tests of that run length
    Page's finds a shift of :math:`\delta` soonest in the worst case, asymptotically (Lorden 1971).

    With ``reference`` the stream brings its own mean and spread: the first ``reference`` numbers only teach them, then
    :math:`z_t = (x_t - \bar x_{t-1}) / s_{t-1}` of all numbers before it (a self-starting chart). Errors of a learned
    model depend on each other and have heavier tails than the normal: false alarms then come sooner than stated, so
    that a very large ``false_alarm_every`` (1e20) can be right; the threshold grows with its logarithm only.

    Args:
      false_alarm_every: mean run length without a change, in numbers, above 1.
      shift: :math:`\delta`, the rise in standard deviations that is to be found soonest, above 0.
      reference: 0: numbers are standard normal without a change; else at least 2.
      clip: :math:`c`, at least ``shift``: what one number counts at most. A normal one is hardly ever as large; it
        takes several in a row to raise an alarm, not one outlier.

    Raises:
      ValueError: a number outside its range.

    Source: Page 1954, Continuous inspection schemes, Biometrika 41; Lorden 1971, Annals of Mathematical Statistics
    42(6); Hawkins 1987, The Statistician 36 (self-starting).
    """
    shift = checks.number("shift", shift, 1e-3)
    reference = checks.integer("reference", reference, 0)
    if reference == 1:
        raise ValueError("reference must be 0 or at least 2, got 1: one number has no spread")
    clip = checks.number("clip", clip, shift)
    limit = threshold(false_alarm_every, shift)

    def init() -> Cusum:
        zero, none = jnp.zeros(()), jnp.zeros((), jnp.int32)
        return Cusum(zero, none, none, zero, zero)

    def update(state: Cusum, surprise: Array) -> tuple[Cusum, Array]:
        latched = state.statistic > limit
        score = surprise if reference == 0 else _score(state, surprise)
        total = jnp.maximum(state.statistic + jnp.minimum(score, clip) - shift / 2, 0.0)
        total = jnp.where(latched, state.statistic, jnp.where(state.count < reference, 0.0, total))
        count = state.count + 1
        step = surprise - state.mean
        mean = state.mean + step / count
        squares = state.squares + step * (surprise - mean)
        since = jnp.where(total > 0, state.since + 1, 0)
        new = Cusum(total, since, count, mean, squares)
        frozen = state._replace(since=since)
        return jax.tree.map(lambda a, b: jnp.where(latched, a, b), frozen, new), total > limit

    return ChangeDetector(init, update, lambda state: state.since)


def always() -> ChangeDetector:
    """An alarm at every look, with the numbers since the last one: no detection, but forgetting as time goes by. With
    a share ``old_share`` kept each time, what is ``n`` looks old weighs ``old_share**n``."""
    return ChangeDetector(
        lambda: jnp.zeros((), jnp.int32), lambda state, surprise: (state + 1, jnp.ones((), bool)), lambda state: state
    )


def change_detector(name: str | None, **options: Any) -> ChangeDetector | None:
    """``"cusum"`` with its options, ``"always"``, or None for None: for settings.

    Raises:
      ValueError: another name.
    """
    if name is None:
        return None
    return cusum(**options) if checks.choice("change", name, ("cusum", "always")) == "cusum" else always()


def _score(state: Cusum, x: Array) -> Array:
    """``x`` by the mean and spread of what came before; 0 where that never varied."""
    std = jnp.sqrt(state.squares / jnp.maximum(state.count - 1, 1))
    return jnp.where(std > 0, (x - state.mean) / jnp.where(std > 0, std, 1.0), 0.0)


def run_length(limit: float, shift: float) -> float:
    r"""Mean steps to a false alarm of ``cusum`` on independent standard normal numbers, approximately.

    .. math:: \frac{e^{\delta b} - \delta b - 1}{\delta^2 / 2}, \qquad b = h + 1.166

    Source: Siegmund 1985, Sequential Analysis, section 2.6: Wald's approximation for the drift :math:`-\delta / 2`,
    with the barrier moved by what a Gaussian walk oversteps it.

    >>> round(run_length(4.0, 1.0))  # by an integral equation: 335
    338
    """
    x = shift * (limit + SHORTFALL)
    return (math.expm1(x) - x) / (shift**2 / 2)


def threshold(false_alarm_every: float, shift: float) -> float:
    """The ``h`` of ``run_length``'s inverse, at least 0, by bisection."""
    checks.number("false_alarm_every", false_alarm_every, 1.0, 1e30)
    low, high = 0.0, 80.0 / shift
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if run_length(middle, shift) < false_alarm_every else (low, middle)
    return high


def surprise(model: Model, params: Params, rows: Transition) -> Array:
    r"""How far each next observation lay from its prediction, as a number that is about standard normal where the
    model is right.

    .. math:: q = \sum_{d=1}^{D} \left(\frac{o'_d - \mu_d}{\sigma_d}\right)^2, \qquad
              \frac{(q / D)^{1/3} - (1 - \tfrac{2}{9 D})}{\sqrt{2 / (9 D)}}

    The cube root of :math:`\chi^2_D` is almost normal, and lets no single error outweigh all others. The reward counts
    as one more entry where it is learned; entries that are predicted with std 0 do not count, and where none is left
    the result is 0.

    Args:
      model, params: a model with ``predict``, whose belief one observation tells; an ensemble predicts the mixture.
      rows: ``Transition[N]``.

    Returns:
      ``float32[N]``.

    Raises:
      ValueError: a model that predicts nothing.

    Source: Wilson & Hilferty 1931, PNAS 17(12).
    """
    if model.predict is None:
        raise ValueError("surprise needs a model with predict, got one without")

    def one(row: Transition) -> Array:
        start = model.initial(params), jnp.zeros_like(row.action)
        belief = model.encode(jax.random.key(0), params, *start, row.obs, jnp.asarray(True))
        said = model.predict(params, belief, row.action)
        error = jnp.append(row.next_obs - said.mean, row.reward - said.reward_mean)
        std = jnp.append(said.std, said.reward_std)
        known = std > 0
        degrees = jnp.maximum(jnp.sum(known), 1)
        square = jnp.sum(jnp.where(known, error / jnp.where(known, std, 1.0), 0.0) ** 2) / degrees
        width = 2.0 / (9.0 * degrees)
        return jnp.where(jnp.any(known), (jnp.cbrt(square) - (1.0 - width)) / jnp.sqrt(width), 0.0)

    return jax.vmap(one)(rows)


def watch(detector: ChangeDetector, state: PyTree, surprises: Array, known: Array) -> tuple[PyTree, Array]:
    """``detector`` after the numbers ``surprises[T]`` in their order, and whether it now sounds an alarm.

    Numbers that are not ``known[T]`` are stood in for by 0 surprise, so that the count of steps stays true.
    """

    def body(state: PyTree, each: tuple[Array, Array]) -> tuple[PyTree, Array]:
        return detector.update(state, jnp.where(each[1], each[0], 0.0))

    state, alarms = jax.lax.scan(body, state, (surprises, known))
    return state, alarms[-1]
