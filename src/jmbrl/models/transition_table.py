"""A table that learns row by row and grows with pairs, not with pairs times states."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.types import Array, Cells, Key, Model, Outcome, Params, Prediction, Spec, Successors, Transition


class Outcomes(NamedTuple):
    """The outcomes that are remembered, ``[S, A, K]`` each (``[K]`` of one pair).

    Attributes:
      state: ``int32``, where it led.
      count: how often; 0 where the place is free.
      reward: the mean of what it paid.
      ended: the share of times that the episode terminated.
    """

    state: Array
    count: Array
    reward: Array
    ended: Array


def transition_table(spec: Spec, cells: Cells, *, outcomes: int = 1) -> Model:
    """The model of the textbook's Dyna-Q: for every pair ``(s, a)`` what it led to, learned one row at a time.

    ``outcomes=1`` is a deterministic world: what was last seen replaces what was known. With more, the different next
    states of a pair are counted, and ``step`` draws among them by their frequency; where more than ``outcomes`` have
    been seen the rarest one is forgotten. A pair that was never seen stays where it is with reward 0 and sets
    ``Outcome.clipped`` (Dyna-Q+'s account of untried actions).

    Compared with ``tabular``: that one counts all ``S x A x S`` transitions, is fitted to a replay, and has priors.

    Args:
      spec: with discrete actions.
      cells: how observations are numbered; the belief is the number, ``int32``.
      outcomes: next states remembered per pair, at least 1.

    Returns:
      A ``Model`` with ``observe``; ``fit`` is ``observe`` over all rows, from nothing.

    Raises:
      ValueError: continuous actions, or ``outcomes`` below 1.

    Source: Sutton & Barto 2018, section 8.2 (deterministic) and 8.5 (the estimated distribution).
    """
    choices = checks.discrete("transition_table", spec.action, "envs.discretise with action_bins").n
    kept = checks.integer("outcomes", outcomes, 1)
    size = cells.count

    def init(key: Key) -> Params:
        del key
        zeros = jnp.zeros((size, choices, kept))
        return Params(Outcomes(zeros.astype(jnp.int32), zeros, zeros, zeros), ())

    def learn(table: Outcomes, rows: Transition, weight: Array) -> Outcomes:
        states, following = jax.vmap(cells.index)(rows.obs), jax.vmap(cells.index)(rows.next_obs)
        rows = rows._replace(obs=states, next_obs=following)
        return jax.lax.scan(lambda table, row: (_learn(table, *row), None), table, (rows, weight))[0]

    def observe(params: Params, rows: Transition, valid: Array) -> Params:
        return params._replace(weights=learn(params.weights, rows, valid.astype(jnp.float32)))

    def fit(key: Key, params: Params, rows: Transition, weight: Array) -> tuple[Params, dict[str, Array]]:
        del params
        new = init(key)
        table = learn(new.weights, rows, weight)
        seen = jnp.mean(jnp.any(table.count > 0, axis=-1), dtype=jnp.float32)
        return new._replace(weights=table), {"seen": seen}

    def result(params: Params, state: Array, action: Array, slot: Array) -> tuple[Array, Outcome]:
        known = successors(params.weights, state, action)
        unseen = params.weights.count[state, action, slot] == 0
        outcome = Outcome(known.reward[slot], known.discount[slot], jnp.zeros(0), unseen)
        return known.state[slot], outcome

    def likeliest(params: Params, state: Array, action: Array) -> tuple[Array, Outcome]:
        return result(params, state, action, jnp.argmax(params.weights.count[state, action]))

    def step(key: Key, params: Params, belief: Array, action: Array) -> tuple[Array, Outcome]:
        checks.same_shape("action", jnp.shape(action), (), "the model's spec")
        if kept == 1:
            return result(params, belief, action, jnp.zeros((), jnp.int32))
        # Inverse of the distribution function; the first place is never beyond it.
        edges = jnp.cumsum(params.weights.count[belief, action])
        slot = jnp.sum(edges <= jax.random.uniform(key) * edges[-1])
        return result(params, belief, action, jnp.minimum(jnp.where(edges[-1] > 0, slot, 0), kept - 1))

    def step_many(key: Key, params: Params, beliefs: Array, actions: Array) -> tuple[Array, Outcome]:
        if kept == 1:
            return jax.vmap(step, in_axes=(None, None, 0, 0))(key, params, beliefs, actions)
        return jax.vmap(step, in_axes=(0, None, 0, 0))(
            jax.random.split(key, beliefs.shape[0]), params, beliefs, actions
        )

    def decode(params: Params, belief: Array) -> Array:
        del params
        return cells.centre(belief).astype(spec.obs_dtype)

    def predict(params: Params, belief: Array, action: Array) -> Prediction:
        known = successors(params.weights, belief, action)
        places = jax.vmap(cells.centre)(known.state).astype(jnp.float32)
        weighted = lambda x: jnp.tensordot(known.chance, x, 1, precision="highest")  # noqa: E731
        mean, reward = weighted(places), weighted(known.reward)
        std, spread = jnp.sqrt(weighted((places - mean) ** 2)), jnp.sqrt(weighted((known.reward - reward) ** 2))
        return Prediction(mean, std, reward, spread)

    def encode(key: Key, params: Params, belief: Array, action: Array, obs: Array, is_first: Array) -> Array:
        del key, params, belief, action, is_first
        checks.same_shape("obs", obs.shape, spec.obs_shape, "the model's spec")
        return cells.index(obs)

    return Model(
        init=init,
        initial=lambda params: jnp.zeros((), jnp.int32),
        encode=encode,
        step=step,
        step_many=step_many,
        features=lambda params, belief: jax.nn.one_hot(belief, size),
        decode=decode,
        loss=None,
        set_stats=lambda params, transitions, mask: params,
        predict=predict,
        fit=fit,
        expect=jax.vmap(likeliest, in_axes=(None, 0, 0)),
        no_gradient="a table has no derivative by the action",
        observe=observe,
    )


def successors(table: Outcomes, state: Array, action: Array) -> Successors:
    """What one pair leads to, ``[K]``; a pair that was never seen stays where it is, for sure and for nothing."""
    row = Outcomes(*(x[state, action] for x in table))
    total = jnp.sum(row.count, axis=-1, keepdims=True)
    first = jnp.arange(row.count.shape[-1]) == 0
    chance = jnp.where(total > 0, row.count / jnp.maximum(total, 1e-30), first)
    following = jnp.where(row.count > 0, row.state, jnp.asarray(state)[..., None])
    return Successors(chance, following, row.reward, 1.0 - row.ended)


def seen(table: Outcomes) -> Array:
    """``bool[S, A]``: which pairs have been tried."""
    return table.count[..., 0] > 0  # a pair's first outcome takes its first place, and none is ever emptied


def _learn(table: Outcomes, row: Transition, weight: Array) -> Outcomes:
    """One row of numbered states, counted ``weight`` times (0: not at all, and its values may be anything)."""
    pair = (row.obs, row.action)
    old = Outcomes(*(x[pair] for x in table))
    same = (old.count > 0) & (old.state == row.next_obs)
    # The same outcome's place, else a free one (its count is 0), else the rarest one's.
    slot = jnp.argmin(jnp.where(same, -1.0, old.count))
    repeated = same[slot] & (old.count.shape[0] > 1)  # with a single place the last row is all that counts
    count = jnp.where(repeated, old.count[slot] + weight, weight)
    rate = weight / jnp.maximum(count, 1e-30)
    reward = jnp.where(repeated, old.reward[slot], 0.0)
    ended = jnp.where(repeated, old.ended[slot], 0.0)
    new = Outcomes(
        row.next_obs,
        count,
        reward + rate * (row.reward - reward),
        ended + rate * (row.terminated - ended),
    )
    place = (*pair, slot)
    return Outcomes(*(x.at[place].set(jnp.where(weight > 0, n, x[place])) for x, n in zip(table, new, strict=True)))
