"""Recurrent PPO: a policy and a value that remember what was seen, for worlds that do not show everything."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.learners.policies import ActorCritic, policy, value_net
from jmbrl.learners.ppo import PPOState, improvement
from jmbrl.networks import Categorical, ClippedNormal, gru, gru_gates, init_gru
from jmbrl.types import ActionSpace, Array, Continuous, Key, PyTree, Transition

Memories = tuple[Array, Array]  # the policy's and the value's, float32[..., memory] each


class Past(NamedTuple):
    """What came before an observation: ``memory`` and ``action``, of no meaning where ``is_first``."""

    memory: Memories
    action: Array
    is_first: Array


class RecurrentLearner(NamedTuple):
    """A learner of paths whose policy has a memory.

    Attributes:
      init: ``(key) -> state``.
      initial: ``() -> memory``, before anything was seen.
      encode: ``(state, past, x[F]) -> memory``: filter one observation in.
      act: ``(key, state, memory, x[F], explore) -> (action, log_prob)``, of the memory after ``x``.
      update: ``(key, state, data[T, B], mask[T, B], past[T, B]) -> (state, info)``.
    """

    init: Callable
    initial: Callable
    encode: Callable
    act: Callable
    update: Callable


def recurrent_actor_critic(
    action: ActionSpace,
    features: int,
    *,
    memory: int = 64,
    length: int | None = None,
    hidden: Sequence[int] = (64, 64),
    activation: Callable[[Array], Array] = jnp.tanh,
    initial_std: float | Array = 1.0,
) -> tuple[ActorCritic, Callable]:
    """The networks of ``recurrent_ppo``, and ``remember(unit, memory[..., M], past[...], x[..., F]) -> memory``.

    The pieces that minibatches are drawn from are segments ``[length, T / length * B, ...]``.
    """
    sizes = action.dim if isinstance(action, Continuous) else action.n
    width = memory + features
    pi = policy(action, width, hidden=hidden, activation=activation, initial_std=initial_std)
    net = value_net(hidden, activation)

    def init(key: Key) -> tuple[PyTree, PyTree]:
        *units, key_policy, key_value = jax.random.split(key, 4)
        heads = pi.init(key_policy), net.init(key_value, jnp.zeros(width))
        both = [
            {"unit": init_gru(k, features + sizes, memory), "head": head} for k, head in zip(units, heads, strict=True)
        ]
        return both[0], both[1]

    def gates(unit: PyTree, past: Past, x: Array) -> Array:
        acted = past.action if isinstance(action, Continuous) else jax.nn.one_hot(past.action, sizes)
        acted = jnp.where(past.is_first[..., None], 0.0, acted)
        return gru_gates(unit["input"], jnp.concatenate([x, acted], axis=-1))

    def recur(unit: PyTree, memory: Array, is_first: Array, gates: Array) -> Array:
        return gru(unit["recurrent"], jnp.where(is_first[..., None], 0.0, memory), gates)

    def remember(unit: PyTree, memory: Array, past: Past, x: Array) -> Array:
        return recur(unit, memory, past.is_first, gates(unit, past, x))

    def filtered(unit: PyTree, start: Array, past: Past, x: Array) -> Array:
        """The memory after each observation of a segment ``x[L, N, F]`` that begins with the memory ``start[N, M]``."""

        def body(memory: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
            after = recur(unit, memory, *row)
            return after, after

        return jax.lax.scan(body, start, (past.is_first, gates(unit, past, x)))[1]

    def distribution(weights: PyTree, memory: Array, x: Array) -> ClippedNormal | Categorical:
        return pi.distribution(weights["head"], jnp.concatenate([memory, x], axis=-1))

    def value_of(weights: PyTree, memory: Array, x: Array) -> Array:
        return cast(Array, net.apply(weights["head"], jnp.concatenate([memory, x], axis=-1)))[..., 0]

    def act(key: Key, weights: PyTree, x: Array, explore: bool) -> tuple[Array, Array]:
        return pi.act(key, weights["head"], x, explore)

    def judge(weights: tuple[PyTree, PyTree], rows: Transition, past: Past) -> tuple[Array, Array, Array]:
        """Every row by one step from the memory it began with, and another to the true successor."""
        actor, critic = weights
        first = remember(actor["unit"], past.memory[0], past, rows.obs)
        second = remember(critic["unit"], past.memory[1], past, rows.obs)
        then = Past((first, second), rows.action, jnp.zeros_like(past.is_first))
        after = remember(critic["unit"], second, then, rows.next_obs)
        log_prob = distribution(actor, first, rows.obs).log_prob(rows.action)
        return log_prob, value_of(critic, second, rows.obs), value_of(critic, after, rows.next_obs)

    def pieces(tree: PyTree) -> PyTree:
        def cut(x: Array) -> Array:
            time, batch, *rest = x.shape
            each = time if length is None else length
            if time % each:
                raise ValueError(f"length must divide the {time} steps of each environment in a batch, got {each}")
            x = x.reshape(time // each, each, batch, *rest)
            return jnp.moveaxis(x, 1, 0).reshape(each, -1, *rest)

        return jax.tree.map(cut, tree)

    def read(weights: tuple[PyTree, PyTree], obs: Array, past: Past) -> tuple[ClippedNormal | Categorical, Array]:
        own, other = (filtered(w["unit"], m[0], past, obs) for w, m in zip(weights, past.memory, strict=True))
        return distribution(weights[0], own, obs), value_of(weights[1], other, obs)

    return ActorCritic(init, act, judge, pieces, 1, read), remember


def recurrent_ppo(
    action: ActionSpace,
    features: int,
    *,
    memory: int = 64,
    length: int | None = None,
    hidden: Sequence[int] = (64, 64),
    activation: Callable[[Array], Array] = jnp.tanh,
    initial_std: float | Array = 1.0,
    **settings: Any,
) -> RecurrentLearner:
    r"""PPO whose policy and value read a gated recurrent unit each.

    .. math:: m_t = \mathrm{GRU}(m_{t-1}, [x_t, a_{t-1}]), \qquad \pi(a | m_t, x_t), \quad V(m_t, x_t),
              \qquad m_{-1} = 0,\ a_{-1} = 0

    A minibatch is a number of whole segments of ``length`` steps. Each begins with the memory that its first row began
    with when it was acted on (with the weights of then), and the gradient runs through time to that row. Advantages,
    the clipped objective and the rest are ``ppo``'s.

    Args:
      action: any space.
      features: ``F``, the width of an observation.
      memory: entries of each memory.
      length: steps in a segment, a divisor of the steps that each environment gives to a batch; None: all of them.
      hidden: of the networks that read the memories.
      activation, initial_std, settings: as in ``ppo``; ``minibatches`` are of segments.

    Returns:
      A ``RecurrentLearner`` with state ``PPOState``, whose ``policy`` and ``value`` hold a ``unit`` and a ``head``
      each; ``info`` as ``ppo``'s.

    Raises:
      ValueError: a number outside its range; a ``length`` that does not divide; fewer segments than minibatches.

    Source: Ni, Eysenbach & Salakhutdinov 2022 (arXiv 2110.05038): units that the policy and the value do not share,
    and heads that see the observation beside the memory; Kapturowski et al. 2019 (R2D2) for stored memories.
    """
    features = checks.integer("features", features, 1)
    memory = checks.integer("memory", memory, 1)
    length = None if length is None else checks.integer("length", length, 1)
    hidden = tuple(checks.integer("hidden", width, 1) for width in hidden)
    checks.number("initial_std", initial_std, 1e-3)
    net, remember = recurrent_actor_critic(
        action, features, memory=memory, length=length, hidden=hidden, activation=activation, initial_std=initial_std
    )
    init, update = improvement(net, features, **settings)

    def initial() -> Memories:
        return jnp.zeros(memory), jnp.zeros(memory)

    def encode(state: PPOState, past: Past, x: Array) -> Memories:
        first, second = (
            remember(w["unit"], m, past, x) for w, m in zip((state.policy, state.value), past.memory, strict=True)
        )
        return first, second

    def act(key: Key, state: PPOState, memories: Memories, x: Array, explore: bool) -> tuple[Array, Array]:
        checks.same_shape("features", jnp.shape(x)[-1:], (features,), "recurrent_ppo")
        return net.act(key, state.policy, jnp.concatenate([memories[0], x], axis=-1), explore)

    return RecurrentLearner(init, initial, encode, act, update)
