"""What a policy would be worth, judged from logged data by a model, with an interval."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.models import one_member
from jmbrl.rollout import discounts, imagine, weighted
from jmbrl.types import Array, Key, Model, Params, PyTree


def off_policy_value(
    key: Key,
    model: Model,
    params: Params,
    starts: PyTree,
    act: Callable,
    horizon: int,
    *,
    gamma: float = 1.0,
    rollouts: int = 1,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> dict[str, Any]:
    r"""The value of a policy at the states where logged episodes began, in every member of an ensemble.

    .. math:: V_m = \frac1N \sum_n E_m \Big[ \sum_{t < H} \gamma^t r_t \prod_{s < t} d_s \,\Big|\, s_0 = s^n \Big],
              \qquad \hat V = \frac1M \sum_m V_m

    Two things are uncertain. Other starts might have been logged: they are drawn again with replacement. Other data
    would have taught another model: members that each learned from a bootstrap of the rows, as ``models.trainer`` and
    solved ensembles do, differ from their common centre about as that centre differs from the truth, so that the error
    of their mean is :math:`\sqrt{1 + 1/M}` times their standard deviation, Student's with :math:`M - 1` degrees of
    freedom (few members tell little of their spread). The interval is the percentile interval of the sum of both.

    What no member can express is in no interval, nor what the log never shows: beside a policy that leaves the data
    ``models.uncertainty`` and ``clipped`` say more. Without an ensemble the interval tells of the starts alone.

    Args:
      key: consumed.
      model, params: fitted to the log; its belief is a function of one observation.
      starts: observations ``[N, ...]``, at least two (``data.sample_starts``, or the first of ``data.episodes``).
      act: ``(key, obs) -> action``, one row, the policy to be judged.
      horizon: steps of an episode, ``H``, at least 1; what comes later counts nothing.
      gamma: discount, in ``[0, 1]``.
      rollouts: imagined from each start in each member; their mean is taken.
      resamples: draws of the bootstrap. confidence: of the interval, in ``(0, 1)``.

    Returns:
      ``value`` and its ``interval`` (low, high); ``members``, the values of the (elite) members; ``std_members`` (0 for
      one) and ``std_starts``, the two parts as standard errors of the value; ``clipped``, the share of imagined rows
      that left the data's range by far.

    Raises:
      ValueError: fewer than two starts, or a number outside its range.

    Source: Hanna, Stone, Niekum 2017, Bootstrapping with Models (arXiv 1606.06126); Efron & Tibshirani 1993.
    """
    horizon, rollouts = checks.integer("horizon", horizon, 1), checks.integer("rollouts", rollouts, 1)
    resamples = checks.integer("resamples", resamples, 1)
    checks.number("gamma", gamma, 0.0, 1.0)
    checks.number("confidence", confidence, 0.0, 1.0)
    count = len(jax.tree.leaves(starts)[0])
    if count < 2 or confidence in (0, 1):
        raise ValueError(f"starts must be at least two and confidence inside (0, 1), got {count} and {confidence}")
    key_roll, key_draw = jax.random.split(key)
    compute = jax.jit(
        lambda key, params, starts: member_returns(key, model, params, starts, act, horizon, gamma, rollouts)
    )
    returns, clipped = compute(key_roll, params, starts)
    broken = int(np.sum(~np.isfinite(returns).all(axis=0)))
    if broken:
        raise ValueError(f"returns imagined from {broken} starts are not finite")
    seed = np.asarray(jax.random.key_data(key_draw)).tolist()
    return summary(np.asarray(returns, np.float64), seed, resamples, confidence) | {"clipped": float(clipped)}


def member_returns(
    key: Key, model: Model, params: Params, starts: PyTree, act: Callable, horizon: int, gamma: float, rollouts: int
) -> tuple[Array, Array]:
    """Mean imagined return from each start in each (elite) member, ``float32[M, N]``, and the share of clipped rows."""
    count = len(jax.tree.leaves(starts)[0])
    key_see, key_roll = jax.random.split(key)
    see = lambda key, obs: model.encode(key, params, model.initial(params), None, obs, jnp.asarray(True))  # noqa: E731
    beliefs = jax.vmap(see)(jax.random.split(key_see, count), starts)
    beliefs = jax.tree.map(lambda x: jnp.repeat(x, rollouts, axis=0), beliefs)

    def choose(key: Key, beliefs: PyTree, t: Array) -> tuple[Array, tuple]:
        obs = jax.vmap(model.decode, in_axes=(None, 0))(params, beliefs)
        return jax.vmap(act)(jax.random.split(key, count * rollouts), obs), ()

    def one(key: Key, world: Model, own: Params) -> tuple[Array, Array]:
        step_many = lambda key, beliefs, actions: world.step_many(key, own, beliefs, actions)  # noqa: E731
        outcome = imagine(key, step_many, beliefs, choose, horizon)[1].outcome
        weight = discounts(outcome, gamma)
        total = jnp.sum(weighted(weight, outcome.reward), axis=0)
        clipped = jnp.sum(outcome.clipped & (weight > 0)) / jnp.sum(weight > 0)
        return total.reshape(count, rollouts).mean(axis=1), clipped

    if not model.members:
        returns, clipped = one(key_roll, model, params)
        return returns[None], clipped
    member, elites = model.member, params.stats.elites
    assert member is not None  # an ensemble has one
    keys = jax.random.split(key_roll, elites.shape[0])
    returns, clipped = jax.vmap(lambda key, i: one(key, member, one_member(params, i)))(keys, elites)
    return returns, jnp.mean(clipped)


def summary(returns: np.ndarray, seed: Any, resamples: int, confidence: float) -> dict[str, Any]:
    """The value and its interval from returns ``[M, N]`` of members and starts; ``seed`` of NumPy's numbers."""
    count = len(returns)
    members = returns.mean(axis=1)
    spread = float(members.std(ddof=1) * np.sqrt(1 + 1 / count)) if count > 1 else 0.0
    rng = np.random.default_rng(seed)
    of_starts = returns.mean(axis=0)
    drawn = of_starts[rng.integers(0, len(of_starts), (resamples, len(of_starts)))].mean(axis=1)
    others = rng.standard_t(count - 1, resamples) if count > 1 else np.zeros(resamples)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(drawn + spread * others, [tail, 100 - tail])
    return {
        "value": float(members.mean()),
        "interval": (float(low), float(high)),
        "members": members.tolist(),
        "std_members": spread,
        "std_starts": float(drawn.std()),
    }
