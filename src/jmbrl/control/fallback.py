"""What acts where the agent's action is not there in time or is no number."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jmbrl import checks
from jmbrl.envs.spaces import from_env
from jmbrl.types import Continuous, PyTree, Spec

NAMES = ("hold", "zero", "plan")


class Fallback:
    """Actions in the library's units.

    * ``"hold"``: the action in force goes on.
    * ``"zero"``: 0 in the plant's own units, or the bound next to it; discrete action 0.
    * ``"plan"``: the plan made last, at the row for now; its last action once it is used up, ``"hold"`` without one.
    * ``(obs) -> action`` in the plant's units, such as a controller that is known to be safe.

    What is not finite or of another shape becomes ``"zero"``.

    Args:
      kind: one of these.
      spec: the plant's.
      carry: the agent's memory; ``"plan"`` reads its ``plan``, rows ``[H, ...]``, and ``plan_state`` (``agents.mpc``).

    Raises:
      ValueError: an unknown kind, or an agent without a plan.
    """

    def __init__(self, kind: str | Callable, spec: Spec, carry: PyTree):
        self._kind = kind if callable(kind) else checks.choice("fallback", kind, NAMES)
        if kind == "plan" and not {"plan", "plan_state"} <= set(getattr(carry, "_fields", ())):
            raise ValueError(
                f"fallback='plan' needs an agent whose carry holds a plan (agents.mpc), got a {type(carry).__name__}"
            )
        self._space = spec.action
        bounds = (spec.action.low, spec.action.high) if isinstance(spec.action, Continuous) else (0, 0)
        self.zero = from_env(self._space, np.clip(np.zeros(spec.action.shape), *bounds))
        self.begin()

    def begin(self) -> None:
        """A new episode: no plan yet."""
        self._plan: list[np.ndarray] | None = None
        self._made = 0

    def planned(self, carry: PyTree, tick: int) -> None:
        """Take note of the plan that was under way at ``tick``.

        An agent that replans every few steps shows one plan several times, with the plan's state unchanged.
        """
        if self._kind != "plan":
            return
        plan = [np.asarray(x) for x in jax.tree.leaves((carry.plan, carry.plan_state))]
        if self._plan is None or not all(map(np.array_equal, plan, self._plan)):
            self._plan, self._made = plan, tick

    def action(self, obs: np.ndarray, in_force: np.ndarray, tick: int) -> np.ndarray:
        """The action for ``tick``; ``in_force`` is the one that goes on if nothing is done."""
        action: Any = in_force
        if callable(self._kind):
            action = from_env(self._space, self._kind(obs))
        elif self._kind == "zero":
            action = self.zero
        elif self._kind == "plan" and self._plan is not None:
            rows = self._plan[0]
            action = rows[min(tick - self._made, len(rows) - 1)]
        action = np.asarray(action, self.zero.dtype)
        return action if action.shape == self.zero.shape and np.all(np.isfinite(action)) else self.zero
