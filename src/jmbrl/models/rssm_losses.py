"""What a sequence teaches a recurrent state-space model, term by term."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl.data import Frames
from jmbrl.models.multistep import masked_mean
from jmbrl.types import Array, Key, PyTree


class Scales(NamedTuple):
    """Weights of the loss's terms.

    ``dynamics``: of the divergence as the prior sees it, ``representation``: as the posterior does. A
    ``reconstruction`` of 0 leaves a decoder that is taught and teaches nothing.
    """

    reconstruction: float = 1.0
    reward: float = 1.0
    continuation: float = 1.0
    dynamics: float = 1.0
    representation: float = 1.0
    overshooting: float = 1.0


def divergence(
    seen: PyTree, prior: PyTree, mask: Array, scales: Scales, free_nats: float, free_mean: bool
) -> tuple[dict[str, Array], dict[str, Array]]:
    r"""The balanced divergence of posteriors and priors ``[B, F]``, and what to report of it.

    .. math:: \beta_d \max(\mathrm{KL}[\mathrm{sg}(q) \| p], f) + \beta_q \max(\mathrm{KL}[q \| \mathrm{sg}(p)], f)

    the maximum taken frame by frame (PlaNet, Dreamer v3) or, with ``free_mean``, of the mean (v1, v2).

    Source: Hafner et al. 2021 (arXiv 2010.02193), algorithm 2.
    """

    def beyond(kl: Array) -> Array:
        if free_mean:
            return jnp.maximum(masked_mean(kl, mask), free_nats)
        return masked_mean(jnp.maximum(kl, free_nats), mask)

    dynamics, representation = seen.stop().kl(prior), seen.kl(prior.stop())
    losses = {
        "dynamics": scales.dynamics * beyond(dynamics),
        "representation": scales.representation * beyond(representation),
    }
    info = {
        "kl": masked_mean(dynamics, mask),
        "prior_entropy": masked_mean(prior.entropy(), mask),
        "posterior_entropy": masked_mean(seen.entropy(), mask),
    }
    return losses, jax.lax.stop_gradient(info)


def ends(logit: Array, frames: Frames, smoothing: float) -> Array:
    """Cross-entropy ``[B, F]`` of a continuation's logit: 0 is right where the world ended, ``1 - smoothing``
    elsewhere. A time limit is no end."""
    target = jnp.where(frames.terminated, 0.0, 1.0 - smoothing)
    return jax.nn.softplus(logit) - target * logit


def overshoot(
    key: Key,
    ahead: Callable,
    beliefs: PyTree,
    seen: PyTree,
    frames: Frames,
    distance: int,
    free_nats: float,
) -> Array:
    r"""The prior asked to look 2 to ``distance`` steps ahead, the mean over distances of

    .. math:: \max(\mathrm{KL}[\mathrm{sg}(q_t) \| p(z_t \mid z_{t-d}, a_{t-d:t-1})], f)

    Args:
      key: consumed.
      ahead: ``(key, beliefs, actions) -> (beliefs, priors)``, one imagined step, any leading axes.
      beliefs, seen: posterior draws and posteriors, ``[B, F, ...]``.
      frames: whose ``action`` led to each frame; an episode's first frame is reached from nowhere.
      distance: static, at least 2. free_nats: per frame.

    Source: Hafner et al. 2019 (arXiv 1811.04551), equation 7: posteriors are fixed targets beyond one step.
    """
    target = seen.stop()
    later = lambda tree: jax.tree.map(lambda x: jnp.roll(x, -1, axis=1), tree)  # noqa: E731

    def body(carry: tuple, inputs: tuple) -> tuple[tuple, Array]:
        beliefs, target, frames, live = carry
        key, d = inputs
        # Row t of what is rolled holds frame t + d.
        target, frames = later((target, frames))
        inside = jnp.arange(live.shape[1]) + d < live.shape[1]
        live = live & frames.mask & ~frames.is_first & inside
        beliefs, prior = ahead(key, beliefs, frames.action)
        cost = masked_mean(jnp.maximum(target.kl(prior), free_nats), live)
        return (beliefs, target, frames, live), jnp.where(d > 1, cost, 0.0)

    start = beliefs, target, frames._replace(obs=jnp.zeros(frames.mask.shape)), frames.mask
    inputs = jax.random.split(key, distance), jnp.arange(1, distance + 1)
    return jnp.sum(jax.lax.scan(body, start, inputs)[1]) / (distance - 1)
