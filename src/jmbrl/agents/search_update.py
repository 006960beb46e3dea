"""What a searching agent learns from windows of searched rows: policy and value, and MuZero its model with them."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jmbrl import checks
from jmbrl.health import accept
from jmbrl.learners.policy_value import PolicyValue
from jmbrl.learners.search_targets import Targets, search_targets
from jmbrl.models.multistep import masked_mean, valid_rows
from jmbrl.models.value_equivalent import ValueEquivalent
from jmbrl.types import Array, Key, PyTree, Sequence


class Plan(NamedTuple):
    """What a search found where a row was acted on, kept beside the row.

    Attributes:
      searched: ``bool``; False for random actions, which tell nothing of the policy.
      weights: ``float32[K]``, the improved policy over the candidates.
      candidates: ``[K, A]``, or None for all of a discrete space.
      value: ``float32``, of the root.
    """

    searched: Array
    weights: Array
    candidates: Array | None
    value: Array


class Learned(NamedTuple):
    """``weights``: ``{"read": ...}`` of policy and value, and with a learned model ``"model"``."""

    weights: PyTree
    opt: PyTree


class SearchLearner(NamedTuple):
    """``init(key) -> Learned``; ``update(learned, batch: Sequence[B, T], plans: Plan[B, T]) -> (learned, info)``."""

    init: Callable
    update: Callable


def search_learner(
    reader: PolicyValue,
    see: Callable,
    model: ValueEquivalent | None = None,
    *,
    trunk_init: Callable = lambda key: (),
    unroll: int = 5,
    n_step: int = 5,
    gamma: float | Array = 0.997,
    players: int = 1,
    bootstrap: str = "search",
    value_scale: float | Array = 0.25,
    consistency_scale: float | Array = 2.0,
    learning_rate: float | Array = 3e-4,
    weight_decay: float | Array = 1e-4,
    max_grad_norm: float | Array = 10.0,
) -> SearchLearner:
    r"""The loss of MuZero, and for ``unroll = 0`` without a model that of AlphaZero:

    .. math:: L = \sum_{k=0}^{K} c_k \big( L_\pi(p_k, \pi_{t+k}) + c_v L_v(v_k, z_{t+k}) \big)
              + \frac1K \sum_{k=1}^{K} \big( \mathrm{CE}(r_k, r_{t+k}) + c_s L_s(s_k, o_{t+k}) \big)

    with :math:`c_0 = 1`, :math:`c_k = 1 / K`; each term is a mean over the windows that know it.

    Args:
      reader: policy and value. see: ``(weights, obs[..., *shape]) -> features[..., F]``, of the whole weights.
      model: what is unrolled; None: the reader alone learns.
      trunk_init: ``(key) -> weights["trunk"]``, where there is no model.
      unroll, n_step, gamma, players: as in ``learners.search_targets``.
      bootstrap: what ends a return: ``search``, the value that the search found when the row was acted on (the
        source's), or ``network``, what the newest weights say of the row, as old values hold new ones back.
      value_scale, consistency_scale: :math:`c_v, c_s`.
      learning_rate, weight_decay: of AdamW. max_grad_norm: of all gradients together.

    ``info``: ``policy_loss``, ``value_loss``, ``value`` (mean prediction), ``target`` (mean return), with a model
    ``reward_loss`` and perhaps ``consistency``, and the counters of ``health.accept``; an update with a number that is
    not finite changes nothing.

    Source: Schrittwieser et al. 2020 (arXiv 1911.08265), equation 1 and appendix G; Ye et al. 2021 (arXiv 2111.00210).
    """
    checks.choice("bootstrap", bootstrap, ("search", "network"))
    optimizer = optax.chain(
        optax.clip_by_global_norm(max_grad_norm), optax.adamw(learning_rate, weight_decay=weight_decay)
    )
    scale = jnp.asarray([1.0] + unroll * [1.0 / max(unroll, 1)])

    def init(key: Key) -> Learned:
        key_read, key_model = jax.random.split(key)
        weights = {"read": reader.init(key_read)}
        if model is None:
            weights["trunk"] = trunk_init(key_model)
        else:
            weights["model"] = model.model.init(key_model).weights
        return Learned(weights, optimizer.init(weights))

    def loss(weights: PyTree, batch: Sequence, plans: Plan, targets: Targets) -> tuple[Array, dict]:
        rows = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1)[: unroll + 1], batch.transition)
        plans = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1)[: unroll + 1], plans)
        if model is None:
            features = see(weights, rows.obs)
        else:
            path = model.unroll(weights["model"], rows.obs[0], rows.action[:unroll])
            features = path.latents
        thought = reader.read(weights["read"], features)
        taught = targets.alive & plans.searched
        over_rows = jax.vmap(masked_mean)
        policy = jnp.sum(scale * over_rows(reader.policy_loss(thought, plans.weights, plans.candidates), taught))
        value = jnp.sum(scale * over_rows(reader.value_loss(thought, targets.value), targets.known))
        total, info = policy + value_scale * value, {"policy_loss": policy, "value_loss": value}
        if model is not None:
            reward = jnp.mean(over_rows(model.reward_loss(path.rewards, targets.reward), targets.known[:-1]))
            total, info["reward_loss"] = total + reward, reward
            if model.consistency is not None:
                agreement = model.consistency(weights["model"], path.latents[1:], rows.obs[1:])
                agreement = jnp.mean(over_rows(agreement, targets.alive[1:]))
                total, info["consistency"] = total + consistency_scale * agreement, agreement
        info["value"] = masked_mean(reader.value(thought)[0], targets.alive[0])
        info["target"] = masked_mean(targets.value[0], targets.alive[0])
        return total, info

    def update(learned: Learned, batch: Sequence, plans: Plan) -> tuple[Learned, dict]:
        batch = valid_rows(batch)
        values = plans.value
        if bootstrap == "network":
            values = reader.value(reader.read(learned.weights["read"], see(learned.weights, batch.transition.obs)))
        targets = search_targets(batch, values, unroll, n_step, gamma, players)
        (total, info), grads = jax.value_and_grad(loss, has_aux=True)(learned.weights, batch, plans, targets)
        steps, opt = optimizer.update(grads, learned.opt, learned.weights)
        new = Learned(optax.apply_updates(learned.weights, steps), opt)
        learned, health = accept(new, learned, total, grads)
        return learned, info | health

    return SearchLearner(init, update)
