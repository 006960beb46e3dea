"""An environment from two pure functions. Every JAX adapter goes through here, so there is one border."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.envs import spaces
from jmbrl.envs.vector import vector_factory
from jmbrl.types import ActionSpace, Array, Cells, Env, Key, PyTree, Spec, TimeStep


class Timed(NamedTuple):
    """An environment's own state and the number of steps since its reset."""

    inner: PyTree
    time: Array  # int32 scalar


def from_functions(
    reset: Callable,
    step: Callable,
    *,
    action: ActionSpace,
    max_steps: int,
    name: str,
    obs_shape: tuple[int, ...] | None = None,
    obs_dtype: str = "float32",
    obs_names: tuple[str, ...] = (),
    reward_fn: Callable | None = None,
    termination_fn: Callable | None = None,
    render: Callable | None = None,
    dt: float | None = None,
    reset_pool: int | None = None,
    no_gradient: str = "",
    cells: Cells | None = None,
    restart: Callable | None = None,
    players: int = 1,
    legal: Callable | None = None,
) -> Env:
    """An ``Env`` from pure JAX functions of your own.

    Args:
      reset: ``(key) -> (state, obs)``.
      step: ``(key, state, action) -> (state, obs, reward, terminated)``; ``action`` arrives in the
        environment's own units, clipped to its bounds (discrete: an ``int32`` in ``[0, n)``). It needs no
        time limit and must not reset itself.
      action: ``Continuous(low, high)`` in the environment's units, or ``Discrete(n)``.
      max_steps: the time limit, in steps.
      name: what messages and results call it.
      obs_shape: shape of one observation; None reads it from ``reset``. A dictionary or tuple of arrays is
        flattened into one vector, with a name for each entry and ``Spec.obs_parts`` for each array.
      obs_dtype: ``"float32"``, or ``"uint8"`` for images.
      obs_names: a name for each entry of a vector observation.
      reward_fn, termination_fn: ``(obs, action, next_obs)`` with the action in ``[-1, 1]``, where the true
        reward and end are such functions.
      render: ``(obs) -> uint8[H, W, 3]``.
      dt: seconds a step.
      reset_pool: start episodes of ``vector`` from this many states sampled at its reset, where a reset is
        dear; None resets anew each time.
      no_gradient: why the derivative of ``step`` by the action means nothing (a thresholded action), for planners that
        would use it; ``""`` where it does mean something.
      cells: how the observations are numbered, where there are finitely many.
      restart: ``(key, state) -> (state, obs)``, how an episode begins anew from the state in which the last one ended,
        for a world that changes over its life; ``vector`` calls it for all copies at every step, so it must be cheap.
        None: ``reset(key)``.
      players: 1, or 2 for a game played in turn (``Spec.players``).
      legal: ``(obs) -> bool[n]``, which discrete actions are allowed; None: all.

    Raises:
      ValueError: bounds that are infinite or out of order, ``reset_pool`` beside ``restart``, and, when ``reset``,
        ``step`` or ``restart`` is first traced, an observation, reward or flag of the wrong shape, or a state whose
        structure or types change.
    """
    action = spaces.check_space(action)
    checks.integer("max_steps", max_steps, low=1)
    checks.choice("obs_dtype", obs_dtype, ("float32", "uint8"))
    checks.integer("players", players, 1, 2)
    if cells is not None and not isinstance(cells, Cells):
        raise ValueError(f"cells of {name} must be a jmbrl.types.Cells, got {cells!r}")
    shape, structure, found_names, parts = _observation(name, reset, obs_shape)
    obs_names = tuple(obs_names) or found_names
    if obs_names and shape != (len(obs_names),):
        raise ValueError(f"obs_names of {name} must have one name an entry: {len(obs_names)} names, shape {shape}")
    spec = Spec(name, shape, action, max_steps, obs_dtype, obs_names, dt=dt, obs_parts=parts, players=players)

    def observe(obs: Any) -> Array:
        if structure is not None:
            if jax.tree.structure(obs) != structure:
                raise ValueError(
                    f"observation of {name} changes its structure: {structure} at first, then {jax.tree.structure(obs)}"
                )
            obs = spaces.flatten_obs(obs)
        return spaces.cast_obs(name, obs, shape, obs_dtype)

    def reset_(key: Key) -> tuple[Timed, Array]:
        state, obs = _pair(name, "reset", _trace(name, "reset", reset, key))
        return Timed(spaces.strong(state), jnp.zeros((), jnp.int32)), observe(obs)

    def step_(key: Key, state: Timed, action_: Array) -> tuple[Timed, TimeStep]:
        action_ = spaces.to_env(action, spaces.check_action(name, action, action_))
        inner, obs, reward, terminated = _four(name, _trace(name, "step", step, key, state.inner, action_))
        inner = _same_state(name, "step", state.inner, spaces.strong(inner))
        time = state.time + 1
        terminated = spaces.cast_flag(name, "terminated", terminated)
        # The flags exclude each other: an episode that ends at its last allowed step has ended, not timed out.
        truncated = (time >= max_steps) & ~terminated
        timestep = TimeStep(observe(obs), spaces.cast_reward(name, reward), terminated, truncated)
        return Timed(inner, time), timestep

    begin = restart or (lambda key, state: reset(key))

    def restart_(key: Key, state: Timed) -> tuple[Timed, Array]:
        inner, obs = _pair(name, "restart", _trace(name, "restart", begin, key, state.inner))
        inner = _same_state(name, "restart", state.inner, spaces.strong(inner))
        return Timed(inner, jnp.zeros((), jnp.int32)), observe(obs)

    env = Env(spec, reset_, step_, lambda n: None, reward_fn, termination_fn, render, no_gradient=no_gradient)
    vector = vector_factory(env, reset_pool, None if restart is None else restart_)
    return env._replace(vector=vector, cells=cells, legal=legal)


def _observation(name: str, reset: Callable, shape: tuple | None) -> tuple[tuple[int, ...], Any, tuple, tuple]:
    """Shape, structure where it has to be flattened, names, parts; ``reset`` is traced only where ``shape`` is None."""
    if shape is not None:
        return tuple(shape), None, (), ()
    _, obs = _pair(name, "reset", jax.eval_shape(lambda key: _trace(name, "reset", reset, key), jax.random.key(0)))
    if isinstance(obs, jax.ShapeDtypeStruct):
        return tuple(obs.shape), None, (), ()
    flat = jax.eval_shape(spaces.flatten_obs, obs)
    return flat.shape, jax.tree.structure(obs), spaces.flat_names(obs), spaces.flat_parts(obs)


def _trace(name: str, what: str, fn: Callable, *args: Any) -> Any:
    """``fn(*args)``, with advice where it needs a concrete number while JAX traces it."""
    try:
        return fn(*args)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        raise ValueError(
            f"{what} of {name} is not pure JAX: it reads a number that is only known when it runs. Use jnp.where for "
            f"an if, jax.numpy for numpy; or, for an environment outside JAX, envs.from_gymnasium. {error}"
        ) from error


def _pair(name: str, what: str, out: Any) -> tuple:
    if not isinstance(out, tuple) or len(out) != 2:
        raise ValueError(f"{what} of {name} must return (state, obs), got {_describe(out)}")
    return out


def _four(name: str, out: Any) -> tuple:
    if not isinstance(out, tuple) or len(out) != 4:
        raise ValueError(f"step of {name} must return (state, obs, reward, terminated), got {_describe(out)}")
    return out


def _describe(out: Any) -> str:
    return f"{len(out)} values" if isinstance(out, tuple) else f"a {type(out).__name__}"


def _same_state(name: str, what: str, before: PyTree, after: PyTree) -> PyTree:
    """The new state, refused where it could not be a scan's carry."""
    old, new = jax.tree.structure(before), jax.tree.structure(after)
    if old != new:
        raise ValueError(f"state of {name} changes its structure: {old} at first, {new} after {what}")
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            where = "state" + jax.tree_util.keystr(path)
            raise ValueError(
                f"{where} of {name} changes: {a.dtype}{list(a.shape)} before {what}, {b.dtype}{list(b.shape)} after"
            )
    return after
