"""A model whose predictive spread is corrected by a map learned from held-out data."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl.models.rewards import with_reward, with_termination
from jmbrl.types import Array, Key, Model, Outcome, Params, Prediction, PyTree


class Recalibration(NamedTuple):
    """A monotone map ``g_d`` of standard scores per entry of the observation; made by ``diagnostics.recalibrate``.

    Attributes:
      knots: ``float32[K]``, scores, rising.
      values: ``float32[K, D]``, what becomes of them; straight lines between and beyond.
      mean, std: ``float32[D]``, of ``g_d(Z)`` for a standard normal ``Z``; ``std`` is the factor on the spread.
    """

    knots: Array
    values: Array
    mean: Array
    std: Array


def recalibrated(
    model: Model, mapping: Recalibration, reward: Callable | None = None, termination: Callable | None = None
) -> Model:
    r"""``model`` with every sampled next observation moved by the map, and its prediction with it.

    .. math:: o' \leftarrow \mu + \sigma \, g\!\left(\frac{o' - \mu}{\sigma}\right)

    with the prediction's :math:`\mu, \sigma` (of an ensemble: of the mixture, so that the members' disagreement is
    stretched along with their noise). ``predict`` has the mean :math:`\mu + \sigma E[g]` and the standard deviation
    :math:`\sigma` times ``mapping.std``; ``expect`` moves by :math:`\sigma E[g]`. Rows that were pulled back into the
    data's range stay as they are, as do entries of :math:`\sigma = 0`.

    Limits: one map for all observations and actions; entries of an observation are mapped one by one; imagining costs
    one ``predict`` a row more (of an ensemble: every member). A reward or an end that is computed from the next
    observation must be given again here, as ``model`` computed it before the map; learned heads are left alone.
    ``member``, and what is trained, is unchanged: fit first, then learn the map.

    Args:
      model: its belief is the observation, a vector, and it has ``predict``.
      mapping: of ``diagnostics.recalibrate``, for observations of the same length.
      reward, termination: as given to ``model``, ``(obs, action, next_obs) -> ...``; None where they are learned.

    Raises:
      ValueError: a model without ``predict``, or a belief that is not a vector of the map's length.

    Source: Kuleshov, Fenner, Ermon 2018 (arXiv 1807.00263); Malik et al. 2019 (arXiv 1906.08312).
    """
    if model.predict is None:
        raise ValueError("recalibrated needs a model with predict, got one without")
    predict_rows = jax.vmap(model.predict, in_axes=(None, 0, 0))

    def move(params: Params, before: PyTree, actions: Array, after: Array, outcome: Outcome, g: Callable) -> Array:
        dim = mapping.std.shape[0]
        if not isinstance(before, jax.Array) or before.shape[1:] != (dim,):
            got = jax.tree.map(jnp.shape, before)
            raise ValueError(f"recalibrated needs a belief that is the observation, float32[N, {dim}], got {got}")
        said = predict_rows(params, before, actions)
        known = (said.std > 0) & ~outcome.clipped[:, None]
        std = jnp.where(said.std > 0, said.std, 1.0)
        return jnp.where(known, g(after, said.mean, std), after)

    def mapped(after: Array, mean: Array, std: Array) -> Array:
        return mean + std * apply_recalibration(mapping, (after - mean) / std)

    def shifted(after: Array, mean: Array, std: Array) -> Array:
        return after + std * mapping.mean

    def step_many(key: Key, params: Params, beliefs: PyTree, actions: Array) -> tuple[PyTree, Outcome]:
        following, outcome = model.step_many(key, params, beliefs, actions)
        return move(params, beliefs, actions, following, outcome, mapped), outcome

    def step(key: Key, params: Params, belief: PyTree, action: Array) -> tuple[PyTree, Outcome]:
        following, outcome = model.step(key, params, belief, action)
        row = (belief, action, following, outcome)
        before, actions, after, rest = jax.tree.map(lambda x: jnp.asarray(x)[None], row)
        return move(params, before, actions, after, rest, mapped)[0], outcome

    def expect(params: Params, beliefs: PyTree, actions: Array) -> tuple[PyTree, Outcome]:
        following, outcome = model.expect(params, beliefs, actions)
        return move(params, beliefs, actions, following, outcome, shifted), outcome

    def predict(params: Params, belief: PyTree, action: Array) -> Prediction:
        said = model.predict(params, belief, action)
        return said._replace(mean=said.mean + said.std * mapping.mean, std=said.std * mapping.std)

    out = model._replace(step=step, step_many=step_many, predict=predict, expect=model.expect and expect)
    out = out if reward is None else with_reward(out, reward)
    out = out if termination is None else with_termination(out, termination)
    return out._replace(member=model.member)


def apply_recalibration(mapping: Recalibration, scores: Array) -> Array:
    """``g_d`` of scores ``[N, D]``."""
    one = lambda z, values: jnp.interp(z, mapping.knots, values, left="extrapolate", right="extrapolate")  # noqa: E731
    return jax.vmap(one, in_axes=(1, 1), out_axes=1)(scores, mapping.values)
