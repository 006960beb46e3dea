"""V and M of World Models as one model: it sees an image, remembers in an LSTM and dreams in latents."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.data import normalizer
from jmbrl.data.normalizer import Normalizer
from jmbrl.models.mdn_rnn import LatentSequence, Memory, MixtureOutputs, mdn_rnn, tempered
from jmbrl.models.multistep import begins, valid_rows
from jmbrl.models.vae import Vision, vae
from jmbrl.types import Array, Continuous, DataKind, Key, Model, Outcome, Params, Spec, Transition
from jmbrl.types import Sequence as Window


class WorldModelBelief(NamedTuple):
    """``z``: ``float32[..., latent]``, what is seen now. ``h, c``: ``float32[..., hidden]``, the memory's output and
    cell after the step that led here."""

    z: Array
    h: Array
    c: Array


class WorldModelStats(NamedTuple):
    """``temperature``: ``float32`` scalar, of imagination. ``reward``: a normaliser of one column."""

    temperature: Array
    reward: Normalizer


def vision_and_memory(
    spec: Spec,
    *,
    latent: int = 32,
    channels: Sequence[int] = (32, 64, 128, 256),
    pixel_weight: float = 1.0,
    hidden: int = 256,
    mixtures: int = 5,
    learn_reward: bool = True,
    learn_termination: bool = False,
    end_weight: float = 10.0,
    memoryless: bool = False,
) -> tuple[Vision, Memory]:
    """The two parts of ``world_model`` with the same arguments, to train one after the other.

    Their weights are ``{"vision": ..., "memory": ...}`` of ``Params.weights``.

    Raises:
      ValueError: observations that are no ``uint8`` images, and what ``vae`` and ``mdn_rnn`` refuse.
    """
    if len(spec.obs_shape) != 3 or spec.obs_dtype != "uint8":
        raise ValueError(f"world_model needs an image of uint8, got shape {spec.obs_shape} of {spec.obs_dtype}")
    actions = spec.action.dim if isinstance(spec.action, Continuous) else spec.action.n
    memory = mdn_rnn(
        latent, actions, hidden=hidden, mixtures=mixtures, learn_reward=learn_reward,
        learn_termination=learn_termination, end_weight=end_weight, memoryless=memoryless,
    )  # fmt: skip
    return vae(spec.obs_shape, latent=latent, channels=channels, pixel_weight=pixel_weight), memory


def world_model(
    spec: Spec,
    *,
    latent: int = 32,
    channels: Sequence[int] = (32, 64, 128, 256),
    pixel_weight: float = 1.0,
    hidden: int = 256,
    mixtures: int = 5,
    learn_reward: bool = True,
    learn_termination: bool = False,
    end_weight: float = 10.0,
    inputs: str = "zh",
    memoryless: bool = False,
    temperature: float = 1.0,
) -> Model:
    r"""An autoencoder of images and a recurrent mixture network of its latents.

    .. math:: z_t \sim q(z \mid o_t), \quad (h_{t+1}, c_{t+1}) = M(z_t, a_t, h_t, c_t), \quad
              \hat z_{t+1} \sim p_\tau(z \mid h_{t+1})

    with :math:`h_0 = c_0 = 0` where an episode begins. ``encode`` draws the latent from what is seen, ``step`` from the
    mixture at ``params.stats.temperature``, an array: it can be swept without compiling again. An imagined episode ends
    where the end is likelier than not. ``expect`` follows the mixture's mean.

    The loss on ``Sequence[B, T]`` is ``vae``'s on the windows' frames and ``mdn_rnn``'s on their latents, which pass no
    gradient back: both parts learn as if trained one after the other, as in the source. The frame an episode ended in
    is seen where its row is a window's last; its reward and its end train M always.

    Args:
      spec: the environment's; ``uint8`` images, any actions.
      latent, channels, pixel_weight: as in ``vae``. hidden, mixtures, end_weight, memoryless: as in ``mdn_rnn``.
      learn_reward: otherwise imagined rewards are 0. learn_termination: otherwise imagination never ends.
      inputs: what a policy reads, ``features``: ``"z"``, ``"zh"`` (the car's) or ``"zch"`` (Doom's), in that order.
      temperature: at first, at least 0.

    Returns:
      A ``Model`` whose belief is ``WorldModelBelief``, for ``models.sequence_trainer`` or, part by part, with the
      weights of ``vision_and_memory``. ``decode`` gives ``uint8`` images as the environment does, without a derivative.

    Raises:
      ValueError: observations that are no ``uint8`` images, a negative temperature, and what ``vae`` and ``mdn_rnn``
        refuse.

    Source: Ha and Schmidhuber 2018, World Models (arXiv 1803.10122), and the released code.
    """
    vision, memory = vision_and_memory(
        spec, latent=latent, channels=channels, pixel_weight=pixel_weight, hidden=hidden, mixtures=mixtures,
        learn_reward=learn_reward, learn_termination=learn_termination, end_weight=end_weight, memoryless=memoryless,
    )  # fmt: skip
    checks.number("temperature", temperature, 0.0)
    checks.choice("inputs", inputs, ("z", "zh", "zch"))

    def as_input(action: Array) -> Array:
        return action if isinstance(spec.action, Continuous) else jax.nn.one_hot(action, spec.action.n)

    def init(key: Key) -> Params:
        key_vision, key_memory = jax.random.split(key)
        weights = {"vision": vision.init(key_vision), "memory": memory.init(key_memory)}
        return Params(weights, WorldModelStats(jnp.float32(temperature), normalizer.identity(1)))

    def initial(params: Params) -> WorldModelBelief:
        del params
        return WorldModelBelief(jnp.zeros(latent), jnp.zeros(hidden), jnp.zeros(hidden))

    def recur(params: Params, belief: WorldModelBelief, action: Array) -> tuple[Array, Array]:
        return memory.recur(params.weights["memory"], belief.h, belief.c, belief.z, as_input(action))

    def encode(key: Key, params: Params, belief: WorldModelBelief, action: Array, obs: Array, is_first: Array):
        checks.same_shape("obs", obs.shape, spec.obs_shape, "the model's spec")
        h, c = (jnp.where(is_first, 0.0, x) for x in recur(params, belief, action))
        return WorldModelBelief(vision.encode(params.weights["vision"], obs).sample(key), h, c)

    def outcome(params: Params, out: MixtureOutputs) -> Outcome:
        reward = normalizer.denormalize(params.stats.reward, out.reward[..., None])[..., 0]
        reward = reward if learn_reward else jnp.zeros_like(reward)
        lead = reward.shape
        discount = (out.end_logit <= 0).astype(jnp.float32)
        return Outcome(reward, discount, jnp.zeros((*lead, 0)), jnp.zeros(lead, bool))

    def step(key: Key, params: Params, belief: WorldModelBelief, action: Array) -> tuple[WorldModelBelief, Outcome]:
        h, c = recur(params, belief, action)
        out = memory.outputs(params.weights["memory"], h)
        z = memory.sample(key, out, params.stats.temperature)
        return WorldModelBelief(z, h, c), outcome(params, out)

    def expect(params: Params, belief: WorldModelBelief, action: Array) -> tuple[WorldModelBelief, Outcome]:
        h, c = recur(params, belief, action)
        out = memory.outputs(params.weights["memory"], h)
        z = jnp.sum(tempered(out, params.stats.temperature) * out.mean, axis=-1)
        return WorldModelBelief(z, h, c), outcome(params, out)

    def features(params: Params, belief: WorldModelBelief) -> Array:
        del params
        return jnp.concatenate([getattr(belief, name) for name in inputs], axis=-1)

    def decode(params: Params, belief: WorldModelBelief) -> Array:
        return jnp.round(255.0 * vision.decode(params.weights["vision"], belief.z)).astype(jnp.uint8)

    def loss(key: Key, params: Params, batch: Window) -> tuple[Array, dict[str, Array]]:
        key_vision, key_memory = jax.random.split(key)
        first, batch = begins(batch), valid_rows(batch)
        rows = batch.transition
        frames = jnp.concatenate([rows.obs, rows.next_obs[:, -1:]], axis=1)
        seen = jnp.concatenate([batch.mask, batch.mask[:, -1:]], axis=1)
        flat = frames.reshape(-1, *spec.obs_shape)
        vision_loss, info = vision.loss(key_vision, params.weights["vision"], flat, seen.reshape(-1))
        q = jax.lax.stop_gradient(vision.encode(params.weights["vision"], flat))
        mean, std = (x.reshape(*seen.shape, latent) for x in q)
        reward = normalizer.normalize(params.stats.reward, rows.reward[..., None])[..., 0]
        latents = LatentSequence(mean, std, as_input(rows.action), reward, rows.terminated, first, batch.mask)
        memory_loss, more = memory.loss(key_memory, params.weights["memory"], latents)
        return vision_loss + memory_loss, {**info, **more}

    def set_stats(params: Params, rows: Transition, mask: Array) -> Params:
        reward = normalizer.fit(rows.reward[:, None], mask, params.stats.reward)
        return params._replace(stats=params.stats._replace(reward=reward))

    return Model(
        init=init,
        initial=initial,
        encode=encode,
        step=step,
        step_many=step,  # every function takes any leading axes
        features=features,
        decode=decode,
        loss=loss,
        set_stats=set_stats,
        expect=expect,
        data_kind=DataKind.SEQUENCES,
        own_belief=True,
    )
