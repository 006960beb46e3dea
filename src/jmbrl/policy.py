"""The part of a trained agent that acts: small, apart from the full state, loadable without the replay.

    policy = jmbrl.load("runs/first")
    policy.reset()
    action = policy.act(obs)            # NumPy, in the environment's own units

What acting needs is found, not declared: the arrays of the agent's state that reach ``agent.reset`` or
``agent.act``. Optimisers and replay do not, and are left out whatever the agent calls them.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks, devices
from jmbrl.types import Agent, Array, Continuous, Env, PyTree, Spec
from jmbrl.writers import write_json

FORMAT = 1
ARRAYS, FACTS = "arrays.npz", "policy.json"


class Policy:
    """A trained agent, acting on NumPy observations one at a time.

    Args:
      agent, spec: as trained.
      leaves: the arrays that acting needs, by their place in the flattened state.
      shapes: ``jax.eval_shape(agent.init, key, num_envs)``.
      explore: add the agent's exploration noise.
    """

    def __init__(self, agent: Agent, spec: Spec, leaves: dict[int, Array], shapes: PyTree, explore: bool = False):
        self.agent, self.spec, self.leaves = agent, spec, leaves
        self._structure, self._shapes = jax.tree.structure(shapes), jax.tree.leaves(shapes)
        self._reset = jax.jit(lambda leaves: self._agent_reset(leaves))
        self._act = jax.jit(lambda key, leaves, *rest: agent.act(key, self.state(leaves), *rest, explore))
        self.reset()

    def state(self, leaves: dict[int, Array]) -> PyTree:
        """The agent's state with zeros for what acting does not need; under ``jit`` those cost nothing."""
        filled = [leaves[i] if i in leaves else _zeros(shape) for i, shape in enumerate(self._shapes)]
        return jax.tree.unflatten(self._structure, filled)

    def reset(self, seed: int = 0) -> None:
        """Begin an episode; the same seed repeats the same choices."""
        self._key = checks.key(seed)
        self._carry = self._reset(self.leaves)
        self._is_first = True

    def act(self, obs: Any) -> np.ndarray:
        """The action for one observation: NumPy, scaled to the environment's own bounds.

        Raises:
          ValueError: the observation's shape is not the one the agent was trained on.
        """
        obs = np.asarray(obs, self.spec.obs_dtype)
        checks.same_shape("obs", obs.shape, self.spec.obs_shape, f"the spec of {self.spec.name}")
        self._key, key = jax.random.split(self._key)
        action, self._carry, _ = self._act(key, self.leaves, self._carry, obs, jnp.asarray(self._is_first))
        self._is_first = False
        return in_env_units(np.asarray(action), self.spec)

    def _agent_reset(self, leaves: dict[int, Array]) -> PyTree:
        return jax.tree.map(jnp.asarray, self.agent.reset(self.state(leaves)))


def in_env_units(action: np.ndarray, spec: Spec) -> np.ndarray:
    """From the library's ``[-1, 1]`` to ``[low, high]``; discrete actions stay."""
    if not isinstance(spec.action, Continuous):
        return action
    low, high = np.asarray(spec.action.low, np.float32), np.asarray(spec.action.high, np.float32)
    return low + 0.5 * (np.clip(action, -1.0, 1.0) + 1.0) * (high - low)


def export(directory: str | Path, train: Any, runs: tuple, seeds: list[int], done: int) -> Path:
    """Write ``policy/`` of a run: the arrays that acting needs, of every seed.

    Args:
      directory: of the run.
      train: from ``make_train``.
      runs: the groups of ``Programs``; leaves ``[S, ...]`` in each.
      seeds: their names.
      done: the work that they have done, as the checkpoints count it.
    """
    target = Path(directory) / "policy"
    states = [jax.tree.leaves(run.agent) for run in runs]
    used = leaves_for_acting(train.agent, train.env, train.num_envs)
    arrays: dict[str, Any] = {str(i): np.concatenate([_raw(state[i]) for state in states]) for i in used}
    if not devices.first():
        return target
    target.mkdir(parents=True, exist_ok=True)
    temporary = target / (ARRAYS + ".tmp")
    with open(temporary, "wb") as file:
        np.savez(file, **arrays)
    temporary.replace(target / ARRAYS)
    write_json(
        target / FACTS,
        {
            "format": FORMAT,
            "env": train.env.spec.name,
            "num_envs": train.num_envs,
            "env_steps": train.env_steps(done),
            "work": done,
            "seeds": seeds,
            "leaves": {str(i): [str(states[0][i].dtype), list(states[0][i].shape[1:])] for i in used},
        },
    )
    return target


def load(
    directory: str | Path,
    seed: int | None = None,
    *,
    env: Env,
    agent: Agent,
    explore: bool = False,
) -> Policy:
    """The policy that a run exported; ``runner.load_policy`` finds ``env`` and ``agent`` by itself.

    Args:
      directory: the run's.
      seed: which of its seeds; the first by default.
      env, agent: as trained.
      explore: act as in training.

    Raises:
      ValueError: no policy there, an unknown seed, or an agent of another shape.
    """
    source = Path(directory) / "policy"
    facts = read_facts(directory)
    if facts is None:
        raise ValueError(f"directory {directory} holds no exported policy: it is written when a run ends")
    seed = facts["seeds"][0] if seed is None else seed
    if seed not in facts["seeds"]:
        raise ValueError(f"seed must be one of {facts['seeds']}, got {seed}")
    shapes = jax.eval_shape(lambda key: agent.init(key, facts["num_envs"]), jax.random.key(0))
    flat = jax.tree.leaves(shapes)
    leaves, lane = {}, facts["seeds"].index(seed)
    with np.load(source / ARRAYS) as arrays:
        for name, (dtype, shape) in facts["leaves"].items():
            at = int(name)
            if at >= len(flat) or [str(flat[at].dtype), list(flat[at].shape)] != [dtype, shape]:
                raise ValueError(f"agent does not fit the policy in {source}: leaf {at} was {dtype}{shape}")
            leaves[at] = _cooked(arrays[name][lane], flat[at].dtype)
    return Policy(agent, env.spec, leaves, shapes, explore)


def read_facts(directory: str | Path) -> dict[str, Any] | None:
    """What ``policy.json`` of a run says (``env, num_envs, env_steps, work, seeds, leaves``); None without one."""
    path = Path(directory) / "policy" / FACTS
    return json.loads(path.read_text()) if path.exists() else None


def leaves_for_acting(agent: Agent, env: Env, num_envs: int = 1) -> list[int]:
    """Which leaves of the agent's flattened state reach ``reset`` or ``act``, found from their traces."""
    key = jax.random.key(0)
    state = jax.eval_shape(lambda key: agent.init(key, num_envs), key)
    flat, structure = jax.tree.flatten(state)
    obs = jax.eval_shape(env.reset, key)[1]  # not from the spec: a simulator is shown the state as well

    def use(leaves: list[Array], key: Array, obs: PyTree) -> Any:
        state = jax.tree.unflatten(structure, leaves)
        carry = jax.tree.map(jnp.asarray, agent.reset(state))
        return agent.act(key, state, carry, obs, jnp.asarray(True), False)[:2]

    jaxpr = jax.make_jaxpr(use)(flat, key, obs).jaxpr
    return [i for i, used in enumerate(_used_inputs(jaxpr, [True] * len(jaxpr.outvars))[: len(flat)]) if used]


def _used_inputs(jaxpr: Any, used_outputs: list[bool]) -> list[bool]:
    """Which inputs reach the outputs in use. Calls are looked into; loops and branches count as using all theirs,
    which errs on the side of keeping an array."""
    live = {var for var, used in zip(jaxpr.outvars, used_outputs, strict=True) if used and _is_var(var)}
    for equation in reversed(jaxpr.eqns):
        outputs = [var in live for var in equation.outvars]
        if not any(outputs):
            continue
        inner = _called(equation)
        inputs = _used_inputs(inner, outputs) if inner is not None else [True] * len(equation.invars)
        live |= {var for var, used in zip(equation.invars, inputs, strict=True) if used and _is_var(var)}
    return [var in live for var in jaxpr.invars]


def _called(equation: Any) -> Any:
    """The body of a call whose inputs and outputs are the equation's own, else None."""
    inner = equation.params.get("jaxpr") if equation.primitive.name in ("jit", "pjit", "closed_call") else None
    inner = getattr(inner, "jaxpr", inner)
    return inner if inner is not None and len(inner.invars) == len(equation.invars) else None


def _is_var(atom: Any) -> bool:
    return not hasattr(atom, "val")  # literals have a value and cannot be hashed


def _zeros(shape: Any) -> Array:
    if jnp.issubdtype(shape.dtype, jax.dtypes.prng_key):
        return jnp.broadcast_to(jax.random.key(0), shape.shape)
    return jnp.zeros(shape.shape, shape.dtype)


def _raw(leaf: Array) -> np.ndarray:
    """As an array that ``.npz`` can hold: keys as their words, bfloat16 as bytes."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return devices.to_host(jax.random.key_data(leaf))
    array = devices.to_host(leaf)
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


def _cooked(array: np.ndarray, dtype: Any) -> Array:
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(array)  # pyright: ignore[reportArgumentType]  # JAX takes NumPy here too
    return jnp.asarray(array.view(dtype) if array.dtype != dtype else array)
