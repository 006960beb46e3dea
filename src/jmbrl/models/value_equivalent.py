"""MuZero's model: latents that need only predict rewards, values and policies, and never what is seen."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.models.decoder_free import no_decoder
from jmbrl.networks import HyperbolicTwoHot, apply_linear, apply_normed, init_linear, init_normed, trunk
from jmbrl.types import Array, Continuous, DataKind, Key, Model, Outcome, Params, PyTree, Spec


class Unrolled(NamedTuple):
    """``latents``: ``float32[K + 1, B, L]``, the first encoded and the others imagined; ``rewards``: ``float32[K, B,
    bins]``, logits, of each imagined step."""

    latents: Array
    rewards: Array


class ValueEquivalent(NamedTuple):
    """The model, and what its learner needs.

    Attributes:
      model: the ``Model``; its weights are ``"trunk"``, ``"latent"``, ``"dynamics"``, ``"next"``, ``"reward"`` and
        perhaps ``"project"`` and ``"predict"``. It has no loss of its own: what it must predict is the learner's.
      see: ``(weights, obs[..., *shape]) -> float32[..., L]``, the encoder.
      unroll: ``(weights, obs[B, ...], actions[K, B, ...]) -> Unrolled``.
      reward_loss: ``(logits[..., bins], reward[...]) -> float32[...]``.
      consistency: ``(weights, latents[..., L], obs[..., *shape]) -> float32[...]``: minus the cosine between what the
        latent predicts and what the observation that was really met gives; None without it.
      latent: ``L``.
    """

    model: Model
    see: Callable
    unroll: Callable
    reward_loss: Callable
    consistency: Callable | None
    latent: int


def value_equivalent(spec: Spec, **options) -> Model:
    """The model of ``value_equivalent_parts``, which tells its options."""
    return value_equivalent_parts(spec, **options).model


def value_equivalent_parts(
    spec: Spec,
    *,
    latent: int = 64,
    units: int = 128,
    layers: int = 1,
    channels: int = 0,
    blocks: int = 0,
    bins: int = 601,
    limit: float | Array = 300.0,
    consistency: bool = False,
    projection: int = 128,
) -> ValueEquivalent:
    r"""A representation, latent dynamics and a reward.

    .. math:: s_0 = h(o_0), \qquad (r_{t+1}, s_{t+1}) = g(s_t, a_t), \qquad
              s \leftarrow \frac{s - \min_i s_i}{\max_i s_i - \min_i s_i}

    Latents are vectors, each scaled to ``[0, 1]``, and the gradient that passes through a step of the dynamics is
    halved. What comes after an episode's end is learned as a state that pays nothing, so that ``discount`` is always 1.

    The belief is ``float32[L]``, a function of one observation. There is no ``decode``: asked for it, the model
    refuses.

    Args:
      spec: the environment's; any actions.
      latent: ``L``, at least 2.
      units, layers: of the hidden layers of each network.
      channels, blocks: of the tower that reads an image (``networks.trunk``); 0: none.
      bins, limit: of the reward (``networks.HyperbolicTwoHot``).
      consistency: add the networks of ``consistency``. projection: their units.

    Raises:
      ValueError: a number outside its range.

    Source: Schrittwieser et al. 2020 (MuZero, arXiv 1911.08265), appendices F and G; Ye et al. 2021 (EfficientZero,
    arXiv 2111.00210), section 4.1, for ``consistency`` (weights shared by both sides, a predictor on the imagined one).
    The source's latents are images; vectors are quicker, and enough for what is small.
    """
    latent, bins = checks.integer("latent", latent, 2), checks.integer("bins", bins, 2)
    checks.number("limit", limit, 1e-6)
    eyes = trunk(spec.obs_shape, units=units, layers=layers, channels=channels, blocks=blocks)
    width = latent + (spec.action.dim if isinstance(spec.action, Continuous) else spec.action.n)
    projection = checks.integer("projection", projection, 1)

    def init(key: Key) -> Params:
        keys = jax.random.split(key, 7)
        weights = {
            "trunk": eyes.init(keys[0]),
            "latent": init_linear(keys[1], units, latent),
            "dynamics": init_normed(keys[2], (width, *[units] * layers), "layer"),
            "next": init_linear(keys[3], units, latent),
            "reward": init_linear(keys[4], units, bins, scale=0.0),
        }
        if consistency:
            weights["project"] = init_normed(keys[5], (latent, projection, projection), "layer")
            key_hidden, key_out = jax.random.split(keys[6])
            hidden = init_normed(key_hidden, (projection, projection // 2 or 1), "layer")
            weights["predict"] = {"hidden": hidden, "out": init_linear(key_out, projection // 2 or 1, projection)}
        return Params(weights, ())

    def see(weights: PyTree, obs: Array) -> Array:
        return _scaled(apply_linear(weights["latent"], eyes.apply(weights["trunk"], obs)))

    def imagine(weights: PyTree, z: Array, action: Array) -> tuple[Array, Array]:
        """The next latent and the reward's logits, of any leading axes."""
        given = action if isinstance(spec.action, Continuous) else jax.nn.one_hot(action, spec.action.n)
        hidden = apply_normed(weights["dynamics"], jnp.concatenate([z, given], axis=-1), jax.nn.relu, "layer")
        return _scaled(apply_linear(weights["next"], hidden)), apply_linear(weights["reward"], hidden)

    def encode(key: Key, params: Params, belief: Array, action: Array, obs: Array, is_first: Array) -> Array:
        del key, belief, action, is_first
        return see(params.weights, obs)

    def step(key: Key, params: Params, belief: Array, action: Array) -> tuple[Array, Outcome]:
        del key
        following, logits = imagine(params.weights, belief, action)
        reward = HyperbolicTwoHot(logits, limit).mean()
        lead = reward.shape
        return following, Outcome(reward, jnp.ones(lead), jnp.zeros((*lead, 0)), jnp.zeros(lead, bool))

    def unroll(weights: PyTree, obs: Array, actions: Array) -> Unrolled:
        def body(z: Array, action: Array) -> tuple[Array, tuple[Array, Array]]:
            z, logits = imagine(weights, 0.5 * z + jax.lax.stop_gradient(0.5 * z), action)
            return z, (z, logits)

        first = see(weights, obs)
        _, (later, rewards) = jax.lax.scan(body, first, actions)
        return Unrolled(jnp.concatenate([first[None], later]), rewards)

    def reward_loss(logits: Array, reward: Array) -> Array:
        return -HyperbolicTwoHot(logits, limit).log_prob(reward)

    def agreement(weights: PyTree, latents: Array, obs: Array) -> Array:
        project = lambda z: apply_normed(weights["project"], z, jax.nn.relu, "layer")  # noqa: E731
        hidden = apply_normed(weights["predict"]["hidden"], project(latents), jax.nn.relu, "layer")
        predicted = apply_linear(weights["predict"]["out"], hidden)
        met = jax.lax.stop_gradient(project(see(weights, obs)))
        return -jnp.sum(_unit(predicted) * _unit(met), axis=-1)

    model = Model(
        init=init,
        initial=lambda params: jnp.zeros(latent),
        encode=encode,
        step=step,
        step_many=step,  # every function here takes any leading axes
        features=lambda params, belief: belief,
        decode=no_decoder("value_equivalent"),
        loss=None,
        set_stats=lambda params, rows, mask: params,
        data_kind=DataKind.SEQUENCES,
        own_belief=True,
    )
    return ValueEquivalent(model, see, unroll, reward_loss, agreement if consistency else None, latent)


def _scaled(z: Array) -> Array:
    """Each latent's entries from 0 to 1."""
    low, high = jnp.min(z, axis=-1, keepdims=True), jnp.max(z, axis=-1, keepdims=True)
    return (z - low) / jnp.maximum(high - low, 1e-5)


def _unit(x: Array) -> Array:
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-8)
