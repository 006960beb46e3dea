"""Linear-Gaussian dynamics in given features, by weighted ridge regression."""

from collections.abc import Callable

import jax.numpy as jnp

from jmbrl import checks
from jmbrl.models import cholesky, regression
from jmbrl.models.features import FeatureMap, polynomial
from jmbrl.models.regression import Problem
from jmbrl.models.state_space import Stats
from jmbrl.types import Array, Key, Model, PyTree, Spec

_DEPENDENT = 10.0  # a column left with less than this many ridges of its own is a combination of others


def linear(
    spec: Spec,
    *,
    features: FeatureMap | int | None = None,
    ridge: float = 1e-6,
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
    r"""``y = Theta^T phi(x) + N(0, diag(s^2))``: targets linear in features of the observation and the action.

    With standardised ``x`` and ``y``, features scaled to unit root mean square and rows counted ``c_i`` times,

    .. math:: \Theta = \arg\min \sum_i c_i |y_i - \Theta^T \phi(x_i)|^2 / \sum_i c_i + \lambda |\Theta|^2, \quad
       s_j^2 = \sum_i c_i r_{ij}^2 / \max(\sum_i c_i - M, 1)

    for ``M`` independent features and residuals ``r``. The normal equations are solved by Cholesky and refined twice
    on the residuals, which gives the accuracy of a QR in float32. Where rows are fewer than features, or features
    depend on each other, the ridge chooses the smallest coefficients. ``step`` samples the noise, ``expect`` leaves it
    out, ``predict`` tells both moments. Before the first fit nothing changes: the targets' prediction is 0.

    Args:
      spec: observations must be a vector. Discrete actions enter as one-hot.
      features: a map such as ``models.polynomial(2)`` or ``models.random_fourier(200)``; a number is the degree of a
        polynomial; None: the inputs and a constant.
      ridge: ``lambda``, relative as above, positive.
      reward, predict_change, absolute, angles, exogenous, forecast, preprocess, postprocess, clip_range: as in
        ``models.gaussian_mlp``.
      termination: ``(obs, action, next_obs) -> bool``; None: never terminates. It cannot be learned here.

    Returns:
      A ``Model`` to be fitted by ``models.trainer(model)``. ``info``: ``mse`` (the targets' units), ``loss`` (mean of
      ``r^2 / s^2 + log s^2``, standardised targets), ``dependent`` (features that depend on others), ``jittered`` (how
      often the ridge had to be raised tenfold to be solvable).

    Raises:
      ValueError: image observations, termination to be learned, or an option outside its range.

    Source: Bishop 2006, Pattern Recognition and Machine Learning, section 3.1.4; Golub and Van Loan 2013, 5.3.8
    (refinement).
    """
    shared = regression.frame(
        "linear",
        spec,
        {
            "reward": reward, "termination": termination, "predict_change": predict_change, "absolute": absolute,
            "angles": angles, "exogenous": exogenous, "forecast": forecast, "preprocess": preprocess,
            "postprocess": postprocess, "clip_range": clip_range,
        },
    )  # fmt: skip
    ridge = checks.number("ridge", ridge, 1e-12)
    if features is None or isinstance(features, int):
        features = polynomial(1 if features is None else features)
    basis = features
    columns = basis.size(shared.inputs)

    def weights(key: Key) -> PyTree:
        theta = jnp.zeros((columns, shared.targets))
        return {"basis": basis.init(key, shared.inputs), "theta": theta, "std": jnp.zeros(shared.targets)}

    def fit(key: Key, weights: PyTree, given: Problem, stats: Stats) -> tuple[PyTree, dict[str, Array]]:
        del key
        total = regression.at_least_one(given.weight)
        share = (given.weight / total)[:, None]
        phi = basis.apply(weights["basis"], given.x)
        scale = jnp.sqrt(jnp.sum(share * phi**2, axis=0))
        scale = jnp.where(scale > 1e-6, scale, 1.0)
        phi = phi / scale
        factor, jittered = cholesky.cholesky(phi.T @ (share * phi), ridge)
        theta = jnp.zeros((columns, shared.targets))
        for _ in range(3):
            slope = phi.T @ (share * (given.y - phi @ theta)) - ridge * theta
            theta = theta + cholesky.solve(factor, slope)
        error = given.y - phi @ theta
        dependent = jnp.sum(jnp.diagonal(factor) ** 2 < _DEPENDENT * ridge)
        freedom = jnp.maximum(total - (columns - dependent), 1.0)
        variance = jnp.sum(given.weight[:, None] * error**2, axis=0) / freedom
        likely = jnp.maximum(variance, 1e-12)
        info = {
            "mse": regression.squared_error(stats, error, given.weight),
            "loss": jnp.mean(jnp.sum(share * error**2, axis=0) / likely + jnp.log(likely)),
            "dependent": dependent,
            "jittered": jittered,
        }
        return weights | {"theta": theta / scale[:, None], "std": jnp.sqrt(variance)}, info

    def mean(weights: PyTree, x: Array) -> Array:
        return basis.apply(weights["basis"], x) @ weights["theta"]

    def moments(weights: PyTree, x: Array) -> tuple[Array, Array]:
        centre = mean(weights, x)
        return centre, jnp.broadcast_to(weights["std"], centre.shape)

    return regression.assemble(shared, weights=weights, fit=fit, mean=mean, moments=moments)
