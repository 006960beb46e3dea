"""The matrix products and convolutions of a program: how many of each, their arithmetic, and how long they take alone.

XLA's own count (``compiled.cost_analysis()``) takes the body of a loop once; here a scan counts as often as it runs.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jmbrl.bench.measure import seconds
from jmbrl.types import Array

PRODUCTS = ("dot_general", "conv_general_dilated")
SECONDS = 0.02  # a product is repeated for about so long
MOST = 1000  # repetitions


class Product(NamedTuple):
    """One kind of product.

    Attributes:
      flops: of one, two operations a multiply-add.
      count: how often the program makes it.
      shapes: of its two operands, with their types.
      make: ``(x, y) -> Array``.
    """

    flops: float
    count: int
    shapes: tuple[jax.ShapeDtypeStruct, ...]
    make: Callable


def products(function: Callable, *args: Any) -> list[Product]:
    """What ``function(*args)`` multiplies, most arithmetic first.

    Of a ``cond`` the branch with more arithmetic counts, the body of a ``while`` once.
    """
    found = _of_jaxpr(jax.make_jaxpr(function)(*args).jaxpr)
    return sorted(found.values(), key=lambda product: -product.flops * product.count)


def total_flops(found: list[Product]) -> float:
    return sum(product.flops * product.count for product in found)


def total_seconds(found: list[Product]) -> float:
    """All of them, one kind after another, from warm caches: what the program would take if it did nothing else."""
    return sum(product.count * seconds_of(product) for product in found)


def seconds_of(product: Product, repeats: int = 3) -> float:
    """One product, the best of ``repeats`` times as many as fill ``SECONDS``, each waiting for the one before."""

    @jax.jit
    def chain(x: Array, y: Array, count: int) -> Array:
        def once(_: Array, x: Array) -> Array:
            made = lax.optimization_barrier(product.make(x, y))  # no part of it may be left out
            corner = (0 * made[(0,) * made.ndim]).astype(x.dtype).reshape((1,) * x.ndim)
            return lax.dynamic_update_slice(x, corner, (0,) * x.ndim)

        return lax.fori_loop(0, count, once, x)

    x, y = (jnp.full(shape.shape, 0.5, shape.dtype) for shape in product.shapes)
    jax.block_until_ready(chain(x, y, 1))
    count = max(1, min(MOST, int(SECONDS / seconds(lambda: chain(x, y, 1)))))
    return min(seconds(lambda: chain(x, y, count)) for _ in range(repeats)) / count


# ---------------------------------------------------------------------------------------------------- the count


def _of_jaxpr(jaxpr: Any) -> dict[str, Product]:
    found: dict[str, Product] = {}
    for equation in jaxpr.eqns:
        if equation.primitive.name in PRODUCTS:
            _add(found, {_name(equation): _product(equation)})
        inner = [_of_jaxpr(jaxpr) for jaxpr in _inside(equation.params)]
        if equation.primitive.name == "cond":
            inner = [max(inner, key=lambda branch: total_flops(list(branch.values())))]
        for part in inner:
            _add(found, part, equation.params["length"] if equation.primitive.name == "scan" else 1)
    return found


def _add(found: dict[str, Product], more: dict[str, Product], times: int = 1) -> None:
    for name, product in more.items():
        before = found[name].count if name in found else 0
        found[name] = product._replace(count=before + times * product.count)


def _inside(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for inner in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield inner


def _name(equation: Any) -> str:
    shapes = [str(x.aval) for x in equation.invars]
    return " ".join([equation.primitive.name, *shapes, *(f"{k}={equation.params[k]}" for k in sorted(equation.params))])


def _product(equation: Any) -> Product:
    shapes = tuple(jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype) for x in equation.invars)
    params, outputs = equation.params, equation.outvars[0].aval.shape
    if equation.primitive.name == "dot_general":
        (over, _), _ = params["dimension_numbers"]
        adds = math.prod(outputs) * math.prod(shapes[0].shape[axis] for axis in over)
    else:
        adds = _taps(shapes[0].shape, shapes[1].shape, outputs, params)
    return Product(2.0 * adds, 1, shapes, lambda x, y: equation.primitive.bind(x, y, **params))


def _taps(inputs: tuple[int, ...], kernel: tuple[int, ...], outputs: tuple[int, ...], params: dict[str, Any]) -> int:
    """Multiply-adds of a convolution; those with the zeros around and between its inputs are not counted."""
    places = params["dimension_numbers"]
    adds = outputs[places.out_spec[0]] * outputs[places.out_spec[1]] * kernel[places.rhs_spec[1]]
    sides = zip(places.lhs_spec[2:], places.rhs_spec[2:], places.out_spec[2:], strict=True)
    for axis, (of_input, of_kernel, of_output) in enumerate(sides):
        begin = np.arange(outputs[of_output])[:, None] * params["window_strides"][axis] - params["padding"][axis][0]
        at = begin + np.arange(kernel[of_kernel]) * params["rhs_dilation"][axis]
        seen, between = np.divmod(at, params["lhs_dilation"][axis])
        adds *= int(np.sum((between == 0) & (seen >= 0) & (seen < inputs[of_input])))
    return adds
