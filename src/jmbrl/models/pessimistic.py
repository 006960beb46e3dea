"""Imagination that pays for what the model does not know: MOPO's penalty and MOReL's halt, as a wrapper."""

import jax
import jax.numpy as jnp

from jmbrl import checks, data
from jmbrl.models.ensemble import members_predict
from jmbrl.types import Array, Key, Model, Outcome, Params, Prediction, PyTree

KINDS = ("mopo", "morel")
MEASURES = ("std", "pairwise", "spread")
BLOCK = 1024  # rows whose uncertainty is computed at once


def pessimistic(
    model: Model,
    kind: str = "mopo",
    *,
    penalty: float | Array = 1.0,
    measure: str | None = None,
    threshold: float | Array | None = None,
    scale: Array | None = None,
) -> Model:
    r"""``model`` that imagines worse where it is uncertain, for anything that takes a model.

    With :math:`u(s, a)` the uncertainty of the (elite) members (``uncertainty``):

    * ``"mopo"``: :math:`\tilde r = r - \lambda\, u(s, a)`.
    * ``"morel"``: where :math:`u(s, a) > \tau` the step pays :math:`-\lambda` in place of its reward and the episode
      ends. The paper's state HALT pays :math:`-\kappa` for ever; so :math:`\lambda` is what all of that is worth,
      :math:`\kappa / (1 - \gamma)`, and must be worse than any other return.

    Imagined beliefs, what is trained, ``predict`` and ``member`` stay as they are. An imagined row costs a prediction
    of every member more. The halt has no slope: what differentiates sees a constant there.

    Args:
      model: with ``predict``; an ensemble for ``"pairwise"`` and ``"spread"``.
      kind: ``"mopo"`` or ``"morel"``.
      penalty: :math:`\lambda`, at least 0, in units of the reward (per unit of ``u`` in MOPO). May be traced.
      measure: of ``uncertainty``; None: the paper's, ``"std"`` for MOPO, ``"pairwise"`` for MOReL.
      threshold: :math:`\tau`, at least 0, for MOReL alone; ``uncertainty_quantile`` finds one in the data. May be
        traced.
      scale: units of the observation's entries, ``float32[D]``, as for ``uncertainty``.

    Raises:
      ValueError: an unknown kind or measure, a threshold without MOReL or MOReL without one, a number below 0, or a
        model that predicts nothing or is no ensemble where one is needed.

    Source: Yu et al. 2020, MOPO (arXiv 2005.13239), section 4.3; Kidambi et al. 2020, MOReL
    (arXiv 2005.05951), section 4. The measures are compared in Lu et al. 2022 (arXiv 2110.04135).
    """
    checks.choice("kind", kind, KINDS)
    measure = ("std" if kind == "mopo" else "pairwise") if measure is None else measure
    checks.number("penalty", penalty, 0.0)
    if (threshold is not None) != (kind == "morel"):
        wanted = "be given for morel" if kind == "morel" else "be None for mopo, which halts nowhere"
        raise ValueError(f"threshold must {wanted}, got {threshold}")
    if threshold is not None:
        checks.number("threshold", threshold, 0.0)
    _check(model, measure)

    def change(params: Params, beliefs: PyTree, actions: Array, outcome: Outcome) -> Outcome:
        u = uncertainty(model, params, beliefs, actions, measure, scale)
        if threshold is None:
            return outcome._replace(reward=outcome.reward - penalty * u)
        unknown = ~(u <= threshold)  # a NaN is unknown, too
        reward = jnp.where(unknown, jnp.asarray(-penalty, jnp.float32), outcome.reward)
        return outcome._replace(reward=reward, discount=jnp.where(unknown, 0.0, outcome.discount))

    def step_many(key: Key, params: Params, beliefs: PyTree, actions: Array) -> tuple[PyTree, Outcome]:
        following, outcome = model.step_many(key, params, beliefs, actions)
        return following, change(params, beliefs, actions, outcome)

    def step(key: Key, params: Params, belief: PyTree, action: Array) -> tuple[PyTree, Outcome]:
        following, outcome = model.step(key, params, belief, action)
        rows = jax.tree.map(lambda x: jnp.asarray(x)[None], (belief, action, outcome))
        return following, jax.tree.map(lambda x: x[0], change(params, *rows))

    def expect(params: Params, beliefs: PyTree, actions: Array) -> tuple[PyTree, Outcome]:
        following, outcome = model.expect(params, beliefs, actions)
        return following, change(params, beliefs, actions, outcome)

    return model._replace(step=step, step_many=step_many, expect=model.expect and expect)


def uncertainty(
    model: Model, params: Params, beliefs: PyTree, actions: Array, measure: str = "std", scale: Array | None = None
) -> Array:
    r"""How little a model knows of what follows, a number a row, ``float32[N]``, at least 0.

    With :math:`\mu_i, \sigma_i` the predictions of the elite members (one for a model that is no ensemble):

    * ``"std"``: :math:`\max_i \|\sigma_i(s, a)\|_2`, the reward's :math:`\sigma` included where it is learned (MOPO).
      Noise of the world counts, too.
    * ``"pairwise"``: :math:`\max_{i, j} \|\mu_i(s, a) - \mu_j(s, a)\|_2` of the next observations (MOReL).
    * ``"spread"``: :math:`\|\operatorname{std}_i \mu_i(s, a)\|_2` of the next observations.

    Args:
      model, params: a model with ``predict``.
      beliefs, actions: rows, ``[N, ...]``.
      measure: which.
      scale: what entries of the observation are divided by first, ``float32[D]``, above 0 (their standard deviation in
        the data, say, where their units differ); None: 1, as in the papers.

    Raises:
      ValueError: an unknown measure, or a model that predicts nothing or is no ensemble where one is needed.
    """
    _check(model, measure)
    said = _said(model, params, beliefs, actions)
    unit = 1.0 if scale is None else jnp.asarray(scale)
    if measure == "std":
        std = jnp.concatenate([said.std / unit, said.reward_std[..., None]], axis=-1)
        return jnp.max(_norm(std), axis=0)
    mean = said.mean / unit
    if measure == "spread":
        centred = mean - jnp.mean(mean, axis=0)
        # Both sums under one root: the slope of a standard deviation is infinite where the members agree.
        return _norm(jnp.swapaxes(centred, 0, 1).reshape(centred.shape[1], -1)) / jnp.sqrt(mean.shape[0])
    return jnp.max(_norm(mean[:, None] - mean[None, :]), axis=(0, 1))


def uncertainty_quantile(
    model: Model,
    params: Params,
    replay: data.Replay,
    quantile: float | Array = 1.0,
    measure: str = "pairwise",
    scale: Array | None = None,
) -> Array:
    """The uncertainty that so many of the rows seen do not exceed, a scalar: a threshold for MOReL.

    MOReL's code takes a fraction of the largest value; a quantile minds a single strange row less.

    Args:
      model, params: fitted to the rows; each observation is encoded on its own.
      replay: the rows, at least one valid.
      quantile: in ``[0, 1]``; 1 is the largest.
      measure, scale: as in ``uncertainty``.

    Raises:
      ValueError: a quantile outside its range, or what ``uncertainty`` refuses.
    """
    checks.number("quantile", quantile, 0.0, 1.0)
    _check(model, measure)
    rows, count = data.rows(replay)

    def one(row: tuple) -> Array:
        obs, action = row
        first = jnp.asarray(True)
        belief = model.encode(jax.random.key(0), params, model.initial(params), jnp.zeros_like(action), obs, first)
        beliefs, actions = jax.tree.map(lambda x: x[None], (belief, action))
        return uncertainty(model, params, beliefs, actions, measure, scale)[0]

    found = jax.lax.map(one, (rows.obs, rows.action), batch_size=BLOCK)
    return jnp.nanquantile(jnp.where(jnp.arange(len(found)) < count, found, jnp.nan), quantile)


def _said(model: Model, params: Params, beliefs: PyTree, actions: Array) -> Prediction:
    """Predictions ``[K, N, ...]`` of the elite members, or of the only one."""
    if model.members:
        return jax.tree.map(lambda x: x[params.stats.elites], members_predict(model, params, beliefs, actions))
    assert model.predict is not None  # _check refuses others
    said = jax.vmap(model.predict, in_axes=(None, 0, 0))(params, beliefs, actions)
    return jax.tree.map(lambda x: x[None], said)


def _check(model: Model, measure: str) -> None:
    checks.choice("measure", measure, MEASURES)
    if measure != "std" and not model.members:
        raise ValueError(f"measure {measure!r} needs an ensemble, whose members can disagree; got a single model")
    if (model.member if model.members else model).predict is None:
        raise ValueError("model must have predict to tell what it does not know, got one without")


def _norm(x: Array) -> Array:
    """Along the last axis, of slope 0 at 0 (where a deterministic model's noise always is)."""
    square = jnp.sum(x**2, axis=-1)
    positive = square > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0 * square)
