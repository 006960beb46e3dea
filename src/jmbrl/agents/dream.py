"""What candidates are worth in a dream: their episodes in a model, side by side."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.rollout import discounts, imagine
from jmbrl.types import Array, Key, Model, Outcome, Params, PyTree


def dream_fitness(
    key: Key,
    model: Model,
    params: Params,
    start: Callable,
    act: Callable,
    policies: Array,
    rollouts: int,
    horizon: int,
    gamma: float = 1.0,
) -> Array:
    r"""Returns of imagined episodes of every candidate, all of them one batch.

    .. math:: J = \sum_{t < H} \gamma^t r_t \prod_{s < t} d_s

    Args:
      key: consumed.
      model, params: the dream.
      start: ``(key) -> belief``, where an episode begins; drawn ``R`` times, the same for every candidate.
      act: ``(policy, features) -> action``, one row.
      policies: ``[P, ...]``, or a pytree of such leaves.
      rollouts: episodes of each, ``R``, at least 1.
      horizon: steps of an episode, at least 1.
      gamma: discount; rewards of an episode are simply added up at 1.

    Returns:
      ``float32[P, R]``.

    Raises:
      ValueError: ``rollouts`` or ``horizon`` below 1.

    Source: Ha & Schmidhuber 2018 (arXiv 1803.10122), "Learning Inside of a Dream".
    """
    rollouts = checks.integer("rollouts", rollouts, 1)
    count = jax.tree.leaves(policies)[0].shape[0]
    key_start, key_dream = jax.random.split(key)
    starts = jax.vmap(start)(jax.random.split(key_start, rollouts))
    beliefs = jax.tree.map(lambda x: jnp.tile(x, (count, *(1,) * (x.ndim - 1))), starts)  # candidate-major
    act_all = jax.vmap(jax.vmap(act, in_axes=(None, 0)))
    read = jax.vmap(model.features, in_axes=(None, 0))

    def choose(key: Key, beliefs: PyTree, t: Array) -> tuple[Array, tuple]:
        del key, t
        features = read(params, beliefs).reshape(count, rollouts, -1)
        actions = act_all(policies, features)
        return actions.reshape(count * rollouts, *actions.shape[2:]), ()

    def step_many(key: Key, beliefs: PyTree, actions: Array) -> tuple[PyTree, Outcome]:
        return model.step_many(key, params, beliefs, actions)

    path = imagine(key_dream, step_many, beliefs, choose, horizon)[1].outcome
    weight = discounts(path, gamma)
    total = jnp.sum(weight * jnp.where(weight == 0, 0.0, path.reward), axis=0)
    return total.reshape(count, rollouts)
