"""Imagination that is paid for what the model does not know yet: exploration as a wrapper around any ensemble."""

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.models.ensemble import members_predict
from jmbrl.types import Array, Key, Model, Outcome, Params, PyTree

KINDS = ("disagreement", "information_gain")


def curious(
    model: Model,
    kind: str = "disagreement",
    *,
    intrinsic: float | Array = 1.0,
    extrinsic: float | Array = 0.0,
    scale: Array | None = None,
    noise: float | Array = 1e-3,
) -> Model:
    r"""``model`` whose imagined reward is :math:`w_i\, u(s, a) + w_e\, r`, with :math:`u` the ``novelty`` of a step.

    A planner, a policy in its imagination or a learner on imagined rows then explores and need not know it. With
    ``extrinsic=0`` no reward is used at all; above it, what is unknown is a bonus. Imagined beliefs and ends, what is
    trained, ``predict`` and ``member`` stay as they are. An imagined row costs a prediction of every member more.

    Args:
      model: an ensemble of members with ``predict``.
      kind: of ``novelty``.
      intrinsic, extrinsic: :math:`w_i, w_e`. May be traced.
      scale, noise: as for ``novelty``.

    Raises:
      ValueError: a weight that is not finite, or what ``novelty`` refuses.

    Source: Pathak et al. 2019 (arXiv 1906.04161) and Sekar et al. 2020, Plan2Explore (arXiv 2005.05960) for
    disagreement; Sukhija et al. 2023, OPAX (arXiv 2306.12371), equation 9, for the information gain.
    """
    _check(model, kind, noise)
    checks.number("intrinsic", intrinsic)
    checks.number("extrinsic", extrinsic)

    def change(params: Params, beliefs: PyTree, actions: Array, outcome: Outcome) -> Outcome:
        u = novelty(model, params, beliefs, actions, kind, scale=scale, noise=noise)
        return outcome._replace(reward=intrinsic * u + extrinsic * outcome.reward)

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


def novelty(
    model: Model,
    params: Params,
    beliefs: PyTree,
    actions: Array,
    kind: str = "disagreement",
    *,
    scale: Array | None = None,
    noise: float | Array = 1e-3,
) -> Array:
    r"""What there is to learn from a step, a number a row, ``float32[N]``, at least 0.

    With :math:`\mu_i, \sigma_i` the elite members' predictions of the next observation and
    :math:`\sigma_e^2 = \operatorname{var}_i \mu_i`:

    * ``"disagreement"``: :math:`\operatorname{mean}_j \sigma_{e,j}^2`, in squared units of the observation.
    * ``"information_gain"``: :math:`\sum_j \log (1 + \sigma_{e,j}^2 / \sigma_{a,j}^2)` with
      :math:`\sigma_{a,j}^2 = \operatorname{mean}_i \sigma_{i,j}^2`, the noise that more data cannot take away. It needs
      no units, and does not mistake a noisy world for an unknown one.

    Args:
      model, params: an ensemble of members with ``predict``.
      beliefs, actions: rows, ``[N, ...]``.
      kind: which.
      scale: what entries of the observation are divided by first, ``float32[D]``, above 0; None: 1.
      noise: least :math:`\sigma_{a,j}`, in units of ``scale``, above 0: what a deterministic member has.

    Raises:
      ValueError: an unknown kind, ``noise`` not above 0, or a model that is no ensemble or predicts nothing.
    """
    _check(model, kind, noise)
    said = jax.tree.map(lambda x: x[params.stats.elites], members_predict(model, params, beliefs, actions))
    unit = 1.0 if scale is None else jnp.asarray(scale)
    unknown = jnp.var(said.mean / unit, axis=0)
    if kind == "disagreement":
        return jnp.mean(unknown, axis=-1)
    known = jnp.maximum(jnp.mean((said.std / unit) ** 2, axis=0), noise**2)
    return jnp.sum(jnp.log1p(unknown / known), axis=-1)


def _check(model: Model, kind: str, noise: float | Array) -> None:
    checks.choice("kind", kind, KINDS)
    checks.number("noise", noise, 1e-12)
    if not model.members or model.member is None or model.member.predict is None:
        raise ValueError(
            "model must be an ensemble whose members have predict, so that they can disagree; got a single model or "
            "one that predicts nothing (models.ensemble makes one; models.latent_curiosity is for latent models)"
        )
