"""Monte-Carlo tree search as a planner: any model, no training, leaves judged by a value or by random playouts."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.planners.tree import BROKEN, Judged, chosen, playouts, principal, search, search_settings
from jmbrl.rollout import random_actions
from jmbrl.types import Array, Discrete, Key, Objective, Planner, PyTree, Spec


def tree_search(
    spec: Spec,
    *,
    horizon: int = 20,
    simulations: int = 100,
    candidates: int = 8,
    playout: int | None = None,
    method: str = "puct",
    exploration: float | Array = 5.0,
    considered: int = 16,
    q_scale: float | Array = 0.01,
) -> Planner:
    r"""Grow a tree of imagined steps from the belief and follow its best branch.

    A leaf is worth the rewards of a playout of uniformly random actions, and the objective's value of where that ends.
    All actions are equally likely at first.

    A tree holds one drawn successor for each action it tries: of a stochastic model it sees one possible world. The
    objective's ``particles`` and ``reduce`` are not read; nor are costs (``budget`` is refused).

    Args:
      spec: the environment's.
      horizon: depth of the tree at most, and the length of the plan, at least 1.
      simulations: steps of the tree per decision, at least 1.
      candidates: actions that are tried from each belief where actions are continuous: drawn
        uniformly; at least 2.
      playout: random steps that judge a leaf; 0: its value alone; None: ``horizon`` where the objective has no value,
        else 0.
      method: ``puct`` or ``gumbel``.
      exploration: of ``puct``, how much rarely visited actions are preferred.
      considered, q_scale: of ``gumbel``: candidates of the root that are looked into, at least 1, and how much values
        count. Without a learned prior both methods must explore more than MuZero does (1.25 and 0.1): on 16 random
        leaves of a binary tree, 100 simulations came to 0.82 and 0.66 with its numbers, to 0.92 with 10 and 0.90 with
        0.01, where the best leaf is worth 0.95 (mean of ten trees).

    Returns:
      A ``Planner``; ``info`` holds ``return`` (the root's value after the search), ``visits`` (share of the
      simulations that began with the action taken), ``nonfinite`` (broken rewards in the tree) and ``clipped`` (share
      of the tree that left the data's range). Beyond the tree's leaves the plan repeats a candidate that was never
      tried: replan at every step.

    Raises:
      ValueError: a number outside its range, or a game of two (``agents.mcts`` plays it); at planning, an objective
        with a budget.

    Source: Kocsis & Szepesvari 2006 (UCT); Coulom 2006; Danihelka et al. 2022 for ``gumbel``.
    """
    if spec.players != 1:
        raise ValueError(f"tree_search plans for one player, got {spec.name} of {spec.players}: use agents.mcts")
    horizon = checks.integer("horizon", horizon, 1)
    options = {"considered": considered, "exploration": exploration, "q_scale": q_scale}
    settings = search_settings(simulations=simulations, method=method, depth=horizon, **options)
    candidates = checks.integer("candidates", candidates, 2)
    if playout is not None:
        playout = checks.integer("playout", playout, 0)

    def tried(key: Key, count: int) -> tuple[Array | None, int]:
        """The candidates and how many they are."""
        if isinstance(spec.action, Discrete):
            return None, spec.action.n
        drawn = random_actions(key, spec, count * candidates)
        return drawn.reshape(count, candidates, *drawn.shape[1:]), candidates

    def judge_of(objective: Objective, steps: int, step_many: Callable) -> Callable:
        def judge(key: Key, beliefs: PyTree) -> Judged:
            key_actions, key_play = jax.random.split(key)
            count = jax.tree.leaves(beliefs)[0].shape[0]
            actions, width = tried(key_actions, count)
            play = lambda key, beliefs: random_actions(key, spec, count)  # noqa: E731
            value = playouts(key_play, step_many, play, beliefs, steps, objective.gamma, objective.value)
            return Judged(actions, jnp.zeros((count, width)), value)

        return judge

    def plan(key: Key, state: tuple, objective: Objective) -> tuple[Array, tuple, dict]:
        if objective.budget is not None:
            raise ValueError("tree_search knows no costs: use cem, icem, mppi or random_shooting with a budget")

        def step_many(key: Key, beliefs: PyTree, actions: Array) -> tuple:
            keys = jax.random.split(key, actions.shape[0])
            return jax.vmap(objective.step)(keys, beliefs, actions)

        steps = playout if playout is not None else horizon if objective.value is None else 0
        roots = jax.tree.map(lambda x: jnp.asarray(x)[None], objective.belief)
        judge = judge_of(objective, steps, step_many)
        found = search(key, step_many, judge, roots, settings, explore=False, gamma=objective.gamma)
        indices, nodes = principal(found.tree, found.index[0], horizon)
        branch = None if found.candidates is None else found.tree.embeddings.candidates[0, nodes]
        actions = chosen(branch, indices)
        visits = found.tree.children_visits[0, 0, found.index[0]] / simulations
        broken = jnp.sum(found.tree.children_rewards == BROKEN, dtype=jnp.int32)
        clipped = jnp.mean(found.tree.embeddings.clipped[0, 1:], dtype=jnp.float32)
        info = {"return": found.value[0], "visits": visits, "nonfinite": broken, "clipped": clipped}
        return actions, state, info

    return Planner(lambda: (), plan, lambda state, k: state, horizon)
