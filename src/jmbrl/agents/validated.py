"""Improving a policy in an ensemble of models until they no longer agree that it gets better."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks, data, models
from jmbrl.agents.imagination import Paths, health, imagined_paths
from jmbrl.health import is_counter
from jmbrl.types import Array, Key, Learner, Model, Params, PyTree


class _Loop(NamedTuple):
    """The policy under way; the last accepted one, what it returns in each member, after how many updates it was
    accepted, and how many were; what the members returned before; updates so far, -1 before the first look; sums."""

    now: PyTree
    best: PyTree
    returns: Array
    accepted_at: Array
    accepted: Array
    before: Array
    done: Array
    total: dict[str, Array]


def no_worse(returns: Array, best: Array, tolerated: float) -> Array:
    r"""Whether a policy is accepted: :math:`|\{k : J_k < J^*_k \text{ or } J_k \text{ not finite}\}| \le t K`.

    Args:
      returns, best: ``float32[K]``, of the candidate and of the last accepted policy in each member.
      tolerated: :math:`t`, in ``[0, 1]``.
    """
    worse = ~jnp.isfinite(returns) | (returns < best)
    # Three of ten are 30 %, whatever 0.3 is in float32.
    return jnp.sum(worse) <= tolerated * len(returns) + 1e-3


def policy_in_ensemble(
    model: Model,
    learner: Learner,
    *,
    horizon: int,
    paths: int,
    updates: int = 400,
    validate_every: int = 5,
    validation: int = 500,
    tolerated: float = 0.3,
    stop_after: int = 25,
) -> Callable:
    """Improve a policy in an ensemble for as long as enough of its members say that it gets better.

    Each update imagines paths of the stochastic policy, the member drawn anew for each row and step as the ensemble
    does. After every ``validate_every`` updates the mean action is tried in each member by itself, always from the same
    start states; the policy is remembered unless it became worse than the remembered one in too large a share of the
    members (``no_worse``). What was remembered last is returned.

    Args:
      model: an ensemble.
      learner: on-policy, ``update(key, state, rows[H, N], mask[H, N])``.
      horizon: steps of a path, in updates and in validation.
      paths: of one update.
      updates: at most; a multiple of ``validate_every``.
      validate_every: updates between validations.
      validation: start states of a validation.
      tolerated: share of members that may be worse, in ``[0, 1]``.
      stop_after: updates since the last accepted policy.

    Returns:
      ``(key, params, look, starts, learner_state) -> (learner_state, info)`` with ``look(belief) -> float32[F]`` and
      ``starts(key, n) -> beliefs[n]``. ``info``: ``policy/updates``, ``policy/accepted``, ``policy/improved``
      (share of members in which the result is better than what it began with), ``policy/imagined_return`` (the result's
      undiscounted return, mean over members and starts), ``policy/imagined_before`` (of what it began with);
      ``imagine/...`` (shares of rows) and ``learner/...``, means over updates, its counters sums.

    Raises:
      ValueError: a model without members, or a number outside its range.

    Source: Kurutach et al. 2018, section 4 and algorithm 2.
    """
    if not model.members or model.member is None:
        raise ValueError("policy_in_ensemble needs an ensemble: models.ensemble(model, n)")
    counts = {"horizon": horizon, "paths": paths, "validate_every": validate_every, "validation": validation}
    for name, value in (counts | {"stop_after": stop_after}).items():
        checks.integer(name, value, 1)
    checks.number("tolerated", tolerated, 0.0, 1.0)
    if checks.integer("updates", updates, 1) % validate_every:
        raise ValueError(f"updates must be a multiple of validate_every={validate_every}, got {updates}")
    member = model.member

    def improve(key: Key, params: Params, look: Callable, starts: Callable, learned: PyTree) -> tuple[PyTree, dict]:
        key_update, key_starts, key_judge = jax.random.split(key, 3)
        fixed = starts(key_starts, validation)

        def imagined(key: Key, step_many: Callable, learned: PyTree, beliefs: PyTree, explore: bool) -> Paths:
            act = lambda key, x: learner.act(key, learned, x, explore)[0]  # noqa: E731
            return imagined_paths(key, step_many, look, act, beliefs, horizon)

        def update(learned: PyTree, key: Key) -> tuple[PyTree, dict]:
            key_start, key_path, key_learn = jax.random.split(key, 3)
            step_many = lambda key, b, a: model.step_many(key, params, b, a)  # noqa: E731
            seen = imagined(key_path, step_many, learned, starts(key_start, paths), True)
            # A member that broke spoils its own rows, not the update.
            learned, info = learner.update(key_learn, learned, seen.rows, seen.alive & jax.vmap(data.finite)(seen.rows))
            return learned, {f"learner/{name}": value for name, value in info.items()} | health(seen)

        def judged(learned: PyTree) -> Array:
            """``float32[members]``: mean return of the mean action; the same starts and noise each time."""

            def one(index: Array) -> Array:
                own = models.one_member(params, index)
                step_many = lambda key, b, a: member.step_many(key, own, b, a)  # noqa: E731
                seen = imagined(key_judge, step_many, learned, fixed, False)
                return jnp.mean(jnp.sum(jnp.where(seen.alive, seen.rows.reward, 0.0), axis=0))

            return jax.vmap(one)(jnp.arange(model.members))

        def body(loop: _Loop) -> _Loop:
            """Update, then judge; the first turn only judges what the phase begins with."""
            first = loop.done < 0
            key_block = jax.random.fold_in(key_update, loop.done)

            def one(i: Array, carry: tuple) -> tuple:
                now, info = update(carry[0], jax.random.fold_in(key_block, i))
                return now, jax.tree.map(jnp.add, carry[1], info)

            now, total = jax.lax.fori_loop(0, jnp.where(first, 0, validate_every), one, (loop.now, loop.total))
            returns, done = judged(now), jnp.where(first, 0, loop.done + validate_every)
            good = first | no_worse(returns, loop.returns, tolerated)
            keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)  # noqa: E731
            best, top, at = keep((now, returns, done), (loop.best, loop.returns, loop.accepted_at))
            before = jnp.where(first, returns, loop.before)
            return _Loop(now, best, top, at, loop.accepted + (good & ~first), before, done, total)

        def going(loop: _Loop) -> Array:
            return (loop.done < updates) & (loop.done - loop.accepted_at < stop_after)

        zero, none = jnp.zeros((), jnp.int32), jnp.zeros(model.members)
        empty = jax.tree.map(lambda x: jnp.zeros(x.shape), jax.eval_shape(update, learned, key)[1])
        end = jax.lax.while_loop(going, body, _Loop(learned, learned, none, zero, zero, none, zero - 1, empty))
        mean = lambda name, sum: sum if is_counter(name) else sum / end.done  # noqa: E731
        return end.best, {name: mean(name, sum) for name, sum in end.total.items()} | {
            "policy/updates": end.done.astype(jnp.float32),
            "policy/accepted": end.accepted.astype(jnp.float32),
            "policy/improved": jnp.mean(end.returns > end.before, dtype=jnp.float32),
            "policy/imagined_return": jnp.mean(end.returns),
            "policy/imagined_before": jnp.mean(end.before),
        }

    return improve
