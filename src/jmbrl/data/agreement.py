"""Do the known functions, and the actions, fit the data? A wrong one is believed by every imagined step."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jmbrl import checks
from jmbrl.data.replay import Replay
from jmbrl.types import ActionSpace, Discrete, Env, Transition

TOLERANCE = 1e-3  # of 1 + |reward|: a reward this close agrees


class AgreementWarning(UserWarning):
    """A function or an action does not fit the data."""


class Agreement(NamedTuple):
    """Shares of rows in ``[0, 1]`` where function and data agree, and the largest reward error; None: not asked."""

    reward: float | None
    reward_error: float | None
    termination: float | None


def check_functions(
    replay: Replay,
    reward_fn: Callable | None = None,
    termination_fn: Callable | None = None,
    *,
    tolerance: float = TOLERANCE,
) -> Agreement:
    """Compare a reward and a termination function with what was seen; warn where they disagree.

    Args:
      replay: real rows, or a log through ``from_arrays``.
      reward_fn, termination_fn: ``(obs, action, next_obs)``, one row, as models take them.
      tolerance: a reward agrees within ``tolerance * (1 + |reward|)``.

    Raises:
      ValueError: no valid rows, or a function that is not pure JAX.
    """
    return _compare(_valid(replay), reward_fn, termination_fn, tolerance)


def check_given(env: Env, replay: Any, *, lane: int | None = None, limit: int = 2000) -> Agreement | None:
    """``check_functions`` of an environment's own functions on what an agent has seen so far; the run loop calls it.

    Args:
      env: where the agent acts. Its functions are compared whether or not the agent's model uses them.
      replay: of the agent; None where it keeps none.
      lane: which seed's, where the replay has a leading axis of seeds.
      limit: rows that are compared, the first in the ring.

    Returns:
      None where there is nothing to compare: no function, no replay, no valid row.

    Raises:
      ValueError: a function that is not pure JAX, or that returns another shape.
    """
    functions = env.reward_fn, env.termination_fn
    if functions == (None, None) or not isinstance(replay, Replay):
        return None
    seen = _rows(replay, lane, limit)
    return _compare(seen, *functions, TOLERANCE) if len(seen.reward) else None


def _compare(
    seen: Transition, reward_fn: Callable | None, termination_fn: Callable | None, tolerance: float
) -> Agreement:
    reward = error = termination = None
    if reward_fn is not None:
        given = _values("reward_fn", reward_fn, seen)
        miss = np.abs(given - seen.reward)
        wrong = ~(miss <= tolerance * (1 + np.abs(seen.reward)))  # a NaN is wrong
        reward, error = float(1 - wrong.mean()), float(miss.max())
        if wrong.any():
            row = int(np.argmax(np.where(np.isnan(miss), np.inf, miss)))
            _warn(
                f"reward_fn agrees with the data in {reward:.1%} of {len(miss)} rows; largest error {error:.4g} in row "
                f"{row}: seen {seen.reward[row]:.6g}, reward_fn {given[row]:.6g}"
            )
    if termination_fn is not None:
        given = _values("termination_fn", termination_fn, seen).astype(bool)
        wrong = given != seen.terminated
        termination = float(1 - wrong.mean())
        if wrong.any():
            row = int(np.argmax(wrong))
            _warn(
                f"termination_fn agrees with the data in {termination:.1%} of {len(wrong)} rows: {int(given.sum())} "
                f"ends where {int(seen.terminated.sum())} were seen; first in row {row}: seen "
                f"{bool(seen.terminated[row])}, termination_fn {bool(given[row])}"
            )
    return Agreement(reward, error, termination)


def check_actions(replay: Replay, action: ActionSpace) -> float:
    """The share of rows whose action lies in the space; warns below 1. Logs often hold an environment's own units.

    Raises:
      ValueError: no valid rows, or actions of another shape or type.
    """
    seen = _valid(replay).action
    checks.same_shape("action", seen.shape[1:], action.shape, "the action space")
    discrete = isinstance(action, Discrete)
    if discrete != np.issubdtype(seen.dtype, np.integer):
        raise ValueError(f"action must be {'integer' if discrete else 'float'} for {action}, got {seen.dtype}")
    inside = (seen >= 0) & (seen < action.n) if discrete else np.all(np.abs(seen) <= 1.0 + 1e-6, axis=1)
    share = float(inside.mean())
    if share < 1.0:
        row = int(np.argmin(inside))
        wanted = f"[0, {action.n})" if discrete else "[-1, 1] (envs.spaces.from_env scales an environment's own units)"
        _warn(f"action lies in {wanted} in {share:.1%} of {len(inside)} rows; first outside: row {row}, {seen[row]}")
    return share


def _valid(replay: Replay) -> Transition:
    seen = _rows(replay)
    if not len(seen.reward):
        raise ValueError("replay must hold at least one valid row, got none")
    return seen


def _rows(replay: Replay, lane: int | None = None, limit: int | None = None) -> Transition:
    """Valid rows as NumPy. They are gathered where they lie: a replay may fill half of the memory."""
    flags = np.asarray(replay.valid if lane is None else replay.valid[lane])
    place = tuple(index[:limit] for index in np.nonzero(flags))
    place = place if lane is None else (lane, *place)
    return jax.device_get(jax.tree.map(lambda x: x[place], replay.data))


def _values(name: str, function: Callable, seen: Transition) -> np.ndarray:
    one = lambda *row: checks.pure(name, function, *row)  # noqa: E731
    values = np.asarray(jax.vmap(one)(seen.obs, seen.action, seen.next_obs))
    if values.ndim != 1:
        raise ValueError(f"{name} must return one number for one row, got shape {values.shape[1:]}")
    return values


def _warn(text: str) -> None:
    warnings.warn(text, AgreementWarning, stacklevel=3)
