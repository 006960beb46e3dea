"""A recurrent state-space model: its belief is a memory, not the observation.

The first, small member of its family (vector observations, Gaussian latents); images, categorical latents and
Dreamer's variants deepen it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.data import normalizer
from jmbrl.data.normalizer import Normalizer
from jmbrl.networks import Normal, apply_dense, init_dense
from jmbrl.types import (
    Array,
    Continuous,
    DataKind,
    Key,
    Model,
    Outcome,
    Params,
    PyTree,
    Sequence,
    Spec,
    Transition,
)


class RSSMBelief(NamedTuple):
    """``deter``: ``float32[..., deter]``, the memory. ``stoch``: ``float32[..., stoch]``, a sampled latent."""

    deter: Array
    stoch: Array


class RSSMStats(NamedTuple):
    """Normalisers of the observation and of the reward (one column)."""

    obs: Normalizer
    reward: Normalizer


class _Sizes(NamedTuple):
    obs: int
    action: int
    deter: int
    stoch: int
    hidden: int


def rssm(
    spec: Spec,
    *,
    deter: int = 200,
    stoch: int = 30,
    hidden: int = 200,
    learn_termination: bool = False,
    free_nats: float = 1.0,
    kl_scale: float = 1.0,
    reward_scale: float = 10.0,
    min_std: float = 0.1,
) -> Model:
    r"""The recurrent state-space model of PlaNet on vector observations.

    .. math::
       h_t = f(h_{t-1}, z_{t-1}, a_{t-1}), \quad z_t \sim p(z_t \mid h_t) \text{ (prior)}, \quad
       z_t \sim q(z_t \mid h_t, o_t) \text{ (posterior)}

    Every row of data trains the step it holds, also the last of an episode, whose successor no later row repeats:
    from the belief after ``obs_t``, the posterior at ``next_obs_t`` is asked for ``next_obs_t``, ``reward_t`` and
    whether the world ended. The loss is the sum over the latent's and the observation's entries of

    .. math:: \tfrac12 (o - \hat o)^2 + \mathrm{scale}_r \tfrac12 (r - \hat r)^2 + \max(0, KL(q \| p) - \mathrm{free})

    Deviations from PlaNet: observations and rewards are normalised by the data (vectors have units, pixels do not), and
    one free nat rather than three, which a reconstruction of a few numbers would never repay.

    Args:
      spec: the environment's; vector observations, any actions.
      deter: size of the memory (a gated recurrent unit). stoch: entries of the latent. hidden: width of the networks.
      learn_termination: add a head trained on ``terminated`` only; otherwise imagination never ends.
      free_nats, kl_scale, reward_scale: weights of the loss.
      min_std: least standard deviation of prior and posterior.

    Returns:
      A ``Model`` whose belief is ``RSSMBelief`` and whose ``loss`` takes ``Sequence[B, T]``.

    Raises:
      ValueError: image observations, or a size below 1.

    Source: Hafner et al. 2019 (arXiv 1811.04551), equations 3 and 4, and the released code.
    """
    if len(spec.obs_shape) != 1 or spec.obs_dtype != "float32":
        raise ValueError(f"rssm needs a vector observation of float32, got shape {spec.obs_shape} of {spec.obs_dtype}")
    actions = spec.action.dim if isinstance(spec.action, Continuous) else spec.action.n
    size = _Sizes(
        spec.obs_shape[0],
        actions,
        checks.integer("deter", deter, 1),
        checks.integer("stoch", stoch, 1),
        checks.integer("hidden", hidden, 1),
    )

    def as_input(action: Array) -> Array:
        return action if isinstance(spec.action, Continuous) else jax.nn.one_hot(action, spec.action.n)

    def initial(params: Params) -> RSSMBelief:
        del params
        return RSSMBelief(jnp.zeros(size.deter), jnp.zeros(size.stoch))

    def encode(key: Key, params: Params, belief: RSSMBelief, action: Array, obs: Array, is_first: Array) -> RSSMBelief:
        checks.same_shape("obs", obs.shape, spec.obs_shape, "the model's spec")
        before = jax.tree.map(lambda start, now: jnp.where(is_first, start, now), initial(params), belief)
        action = jnp.where(is_first, 0.0, as_input(action))
        deter = _recur(params.weights, before, action)
        posterior = _posterior(params, deter, obs, min_std)
        return RSSMBelief(deter, posterior.sample(key))

    def step(key: Key, params: Params, belief: RSSMBelief, action: Array) -> tuple[RSSMBelief, Outcome]:
        deter = _recur(params.weights, belief, as_input(action))
        following = RSSMBelief(deter, _prior(params.weights, deter, min_std).sample(key))
        reward, logit = _heads(params, following)
        lead = reward.shape
        discount = jax.nn.sigmoid(-logit) if learn_termination else jnp.ones(lead)
        return following, Outcome(reward, discount, jnp.zeros((*lead, 0)), jnp.zeros(lead, bool))

    def loss(key: Key, params: Params, batch: Sequence) -> tuple[Array, dict]:
        rows, mask = batch.transition, batch.mask.astype(jnp.float32)
        at_first, reached, prior, posterior = _filter(key, params, batch, as_input, min_std)
        total = jnp.maximum(jnp.sum(mask), 1.0)

        def average(x: Array) -> Array:
            return jnp.sum(x * mask) / total

        obs_error = _squared(params, reached, rows.next_obs)
        first_error = _squared(params, at_first, rows.obs) * batch.is_first
        reward, logit = _heads(params, reached)
        scale = params.stats.reward.std[0]
        reward_error = ((reward - rows.reward) / scale) ** 2
        divergence = posterior.kl(prior)
        terms = 0.5 * (obs_error + first_error) + 0.5 * reward_scale * reward_error
        terms = terms + kl_scale * jnp.maximum(divergence - free_nats, 0.0)
        if learn_termination:
            ended = rows.terminated.astype(jnp.float32)
            terms = terms + jax.nn.softplus(logit) - ended * logit
        info = {"obs_error": average(obs_error), "reward_error": average(reward_error), "kl": average(divergence)}
        return average(terms), info

    def set_stats(params: Params, rows: Transition, mask: Array) -> Params:
        obs = normalizer.fit(
            jnp.concatenate([rows.obs, rows.next_obs]), jnp.concatenate([mask, mask]), params.stats.obs
        )
        reward = normalizer.fit(rows.reward[:, None], mask, params.stats.reward)
        return params._replace(stats=RSSMStats(obs, reward))

    def init(key: Key) -> Params:
        return Params(_weights(key, size), RSSMStats(normalizer.identity(size.obs), normalizer.identity(1)))

    return Model(
        init=init,
        initial=initial,
        encode=encode,
        step=step,
        step_many=step,  # every function below takes any leading axes
        features=lambda params, belief: _features(belief),
        decode=_decode,
        loss=loss,
        set_stats=set_stats,
        own_belief=True,
        data_kind=DataKind.SEQUENCES,
    )


def _weights(key: Key, size: _Sizes) -> dict:
    keys = jax.random.split(key, 7)
    feature = size.deter + size.stoch
    return {
        "gates": init_dense(keys[0], (size.stoch + size.action + size.deter, 2 * size.deter)),
        "candidate": init_dense(keys[1], (size.stoch + size.action + size.deter, size.deter)),
        "prior": init_dense(keys[2], (size.deter, size.hidden, 2 * size.stoch)),
        "posterior": init_dense(keys[3], (size.deter + size.obs, size.hidden, 2 * size.stoch)),
        "decoder": init_dense(keys[4], (feature, size.hidden, size.obs)),
        "reward": init_dense(keys[5], (feature, size.hidden, 1)),
        "end": init_dense(keys[6], (feature, size.hidden, 1)),
    }


def _features(belief: RSSMBelief) -> Array:
    return jnp.concatenate([belief.deter, belief.stoch], axis=-1)


def _recur(weights: dict, belief: RSSMBelief, action: Array) -> Array:
    """A gated recurrent unit (Cho et al. 2014): the next memory."""
    x = jnp.concatenate([belief.stoch, action], axis=-1)
    reset, update = jnp.split(
        jax.nn.sigmoid(apply_dense(weights["gates"], jnp.concatenate([x, belief.deter], -1))), 2, -1
    )
    candidate = jnp.tanh(apply_dense(weights["candidate"], jnp.concatenate([x, reset * belief.deter], -1)))
    return update * belief.deter + (1 - update) * candidate


def _gaussian(out: Array, min_std: float) -> Normal:
    mean, raw = jnp.split(out, 2, axis=-1)
    return Normal(mean, jax.nn.softplus(raw) + min_std)


def _prior(weights: dict, deter: Array, min_std: float) -> Normal:
    return _gaussian(apply_dense(weights["prior"], deter), min_std)


def _posterior(params: Params, deter: Array, obs: Array, min_std: float) -> Normal:
    seen = normalizer.normalize(params.stats.obs, obs)
    return _gaussian(apply_dense(params.weights["posterior"], jnp.concatenate([deter, seen], -1)), min_std)


def _decode(params: Params, belief: RSSMBelief) -> Array:
    return normalizer.denormalize(params.stats.obs, apply_dense(params.weights["decoder"], _features(belief)))


def _squared(params: Params, belief: RSSMBelief, obs: Array) -> Array:
    """Squared error of the decoded observation in normalised units, summed over its entries."""
    predicted = apply_dense(params.weights["decoder"], _features(belief))
    return jnp.sum((predicted - normalizer.normalize(params.stats.obs, obs)) ** 2, axis=-1)


def _heads(params: Params, belief: RSSMBelief) -> tuple[Array, Array]:
    """Reward (in its own units) and the logit of an end, of the step that reached ``belief``."""
    features = _features(belief)
    reward = normalizer.denormalize(params.stats.reward, apply_dense(params.weights["reward"], features))
    return reward[..., 0], apply_dense(params.weights["end"], features)[..., 0]


def _filter(key: Key, params: Params, batch: Sequence, as_input, min_std: float) -> tuple[PyTree, ...]:
    """Filter ``Sequence[B, T]``: beliefs at each row's ``obs`` were an episode to begin there, beliefs, priors and
    posteriors at each row's ``next_obs``; all ``[B, T, ...]``."""
    rows = batch.transition
    lead = batch.mask.shape
    key_first, key_scan = jax.random.split(key)
    actions = as_input(rows.action)
    start = RSSMBelief(
        jnp.zeros((*lead, params.weights["prior"][0]["kernel"].shape[0])),
        jnp.zeros((*lead, params.weights["prior"][-1]["bias"].shape[0] // 2)),
    )
    deter = _recur(params.weights, start, jnp.zeros_like(actions))
    at_first = RSSMBelief(deter, _posterior(params, deter, rows.obs, min_std).sample(key_first))

    def body(before: RSSMBelief, inputs: tuple) -> tuple[RSSMBelief, tuple]:
        key, first, is_first, action, next_obs = inputs
        belief = jax.tree.map(lambda a, b: jnp.where(is_first[:, None], a, b), first, before)
        deter = _recur(params.weights, belief, action)
        prior, posterior = _prior(params.weights, deter, min_std), _posterior(params, deter, next_obs, min_std)
        reached = RSSMBelief(deter, posterior.sample(key))
        return reached, (reached, prior, posterior)

    time_major = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (at_first, batch.is_first, actions, rows.next_obs))
    keys = jax.random.split(key_scan, lead[1])
    _, out = jax.lax.scan(body, jax.tree.map(lambda x: x[:, 0], start), (keys, *time_major))
    reached, prior, posterior = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), out)
    return at_first, reached, prior, posterior
