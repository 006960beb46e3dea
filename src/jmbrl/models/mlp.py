"""Networks that predict the next observation: one by its value, one by a Gaussian."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.models import state_space
from jmbrl.models.state_space import Frame
from jmbrl.networks import apply_dense, fast_normal, init_dense, swish
from jmbrl.types import Array, Key, Model, Params, Prediction, PyTree, Spec, Transition

# PETS' half-cheetah (handful-of-trials, config/halfcheetah.py) and MBPO on every task.
_WEIGHT_DECAY = (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4)
_MAX_LOGVAR, _MIN_LOGVAR = 0.5, -10.0


def deterministic_mlp(
    spec: Spec,
    hidden: Sequence[int] = (200,) * 4,
    *,
    reward: Callable | None = None,
    termination: Callable | str | None = None,
    predict_change: bool = True,
    absolute: tuple[int, ...] = (),
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
        "deterministic_mlp", spec, reward, termination, predict_change, absolute, preprocess, postprocess, clip_range
    )
    decay = _decays(weight_decay, len(hidden))
    sizes = _sizes(frame, hidden, frame.targets)

    def init(key: Key) -> Params:
        return Params({"layers": init_dense(key, sizes)}, frame.empty_stats())

    def forward(params: Params, obs: Array, action: Array) -> tuple[Array, Array]:
        x = frame.normalized_inputs(params.stats, obs, action)
        out = apply_dense(params.weights["layers"], x, activation)
        return out[:, : frame.targets], out[:, -1]

    def expect(params: Params, beliefs: Array, actions: Array):
        mean, logit = forward(params, beliefs, actions)
        return frame.outcome(params.stats, beliefs, actions, mean, logit)

    def step_many(key: Key, params: Params, beliefs: Array, actions: Array):
        del key
        return expect(params, beliefs, actions)

    def moments(params: Params, obs: Array, action: Array) -> tuple[Array, Array]:
        mean, _ = forward(params, obs, action)
        return mean, jnp.zeros_like(mean)

    def loss(key: Key, params: Params, batch: Transition):
        del key
        mean, logit = forward(params, batch.obs, batch.action)
        mse = jnp.mean((mean - frame.target(batch)) ** 2)
        end = _end_loss(frame, logit, batch)
        return mse + _penalty(params.weights["layers"], decay) + end, {"mse": mse, "end_loss": end}

    return _assemble(frame, init, step_many, expect, moments, loss)


def gaussian_mlp(
    spec: Spec,
    hidden: Sequence[int] = (200,) * 4,
    *,
    reward: Callable | None = None,
    termination: Callable | str | None = None,
    predict_change: bool = True,
    absolute: tuple[int, ...] = (),
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
      preprocess: ``obs[D] -> float32[F]``, what the network reads of an observation (sine and cosine of an angle).
      postprocess: ``next_obs[D] -> next_obs[D]``, after every imagined step (wrap an angle).
      activation: between the layers.
      weight_decay: ``wd_l``, one per layer (``len(hidden) + 1``) or one for all; None: PETS' half-cheetah values.
      learn_logvar_bounds: False keeps the bounds at their start (mbrl-lib's default).
      clip_range: a predicted observation further outside the data than this many of the data's ranges is pulled back
        to that border and ``Outcome.clipped`` is set; None: never.

    Raises:
      ValueError: for image observations, an index outside the observation, or a wrong number of decays.

    Source: Chua et al. 2018, PETS, section 4 and its code (dmbrl/modeling/models/BNN.py); Janner et al. 2019, MBPO.
    """
    frame = state_space.frame(
        "gaussian_mlp", spec, reward, termination, predict_change, absolute, preprocess, postprocess, clip_range
    )
    decay = _decays(weight_decay, len(hidden))
    n = frame.targets
    sizes = _sizes(frame, hidden, 2 * n)
    start = np.full(n, _MIN_LOGVAR, np.float32), np.full(n, _MAX_LOGVAR, np.float32)

    def init(key: Key) -> Params:
        weights = {"layers": init_dense(key, sizes)}
        if learn_logvar_bounds:
            weights |= {"min_logvar": jnp.asarray(start[0]), "max_logvar": jnp.asarray(start[1])}
        return Params(weights, frame.empty_stats())

    def bounds(weights: PyTree) -> tuple[Array | np.ndarray, Array | np.ndarray]:
        return (weights["min_logvar"], weights["max_logvar"]) if learn_logvar_bounds else start

    def forward(params: Params, obs: Array, action: Array) -> tuple[Array, Array, Array]:
        x = frame.normalized_inputs(params.stats, obs, action)
        out = apply_dense(params.weights["layers"], x, activation)
        return out[:, :n], out[:, n : 2 * n], out[:, -1]

    def variance(weights: PyTree, raw: Array) -> Array:
        # The two soft bounds in closed form, exp(l) = exp(min) + exp(max) sigmoid(raw - max): one exponential instead
        # of six transcendental functions, and no rounding past the bounds.
        low, high = bounds(weights)
        return jnp.exp(low) + jnp.exp(high) * jax.nn.sigmoid(raw - high)

    def step_many(key: Key, params: Params, beliefs: Array, actions: Array):
        mean, raw, logit = forward(params, beliefs, actions)
        noise = fast_normal(key, mean.shape)
        sample = mean + jnp.sqrt(variance(params.weights, raw)) * noise
        return frame.outcome(params.stats, beliefs, actions, sample, logit)

    def expect(params: Params, beliefs: Array, actions: Array):
        mean, _, logit = forward(params, beliefs, actions)
        return frame.outcome(params.stats, beliefs, actions, mean, logit)

    def moments(params: Params, obs: Array, action: Array) -> tuple[Array, Array]:
        mean, raw, _ = forward(params, obs, action)
        return mean, jnp.sqrt(variance(params.weights, raw))

    def loss(key: Key, params: Params, batch: Transition):
        del key
        mean, raw, logit = forward(params, batch.obs, batch.action)
        var = variance(params.weights, raw)
        error = (mean - frame.target(batch)) ** 2
        nll = jnp.mean(error / var + jnp.log(var))
        end = _end_loss(frame, logit, batch)
        low, high = bounds(params.weights)
        width = 0.01 * (jnp.sum(high) - jnp.sum(low)) if learn_logvar_bounds else 0.0
        # Ten beyond a soft bound its gradient is exp(-10) of itself: that output no longer learns its noise.
        stuck = jnp.mean((raw > high + 10.0) | (raw < low - 10.0))
        info = {"mse": jnp.mean(error), "nll": nll, "end_loss": end, "logvar_saturated": stuck}
        return nll + _penalty(params.weights["layers"], decay) + width + end, info

    return _assemble(frame, init, step_many, expect, moments, loss)


def _assemble(
    frame: Frame, init: Callable, step_many: Callable, expect: Callable, moments: Callable, loss: Callable
) -> Model:
    """A ``Model`` from functions over rows; ``moments``: mean and spread of the targets."""

    def step(key: Key, params: Params, belief: Array, action: Array):
        checks.same_shape("action", jnp.shape(action), frame.spec.action.shape, "the model's spec")
        return jax.tree.map(lambda x: x[0], step_many(key, params, belief[None], jnp.asarray(action)[None]))

    def predict(params: Params, belief: Array, action: Array) -> Prediction:
        obs, act = belief[None], jnp.asarray(action)[None]
        mean, std = moments(params, obs, act)
        following = frame.next_obs(obs, mean)[0]
        if frame.reward is None:
            reward_mean, reward_std = mean[0, frame.dim], std[0, frame.dim]
        else:
            reward_mean, reward_std = frame.reward(belief, action, following), jnp.zeros(())
        return Prediction(following, std[0, : frame.dim], reward_mean, reward_std)

    belief_functions: dict[str, Any] = state_space.identity_belief(frame.dim)
    return Model(
        init=init, step=step, step_many=step_many, loss=loss, set_stats=frame.fit_stats, predict=predict,
        expect=expect, **belief_functions,
    )  # fmt: skip


def _sizes(frame: Frame, hidden: Sequence[int], outputs: int) -> tuple[int, ...]:
    widths = tuple(checks.integer("hidden", width, 1) for width in hidden)
    return (frame.inputs, *widths, outputs + frame.learns_end)


def _decays(weight_decay: float | Sequence[float] | None, hidden: int) -> tuple[float, ...]:
    if weight_decay is None:
        if hidden + 1 == len(_WEIGHT_DECAY):
            return _WEIGHT_DECAY
        return tuple(float(x) for x in np.linspace(_WEIGHT_DECAY[0], _WEIGHT_DECAY[-1], hidden + 1))
    decay = tuple(weight_decay) if isinstance(weight_decay, Sequence) else (weight_decay,) * (hidden + 1)
    if len(decay) != hidden + 1:
        raise ValueError(f"weight_decay must have {hidden + 1} entries, one per layer, got {len(decay)}")
    return tuple(checks.number("weight_decay", wd, low=0.0) for wd in decay)


def _penalty(layers: Sequence[dict[str, Array]], decay: Sequence[float]) -> Array | int:
    """``sum_l wd_l ||W_l||^2 / 2``, weights only."""
    return sum(0.5 * wd * jnp.sum(layer["kernel"] ** 2) for wd, layer in zip(decay, layers, strict=True))


def _end_loss(frame: Frame, logit: Array, batch: Transition) -> Array:
    """Binary cross-entropy of ``terminated``; 0 where termination is not learned."""
    if not frame.learns_end:
        return jnp.zeros(())
    ended = batch.terminated.astype(jnp.float32)
    return jnp.mean(jax.nn.softplus(logit) - ended * logit)
