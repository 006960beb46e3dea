"""Tree search over any model: what the tree needs of one, in mctx's words (Schrittwieser et al. 2020; DeepMind 2021).

The tree itself is mctx's. Here a model's ``step_many``, and whatever judges its beliefs, become mctx's recurrent
function: a simulator, a table, an ensemble, a recurrent latent model or MuZero's are searched by the same lines.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mctx as _mctx

from jmbrl import checks
from jmbrl.rollout import discounts, imagine, weighted
from jmbrl.types import Array, Key, PyTree

mctx: Any = _mctx  # its dataclasses are made at run time, where no type checker sees them

METHODS = ("gumbel", "puct")
FORBIDDEN = -1e9  # the logit of a move that is not allowed
# What a broken number counts as: below any return, and finite, as the tree adds up and compares.
BROKEN = -1e6


class Judged(NamedTuple):
    """What is thought of ``N`` beliefs before they are searched.

    Attributes:
      candidates: ``[N, K, ...]``, the actions that are considered; None: all of a discrete space, by their numbers.
      logits: ``float32[N, K]``, of choosing each.
      value: ``float32[N]``, the return from there on, to the player who is to move.
    """

    candidates: Array | None
    logits: Array
    value: Array


class Node(NamedTuple):
    """What the tree keeps at each of ``N`` places: the belief, its candidates, and whether the model left its data."""

    belief: PyTree
    candidates: Array | None
    clipped: Array


class Found(NamedTuple):
    """What a search found, at ``N`` roots.

    Attributes:
      index: ``int32[N]``, the candidate to take.
      action: ``[N, ...]``, that candidate.
      weights: ``float32[N, K]``, an improved policy over the candidates, summing to 1.
      candidates: ``[N, K, ...]`` or None, as in ``Judged``.
      value: ``float32[N]``, of the root after the search.
      tree: ``mctx.Tree``, whose ``embeddings`` are a ``Node``.
    """

    index: Array
    action: Array
    weights: Array
    candidates: Array | None
    value: Array
    tree: Any


class TreeSearch(NamedTuple):
    """How a tree is searched; ``search_settings`` checks it.

    Attributes:
      simulations: steps in the model per decision.
      method: ``gumbel`` (Gumbel MuZero, whose policy improves with any number of simulations) or ``puct`` (MuZero's).
      depth: edges from the root to a leaf at most; None: no limit.
      considered: actions considered at the root (``gumbel``).
      q_scale: how much values count against the prior (``gumbel``; Danihelka et al.'s :math:`c_{scale}`).
      exploration: how much rarely visited actions are preferred (``puct``; :math:`c_1`).
      dirichlet_fraction, dirichlet_alpha: noise at the root while exploring (``puct``).
      temperature: while exploring, of visits as a policy (``puct``); 0 takes the most visited.
    """

    simulations: int = 25
    method: str = "gumbel"
    depth: int | None = None
    considered: int = 16
    q_scale: float | Array = 0.1
    exploration: float | Array = 1.25
    dirichlet_fraction: float = 0.25
    dirichlet_alpha: float = 0.3
    temperature: float = 1.0


def search_settings(**settings: Any) -> TreeSearch:
    """Checked.

    Raises:
      ValueError: a number outside its range, or an unknown method.
    """
    found = TreeSearch(**settings)
    checks.integer("simulations", found.simulations, 1)
    checks.choice("method", found.method, METHODS)
    checks.integer("considered", found.considered, 1)
    checks.number("q_scale", found.q_scale, 0.0)
    checks.number("exploration", found.exploration, 0.0)
    checks.number("dirichlet_fraction", found.dirichlet_fraction, 0.0, 1.0)
    checks.number("dirichlet_alpha", found.dirichlet_alpha, 1e-6)
    checks.number("temperature", found.temperature, 0.0)
    if found.depth is not None:
        checks.integer("depth", found.depth, 1)
    return found


def recurrent(step_many: Callable, judge: Callable, gamma: float | Array = 1.0, players: int = 1) -> Callable:
    r"""A model as mctx's ``recurrent_fn``.

    An edge carries its reward, and the discount :math:`\gamma d`, with the continuation ``d`` of the step; in a game of
    two :math:`-\gamma d`, as what is good for one player is bad for the one before.

    Args:
      step_many: ``(key, beliefs[N], actions[N]) -> (beliefs[N], Outcome[N])``, a model with its parameters bound.
      judge: ``(key, beliefs[N]) -> Judged``.
      gamma: discount, in ``[0, 1]``.
      players: 1 or 2.

    Returns:
      ``(params, key, index[N], Node[N]) -> (mctx.RecurrentFnOutput, Node[N])``; ``params`` are not read.
    """
    turn = -1.0 if players == 2 else 1.0

    def step(params: Any, key: Key, index: Array, node: Node) -> tuple[Any, Node]:
        del params
        key_step, key_judge = jax.random.split(key)
        beliefs, outcome = step_many(key_step, node.belief, chosen(node.candidates, index))
        judged = judge(key_judge, beliefs)
        output = mctx.RecurrentFnOutput(
            reward=_whole(outcome.reward, BROKEN),
            discount=turn * gamma * _whole(outcome.discount, 0.0),
            prior_logits=_whole(judged.logits, FORBIDDEN),
            value=_whole(judged.value, 0.0),
        )
        return output, Node(beliefs, judged.candidates, outcome.clipped)

    return step


def search(
    key: Key,
    step_many: Callable,
    judge: Callable,
    beliefs: PyTree,
    settings: TreeSearch,
    *,
    explore: bool,
    gamma: float | Array = 1.0,
    players: int = 1,
    allowed: Array | None = None,
) -> Found:
    """Grow a tree from each of ``N`` beliefs.

    Args:
      key: consumed.
      step_many, judge, gamma, players: as in ``recurrent``.
      beliefs: leaves ``[N, ...]``.
      settings: how.
      explore: static; add the method's noise at the root. Without it the choice is the best, the same for any key where
        model and candidates draw nothing.
      allowed: ``bool[N, K]``, which candidates may be taken at the root; None: all.

    Source: Schrittwieser et al. 2020 (MuZero, arXiv 1911.08265), appendix B; Danihelka et al. 2022 (Gumbel MuZero,
    ICLR); Hubert et al. 2021 (Sampled MuZero, arXiv 2104.06303) for candidates that are drawn; mctx 0.0.71.
    """
    key_judge, key_search = jax.random.split(key)
    judged = judge(key_judge, beliefs)
    logits, value = _whole(judged.logits, FORBIDDEN), _whole(judged.value, 0.0)
    node = Node(beliefs, judged.candidates, jnp.zeros(value.shape, bool))
    root = mctx.RootFnOutput(prior_logits=logits, value=value, embedding=node)
    invalid = None if allowed is None else ~allowed
    shared = (root, recurrent(step_many, judge, gamma, players), settings.simulations, invalid, settings.depth)
    if settings.method == "gumbel":
        output = mctx.gumbel_muzero_policy(
            (), key_search, *shared, max_num_considered_actions=settings.considered,
            gumbel_scale=1.0 if explore else 0.0,
            qtransform=functools.partial(mctx.qtransform_completed_by_mix_value, value_scale=settings.q_scale),
        )  # fmt: skip
    else:
        output = mctx.muzero_policy(
            (), key_search, *shared, dirichlet_alpha=settings.dirichlet_alpha,
            dirichlet_fraction=settings.dirichlet_fraction if explore else 0.0,
            temperature=settings.temperature if explore else 0.0, pb_c_init=settings.exploration,
        )  # fmt: skip
    value = output.search_tree.summary().value
    action = chosen(judged.candidates, output.action)
    return Found(output.action, action, output.action_weights, judged.candidates, value, output.search_tree)


def playouts(
    key: Key,
    step_many: Callable,
    act: Callable,
    beliefs: PyTree,
    steps: int,
    gamma: float | Array = 1.0,
    value: Callable | None = None,
    players: int = 1,
) -> Array:
    r"""What ``N`` beliefs are worth by playing on from each, once: :math:`\sum_t (\pm\gamma)^t \prod_{s<t} d_s r_t`,
    and ``value`` of the end. ``float32[N]``.

    Args:
      act: ``(key, beliefs[N]) -> actions[N]``.
      steps: of each; 0 leaves only ``value``.
      value: ``(beliefs[N]) -> float32[N]``, or None.
      step_many, gamma, players: as in ``recurrent``.
    """
    gamma = -gamma if players == 2 else gamma
    if not steps:
        count = jax.tree.leaves(beliefs)[0].shape[0]
        return jnp.zeros(count) if value is None else value(beliefs)
    end, path = imagine(key, step_many, beliefs, lambda key, beliefs, t: (act(key, beliefs), ()), steps)
    weights = discounts(path.outcome, gamma)
    total = jnp.sum(weighted(weights, path.outcome.reward), axis=0)
    if value is None:
        return total
    return total + weighted(weights[-1] * gamma * path.outcome.discount[-1], value(end))


def chosen(candidates: Array | None, index: Array) -> Array:
    """The candidates ``[N, K, ...]`` that ``index[N]`` names; where there are none the numbers themselves."""
    if candidates is None:
        return index.astype(jnp.int32)
    return jax.vmap(lambda row, i: row[i])(candidates, index)


def principal(tree: Any, first: Array, length: int) -> tuple[Array, Array]:
    """The moves that a search of one root thinks best: ``first``, then the most visited ones.

    Returns:
      ``int32[length]``, numbers of candidates, and the nodes that they are taken from, ``int32[length]``; beyond the
      tree's leaves the last node's candidate 0 is repeated.
    """
    tree = jax.tree.map(lambda x: x[0], tree)

    def follow(node: Array, t: Array) -> tuple[Array, tuple[Array, Array]]:
        visits = tree.children_visits[node]
        index = jnp.where(t == 0, first, jnp.argmax(visits)).astype(jnp.int32)
        child = tree.children_index[node, index]
        return jnp.where(child < 0, node, child), (index, node)

    return jax.lax.scan(follow, jnp.zeros((), jnp.int32), jnp.arange(length))[1]


def depth_of(tree: Any) -> Array:
    """Edges from the root to the farthest leaf of each of ``N`` trees, ``int32[N]``."""

    def one(parents: Array) -> Array:
        # A node is always numbered after its parent.
        def add(i: Array, depths: Array) -> Array:
            return depths.at[i].set(jnp.where(parents[i] < 0, 0, depths[parents[i]] + 1))

        return jnp.max(jax.lax.fori_loop(1, parents.shape[0], add, jnp.zeros_like(parents)))

    return jax.vmap(one)(tree.parents)


def _whole(x: Array, instead: float) -> Array:
    """Numbers that a tree can compare; a broken one is ``instead``."""
    return jnp.where(jnp.isfinite(x), x, instead)
