"""Gaussian-process dynamics: exact, one process per output, solved in float64."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.models import gp_math, regression
from jmbrl.models.double import Pair, differentiable, in_double, pair, rounded, widen
from jmbrl.models.gp_math import Hyper, Posterior, Prior
from jmbrl.models.regression import Problem
from jmbrl.models.state_space import Frame, Stats
from jmbrl.types import Array, Key, Model, PyTree, Spec

_CHUNK = 512  # rows evaluated at a time: kernels of all of a planner's rows would not fit in memory


class GPWeights(NamedTuple):
    """``hyper``: leaves ``[T, ...]``, one per output; rows ``x[P, D]`` and their ``weight[P]``; the ``posterior``."""

    hyper: Hyper
    x: Array
    weight: Array
    posterior: Posterior


class Solution(NamedTuple):
    """What one fit finds, leaves in float64 and ``[T, ...]``; ``x, y, weight``: the rows it used."""

    hyper: Hyper
    x: Array
    y: Array
    weight: Array
    posterior: Posterior
    loss: Array
    raised: Array


class Process(NamedTuple):
    """The static choices of ``gp``: its frame, capacity, prior and search."""

    frame: Frame
    points: int
    search_points: int
    prior: Prior
    steps: int
    learning_rate: float
    subset: str
    double: bool
    two_starts: bool


def gp(
    spec: Spec,
    *,
    points: int = 1000,
    search_points: int = 300,
    steps: int = 100,
    learning_rate: float = 0.1,
    noise_floor: float = 1e-3,
    subset: str = "random",
    two_starts: bool = False,
    double: bool = True,
    reward: Callable | None = None,
    termination: Callable | None = None,
    predict_change: bool = True,
    absolute: tuple[int, ...] = (),
    angles: tuple[int, ...] = (),
    exogenous: tuple[int, ...] = (),
    forecast: Callable | None = None,
    preprocess: Callable | None = None,
    postprocess: Callable | None = None,
    clip_range: float | None = 2.0,
) -> Model:
    r"""A Gaussian process per output: what follows from the rows, and how uncertain it is elsewhere.

    .. math:: y = f(x) + N(0, n^2), \quad f \sim GP(0, s^2 \exp(-\sum_d (x_d - x'_d)^2 / 2 l_d^2))

    on standardised inputs and targets. ``l, s, n`` of each output maximise the marginal likelihood times log-normal
    priors (medians: ``l = sqrt(inputs)``, ``s = 1``, ``n = 0.1``) by Adam on some of the rows, starting from the last
    fit's. Solving is done in float64 inside the float32 program, and so is predicting unless ``double`` is False.

    ``step`` samples each output independently from its predictive distribution, anew at each step: uncertainty of the
    model and noise together. For trajectories of *one* function use ``models.gp_function_samples``. ``expect`` is the
    posterior mean, ``predict`` mean and standard deviation, noise included. Before the first fit they are the prior's:
    nothing changes, with a standard deviation of about 1.

    A fit costs ``outputs * (steps * search_points^3 + points^3)`` however few rows there are, an imagined row
    ``outputs * points^2``; parameters hold ``2 * outputs * points^2`` floats. On a CPU the factorisation is LAPACK's:
    on few or busy cores set ``OPENBLAS_NUM_THREADS=1``, as its threads waiting for each other can cost 100 times the
    work.

    Args:
      spec: observations must be a vector. Discrete actions enter as one-hot.
      points: rows that are kept; where there are more, a subset is.
      search_points: at most this many of them judge the hyper-parameters; all rows kept then predict with the result.
      steps: of Adam per fit; 0 keeps the hyper-parameters.
      learning_rate: its first rate, in logarithms of the hyper-parameters.
      noise_floor: least ``n``, in standard deviations of the target; at least 1e-5. It bounds the condition of the
        equations.
      subset: ``"random"``, drawn anew in each fit, or ``"newest"``, the last ones in the order of the replay (the order
        of time until its ring wraps around).
      two_starts: search for hyper-parameters from the priors' medians as well, and keep the better: for twice the time,
        a fit is not stuck with the last one's, whose units change with the spread of the rows.
      double: predict in float64; False: in float32, faster, with errors up to about 1e-3 of a target's spread.
      reward, predict_change, absolute, angles, exogenous, forecast, preprocess, postprocess, clip_range: as in
        ``models.gaussian_mlp``.
      termination: ``(obs, action, next_obs) -> bool``; None: never terminates. It cannot be learned here.

    Returns:
      A ``Model`` to be fitted by ``models.trainer(model)``; its derivatives are by belief and action only. ``info``:
      ``mse`` (on the rows kept, in the targets' units), ``loss`` (minus the log posterior of the hyper-parameters per
      row searched and output), ``points`` (rows used), ``noise`` (mean ``n``), ``raised`` (how often a diagonal had to
      be raised to be factorised).

    Raises:
      ValueError: image observations, termination to be learned, or an option outside its range.

    Source: Rasmussen and Williams 2006, algorithm 2.1; Deisenroth and Rasmussen 2011, PILCO, section 2.1.
    """
    options = {
        "reward": reward, "termination": termination, "predict_change": predict_change, "absolute": absolute,
        "angles": angles, "exogenous": exogenous, "forecast": forecast, "preprocess": preprocess,
        "postprocess": postprocess, "clip_range": clip_range,
    }  # fmt: skip
    made = process(
        "gp", spec, options, points, search_points, steps, learning_rate, noise_floor, subset, double, two_starts
    )
    evaluate, evaluate_mean = (per_output(f, made) for f in (gp_math.mean_and_variance, gp_math.mean))

    def weights(key: Key) -> PyTree:
        del key
        zeros = jnp.zeros((made.frame.targets, points))
        square = jnp.zeros((made.frame.targets, points, points))
        posterior = Posterior(Pair(zeros, zeros), Pair(square, square))
        return GPWeights(first_hyper(made), jnp.zeros((points, made.frame.inputs)), jnp.zeros(points), posterior)

    @in_double
    def solved(key: Key, hyper: Hyper, given: Problem, stats: Stats) -> tuple[GPWeights, dict[str, Array]]:
        found, info = solve(key, made, hyper, given, stats)
        posterior = Posterior(pair(found.posterior.alpha), pair(found.posterior.inverse))
        return GPWeights(found.hyper, found.x, found.weight, posterior), info

    def fit(key: Key, weights: GPWeights, given: Problem, stats: Stats) -> tuple[PyTree, dict[str, Array]]:
        return solved(key, weights.hyper, given, stats)

    def moments(weights: GPWeights, x: Array) -> tuple[Array, Array]:
        mean, variance = evaluate((weights.hyper, weights.posterior), (weights.x, weights.weight), x)
        return mean, jnp.sqrt(variance + noise_variances(weights.hyper, made))

    def mean(weights: GPWeights, x: Array) -> Array:
        return evaluate_mean((weights.hyper, weights.posterior), (weights.x, weights.weight), x)

    return regression.assemble(made.frame, weights=weights, fit=fit, mean=mean, moments=moments)


def process(
    user: str,
    spec: Spec,
    options: dict[str, Any],
    points: int,
    search_points: int,
    steps: int,
    learning_rate: float,
    noise_floor: float,
    subset: str,
    double: bool,
    two_starts: bool = False,
) -> Process:
    """Checks what the Gaussian-process models have in common."""
    frame = regression.frame(user, spec, options)
    points = checks.integer("points", points, 1)
    search_points = min(checks.integer("search_points", search_points, 1), points)
    steps = checks.integer("steps", steps, 0)
    learning_rate = checks.number("learning_rate", learning_rate, 0.0)
    noise_floor = checks.number("noise_floor", noise_floor, 1e-5)
    checks.choice("subset", subset, ("random", "newest"))
    prior = gp_math.prior(frame.inputs, noise_floor)
    return Process(frame, points, search_points, prior, steps, learning_rate, subset, double, two_starts)


def first_hyper(made: Process) -> Hyper:
    """Where the first fit starts, one per output."""
    one = gp_math.start(made.prior, made.frame.inputs)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (made.frame.targets, *x.shape)), one)


def solve(key: Key, made: Process, hyper: Hyper, given: Problem, stats: Stats) -> tuple[Solution, dict[str, Array]]:
    """Chooses rows, improves the hyper-parameters, conditions; call it where float64 is enabled."""
    x, y, weight = widen(tuple(chosen(key, given, made)))

    few = made.search_points  # the rows come in order of preference, those of no weight last

    def one(hyper: Hyper, y: Array) -> tuple:
        loss = lambda h: gp_math.loss_and_gradient(h, x[:few], y[:few], weight[:few], made.prior)  # noqa: E731
        search = lambda hyper: gp_math.optimise(hyper, loss, made.steps, made.learning_rate)  # noqa: E731
        if made.two_starts:
            fresh = gp_math.start(made.prior, made.frame.inputs)
            starts = jax.tree.map(lambda a, b: jnp.stack([a, jnp.asarray(b, a.dtype)]), hyper, fresh)
            # One after another: two batches of factorisations at once may wait for each other (docs/faults.md).
            found, values = jax.lax.map(search, starts)
            best = jax.tree.map(lambda x: jnp.where(values[1] < values[0], x[1], x[0]), found)
            value = jnp.min(values)
        else:
            best, value = search(hyper)
        # What predicts later is the float32 hyper-parameter, so that is what the rows are conditioned with.
        best = jax.tree.map(lambda x: x.astype(np.float32).astype(x.dtype), best)
        posterior, raised = gp_math.condition(best, x, y, weight, made.prior)
        return best, posterior, value, raised

    hyper, posterior, loss, raised = jax.vmap(one, in_axes=(0, 1))(widen(hyper), y)
    found = Solution(hyper, x, y, weight, posterior, loss, raised)
    noise = noise_variances(hyper, made)
    # The residual of a row is its share of the noise, y - K (K + n^2 / c)^-1 y = (n^2 / c) alpha.
    error = noise / jnp.where(weight > 0, weight, 1.0)[:, None] * posterior.alpha.T
    info = {
        "mse": regression.squared_error(stats, jnp.where((weight > 0)[:, None], error, 0.0), weight),
        "loss": jnp.mean(loss) / jnp.maximum(jnp.sum(weight[:few] > 0), 1),
        "points": jnp.sum(weight > 0),
        "noise": jnp.mean(jnp.sqrt(noise)),
        "raised": jnp.sum(raised),
    }
    return found, info


def noise_variances(hyper: Hyper, made: Process) -> Array:
    """``[T]``, in standardised targets."""
    return jax.vmap(gp_math.noise_variance, in_axes=(0, None))(hyper, made.prior)


def per_output(function: Callable, made: Process) -> Callable:
    """``function(*constants, x, weight, at[D])`` of one output for all of them and many rows.

    Returns ``(constants[T], (x, weight), at[N, D]) -> leaves [N, T]``.
    """

    def plain(constants: tuple, at: Array) -> PyTree:
        each, data = constants
        return function(*each, *data, at)

    one = differentiable(plain) if made.double else lambda constants, at: plain(rounded(constants), at)

    def rows(each: tuple, data: tuple, at: Array) -> PyTree:
        act = lambda row: jax.vmap(lambda constants: one((constants, data), row))(each)  # noqa: E731
        return jax.vmap(act)(at) if at.shape[0] <= _CHUNK else jax.lax.map(act, at, batch_size=_CHUNK)

    return rows


def chosen(key: Key, given: Problem, made: Process) -> Problem:
    """At most ``points`` rows of those with weight, filled up with rows of weight 0."""
    total = given.weight.shape[0]
    if made.subset == "random":
        rank = jax.random.uniform(key, (total,), np.float32)
    else:
        rank = jnp.arange(total, dtype=np.float32)
    _, index = jax.lax.top_k(jnp.where(given.weight > 0, rank, -1.0), min(made.points, total))
    missing = made.points - index.shape[0]
    return Problem(*(jnp.pad(x[index], [(0, missing)] + [(0, 0)] * (x.ndim - 1)) for x in given))
