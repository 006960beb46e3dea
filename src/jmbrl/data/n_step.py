"""Returns over several steps, read from the ring when a row is drawn: nothing more is stored than the rows."""

from typing import NamedTuple

import jax.numpy as jnp

from jmbrl import checks
from jmbrl.data.replay import Replay, take
from jmbrl.types import Array, Transition


class NStepRows(NamedTuple):
    """Rows for learners that know of returns over several steps and of importance weights.

    Attributes:
      rows: ``Transition[B]``; ``reward`` is the discounted sum of the ``k`` rewards that begin with the row's own;
        ``next_obs``, ``terminated`` and ``truncated`` are those of the last of these ``k`` rows.
      discount: ``float32[B]``, what a value at ``next_obs`` is multiplied by: ``gamma ** k``.
      weight: ``float32[B]``, how much a row counts in the loss; 1 where rows were drawn uniformly.
    """

    rows: Transition
    discount: Array
    weight: Array


def n_step(replay: Replay, places: Array, steps: int, gamma: float | Array) -> NStepRows:
    r"""The rows at ``places`` with the rewards of up to ``steps`` steps.

    .. math:: R_t = \sum_{i=0}^{k-1} \gamma^i r_{t+i}, \qquad y_t = R_t + \gamma^k (1 - d_{t+k-1}) V(s_{t+k})

    with :math:`d = 1` where a row terminated; of this ``reward`` is :math:`R` and ``discount`` :math:`\gamma^k`.

    ``k`` is ``steps`` or less: a sum ends with the episode, at the newest row, and before a row that arrived broken. So
    a time limit (truncation) shortens the sum, and what it bootstraps from is the true successor.

    Args:
      replay: the ring.
      places: ``int32[B]``, as ``sample_places`` gives them.
      steps: at most so many, at least 1.
      gamma: discount, in ``[0, 1]``.

    Raises:
      ValueError: ``steps`` below 1 or more than the ring holds; ``gamma`` outside its range.

    Source: Sutton & Barto 2018, section 7.1; Hessel et al. 2018 (Rainbow, arXiv 1710.02298), "Multi-step learning".
    """
    steps = checks.integer("steps", steps, 1, replay.capacity)
    checks.number("gamma", gamma, 0.0, 1.0)
    capacity, envs = replay.capacity, replay.num_envs
    row, env = places[:, None] // envs, places[:, None] % envs
    later = jnp.arange(steps)
    at = (row + later) % capacity
    newer = (replay.cursor - 1 - row) % capacity  # rows that were written after this one
    continues = replay.valid[at, env] & ~replay.is_first[at, env] & (later <= newer)
    counted = jnp.cumprod(continues.at[:, 0].set(True), axis=1, dtype=jnp.int32)
    reward = jnp.sum(counted * gamma**later * replay.data.reward[at, env], axis=1)
    count = jnp.sum(counted, axis=1)
    last = take(replay, (places // envs + count - 1) % capacity * envs + places % envs)
    rows = take(replay, places)._replace(
        reward=reward, next_obs=last.next_obs, terminated=last.terminated, truncated=last.truncated
    )
    return NStepRows(rows, jnp.asarray(gamma, jnp.float32) ** count, jnp.ones_like(reward))
