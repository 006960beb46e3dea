"""What ``config.json`` says and how a run is made from it: typed settings, presets, nearest names.

A configuration is a plain dict: ``system, env, env_options, preset, config`` (every setting of the system, spelled
out), ``steps, seed, seeds, num_envs``, and ``options`` (how to run) and ``versions``, which do not decide numbers.
"""

import ast
import dataclasses
import difflib
import json
import types
import typing
from pathlib import Path
from typing import Any, NamedTuple

import jax

import jmbrl
from jmbrl.checkpoint import config_diff
from jmbrl.types import Agent, Env

FORMAT = 1


class Built(NamedTuple):
    """A configuration made into objects."""

    env: Env
    agent: Agent
    train: Any


def make(
    system: str,
    env: str,
    *,
    steps: int,
    seed: int = 0,
    seeds: int = 1,
    num_envs: int = 1,
    preset: str | None = None,
    settings: list[str] | None = None,
    env_options: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A full configuration: the system's defaults, under its preset, under ``settings`` (``"key=value"``).

    Raises:
      ValueError: an unknown system, preset or setting (naming the nearest), or a value of another type.
    """
    entry = find_system(system)
    preset, values = preset_values(system, env, preset)
    values = dict(values)
    for name, value in values.items():
        values[name] = typed(entry.config, name, value, f"preset {preset}")
    for name, text in map(split_setting, settings or []):
        values[name] = typed(entry.config, name, text, "--set")
    return {
        "format": FORMAT,
        "system": system,
        "env": env,
        "env_options": env_options or {},
        "preset": preset,
        "config": to_dict(make_config(entry.config, values)),
        "steps": steps,
        "seed": seed,
        "seeds": seeds,
        "num_envs": num_envs,
        "options": options or {},
        "versions": versions(),
    }


def read(directory: str | Path) -> dict[str, Any]:
    """The ``config.json`` of a run.

    Raises:
      ValueError: there is none, or it was not written by the command line.
    """
    path = Path(directory) / "config.json"
    if not path.exists():
        raise ValueError(f"directory {directory} holds no run: there is no config.json")
    config = json.loads(path.read_text())
    if "system" not in config or "config" not in config:
        raise ValueError(f"{path} names no system: it was not written by `jmbrl train`; pass env= and agent= yourself")
    return config


def build(config: dict[str, Any]) -> Built:
    """Environment, agent and ``train`` of a configuration."""
    from jmbrl.stages import make_run

    entry, settings = find_system(config["system"]), settings_of(config)
    env = make_env(config)
    agent = entry.make(env, settings)
    return Built(env, agent, make_run(env, agent, config["steps"], config["num_envs"]))


def make_env(config: dict[str, Any], **options: Any) -> Env:
    """The environment of a configuration, as its system wants to see it: a new one at each call. ``options``: in the
    place of its own."""
    from jmbrl import envs

    env = envs.make(config["env"], **{**config["env_options"], **options})
    return find_system(config["system"]).wrap(env, settings_of(config))


def cost(config: dict[str, Any], env: Env) -> str | None:
    """How much learning a configuration's run holds, in one line; None where its system does not say."""
    tell = find_system(config["system"]).cost
    return None if tell is None else tell(env, settings_of(config), config["steps"], config["num_envs"])


def settings_of(config: dict[str, Any]) -> Any:
    """The system's dataclass of settings."""
    kind = find_system(config["system"]).config
    return make_config(kind, {name: typed(kind, name, x, "config.json") for name, x in config["config"].items()})


def identity(config: dict | None) -> dict | None:
    """The part of a configuration that decides the numbers; a longer run repeats the shorter one."""
    free = ("steps", "options", "versions")
    return None if config is None else {name: value for name, value in config.items() if name not in free}


def check(path: Path, config: dict) -> None:
    """Compare with a saved ``config.json``, apart from what may change between resumptions.

    Raises:
      ValueError: listing each entry that differs.
    """
    differs = config_diff(identity(json.loads(path.read_text())) or {}, identity(config) or {})
    if differs:
        raise ValueError(f"{path} was made with another configuration; it differs in: " + "; ".join(differs))


def versions() -> dict[str, str]:
    """What decides the last bits of a run."""
    return {"jmbrl": jmbrl.__version__, "jax": jax.__version__, "backend": jax.default_backend()}


def find_system(name: str) -> Any:
    from jmbrl.agents import SYSTEMS

    if name not in SYSTEMS:
        raise ValueError(f"system must be one of {', '.join(sorted(SYSTEMS))}; got {name!r}{nearest(name, SYSTEMS)}")
    return SYSTEMS[name]


def preset_values(system: str, env: str, preset: str | None) -> tuple[str | None, dict[str, Any]]:
    """The named preset, or the one that the environment's id suggests; ``"none"`` takes the bare defaults."""
    from jmbrl.agents.presets import PRESETS, default_preset

    known = PRESETS.get(system, {})
    name = default_preset(system, env) if preset is None else preset
    if name is None or name == "none":
        return None, {}
    if name not in known:
        choices = ", ".join(known) or "(none)"
        raise ValueError(f"preset of {system} must be one of {choices}; got {name!r}{nearest(name, known)}")
    return name, known[name]


def split_setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"--set must be key=value, got {text!r}")
    return name.strip(), value.strip()


def parse_options(texts: list[str] | None) -> dict[str, Any]:
    """``key=value`` pairs for an environment, whose options have no declared types: Python literals, else text."""
    return {name: literal(value) for name, value in map(split_setting, texts or [])}


def literal(text: Any) -> Any:
    """A Python literal where the text is one (``true`` and ``none`` in lower case too), else the text."""
    if not isinstance(text, str):
        return text
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def typed(kind: type, name: str, value: Any, where: str) -> Any:
    """``value`` (text or already a value) as the type that the dataclass ``kind`` declares for ``name``.

    A dotted name reaches into a setting that is a dataclass itself.
    """
    head, _, rest = name.partition(".")
    fields = typing.get_type_hints(kind)
    if head not in fields:
        raise ValueError(f"{where}: {kind.__name__} has no setting {head!r}{nearest(head, fields)}")
    if rest and fields[head] is dict:  # options of a part, whose types are the part's own business
        return literal(value)
    if rest:
        return typed(fields[head], rest, value, where)
    parsed = literal(value)
    if _wants_text(fields[head]) and isinstance(value, str) and parsed is not None:
        parsed = value
    try:
        return _convert(fields[head], parsed)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: {name} must be {_name(fields[head])}, got {value!r}") from None


def make_config(kind: type, values: dict[str, Any]) -> Any:
    """The dataclass from flat or dotted ``values``."""
    plain = {name: value for name, value in values.items() if "." not in name}
    nested: dict[str, dict] = {}
    for name, value in values.items():
        head, dot, rest = name.partition(".")
        if dot:
            nested.setdefault(head, {})[rest] = value
    defaults = kind()
    for head, inner in nested.items():
        outer = plain.get(head, getattr(defaults, head))
        plain[head] = {**outer, **inner} if isinstance(outer, dict) else dataclasses.replace(outer, **inner)
    return dataclasses.replace(defaults, **plain)


def to_dict(config: Any) -> dict[str, Any]:
    """As JSON will give it back: tuples become lists."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def nearest(name: str, known: Any) -> str:
    """``"; did you mean x?"`` where something is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f"; did you mean {near[0]!r}?" if near else ""


def _convert(kind: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _first_that_fits(arguments, value)
    if origin is typing.Literal:
        if value not in arguments:
            raise ValueError
        return value
    if origin is tuple:
        return _convert_tuple(arguments, value)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return make_config(kind, {k: typed(kind, k, v, kind.__name__) for k, v in dict(value).items()})
    if kind is Any:
        return value
    if kind is type(None):
        if value is not None:
            raise ValueError
        return None
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)  # 1e6
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise ValueError
    return value


def _convert_tuple(arguments: tuple, value: Any) -> tuple:
    items = tuple(value) if isinstance(value, tuple | list) else (value,)  # hidden=64 means (64,)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_convert(arguments[0], item) for item in items)
    if len(items) != len(arguments):
        raise ValueError
    return tuple(_convert(kind, item) for kind, item in zip(arguments, items, strict=True))


def _first_that_fits(kinds: tuple, value: Any) -> Any:
    for kind in sorted(kinds, key=lambda kind: kind is float):  # int before float, so that 3 stays 3
        try:
            return _convert(kind, value)
        except (TypeError, ValueError):
            continue
    raise ValueError


def _wants_text(kind: Any) -> bool:
    return kind is str or str in typing.get_args(kind)


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind).replace("typing.", "")
