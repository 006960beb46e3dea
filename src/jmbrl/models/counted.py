"""A bonus for what was seldom met: counts of the states of a numbering, as a wrapper around any model."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.types import Array, Cells, Key, Model, Outcome, Params, PyTree, Spec


class CountedStats(NamedTuple):
    """``inner``: the model's own statistics. ``visits``: ``float32[cells]``, rows of the data that led to each."""

    inner: PyTree
    visits: Array


def counted(model: Model, cells: Cells, bonus: float | Array = 1.0, extrinsic: float | Array = 1.0) -> Model:
    r"""``model`` whose imagined reward is :math:`w\, r + \beta / \sqrt{1 + n(s')}`, with :math:`n` the times that the
    data led to the cell of the imagined successor.

    Counts are taken anew whenever ``set_stats`` is called, from all of its rows. What is trained stays as it is. To put
    it into an ensemble, wrap the member: ``ensemble(counted(member, cells), 5)``.

    Args:
      model: a single model whose ``decode`` gives what ``cells.index`` reads.
      cells: a numbering of observations: ``Env.cells`` (of a maze, or by ``envs.discretise``), or ``simhash``.
      bonus: :math:`\beta`. extrinsic: :math:`w`. May be traced.

    Raises:
      ValueError: an ensemble, or a number that is not finite.

    Source: Strehl & Littman 2008 (MBIE-EB); Tang et al. 2017 (arXiv 1611.04717), equation 1. There :math:`1/\sqrt n`
    of what was met at least once; imagination also meets what was not.
    """
    checks.number("bonus", bonus)
    checks.number("extrinsic", extrinsic)
    if model.members:
        raise ValueError("model must be a single model, got an ensemble: wrap its member and make the ensemble of that")

    def inner(params: Params) -> Params:
        return params._replace(stats=params.stats.inner)

    def on(function: Callable | None, place: int) -> Any:
        """``function`` whose argument number ``place`` is the parameters."""
        if function is None:
            return None

        def called(*arguments: Any) -> Any:
            return function(*arguments[:place], inner(arguments[place]), *arguments[place + 1 :])

        return called

    def init(key: Key) -> Params:
        params = model.init(key)
        return params._replace(stats=CountedStats(params.stats, jnp.zeros(cells.count)))

    def set_stats(params: Params, rows: PyTree, mask: Array) -> Params:
        fitted = model.set_stats(inner(params), rows, mask)
        places = jax.vmap(cells.index)(rows.next_obs)
        visits = jnp.zeros(cells.count).at[places].add(mask.astype(jnp.float32))
        return fitted._replace(stats=CountedStats(fitted.stats, visits))

    def paid(params: Params, following: PyTree, outcome: Outcome) -> Outcome:
        seen = params.stats.visits[cells.index(model.decode(inner(params), following))]
        return outcome._replace(reward=extrinsic * outcome.reward + bonus * jax.lax.rsqrt(1.0 + seen))

    def step(key: Key, params: Params, belief: PyTree, action: Array) -> tuple[PyTree, Outcome]:
        following, outcome = model.step(key, inner(params), belief, action)
        return following, paid(params, following, outcome)

    def step_many(key: Key, params: Params, beliefs: PyTree, actions: Array) -> tuple[PyTree, Outcome]:
        following, outcome = model.step_many(key, inner(params), beliefs, actions)
        return following, jax.vmap(paid, in_axes=(None, 0, 0))(params, following, outcome)

    def expect(params: Params, beliefs: PyTree, actions: Array) -> tuple[PyTree, Outcome]:
        following, outcome = model.expect(inner(params), beliefs, actions)
        return following, jax.vmap(paid, in_axes=(None, 0, 0))(params, following, outcome)

    def kept(function: Callable | None, place: int) -> Any:
        """As ``on``, for functions that return ``(params, ...)``: the counts go with them."""
        if function is None:
            return None

        def called(*arguments: Any) -> tuple:
            params, *rest = on(function, place)(*arguments)
            return (params._replace(stats=CountedStats(params.stats, arguments[place].stats.visits)), *rest)

        return called

    return model._replace(
        init=init,
        initial=on(model.initial, 0),
        encode=on(model.encode, 1),
        step=step,
        step_many=step_many,
        features=on(model.features, 0),
        decode=on(model.decode, 0),
        loss=on(model.loss, 1),
        set_stats=set_stats,
        predict=on(model.predict, 0),
        expect=model.expect and expect,
        fit=kept(model.fit, 1),
        observe=None,
        watch=on(model.watch, 1),
    )


def simhash(spec: Spec, bits: int = 12, scale: Array | None = None, seed: int = 0) -> Cells:
    r"""A numbering of any vector observation: the signs of ``bits`` random projections, :math:`2^{bits}` cells.

    Observations at a small angle to each other often share a cell. Entries should be near 0 on average and of similar
    size: ``scale``, ``float32[D]``, divides them first.

    Raises:
      ValueError: no vector observations, or ``bits`` outside ``[1, 24]``.

    Source: Charikar 2002, as in Tang et al. 2017 (arXiv 1611.04717), section 2.3.
    """
    bits = checks.integer("bits", bits, 1, 24)
    if len(spec.obs_shape) != 1 or spec.obs_dtype != "float32":
        raise ValueError(f"simhash needs vector observations of float32, got {spec.obs_shape} of {spec.obs_dtype}")
    # A constant part lets it also tell observations apart that differ in length alone.
    matrix = jax.random.normal(jax.random.key(seed), (bits, spec.obs_shape[0] + 1))
    unit = jnp.ones(spec.obs_shape) if scale is None else jnp.asarray(scale)
    powers = 2 ** jnp.arange(bits, dtype=jnp.int32)

    def index(obs: Array) -> Array:
        return jnp.sum(powers * (matrix[:, :-1] @ (obs / unit) + matrix[:, -1] > 0)).astype(jnp.int32)

    def centre(number: Array) -> Array:
        # The shortest vector on the cell's side of every plane that its signs name, up to its length.
        signs = 2.0 * ((number // powers) % 2) - 1.0
        return unit * (jnp.linalg.pinv(matrix[:, :-1]) @ (signs - matrix[:, -1]))

    return Cells(2**bits, index, centre)
