"""Functions drawn from a Gaussian process's posterior: one world each, the same along a whole trajectory."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.models import gp_math, regression
from jmbrl.models.double import Pair, in_double, pair
from jmbrl.models.ensemble import ensemble, one_member
from jmbrl.models.gp import Solution, first_hyper, noise_variances, per_output, process, solve
from jmbrl.models.gp_math import Hyper, Prior
from jmbrl.models.regression import Problem
from jmbrl.models.state_space import Stats
from jmbrl.types import Array, Key, Model, Params, PyTree, Spec, Transition


class Path(NamedTuple):
    """One drawn function: ``amplitude . (cos, sin)(frequency x / l)``, and its update ``k(x, rows) . pull``.

    ``frequency[M, D]``, ``amplitude[2, M]``, ``pull[P]``.
    """

    frequency: Array
    amplitude: Array
    pull: PyTree


class FunctionWeights(NamedTuple):
    """``hyper`` and ``path``: leaves ``[T, ...]``; the rows ``x[P, D]`` with their ``weight[P]``."""

    hyper: Hyper
    path: Path
    x: Array
    weight: Array


def gp_function_samples(
    spec: Spec,
    n: int,
    *,
    propagation: str = "tsinf",
    waves: int = 1024,
    points: int = 1000,
    search_points: int = 300,
    steps: int = 100,
    learning_rate: float = 0.1,
    noise_floor: float = 1e-3,
    subset: str = "random",
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
    r"""``models.gp`` as an ensemble of ``n`` functions drawn from its posterior, one per member.

    A function is drawn from the prior by random waves and then moved through the data (Matheron's rule),

    .. math:: f(x) = \phi(x)^T w + k(x, X) (K + \Sigma)^{-1} (y - \Phi w - \epsilon), \quad
       w \sim N(0, I), \; \epsilon \sim N(0, \Sigma)

    with ``phi`` the random Fourier features of the kernel and ``Sigma`` the noise. Each fit solves one Gaussian process
    on all rows, without bootstrap, and draws ``n`` new functions. A member's step is its function plus the noise of the
    data; so a trajectory that stays with one member (``propagation="tsinf"``, the default, with particles a multiple of
    ``n``) is imagined in one consistent world, where ``models.gp`` draws another at every step. An imagined row costs
    ``outputs * (points + waves)``, far less than ``models.gp``'s.

    Args:
      spec: observations must be a vector. Discrete actions enter as one-hot.
      n: functions, at least 1.
      propagation: as in ``models.ensemble``.
      waves: ``M``, of the prior's approximation, at least 1.
      points, search_points, steps, learning_rate, noise_floor, subset, double: as in ``models.gp``.
      reward, termination, predict_change, absolute, angles, exogenous, forecast, preprocess, postprocess, clip_range:
        as in ``models.gp``.

    Returns:
      A ``Model`` with ``n`` members, to be fitted by ``models.trainer(model)``; ``info`` as from ``models.gp``.
      ``predict`` of a member tells its function and the noise, that of the whole their mixture.

    Raises:
      ValueError: image observations, termination to be learned, or an option outside its range.

    Source: Wilson et al. 2020, Efficiently Sampling Functions from Gaussian Process Posteriors, equation 13.
    """
    options = {
        "reward": reward, "termination": termination, "predict_change": predict_change, "absolute": absolute,
        "angles": angles, "exogenous": exogenous, "forecast": forecast, "preprocess": preprocess,
        "postprocess": postprocess, "clip_range": clip_range,
    }  # fmt: skip
    made = process(
        "gp_function_samples", spec, options, points, search_points, steps, learning_rate, noise_floor, subset, double
    )
    n = checks.integer("n", n, 1)
    waves = checks.integer("waves", waves, 1)
    frame = made.frame
    evaluate = per_output(_value, made)

    def weights(key: Key) -> FunctionWeights:
        del key
        # No waves before the first fit: an arbitrary function would be taken for knowledge.
        pull = jnp.zeros((frame.targets, points))
        frequency, amplitude = jnp.zeros((frame.targets, waves, frame.inputs)), jnp.zeros((frame.targets, 2, waves))
        path = Path(frequency, amplitude, Pair(pull, pull))
        return FunctionWeights(first_hyper(made), path, jnp.zeros((points, frame.inputs)), jnp.zeros(points))

    def draw(key: Key, found: Solution) -> FunctionWeights:
        """One function per output; call it where float64 is enabled."""

        def one(key: Key, hyper: Hyper, y: Array, inverse: Array) -> Path:
            return draw_path(key, waves, hyper, found.x, y, found.weight, inverse, made.prior)

        keys = jax.random.split(key, frame.targets)
        path = jax.vmap(one, in_axes=(0, 0, 1, 0))(keys, found.hyper, found.y, found.posterior.inverse)
        return FunctionWeights(found.hyper, path._replace(pull=pair(path.pull)), found.x, found.weight)

    def fit_many(count: int) -> Callable:
        def solved(key: Key, hyper: Hyper, given: Problem, stats: Stats) -> tuple[FunctionWeights, dict[str, Array]]:
            key_fit, key_draw = jax.random.split(key)
            found, info = solve(key_fit, made, hyper, given, stats)
            return jax.vmap(lambda key: draw(key, found))(jax.random.split(key_draw, count)), info

        return in_double(solved)

    def fit_one(key: Key, weights: FunctionWeights, given: Problem, stats: Stats) -> tuple:
        drawn, info = fit_many(1)(key, weights.hyper, given, stats)
        return jax.tree.map(lambda x: x[0], drawn), info

    def fit(key: Key, params: Params, rows: Transition, weight: Array) -> tuple[Params, dict[str, Array]]:
        first = one_member(params, 0)
        given = regression.problem(frame, first.stats, rows, weight)
        drawn, info = fit_many(n)(key, first.weights.hyper, given, first.stats)
        return params._replace(weights=drawn), info

    def mean(weights: FunctionWeights, x: Array) -> Array:
        return evaluate((weights.hyper, weights.path), (weights.x, weights.weight), x)

    def moments(weights: FunctionWeights, x: Array) -> tuple[Array, Array]:
        value = mean(weights, x)
        return value, jnp.broadcast_to(jnp.sqrt(noise_variances(weights.hyper, made)), value.shape)

    member = regression.assemble(frame, weights=weights, fit=fit_one, mean=mean, moments=moments)
    return ensemble(member, n, propagation=propagation)._replace(fit=fit)


def draw_path(
    key: Key, waves: int, hyper: Hyper, x: Array, y: Array, weight: Array, inverse: Array, prior: Prior
) -> Path:
    """A function from the posterior of one output, given ``inverse = L^-1`` of its Gram matrix; in float64."""
    # One draw for all, in single precision: enough for what is random anyhow. float32 numbers also survive storage as
    # they are, so that the update undoes the very waves that will be evaluated.
    rows, inputs = x.shape
    normal = jax.random.normal(key, (waves * (inputs + 2) + rows,), np.float32)
    frequency, amplitude, noise = jnp.split(normal, (waves * inputs, waves * (inputs + 2)))
    amplitude = (amplitude.reshape(2, waves) * jnp.exp(hyper.log_signal) / math.sqrt(waves)).astype(np.float32)
    path = Path(frequency.reshape(waves, inputs), amplitude, jnp.zeros_like(y))
    path = jax.tree.map(lambda v: v.astype(x.dtype), path)
    before = jax.vmap(lambda at: _wave(hyper, path, at))(x)
    here = weight > 0
    spread = jnp.sqrt(gp_math.noise_variance(hyper, prior) / jnp.where(here, weight, 1.0))
    return path._replace(pull=inverse.T @ (inverse @ jnp.where(here, y - before - spread * noise, 0.0)))


def _wave(hyper: Hyper, path: Path, at: Array) -> Array:
    """The prior's function."""
    angle = path.frequency @ (at * jnp.exp(-hyper.log_length))
    return path.amplitude[0] @ jnp.cos(angle) + path.amplitude[1] @ jnp.sin(angle)


def _value(hyper: Hyper, path: Path, x: Array, weight: Array, at: Array) -> Array:
    return _wave(hyper, path, at) + gp_math.cross(hyper, x, weight, at) @ path.pull
