"""Networks that predict the next observation: one by its value, one by a Gaussian."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jmbrl.models import heads, state_space
from jmbrl.networks import apply_dense, fast_normal, init_dense, swish
from jmbrl.types import Array, Key, Model, Params, Spec, Transition


def deterministic_mlp(
    spec: Spec,
    hidden: Sequence[int] = (200,) * 4,
    *,
    reward: Callable | None = None,
    termination: Callable | str | None = None,
    predict_change: bool = True,
    absolute: tuple[int, ...] = (),
    angles: tuple[int, ...] = (),
    exogenous: tuple[int, ...] = (),
    forecast: Callable | None = None,
    normalize_targets: bool = False,
    preprocess: Callable | None = None,
    postprocess: Callable | None = None,
    activation: Callable = swish,
    weight_decay: float | Sequence[float] | None = None,
    clip_range: float | None = 2.0,
) -> Model:
    """A network ``(obs, action) -> next obs`` trained on the squared error.

    ``loss = mean_batch mean_dims (f(x) - y)^2 + sum_l wd_l ||W_l||^2 / 2 (+ the termination head's cross-entropy)``.
    The options are those of ``gaussian_mlp``.
    """
    frame = state_space.frame(
        "deterministic_mlp", spec, reward, termination, predict_change, absolute, preprocess, postprocess, clip_range,
        angles, exogenous, forecast, normalize_targets,
    )  # fmt: skip
    decay = heads.decays(weight_decay, len(hidden))
    sizes = heads.sizes(frame, hidden, frame.targets)

    def init(key: Key) -> Params:
        return Params({"layers": init_dense(key, sizes)}, frame.empty_stats())

    def forward(params: Params, obs: Array, action: Array) -> tuple[Array, Array]:
        x = frame.normalized_inputs(params.stats, obs, action)
        out = apply_dense(params.weights["layers"], x, activation)
        return out[:, : frame.targets], out[:, -1]

    def expect(params: Params, beliefs: Array, actions: Array):
        mean, logit = forward(params, beliefs, actions)
        return frame.outcome(params.stats, beliefs, actions, frame.unscaled(params.stats, mean), logit)

    def step_many(key: Key, params: Params, beliefs: Array, actions: Array):
        del key
        return expect(params, beliefs, actions)

    def moments(params: Params, obs: Array, action: Array) -> tuple[Array, Array]:
        mean = frame.unscaled(params.stats, forward(params, obs, action)[0])
        return mean, jnp.zeros_like(mean)

    def loss(key: Key, params: Params, batch: Transition):
        del key
        mean, logit = forward(params, batch.obs, batch.action)
        mse = jnp.mean((mean - frame.scaled(params.stats, frame.target(batch))) ** 2)
        end = heads.end_loss(frame, logit, batch)
        return mse + heads.penalty(params.weights["layers"], decay) + end, {"mse": mse, "end_loss": end}

    return heads.assemble(frame, init, step_many, expect, moments, loss)


def gaussian_mlp(
    spec: Spec,
    hidden: Sequence[int] = (200,) * 4,
    *,
    reward: Callable | None = None,
    termination: Callable | str | None = None,
    predict_change: bool = True,
    absolute: tuple[int, ...] = (),
    angles: tuple[int, ...] = (),
    exogenous: tuple[int, ...] = (),
    forecast: Callable | None = None,
    normalize_targets: bool = False,
    preprocess: Callable | None = None,
    postprocess: Callable | None = None,
    activation: Callable = swish,
    weight_decay: float | Sequence[float] | None = None,
    learn_logvar_bounds: bool = True,
    clip_range: float | None = 2.0,
) -> Model:
    """A network that predicts a diagonal Gaussian over the next observation: one member of PETS' or MBPO's ensemble.

    ``x = normalise([preprocess(obs), action])``, dense layers with an activation, then ``mean`` and a raw
    log-variance ``l``, which two soft bounds hold between ``min`` and ``max``:
    ``l <- max - softplus(max - l)``, ``l <- min + softplus(l - min)``. With targets ``y`` (the change of the
    observation, not normalised, and the reward where it is learned)
    ``loss = mean_batch mean_dims [(mean - y)^2 exp(-l) + l] + sum_l wd_l ||W_l||^2 / 2 + 0.01 (sum max - sum min)``.

    The bounds start at 0.5 and -10 per output and are learned. PETS shares them among the members of an ensemble;
    here every member has its own, so that a member whose loss turns non-finite cannot reach the others.

    Args:
      spec: observations must be a vector. Discrete actions enter as one-hot.
      hidden: widths of the hidden layers.
      reward: ``(obs, action, next_obs) -> float32``, one row; None: a head learns it from the data.
      termination: ``(obs, action, next_obs) -> bool``, one row; ``"learned"``: a head trained on ``terminated`` (never
        on time limits), whose probability of going on is the outcome's discount; None: never terminates.
      predict_change: targets are ``next_obs - obs``; False: ``next_obs``.
      absolute: indices of dimensions whose target is ``next_obs`` in any case (PETS' half-cheetah velocity).
      angles: indices of periodic entries, in radians. The network reads their sines and cosines (unless ``preprocess``
        is given), the target is the shortest turn, in ``[-pi, pi)``, and so are imagined angles.
      exogenous: indices of entries that the agent does not influence (weather, a set-point): the network reads them but
        neither predicts nor learns them. Imagination holds them, or takes them from
      forecast: ``obs[D] -> float32[len(exogenous)]``, one row: their next values, in the order of ``exogenous``.
      normalize_targets: divide each target by its standard deviation in the data, so that entries of small change
        count as much as others. ``mse`` and the variance's bounds are then in these units.
      preprocess: ``obs[D] -> float32[F]``, what the network reads of an observation.
      postprocess: ``next_obs[D] -> next_obs[D]``, after every imagined step.
      activation: between the layers.
      weight_decay: ``wd_l``, one per layer (``len(hidden) + 1``) or one for all; None: PETS' half-cheetah values.
      learn_logvar_bounds: False keeps the bounds at their start (mbrl-lib's default).
      clip_range: a predicted observation further outside the data than this many of the data's ranges is pulled back
        to that border and ``Outcome.clipped`` is set; None: never. Angles and exogenous entries have no such border.

    Raises:
      ValueError: for image observations, an index outside the observation or in two roles, or a wrong number of decays.

    Source: Chua et al. 2018, PETS, section 4 and its code (dmbrl/modeling/models/BNN.py); Janner et al. 2019, MBPO.
    """
    frame = state_space.frame(
        "gaussian_mlp", spec, reward, termination, predict_change, absolute, preprocess, postprocess, clip_range,
        angles, exogenous, forecast, normalize_targets,
    )  # fmt: skip
    decay = heads.decays(weight_decay, len(hidden))
    n = frame.targets
    sizes = heads.sizes(frame, hidden, 2 * n)
    bounds = heads.LogVarianceBounds(n, learn_logvar_bounds)

    def init(key: Key) -> Params:
        return Params({"layers": init_dense(key, sizes)} | bounds.init(), frame.empty_stats())

    def forward(params: Params, obs: Array, action: Array) -> tuple[Array, Array, Array]:
        x = frame.normalized_inputs(params.stats, obs, action)
        out = apply_dense(params.weights["layers"], x, activation)
        return out[:, :n], out[:, n : 2 * n], out[:, -1]

    def step_many(key: Key, params: Params, beliefs: Array, actions: Array):
        mean, raw, logit = forward(params, beliefs, actions)
        noise = fast_normal(key, mean.shape)
        sample = mean + jnp.sqrt(bounds.variance(params.weights, raw)) * noise
        return frame.outcome(params.stats, beliefs, actions, frame.unscaled(params.stats, sample), logit)

    def expect(params: Params, beliefs: Array, actions: Array):
        mean, _, logit = forward(params, beliefs, actions)
        return frame.outcome(params.stats, beliefs, actions, frame.unscaled(params.stats, mean), logit)

    def moments(params: Params, obs: Array, action: Array) -> tuple[Array, Array]:
        mean, raw, _ = forward(params, obs, action)
        std = jnp.sqrt(bounds.variance(params.weights, raw))
        return frame.unscaled(params.stats, mean), frame.unscaled(params.stats, std)

    def loss(key: Key, params: Params, batch: Transition):
        del key
        mean, raw, logit = forward(params, batch.obs, batch.action)
        var = bounds.variance(params.weights, raw)
        error = (mean - frame.scaled(params.stats, frame.target(batch))) ** 2
        nll = jnp.mean(error / var + jnp.log(var))
        end = heads.end_loss(frame, logit, batch)
        info = {
            "mse": jnp.mean(error),
            "nll": nll,
            "end_loss": end,
            "logvar_saturated": bounds.saturated(params.weights, raw),
            "weighted_mse": jnp.mean(error / jax.lax.stop_gradient(var)),
        }
        return nll + heads.penalty(params.weights["layers"], decay) + bounds.width(params.weights) + end, info

    return heads.assemble(frame, init, step_many, expect, moments, loss)
