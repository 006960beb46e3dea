"""Does an environment keep its promises? ``check_env`` tells in words what does not fit."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.envs import spaces
from jmbrl.envs.check_cells import cells_problems
from jmbrl.types import Continuous, Discrete, Env, Key, PyTree, TimeStep

MOST_STEPS = 5000
_COPIES = 3


@dataclasses.dataclass(frozen=True)
class Report:
    """What ``check_env`` found. ``problems`` break promises; ``notes`` tell what could not be checked."""

    name: str
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        head = f"{self.name}: " + ("every check passed" if self.ok else f"{len(self.problems)} problem(s)")
        return "\n".join([head, *(f"- {p}" for p in self.problems), *(f"  (note) {n}" for n in self.notes)])


class _Row(NamedTuple):
    obs: PyTree
    action: jax.Array
    timestep: TimeStep
    next_obs: PyTree  # after a restart


def check_env(env: Env, steps: int = 200, seed: int = 0, strict: bool = False) -> Report:
    """Check an environment, first by its shapes alone, then by running random steps.

    Stage one traces ``reset`` and ``step``: structure, shapes, types, weak types. Stage two, only if that was fine,
    runs at least ``steps`` random steps (and one more than ``spec.max_steps``, up to 5000): the same key gives the
    same run, numbers are finite, episodes end in time, the last observation is the true one, ``reward_fn`` and
    ``termination_fn`` agree with the environment, copies side by side equal one at a time, ``cells`` number every
    observation that was met and their centres have the numbers they should.

    Raises:
      ValueError: there are problems and ``strict`` is True; the message is the report.
    """
    checks.integer("steps", steps, low=1)
    problems = list(_spec_problems(env)) or _shape_problems(env)
    notes: list[str] = []
    if not problems:
        problems, notes = _run_problems(env, steps, jax.random.key(seed))
    report = Report(env.spec.name, tuple(problems), tuple(notes))
    if strict and not report.ok:
        raise ValueError(str(report))
    return report


# --------------------------------------------------------------------------------------- stage one: shapes


def _spec_problems(env: Env) -> Iterator[str]:
    spec = env.spec
    if not isinstance(spec.action, Continuous | Discrete):
        yield f"spec.action must be Continuous or Discrete, got {spec.action!r}"
    else:
        try:
            spaces.check_space(spec.action)
        except ValueError as error:
            yield f"spec.action: {error}"
    if not isinstance(spec.max_steps, int) or spec.max_steps < 1:
        yield f"spec.max_steps must be a positive integer, got {spec.max_steps!r}"
    if spec.obs_dtype not in ("float32", "uint8"):
        yield f"spec.obs_dtype must be float32 or uint8, got {spec.obs_dtype!r}"
    if spec.obs_names and spec.obs_shape != (len(spec.obs_names),):
        yield f"spec.obs_names must name every entry: {len(spec.obs_names)} names for shape {spec.obs_shape}"
    if spec.obs_parts and spec.obs_shape != (sum(math.prod(shape) for _, shape, _ in spec.obs_parts),):
        yield f"spec.obs_parts must fill the observation: {spec.obs_parts} for shape {spec.obs_shape}"


def _shape_problems(env: Env) -> list[str]:
    key = jax.random.key(0)
    try:
        state, obs = jax.eval_shape(env.reset, key)
    except Exception as error:
        return [f"reset could not be traced: {_first_line(error)}"]
    action = jax.ShapeDtypeStruct(env.spec.action.shape, _action_dtype(env))
    try:
        out = jax.eval_shape(env.step, key, state, action)
    except Exception as error:
        return [*_obs_problems(env, "reset", obs), f"step could not be traced: {_first_line(error)}"]
    if not isinstance(out, tuple) or len(out) != 2 or not isinstance(out[1], TimeStep):
        return [f"step must return (state, TimeStep), got {type(out).__name__}"]
    new_state, timestep = out
    return [
        *_obs_problems(env, "reset", obs),
        *_obs_problems(env, "step", timestep.obs),
        *_legal_problems(env, obs),
        *_tree_problems("state", state, new_state),
        *_leaf_problems("reward", timestep.reward, (), jnp.float32),
        *_leaf_problems("terminated", timestep.terminated, (), jnp.bool_),
        *_leaf_problems("truncated", timestep.truncated, (), jnp.bool_),
    ]


def _legal_problems(env: Env, obs: Any) -> list[str]:
    if env.legal is None:
        return []
    if not isinstance(env.spec.action, Discrete):
        return [f"legal is for discrete actions, got {env.spec.action}"]
    try:
        allowed = jax.eval_shape(env.legal, obs)
    except Exception as error:
        return [f"legal could not be traced: {_first_line(error)}"]
    return _leaf_problems("legal(obs)", allowed, (env.spec.action.n,), jnp.bool_)


def _action_dtype(env: Env) -> Any:
    return jnp.int32 if isinstance(env.spec.action, Discrete) else jnp.float32


def _obs_problems(env: Env, where: str, obs: Any) -> list[str]:
    if hasattr(obs, "obs") and hasattr(obs, "state"):  # with_state: the spec describes .obs
        obs = obs.obs
    if not hasattr(obs, "shape"):
        return [f"observation of {where} must be one array, got {type(obs).__name__}"]
    return _leaf_problems(f"observation of {where}", obs, env.spec.obs_shape, env.spec.obs_dtype)


def _leaf_problems(what: str, leaf: Any, shape: tuple[int, ...], dtype: Any) -> list[str]:
    if not hasattr(leaf, "shape"):
        return [f"{what} must be an array, got {leaf!r}"]
    problems = []
    if tuple(leaf.shape) != tuple(shape):
        problems.append(f"{what} has shape {tuple(leaf.shape)}, wanted {tuple(shape)}")
    wanted = dtype if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) else jnp.dtype(dtype)
    if leaf.dtype != wanted:
        problems.append(f"{what} is {leaf.dtype}, wanted {wanted}")
    if getattr(leaf, "weak_type", False):
        problems.append(f"{what} has a weak type, which costs a second compilation: jnp.asarray(x, {leaf.dtype})")
    return problems


def _tree_problems(what: str, before: PyTree, after: PyTree) -> list[str]:
    old, new = jax.tree.structure(before), jax.tree.structure(after)
    if old != new:
        return [f"{what} changes its structure: {old} after reset, {new} after step"]
    problems = []
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True):
        problems += _leaf_problems(f"{what}{jax.tree_util.keystr(path)} after step", b, a.shape, a.dtype)
    return problems


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"


# ------------------------------------------------------------------------------------------ stage two: a run


def _run_problems(env: Env, steps: int, key: Key) -> tuple[list[str], list[str]]:
    steps = max(steps, min(env.spec.max_steps + 1, MOST_STEPS))
    notes = []
    if env.spec.max_steps >= steps:
        notes.append(f"max_steps {env.spec.max_steps} is beyond the {steps} steps run: the time limit was not reached")
    try:
        run = _runner(env, steps)
        rows, again = run(key), run(key)
    except Exception as error:
        return [f"running {steps} random steps raised {type(error).__name__}: {error}"], notes
    problems = []
    if not _equal(rows, again):
        problems.append("the same key gives different runs: draw all randomness from the key")
    problems += _number_problems(env, rows)
    problems += _episode_problems(env, rows)
    problems += cells_problems(env, [rows.obs, rows.timestep.obs, rows.next_obs])
    if not env.spec.host:
        problems += _end_problems(env, key)
        problems += _copies_problems(env, key)
    return problems, notes


def _runner(env: Env, steps: int) -> Callable[[Key], _Row]:
    """``(key) -> rows``: ``steps`` random steps of one copy, with restarts; NumPy leaves ``[steps, ...]``."""
    copies = env.vector(1)

    def body(carry: tuple, key: Key) -> tuple[tuple, _Row]:
        states, obs = carry
        act_key, step_key, restart_key = jax.random.split(key, 3)
        action = spaces.sample(act_key, env.spec.action)[None]
        states, timestep = copies.step(step_key, states, action)
        done = timestep.terminated | timestep.truncated
        states, next_obs = copies.restart(restart_key, done, states, timestep.obs)
        return (states, next_obs), _Row(obs, action, timestep, next_obs)

    @jax.jit
    def run(key: Key) -> _Row:
        reset_key, key = jax.random.split(key)
        return jax.lax.scan(body, copies.reset(reset_key), jax.random.split(key, steps))[1]

    return lambda key: jax.tree.map(lambda x: np.asarray(x)[:, 0], run(key))


def _equal(a: PyTree, b: PyTree) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y, equal_nan=x.dtype.kind == "f") for x, y in pairs)


def _number_problems(env: Env, rows: _Row) -> Iterator[str]:
    for what, values in (("observation", rows.timestep.obs), ("reward", rows.timestep.reward)):
        for leaf in jax.tree.leaves(values):
            bad = np.argwhere(~np.isfinite(leaf)) if leaf.dtype.kind == "f" else []
            if len(bad):
                yield f"{what} is not finite at step {bad[0][0]}, entry {bad[0][1:].tolist()} ({len(bad)} bad values)"
    if env.reward_fn is not None:
        guess = jax.jit(jax.vmap(env.reward_fn))(rows.obs, rows.action, rows.timestep.obs)
        miss = np.abs(np.asarray(guess) - rows.timestep.reward)
        worst = int(np.argmax(miss))
        if miss[worst] > 1e-3 * (1 + np.abs(rows.timestep.reward[worst])):
            yield f"reward_fn is off by {miss[worst]:.3g} at step {worst}: reward {rows.timestep.reward[worst]:.6g}"
    if env.termination_fn is not None:
        guess = np.asarray(jax.jit(jax.vmap(env.termination_fn))(rows.obs, rows.action, rows.timestep.obs))
        wrong = np.flatnonzero(guess != rows.timestep.terminated)
        if len(wrong):
            row = wrong[0]
            yield (
                f"termination_fn disagrees at {len(wrong)} steps, first {row}: it says {guess[row]}, the environment "
                f"{rows.timestep.terminated[row]} (is the last observation the true one, not a reset?)"
            )


def _episode_problems(env: Env, rows: _Row) -> Iterator[str]:
    ended, cut = rows.timestep.terminated, rows.timestep.truncated
    if (ended & cut).any():
        yield f"step {int(np.argmax(ended & cut))} is both terminated and truncated; truncated is for time limits alone"
    ends = np.flatnonzero(ended | cut)
    lengths = np.diff(np.concatenate([[-1], ends]))
    longest = max([*lengths.tolist(), len(ended) - 1 - (ends[-1] if len(ends) else -1)])
    if longest > env.spec.max_steps:
        yield f"an episode runs for {longest} steps or more, but spec.max_steps is {env.spec.max_steps}"
    early = [n for n, end in zip(lengths, ends, strict=True) if cut[end] and n < env.spec.max_steps]
    if early and not env.spec.host:
        yield f"an episode is truncated after {early[0]} steps, but spec.max_steps is {env.spec.max_steps}"
    kept = ~(ended | cut)
    for now, later in zip(jax.tree.leaves(rows.timestep.obs), jax.tree.leaves(rows.next_obs), strict=True):
        if not np.array_equal(now[kept], later[kept], equal_nan=now.dtype.kind == "f"):
            yield "restart changes the observation of a copy that was not done"
            break


def _end_problems(env: Env, key: Key) -> Iterator[str]:
    """An environment that resets itself forgets, on the step after its time limit, that the limit has passed."""
    if env.spec.max_steps > MOST_STEPS:
        return

    def body(state: PyTree, key: Key) -> tuple[PyTree, jax.Array]:
        act_key, step_key = jax.random.split(key)
        state, timestep = env.step(step_key, state, spaces.sample(act_key, env.spec.action))
        return state, timestep.terminated | timestep.truncated

    @jax.jit
    def run(key: Key) -> jax.Array:
        return jax.lax.scan(body, env.reset(key)[0], jax.random.split(key, env.spec.max_steps + 1))[1]

    done = np.asarray(run(key))
    if not done[env.spec.max_steps - 1] or not done[env.spec.max_steps]:
        yield (
            f"stepping on past max_steps {env.spec.max_steps} without a restart is not truncated: it must not reset "
            "itself, or next observations at the end of an episode are those of the next one"
        )


def _copies_problems(env: Env, key: Key) -> Iterator[str]:
    keys = jax.random.split(key, _COPIES)

    def first(key: Key) -> TimeStep:
        state, _ = env.reset(key)
        return env.step(key, state, spaces.sample(key, env.spec.action))[1]

    together, one = jax.jit(jax.vmap(first))(keys), jax.jit(first)
    for i in range(_COPIES):
        alone = one(keys[i])
        for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
            if not np.allclose(a, b[i], rtol=1e-4, atol=1e-4, equal_nan=True):
                yield f"copy {i} under vmap differs from the same step alone by {np.max(np.abs(a - b[i])):.3g}"
                return
