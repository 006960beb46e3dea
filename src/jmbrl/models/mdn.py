"""A mixture density network: where the same state and action lead to one of several places."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.models import heads, state_space
from jmbrl.networks import apply_dense, fast_normal, init_dense, swish
from jmbrl.types import Array, Key, Model, Params, Spec, Transition


def mixture_mlp(
    spec: Spec,
    hidden: Sequence[int] = (200,) * 4,
    components: int = 5,
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
    r"""A network that predicts a mixture of ``K`` diagonal Gaussians over the next observation.

    .. math:: p(y | x) = \sum_k \pi_k(x) \prod_{d=1}^n N(y_d; \mu_{kd}(x), \sigma_{kd}^2(x))

    A component is a joint guess of all ``n`` targets (the change of the observation, and the reward where it is
    learned), so that what belongs together stays together: a Gaussian between two outcomes predicts neither. The log
    variances have the soft bounds of ``gaussian_mlp``, shared by the components. The loss is

    .. math:: -\tfrac{2}{n} \operatorname{mean} \log \sum_k \pi_k \exp\!\left(-\tfrac12 \sum_d
              \left[(y_d - \mu_{kd})^2 / \sigma_{kd}^2 + \log \sigma_{kd}^2\right]\right)

    and the same decay and bounds: with one component it is ``gaussian_mlp``'s. ``step`` draws a component, then its
    Gaussian; ``expect`` is the mixture's mean and ``predict`` its first two moments. ``info["mse"]``, by which trainers
    stop and rank, is the squared error of the component that was responsible, :math:`\sum_k r_k (y - \mu_k)^2` with
    posterior shares :math:`r_k`: the mean's error (``mean_mse``) would not tell a fork that was found from one that was
    not. Derivatives of ``step`` are those of the component drawn.

    Args:
      components: ``K``, at least 1.
      others: as in ``gaussian_mlp``. The variance's bounds start at a standard deviation of 1.28: targets should not
        be much wider than that, or be normalised.

    Raises:
      ValueError: ``components`` below 1, and what ``gaussian_mlp`` refuses.

    Source: Bishop 1994, Mixture density networks (NCRG/94/004), equations 22-26; Ha and Schmidhuber 2018.
    """
    frame = state_space.frame(
        "mixture_mlp", spec, reward, termination, predict_change, absolute, preprocess, postprocess, clip_range,
        angles, exogenous, forecast, normalize_targets,
    )  # fmt: skip
    components = checks.integer("components", components, 1)
    decay = heads.decays(weight_decay, len(hidden))
    n = frame.targets
    split = components * n
    sizes = heads.sizes(frame, hidden, 2 * split + components)
    bounds = heads.LogVarianceBounds(n, learn_logvar_bounds)

    def init(key: Key) -> Params:
        return Params({"layers": init_dense(key, sizes)} | bounds.init(), frame.empty_stats())

    def forward(params: Params, obs: Array, action: Array) -> tuple[Array, Array, Array, Array]:
        """Means and raw log-variances ``[N, K, n]``, log-shares ``[N, K]``, the logit of an end ``[N]``."""
        x = frame.normalized_inputs(params.stats, obs, action)
        out = apply_dense(params.weights["layers"], x, activation)
        mean = out[:, :split].reshape(-1, components, n)
        raw = out[:, split : 2 * split].reshape(-1, components, n)
        return mean, raw, jax.nn.log_softmax(out[:, 2 * split : 2 * split + components]), out[:, -1]

    def step_many(key: Key, params: Params, beliefs: Array, actions: Array):
        key_component, key_noise = jax.random.split(key)
        mean, raw, log_share, logit = forward(params, beliefs, actions)
        drawn = _draw(key_component, log_share)[:, None, None]
        mean, raw = (jnp.take_along_axis(x, drawn, axis=1)[:, 0] for x in (mean, raw))
        sample = mean + jnp.sqrt(bounds.variance(params.weights, raw)) * fast_normal(key_noise, mean.shape)
        return frame.outcome(params.stats, beliefs, actions, frame.unscaled(params.stats, sample), logit)

    def expect(params: Params, beliefs: Array, actions: Array):
        mean, _, log_share, logit = forward(params, beliefs, actions)
        centre = jnp.sum(jnp.exp(log_share)[:, :, None] * mean, axis=1)
        return frame.outcome(params.stats, beliefs, actions, frame.unscaled(params.stats, centre), logit)

    def moments(params: Params, obs: Array, action: Array) -> tuple[Array, Array]:
        mean, raw, log_share, _ = forward(params, obs, action)
        share = jnp.exp(log_share)[:, :, None]
        centre = jnp.sum(share * mean, axis=1)
        spread = bounds.variance(params.weights, raw) + (mean - centre[:, None]) ** 2
        std = jnp.sqrt(jnp.sum(share * spread, axis=1))
        return frame.unscaled(params.stats, centre), frame.unscaled(params.stats, std)

    def loss(key: Key, params: Params, batch: Transition):
        del key
        mean, raw, log_share, logit = forward(params, batch.obs, batch.action)
        var = bounds.variance(params.weights, raw)
        target = frame.scaled(params.stats, frame.target(batch))
        error = (target[:, None] - mean) ** 2
        joint = log_share - 0.5 * jnp.sum(error / var + jnp.log(var), axis=-1)
        nll = -2.0 / n * jnp.mean(jax.nn.logsumexp(joint, axis=-1))
        end = heads.end_loss(frame, logit, batch)
        responsible = jax.nn.softmax(joint)[:, :, None]
        centre = jnp.sum(jnp.exp(log_share)[:, :, None] * mean, axis=1)
        info = {
            "mse": jnp.mean(jnp.sum(responsible * error, axis=1)),
            "mean_mse": jnp.mean((target - centre) ** 2),
            "nll": nll,
            "end_loss": end,
            "logvar_saturated": bounds.saturated(params.weights, raw),
            "weighted_mse": jnp.mean(jnp.sum(jax.lax.stop_gradient(responsible / var) * error, axis=1)),
        }
        return nll + heads.penalty(params.weights["layers"], decay) + bounds.width(params.weights) + end, info

    return heads.assemble(frame, init, step_many, expect, moments, loss)


def _draw(key: Key, log_share: Array) -> Array:
    """``int32[N]``: a component per row, by one uniform number each."""
    edges = jnp.cumsum(jnp.exp(log_share[:, :-1]), axis=1)
    point = jax.random.uniform(key, (log_share.shape[0], 1))
    return jnp.sum(point >= edges, axis=1, dtype=jnp.int32)
