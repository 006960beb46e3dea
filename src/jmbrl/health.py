"""What keeps an update that is not finite out of models and learners, and which metrics count such events."""

import jax
import jax.numpy as jnp

from jmbrl.types import Array, PyTree

#: Metrics that count events: rows hold their sum, where others are averaged.
COUNTERS = (
    "bad_transitions",
    "bad_actions",
    "skipped",
    "nonfinite_loss",
    "nonfinite_grad",
    "nonfinite_grads",
    "recloned",
    "diverged",
    "exploded",
    "updates",
)


def is_counter(name: str) -> bool:
    """Whether a metric (``"learner/skipped"``) counts events: such are added up over time, others averaged."""
    return name.rpartition("/")[2] in COUNTERS


def all_finite(tree: PyTree) -> Array:
    """``bool``: every floating-point number of a tree is finite; True for a tree without any."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating)]
    return jnp.all(jnp.asarray([jnp.all(jnp.isfinite(x)) for x in leaves], bool))


def all_of(*flags: Array) -> Array:
    """Whether every one of some ``bool`` scalars is True.

    By a sort, as XLA fuses nothing into one: it would find the flags anew, from all leaves of a tree, in each loop that
    chooses between a new leaf and an old one, and compile as long as the square of their number.
    """
    return jnp.sort(jnp.stack(flags))[0]


def accept(new: PyTree, old: PyTree, losses: PyTree, grads: PyTree) -> tuple[PyTree, dict[str, Array]]:
    """``new`` where losses, gradients and ``new`` itself are finite, else ``old``; all of it or nothing.

    Half an update (new critics, old policy) would leave a state that no healthy run can reach.

    Returns:
      The state kept and the health counters of one update, ``float32`` scalars: ``nonfinite_loss``,
      ``nonfinite_grad``, ``skipped`` and ``updates`` (1, also where it was skipped).
    """
    good_loss, good_grad = all_finite(losses), all_finite(grads)
    ok = all_of(good_loss, good_grad, all_finite(new))
    kept = jax.tree.map(lambda a, b: jnp.where(ok, a, b), new, old)
    counts = {"nonfinite_loss": ~good_loss, "nonfinite_grad": ~good_grad, "skipped": ~ok, "updates": True}
    return kept, {name: jnp.asarray(value, jnp.float32) for name, value in counts.items()}


def exploded(values: Array, largest: Array, gamma: float | Array) -> Array:
    r"""``float32``, 1 where values are more than ten times what rewards can add up to, else 0.

    .. math:: E|Q| > 10 \max_t |r_t| / (1 - \gamma)

    Bootstrapping on its own errors is how a critic gets there, long before a number is infinite.

    Args:
      values: of a batch.
      largest: reward of one step in magnitude that was ever seen; while it is 0 nothing is said.
      gamma: discount; at 1 there is no bound.
    """
    return ((jnp.mean(jnp.abs(values)) * (1.0 - gamma) > 10.0 * largest) & (largest > 0)).astype(jnp.float32)
