"""What a policy gradient subtracts: the value of a state, by a network or by linear regression."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from jmbrl.learners.advantages import weighted_mean
from jmbrl.learners.policies import value_net
from jmbrl.types import Array, Key, PyTree

_TRIES = 5  # of a ridge ten times larger each


class Baseline(NamedTuple):
    """A value function that is fitted after each batch.

    Attributes:
      init: ``(key) -> state``.
      values: ``(state, x[..., F], time[...]) -> float32[...]``; ``time`` counts steps since the path began.
      fit: ``(key, state, x[N, F], time[N], target[N], weight[N]) -> (state, loss)``; rows of weight 0 do not count.
        The loss is the mean squared error, in units of the return squared.
    """

    init: Callable
    values: Callable
    fit: Callable


def network_baseline(
    features: int,
    *,
    hidden: Sequence[int] = (64, 64),
    learning_rate: float | Array = 1e-3,
    epochs: int = 5,
    batch_size: int = 128,
    activation: Callable[[Array], Array] = jnp.tanh,
) -> Baseline:
    """A network, by ``epochs`` passes of Adam in random order over minibatches of at least ``batch_size`` rows, where
    there are as many. ``time`` is not read. State: ``(weights, optimiser)``."""
    net, optimizer = value_net(hidden, activation), optax.adam(learning_rate)

    def init(key: Key) -> tuple[PyTree, PyTree]:
        weights = net.init(key, jnp.zeros(features))
        return weights, optimizer.init(weights)

    def of(weights: PyTree, x: Array) -> Array:
        return cast(Array, net.apply(weights, x))[..., 0]

    def loss(weights: PyTree, x: Array, target: Array, weight: Array) -> Array:
        return weighted_mean((of(weights, x) - target) ** 2, weight)

    def fit(key: Key, state: tuple, x: Array, time: Array, target: Array, weight: Array) -> tuple[tuple, Array]:
        del time

        def step(state: tuple, index: Array) -> tuple[tuple, Array]:
            weights, opt = state
            now, grads = jax.value_and_grad(loss)(weights, x[index], target[index], weight[index])
            steps, opt = optimizer.update(grads, opt, weights)
            return (optax.apply_updates(weights, steps), opt), now

        parts = max(len(target) // batch_size, 1)
        state, losses = jax.lax.scan(step, state, shuffled(key, len(target), epochs, parts))
        return state, jnp.mean(losses)

    return Baseline(init, lambda state, x, time: of(state[0], x), fit)


def shuffled(key: Key, rows: int, epochs: int, parts: int) -> Array:
    """``int32[epochs * parts, rows // parts]``: in each epoch all rows in a new random order, but for a remainder."""
    size = rows // parts
    orders = jnp.argsort(jax.random.bits(key, (epochs, rows)), axis=1)
    return orders[:, : parts * size].reshape(epochs * parts, size)


def linear_baseline(features: int, *, ridge: float | Array = 1e-5) -> Baseline:
    r"""Ridge regression of the return on
    :math:`[o, o^2, \tau, \tau^2, \tau^3, 1]`, :math:`\tau = t / 100` and ``o`` clipped to ``[-10, 10]``.

    Columns are scaled to unit root mean square and ``ridge`` is relative to that; it is raised tenfold, up to five
    times, where float32 cannot solve the normal equations. Its state is the coefficients ``float32[2 F + 4]``, 0 at
    first, solved anew from each batch.

    Source: Duan et al. 2016 (arXiv 1604.06778), appendix 2, and the code of rllab that ME-TRPO uses.
    """

    def columns(x: Array, time: Array) -> Array:
        x, tau = jnp.clip(x, -10.0, 10.0), time[..., None] / 100.0
        return jnp.concatenate([x, x**2, tau, tau**2, tau**3, jnp.ones_like(tau)], axis=-1)

    def values(state: Array, x: Array, time: Array) -> Array:
        return columns(x, time) @ state

    def fit(key: Key, state: Array, x: Array, time: Array, target: Array, weight: Array) -> tuple[Array, Array]:
        del key, state
        share = (weight / jnp.maximum(jnp.sum(weight), 1.0))[:, None]
        phi = columns(x, time)
        scale = jnp.sqrt(jnp.sum(share * phi**2, axis=0))
        scale = jnp.where(scale > 1e-6, scale, 1.0)
        phi = phi / scale
        gram = jnp.matmul(phi.T, share * phi, precision="highest")

        def solve(ridge: Array) -> Array:
            factor = jax.scipy.linalg.cho_factor(gram + ridge * jnp.eye(len(gram)))
            theta = jnp.zeros(len(gram))
            for _ in range(3):  # the first solves, the others refine on the residuals: the accuracy of a QR in float32
                slope = phi.T @ (share[:, 0] * (target - phi @ theta)) - ridge * theta
                theta = theta + jax.scipy.linalg.cho_solve(factor, slope)
            return theta

        def again(loop: tuple) -> tuple:
            tries, ridge, _ = loop
            return tries + 1, 10.0 * ridge, solve(10.0 * ridge)

        start = jnp.asarray(ridge, jnp.float32)
        unsolved = lambda loop: (loop[0] < _TRIES) & ~jnp.all(jnp.isfinite(loop[2]))  # noqa: E731
        theta = jax.lax.while_loop(unsolved, again, (0, start, solve(start)))[2]
        return theta / scale, weighted_mean((phi @ theta - target) ** 2, weight)

    return Baseline(lambda key: jnp.zeros(2 * features + 4), values, fit)
