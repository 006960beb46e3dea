"""An encoder in front of a model-free learner, and losses beside the learner's own that teach it what to see."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from jmbrl import checks
from jmbrl.networks import apply_dense, apply_linear, apply_normed, init_dense, init_linear, init_normed
from jmbrl.networks.normed import NORMS
from jmbrl.networks.q_network import Convolution, image_of
from jmbrl.types import ActionSpace, Array, Continuous, Key, PyTree, Transition
from jmbrl.types import Sequence as Window

LOSSES = ("spr", "inverse", "reward", "reconstruction")


class Auxiliary(NamedTuple):
    """An encoder and the losses on its latent, an option of ``learners.dqn``, ``learners.sac`` and ``learners.ppo``.

    Attributes:
      inputs: ``F``, the width of what is encoded.
      features: ``L``, the width of the latent, which the learner's networks read.
      steps: rows of the windows that ``loss`` reads; 0 where there is none.
      init: ``(key) -> weights``, of the encoder and of the heads that the losses need.
      encode: ``(weights, x[..., F]) -> float32[..., L]``.
      slow: ``(weights) -> slow``, a copy of what makes SPR's targets; ``()`` without that loss.
      renew: ``(weights, slow) -> slow`` after a gradient step: a moving average.
      loss: ``(weights, slow, window: Sequence[B, T], weight[B]) -> (loss, info)``, the weighted sum of the losses;
        ``weight``: how much a window counts. ``info``: each by itself, ``spr_loss`` and so on.
    """

    inputs: int
    features: int
    steps: int
    init: Callable
    encode: Callable
    slow: Callable
    renew: Callable
    loss: Callable


def cosine_loss(predicted: Array, target: Array) -> Array:
    r""":math:`-\cos(\hat y, \tilde y)` over the last axis: -1 where they point the same way; 0 where one is 0."""

    def unit(x: Array) -> Array:
        return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x**2, axis=-1, keepdims=True), 1e-12))

    return -jnp.sum(unit(predicted) * unit(target), axis=-1)


def auxiliary(
    action: ActionSpace,
    features: int,
    *,
    hidden: Sequence[int] = (256,),
    conv: int = 0,
    image: tuple[int, int, int] | None = None,
    losses: Mapping[str, float | Array] | None = None,
    steps: int = 5,
    tau: float | Array = 0.01,
    norm: str = "layer",
    activation: Callable[[Array], Array] = jax.nn.relu,
) -> Auxiliary:
    r"""Latents :math:`z = h(x)` that must tell of the next latents, of the action, of the reward or of the observation.

    Over windows of rows from :math:`t` on, as long as the episode of the first lasts (the row that ends it counts),

    - ``"spr"``: :math:`-\sum_{k=1}^K \cos(q(g(\hat z_{t+k})), \bar g(\bar h(x_{t+k})))`, self-prediction, where
      :math:`\hat z_t = h(x_t)`, :math:`\hat z_{t+k+1} = d(\hat z_{t+k}, a_{t+k})`, and the target's :math:`\bar h` and
      :math:`\bar g` are moving averages of encoder and projection, without gradient; the mean over windows;
    - ``"inverse"``: which action led from :math:`h(x)` to :math:`h(x')`: the cross-entropy of a softmax, or the squared
      error of a tanh, mean over dimensions;
    - ``"reward"``: :math:`(\hat r(h(x), a) - r)^2`;
    - ``"reconstruction"``: :math:`(\hat x(h(x)) - x)^2`, mean over entries;

    the last three means over rows. The loss is their sum, each multiplied by its weight.

    Args:
      action: any space.
      features: ``F``, the width of what is encoded.
      hidden: widths of the encoder's layers, at least one, each normalised; the last is the latent's, ``L``. The heads'
        hidden layers have that width too.
      conv, image: a convolution before them, as in ``learners.dqn``.
      losses: weights by name, at least 0; None: ``{"spr": 2.0}``, the paper's; ``{}``: the encoder alone.
      steps: :math:`K`, rows in a window, at least 1. One is enough without ``"spr"``.
      tau: share of the weights in the moving averages at each gradient step, in ``[0, 1]``.
      norm: of each layer before its activation, as in ``networks.init_normed``.
      activation: after every layer of the encoder, the last one too.

    Raises:
      ValueError: a number outside its range, another loss, no layer, or ``conv`` without its image.

    Source: Schwarzer et al. 2021 (SPR, arXiv 2007.05929), equations 1 to 4, with ``tau`` as where images are not
    augmented; Pathak et al. 2017 (arXiv 1705.05363), the inverse model of equation 2; Jaderberg et al. 2017 (arXiv
    1611.05397) for rewards; Yarats et al. 2021 (SAC-AE, arXiv 1910.01741) for reconstruction, without its penalties of
    large latents and weights. Theirs, of SPR: a convolutional transition, latents scaled to ``[0, 1]``, a projection
    that is the Q-network's own first layer, and dropout; ours are dense layers with a layer norm, for vectors as well.
    """
    features, hidden = checks.integer("features", features, 1), tuple(hidden)
    if not hidden:
        raise ValueError("hidden must have at least one width, the latent's, got ()")
    for width in hidden:
        checks.integer("hidden", width, 1)
    weight_of = {"spr": 2.0} if losses is None else dict(losses)
    for name, value in weight_of.items():
        checks.number(f"losses[{checks.choice('losses', name, LOSSES)!r}]", value, 0.0)
    steps = checks.integer("steps", steps, 1)
    checks.number("tau", tau, 0.0, 1.0)
    checks.choice("norm", norm, NORMS)
    picture = image_of(conv, image, features)
    convolution = Convolution(conv)
    narrowed = features if picture is None else (picture[0] - 2) * (picture[1] - 2) * conv
    latent = hidden[-1]
    continuous = isinstance(action, Continuous)
    choices = action.dim if isinstance(action, Continuous) else action.n
    heads = {
        "spr": lambda key: _spr_heads(key, latent, choices, norm),
        "inverse": lambda key: init_dense(key, (2 * latent, latent, choices)),
        "reward": lambda key: init_dense(key, (latent + choices, latent, 1)),
        "reconstruction": lambda key: init_dense(key, (latent, latent, features)),
    }

    def init(key: Key) -> dict[str, PyTree]:
        key_conv, key_dense, *keys = jax.random.split(key, 2 + len(LOSSES))
        encoder: dict[str, PyTree] = {"dense": init_normed(key_dense, (narrowed, *hidden), norm)}
        if picture is not None:
            encoder["conv"] = convolution.init(key_conv, jnp.zeros(picture))
        own = {name: heads[name](key) for name, key in zip(LOSSES, keys, strict=True) if name in weight_of}
        return {"encoder": encoder, **own}

    def encode(weights: dict, x: Array) -> Array:
        layers = weights["encoder"]
        if picture is not None:
            x = cast(Array, convolution.apply(layers["conv"], x.reshape(*x.shape[:-1], *picture)))
            x = activation(x).reshape(*x.shape[:-3], -1)
        return apply_normed(layers["dense"], x, activation, norm)

    def pair(z: Array, actions: Array) -> Array:
        return jnp.concatenate([z, actions if continuous else jax.nn.one_hot(actions, choices)], axis=-1)

    def spr(weights: dict, slow: dict, z: Array, rows: Transition) -> Array:
        head = weights["spr"]

        def step(now: Array, actions: Array) -> tuple[Array, Array]:
            following = apply_normed(head["transition"], pair(now, actions), activation, norm)
            return following, following

        imagined = jax.lax.scan(step, z[0], rows.action)[1]
        predicted = apply_linear(head["predictor"], apply_linear(head["projection"], imagined))
        target = apply_linear(slow["projection"], encode(slow, rows.next_obs))
        return cosine_loss(predicted, jax.lax.stop_gradient(target))

    def inverse(weights: dict, slow: dict, z: Array, rows: Transition) -> Array:
        # Where a window goes on in its episode, a row's observation is the successor of the row before it.
        out = apply_dense(weights["inverse"], jnp.concatenate([z[:-1], z[1:]], axis=-1))
        if continuous:
            return jnp.mean((jnp.tanh(out) - rows.action) ** 2, axis=-1)
        return optax.softmax_cross_entropy_with_integer_labels(out, rows.action)

    def reward(weights: dict, slow: dict, z: Array, rows: Transition) -> Array:
        return (apply_dense(weights["reward"], pair(z[:-1], rows.action))[..., 0] - rows.reward) ** 2

    def reconstruction(weights: dict, slow: dict, z: Array, rows: Transition) -> Array:
        return jnp.mean((apply_dense(weights["reconstruction"], z[:-1]) - rows.obs) ** 2, axis=-1)

    terms = {"spr": spr, "inverse": inverse, "reward": reward, "reconstruction": reconstruction}

    def loss(
        weights: dict, slow: PyTree, window: Window, weight: Array | float = 1.0
    ) -> tuple[Array, dict[str, Array]]:
        rows, alive = _one_episode(window)
        checks.same_shape("obs of the window", rows.obs.shape[2:], (features,), "auxiliary")
        # Self-prediction encodes the first observation alone; the compiler would not find that out.
        seen = rows.obs[:1] if set(weight_of) == {"spr"} else jnp.concatenate([rows.obs[:1], rows.next_obs])
        z = encode(weights, seen)
        total, info = jnp.zeros(()), {}
        for name, share in weight_of.items():
            summed = jnp.sum(jnp.where(alive, weight * terms[name](weights, slow, z, rows), 0.0))
            count = jnp.sum(alive[0] if name == "spr" else alive)  # SPR's is a sum over steps
            info[f"{name}_loss"] = summed / jnp.maximum(count, 1)
            total += share * info[f"{name}_loss"]
        return total, info

    def averaged(weights: dict) -> dict:
        return {"encoder": weights["encoder"], "projection": weights["spr"]["projection"]}

    def slow_of(weights: dict) -> PyTree:
        return jax.tree.map(jnp.copy, averaged(weights)) if "spr" in weight_of else ()

    def renew(weights: dict, slow: PyTree) -> PyTree:
        return optax.incremental_update(averaged(weights), slow, tau) if "spr" in weight_of else ()

    return Auxiliary(features, latent, steps if weight_of else 0, init, encode, slow_of, renew, loss)


def _spr_heads(key: Key, latent: int, choices: int, norm: str) -> dict[str, PyTree]:
    key_transition, key_projection, key_predictor = jax.random.split(key, 3)
    return {
        "transition": init_normed(key_transition, (latent + choices, latent, latent), norm),
        "projection": init_linear(key_projection, latent, latent),
        "predictor": init_linear(key_predictor, latent, latent),
    }


def _one_episode(window: Window) -> tuple[Transition, Array]:
    """The window's rows, time-major, and ``bool[T, B]``: which belong to the first one's episode; zeros in others."""
    transition, is_first, mask = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tuple(window))
    alive = jnp.cumprod(mask & ~is_first.at[0].set(False), axis=0, dtype=jnp.int32).astype(bool)
    keep = lambda x: jnp.where(alive.reshape(*alive.shape, *(1,) * (x.ndim - 2)), x, jnp.zeros_like(x))  # noqa: E731
    return jax.tree.map(keep, transition), alive


# ------------------------------------------------------------------------------- how learners use it


class Reading(NamedTuple):
    """How a learner's networks read its features: as they are, or through an encoder that is trained with them.

    The learner keeps one tree of weights, which ``attach`` made; without an ``Auxiliary`` that is its own weights and
    everything else here does nothing.

    Attributes:
      features: the width that its networks read.
      steps: rows of the windows of its updates, 0: none.
      attach: ``(key, own) -> weights``.
      own: ``(weights) -> own``.
      see: ``(weights, x[..., F]) -> float32[..., features]``.
      slow: ``(weights) -> slow`` and
      renew: ``(weights, slow) -> slow``, of the ``Auxiliary``.
      loss: ``(weights, slow, window | None, weight) -> (loss, info)``.
    """

    features: int
    steps: int
    attach: Callable
    own: Callable
    see: Callable
    slow: Callable
    renew: Callable
    loss: Callable


class Attached(NamedTuple):
    """A learner's ``own`` weights and those of the ``encoder`` (and heads) that they read through."""

    own: PyTree
    encoder: PyTree


def reading(features: int, part: Auxiliary | None) -> Reading:
    """Of ``features`` numbers, through ``part`` where there is one.

    Raises:
      ValueError: ``part`` is for another width; when a loss is traced, no window where there are losses.
    """
    if part is None:
        nothing = lambda *_: ()  # noqa: E731
        return Reading(
            features, 0, lambda key, own: own, lambda weights: weights, lambda weights, x: x, nothing, nothing,
            lambda *_: (jnp.zeros(()), {}),
        )  # fmt: skip
    if part.inputs != features:
        raise ValueError(f"auxiliary must encode the learner's {features} features, got one of {part.inputs}")

    def loss(
        weights: Attached, slow: PyTree, window: Window | None, weight: Array | float = 1.0
    ) -> tuple[Array, dict[str, Array]]:
        if not part.steps:
            return jnp.zeros(()), {}
        if window is None:
            raise ValueError(f"auxiliary losses need a window of {part.steps} rows beside each row, got none")
        return part.loss(weights.encoder, slow, window, weight)

    return Reading(
        part.features,
        part.steps,
        # The learner draws from the same key what it would draw without: another branch of it.
        lambda key, own: Attached(own, part.init(jax.random.fold_in(key, 2**31))),
        lambda weights: weights.own,
        lambda weights, x: part.encode(weights.encoder, x),
        lambda weights: part.slow(weights.encoder),
        lambda weights, slow: part.renew(weights.encoder, slow),
        loss,
    )
