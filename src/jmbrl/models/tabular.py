"""A table of counts: dynamics over finitely many states and actions."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.cells import Cells, action_cells, state_cells
from jmbrl.models.solved import counted
from jmbrl.types import Array, Key, Model, Outcome, Params, Prediction, Spec, Transition

_MOST = 2**25  # entries of a table: 128 MiB of float32; there are two such tables, and two more while fitting


class Table(NamedTuple):
    """Counts, ``float32``: ``moved[S, A, S]`` and how many of these ended the episode, ``ended[S, A, S]``.

    ``reward, reward_square[S, A]``: mean of the rewards and of their squares. ``centre[S, ...]``: what was seen in a
    state, on average; the state's given centre before.
    """

    moved: Array
    ended: Array
    reward: Array
    reward_square: Array
    centre: Array


def tabular(
    spec: Spec,
    *,
    low: Sequence[float] | float | None = None,
    high: Sequence[float] | float | None = None,
    bins: Sequence[int] | int | None = None,
    action_bins: Sequence[int] | int | None = None,
    index: Callable | None = None,
    num_states: int | None = None,
    centre: Callable | None = None,
    stochastic: bool = True,
    prior: float = 0.0,
    reward: Callable | None = None,
    termination: Callable | None = None,
) -> Model:
    r"""Counted transitions between numbered states: ``p(s' | s, a) = (N(s, a, s') + prior) / (N(s, a) + S prior)``.

    The belief is the number of a state, ``int32``. States are either the cells of a grid over a vector observation
    (``low``, ``high``, ``bins``; what lies outside counts to the outermost cell), or whatever ``index`` says. A state
    decodes to the mean of the observations seen in it, and to its centre before any; policies read it as one-hot.

    ``stochastic``: ``step`` draws the next state by its probability. Otherwise it is the most frequent one, of the
    lowest number among equals ("the last seen" is not offered: rows do not tell their time once the replay's ring has
    wrapped). ``expect`` always takes the most frequent one. Rewards are means per ``(s, a)``; the probability of
    ending is counted per ``(s, a, s')``. A pair ``(s, a)`` that was never seen stays where it is with reward 0 (with
    ``prior``: goes anywhere, if stochastic) and sets ``Outcome.clipped``.

    Args:
      spec: for a grid, observations must be a vector. Images need ``index``.
      low, high: where the grid begins and ends, one per dimension of the observation or one for all.
      bins: cells per dimension.
      action_bins: cells per dimension of a continuous action, over ``[-1, 1]``; None for discrete actions.
      index: ``(obs) -> int`` in ``[0, num_states)``, in place of a grid; other numbers are clipped.
      num_states: how many there are with ``index``.
      centre: ``(state) -> obs`` with ``index``; None: zeros until the state was seen.
      stochastic: as above.
      prior: pseudo-count of every next state (a Dirichlet prior), at least 0.
      reward: ``(obs, action, next_obs) -> float32`` of decoded states, one row; None: learned.
      termination: ``(obs, action, next_obs) -> bool`` likewise; None: learned.

    Returns:
      A ``Model`` to be fitted by ``models.trainer(model)``. ``info``: ``loss`` (mean of minus the log probability of
      the rows), ``seen`` (share of the pairs ``(s, a)`` that were seen).

    Raises:
      ValueError: neither or both of a grid and ``index``, an option outside its range, or a table of more than 2^25
        entries.

    Source: Sutton and Barto 2018, Reinforcement Learning, section 8.2.
    """
    cells = state_cells(spec, low, high, bins, index, num_states, centre)
    actions = action_cells(spec, action_bins)
    size, choices = cells.count, actions.count
    prior = checks.number("prior", prior, 0.0)
    _refuse_large(size, choices, math.prod(spec.obs_shape))
    for name, function in (("reward", reward), ("termination", termination)):
        if function is not None:
            checks.row_function(name, function, spec)

    def init(key: Key) -> Params:
        del key
        counts, pairs = jnp.zeros((size, choices, size)), jnp.zeros((size, choices))
        return Params(Table(counts, counts, pairs, pairs, _all_centres(cells)), ())

    def fit(key: Key, params: Params, rows: Transition, weight: Array) -> tuple[Params, dict[str, Array]]:
        del key
        table, place = _count(cells, actions, rows, weight)
        visits = jnp.sum(table.moved, axis=2)
        chance = (table.moved[place] + prior) / (visits[place[:2]] + size * prior)
        surprise = -jnp.log(jnp.where(weight > 0, chance, 1.0))
        info = {
            "loss": jnp.sum(weight * surprise) / jnp.maximum(jnp.sum(weight), 1.0),
            "seen": jnp.mean(visits > 0, dtype=jnp.float32),
        }
        return params._replace(weights=table), info

    def decode(params: Params, belief: Array) -> Array:
        return params.weights.centre[belief].astype(spec.obs_dtype)

    def chances(params: Params, state: Array, choice: Array) -> tuple[Array, Array]:
        """Counts of the next states with the prior, ``[S]``, and whether the pair was ever seen."""
        counts = params.weights.moved[state, choice]
        known = jnp.sum(counts) > 0
        alone = jax.nn.one_hot(state, size)  # stays where it is
        return jnp.where(known | (prior > 0), counts + prior, alone), known

    def result(params: Params, state: Array, action: Array, following: Array, known: Array) -> tuple[Array, Outcome]:
        choice = actions.index(action)
        table = params.weights
        moved = jnp.maximum(table.moved[state, choice, following], 1e-6)
        discount = 1.0 - table.ended[state, choice, following] / moved
        value = table.reward[state, choice]
        around = (decode(params, state), action, decode(params, following))
        if reward is not None:
            value = jnp.asarray(reward(*around), jnp.float32)
        if termination is not None:
            discount = 1.0 - jnp.asarray(termination(*around)).astype(jnp.float32)
        return following, Outcome(value, discount, jnp.zeros(0), ~known)

    def likeliest(params: Params, state: Array, action: Array) -> tuple[Array, Outcome]:
        counts, known = chances(params, state, actions.index(action))
        following = jnp.where(known, jnp.argmax(counts), state).astype(jnp.int32)
        return result(params, state, action, following, known)

    def step(key: Key, params: Params, belief: Array, action: Array) -> tuple[Array, Outcome]:
        checks.same_shape("action", jnp.shape(action), spec.action.shape, "the model's spec")
        if not stochastic:
            return likeliest(params, belief, action)
        counts, known = chances(params, belief, actions.index(action))
        # Inverse of the distribution function; strictly below the total, so that the state found has a chance.
        edges = jnp.cumsum(counts)
        point = jnp.minimum(jax.random.uniform(key) * edges[-1], jnp.nextafter(edges[-1], jnp.float32(0.0)))
        following = jnp.sum(edges <= point, dtype=jnp.int32)
        return result(params, belief, action, following, known)

    def step_many(key: Key, params: Params, beliefs: Array, actions: Array) -> tuple[Array, Outcome]:
        keys = jax.random.split(key, beliefs.shape[0])
        return jax.vmap(step, in_axes=(0, None, 0, 0))(keys, params, beliefs, actions)

    def predict(params: Params, belief: Array, action: Array) -> Prediction:
        """Moments over the states' centres; a deterministic table has none but the mean."""
        if not stochastic:
            following, outcome = likeliest(params, belief, action)
            mean = decode(params, following).astype(jnp.float32)
            return Prediction(mean, jnp.zeros_like(mean), outcome.reward, jnp.zeros(()))
        choice = actions.index(action)
        counts, _ = chances(params, belief, choice)
        share = counts / jnp.sum(counts)
        places = params.weights.centre
        mean = jnp.tensordot(share, places, 1, precision="highest")
        std = jnp.sqrt(jnp.tensordot(share, (places - mean) ** 2, 1, precision="highest"))
        if reward is None:
            value = params.weights.reward[belief, choice]
            spread = jnp.sqrt(jnp.maximum(params.weights.reward_square[belief, choice] - value**2, 0.0))
            return Prediction(mean, std, value, spread)
        value = jax.vmap(lambda place: reward(decode(params, belief), action, place))(places.astype(spec.obs_dtype))
        mean_value = jnp.sum(share * value)
        return Prediction(mean, std, mean_value, jnp.sqrt(jnp.sum(share * (value - mean_value) ** 2)))

    def encode(key: Key, params: Params, belief: Array, action: Array, obs: Array, is_first: Array) -> Array:
        del key, params, belief, action, is_first
        checks.same_shape("obs", obs.shape, spec.obs_shape, "the model's spec")
        return cells.index(obs)

    def initial(params: Params) -> Array:
        del params
        return jnp.zeros((), jnp.int32)

    def features(params: Params, belief: Array) -> Array:
        del params
        return jax.nn.one_hot(belief, size)

    def set_stats(params: Params, transitions: Any, mask: Array) -> Params:
        del transitions, mask
        return params

    return Model(
        init=init, initial=initial, encode=encode, step=step, step_many=step_many, features=features, decode=decode,
        loss=None, set_stats=set_stats, predict=predict, fit=fit, expect=jax.vmap(likeliest, in_axes=(None, 0, 0)),
        no_gradient="a table has no derivative by the action",
    )  # fmt: skip


def _count(cells: Cells, actions: Cells, rows: Transition, weight: Array) -> tuple[Table, tuple[Array, Array, Array]]:
    """The table of rows counted ``weight`` times; and each row's place in it."""
    rows = counted(rows, weight)
    state, following = jax.vmap(cells.index)(rows.obs), jax.vmap(cells.index)(rows.next_obs)
    place = (state, jax.vmap(actions.index)(rows.action), following)
    zeros = jnp.zeros((cells.count, actions.count, cells.count))
    moved = zeros.at[place].add(weight)
    visits = jnp.sum(moved, axis=2)

    def mean(value: Array) -> Array:
        total = jnp.zeros_like(visits).at[place[:2]].add(weight * value)
        return total / jnp.where(visits > 0, visits, 1.0)

    both = jnp.concatenate([rows.obs, rows.next_obs]).astype(jnp.float32)
    centre = _mean_seen(cells, jnp.concatenate([state, following]), both, jnp.tile(weight, 2))
    ended = zeros.at[place].add(weight * rows.terminated)
    return Table(moved, ended, mean(rows.reward), mean(rows.reward**2), centre), place


def _mean_seen(cells: Cells, state: Array, obs: Array, weight: Array) -> Array:
    """``[S, ...]``: summed as deviations from the centres, so that large offsets keep their digits."""
    start = _all_centres(cells)
    column = (-1, *(1,) * (obs.ndim - 1))
    away = jnp.zeros_like(start).at[state].add(weight.reshape(column) * (obs - start[state]))
    count = jnp.zeros(cells.count).at[state].add(weight)
    return start + away / jnp.where(count > 0, count, 1.0).reshape(column)


def _all_centres(cells: Cells) -> Array:
    return jax.vmap(cells.centre)(jnp.arange(cells.count, dtype=jnp.int32))


def _refuse_large(states: int, actions: int, obs_size: int) -> None:
    for what, entries in ((f"{states} x {actions} x {states}", states**2 * actions), ("decoding", states * obs_size)):
        if entries > _MOST:
            raise ValueError(
                f"a table of {states} states and {actions} actions needs {entries} entries ({what}), at most {_MOST}: "
                "use fewer bins, or a model that is not a table"
            )
