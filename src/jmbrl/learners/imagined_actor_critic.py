"""The actor and the critic that learn from imagination: Dreamer v1, v2 and v3, their differences as options.

A ``behaviour`` sees a model only as a function of beliefs and actions, and owns no optimiser: its losses join the
model's in one sum, whose parts touch no weights but their own.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.learners import return_scale
from jmbrl.learners.actor_network import Actions, actor_network, entropy_of
from jmbrl.learners.lambda_returns import lambda_returns
from jmbrl.learners.return_scale import ReturnScale
from jmbrl.networks import scalar_head
from jmbrl.rollout import discounts, imagine
from jmbrl.types import ActionSpace, Array, Continuous, Key, Outcome, PyTree, Trajectory


class BehaviourMemory(NamedTuple):
    """What is kept beside the weights.

    ``slow``: the critic's weights as they were, ``()`` where none are needed. ``scale``: of returns. ``updates``:
    ``int32``, done so far.
    """

    slow: PyTree
    scale: ReturnScale
    updates: Array


class Imagined(NamedTuple):
    """What imagination tells of the real beliefs it began at.

    ``returns``: ``float32[N]``, of the whole path. ``scale``: of returns, these included.
    """

    returns: Array
    scale: ReturnScale


class Behaviour(NamedTuple):
    """An actor and a critic on features.

    Attributes:
      init: ``(key) -> weights {"actor", "critic"}``.
      remember: ``(weights) -> BehaviourMemory`` at the start.
      act: ``(key, weights, features[F], explore) -> action``.
      value: ``(weights, features[..., F]) -> float32[...]``.
      losses: ``(key, weights, memory, step_many, look, beliefs[N], alive[N]) -> (losses, Imagined, info)``.
      replayed: ``(weights, memory, features[B, F, D], frames, start[B, F]) -> loss``: the critic on real rewards.
      settle: ``(memory, weights, imagined) -> memory`` after an update.
      gamma, lam, horizon, reward_scale: as it was made with.
    """

    init: Callable
    remember: Callable
    act: Callable
    value: Callable
    losses: Callable
    replayed: Callable
    settle: Callable
    gamma: float | Array
    lam: float | Array
    horizon: int
    reward_scale: float | Array


def behaviour(
    action: ActionSpace,
    features: int,
    *,
    policy: str = "bounded_normal",
    layers: int = 3,
    critic_layers: int | None = None,
    units: int = 256,
    norm: str = "rms",
    activation: Callable[[Array], Array] = jax.nn.silu,
    actor_scale: float = 0.01,
    draws: bool = False,
    critic: str = "two_hot",
    horizon: int = 15,
    gamma: float | Array = 1 - 1 / 333,
    lam: float | Array = 0.95,
    dynamics: float = 0.0,
    entropy: float | Array = 3e-4,
    normalise: bool = True,
    slow_rate: float = 0.02,
    slow_every: int = 1,
    slow_target: bool = False,
    slow_weight: float = 1.0,
    reward_scale: float | Array = 1.0,
) -> Behaviour:
    r"""An actor and a critic taught by imagined trajectories of ``horizon`` steps from real beliefs.

    .. math:: R_t &= r_t + \gamma c_t [(1 - \lambda) v(s_{t+1}) + \lambda R_{t+1}], \quad R_{H-1} = r_{H-1} + \gamma
                     c_{H-1} v(s_H) \\
              L_\pi &= -\sum_t w_t \left[ (1 - \rho) \log \pi(a_t \mid s_t)\, \mathrm{sg}\frac{R_t - v(s_t)}{S}
                     + \rho \frac{R_t}{S} + \eta H[\pi(\cdot \mid s_t)] \right], \quad
              L_v = -\sum_t w_t \log p(v = \mathrm{sg}(R_t) \mid s_t)

    as means, :math:`w_t = \prod_{k<t} \gamma c_k` and 0 from a state where the world has ended. Rewards and
    continuations :math:`r_t, c_t` belong to :math:`(s_t, a_t)`. Derivatives reach neither the model nor the beliefs
    that imagination starts from.

    Args:
      action: any. features: entries of what actor and critic read.
      policy: of continuous actions, one of ``actor_network``'s.
      layers, units, norm, activation: of the networks; ``critic_layers`` where the critic has others.
      actor_scale: of the actor's last layer at the start.
      draws: act by a draw without exploration too (v3); otherwise by the policy's mode.
      critic: ``"two_hot"`` or ``"normal"``, as in ``networks.scalar_head``.
      horizon: imagined steps. gamma, lam: discount and trace, in ``[0, 1]``.
      dynamics: :math:`\rho`, the share of the derivative through the model, in ``[0, 1]``; 0 is REINFORCE. Discrete
        actions have no such derivative.
      entropy: :math:`\eta`.
      normalise: divide by ``S``, the running range of returns (5th to 95th percentile), at least 1; else ``S = 1``.
      slow_rate, slow_every: the slow critic moves so far towards the critic every so many updates (v2: 1, 100).
      slow_target: the slow critic gives ``v`` in the returns (v2); otherwise the critic does.
      slow_weight: of a second critic loss, towards the slow critic's values (v3).
      reward_scale: imagined and replayed rewards are multiplied by it before anything else.

    Raises:
      ValueError: a size or share outside its range; ``dynamics`` above 0 with discrete actions.

    Source: Hafner et al. 2020 (arXiv 1912.01603) equation 6 to 8, 2021 (2010.02193) equations 4 to 6, 2023
    (2301.04104) equations 5 to 7, and their released code.
    """
    continuous = isinstance(action, Continuous)
    horizon, slow_every = checks.integer("horizon", horizon, 1), checks.integer("slow_every", slow_every, 1)
    for name, x in (("gamma", gamma), ("lam", lam), ("dynamics", dynamics), ("slow_rate", slow_rate)):
        checks.number(name, x, 0.0, 1.0)
    if dynamics > 0 and not continuous:
        raise ValueError(
            f"dynamics must be 0 for discrete actions, which have no derivative, got {dynamics}; "
            "of the Dreamers v2 and v3 take them"
        )
    needs_slow = slow_target or slow_weight > 0
    body = {"units": units, "norm": norm, "activation": activation}
    network = actor_network(action, features, policy=policy, layers=layers, scale=actor_scale, **body)
    critic_head = scalar_head(features, kind=critic, layers=critic_layers or layers, **body)
    sg = jax.lax.stop_gradient

    def init(key: Key) -> PyTree:
        key_actor, key_critic = jax.random.split(key)
        return {"actor": network.init(key_actor), "critic": critic_head.init(key_critic)}

    def remember(weights: PyTree) -> BehaviourMemory:
        slow = jax.tree.map(jnp.copy, weights["critic"]) if needs_slow else ()
        return BehaviourMemory(slow, return_scale.none_seen(), jnp.zeros((), jnp.int32))

    def actor(weights: PyTree, x: Array) -> Actions:
        return network.distribution(weights["actor"], x)

    def act(key: Key, weights: PyTree, x: Array, explore: bool) -> Array:
        pi = actor(weights, x)
        chosen = pi.sample(key) if explore or draws else pi.mode()
        return jnp.clip(chosen, -1.0, 1.0) if continuous else chosen.astype(jnp.int32)

    def value(weights: PyTree, x: Array) -> Array:
        return critic_head.predict(weights["critic"], x).mean()

    def slowly(memory: BehaviourMemory, x: Array) -> Array:
        """The slow critic's values; nothing where there is none."""
        return critic_head.predict(memory.slow, x).mean() if needs_slow else jnp.zeros(x.shape[:-1])

    def critic_loss(predicted: PyTree, target: Array, slow: Array) -> Array:
        loss = -predicted.log_prob(sg(target))
        return loss - slow_weight * predicted.log_prob(sg(slow)) if slow_weight > 0 else loss

    def dream(key: Key, weights: PyTree, step_many: Callable, look: Callable, beliefs: PyTree) -> tuple:
        """Imagined beliefs' features ``[H + 1, N, F]``, actions ``[H, N]`` and outcomes."""
        acting = weights if dynamics > 0 else sg(weights)

        def choose(key: Key, beliefs: PyTree, t: Array) -> tuple[Array, tuple]:
            return actor(acting, sg(look(beliefs))).sample(key), ()

        def stepped(key: Key, beliefs: PyTree, actions: Array) -> tuple[PyTree, Outcome]:
            return step_many(key, beliefs, jnp.clip(actions, -1.0, 1.0) if policy == "bounded_normal" else actions)

        last, path = imagine(key, stepped if continuous else step_many, sg(beliefs), choose, horizon)
        seen: Trajectory = path if dynamics > 0 else sg(path)
        x = jnp.concatenate([look(seen.belief), look(last)[None]])
        return x if dynamics > 0 else sg(x), seen.action, seen.outcome

    def losses(
        key: Key,
        weights: PyTree,
        memory: BehaviourMemory,
        step_many: Callable,
        look: Callable,
        beliefs: PyTree,
        alive: Array,
    ) -> tuple[dict[str, Array], Imagined, dict[str, Array]]:
        x, actions, outcome = dream(key, weights, step_many, look, beliefs)
        predicted, slow = critic_head.predict(weights["critic"], sg(x)), slowly(memory, x)
        if slow_target:
            values = slow
        elif dynamics > 0:  # a derivative by what is judged, none by the judge
            values = value(sg(weights), x)
        else:
            values = sg(predicted.mean())
        reward, discount = reward_scale * outcome.reward, gamma * outcome.discount
        returns = lambda_returns(reward, discount, values[1:], lam)
        weight = sg(discounts(outcome, gamma) * alive)
        # The scale that these returns lead to is the one they are divided by.
        scale = return_scale.observe(memory.scale, sg(returns))
        divisor = return_scale.scale(scale) if normalise else jnp.ones(())
        pi = actor(weights, sg(x[:-1]))
        advantage = sg((returns - values[:-1]) / divisor)
        pay = jnp.zeros(())
        if dynamics < 1:
            pay = pay + (1 - dynamics) * pi.log_prob(sg(actions)) * advantage
        if dynamics > 0:
            pay = pay + dynamics * returns / divisor
        spread = entropy_of(pi)
        padded = jnp.concatenate([returns, jnp.zeros_like(returns[:1])])  # the critic is asked once, of all H + 1 rows
        found = {
            "actor": -jnp.mean(weight * (pay + entropy * spread)),
            "critic": jnp.mean(weight * critic_loss(predicted, padded, slow)[:-1]),
        }
        info = {
            "imagined_return": jnp.mean(returns),
            "imagined_reward": jnp.mean(outcome.reward),
            "value": jnp.mean(values),
            "entropy": jnp.mean(spread),
            "return_range": return_scale.scale(scale),
            "advantage_size": jnp.mean(jnp.abs(advantage)),
        }
        return found, Imagined(sg(returns[0]), scale), sg(info)

    def replayed(weights: PyTree, memory: BehaviourMemory, x: Array, frames: PyTree, start: Array) -> Array:
        r"""The critic on real rewards, ``R_t`` bootstrapped by what imagination thinks of each frame.

        A frame whose successor is another episode's first teaches nothing; the trace is cut before an episode's last
        frame. Derivatives reach the features.
        """
        follows = ~frames.is_first[:, 1:] & frames.mask[:, 1:] & frames.mask[:, :-1]
        last = jnp.concatenate([~follows[:, 1:], jnp.zeros_like(follows[:, :1])], axis=1)
        discount = gamma * (1.0 - frames.terminated[:, 1:])
        by_time = lambda x: jnp.swapaxes(x, 0, 1)  # noqa: E731
        reward = reward_scale * frames.reward[:, 1:]
        returns = by_time(
            lambda_returns(by_time(reward), by_time(discount), by_time(start[:, 1:]), lam * (1.0 - by_time(last)))
        )
        x = x[:, :-1]
        loss = critic_loss(critic_head.predict(weights["critic"], x), returns, slowly(memory, sg(x)))
        return jnp.sum(jnp.where(follows, loss, 0.0)) / follows.size

    def settle(memory: BehaviourMemory, weights: PyTree, imagined: Imagined) -> BehaviourMemory:
        updates = memory.updates + 1
        slow = memory.slow
        if needs_slow:
            rate = jnp.where(updates % slow_every == 0, slow_rate, 0.0)
            slow = jax.tree.map(lambda a, b: a + rate * (b - a), slow, weights["critic"])
        return BehaviourMemory(slow, imagined.scale, updates)

    return Behaviour(init, remember, act, value, losses, replayed, settle, gamma, lam, horizon, reward_scale)
