"""The part of ``check_env`` that looks at how observations are numbered."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl.types import Cells, Env, PyTree

_SAMPLE = 50  # numbers whose centres are looked at


def cells_problems(env: Env, met: list[PyTree]) -> list[str]:
    """What is wrong with ``env.cells``; ``met`` are observations ``[N, ...]`` that were seen."""
    if env.cells is None:
        return []
    if not isinstance(env.cells.count, int) or env.cells.count < 1:
        return [f"cells.count must be a positive integer, got {env.cells.count!r}"]
    problems = []
    if env.cells.shape and math.prod(env.cells.shape) != env.cells.count:
        problems.append(f"cells.shape {env.cells.shape} has {math.prod(env.cells.shape)} places for {env.cells.count}")
    try:
        return [*problems, *(_index_problems(env.cells, met) or _centre_problems(env))]
    except Exception as error:
        return [*problems, f"cells raised {type(error).__name__}: {error}"]


def _index_problems(cells: Cells, met: list[PyTree]) -> list[str]:
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), met[0])
    wrong = _type_problem("cells.index of an observation", jax.eval_shape(cells.index, one), (), jnp.int32)
    if wrong:
        return wrong
    index = jax.jit(jax.vmap(cells.index))
    for numbers in map(np.asarray, map(index, met)):
        outside = np.flatnonzero((numbers < 0) | (numbers >= cells.count))
        if len(outside):
            where = f"{numbers[outside[0]]} at step {outside[0]} ({len(outside)} such numbers)"
            return [f"cells.index must be in [0, {cells.count}), got {where}"]
    return []


def _centre_problems(env: Env) -> list[str]:
    cells = env.cells
    one = jax.eval_shape(cells.centre, jax.ShapeDtypeStruct((), jnp.int32))
    wrong = _type_problem("cells.centre of a number", one, env.spec.obs_shape, jnp.float32)
    if wrong:
        return wrong
    numbers = np.unique(np.linspace(0, cells.count - 1, _SAMPLE).astype(np.int32))
    back = np.asarray(jax.jit(jax.vmap(lambda i: cells.index(cells.centre(i))))(numbers))
    lost = np.flatnonzero(back != numbers)
    if not len(lost):
        return []
    first = lost[0]
    return [f"cells.index(cells.centre({numbers[first]})) is {back[first]} ({len(lost)} of {len(numbers)} are wrong)"]


def _type_problem(what: str, got: Any, shape: tuple[int, ...], dtype: Any) -> list[str]:
    if getattr(got, "shape", None) == tuple(shape) and got.dtype == dtype:
        return []
    return [f"{what} must be {jnp.dtype(dtype)}{list(shape)}, got {getattr(got, 'dtype', type(got).__name__)}"
            f"{list(getattr(got, 'shape', ()))}"]  # fmt: skip
