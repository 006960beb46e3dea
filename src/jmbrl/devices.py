"""Many devices and many hosts: where the parts of a run lie, and what its processes must agree on.

Seeds need nothing of each other. ``over_seeds`` gives every device its share of them as a program of its own
(``jax.shard_map``), so that a loop that ends early on one device waits for no other. One seed's work is shared by
naming two axes of it, which ``split`` marks where they arise: the members of an ensemble, and rows (of a planner's
population, of imagined trajectories, of a batch); XLA then divides the matrices and moves what has to move. With
several processes (``start``) the same mesh spans all of them: each runs the same Python loop, and only the first
writes.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jmbrl import checks
from jmbrl.types import PyTree

SEED, MEMBER, ROW = AXES = ("seed", "member", "row")


def start(coordinator: str, processes: int | None = None, process: int | None = None) -> None:
    """Join the processes of one run; before anything else touches JAX.

    Args:
      coordinator: ``"HOST:PORT"`` of the first process, the same for all; ``"auto"`` where the cluster says it (Slurm,
        Open MPI, Cloud TPU).
      processes: how many there are.
      process: which one this is, from 0.

    Raises:
      ValueError: a number is missing or out of range.
    """
    if coordinator == "auto":
        jax.distributed.initialize()
        return
    if processes is None or process is None:
        raise ValueError(f"coordinator {coordinator} needs processes and process, got {processes} and {process}")
    if ":" not in coordinator:
        raise ValueError(f'coordinator must be "HOST:PORT" or "auto", got {coordinator!r}')
    checks.integer("processes", processes, low=1)
    checks.integer("process", process, low=0, high=processes - 1)
    jax.distributed.initialize(coordinator, processes, process)


def first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def mesh(seeds: int, sizes: dict[str, int] | None = None) -> Mesh | None:
    """The devices of a run by axis ``(seed, member, row)``; None where that is one device.

    Args:
      seeds: how many; each device (or group of devices) has an equal share of them.
      sizes: devices along some axes. ``member`` and ``row`` are 1 by default, ``seed`` as many as are left and divide
        the seeds.

    Raises:
      ValueError: an unknown axis, more devices than there are, seeds that are no multiple of theirs, or devices of
        another process left over.
    """
    sizes, found = dict(sizes or {}), jax.devices()
    for name, size in sizes.items():
        checks.choice("mesh axis", name, AXES)
        checks.integer(f"mesh {name}", size, low=1)
    inner = sizes.get(MEMBER, 1) * sizes.get(ROW, 1)
    left = max(len(found) // inner, 1)
    outer = sizes.get(SEED) or max(n for n in range(1, left + 1) if seeds % n == 0)
    if seeds % outer:
        raise ValueError(f"seeds must be a multiple of the {outer} groups of devices that share them, got {seeds}")
    if outer * inner > len(found):
        raise ValueError(f"mesh needs {outer * inner} devices, there are {len(found)}: give it other sizes")
    if jax.process_count() > 1 and outer * inner != len(found):
        raise ValueError(
            f"mesh must use all {len(found)} devices of the {jax.process_count()} processes, got {outer * inner}: "
            f"{seeds} seeds should be a multiple of {left}"
        )
    if outer * inner == 1:
        return None
    shape = (outer, sizes.get(MEMBER, 1), sizes.get(ROW, 1))
    return Mesh(np.array(found[: outer * inner]).reshape(shape), AXES)


def split(tree: PyTree, *axes: str | None) -> PyTree:
    """The same arrays, their leading axes shared by the devices along ``axes``; nothing outside of a mesh with those.

    >>> split(np.ones(3), ROW).sum().item()
    3.0
    """
    around = jax.sharding.get_abstract_mesh()
    names = [axis if axis is not None and dict(around.shape).get(axis, 1) > 1 else None for axis in axes]
    if not any(names):
        return tree
    return jax.lax.with_sharding_constraint(tree, PartitionSpec(*names))


def over_seeds(function: Callable, seeds: int, mesh: Mesh | None) -> Callable:
    """``function(key, run, step)`` over the leading axis of keys and run, each device its share.

    One seed is squeezed, not mapped: under ``vmap`` a ``cond`` would pay for both branches.

    Args:
      function: of one seed; ``run`` and ``step`` may be missing.
      seeds: how many.
      mesh: of ``mesh``.
    """
    share = seeds if mesh is None else seeds // mesh.shape[SEED]

    def single(keys: PyTree, *rest: Any) -> PyTree:
        one = [jax.tree.map(lambda x: x[0], tree) for tree in (keys, *rest[:1])]
        return _strong(jax.tree.map(lambda x: jnp.asarray(x)[None], function(*one, *rest[1:])))

    def many(keys: PyTree, *rest: Any) -> PyTree:
        return _strong(jax.vmap(function, in_axes=(0, *(0, None)[: len(rest)]))(keys, *rest))

    mapped = single if share == 1 else many
    if mesh is None:
        return mapped

    def spread(*arguments: Any) -> PyTree:
        specs = tuple(PartitionSpec(SEED) for _ in arguments[:2]) + tuple(PartitionSpec() for _ in arguments[2:])
        # Nothing is exchanged between the devices, so there is no replication for JAX to prove.
        return jax.shard_map(
            mapped, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(SEED), axis_names={SEED}, check_vma=False
        )(*arguments)

    return spread


def by_seed(mesh: Mesh) -> NamedSharding:
    """The leading axis over the mesh's seed axis, the rest whole."""
    return NamedSharding(mesh, PartitionSpec(SEED))


def place(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """Arrays ``[S, ...]`` where their seeds run; every process has to hold all of them."""
    if mesh is None:
        return tree
    # Not by device_put, which refuses typed keys where another process holds a part.
    return jax.jit(lambda tree: tree, out_shardings=by_seed(mesh))(tree)


def placed(shapes: PyTree, mesh: Mesh | None) -> PyTree:
    """Shapes ``[S, ...]`` that say where their seeds run, for what is to be read from disk."""
    if mesh is None:
        return shapes

    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=by_seed(mesh)), shapes)


def to_host(tree: PyTree) -> PyTree:
    """NumPy arrays, wherever their parts lie; with several processes each of them must call it."""
    # JAX 0.10 cannot fetch an empty array that is spread over devices.
    tree = jax.tree.map(lambda x: x if x.size else np.zeros(x.shape, x.dtype), tree)
    if all(x.is_fully_addressable for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)):
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def first_only(function: Callable, *arguments: Any) -> Any:
    """Call ``function`` in the first process alone; what it raises there ends every process. All must call it.

    Returns:
      Its result, None in the other processes.

    Raises:
      ValueError: in the others, where it raised.
    """
    result, error = None, None
    if first():
        try:
            result = function(*arguments)
        except Exception as raised:  # the others wait to hear of it
            error = raised
    if any_process(error is not None):
        raise error or ValueError("the first process could not go on; its own message says why")
    return result


def any_process(value: bool) -> bool:
    """Whether ``value`` is true in any process; all must call it."""
    if jax.process_count() == 1:
        return value
    return bool(np.any(multihost_utils.process_allgather(np.asarray(value))))


def own_lanes(tree: PyTree) -> PyTree:
    """The lanes ``[share, ...]`` on this process's first device: seeds to look at without asking another process."""
    return jax.tree.map(lambda x: x.addressable_shards[0].data, tree)


def _strong(tree: PyTree) -> PyTree:
    """Without weak types: a compiled program takes exactly the types it was compiled for."""

    def leaf(x: Any) -> Any:
        return x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else jax.lax.convert_element_type(x, x.dtype)

    return jax.tree.map(leaf, tree)
