"""The compiled side of a run: seeds side by side, one program per kind of chunk.

The state of a run is a tuple of groups. JAX environments have one group holding every seed on a leading axis, spread
over the devices; a host environment cannot be mapped, nor a run that keeps files, so there each seed is a group of one.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import checks, devices
from jmbrl.envs.host import LIVE_SETS
from jmbrl.progress import size
from jmbrl.rollout import evaluate
from jmbrl.types import Array, Env, Key, PyTree

COMPILER_OPTIONS: dict | None = None  # tests compile without optimising
EVALUATION = 2**31 - 1  # folded into a seed's key, apart from every step count
RESUMPTION = 2**31 - 2


def _nothing(text: str) -> None: ...


class Programs:
    """Compiles each kind of chunk once and runs it over all seeds.

    Args:
      train: as ``make_train`` returns.
      keys: typed keys ``[S]``, one a seed.
      announce, note: ``(text)``, told when a compilation starts and when it has ended.
      mesh: devices by axis, as ``devices.mesh`` takes them; seeds are spread over all by default.

    Raises:
      ValueError: more seeds than a host environment can keep apart, or seeds that several processes cannot share.
    """

    def __init__(
        self,
        train: Any,
        keys: Key,
        announce: Callable = _nothing,
        note: Callable = _nothing,
        mesh: dict[str, int] | None = None,
    ):
        if train.env.spec.host and len(keys) > LIVE_SETS:
            raise ValueError(
                f"seeds must be at most {LIVE_SETS} for {train.env.spec.name}, which runs on the host, "
                f"got {len(keys)}: use one process a seed, or num_envs"
            )
        if train.alone and jax.process_count() > 1:
            raise ValueError(
                f"{train.env.spec.name} with this system runs seed by seed on its host, which several processes cannot "
                "share: start a run of its own for each seed (`jmbrl sweep --set ... --launcher submitit`)"
            )
        self.train = train
        if train.alone and mesh:
            raise ValueError(f"mesh has nothing to spread: {train.env.spec.name} with this system runs seed by seed")
        self.mesh = None if train.alone else devices.mesh(len(keys), mesh)
        self.keys = [keys[i : i + 1] for i in range(len(keys))] if train.alone else [devices.place(keys, self.mesh)]
        self.compile_seconds = 0.0
        self.temporary_bytes = 0
        self._announce, self._note = announce, note
        self._compiled: dict[tuple, Callable] = {}

    def abstract(self) -> tuple:
        """Shapes of ``init``'s result, without running anything."""
        shapes = (jax.eval_shape(self._over_seeds(self.train.init, keys), keys) for keys in self.keys)
        return tuple(devices.placed(group, self.mesh) for group in shapes)

    def init(self) -> tuple:
        """Every seed before its first step."""
        return tuple(self._call(("init",), self._over_seeds(self.train.init, keys), keys) for keys in self.keys)

    def resume_env(self, runs: tuple) -> tuple:
        """New episodes in every host environment, whose state no checkpoint holds."""

        def function(key: Key, run: PyTree) -> PyTree:
            return self.train.resume_env(jax.random.fold_in(key, RESUMPTION), run)

        return tuple(
            self._call(("resume",), self._over_seeds(function, keys), keys, run)
            for keys, run in zip(self.keys, runs, strict=True)
        )

    def chunk(self, runs: tuple, span: Any) -> tuple[tuple, dict[str, np.ndarray]]:
        """Run ``span`` for every seed: ``(runs, metrics[S, T, ...])``. ``runs`` is donated: do not use it again."""
        step, out, metrics = np.int32(span.start), [], []
        for keys, run in zip(self.keys, runs, strict=True):
            name = ("chunk", span.length, span.warmup)
            run, info = self._call(name, self._over_seeds(_chunk(self.train, span), keys), keys, run, step, donate=(1,))
            out.append(run)
            metrics.append(devices.to_host(info))
        return tuple(out), {name: np.concatenate([m[name] for m in metrics]) for name in metrics[0]}

    def evaluate(self, runs: tuple, step: int, env: Env, episodes: int) -> dict[str, np.ndarray]:
        """Returns and lengths ``[S, episodes]`` without exploration, on ``env``."""
        found = []
        for keys, run in zip(self.keys, runs, strict=True):
            function = self._over_seeds(_evaluation(self.train, env, episodes), keys)
            found.append(devices.to_host(self._call(("evaluate",), function, keys, run, np.int32(step))))
        return {name: np.concatenate([f[name] for f in found]) for name in found[0]}

    def explain(self, runs: tuple, span: Any, lane: int) -> str | None:
        """Run one seed's chunk again under checkify; the first primitive that made a NaN or infinity, or None."""
        from jax.experimental import checkify

        if jax.process_count() > 1:
            return None
        group, row = (lane, 0) if len(self.keys) > 1 else (0, lane)
        take = lambda tree: jax.tree.map(lambda x: x[row], tree)  # noqa: E731
        checked = jax.jit(checkify.checkify(_chunk(self.train, span), errors=checkify.float_checks))
        error, _ = checked(self.keys[group][row], take(runs[group]), jnp.int32(span.start))
        return error.get()

    def close(self) -> None:
        """Give back what the programs hold; nothing here."""

    def _over_seeds(self, function: Callable, keys: Key) -> Callable:
        return devices.over_seeds(function, len(keys), self.mesh)

    def _call(self, name: tuple, function: Callable, *arguments: Any, donate: tuple[int, ...] = ()) -> Any:
        if name not in self._compiled:
            self._compiled[name] = self._compile(name, function, arguments, donate)
        try:
            return self._compiled[name](*arguments)
        except jax.errors.JaxRuntimeError as error:
            raise _explained(error, self.temporary_bytes) from error

    def _compile(self, name: tuple, function: Callable, arguments: tuple, donate: tuple[int, ...]) -> Callable:
        label = name[0]
        if label == "chunk" and len(name) == 3:
            label = "the warm-up" if name[2] else f"{name[1]} steps"
        self._announce(f"compiling {label}")
        began = time.perf_counter()
        try:
            # Where the mesh has inner axes XLA would leave results spread over them, and refuse them as arguments.
            out: dict[str, Any] = {} if self.mesh is None else {"out_shardings": devices.by_seed(self.mesh)}
            compiled = jax.jit(function, donate_argnums=donate, **out).lower(*arguments).compile(COMPILER_OPTIONS)
        except jax.errors.JaxRuntimeError as error:
            raise _explained(error, self.temporary_bytes) from error
        seconds = time.perf_counter() - began
        self.compile_seconds += seconds
        self.temporary_bytes = max(self.temporary_bytes, _temporary_bytes(compiled))
        self._note(f"compiled {label} in {seconds:.1f} s")
        return compiled


def seed_keys(seed: int | Key, seeds: int) -> tuple[Key, list[int]]:
    """Keys ``[S]`` and the seeds' names. An integer counts up; a key is split; a batch of keys is taken as it is."""
    checks.integer("seeds", seeds, low=1)
    if isinstance(seed, jax.Array) and jnp.issubdtype(seed.dtype, jax.dtypes.prng_key):
        if seed.ndim == 0:
            return (seed[None] if seeds == 1 else jax.random.split(seed, seeds)), list(range(seeds))
        if seed.ndim != 1 or (seeds not in (1, len(seed))):
            raise ValueError(f"key must be one key or {seeds} of them, got a batch of shape {seed.shape}")
        return seed, list(range(len(seed)))
    names = [checks.integer("seed", seed, 0, 2**32 - 1) + i for i in range(seeds)]
    return jnp.stack([checks.key(name) for name in names]), names


def together(runs: tuple) -> PyTree:
    """Every seed on one leading axis, however the groups are cut."""
    return runs[0] if len(runs) == 1 else jax.tree.map(lambda *groups: jnp.concatenate(groups), *runs)


def state_bytes(abstract: PyTree) -> int:
    """Bytes of a tree of shapes."""
    return sum(_leaf_bytes(leaf) for leaf in jax.tree.leaves(abstract))


def _leaf_bytes(leaf: Any) -> int:
    typed = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return leaf.size * (8 if typed else leaf.dtype.itemsize)


def _chunk(train: Any, span: Any) -> Callable:
    return lambda key, run, step: train.chunk(key, run, step, span.length, span.warmup)


def _evaluation(train: Any, env: Env, episodes: int) -> Callable:
    def function(key: Key, run: Any, step: Array) -> dict[str, Array]:
        key = jax.random.fold_in(jax.random.fold_in(key, EVALUATION), step)
        result = evaluate(key, env, train.agent, run.agent, episodes)
        return {name: result[name] for name in ("returns", "lengths")}

    return function


def _temporary_bytes(compiled: Any) -> int:
    try:
        return int(compiled.memory_analysis().temp_size_in_bytes)
    except Exception:  # not every backend tells
        return 0


def _explained(error: Exception, temporary: int) -> Exception:
    if "RESOURCE_EXHAUSTED" not in str(error):
        return error
    return MemoryError(
        f"out of device memory (the largest program works with {size(temporary)} beside the state); lower seeds, "
        "capacity, population, particles or num_envs: " + str(error).splitlines()[0]
    )
