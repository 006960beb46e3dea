"""Environments that live outside JAX, stepped from inside a compiled program.

A live set is ``num_envs`` plain environments. JAX holds only a handle, ``int32[num_envs]`` with the set's number in
every entry, so two runs of one compiled program have environments of their own. Each reset hands out a new
number; at most ``LIVE_SETS`` sets are kept, and beyond that a reset takes over the environments of the set
that was used longest ago, whose handle is refused from then on. All calls of one environment happen on one
thread of its own, because graphics contexts belong to the thread that made them.
"""

import inspect
import math
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

LIVE_SETS = 4

_last_error: BaseException | None = None


class HostError(RuntimeError):
    """A host environment raised; the message holds the original one and its traceback."""


def host_error() -> BaseException | None:
    """The exception a host environment raised last, as it was; None where none did.

    JAX turns what a callback raises into its own error, which carries the text only.
    """
    return _last_error


class Border(NamedTuple):
    """How one environment's values become arrays; see ``gymnasium.py``.

    Attributes:
      name: for messages.
      action: ``(library action, NumPy) -> what the environment's step takes``.
      observe: ``(observation) -> array`` of ``shape`` and ``dtype``.
      shape, dtype: of one observation.
      max_steps: raw steps after which an episode is truncated.
      repeat: raw steps for one action.
    """

    name: str
    action: Callable
    observe: Callable
    shape: tuple[int, ...]
    dtype: str
    max_steps: float = math.inf
    repeat: int = 1


class LiveSet:
    """Some environments and how far each is in its episode."""

    def __init__(self, envs: list[Any], border: Border) -> None:
        self.envs = envs
        self._border = border
        self._time = [0] * len(envs)

    def reset(self, which: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Observations ``[num_envs, ...]`` of the environments in the mask ``which``, zeros for the others."""
        obs = np.zeros((len(self.envs), *self._border.shape), self._border.dtype)
        for i in np.flatnonzero(which):
            self._time[i] = 0
            obs[i] = self._observe(_reset(self.envs[i], int(seeds[i])))
        return obs

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """``(obs, reward, terminated, truncated)``, each ``[num_envs, ...]``."""
        size = len(self.envs)
        obs = np.zeros((size, *self._border.shape), self._border.dtype)
        rewards, ends, cuts = np.zeros(size, np.float32), np.zeros(size, bool), np.zeros(size, bool)
        for i in range(size):
            obs[i], rewards[i], ends[i], cuts[i] = self._step_one(i, actions[i])
        return obs, rewards, ends, cuts

    def _step_one(self, i: int, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool]:
        total, raw = 0.0, self._border.action(action)
        for _ in range(self._border.repeat):
            out = self.envs[i].step(raw)
            if not isinstance(out, tuple) or len(out) != 5:
                count = len(out) if isinstance(out, tuple) else type(out).__name__
                raise ValueError(
                    f"step of {self._border.name} must return (obs, reward, terminated, truncated, info), got {count}"
                )
            obs, reward, terminated, truncated, _ = out
            self._time[i] += 1
            total += self._number("reward", reward)
            ended = bool(self._number("terminated", terminated))
            cut = bool(self._number("truncated", truncated)) or self._time[i] >= self._border.max_steps
            if ended or cut:
                break
        return self._observe(obs), total, ended, cut and not ended

    def _number(self, what: str, value: Any) -> float:
        if value is None or np.ndim(value) != 0:
            got = "None" if value is None else f"shape {np.shape(value)}"
            raise ValueError(f"{what} of {self._border.name} must be one number, got {got}")
        return float(value)

    def _observe(self, obs: Any) -> np.ndarray:
        array = self._border.observe(obs)
        if array.shape != self._border.shape:
            raise ValueError(
                f"observation of {self._border.name} has shape {array.shape}, but its spec says {self._border.shape}"
            )
        return array


class Host:
    """Every live set of one environment, behind three calls that take and return NumPy arrays."""

    def __init__(self, create: Callable[[], Any], border: Border, first: Any, copies: int | None = None) -> None:
        """``create`` makes one more environment; ``first`` is one made already; ``copies`` limits their number."""
        self._create, self._border, self._limit = create, border, copies
        self._spare: list[Any] = [first]
        self._made = 1
        self._sets: dict[int, LiveSet] = {}  # least recently used first
        self._next = 0
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=border.name)

    def reset(self, num_envs: int, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A new set: ``(handle int32[num_envs], obs)``."""

        def work() -> tuple[np.ndarray, np.ndarray]:
            live = LiveSet(self._claim(num_envs), self._border)
            try:
                obs = live.reset(np.ones(num_envs, bool), seeds)
            except BaseException:
                self._spare += live.envs  # not lost: they can be reset again, and closed
                raise
            self._next += 1
            self._sets[self._next] = live
            return np.full(num_envs, self._next, np.int32), obs

        return self._run(work)

    def step(self, handle: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, ...]:
        """``(handle, obs, reward, terminated, truncated)``."""
        return self._run(lambda: (np.array(handle), *self._find(handle).step(actions)))

    def restart(self, handle: np.ndarray, done: np.ndarray, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reset the environments where ``done``: ``(handle, obs)``, zeros for the others."""
        return self._run(lambda: (np.array(handle), self._find(handle).reset(done, seeds)))

    def close(self) -> None:
        """Close every environment. A later reset makes new ones, or resets the given object."""
        with self._lock:
            envs = [*self._spare, *(e for live in self._sets.values() for e in live.envs)]
            self._sets.clear()
            # Objects that were given cannot be made again; the next reset may find them closed.
            self._spare = [] if self._limit is None else list(envs)
            self._made = len(self._spare)

            def close_all() -> None:
                for env in envs:
                    getattr(env, "close", lambda: None)()

            self._thread.submit(close_all).result()

    def _claim(self, num_envs: int) -> list[Any]:
        """Environments for a new set: spare ones, then those of the oldest set, then new ones."""
        short = self._limit is not None and len(self._spare) + self._limit - self._made < num_envs
        while self._sets and (len(self._sets) >= LIVE_SETS or short):
            oldest = next(iter(self._sets))
            self._spare += self._sets.pop(oldest).envs
            short = False
        while len(self._spare) < num_envs:
            if self._limit is not None and self._made >= self._limit:
                raise ValueError(
                    f"num_envs must be at most {self._limit} for {self._border.name}, which was given as one object, "
                    f"got {num_envs}: give a function that makes one, from_gymnasium(lambda: MyEnv())"
                )
            self._spare.append(self._create())
            self._made += 1
        taken, self._spare = self._spare[:num_envs], self._spare[num_envs:]
        return taken

    def _find(self, handle: np.ndarray) -> LiveSet:
        number = int(handle[0])
        if number not in self._sets:
            raise ValueError(
                f"the state of {self._border.name} is number {number}, which is gone: a host environment's state does "
                f"not survive its process or close(), and only the last {LIVE_SETS} resets live (one for a single "
                "object). Reset again"
            )
        live = self._sets[number] = self._sets.pop(number)  # now the most recently used
        if len(live.envs) != len(handle):
            raise ValueError(f"the state of {self._border.name} holds {len(live.envs)} environments, got {len(handle)}")
        return live

    def _run(self, work: Callable[[], Any]) -> Any:
        """``work`` on the environment's own thread; what it raises is kept and told in full."""
        global _last_error
        with self._lock:
            try:
                return self._thread.submit(work).result()
            except BaseException as error:  # a KeyboardInterrupt inside the environment too
                _last_error = error
                text = "".join(traceback.format_exception(error))
                summary = f"{self._border.name} raised {type(error).__name__}: {error}"
                raise HostError(f"{summary}\n{text}") from error


def _reset(env: Any, seed: int) -> Any:
    """The first observation; objects whose ``reset`` takes no seed are reset without."""
    out = env.reset(seed=seed) if _takes_seed(env) else env.reset()
    if not isinstance(out, tuple) or len(out) != 2:
        raise ValueError(f"reset of {type(env).__name__} must return (observation, info), got {type(out).__name__}")
    return out[0]


def _takes_seed(env: Any) -> bool:
    parameters = inspect.signature(env.reset).parameters
    return "seed" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
