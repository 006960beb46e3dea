"""The compiled side of a run: seeds side by side, one program per kind of chunk.

The state of a run is a tuple of groups. JAX environments have one group holding every seed on a leading axis;
a host environment cannot be mapped, so there each seed is a group of one.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl.types import Array, Env, Key, PyTree

EVALUATION = 2**31 - 1  # folded into a seed's key, apart from every step count
RESUMPTION = 2**31 - 2


class Programs:
    """Compiles each kind of chunk once and runs it over all seeds.

    Args:
      train: as ``make_train`` returns.
      keys: typed keys ``[S]``, one a seed.
      announce: ``(text)``, told when a compilation starts and ends.
    """

    def __init__(self, train: Any, keys: Key, announce: Callable[[str], None] = lambda text: None):
        host = train.env.spec.host
        self.keys = [keys[i : i + 1] for i in range(len(keys))] if host else [keys]
        # A host environment's copies live in its VectorEnv: each seed needs its own.
        self.trains = [train if i == 0 else _with_own_worlds(train) for i in range(len(self.keys))]
        self.compile_seconds = 0.0
        self.temporary_bytes = 0
        self._announce = announce
        self._compiled: dict[tuple, Callable] = {}

    def abstract(self) -> tuple:
        """Shapes of ``init``'s result, without running anything."""
        return tuple(
            jax.eval_shape(_over_seeds(train.init, keys), keys)
            for train, keys in zip(self.trains, self.keys, strict=True)
        )

    def init(self) -> tuple:
        return tuple(
            self._call(("init", i), _over_seeds(train.init, keys), keys)
            for i, (train, keys) in enumerate(zip(self.trains, self.keys, strict=True))
        )

    def resume_env(self, runs: tuple) -> tuple:
        """New episodes in every host environment, whose state no checkpoint holds."""
        return tuple(
            self._call(("resume", i), _over_seeds(_resume_env(train), keys), keys, run)
            for i, (train, keys, run) in enumerate(zip(self.trains, self.keys, runs, strict=True))
        )

    def chunk(self, runs: tuple, span: Any) -> tuple[tuple, dict[str, np.ndarray]]:
        """Run ``span`` for every seed: ``(runs, metrics[S, T, ...])``. ``runs`` is donated: do not use it again."""
        step, out, metrics = jnp.asarray(span.start, jnp.int32), [], []
        for i, (train, keys, run) in enumerate(zip(self.trains, self.keys, runs, strict=True)):
            name = ("chunk", i, span.length, span.warmup)
            run, info = self._call(name, _over_seeds(_chunk(train, span), keys), keys, run, step, donate=(1,))
            out.append(run)
            metrics.append(jax.device_get(info))
        return tuple(out), {name: np.concatenate([m[name] for m in metrics]) for name in metrics[0]}

    def evaluate(self, runs: tuple, step: int, env: Env, episodes: int) -> dict[str, np.ndarray]:
        """Returns and lengths ``[S, episodes]`` without exploration, on ``env``."""
        found = []
        for i, (train, keys, run) in enumerate(zip(self.trains, self.keys, runs, strict=True)):
            function = _over_seeds(_evaluation(train, env, episodes), keys)
            found.append(jax.device_get(self._call(("evaluate", i, episodes), function, keys, run, jnp.int32(step))))
        return {name: np.concatenate([f[name] for f in found]) for name in found[0]}

    def explain(self, runs: tuple, span: Any, lane: int) -> str | None:
        """Run one seed's chunk again under checkify; the first primitive that made a NaN or infinity, or None."""
        from jax.experimental import checkify

        group, row = (lane, 0) if len(self.keys) > 1 else (0, lane)
        take = lambda tree: jax.tree.map(lambda x: x[row], tree)  # noqa: E731
        checked = jax.jit(checkify.checkify(_chunk(self.trains[group], span), errors=checkify.float_checks))
        error, _ = checked(self.keys[group][row], take(runs[group]), jnp.int32(span.start))
        return error.get()

    def _call(self, name: tuple, function: Callable, *arguments: Any, donate: tuple[int, ...] = ()) -> Any:
        if name not in self._compiled:
            self._compiled[name] = self._compile(name, function, arguments, donate)
        try:
            return self._compiled[name](*arguments)
        except jax.errors.JaxRuntimeError as error:
            raise _explained(error, self.temporary_bytes) from error

    def _compile(self, name: tuple, function: Callable, arguments: tuple, donate: tuple[int, ...]) -> Callable:
        label = {"chunk": "warm-up" if name[-1] is True else f"{name[2]} steps"}.get(name[0], name[0]) if len(
            name
        ) > 2 else name[0]
        self._announce(f"compiling {label}")
        began = time.perf_counter()
        try:
            compiled = jax.jit(function, donate_argnums=donate).lower(*arguments).compile()
        except jax.errors.JaxRuntimeError as error:
            raise _explained(error, self.temporary_bytes) from error
        seconds = time.perf_counter() - began
        self.compile_seconds += seconds
        self.temporary_bytes = max(self.temporary_bytes, _temporary_bytes(compiled))
        self._announce(f"compiled {label} in {seconds:.1f} s")
        return compiled


def seed_keys(seed: int | Key, seeds: int) -> tuple[Key, list[int]]:
    """Keys ``[S]`` and the seeds' names. An integer counts up; a key is split; a batch of keys is taken as it is."""
    from jmbrl import checks

    checks.integer("seeds", seeds, low=1)
    if isinstance(seed, jax.Array) and jnp.issubdtype(seed.dtype, jax.dtypes.prng_key):
        if seed.ndim == 0:
            return (seed[None] if seeds == 1 else jax.random.split(seed, seeds)), list(range(seeds))
        if seed.ndim != 1 or (seeds not in (1, len(seed))):
            raise ValueError(f"key must be one key or {seeds} of them, got a batch of shape {seed.shape}")
        return seed, list(range(len(seed)))
    names = [checks.integer("seed", seed, 0, 2**32 - 1) + i for i in range(seeds)]
    return jnp.stack([checks.key(name) for name in names]), names


def state_bytes(abstract: PyTree) -> int:
    """Bytes of a tree of shapes."""
    return sum(_leaf_bytes(leaf) for leaf in jax.tree.leaves(abstract))


def _leaf_bytes(leaf: Any) -> int:
    typed = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return leaf.size * (8 if typed else leaf.dtype.itemsize)


def _over_seeds(function: Callable, keys: Sequence) -> Callable:
    """``function(key, run, step)`` over the leading axis of keys and run.

    One seed is squeezed, not mapped: under ``vmap`` a ``cond`` would pay for both branches.
    """

    def single(keys: Key, *rest: Any) -> PyTree:
        first = [jax.tree.map(lambda x: x[0], tree) for tree in (keys, *rest[:1])]
        return _strong(jax.tree.map(lambda x: jnp.asarray(x)[None], function(*first, *rest[1:])))

    def many(keys: Key, *rest: Any) -> PyTree:
        return _strong(jax.vmap(function, in_axes=(0, *(0, None)[: len(rest)]))(keys, *rest))

    return single if len(keys) == 1 else many


def _strong(tree: PyTree) -> PyTree:
    """Without weak types: a compiled program takes exactly the types it was compiled for."""

    def leaf(x: Array) -> Array:
        return x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else jax.lax.convert_element_type(x, x.dtype)

    return jax.tree.map(leaf, tree)


def _chunk(train: Any, span: Any) -> Callable:
    return lambda key, run, step: train.chunk(key, run, step, span.length, span.warmup)


def _resume_env(train: Any) -> Callable:
    return lambda key, run: train.resume_env(jax.random.fold_in(key, RESUMPTION), run)


def _evaluation(train: Any, env: Env, episodes: int) -> Callable:
    from jmbrl.rollout import evaluate

    def function(key: Key, run: Any, step: Array) -> dict[str, Array]:
        key = jax.random.fold_in(jax.random.fold_in(key, EVALUATION), step)
        result = evaluate(key, env, train.agent, run.agent, episodes)
        return {name: result[name] for name in ("returns", "lengths")}

    return function


def _with_own_worlds(train: Any) -> Any:
    return dataclasses.replace(train, worlds=train.env.vector(train.num_envs))


def _temporary_bytes(compiled: Any) -> int:
    try:
        return int(compiled.memory_analysis().temp_size_in_bytes)
    except Exception:  # not every backend tells
        return 0


def _explained(error: Exception, temporary: int) -> Exception:
    if "RESOURCE_EXHAUSTED" not in str(error):
        return error
    from jmbrl.progress import size

    return MemoryError(
        f"out of device memory (the largest program works with {size(temporary)} beside the state); lower seeds, "
        "capacity, population, particles or num_envs: " + str(error).splitlines()[0]
    )
