"""Agents that search a tree at every step and learn from what they found: all that AlphaZero and MuZero share."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks, data, envs
from jmbrl.agents.off_policy import schedule, summary
from jmbrl.agents.search_update import Learned, Plan, SearchLearner
from jmbrl.learners.policy_value import PolicyValue
from jmbrl.planners.tree import FORBIDDEN, Judged, TreeSearch, depth_of, search
from jmbrl.rollout import no_action
from jmbrl.types import Agent, Array, Continuous, Env, Key, Model, Params, PyTree, Sequence, Transition


class SearchState(NamedTuple):
    """``replay``: rows, each with its ``Plan``; ``learned``: weights and optimiser."""

    replay: data.LatentReplay
    learned: Learned


class World(NamedTuple):
    """Where an agent searches.

    Attributes:
      model: the ``Model``; params: ``(weights) -> Params``, its own of the agent's weights.
      features: ``(weights, beliefs[N]) -> float32[N, F]``, what policy and value read.
      rules: ``(beliefs[N]) -> bool[N, n]``, which moves are allowed there; None where the model does not know.
      plain: ``(obs) -> obs``, what is kept of an observation.
    """

    model: Model
    params: Callable
    features: Callable
    rules: Callable | None = None
    plain: Callable = lambda obs: obs


def searching(
    env: Env,
    world: World,
    reader: PolicyValue,
    learner: SearchLearner,
    settings: TreeSearch,
    *,
    length: int,
    gamma: float | Array = 0.997,
    batch_size: int = 256,
    updates: float = 0.25,
    reanalyze: float = 0.0,
    random_moves: float | Array = 0.0,
    warmup: int = 0,
    capacity: int = 100_000,
) -> Agent:
    """Search, act, remember what the search found; learn from windows of that.

    Args:
      env: the environment.
      world: what is searched. reader: judges its beliefs. learner: improves both.
      settings: of the search.
      length: rows of a window, what the learner needs.
      gamma: discount.
      batch_size: windows per update. updates: per environment step, as in ``agents.off_policy``.
      reanalyze: share of each batch whose plans are searched anew with the newest weights before it is learned from,
        in ``[0, 1]`` (Schrittwieser et al. 2021, arXiv 2104.06294); only where the model needs no more than ``obs``.
      random_moves: chance, while exploring, that a random action (an allowed one) is taken in place of the search's.
        The search's plan is what is learned from all the same; returns that pass such a move are of another policy, so
        keep them short where it is not 0.
      warmup: environment steps of random actions first.
      capacity: rows kept per environment, at least ``length``.

    Raises:
      ValueError: a number outside its range.

    Metrics: ``act/search_value``, ``act/search_depth``, ``act/search_entropy`` (nats, of the policy that was found) and
    ``learner/...``.
    """
    spec, random_move = env.spec, envs.random_player(env)
    checks.number("random_moves", random_moves, 0.0, 1.0)
    capacity, warmup = checks.integer("capacity", capacity, length), checks.integer("warmup", warmup, 0)
    batch_size = checks.integer("batch_size", batch_size, 1)
    period, per_period = schedule(updates)
    renewed = round(checks.number("reanalyze", reanalyze, 0.0, 1.0) * batch_size)
    box = spec.action if isinstance(spec.action, Continuous) else None
    nothing = Plan(
        jnp.zeros((), bool),
        jnp.full(reader.count, 1.0 / reader.count),
        None if box is None else jnp.zeros((reader.count, box.dim)),
        jnp.zeros(()),
    )

    def init(key: Key, num_envs: int) -> SearchState:
        return SearchState(data.empty_latent(spec, nothing, capacity, num_envs), learner.init(key))

    def searched(key: Key, weights: PyTree, obs: PyTree, explore: bool) -> tuple[Array, Plan, PyTree]:
        """Actions, plans and trees of ``obs[N]``."""
        key_see, key_search = jax.random.split(key)
        params: Params = world.params(weights)

        def see(key: Key, obs: PyTree) -> PyTree:
            return world.model.encode(key, params, world.model.initial(params), no_action(spec), obs, jnp.asarray(True))

        def judge(key: Key, beliefs: PyTree) -> Judged:
            thought = reader.read(weights["read"], world.features(weights, beliefs))
            candidates, logits = reader.candidates(key, thought)
            if world.rules is not None:
                logits = jnp.where(world.rules(beliefs), logits, FORBIDDEN)
            return Judged(candidates, logits, reader.value(thought))

        def step_many(key: Key, beliefs: PyTree, actions: Array) -> tuple:
            return world.model.step_many(key, params, beliefs, actions)

        count = jax.tree.leaves(obs)[0].shape[0]
        beliefs = jax.vmap(see)(jax.random.split(key_see, count), obs)
        found = search(
            key_search, step_many, judge, beliefs, settings, explore=explore, gamma=gamma, players=spec.players,
            allowed=None if env.legal is None else jax.vmap(env.legal)(obs),
        )  # fmt: skip
        plan = Plan(jnp.ones(count, bool), found.weights, found.candidates, found.value)
        return found.action, plan, found.tree

    def act(key: Key, state: SearchState, carry: Plan, obs: PyTree, is_first: Array, explore: bool) -> tuple:
        del carry, is_first
        key_search, key_coin, key_move = jax.random.split(key, 3)
        one = jax.tree.map(lambda x: jnp.asarray(x)[None], obs)
        actions, plans, tree = searched(key_search, state.learned.weights, one, explore)
        action = actions[0]
        if explore:
            action = jnp.where(jax.random.bernoulli(key_coin, random_moves), random_move(key_move, None, obs), action)
        plan = jax.tree.map(lambda x: x[0], plans)
        entropy = -jnp.sum(plan.weights * jnp.log(jnp.maximum(plan.weights, 1e-9)))
        depth = depth_of(tree)[0].astype(jnp.float32)
        info = {"search_value": plan.value, "search_depth": depth, "search_entropy": entropy}
        return action, plan, info

    def record(state: SearchState, carry: Plan, rows: Transition, valid: Array) -> SearchState:
        rows = rows._replace(obs=world.plain(rows.obs), next_obs=world.plain(rows.next_obs))
        return state._replace(replay=data.add_latent(state.replay, carry, rows, valid))

    def again(key: Key, weights: PyTree, batch: Sequence, plans: Plan) -> Plan:
        """The plans of the first windows, searched anew."""
        obs = jax.tree.map(lambda x: x[:renewed].reshape(renewed * length, *x.shape[2:]), batch.transition.obs)
        fresh = searched(key, weights, obs, True)[1]
        fresh = jax.tree.map(lambda x: x.reshape(renewed, length, *x.shape[1:]), fresh)
        return jax.tree.map(lambda new, old: old.at[:renewed].set(new), fresh, plans)

    def improve(key: Key, state: SearchState, step: Array) -> tuple[SearchState, dict]:
        del step

        def one(learned: Learned, key: Key) -> tuple[Learned, dict]:
            key_rows, key_search = jax.random.split(key)
            window = data.sample_latent(key_rows, state.replay, batch_size, length, online=False)[1]
            plans = jax.tree.map(lambda x: x[window.rows, window.envs[:, None]], state.replay.beliefs)
            if renewed:
                plans = again(key_search, learned.weights, window.sequence, plans)
            return learner.update(learned, window.sequence, plans)

        learned, info = jax.lax.scan(one, state.learned, jax.random.split(key, per_period))
        return state._replace(learned=learned), {f"learner/{name}": summary(name, x) for name, x in info.items()}

    return Agent(
        init, lambda state: nothing, act, record, ((period, improve),), warmup, world.model,
        lambda state: world.params(state.learned.weights), players=2,
    )  # fmt: skip
