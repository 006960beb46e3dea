"""What a policy gradient through a model knows: its size, spread and signal against the horizon, three estimators."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jmbrl import checks
from jmbrl.learners import BPTT, Record, World
from jmbrl.learners.bptt import Path
from jmbrl.rollout import discounts, tile
from jmbrl.types import Array, Key, PyTree

ESTIMATORS = ("reparameterised", "likelihood_ratio", "mixed")
BATCH = 128  # trajectories whose mean gradient is one step of a learner


class Slopes(NamedTuple):
    """Gradients of the returns of ``N`` imagined trajectories by a policy's ``P`` weights, ``float32[N, P]`` each."""

    reparameterised: Array
    likelihood_ratio: Array
    mixed: Array


def policy_gradients(key: Key, learner: BPTT, policy: PyTree, slow: PyTree, world: World, beliefs: PyTree) -> Slopes:
    r"""Three estimates of the gradient of the imagined return, each trajectory's own, from the same trajectories.

    .. math:: g^{RP} = \nabla_\theta J(\epsilon; \theta), \qquad
              g^{LR} = \sum_t \nabla_\theta \log \pi_\theta(a_t | x_t) \, (G_t - \bar G_t)

    with :math:`G_t` what is still to come of the return, discounted to the start, and :math:`\bar G_t` the mean of that
    over the other trajectories (0 after an end). The likelihood ratio needs no derivative of the model; it knows
    nothing of a ``truncation``. ``mixed`` is their average weighted by the inverse of their variances, each half of
    the trajectories weighted by the variances of the other half, so that all three have the same mean.

    Args:
      key: consumed.
      learner: its policy's spread is drawn from, whether or not it learns with it. policy, slow: its weights, as in
        ``BPTTState``.
      world: a model with its parameters bound. beliefs: leaves ``[N, ...]``, where the trajectories start, ``N`` even
        and at least 4.

    Raises:
      ValueError: fewer beliefs, or an odd number of them.

    Source: Heess et al. 2015 (arXiv 1510.09142), equation 7, and Williams 1992; Parmas et al. 2018 (arXiv 1902.01240),
    equation 7, for the weights, there anew at every step on the way back.
    """
    count = jax.tree.leaves(beliefs)[0].shape[0]
    if count < 4 or count % 2:
        raise ValueError(f"beliefs must be an even number of at least 4 starts, got {count}")
    own, (key_noise, key_step) = tile(policy, count), jax.random.split(key)
    first = jax.vmap(world.look)(beliefs)
    actions = jax.eval_shape(learner.distribution, policy, first).mean.shape
    noise = jax.random.normal(key_noise, (learner.horizon, *actions))
    drawn = Record(noise, jnp.ones(noise.shape[:2]))

    def total(own: PyTree) -> tuple[Array, Path]:
        returns, path = learner.returns(key_step, own, slow, world, beliefs, drawn, each=True)
        return jnp.sum(returns), path

    slope, path = jax.grad(total, has_aux=True)(own)
    path = jax.lax.stop_gradient(path)
    left = jnp.cumsum(path.gains[::-1], axis=0)[::-1][:-1]
    alive = discounts(path.outcome, 1.0) > 0
    others = (jnp.sum(left, axis=1, keepdims=True) - left) / (count - 1)
    advantage = jnp.where(alive, left - others, 0.0)

    def score(own: PyTree) -> Array:
        pi = jax.vmap(learner.distribution, in_axes=(0, 1), out_axes=1)(own, path.features[:-1])
        # Of the Gaussian before the squash: actions at the bounds do not tell any more what was drawn.
        raw = jax.lax.stop_gradient(pi.mean + pi.std * noise)
        log_prob = jnp.sum(-0.5 * ((raw - pi.mean) / pi.std) ** 2 - jnp.log(pi.std), axis=-1)
        return jnp.sum(log_prob * advantage)

    flat = lambda tree: jax.vmap(lambda one: ravel_pytree(one)[0])(tree)  # noqa: E731
    pathwise, ratio = flat(slope), flat(jax.grad(score)(own))
    return Slopes(pathwise, ratio, mixed(pathwise, ratio))


def mixed(one: Array, other: Array) -> Array:
    """Both estimates ``[N, P]`` weighted by the inverse of their variances, those of the other half of the rows."""
    half = one.shape[0] // 2

    def share(rows: slice) -> Array:
        ours, others = (jnp.sum(jnp.var(x[rows], axis=0, ddof=1)) for x in (one, other))
        weight = jnp.where(ours + others > 0, others / (ours + others), 0.5)
        return jnp.where(jnp.isfinite(others), jnp.where(jnp.isfinite(ours), weight, 0.0), 1.0)

    rest = jnp.full(one.shape[0] - half, share(slice(0, half)))
    weight = jnp.concatenate([jnp.full(half, share(slice(half, None))), rest])[:, None]
    return jnp.where(weight > 0, weight * one, 0.0) + jnp.where(weight < 1, (1 - weight) * other, 0.0)


def signal(slopes: Array, batch: int = BATCH) -> dict[str, Array]:
    r"""How large the gradient is, how much single trajectories differ, and whether a batch of them can tell.

    .. math:: \text{snr} = \frac{\lVert E g \rVert}{\sqrt{\operatorname{tr} \operatorname{Cov}(g) / B}}, \qquad
              \lVert E g \rVert^2 \approx \lVert \bar g \rVert^2 - \operatorname{tr} \hat\Sigma / N

    Below 1 the mean of a batch is mostly noise. The square of the signal is unbiased, so it can come out negative; it
    is 0 then.

    Args:
      slopes: ``float32[N, P]``, a trajectory's gradient a row. batch: ``B`` trajectories.

    Returns:
      ``norm`` (the signal), ``spread`` (the root of the trace of the covariance of one trajectory), ``snr`` (of a
      batch), ``largest`` (norm of one trajectory's gradient) and ``broken`` (share of rows that are not finite and
      were left out).
    """
    batch = checks.integer("batch", batch, 1)
    good = jnp.all(jnp.isfinite(slopes), axis=1)
    count = jnp.maximum(jnp.sum(good), 2)
    # Squares of exploded gradients do not fit in float32.
    scale = jnp.max(jnp.where(good[:, None], jnp.abs(slopes), 0.0))
    scale = jnp.where(scale > 0, scale, 1.0)
    rows = jnp.where(good[:, None], slopes / scale, 0.0)
    mean = jnp.sum(rows, axis=0) / count
    variance = jnp.sum(jnp.where(good[:, None], (rows - mean) ** 2, 0.0)) / (count - 1)
    size = jnp.sqrt(jnp.maximum(jnp.sum(mean**2) - variance / count, 0.0))
    spread = jnp.sqrt(variance)
    ratio = jnp.where(spread > 0, size / jnp.where(spread > 0, spread, 1.0) * jnp.sqrt(float(batch)), jnp.inf)
    return {
        "norm": scale * size,
        "spread": scale * spread,
        "snr": jnp.where(size > 0, ratio, 0.0),
        "largest": scale * jnp.max(jnp.linalg.norm(rows, axis=1)),
        "broken": 1.0 - jnp.mean(good, dtype=jnp.float32),
    }


def gradients_by_horizon(
    learner_of: Callable[[int], BPTT],
    world_of: Callable[[PyTree], World],
    horizons: Sequence[int],
    batch: int = BATCH,
) -> Callable:
    """A function that measures the policy gradient at each horizon; what it compiles serves all its calls.

    Args:
      learner_of: a learner of that many imagined steps. world_of: the world, given what it depends on.
      horizons: each at least 1. batch: as in ``signal``.

    Returns:
      ``(key, policy, slow, context, beliefs[N]) -> {estimator: {name: float[len(horizons)]}}`` with the names of
      ``signal``; ``context`` is what ``world_of`` takes. All horizons and estimators see the same starts.

    Raises:
      ValueError: no horizon, or one below 1.
    """
    if not horizons:
        raise ValueError("horizons must name at least one, got none")
    learners = [learner_of(checks.integer("horizons", h, 1)) for h in horizons]

    def measured(learner: BPTT) -> Callable:
        def run(key: Key, policy: PyTree, slow: PyTree, context: PyTree, beliefs: PyTree) -> dict:
            slopes = policy_gradients(key, learner, policy, slow, world_of(context), beliefs)
            return {name: signal(getattr(slopes, name), batch) for name in ESTIMATORS}

        return jax.jit(run)

    programs = [measured(learner) for learner in learners]

    def measure(key: Key, policy: PyTree, slow: PyTree, context: PyTree, beliefs: PyTree) -> dict:
        keys = jax.random.split(key, len(programs))
        found = [f(k, policy, slow, context, beliefs) for f, k in zip(programs, keys, strict=True)]
        return jax.tree.map(lambda *x: np.asarray(x, np.float64), *jax.device_get(found))

    return measure


def first_noise(horizons: Sequence[int], snr: Sequence[float], level: float = 1.0) -> float:
    """The horizon at which the signal-to-noise ratio first falls below ``level``; infinite where it never does.

    Between two horizons both are taken as straight lines of their logarithms.

    >>> round(first_noise([1, 10, 100], [10.0, 10.0, 0.1]), 3)
    31.623
    """
    below = [i for i, x in enumerate(snr) if not x >= level]
    if not below:
        return float("inf")
    i = below[0]
    if i == 0:
        return float(horizons[0])
    if not snr[i] > 0:
        return float(horizons[i])
    (x, y), (high, low) = np.log(horizons[i - 1 : i + 1]), np.log([snr[i - 1], snr[i]])
    if not np.isfinite(high):
        return float(horizons[i])
    return float(np.exp(x + (y - x) * (high - np.log(level)) / (high - low)))


def random_direction(key: Key, policy: PyTree) -> PyTree:
    """A random direction of length 1 in the space of a policy's weights."""
    flat, unravel = ravel_pytree(policy)
    drawn = jax.random.normal(key, flat.shape, flat.dtype)
    return unravel(drawn / jnp.linalg.norm(drawn))


def landscape(
    key: Key,
    learner: BPTT,
    policy: PyTree,
    slow: PyTree,
    world: World,
    beliefs: PyTree,
    along: PyTree,
    reach: Array,
) -> Array:
    """The mean imagined return on a line through a policy's weights, with the same noise everywhere.

    Args:
      key: consumed. learner, policy, slow, world, beliefs: as in ``policy_gradients``.
      along: like ``policy``, the line's direction. reach: ``float32[A]``, how far to go, in lengths of ``along``.

    Returns:
      ``float32[A]``.
    """

    def at(far: Array) -> Array:
        moved = jax.tree.map(lambda w, d: w + far * d, policy, along)
        return jnp.mean(learner.returns(jax.random.clone(key), moved, slow, world, beliefs)[0])

    return jax.lax.map(at, jnp.asarray(reach, jnp.float32))
