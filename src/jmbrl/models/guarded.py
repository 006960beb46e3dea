"""One gradient step per ensemble member that a non-finite loss or gradient cannot enter."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jmbrl.health import all_of
from jmbrl.types import Array, PyTree


class Health(NamedTuple):
    """Counters per member, ``float32[members]``."""

    nonfinite_loss: Array
    nonfinite_grad: Array
    skipped: Array

    @classmethod
    def zeros(cls, members: int) -> "Health":
        return cls(*(jnp.zeros(members) for _ in range(3)))


def guarded_update(
    optimizer: optax.GradientTransformation,
    loss: Callable,
    weights: PyTree,
    opt: PyTree,
    max_grad_norm: float | None,
) -> tuple[PyTree, PyTree, Array, dict, Health]:
    """One step of one member: ``loss(weights) -> (loss, info)``; unchanged where anything is not finite.

    The check comes before the clip, which would turn one infinite entry into NaN everywhere.
    """
    (value, info), grads = jax.value_and_grad(loss, has_aux=True)(weights)
    norm = optax.tree.norm(grads)
    bad_loss, bad_grad = ~jnp.isfinite(value), ~jnp.isfinite(norm)
    ok = all_of(~bad_loss, ~bad_grad)
    if max_grad_norm is not None:
        scale = jnp.minimum(1.0, max_grad_norm / jnp.maximum(norm, 1e-12))
        grads = jax.tree.map(lambda g: g * scale, grads)
    updates, new_opt = optimizer.update(grads, opt, weights)
    new_weights = optax.apply_updates(weights, updates)
    weights, opt = jax.tree.map(lambda new, old: jnp.where(ok, new, old), (new_weights, new_opt), (weights, opt))
    health = Health(*(x.astype(jnp.float32) for x in (bad_loss, bad_grad, ~ok)))
    return weights, opt, value, info, health
