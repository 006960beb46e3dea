"""What is controlled: a protocol for robots and plants, and simulated ones made from environments."""

from typing import Any, Protocol

import jax
import numpy as np

from jmbrl import checks
from jmbrl.control.clock import Clock
from jmbrl.envs.spaces import from_env as library_units
from jmbrl.types import Env, PyTree, Spec

_SLACK = 1e-6  # of a step: a moment that is late by rounding is not late


class Plant(Protocol):
    """A robot, a plant, or a simulation of one. NumPy at the border, actions in its own units.

    Attributes:
      spec: what it promises: shapes, bounds, and ``max_steps``, the control periods of an episode.
    """

    spec: Spec

    def reset(self) -> Any:
        """Bring it to where an episode begins; returns the observation there. May take its time."""
        ...

    def apply(self, action: np.ndarray) -> None:
        """Put an action in force; it stays so until the next one."""
        ...

    def observe(self) -> tuple[Any, float, bool, bool]:
        """``(obs, reward, terminated, truncated)`` now; the reward of what happened since the last look."""
        ...

    def stop(self) -> None:
        """Bring it to a safe state. Called at the end of every episode and of the run, however that ends."""
        ...


class EnvPlant:
    """An ``Env`` as a plant; a Gymnasium environment is one by ``envs.from_gymnasium``.

    With a clock the world moves on while others think: whenever it is touched it is stepped, ``dt`` seconds a step,
    up to the clock's time, under the action in force. An action that comes late takes effect late, to a step. Without
    a clock it is stepped once for each look.

    Args:
      env: its ``dt`` should be a fraction of the control period where the time between them matters.
      clock: the loop's own; None: one step a look.
      dt: seconds of a step; None: ``env.spec.dt``.
      seed: of the starts and the noise.

    Attributes:
      stops: how often it was stopped.

    Raises:
      ValueError: a clock and no ``dt``.
    """

    def __init__(self, env: Env, clock: Clock | None = None, *, dt: float | None = None, seed: int = 0):
        self.spec, self.clock, self.stops = env.spec, clock, 0
        self._dt = dt if dt is not None else env.spec.dt
        if clock is not None:
            if self._dt is None:
                raise ValueError(f"dt must be given, in seconds a step: {env.spec.name} does not tell its own")
            checks.number("dt", self._dt, 1e-9)
        self._key, self._number = checks.key(seed), 0
        self._reset = jax.jit(lambda key, i: env.reset(jax.random.fold_in(key, i)))
        self._step = jax.jit(lambda key, i, state, action: env.step(jax.random.fold_in(key, i), state, action))
        self._safe = library_units(self.spec.action, np.zeros(self.spec.action.shape))
        state, _ = self._reset(self._key, np.uint32(0))
        self._step(self._key, np.uint32(0), state, self._safe)  # compiled before the clock runs

    def reset(self) -> np.ndarray:
        self._state, obs = self._reset(self._key, self._count())
        self._time = self.clock.now() if self.clock is not None else 0.0
        self._action, self._reward, self._seen = self._safe, 0.0, (obs, False, False)
        return np.asarray(obs)

    def apply(self, action: np.ndarray) -> None:
        self._advance()
        self._action = library_units(self.spec.action, action)

    def observe(self) -> tuple[PyTree, float, bool, bool]:
        if self.clock is None:
            self._one()
        self._advance()
        reward, self._reward = self._reward, 0.0
        obs, terminated, truncated = self._seen
        return np.asarray(obs), reward, bool(terminated), bool(truncated)

    def stop(self) -> None:
        self.stops += 1
        self._action = self._safe

    def _advance(self) -> None:
        if self.clock is None or self._dt is None:
            return
        while self.clock.now() >= self._time + self._dt * (1 - _SLACK) and not any(self._seen[1:]):
            self._one()
            self._time += self._dt

    def _one(self) -> None:
        self._state, seen = self._step(self._key, self._count(), self._state, self._action)
        self._reward += float(seen.reward)
        self._seen = seen.obs, seen.terminated, seen.truncated

    def _count(self) -> np.uint32:
        self._number += 1
        return np.uint32(self._number)
