"""Several members of one model, disagreeing where the data are few.

A row of beliefs is evaluated by one member, never by all: rows are dealt out in contiguous blocks, so that a layer of
the whole ensemble is one batched matmul ``[members, rows, in] x [members, in, out]`` and costs no more than one
network on all rows.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks, devices
from jmbrl.models.grouping import Groups, deal, gather_rows, groups, scatter_rows
from jmbrl.models.solved import bootstrap
from jmbrl.types import Array, Key, Model, Outcome, Params, Prediction, PyTree


class EnsembleStats(NamedTuple):
    """``member``: the statistics all members share. ``elites``: ``int32[k]``, the members that are used."""

    member: PyTree
    elites: Array


def ensemble(model: Model, n: int, elites: int | None = None, propagation: str = "ts1") -> Model:
    """``n`` members of ``model`` as one ``Model``; weights get a leading axis ``[n]``, statistics are shared.

    ``step_many`` decides which member imagines which row:

    * ``"ts1"``: every member gets an equal share of the rows, drawn anew at each step. What is drawn is a
      permutation of *units*, contiguous blocks of rows, so that the rows of a unit share a member during one step;
      each row's member is uniform.
    * ``"tsinf"``: the ``j``-th contiguous block of rows always belongs to the ``j``-th member; with particle-major
      rows and particles a multiple of the members this is PETS' TS-infinity.
    * ``"mean"``: every row gets the average over members of the prediction without noise (PETS' E, with one
      particle); rewards and continuation are averaged too.

    The number of rows need not be a multiple of anything: the last block is padded, and the padding changes no bit of
    the rows. ``step``, one row, uses a random member (``"mean"``: the average). Functions of the belief
    (``initial``, ``encode``, ``features``, ``decode``) are member 0's: members must share their belief space.

    Members that are solved (``model.fit``) each count the rows of a bootstrap of their own, as many draws as there are
    rows, drawn once per fit; ``info`` is their mean.

    Args:
      model: one member.
      n: members, at least 1.
      elites: use only the best ``elites`` members, as ranked by ``models.trainer``; None: all of them.
      propagation: ``"ts1"``, ``"tsinf"`` or ``"mean"``.

    Raises:
      ValueError: ``n`` below 1, ``elites`` outside ``[1, n]``, an unknown propagation, an ensemble of ensembles
        or of models with a learned memory, or ``"mean"`` of beliefs that are not real numbers (a table's).

    Source: Chua et al. 2018, PETS, section 5.1; Janner et al. 2019, MBPO (elites).
    """
    n = checks.integer("n", n, 1)
    k = n if elites is None else checks.integer("elites", elites, 1, n)
    checks.choice("propagation", propagation, ("ts1", "tsinf", "mean"))
    if model.members:
        raise ValueError(f"model must be a single model, got an ensemble of {model.members} members")
    if model.own_belief:
        raise ValueError(
            "model must have beliefs that every member can read, got one with a memory that only its own weights "
            "understand; put models.history into an ensemble instead"
        )
    if propagation == "mean":
        _refuse_labels(model)

    def init(key: Key) -> Params:
        each = jax.vmap(model.init)(jax.random.split(key, n))
        stats = jax.tree.map(lambda x: x[0], each.stats)
        return Params(each.weights, EnsembleStats(stats, jnp.arange(k, dtype=jnp.int32)))

    def first(params: Params) -> Params:
        return one_member(params, 0)

    def elite_weights(params: Params) -> PyTree:
        # No gather when all are used: it would copy every weight at every imagined step.
        return params.weights if k == n else jax.tree.map(lambda w: w[params.stats.elites], params.weights)

    def step(key: Key, params: Params, belief: PyTree, action: Array) -> tuple[PyTree, Outcome]:
        if propagation == "mean":
            return jax.tree.map(lambda x: x[0], average(key, params, *_one_row(belief, action)))
        key_member, key_step = jax.random.split(key)
        index = params.stats.elites[jax.random.randint(key_member, (), 0, k)]
        return model.step(key_step, one_member(params, index), belief, action)

    def average(key: Key, params: Params, beliefs: PyTree, actions: Array) -> tuple[PyTree, Outcome]:
        weights = elite_weights(params)
        if model.expect is None:
            act = lambda w, key: model.step_many(key, Params(w, params.stats.member), beliefs, actions)  # noqa: E731
            following, outcome = jax.vmap(act)(weights, jax.random.split(key, k))
        else:
            act = lambda w: model.expect(Params(w, params.stats.member), beliefs, actions)  # noqa: E731
            following, outcome = jax.vmap(act)(weights)
        clipped = jnp.any(outcome.clipped, axis=0)
        following, outcome = jax.tree.map(
            lambda x: jnp.mean(x, axis=0, dtype=x.dtype),
            (following, outcome._replace(clipped=outcome.clipped.astype(jnp.float32))),
        )
        return following, outcome._replace(clipped=clipped)

    def by_row(key: Key, params: Params, beliefs: PyTree, actions: Array) -> tuple[PyTree, Outcome]:
        keys = jax.random.split(key, jax.tree.leaves(beliefs)[0].shape[0])
        return jax.vmap(step, in_axes=(0, None, 0, 0))(keys, params, beliefs, actions)

    def grouped(keys: Key, params: Params, plan: Groups, order: Array | None, rows: tuple) -> tuple[PyTree, Outcome]:
        weights = elite_weights(params)

        def evaluate(chunk: tuple) -> tuple[PyTree, Outcome]:
            keys, beliefs, actions = chunk
            beliefs, actions = devices.split((beliefs, actions), devices.MEMBER, devices.ROW)
            act = lambda w, key, b, a: model.step_many(key, Params(w, params.stats.member), b, a)  # noqa: E731
            return jax.vmap(act)(weights, keys, beliefs, actions)

        chunks = (keys.reshape(plan.chunks, k), *gather_rows(plan, order, rows))
        if plan.chunks == 1:
            out = jax.tree.map(lambda x: x[None], evaluate(jax.tree.map(lambda x: x[0], chunks)))
        else:
            _, out = jax.lax.scan(lambda _, chunk: (None, evaluate(chunk)), None, chunks)
        return scatter_rows(plan, order, out)

    def step_many(key: Key, params: Params, beliefs: PyTree, actions: Array) -> tuple[PyTree, Outcome]:
        count = actions.shape[0]
        if propagation == "mean":
            return average(key, params, beliefs, actions)
        if count < k and propagation == "ts1":
            return by_row(key, params, beliefs, actions)
        plan = groups(count, k, stable=propagation == "tsinf")
        keys = jax.random.split(key, 1 + plan.chunks * k)
        order = deal(keys[0], plan) if propagation == "ts1" else None
        return grouped(keys[1:], params, plan, order, (beliefs, actions))

    def expect(params: Params, beliefs: PyTree, actions: Array) -> tuple[PyTree, Outcome]:
        return average(jax.random.key(0), params, beliefs, actions)

    def predict(params: Params, belief: PyTree, action: Array) -> Prediction:
        """The elites' mixture by its first two moments."""
        weights = elite_weights(params)
        each = jax.vmap(lambda w: model.predict(Params(w, params.stats.member), belief, action))(weights)
        return Prediction(*_mixture(each.mean, each.std), *_mixture(each.reward_mean, each.reward_std))

    def loss(key: Key, params: Params, batch: PyTree) -> tuple[Array, dict]:
        """The *sum* over members on one batch; ``info`` is their mean. The trainer gives each its own batch."""
        act = lambda w, key: model.loss(key, Params(w, params.stats.member), batch)  # noqa: E731
        losses, info = jax.vmap(act)(params.weights, jax.random.split(key, n))
        return jnp.sum(losses), jax.tree.map(jnp.mean, info)

    def set_stats(params: Params, transitions: PyTree, mask: Array) -> Params:
        stats = model.set_stats(first(params), transitions, mask).stats
        return params._replace(stats=params.stats._replace(member=stats))

    def fit(key: Key, params: Params, rows: PyTree, weight: Array) -> tuple[Params, dict]:
        key_draw, key_fit = jax.random.split(key)
        counts = jax.vmap(bootstrap, in_axes=(0, None))(jax.random.split(key_draw, n), weight)
        act = lambda w, key, count: model.fit(key, Params(w, params.stats.member), rows, count)  # noqa: E731
        fitted, info = jax.vmap(act)(params.weights, jax.random.split(key_fit, n), counts)
        error = info.get("mse", info.get("loss"))
        stats = params.stats if error is None else rank_elites(params.stats, error, jnp.sum(weight) > 0)
        return Params(fitted.weights, stats), jax.tree.map(jnp.mean, info)

    def encode(key: Key, params: Params, *rest: PyTree) -> PyTree:
        return model.encode(key, first(params), *rest)

    return Model(
        init=init,
        initial=lambda params: model.initial(first(params)),
        encode=encode,
        step=step,
        step_many=step_many,
        features=lambda params, belief: model.features(first(params), belief),
        decode=lambda params, belief: model.decode(first(params), belief),
        loss=None if model.loss is None else loss,
        set_stats=set_stats,
        predict=None if model.predict is None else predict,
        fit=None if model.fit is None else fit,
        data_kind=model.data_kind,
        members=n,
        member=model,
        expect=None if model.expect is None else expect,
        no_gradient=model.no_gradient,
    )


def one_member(params: Params, index: int | Array) -> Params:
    """The parameters of one member of an ensemble, for ``model.member``'s functions."""
    return Params(jax.tree.map(lambda w: w[index], params.weights), params.stats.member)


def rank_elites(stats: EnsembleStats, error: Array, known: Array) -> EnsembleStats:
    """The ``k`` members of least ``error`` become the elites, where it is ``known``; a NaN ranks last."""
    k = stats.elites.shape[0]
    best = jnp.argsort(jnp.where(jnp.isnan(error), jnp.inf, error))[:k].astype(jnp.int32)
    return stats._replace(elites=jnp.where(known, best, stats.elites))


def members_predict(model: Model, params: Params, beliefs: PyTree, actions: Array) -> Prediction:
    """Every member's prediction of every row: leaves ``[members, N, ...]``, all members, elite or not.

    Raises:
      ValueError: ``model`` is not an ensemble, or its members predict nothing.
    """
    if not model.members or model.member.predict is None:
        raise ValueError("members_predict needs an ensemble of models that predict")
    rows: Callable = jax.vmap(model.member.predict, in_axes=(None, 0, 0))
    return jax.vmap(lambda w: rows(Params(w, params.stats.member), beliefs, actions))(params.weights)


def disagreement(model: Model, params: Params, beliefs: PyTree, actions: Array) -> Array:
    """``float32[N, D]``: the standard deviation over the elite members' means, in the observation's units."""
    mean = members_predict(model, params, beliefs, actions).mean
    return jnp.std(mean[params.stats.elites], axis=0)


def _refuse_labels(model: Model) -> None:
    """Averages of states that are only numbered mean nothing."""
    belief = jax.eval_shape(lambda key: model.initial(model.init(key)), jax.random.key(0))
    for leaf in jax.tree.leaves(belief):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(f'propagation="mean" averages beliefs, and this model\'s are {leaf.dtype}: use "ts1"')


def _mixture(mean: Array, std: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of an equal mixture of Gaussians along axis 0."""
    return jnp.mean(mean, axis=0), jnp.sqrt(jnp.mean(std**2, axis=0) + jnp.var(mean, axis=0))


def _one_row(belief: PyTree, action: Array) -> tuple[PyTree, Array]:
    return jax.tree.map(lambda x: x[None], belief), jnp.asarray(action)[None]
