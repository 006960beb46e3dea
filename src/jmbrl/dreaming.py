"""What a model makes of an episode: it sees and draws again, imagines, and is played like a world of its own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.rollout import no_action, over_envs, tile
from jmbrl.types import Agent, Array, Env, Key, Model, Params, PyTree


class Dream(NamedTuple):
    """Frames and what led from one to the next.

    Attributes:
      frames: ``[T + 1, ...]`` decoded beliefs, the one it began with first.
      actions: ``[T, ...]``, the library's.
      rewards: ``float32[T]``.
      discounts: ``float32[T]``, 0 where the dream is over; frames after that mean nothing.
    """

    frames: PyTree
    actions: Array
    rewards: Array
    discounts: Array


def play(key: Key, model: Model, params: Params, belief: PyTree, actions: Array) -> Dream:
    r"""The dream under given actions: pure, for ``jax.jit(play, static_argnums=1)`` and ``vmap`` over keys or actions.

    .. math:: b_{t+1}, r_t, d_t = f(b_t, a_t), \qquad \hat o_t = \operatorname{decode}(b_t)

    Args:
      key: consumed.
      model, params: the dream.
      belief: where it begins, one row: ``model.initial(params)``, or what ``filtered`` returns.
      actions: ``[T, ...]``, the library's: ``int32``, or ``float32`` in ``[-1, 1]``.

    Raises:
      ValueError: no actions.
    """
    actions = jnp.asarray(actions)
    steps = checks.integer("number of actions", actions.shape[0] if actions.ndim else 0, 1)
    return dream(key, model, params, belief, lambda key, carry, obs, t: (actions[t], carry), (), steps)


def dream(key: Key, model: Model, params: Params, belief: PyTree, act: Callable, carry: PyTree, steps: int) -> Dream:
    """The dream under a policy, which is shown the decoded frames as if they were real.

    Args:
      key: consumed.
      model, params: the dream.
      belief: where it begins, one row.
      act: ``(key, carry, obs, t) -> (action, carry)``, ``t`` from 0.
      carry: what ``act`` remembers at first.
      steps: ``T``, at least 1.

    Raises:
      ValueError: ``steps`` below 1.
    """
    steps = checks.integer("steps", steps, 1)

    def body(now: tuple, inputs: tuple) -> tuple[tuple, tuple]:
        belief, frame, carry = now
        key, t = inputs
        key_act, key_step = jax.random.split(key)
        action, carry = act(key_act, carry, frame, t)
        belief, outcome = model.step(key_step, params, belief, action)
        frame = model.decode(params, belief)
        return (belief, frame, carry), (frame, action, outcome.reward, outcome.discount)

    belief = jax.tree.map(jnp.asarray, belief)
    first = model.decode(params, belief)
    inputs = jax.random.split(key, steps), jnp.arange(steps)
    _, (frames, *rest) = jax.lax.scan(body, (belief, first, carry), inputs)
    return Dream(_prepend(first, frames), *rest)


def filtered(key: Key, model: Model, params: Params, observations: PyTree, actions: Array) -> PyTree:
    """Beliefs ``[T + 1, ...]`` of an episode's ``observations[T + 1, ...]`` under ``actions[T, ...]``, each with its
    observation seen. A dream may go on from any of them."""
    key, key_first = jax.random.split(key)
    start = jax.tree.map(jnp.asarray, model.initial(params))
    first, later = jax.tree.map(lambda x: x[0], observations), jax.tree.map(lambda x: x[1:], observations)
    nothing = jnp.zeros(actions.shape[1:], actions.dtype)
    belief = model.encode(key_first, params, start, nothing, first, jnp.asarray(True))

    def body(belief: PyTree, inputs: tuple) -> tuple[PyTree, PyTree]:
        key, action, obs = inputs
        belief = model.encode(key, params, belief, action, obs, jnp.asarray(False))
        return belief, belief

    _, beliefs = jax.lax.scan(body, belief, (jax.random.split(key, actions.shape[0]), actions, later))
    return _prepend(belief, beliefs)


def reconstruct(model: Model, params: Params, beliefs: PyTree) -> PyTree:
    """What beliefs ``[T, ...]`` look like, ``[T, ...]``: of ``filtered``'s, an episode as the model sees it."""
    return jax.lax.map(lambda belief: model.decode(params, belief), beliefs)


def imagine_along(
    key: Key, model: Model, params: Params, beliefs: PyTree, actions: Array, horizon: int, context: int
) -> PyTree:
    """The model's account of an episode under the same actions, looking at it only now and then.

    Args:
      key: consumed.
      model, params: what imagines.
      beliefs: ``[T + 1, ...]`` of the episode, from ``filtered``.
      actions: ``[T, ...]``, at least one.
      horizon: steps imagined from one of the beliefs before the model looks again.
      context: observations that it sees first, one after another; at least 1.

    Returns:
      Frames ``[T + 1, ...]``; ``ages`` says how many steps each is ahead of what the model has seen. The first is seen.

    Raises:
      ValueError: ``horizon`` or ``context`` below 1.
    """
    looks = looked(actions.shape[0], horizon, context)
    first, later = jax.tree.map(lambda x: x[0], beliefs), jax.tree.map(lambda x: x[1:], beliefs)

    def body(belief: PyTree, inputs: tuple) -> tuple[PyTree, PyTree]:
        key, action, seen, looks = inputs
        belief, _ = model.step(key, params, belief, action)
        frame = model.decode(params, belief)
        return jax.tree.map(lambda real, own: jnp.where(looks, real, own), seen, belief), frame

    _, frames = jax.lax.scan(body, first, (jax.random.split(key, actions.shape[0]), actions, later, looks[1:]))
    return _prepend(model.decode(params, first), frames)


def looked(steps: int, horizon: int, context: int) -> Array:
    """At which of the times ``0 .. steps`` ``imagine_along`` sees the real observation, ``bool[steps + 1]``."""
    checks.integer("horizon", horizon, low=1)
    checks.integer("context", context, low=1)
    t = jnp.arange(steps + 1)
    return (t < context) | (t % horizon == 0)


def ages(looks: Array) -> Array:
    """Steps since the last look before each time, ``int32[T + 1]``; 0 at first.

    >>> ages(looked(5, horizon=3, context=2)).tolist()
    [0, 1, 1, 2, 1, 2]
    """
    t = jnp.arange(looks.shape[0])
    last = jax.lax.cummax(jnp.where(looks, t, 0))
    return t - jnp.concatenate([last[:1], last[:-1]])


def lead_in(
    key: Key, env: Env, agent: Agent, state: PyTree, params: Params, context: int
) -> tuple[PyTree, PyTree, Array]:
    """The first ``context`` frames of a real episode without exploration, after which a dream may begin.

    Args:
      key: consumed.
      env: the true world; the agent plays it.
      agent, state: with a model.
      params: of the model.
      context: frames that it sees; 1 is the first frame and an empty memory, as World Models dream; 0 is
        ``model.initial``, before anything is seen.

    Returns:
      The model's belief, what the agent remembers before it is shown the last of these frames, and how many frames
      there were before the episode's end: fewer than ``context`` where it ended early.
    """
    model = agent.model
    context = checks.integer("context", context, 0)
    start = jax.tree.map(jnp.asarray, (model.initial(params), agent.reset(state)))
    if context == 0:
        return *start, jnp.int32(0)
    worlds, act = env.vector(1), over_envs(agent.act, 1)
    key, key_reset, key_first = jax.random.split(key, 3)
    states, obs = worlds.reset(key_reset)
    one = lambda tree: jax.tree.map(lambda x: x[0], tree)  # noqa: E731
    belief = model.encode(key_first, params, start[0], no_action(env.spec), one(obs), jnp.asarray(True))

    def body(loop: tuple, key: Key) -> tuple[tuple, None]:
        states, obs, carry, belief, is_first, alive, frames = loop
        key_act, key_env, key_see = jax.random.split(key, 3)
        actions, carry, _ = act(key_act, state, carry, obs, is_first, False)
        states, seen = worlds.step(key_env, states, actions)
        belief = model.encode(key_see, params, belief, actions[0], one(seen.obs), jnp.asarray(False))
        alive = alive & ~(seen.terminated | seen.truncated)[0]
        return (states, seen.obs, carry, belief, jnp.zeros_like(is_first), alive, frames + alive), None

    loop = states, obs, tile(start[1], 1), belief, jnp.ones(1, bool), jnp.asarray(True), jnp.int32(1)
    loop, _ = jax.lax.scan(body, loop, jax.random.split(key, context - 1))
    return loop[3], one(loop[2]), loop[-1]


def policy_of(agent: Agent, state: PyTree, context: int) -> Callable:
    """An agent as the policy of ``dream``, without exploration, after ``lead_in`` of ``context`` frames."""

    def act(key: Key, carry: PyTree, obs: PyTree, t: Array) -> tuple[Array, PyTree]:
        is_first = (t == 0) & (context <= 1)  # otherwise it remembers real steps
        action, carry, _ = agent.act(key, state, carry, obs, is_first, False)
        return action, carry

    return act


def replaying(agent: Agent, actions: Array) -> Agent:
    """``agent``, but an episode's actions are ``actions[T, ...]``, the last of them also after that."""
    actions = jnp.asarray(actions)

    def act(
        key: Key, state: PyTree, t: Array, obs: PyTree, is_first: Array, explore: bool
    ) -> tuple[Array, Array, dict]:
        del key, state, obs, explore
        t = jnp.where(is_first, 0, t)
        return actions[jnp.minimum(t, len(actions) - 1)], t + 1, {}

    return agent._replace(reset=lambda state: jnp.zeros((), jnp.int32), act=act)


def at_temperature(params: Params, temperature: Any) -> Params:
    """Parameters of a model that dreams at ``temperature``, at least 0; 1 is what it learned.

    Raises:
      ValueError: the model has no temperature, or a negative one was asked for.
    """
    checks.number("temperature", temperature, 0.0)
    if not hasattr(params.stats, "temperature"):
        raise ValueError(f"temperature must be left out for a model that has none, got {temperature}")
    return params._replace(stats=params.stats._replace(temperature=jnp.float32(temperature)))


def _prepend(first: PyTree, later: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None].astype(b.dtype), b]), first, later)
