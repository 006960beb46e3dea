"""A memory of fixed length: any network model over the last few observations and actions."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.models.coordinates import Coordinates, coordinates
from jmbrl.models.multistep import begins, masked_mean, row_losses, valid_rows
from jmbrl.types import (
    Array,
    Continuous,
    DataKind,
    Key,
    Model,
    Outcome,
    Params,
    Prediction,
    Sequence,
    Spec,
    Transition,
)


class HistoryBelief(NamedTuple):
    """The last ``k`` observations and the ``k - 1`` actions between them, newest first.

    Attributes:
      frames: ``float32[k, D]``; before ``k`` were seen, the first one again.
      actions: ``float32[k - 1, A]`` (one-hot where discrete); 0 where there was none.
      seen: ``float32``, how many of the frames are no repetition, at most ``k``.
    """

    frames: Array
    actions: Array
    seen: Array


def history(
    make: Callable[..., Model],
    spec: Spec,
    frames: int,
    *,
    reward: Callable | None = None,
    termination: Callable | str | None = None,
    predict_change: bool = True,
    absolute: tuple[int, ...] = (),
    angles: tuple[int, ...] = (),
    exogenous: tuple[int, ...] = (),
    forecast: Callable | None = None,
    preprocess: Callable | None = None,
    postprocess: Callable | None = None,
    **options: Any,
) -> Model:
    r"""A model of ``k = frames`` stacked observations, for worlds whose one observation does not tell the state.

    The belief is :math:`(o_t, \dots, o_{t-k+1}; a_{t-1}, \dots, a_{t-k+1})` and how many of the frames are real.
    ``make`` builds a model over the vector of all that, of which only the newest frame is predicted; a step puts the
    predicted frame in front. ``encode`` does the same with what was really seen. ``decode`` gives the newest frame.

    The loss is ``make``'s on the rows of a window, each stacked with its predecessors in the window. The first
    ``k - 1`` rows of a window, whose predecessors lie outside it, are left out; after the start of an episode *inside*
    the window rows are stacked with repetitions of its first frame, as ``encode`` does. Statistics are those of single
    frames and actions, repeated.

    Args:
      make: ``models.gaussian_mlp``, ``deterministic_mlp`` or ``mixture_mlp``.
      spec: the environment's.
      frames: ``k``, at least 1.
      reward, termination, postprocess: as in ``gaussian_mlp``, functions of the newest frame.
      preprocess: applied to every frame; None: sines and cosines of ``angles``, the rest as it is.
      predict_change, absolute, angles, exogenous, forecast: as in ``gaussian_mlp``, of the newest frame.
      **options: for ``make``, as ``hidden=(200, 200)``.

    Returns:
      A ``Model`` with belief ``HistoryBelief`` for ``models.sequence_trainer`` with ``length`` at least ``k + 1``,
      alone or in ``ensemble``.

    Raises:
      ValueError: ``frames`` below 1, images, a ``make`` that is not trained on rows, and what ``make`` refuses; when
        the loss is first traced, windows shorter than ``k + 1``.

    Source: Mnih et al. 2015 (stacked frames); Nagabandi et al. 2020, PDDM, for states with their predecessors.
    """
    k = checks.integer("frames", frames, 1)
    if len(spec.obs_shape) != 1 or spec.obs_dtype != "float32":
        raise ValueError(f"history needs a vector observation of float32, got {spec.obs_shape} of {spec.obs_dtype}")
    for name, function in (("reward", reward), ("termination", termination)):
        if callable(function):
            checks.row_function(name, function, spec)
    dim = spec.obs_shape[0]
    stack = _Stack(spec, k, coordinates(dim, predict_change, absolute, angles, exogenous, forecast))
    inner = make(
        dataclasses.replace(spec, obs_shape=(stack.width,), obs_names=(), obs_parts=()),
        reward=_on_newest(reward, dim),
        termination=_on_newest(termination, dim) if callable(termination) else termination,
        predict_change=predict_change,
        absolute=tuple(i % dim for i in absolute),
        angles=stack.entries.angles,
        exogenous=(*stack.entries.exogenous, *range(dim, stack.width)),
        forecast=forecast and (lambda row: jnp.concatenate([forecast(row[:dim]), row[dim:]])),
        preprocess=stack.inputs(preprocess),
        postprocess=postprocess and (lambda row: jnp.concatenate([postprocess(row[:dim]), row[dim:]])),
        **options,
    )
    if inner.members or inner.loss is None or inner.data_kind is not DataKind.ROWS:
        raise ValueError("make must give a single model with a loss of rows: put ensemble around history")

    def initial(params: Params) -> HistoryBelief:
        del params
        return HistoryBelief(jnp.zeros((k, dim)), jnp.zeros((k - 1, stack.action)), jnp.zeros(()))

    def encode(key: Key, params: Params, belief: HistoryBelief, action: Array, obs: Array, is_first: Array):
        del key, params
        checks.same_shape("obs", obs.shape, (dim,), "the model's spec")
        start = HistoryBelief(jnp.tile(obs, (k, 1)), jnp.zeros_like(belief.actions), jnp.ones(()))
        later = stack.shift(belief, action, obs)
        return jax.tree.map(lambda a, b: jnp.where(is_first, a, b), start, later)

    def ahead(beliefs: HistoryBelief, actions: Array, rows: Array) -> HistoryBelief:
        return jax.vmap(stack.shift)(beliefs, actions, rows[:, :dim])

    def step_many(key: Key, params: Params, beliefs: HistoryBelief, actions: Array):
        rows, outcome = inner.step_many(key, params, jax.vmap(stack.row)(beliefs), actions)
        return ahead(beliefs, actions, rows), outcome

    def expect(params: Params, beliefs: HistoryBelief, actions: Array) -> tuple[HistoryBelief, Outcome]:
        rows, outcome = inner.expect(params, jax.vmap(stack.row)(beliefs), actions)
        return ahead(beliefs, actions, rows), outcome

    def step(key: Key, params: Params, belief: HistoryBelief, action: Array) -> tuple[HistoryBelief, Outcome]:
        row, outcome = inner.step(key, params, stack.row(belief), action)
        return stack.shift(belief, action, row[:dim]), outcome

    def predict(params: Params, belief: HistoryBelief, action: Array) -> Prediction:
        row = inner.predict(params, stack.row(belief), action)
        return row._replace(mean=row.mean[:dim], std=row.std[:dim])

    def loss(key: Key, params: Params, batch: Sequence) -> tuple[Array, dict]:
        if batch.mask.shape[1] < k + 1:
            raise ValueError(f"windows must have at least frames + 1 = {k + 1} rows, got {batch.mask.shape[1]}")
        rows, known = stack.windows(valid_rows(batch))
        value, info = row_losses(inner.loss, key, params, rows)
        mean = lambda x: masked_mean(x, known)  # noqa: E731
        return mean(value), jax.tree.map(mean, info)

    def set_stats(params: Params, rows: Transition, mask: Array) -> Params:
        return inner.set_stats(params, jax.vmap(stack.repeated)(rows), mask)

    return Model(
        init=inner.init, initial=initial, encode=encode, step=step, step_many=step_many,
        features=lambda params, belief: stack.row(belief), decode=lambda params, belief: belief.frames[0], loss=loss,
        set_stats=set_stats, predict=predict, expect=inner.expect and expect, data_kind=DataKind.SEQUENCES,
        no_gradient=inner.no_gradient,
    )  # fmt: skip


def _on_newest(function: Callable | None, dim: int) -> Callable | None:
    return function and (lambda row, action, next_row: function(row[:dim], action, next_row[:dim]))


@dataclasses.dataclass(frozen=True)
class _Stack:
    """The layout of the vector: frames, actions (both newest first), share of the frames that are real."""

    spec: Spec
    k: int
    entries: Coordinates

    @property
    def dim(self) -> int:
        return self.spec.obs_shape[0]

    @property
    def action(self) -> int:
        return self.spec.action.dim if isinstance(self.spec.action, Continuous) else self.spec.action.n

    @property
    def width(self) -> int:
        return self.k * self.dim + (self.k - 1) * self.action + (self.k > 1)

    def flat(self, action: Array) -> Array:
        return action if isinstance(self.spec.action, Continuous) else jax.nn.one_hot(action, self.action)

    def row(self, belief: HistoryBelief) -> Array:
        parts = [belief.frames.ravel(), belief.actions.ravel()]
        if self.k > 1:  # alone, the count would say nothing
            parts.append((belief.seen / self.k)[None])
        return jnp.concatenate(parts)

    def shift(self, belief: HistoryBelief, action: Array, obs: Array) -> HistoryBelief:
        frames = jnp.concatenate([obs[None], belief.frames[:-1]])
        actions = jnp.concatenate([self.flat(action)[None], belief.actions])[: self.k - 1]
        return HistoryBelief(frames, actions, jnp.minimum(belief.seen + 1, self.k))

    def inputs(self, preprocess: Callable | None) -> Callable | None:
        """What the network reads of a stacked vector."""
        each = self.entries.features if preprocess is None else jax.vmap(preprocess)
        if preprocess is None and not self.entries.angles:
            return None
        cut = self.k * self.dim
        return lambda row: jnp.concatenate([each(row[:cut].reshape(self.k, self.dim)).ravel(), row[cut:]])

    def repeated(self, row: Transition) -> Transition:
        """A row as if the same had been seen before: its statistics column by column are those of the stack."""
        actions = jnp.tile(self.flat(row.action), (self.k - 1, 1))
        belief = HistoryBelief(jnp.tile(row.obs, (self.k, 1)), actions, jnp.float32(self.k))
        return row._replace(obs=self.row(belief), next_obs=self.row(self.shift(belief, row.action, row.next_obs)))

    def windows(self, batch: Sequence) -> tuple[Transition, Array]:
        """Stacked rows ``[B, T]`` and which of them are valid and know all of their past."""
        rows, first = batch.transition, begins(batch)
        t = jnp.arange(batch.mask.shape[1])
        start = jax.lax.cummax(jnp.where(first, t, 0), axis=1)
        lag = t[:, None] - jnp.arange(self.k)  # [T, k]
        source = jnp.maximum(lag, start[:, :, None])
        frames = jax.vmap(lambda obs, index: obs[index])(rows.obs, source)
        acted = lag[:, 1:] >= start[:, :, None]
        actions = jax.vmap(lambda action, index: action[index])(self.flat(rows.action), source[:, :, 1:])
        seen = jnp.minimum(t - start + 1, self.k).astype(jnp.float32)
        belief = HistoryBelief(frames, jnp.where(acted[..., None], actions, 0.0), seen)
        each = lambda f: jax.vmap(jax.vmap(f))  # noqa: E731
        following = each(self.shift)(belief, rows.action, rows.next_obs)
        stacked = rows._replace(obs=each(self.row)(belief), next_obs=each(self.row)(following))
        return stacked, batch.mask & ((start > 0) | (t >= self.k - 1))
