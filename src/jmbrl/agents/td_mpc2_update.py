"""What TD-MPC2 learns from a batch of windows: model and values by one loss, the policy by another."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jmbrl.health import accept
from jmbrl.learners import PolicyPrior, QEnsemble
from jmbrl.learners.sac import td_target
from jmbrl.models import DecoderFree, Unrolled
from jmbrl.models.multistep import masked_mean
from jmbrl.types import Array, Key, Params, PyTree, Sequence


class Learned(NamedTuple):
    """Weights of the model, of the values with their slow copy and of the policy; the values' running spread ``S``; the
    optimisers of (model and values, policy)."""

    params: Params
    critics: PyTree
    targets: PyTree
    policy: PyTree
    spread: Array
    opt: tuple[PyTree, PyTree]


class JointLearner(NamedTuple):
    """``init(key) -> Learned``; ``update(key, learned, batch: Sequence[B, T]) -> (learned, info)``."""

    init: Callable
    update: Callable


def joint_learner(
    parts: DecoderFree,
    critics: QEnsemble,
    policy: PolicyPrior,
    actions: int,
    *,
    gamma: float | Array,
    learning_rate: float | Array = 3e-4,
    encoder_scale: float | Array = 0.3,
    max_grad_norm: float | Array = 20.0,
    value_scale: float | Array = 0.1,
    tau: float | Array = 0.01,
    entropy_scale: float | Array = 1e-4,
) -> JointLearner:
    r"""Temporal differences and a latent model on the same windows; see ``models.decoder_free`` for the latents.

    .. math:: L = L_{model} + c_q \frac{1}{T} \sum_t \rho^t \operatorname{mean}_{b, i} \mathrm{CE}(Q_i(z_t, a_t), y_t),
              \qquad y_t = r_t + \gamma (1 - \mathrm{terminated}_t) \min_{j \in J} \bar Q_j(h(o'_t), a'), \quad
              a' \sim \pi(h(o'_t))

    .. math:: L_\pi = -\frac{1}{T + 1} \sum_{t=0}^{T} \rho^t \operatorname{mean}_b \Big[ \frac{1}{S}
              \operatorname{mean}_{j \in J} Q_j(z_t, a) - c_\pi A \log N(u; \mu, \sigma^2) \Big],
              \quad a = \tanh u \sim \pi(\operatorname{sg} z_t)

    with ``J`` two members drawn at random for each use, :math:`\bar Q` the slow copy, and :math:`S` the moving average
    of the distance between the 5th and 95th percentile of the values at ``t = 0``, at least 1. The entropy is that of
    the Gaussian before the squash, times the number of actions ``A``, as the released code has it (issue 44). Members
    drop entries in both losses, and in no target.

    Args:
      parts: the model, whose :math:`\rho` it is. critics, policy: on its latents.
      actions: ``A``.
      gamma: discount.
      learning_rate: of Adam. encoder_scale: times it for the encoder.
      max_grad_norm: of model and values together, and of the policy.
      value_scale, entropy_scale: :math:`c_q, c_\pi`.
      tau: share of the values in their slow copy at each update, and of the last batch in :math:`S`.

    ``info``: the losses, ``value`` (mean of the policy's), ``spread``, ``entropy`` (of the Gaussian, nats) and the
    counters of ``health.accept``; an update with a number that is not finite changes nothing.
    """
    # Adam's step is proportional to its learning rate.
    slower = optax.masked(optax.scale(encoder_scale), _encoder)
    optimizer = optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.adam(learning_rate), slower)
    policy_optimizer = optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.adam(learning_rate, eps=1e-5))

    def init(key: Key) -> Learned:
        key_model, key_critics, key_policy = jax.random.split(key, 3)
        params, values, pi = parts.model.init(key_model), critics.init(key_critics), policy.init(key_policy)
        opt = optimizer.init({"model": params.weights, "critics": values}), policy_optimizer.init(pi)
        return Learned(params, values, jax.tree.map(jnp.copy, values), pi, jnp.ones(()), opt)

    def bootstrapped(key: Key, learned: Learned, path: Unrolled) -> Array:
        """``y``: ``float32[T, B]``."""
        key_act, key_pair = jax.random.split(key)
        action, _ = policy.sample(key_act, learned.policy, path.targets)
        values = critics.value(critics.logits(critics.pair(key_pair, learned.targets), path.targets, action, None))
        return td_target(path.rows.reward, path.rows.terminated, jnp.min(values, axis=0), gamma)

    def joint_loss(weights: dict, key: Key, learned: Learned, batch: Sequence) -> tuple[Array, tuple]:
        key_target, key_drop = jax.random.split(key)
        path = parts.unroll(weights["model"], batch)
        model_loss, info = parts.losses(weights["model"], path)
        target = jax.lax.stop_gradient(bootstrapped(key_target, learned, path))
        logits = critics.logits(weights["critics"], path.latents[:-1], path.rows.action, key_drop)
        value_loss = parts.average(jnp.mean(critics.error(logits, target), axis=0), path.alive)
        return model_loss + value_scale * value_loss, (path, info | {"value_loss": value_loss})

    def policy_loss(pi: PyTree, key: Key, pair: PyTree, spread: Array, path: Unrolled) -> tuple[Array, tuple]:
        key_act, key_drop = jax.random.split(key)
        latents = jax.lax.stop_gradient(path.latents)
        seen = jnp.concatenate([path.alive[:1], path.alive])  # the last latent is where the last row led
        action, log_density = policy.sample(key_act, pi, latents)
        value = jnp.mean(critics.value(critics.logits(pair, latents, action, key_drop)), axis=0)
        spread = moved(spread, jax.lax.stop_gradient(value[0]), seen[0], tau)
        gain = value / spread - entropy_scale * actions * log_density
        means = {"value": masked_mean(value, seen), "entropy": -masked_mean(log_density, seen)}
        return -parts.average(gain, seen), (spread, means)

    def update(key: Key, learned: Learned, batch: Sequence) -> tuple[Learned, dict]:
        key_joint, key_pair, key_policy = jax.random.split(key, 3)
        weights = {"model": learned.params.weights, "critics": learned.critics}
        grad = jax.value_and_grad(joint_loss, has_aux=True)
        (loss, (path, info)), grads = grad(weights, key_joint, learned, batch)
        weights, opt = _applied(optimizer, grads, learned.opt[0], weights)

        pair = critics.pair(key_pair, weights["critics"])
        grad = jax.value_and_grad(policy_loss, has_aux=True)
        (loss_pi, (spread, means)), grads_pi = grad(learned.policy, key_policy, pair, learned.spread, path)
        pi, opt_pi = _applied(policy_optimizer, grads_pi, learned.opt[1], learned.policy)

        targets = optax.incremental_update(weights["critics"], learned.targets, tau)
        params = learned.params._replace(weights=weights["model"])
        new = Learned(params, weights["critics"], targets, pi, spread, (opt, opt_pi))
        learned, health = accept(new, learned, (loss, loss_pi), (grads, grads_pi))
        return learned, info | means | {"policy_loss": loss_pi, "spread": spread} | health

    return JointLearner(init, update)


def moved(spread: Array, values: Array, mask: Array, rate: float | Array) -> Array:
    """``S`` after the ``values[B]`` where ``mask``: closer by ``rate`` to the distance between their 5th and 95th
    percentile, which counts as 1 where it is less."""
    usable = jnp.where(mask, values, masked_mean(values, mask))
    low, high = jnp.percentile(usable, jnp.asarray([5.0, 95.0]))
    return spread + rate * (jnp.maximum(high - low, 1.0) - spread)


def _applied(optimizer: optax.GradientTransformation, grads: PyTree, opt: PyTree, weights: PyTree) -> tuple:
    steps, opt = optimizer.update(grads, opt, weights)
    return optax.apply_updates(weights, steps), opt


def _encoder(weights: dict) -> dict:
    """Which parts of model and values are the encoder."""
    return {"model": {name: name == "encoder" for name in weights["model"]}, "critics": False}
