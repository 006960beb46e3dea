"""Do the known functions, and the actions, fit the data? A wrong one is believed by every imagined step."""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from jmbrl import checks
from jmbrl.data.replay import Replay, rows
from jmbrl.types import ActionSpace, Discrete, Transition


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
    tolerance: float = 1e-3,
) -> Agreement:
    """Compare a reward and a termination function with what was seen; warn where they disagree.

    Args:
      replay: real rows, or a log through ``from_arrays``.
      reward_fn, termination_fn: ``(obs, action, next_obs)``, one row, as models take them.
      tolerance: a reward agrees within ``tolerance * (1 + |reward|)``.

    Raises:
      ValueError: no valid rows, or a function that is not pure JAX.
    """
    seen = _valid(replay)
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
    every, count = jax.device_get(rows(replay))
    if not count:
        raise ValueError("replay must hold at least one valid row, got none")
    return jax.tree.map(lambda x: x[:count], every)


def _values(name: str, function: Callable, seen: Transition) -> np.ndarray:
    one = lambda *row: checks.pure(name, function, *row)  # noqa: E731
    values = np.asarray(jax.vmap(one)(seen.obs, seen.action, seen.next_obs))
    if values.ndim != 1:
        raise ValueError(f"{name} must return one number for one row, got shape {values.shape[1:]}")
    return values


def _warn(text: str) -> None:
    warnings.warn(text, AgreementWarning, stacklevel=3)
