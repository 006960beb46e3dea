"""Optimism about what a model does not know: the planner chooses, within the ensemble's spread, what happens."""

import dataclasses

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.models.ensemble import members_predict
from jmbrl.types import Array, Continuous, Key, Model, Outcome, Params, Planner, PyTree, Spec


def hallucinated(model: Model, spec: Spec, beta: float | Array = 1.0) -> Model:
    r"""``model`` whose actions are ``[a, eta]``: besides the action, where in the spread of its members a step leads.

    .. math:: s' = \mu(s, a) + \beta\, \sigma_e(s, a) \odot \eta, \quad \eta \in [-1, 1]^D

    with :math:`\mu, \sigma_e` mean and standard deviation of the elite members' means. A plan through it is one for the
    most favourable world that the data allow. Reward, end and everything else are those of ``model`` for ``a``.

    Args:
      model: an ensemble whose belief is the observation, ``float32[D]``.
      spec: the environment's, with continuous actions.
      beta: how far to believe, at least 0.

    Raises:
      ValueError: no such ensemble, discrete actions or ``beta`` below 0.

    ``hallucinated_spec`` is what such plans are made for, ``hallucinated_planner`` returns their actions.

    Source: Curi, Berkenkamp & Krause 2020, H-UCRL (arXiv 2006.08684); Sukhija et al. 2023, OPAX (arXiv 2306.12371),
    equation 10.
    """
    checks.number("beta", beta, 0.0)
    width = checks.continuous("hallucinated", spec.action, "a sampled ensemble").dim
    if not model.members or model.member is None or model.member.predict is None:
        raise ValueError("model must be an ensemble whose members have predict, got a single model or one without")
    shape = jax.eval_shape(lambda key: model.initial(model.init(key)), jax.random.key(0))
    if not isinstance(shape, jax.ShapeDtypeStruct) or shape.shape != spec.obs_shape or len(shape.shape) != 1:
        raise ValueError(f"model must have the observation {spec.obs_shape} for its belief, got {shape}")

    def step_many(key: Key, params: Params, beliefs: Array, actions: Array) -> tuple[Array, Outcome]:
        action, eta = actions[:, :width], actions[:, width:]
        following, outcome = model.step_many(key, params, beliefs, action)
        mean = members_predict(model, params, beliefs, action).mean[params.stats.elites]
        hoped = jnp.mean(mean, axis=0) + beta * jnp.std(mean, axis=0) * eta
        return jnp.where(outcome.clipped[:, None], following, hoped), outcome

    def step(key: Key, params: Params, belief: Array, action: Array) -> tuple[PyTree, Outcome]:
        out = step_many(key, params, belief[None], action[None])
        return jax.tree.map(lambda x: x[0], out)

    return model._replace(step=step, step_many=step_many, expect=None, predict=None)


def hallucinated_spec(spec: Spec) -> Spec:
    """``spec`` with one more action in ``[-1, 1]`` for each entry of the observation."""
    action = checks.continuous("hallucinated", spec.action, "a sampled ensemble")
    entries = spec.obs_shape[0]
    wider = Continuous((*action.low, *(-1.0,) * entries), (*action.high, *(1.0,) * entries))
    return dataclasses.replace(spec, action=wider)


def hallucinated_planner(planner: Planner, spec: Spec) -> Planner:
    """``planner`` of the extended spec, its plans cut to the actions of ``spec``."""
    width = checks.continuous("hallucinated", spec.action, "a sampled ensemble").dim

    def plan(key: Key, plan_state: PyTree, objective) -> tuple[Array, PyTree, dict]:
        found, plan_state, info = planner.plan(key, plan_state, objective)
        return found[:, :width], plan_state, info

    return planner._replace(plan=plan)
