"""Recorded trajectories as something to imagine in: a model whose noise is what makes it repeat what happened."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl.learners.bptt import World
from jmbrl.types import Array, Key, Model, Outcome, Params, PyTree, Sequence


class Recorded(NamedTuple):
    """``world``, in which beliefs ``starts[B]`` are rolled for ``T`` steps.

    ``features``: ``float32[T, B, F]``, of every row's ``obs``; ``actions``: ``[T, B, A]``, as they were taken.
    """

    world: World
    starts: PyTree
    features: Array
    actions: Array


def recorded(
    model: Model, params: Params, rows: Sequence, beliefs: PyTree, following: PyTree, look: Callable
) -> Recorded:
    r"""A world that repeats ``rows`` where the same actions are taken, and answers others as the model does.

    .. math:: b_{t+1} = \hat f(b, a) + \xi_t, \quad r = \hat r(b, a) + \zeta_t, \qquad
              \xi_t = b'_t - \hat f(b_t, a_t), \quad \zeta_t = r_t - \hat r(b_t, a_t)

    with the model's expectations :math:`\hat f, \hat r` and residuals held constant: its values are real, and its
    derivatives are the model's at the states that were visited rather than at those a model would drift to.

    Args:
      model: with ``expect``, and beliefs of real numbers. params: its parameters.
      rows: ``Sequence[B, T]``.
      beliefs, following: leaves ``[B, T, ...]``, what is believed of each row's ``obs`` and ``next_obs`` on their own.
      look: ``(belief) -> float32[F]``, one row.

    Nothing counts after a row that ends its episode or is no valid data. A time limit inside a window looks like an
    end, too: give windows of one row to a learner with a terminal value.

    Raises:
      ValueError: a model without ``expect``.

    Source: Heess et al. 2015 (arXiv 1510.09142), section 4.1.
    """
    if model.expect is None:
        raise ValueError("recorded needs a model with expect, whose noise can be inferred, such as models.gaussian_mlp")
    expect = model.expect
    now, after, transition, is_first, mask = jax.tree.map(
        lambda x: jnp.swapaxes(x, 0, 1), (beliefs, following, rows.transition, rows.is_first, rows.mask)
    )

    def known(x: Array) -> Array:
        """0 where a row is no valid data, whose numbers may be anything."""
        return jnp.where(mask.reshape(*mask.shape, *(1,) * (x.ndim - 2)), x, jnp.zeros_like(x))

    now, after, actions = jax.tree.map(known, (now, after, transition.action))
    expected, outcome = jax.vmap(lambda beliefs, actions: expect(params, beliefs, actions))(now, actions)
    drift, surplus = jax.tree.map(jnp.subtract, (after, known(transition.reward)), (expected, outcome.reward))
    drift, surplus = jax.lax.stop_gradient((jax.tree.map(known, drift), surplus))
    following_is_another = jnp.concatenate([is_first[1:] | ~mask[1:], jnp.zeros_like(mask[:1])])
    goes_on = (mask & ~transition.terminated & ~following_is_another).astype(jnp.float32)

    def step_many(key: Key, carried: tuple, actions: Array) -> tuple[tuple, Outcome]:
        del key
        belief, row = carried
        t = row[0]
        reached, outcome = expect(params, belief, actions)
        reached = jax.tree.map(lambda x, d: x + d[t], reached, drift)
        reward = jnp.where(mask[t], outcome.reward + surplus[t], 0.0)
        return (reached, row + 1), outcome._replace(reward=reward, discount=goes_on[t])

    starts = jax.tree.map(lambda x: x[0], now), jnp.zeros(mask.shape[1], jnp.int32)
    x = jax.vmap(jax.vmap(look))(now)
    return Recorded(World(step_many, lambda carried: look(carried[0])), starts, x, actions)
