"""Interact and imagine: the same scan over the real world and over a model of it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jmbrl import checks, devices
from jmbrl.types import Agent, Array, Discrete, Env, Key, Model, Objective, Outcome, Params, PyTree, Spec, Trajectory


def imagine(
    key: Key, step_many: Callable, beliefs: PyTree, act: Callable, horizon: int, unroll: int = 1
) -> tuple[PyTree, Trajectory]:
    r"""Roll a model forward from many beliefs at once.

    .. math:: a_t = \pi(b_t, t), \quad (b_{t+1}, r_t, \gamma_t) = f(b_t, a_t)

    Args:
      key: consumed.
      step_many: ``(key, beliefs[N], actions[N]) -> (beliefs[N], Outcome[N])``, a model with its parameters bound.
      beliefs: leaves ``[N, ...]``.
      act: ``(key, beliefs[N], t) -> (actions[N], aux)``.
      horizon: number of steps, at least 1.
      unroll: passed to the scan.

    Returns:
      The last beliefs and a time-major ``Trajectory[horizon, N]``. Row ``t``'s outcome belongs to
      ``(belief_t, action_t)``. Fields that are not used afterwards cost nothing under ``jit``.

    Raises:
      ValueError: ``horizon`` below 1 or traced.
    """
    horizon = checks.integer("horizon", horizon, 1)

    def body(beliefs: PyTree, inputs: tuple[Key, Array]) -> tuple[PyTree, Trajectory]:
        key, t = inputs
        key_act, key_step = jax.random.split(key)
        actions, aux = act(key_act, beliefs, t)
        following, outcome = step_many(key_step, *devices.split((beliefs, actions), devices.ROW))
        return following, Trajectory(beliefs, actions, aux, outcome, following)

    return jax.lax.scan(body, beliefs, (jax.random.split(key, horizon), jnp.arange(horizon)), unroll=unroll)


def discounts(outcome: Outcome, gamma: float | Array) -> Array:
    r"""Weight of each imagined reward, ``[H, ...]``: :math:`\gamma^t \prod_{s<t} d_s`.

    The reward of the step that terminates still counts; nothing after it does.
    """
    alive = jnp.cumprod(outcome.discount * gamma, axis=0)
    return jnp.concatenate([jnp.ones_like(alive[:1]), alive[:-1]], axis=0)


def mean_return(returns: Array) -> Array:
    """The objective of PETS: the mean over particles, ``[P, N] -> [N]``."""
    return jnp.mean(returns, axis=0)


def worst_return(returns: Array) -> Array:
    """The most careful objective: the worst particle, ``[P, N] -> [N]``."""
    return jnp.min(returns, axis=0)


def mean_minus_spread(k: float | Array) -> Callable:
    r"""A careful objective, ``[P, N] -> [N]``: :math:`\operatorname{mean}_p J^p - k \operatorname{std}_p J^p` (biased).

    A negative ``k`` seeks uncertainty.

    >>> mean_minus_spread(2.0)(jnp.asarray([[1.0], [3.0]])).tolist()
    [0.0]
    """
    k = checks.number("k", k)

    def reduce(returns: Array) -> Array:
        variance = jnp.var(returns, axis=0)
        # The slope of a square root is infinite at 0, where a deterministic model always is.
        spread = jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1.0)), 0.0 * variance)
        return jnp.mean(returns, axis=0) - k * spread

    return reduce


def within_budget(returns: Array, costs: Array, budget: tuple) -> tuple[Array, Array]:
    r"""Feasible plans keep their return; the others rank below all of them, by how much they spend too much.

    .. math:: v = \sum_c \max(0, C_c - d_c), \qquad J' = J \text{ if } v = 0 \text{ else } -10^{12} (1 + \log(1 + v))

    The derivative is that of the return inside the budget and of the excess outside (a switching subgradient method).

    Args:
      returns: ``float32[N]``, above ``-1e12``.
      costs: ``float32[N, C]``.
      budget: ``C`` numbers, in the costs' units.

    Returns:
      The scores ``[N]`` and whether each plan is over the budget ``bool[N]`` (a cost that is NaN is).

    Raises:
      ValueError: ``budget`` has not one number per cost.

    Source: Wen & Topcu 2018, constrained cross-entropy method, equation 5; Polyak 1967 for the switching.
    """
    if costs.shape[-1] != len(budget):
        raise ValueError(
            f"budget must have one number per imagined cost, got {len(budget)} for {costs.shape[-1]} costs; "
            "models.with_cost puts costs into a model"
        )
    excess = jnp.sum(jnp.maximum(costs - jnp.asarray(budget, jnp.float32), 0.0), axis=-1)
    over = ~(excess <= 0)
    return jnp.where(over, -1e12 * (1 + jnp.log1p(excess)), returns), over


def objective(
    model: Model,
    params: Params,
    belief: PyTree,
    *,
    particles: int = 1,
    gamma: float | Array = 1.0,
    terminal_value: Callable | None = None,
    reduce: Callable = mean_return,
    budget: tuple[float, ...] | None = None,
    policy: Callable | None = None,
) -> Objective:
    r"""What a planner maximises: the imagined return of an action sequence.

    .. math:: J(a_{0:H-1}) = \operatorname{reduce}_p \left[ \sum_t \gamma^t \textstyle\prod_{s<t} d_s^p \, r_t^p
              + \gamma^H \prod_s d_s^p \, V(b_H^p) \right]

    Args:
      model, params: the model to roll.
      belief: where to start, one row.
      particles: rollouts per action sequence (PETS: 20). Rows are particle-major,
        ``row = particle * candidates + candidate``.
      gamma: discount; PETS sums undiscounted rewards.
      terminal_value: ``(beliefs[N]) -> float32[N]``, or None.
      reduce: ``returns[P, N] -> [N]``, the attitude to risk: ``mean_return``, ``worst_return``,
        ``mean_minus_spread(k)``.
      budget: what a plan may cost, one number per imagined cost: the sum over its steps, weighted as the rewards are
        (``gamma``, nothing after the end), averaged over particles. ``within_budget`` tells what becomes of the
        returns: a planner then maximises the return within the budget, or, where it finds no such plan, spends least
        too much. None: costs are reported only.
      policy: ``(key, beliefs[N]) -> actions[N, ...]``, whose rollouts in the model a planner may take as candidates.

    Returns:
      An ``Objective`` whose ``info`` holds ``clipped``, the fraction of imagined rows that left the data's range, and,
      with a budget, ``violating``, the fraction of plans beyond it.

    Raises:
      ValueError: ``particles`` below 1; a ``budget`` that is not finite or, when traced, not one number per cost.
    """
    particles = checks.integer("particles", particles, 1)
    if budget is not None:
        budget = tuple(checks.number("budget", x) for x in budget)

    def returns(key: Key, actions: Array) -> tuple[Array, Array, dict[str, Array]]:
        count, horizon = actions.shape[:2]
        rows = particles * count
        beliefs = jax.tree.map(lambda x: jnp.broadcast_to(x, (rows, *x.shape)), belief)
        by_time = jnp.moveaxis(actions, 1, 0)

        def act(key: Key, beliefs: PyTree, t: Array) -> tuple[Array, tuple]:
            now = by_time[t]
            return jnp.broadcast_to(now, (particles, *now.shape)).reshape(rows, *now.shape[1:]), ()

        def step_many(key: Key, beliefs: PyTree, actions: Array) -> tuple[PyTree, Outcome]:
            return model.step_many(key, params, beliefs, actions)

        last, path = imagine(key, step_many, beliefs, act, horizon)
        weight = discounts(path.outcome, gamma)
        total = jnp.sum(weighted(weight, path.outcome.reward), axis=0)
        if terminal_value is not None:
            total = total + weighted(weight[-1] * gamma * path.outcome.discount[-1], terminal_value(last))
        cost = jnp.sum(weighted(weight[..., None], path.outcome.cost), axis=0).reshape(particles, count, -1)
        cost = jnp.mean(cost, axis=0)
        score = reduce(total.reshape(particles, count))
        info = {"clipped": jnp.mean(path.outcome.clipped, dtype=jnp.float32)}
        if budget is not None:
            score, over = within_budget(score, cost, budget)
            info["violating"] = jnp.mean(over, dtype=jnp.float32)
        return score, cost, info

    def step(key: Key, belief: PyTree, action: Array) -> tuple[PyTree, Outcome]:
        return model.step(key, params, belief, action)

    def propose(key: Key, count: int, horizon: int) -> Array:
        act = lambda key, beliefs, t: (policy(key, beliefs), ())  # noqa: E731
        step_many = lambda key, beliefs, actions: model.step_many(key, params, beliefs, actions)  # noqa: E731
        path = imagine(key, step_many, tile(belief, count), act, horizon)[1]
        return jnp.moveaxis(path.action, 1, 0)

    proposals = None if policy is None else propose
    return Objective(returns, step, belief, model.no_gradient, gamma, terminal_value, budget, proposals)


def weighted(weight: Array, x: Array) -> Array:
    """Their product, 0 where the weight is: what is imagined after the end may be infinite."""
    return weight * jnp.where(weight == 0, 0.0, x)


def evaluate(
    key: Key,
    env: Env,
    agent: Agent,
    agent_state: Any,
    episodes: int,
    max_steps: int | None = None,
    trace: bool = False,
    carry: PyTree | None = None,
) -> dict[str, Array]:
    """Whole episodes without exploration, side by side.

    Args:
      key: consumed.
      env: the environment; host environments run ``episodes`` copies.
      agent: acts with ``explore=False`` and records nothing.
      agent_state: the agent's state, left as it is.
      episodes: how many, at least 1.
      max_steps: steps per episode at most; ``env.spec.max_steps`` by default.
      trace: also return what was seen and done; every step is then taken, where otherwise the loop ends with the last
        episode.
      carry: what the loops remember at the start, leaves ``[episodes, ...]``, so that episodes can differ in it. None:
        ``agent.reset(agent_state)`` for all.

    Returns:
      ``returns[episodes]`` and ``lengths[episodes]``; with ``trace`` also ``observations[T + 1, episodes, ...]``,
      ``actions``, ``rewards`` and ``terminated``, ``[T, episodes, ...]`` (rows after an episode's end mean nothing;
      ``lengths`` says where).
    """
    episodes = checks.integer("episodes", episodes, 1)
    limit = checks.integer("max_steps", env.spec.max_steps if max_steps is None else max_steps, 1)
    worlds = env.vector(episodes)
    key, key_reset = jax.random.split(key)
    states, first = worlds.reset(key_reset)
    carry = tile(agent.reset(agent_state), episodes) if carry is None else carry
    act = over_envs(agent.act, episodes)

    def body(loop: tuple, key: Key) -> tuple[tuple, tuple | None]:
        states, obs, carry, is_first, alive, total, length = loop
        key_act, key_env = jax.random.split(key)
        actions, carry, _ = act(key_act, agent_state, carry, obs, is_first, False)
        states, seen = worlds.step(key_env, states, actions)
        total = total + jnp.where(alive, seen.reward, 0.0)
        length = length + alive
        alive = alive & ~(seen.terminated | seen.truncated)
        loop = states, seen.obs, carry, jnp.zeros_like(is_first), alive, total, length
        return loop, (seen.obs, actions, seen.reward, seen.terminated) if trace else None

    always = jnp.ones(episodes, bool)
    start = states, first, carry, always, always, jnp.zeros(episodes), jnp.zeros(episodes, jnp.int32)
    keys = jax.random.split(key, limit)

    def going(loop: tuple[Array, tuple]) -> Array:
        t, (*_, alive, _, _) = loop
        return (t < limit) & jnp.any(alive)

    def onward(loop: tuple[Array, tuple]) -> tuple[Array, tuple]:
        t, now = loop
        return t + 1, body(now, keys[t])[0]

    if trace:
        end, path = jax.lax.scan(body, start, keys)
    else:
        end, path = jax.lax.while_loop(going, onward, (jnp.asarray(0, jnp.int32), start))[1], None
    out = {"returns": end[5], "lengths": end[6]}
    if path is not None:
        out["observations"] = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, path[0])
        out |= {"actions": path[1], "rewards": path[2], "terminated": path[3]}
    return out


def random_actions(key: Key, spec: Spec, count: int) -> Array:
    """``count`` actions drawn uniformly from the action space."""
    if isinstance(spec.action, Discrete):
        return jax.random.randint(key, (count,), 0, spec.action.n)
    return jax.random.uniform(key, (count, *spec.action.shape), minval=-1.0, maxval=1.0)


def no_action(spec: Spec) -> Array:
    """What stands where no action was taken yet."""
    return jnp.zeros(spec.action.shape, jnp.int32 if isinstance(spec.action, Discrete) else jnp.float32)


def tile(tree: PyTree, count: int) -> PyTree:
    """A leading axis of ``count`` equal copies on every leaf."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *jnp.shape(x))), tree)


def over_envs(act: Callable, num_envs: int) -> Callable:
    """``Agent.act`` over the leading axis of its carry, observation and ``is_first``.

    One environment is squeezed rather than mapped: under ``vmap`` a ``lax.cond`` (replanning every k steps) would
    become a select and pay for both branches.
    """
    if num_envs > 1:
        batched = jax.vmap(act, in_axes=(0, None, 0, 0, 0, None))
        return lambda key, state, carry, obs, is_first, explore: batched(
            jax.random.split(key, num_envs), state, carry, obs, is_first, explore
        )

    def single(key: Key, state: Any, carry: Any, obs: Any, is_first: Array, explore: bool) -> tuple:
        first = lambda tree: jax.tree.map(lambda x: x[0], tree)  # noqa: E731
        out = act(jax.random.split(key, 1)[0], state, first(carry), first(obs), is_first[0], explore)
        return jax.tree.map(lambda x: jnp.asarray(x)[None], out)

    return single
