"""M of World Models: a recurrent network that predicts a mixture for every entry of the next latent."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.fast_bits import fast_bits
from jmbrl.models.multistep import masked_mean
from jmbrl.networks import apply_dense, fast_normal
from jmbrl.types import Array, Key, PyTree

_LOG_SQRT_2PI = 0.9189385332046727


class MixtureOutputs(NamedTuple):
    """What follows a step, for any leading axes.

    Attributes:
      log_weight: ``float32[..., Z, K]``, logarithms of shares that sum to 1 over the last axis.
      mean, log_std: ``float32[..., Z, K]``.
      reward: ``float32[...]`` in normalised units; 0 where it is not learned.
      end_logit: ``float32[...]`` of the episode's end; minus infinity (never) where it is not learned.
    """

    log_weight: Array
    mean: Array
    log_std: Array
    reward: Array
    end_logit: Array


class LatentSequence(NamedTuple):
    """Windows of encoded frames: row ``t`` acts on frame ``t`` and leads to frame ``t + 1``.

    Attributes:
      mean, std: ``float32[B, T + 1, Z]``, what the encoder says of each frame.
      action: ``float32[B, T, A]``, one-hot where discrete.
      reward: ``float32[B, T]`` in normalised units. terminated: ``bool[B, T]``, true ends only.
      is_first: ``bool[B, T]``, rows that do not continue the row before them.
      mask: ``bool[B, T]``, rows that count. Where row ``t + 1`` begins anew, frame ``t + 1`` is no successor of row
        ``t``: such a row trains its reward and its end, but no latent.
    """

    mean: Array
    std: Array
    action: Array
    reward: Array
    terminated: Array
    is_first: Array
    mask: Array


class Memory(NamedTuple):
    """A recurrent model of latents; ``recur``, ``outputs`` and ``sample`` take any leading axes.

    Attributes:
      init: ``(key) -> weights``.
      recur: ``(weights, h[..., H], c[..., H], z[..., Z], action[..., A]) -> (h, c)``.
      outputs: ``(weights, h) -> MixtureOutputs``.
      sample: ``(key, outputs, temperature) -> z[..., Z]``.
      loss: ``(key, weights, batch: LatentSequence) -> (loss, info)``. ``info``: ``nll`` (of a latent's entry, in nats),
        ``nll_sum`` (of the whole latent), ``reward_error`` (squared, normalised) and ``end_error`` (cross-entropy,
        unweighted), means over rows.
    """

    init: Callable
    recur: Callable
    outputs: Callable
    sample: Callable
    loss: Callable


def mdn_rnn(
    latent: int,
    actions: int,
    *,
    hidden: int = 256,
    mixtures: int = 5,
    learn_reward: bool = False,
    learn_termination: bool = False,
    end_weight: float = 10.0,
    memoryless: bool = False,
) -> Memory:
    r"""An LSTM whose output is a mixture of Gaussians for each entry of the next latent by itself.

    .. math:: (h_t, c_t) = \mathrm{LSTM}([z_t, a_t], h_{t-1}, c_{t-1}), \qquad
              p(z_{t+1} \mid h_t) = \prod_d \sum_k \pi_{dk}(h_t)\, N(z_{t+1,d};\ \mu_{dk}(h_t), \sigma_{dk}^2(h_t))

    The loss over the rows that count is the mean of

    .. math:: -\tfrac1Z \log p(z_{t+1} \mid h_t) + \tfrac12 (r_t - \hat r_t)^2 + w_t\,\mathrm{BCE}(\mathrm{end}_t)

    the latter two where they are learned, :math:`w_t` = ``end_weight`` at true ends and 1 elsewhere. Latents are drawn
    anew from the encoder's Gaussian at every call, one a frame, input of its own row and target of the one before:
    noise that keeps M from learning frames by heart.

    A temperature :math:`\tau` divides the logarithms of the shares (a softmax makes shares of them again) and
    multiplies the Gaussians' variances: at 0 it is the likeliest component's mean, above 1 a dream harder to exploit.

    Args:
      latent: entries of ``z``. actions: width of the action (one-hot where discrete).
      hidden: entries of ``h`` and of ``c``.
      mixtures: components per entry; 1 is a plain Gaussian.
      learn_reward, learn_termination: add these heads.
      end_weight: how much a true end counts against a row without one; they are rare.
      memoryless: ``h`` and ``c`` start at zero in every step: the baseline that sees one frame only.

    Raises:
      ValueError: a size below 1 or ``end_weight`` below 0.

    Source: Ha and Schmidhuber 2018, World Models (arXiv 1803.10122), appendix A.2 and the released code (which feeds
    Doom's a flag of a new episode beside zeroing the state: here the zeros say it); Graves 2013 (arXiv 1308.0850).
    """
    latent = checks.integer("latent", latent, 1)
    actions = checks.integer("actions", actions, 1)
    hidden = checks.integer("hidden", hidden, 1)
    mixtures = checks.integer("mixtures", mixtures, 1)
    checks.number("end_weight", end_weight, 0.0)
    split = 3 * latent * mixtures

    def init(key: Key) -> PyTree:
        key_in, key_out = jax.random.split(key)
        glorot = jax.nn.initializers.glorot_uniform()
        both = glorot(key_in, (latent + actions + hidden, 4 * hidden))
        # To forget nothing at first, the forget gates (the third quarter) begin open.
        bias = jnp.zeros(4 * hidden).at[2 * hidden : 3 * hidden].set(1.0)
        outputs = split + learn_reward + learn_termination
        return {
            "input": ({"kernel": both[:-hidden], "bias": bias},),
            "recurrent": both[-hidden:],
            "output": ({"kernel": glorot(key_out, (hidden, outputs)), "bias": jnp.zeros(outputs)},),
        }

    def advance(weights: PyTree, h: Array, c: Array, gates: Array) -> tuple[Array, Array]:
        """``gates [..., 4 H]``: what comes from the input."""
        if memoryless:
            c = jnp.zeros_like(c)
        else:
            gates = gates + h @ weights["recurrent"]
        write, new, keep, read = jnp.split(gates, 4, axis=-1)
        c = jax.nn.sigmoid(keep) * c + jax.nn.sigmoid(write) * jnp.tanh(new)
        return jax.nn.sigmoid(read) * jnp.tanh(c), c

    def recur(weights: PyTree, h: Array, c: Array, z: Array, action: Array) -> tuple[Array, Array]:
        return advance(weights, h, c, apply_dense(weights["input"], jnp.concatenate([z, action], axis=-1)))

    def outputs(weights: PyTree, h: Array) -> MixtureOutputs:
        out = apply_dense(weights["output"], h)
        shares, mean, log_std = jnp.split(out[..., :split].reshape(*h.shape[:-1], latent, 3 * mixtures), 3, axis=-1)
        reward = out[..., split] if learn_reward else jnp.zeros(h.shape[:-1])
        end = out[..., -1] if learn_termination else jnp.full(h.shape[:-1], -jnp.inf)
        return MixtureOutputs(jax.nn.log_softmax(shares), mean, log_std, reward, end)

    def states(weights: PyTree, z: Array, batch: LatentSequence) -> Array:
        """``float32[T, B, H]``: the memory after each row."""
        x, is_first = (jnp.moveaxis(v, 1, 0) for v in (jnp.concatenate([z, batch.action], -1), batch.is_first))
        gates = apply_dense(weights["input"], x)

        def body(carry: tuple, inputs: tuple) -> tuple[tuple, Array]:
            gates, first = inputs
            h, c = (jnp.where(first[:, None], 0.0, v) for v in carry)
            h, c = advance(weights, h, c, gates)
            return (h, c), h

        zero = jnp.zeros((x.shape[1], hidden))
        return jax.lax.scan(body, (zero, zero), (gates, is_first))[1]

    def loss(key: Key, weights: PyTree, batch: LatentSequence) -> tuple[Array, dict[str, Array]]:
        z = batch.mean + batch.std * jax.random.normal(key, batch.mean.shape)
        out = outputs(weights, states(weights, z[:, :-1], batch))
        target, reward, ended, first, mask = (
            jnp.moveaxis(v, 1, 0) for v in (z[:, 1:], batch.reward, batch.terminated, batch.is_first, batch.mask)
        )
        follows = mask & jnp.concatenate([~first[1:], jnp.ones_like(first[:1])])
        nll = masked_mean(-jnp.mean(log_prob(out, target), axis=-1), follows)
        reward_error = masked_mean((out.reward - reward) ** 2, mask) if learn_reward else jnp.zeros(())
        total = nll + 0.5 * reward_error
        end_error = jnp.zeros(())
        if learn_termination:
            each = jax.nn.softplus(out.end_logit) - ended * out.end_logit
            total = total + masked_mean(jnp.where(ended, end_weight, 1.0) * each, mask)
            end_error = masked_mean(each, mask)
        info = {"nll": nll, "nll_sum": latent * nll, "reward_error": reward_error, "end_error": end_error}
        return total, info

    return Memory(init, recur, outputs, draw, loss)


def log_prob(outputs: MixtureOutputs, z: Array) -> Array:
    """``float32[..., Z]``: the log-density of each entry of ``z [..., Z]``."""
    shift = (z[..., None] - outputs.mean) * jnp.exp(-outputs.log_std)
    each = outputs.log_weight - 0.5 * shift * shift - outputs.log_std - _LOG_SQRT_2PI
    return jax.nn.logsumexp(each, axis=-1)


def tempered(outputs: MixtureOutputs, temperature: float | Array) -> Array:
    """``float32[..., Z, K]``: the shares at a temperature."""
    return jax.nn.softmax(outputs.log_weight / jnp.maximum(temperature, 1e-6))


def draw(key: Key, outputs: MixtureOutputs, temperature: float | Array) -> Array:
    """A latent ``float32[..., Z]``: a component for each entry by one uniform number, then its Gaussian."""
    key_component, key_noise = jax.random.split(key)
    shape = outputs.mean.shape[:-1]
    edges = jnp.cumsum(tempered(outputs, temperature)[..., :-1], axis=-1)
    point = (fast_bits(key_component, shape) >> 8).astype(jnp.float32) * 2.0**-24
    drawn = jnp.sum(point[..., None] >= edges, axis=-1)
    chosen = drawn[..., None] == jnp.arange(outputs.mean.shape[-1])
    mean, log_std = (jnp.sum(jnp.where(chosen, x, 0.0), axis=-1) for x in (outputs.mean, outputs.log_std))
    return mean + jnp.exp(log_std) * jnp.sqrt(temperature) * fast_normal(key_noise, shape)
