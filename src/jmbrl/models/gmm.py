"""Dynamics from a Gaussian mixture over states, actions and changes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.models import mixture, regression
from jmbrl.models.regression import Problem
from jmbrl.models.state_space import Stats
from jmbrl.networks import fast_normal
from jmbrl.types import Array, Key, Model, PyTree, Spec


def gmm(
    spec: Spec,
    *,
    components: int = 10,
    iterations: int = 50,
    floor: float = 1e-4,
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
    r"""A mixture of Gaussians with full covariances over ``z = (x, y)``, conditioned on ``x`` to predict ``y``.

    .. math:: p(y | x) = \sum_k r_k(x) N(y; \mu_k^y + \Sigma_k^{yx} (\Sigma_k^{xx})^{-1} (x - \mu_k^x), \Sigma_k^{y|x})

    with ``r_k(x)`` proportional to ``pi_k N(x; mu_k^x, Sigma_k^xx)``: locally linear dynamics whose noise depends on
    the place and whose outputs depend on each other. ``x`` are standardised inputs, ``y`` standardised targets.
    ``step`` samples a component and then its Gaussian, ``expect`` is the mixture's mean, ``predict`` its moments.
    Every fit starts anew and runs ``models.em``. Before the first fit nothing changes: the targets' prediction is 0.

    Args:
      spec: observations must be a vector. Discrete actions enter as one-hot.
      components: Gaussians, at least 1.
      iterations: steps of expectation-maximisation per fit, at least 1.
      floor: variance added to every column, in units of its variance over the data; positive. It bounds the noise from
        below: 1e-4 is a standard deviation of 1 %.
      reward, predict_change, absolute, angles, exogenous, forecast, preprocess, postprocess, clip_range: as in
        ``models.gaussian_mlp``.
      termination: ``(obs, action, next_obs) -> bool``; None: never terminates. It cannot be learned here.

    Returns:
      A ``Model`` to be fitted by ``models.trainer(model)``. ``info``: ``mse`` (of the mean, in the targets' units),
      ``loss`` (minus the objective of ``models.em``), ``gain`` (what the last step still added to it), ``raised`` (how
      often a covariance had to be raised to be factorised).

    Raises:
      ValueError: image observations, termination to be learned, or an option outside its range.

    Source: Bishop 2006, Pattern Recognition and Machine Learning, sections 2.3.1 and 9.2.
    """
    shared = regression.frame(
        "gmm",
        spec,
        {
            "reward": reward, "termination": termination, "predict_change": predict_change, "absolute": absolute,
            "angles": angles, "exogenous": exogenous, "forecast": forecast, "preprocess": preprocess,
            "postprocess": postprocess, "clip_range": clip_range,
        },
    )  # fmt: skip
    components = checks.integer("components", components, 1)
    iterations = checks.integer("iterations", iterations, 1)
    floor = checks.number("floor", floor, 1e-7)

    def weights(key: Key) -> PyTree:
        del key
        return mixture.empty(components, shared.inputs, shared.targets)

    def fit(key: Key, weights: PyTree, given: Problem, stats: Stats) -> tuple[PyTree, dict[str, Array]]:
        del weights
        z = jnp.concatenate([given.x, given.y], axis=1)
        joint, trace, raised = mixture.em(key, z, given.weight, components, iterations, floor)
        new, more = mixture.condition(joint, shared.inputs)
        error = given.y - mean(new, given.x)
        info = {
            "mse": regression.squared_error(stats, error, given.weight),
            "loss": -trace[-1],
            "gain": trace[-1] - trace[-2],
            "raised": raised + more,
        }
        return new, info

    def mean(weights: PyTree, x: Array) -> Array:
        return mixture.moments(weights, x)[0]

    def sample(key: Key, weights: PyTree, x: Array) -> Array:
        key_component, key_noise = jax.random.split(key)
        log_share, means = mixture.responsible(weights, x)
        chosen = jax.random.categorical(key_component, log_share)
        noise = fast_normal(key_noise, (x.shape[0], shared.targets))
        centre = jnp.take_along_axis(means, chosen[:, None, None], axis=1)[:, 0]
        return centre + jnp.einsum("nij,nj->ni", weights.factor[chosen], noise)

    return regression.assemble(shared, weights=weights, fit=fit, mean=mean, moments=mixture.moments, sample=sample)
