"""Environments by name. Nothing heavy is imported until one is made."""

import difflib
import importlib
from collections.abc import Callable
from typing import Any

from jmbrl.types import Env

_ADAPTERS = ("gymnax", "brax", "gymnasium", "playground")
_NATIVE = (
    "blocking_maze",
    "car_racing",
    "cartpole_masked",
    "cartpole_pixels",
    "cartpole_swingup",
    "connect_four",
    "dodge",
    "maze",
    "pendulum_masked",
    "pendulum_pixels",
    "pilco/cartpole",
    "pilco/pendulum",
    "rod",
    "shortcut_maze",
    "tictactoe",
    "wang/acrobot",
    "wang/cartpole",
    "wang/mountain_car",
    "wang/pendulum",
    "windy_gridworld",
)
_registered: dict[str, Callable[..., Env]] = {}


def register(name: str, factory: Callable[..., Env]) -> None:
    """Make ``make(name, **options)`` call ``factory(**options)``.

    Raises:
      ValueError: the name is taken, empty, or has an adapter's prefix (``"gymnax:..."``).
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"name must be a non-empty string, got {name!r}")
    if name in _registered or name in _NATIVE or name.partition(":")[0] in _ADAPTERS:
        raise ValueError(f"name {name!r} is taken")
    if not callable(factory):
        raise ValueError(f"factory of {name!r} must be callable, got {factory!r}")
    _registered[name] = factory


def names() -> tuple[str, ...]:
    """Every name that ``make`` knows without asking a package; ``gymnasium:`` takes any registered id besides."""
    found = [*_NATIVE, *_registered]
    for adapter in _ADAPTERS:
        found += [f"{adapter}:{name}" for name in _adapter(adapter).NAMES]
    return tuple(found)


def make(name: Any, **options: Any) -> Env:
    """An environment by name, or from an object that is already one.

    Args:
      name: ``"cartpole_swingup"``, ``"wang/cartpole"``, ``"gymnax:Pendulum-v1"``, ``"brax:reacher"``,
        ``"gymnasium:Hopper-v5"``, ``"playground:CheetahRun"``, a registered name; or a jmbrl ``Env`` (returned as it
        is), or an object with Gymnasium's ``reset`` and ``step`` (as ``from_gymnasium``).
      options: passed to the adapter: ``max_steps`` everywhere, ``backend`` for brax, the task's parameters for
        gymnax, the constructor's arguments for gymnasium.

    Raises:
      ValueError: an unknown name (the message lists the nearest ones) or an option the adapter refuses.
    """
    if isinstance(name, Env):
        if options:
            raise ValueError(f"options {sorted(options)} cannot be applied to {name.spec.name}: it is made already")
        return name
    if not isinstance(name, str):
        return _adapter("gymnasium").from_gymnasium(name, **options)
    if name in _registered:
        return _registered[name](**options)
    if name in _NATIVE:
        return importlib.import_module(f"jmbrl.envs.native.{name.replace('/', '.')}").make(**options)
    adapter, colon, task = name.partition(":")
    if colon and adapter in _ADAPTERS:
        module = _adapter(adapter)
        if task in module.NAMES or getattr(module, "OPEN", False):
            return module.make(task, **options)
    raise unknown(name)


def unknown(name: str, extra: tuple[str, ...] = ()) -> ValueError:
    """The error for a name that nothing answers to."""
    known = [*names(), *extra]
    # Bare task names are compared too: "Pendulum-v1" should find "gymnax:Pendulum-v1".
    bare = {known_name.rpartition(":")[2]: known_name for known_name in reversed(known)}
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    near += [bare[n] for n in difflib.get_close_matches(name.rpartition(":")[2], list(bare), n=3, cutoff=0.5)]
    hint = ", ".join(dict.fromkeys(near)) or "see jmbrl.envs.names()"
    return ValueError(f"name must be a known environment, got {name!r}; nearest: {hint}")


def _adapter(name: str) -> Any:
    return importlib.import_module(f"jmbrl.envs.{name}")
