"""``act`` without the code that made it: a compiled program on disk, its weights apart.

control.export(agent, state, spec, "robot/")     # where it was trained
policy = control.load("robot/")                  # where it acts: jax and NumPy, no model, no replay
control.export_weights(newer, "robot/")          # the same program, other weights
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export as jax_export

import jmbrl
from jmbrl import checks, policy
from jmbrl.control.acting import Acting
from jmbrl.envs.spaces import strong
from jmbrl.types import Agent, Array, Continuous, Discrete, Key, PyTree, Spec
from jmbrl.writers import write_json

FORMAT = 1
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
FACTS, WEIGHTS, PROGRAMS = "facts.json", "weights.npz", ("act", "reset")


def export(agent: Agent, state: PyTree, spec: Spec, path: str | Path, *, platforms: Sequence[str] = ("cpu",)) -> Path:
    """Write what acts: ``act`` and ``reset`` as StableHLO (``jax.export``), without exploration, and the weights.

    Args:
      agent, state: as trained. The arrays that reach ``act`` are found and are inputs of the programs.
      spec: of the plant.
      path: a directory.
      platforms: what the programs can run on, among ``cpu``, ``cuda``, ``rocm``, ``tpu``.

    Returns:
      The directory: ``act.jax``, ``reset.jax``, ``weights.npz``, ``facts.json``.

    Raises:
      ValueError: an unknown platform; an agent that calls Python while it acts, or something that JAX cannot export.
    """
    for platform in platforms:
        checks.choice("platforms", platform, PLATFORMS)
    acting = Acting(agent, spec, state, explore=False)
    weights = list(acting.weights(state).values())
    by_place = lambda weights: dict(zip(acting.places, weights, strict=True))  # noqa: E731
    structure = jax.tree.structure(jax.eval_shape(acting.reset, by_place(weights)))

    def act(key: Key, weights: list, carry: list, obs: Array, is_first: Array) -> tuple[Array, list]:
        action, carry = acting.act(key, by_place(weights), jax.tree.unflatten(structure, carry), obs, is_first)
        return action, jax.tree.leaves(carry)

    def reset(weights: list) -> list:
        return jax.tree.leaves(acting.reset(by_place(weights)))

    obs = jax.ShapeDtypeStruct(spec.obs_shape, spec.obs_dtype)
    shown = (jax.random.key(0), weights, jax.eval_shape(reset, weights), obs, jax.ShapeDtypeStruct((), bool))
    programs = {}
    for name, function, arguments in (("act", act, shown), ("reset", reset, (weights,))):
        try:
            programs[name] = bytes(
                jax_export.export(jax.jit(function), platforms=tuple(platforms))(*arguments).serialize()
            )
        except NotImplementedError as error:
            raise ValueError(
                f"agent cannot be exported: its {name} calls Python (a host callback), which a program on disk has not "
                f"({error})"
            ) from error
        except ValueError as error:
            raise ValueError(f"agent cannot be exported: {error}") from error
    target = Path(path)
    target.mkdir(parents=True, exist_ok=True)
    facts = {
        "format": FORMAT,
        "versions": {"jmbrl": jmbrl.__version__, "jax": jax.__version__, "numpy": np.__version__},
        "platforms": list(platforms),
        "key": str(jax.random.key_impl(jax.random.key(0))),
        "spec": _written(spec),
        "leaves": len(jax.tree.leaves(state)),
        "places": acting.places,
        "weights": [[str(leaf.dtype), list(leaf.shape)] for leaf in weights],
        "programs": {name: hashlib.sha256(program).hexdigest() for name, program in programs.items()},
    }
    for name, program in programs.items():
        _replace(target / f"{name}.jax", program)
    _save_weights(weights, target)
    write_json(target / FACTS, facts)
    return target


def export_weights(state: PyTree, path: str | Path) -> None:
    """Put another state's weights beside the programs that ``export`` wrote, in one move of a file.

    Raises:
      ValueError: nothing was exported there, or the state is of other shapes.
    """
    facts, flat = _facts(path), jax.tree.leaves(state)
    if len(flat) != facts["leaves"]:
        raise ValueError(f"state must have {facts['leaves']} leaves, as the one exported to {path}, got {len(flat)}")
    weights = [jnp.asarray(flat[place]) for place in facts["places"]]
    for place, leaf, wanted in zip(facts["places"], weights, facts["weights"], strict=True):
        if [str(leaf.dtype), list(leaf.shape)] != wanted:
            raise ValueError(
                f"state does not fit the program in {path}: leaf {place} is {leaf.dtype}{list(leaf.shape)}, "
                f"not {wanted[0]}{wanted[1]}"
            )
    _save_weights(weights, Path(path))


def load(path: str | Path) -> policy.Policy:
    """What was exported, to act with: ``act(obs)`` gives NumPy in the plant's own units, ``reset(seed)`` begins anew.

    Its ``agent`` and ``state(leaves)`` are an agent that acts and cannot learn, for ``control.run``.

    Raises:
      ValueError: nothing there; a file that is damaged or of another format; weights of other shapes; a platform that
        the programs were not made for; another kind of random keys.
    """
    facts, source = _facts(path), Path(path)
    backend = {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())
    if backend not in facts["platforms"]:
        raise ValueError(f"{path} was exported for {', '.join(facts['platforms'])}, and this is {backend}")
    impl = str(jax.random.key_impl(jax.random.key(0)))
    if impl != facts["key"]:
        raise ValueError(f"{path} was exported for keys of {facts['key']}, and jax_default_prng_impl says {impl}")
    programs = {}
    for name in PROGRAMS:
        raw = (source / f"{name}.jax").read_bytes() if (source / f"{name}.jax").exists() else b""
        if hashlib.sha256(raw).hexdigest() != facts["programs"][name]:
            raise ValueError(f"{source / f'{name}.jax'} is missing or damaged: export it again")
        try:
            programs[name] = jax_export.deserialize(bytearray(raw))
        except Exception as error:  # whatever a program of another version of JAX brings about
            made = facts["versions"]["jax"]
            raise ValueError(
                f"{path} was exported by jax {made}; jax {jax.__version__} cannot read it: {error}"
            ) from error
    leaves = _load_weights(source, facts)

    def act(key: Key, state: list, carry: list, obs: Array, is_first: Array, explore: bool) -> tuple[Array, list, dict]:
        del explore
        action, carry = programs["act"].call(key, state, carry, obs, is_first)
        return action, carry, {}

    def refuse(*_: Any) -> Any:
        raise ValueError("an exported agent acts, it does not learn: learn=None")

    agent = Agent(lambda key, num_envs: leaves, lambda state: programs["reset"].call(state), act, refuse)
    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    return policy.Policy(agent, _read(facts["spec"]), dict(enumerate(leaves)), shapes)


# ------------------------------------------------------------------------------------------- inside


def _facts(path: str | Path) -> dict[str, Any]:
    file = Path(path) / FACTS
    if not file.exists():
        raise ValueError(f"path {path} holds no exported agent: control.export writes one")
    try:
        facts = json.loads(file.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file} is damaged ({error}): export it again") from error
    if facts.get("format") != FORMAT:
        raise ValueError(f"{file} has format {facts.get('format')}, and this jmbrl reads {FORMAT}")
    return facts


def _save_weights(weights: list[Array], target: Path) -> None:
    temporary = target / (WEIGHTS + ".tmp")
    with open(temporary, "wb") as file:
        arrays: dict[str, Any] = {str(i): policy._raw(leaf) for i, leaf in enumerate(weights)}
        np.savez(file, **arrays)
    temporary.replace(target / WEIGHTS)


def _load_weights(source: Path, facts: dict[str, Any]) -> list[Array]:
    try:
        with np.load(io.BytesIO((source / WEIGHTS).read_bytes())) as file:  # its parts carry a checksum each
            arrays = [file[str(i)] for i in range(len(file.files))]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{source / WEIGHTS} is missing or damaged ({error}): export the weights again") from error
    wanted = facts["weights"]
    if len(arrays) != len(wanted):
        raise ValueError(f"{source / WEIGHTS} holds {len(arrays)} arrays, and the program takes {len(wanted)}")
    leaves = [policy._cooked(a, _dtype(dtype)) for a, (dtype, _) in zip(arrays, wanted, strict=True)]
    for i, (leaf, (dtype, shape)) in enumerate(zip(leaves, wanted, strict=True)):
        if [str(leaf.dtype), list(leaf.shape)] != [dtype, shape]:
            raise ValueError(f"{source / WEIGHTS}: array {i} is {leaf.dtype}{list(leaf.shape)}, not {dtype}{shape}")
    return [strong(leaf) for leaf in leaves]


def _dtype(name: str) -> Any:
    return jax.random.key(0).dtype if name.startswith("key<") else jnp.dtype(name)


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def _written(spec: Spec) -> dict[str, Any]:
    space = spec.action
    action = {"n": space.n} if isinstance(space, Discrete) else {"low": space.low, "high": space.high}
    names = ("name", "obs_shape", "max_steps", "obs_dtype", "obs_names", "host", "dt", "players")
    return {"action": action, **{name: getattr(spec, name) for name in names}}


def _read(facts: dict[str, Any]) -> Spec:
    action = facts.pop("action")
    space = Discrete(action["n"]) if "n" in action else Continuous(tuple(action["low"]), tuple(action["high"]))
    tuples = {name: tuple(value) for name, value in facts.items() if isinstance(value, list)}
    return Spec(**{**facts, **tuples, "action": space})
