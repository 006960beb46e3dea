"""The border between the library's numbers and an environment's own: actions, observations, flags.

Inside the library continuous actions are ``float32[dim]`` in ``[-1, 1]``, observations are ``float32`` (or
``uint8`` images), rewards are ``float32`` scalars and flags are ``bool`` scalars. Nothing here is batched.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks
from jmbrl.types import ActionSpace, Array, Continuous, Discrete, PyTree


def centre_and_half(space: Continuous) -> tuple[np.ndarray, np.ndarray]:
    """Middle and half width of the bounds, ``float32[dim]`` each, in the environment's units."""
    low, high = np.asarray(space.low, np.float64), np.asarray(space.high, np.float64)
    return ((low + high) / 2).astype(np.float32), ((high - low) / 2).astype(np.float32)


def to_env(space: ActionSpace, action: Array) -> Array:
    """The library's action in the environment's units, clipped to its bounds.

    Continuous: ``centre + half * action``, exact where the bounds are already ``[-1, 1]``. Discrete: the index
    clipped to ``[0, n)``; a compiled program cannot raise, and an index outside would mean 130 N in a cart pole.
    """
    if isinstance(space, Discrete):
        return jnp.clip(action, 0, space.n - 1)
    centre, half = centre_and_half(space)
    scaled = centre + half * jnp.clip(action, -1.0, 1.0)
    return jnp.clip(scaled, np.asarray(space.low, np.float32), np.asarray(space.high, np.float32))


def from_env(space: ActionSpace, action: Any) -> np.ndarray:
    """The reverse of ``to_env`` for logged actions and controllers, as NumPy."""
    if isinstance(space, Discrete):
        return np.asarray(action, np.int32)
    centre, half = centre_and_half(space)
    return np.clip((np.asarray(action, np.float32) - centre) / half, -1.0, 1.0).astype(np.float32)


def check_action(name: str, space: ActionSpace, action: Array) -> Array:
    """An action of the space's shape and dtype, or ValueError; reads shapes only, so it works while tracing."""
    action = jnp.asarray(action)
    checks.same_shape("action", action.shape, space.shape, f"the action space of {name}")
    if isinstance(space, Discrete):
        if not jnp.issubdtype(action.dtype, jnp.integer):
            raise ValueError(f"action of {name} must be an integer in [0, {space.n}), got dtype {action.dtype}")
        return action.astype(jnp.int32)
    return action.astype(jnp.float32)


def check_space(action: Any) -> ActionSpace:
    """A valid action space, with bounds that are finite and in order, or ValueError."""
    if isinstance(action, Continuous):
        return checks.action_bounds(action.low, action.high)
    if isinstance(action, Discrete):
        return Discrete(checks.integer("Discrete.n", action.n, low=1))
    raise ValueError(f"action must be Continuous(low, high) or Discrete(n), got {action!r}")


def sample(key: jax.Array, space: ActionSpace) -> Array:
    """A uniformly random action in the library's units."""
    if isinstance(space, Discrete):
        return jax.random.randint(key, (), 0, space.n, jnp.int32)
    return jax.random.uniform(key, space.shape, jnp.float32, -1.0, 1.0)


def strong(tree: PyTree) -> PyTree:
    """The same arrays without weak types: a weak scalar in a scan's carry means a second compilation."""

    def leaf(x: Any) -> Array:
        x = jnp.asarray(x)
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return x
        return jax.lax.convert_element_type(x, x.dtype)

    return jax.tree.map(leaf, tree)


def flatten_obs(obs: PyTree) -> Array:
    """All leaves of an observation side by side, ``float32[D]``; dictionaries go by sorted key."""
    return jnp.concatenate([jnp.ravel(leaf).astype(jnp.float32) for leaf in jax.tree.leaves(obs)])


def flat_parts(obs: PyTree) -> tuple[tuple[str, tuple[int, ...], str], ...]:
    """``Spec.obs_parts`` of what ``flatten_obs`` makes of ``obs``; ``()`` for a single array."""
    leaves = jax.tree_util.tree_leaves_with_path(obs)
    return tuple((_label(path), tuple(leaf.shape), str(leaf.dtype)) for path, leaf in leaves if path)


def flat_names(obs: PyTree) -> tuple[str, ...]:
    """A name for each entry of ``flatten_obs(obs)``: ``position[0]``; ``()`` for a single array."""
    names: list[str] = []
    for label, shape, _ in flat_parts(obs):
        names += [label] if shape == () else [f"{label}[{i}]" for i in range(int(np.prod(shape, dtype=int)))]
    return tuple(names)


def _label(path: tuple) -> str:
    return ".".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)


def cast_reward(name: str, reward: Any) -> Array:
    """``float32`` scalar; ValueError for any other shape, which would broadcast silently later."""
    if reward is None:
        raise ValueError(f"reward of {name} must be a scalar, got None")
    reward = jnp.asarray(reward)
    checks.same_shape(f"reward of {name}", reward.shape, (), "jmbrl (one number a step)")
    return jax.lax.convert_element_type(reward, jnp.float32)


def cast_flag(name: str, what: str, flag: Any) -> Array:
    """``bool`` scalar from bool, int or float; ValueError for None or another shape."""
    if flag is None:
        raise ValueError(f"{what} of {name} must be a bool, got None: return False where it never ends")
    flag = jnp.asarray(flag)
    checks.same_shape(f"{what} of {name}", flag.shape, (), "jmbrl (one flag a step)")
    return flag.astype(jnp.bool_)


def cast_obs(name: str, obs: Any, shape: tuple[int, ...], dtype: str) -> Array:
    """One array of the spec's shape and dtype; ints, bools and float64 become float32."""
    obs = jnp.asarray(obs)
    checks.same_shape(f"observation of {name}", obs.shape, shape, "its spec")
    return jax.lax.convert_element_type(obs, jnp.dtype(dtype))
