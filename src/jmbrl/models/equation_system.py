"""What ``equations`` and ``residual`` are made of: a state that moves by known equations and learns its numbers."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.data import normalizer
from jmbrl.data.normalizer import Normalizer
from jmbrl.models import state_space
from jmbrl.models.parameters import Bounds, Parameter, draw, penalty, physical
from jmbrl.models.paths import Paths, cut, likeliest
from jmbrl.models.state_space import Frame
from jmbrl.networks import fast_normal
from jmbrl.types import Array, DataKind, Key, Model, Outcome, Params, Prediction, Sequence, Transition

# A step of the optimiser moves a parameter or a spread by ten times what it moves a network's weight: one learning rate
# (about 0.01) then serves both.
PACE = 10.0
_LEAST_SPREAD = 1e-4  # of the data's: without noise a likelihood would go up for ever


class EquationsStats(NamedTuple):
    """``obs``: of the observations. ``change``: ``float32[S]``, size of the state's change in one step. ``count``: rows
    seen, which the priors are weighed against. ``bounds``: of the parameters, per name."""

    obs: Normalizer
    change: Array
    count: Array
    bounds: Bounds


class Correction(NamedTuple):
    """What ``residual`` adds: ``init(key) -> weights``; ``apply(weights, obs[D] normalised, action) -> float32[S]``
    in units of the state's change; ``penalty(weights)``; ``apart``: fit the parameters as if it were not there."""

    init: Callable
    apply: Callable
    penalty: Callable
    apart: bool


@dataclasses.dataclass(frozen=True)
class System:
    """Static facts of one model; made by ``models.equations``. Methods take one row unless an axis is named.

    Attributes:
      frame: spec, reward, termination.
      f, to_state, to_obs, parameters, steps, estimate_start: as in ``equations``.
      dim: entries of the state.
      correction: what ``residual`` adds to the next state, or None.
    """

    frame: Frame
    f: Callable
    to_state: Callable
    to_obs: Callable
    parameters: tuple[tuple[str, Parameter], ...]
    steps: int
    estimate_start: bool
    dim: int
    correction: Correction | None = None

    def init(self, key: Key) -> Params:
        spread, names = jnp.zeros(self.frame.dim), dict(self.parameters)
        key_theta, key_net = jax.random.split(key)
        weights = {"theta": draw(key_theta, names, PACE), "log_noise": spread, "log_std": spread}
        if self.correction is not None:
            weights |= {"correction": self.correction.init(key_net), "log_misfit": spread}
        stats = EquationsStats(normalizer.identity(self.frame.dim), jnp.ones(self.dim), jnp.zeros(()), Bounds.of(names))
        return Params(weights, stats)

    def set_stats(self, params: Params, rows: Transition, mask: Array) -> Params:
        both = jnp.concatenate([rows.obs, rows.next_obs])
        obs = normalizer.fit(both, jnp.concatenate([mask, mask]), params.stats.obs)
        values = self.values(params)

        def moved(obs: Array, action: Array) -> Array:
            state = self.to_state(obs)
            return self.f(state, action, values) - state

        count = jnp.sum(mask, dtype=jnp.float32)
        change = jnp.where(mask[:, None], jax.vmap(moved)(rows.obs, rows.action), 0.0)
        change = jnp.sqrt(jnp.sum(change**2, axis=0) / jnp.maximum(count, 1.0))
        usable = jnp.isfinite(change) & (change > 0) & (count > 0)
        return params._replace(
            stats=params.stats._replace(obs=obs, change=jnp.where(usable, change, params.stats.change), count=count)
        )

    def values(self, params: Params) -> dict[str, Array]:
        return physical(params.weights["theta"], params.stats.bounds, PACE)

    def spread(self, params: Params, name: str) -> Array:
        """A learned standard deviation in the observation's units; it starts at that of the data."""
        return params.stats.obs.std * _relative(params, name)

    def advance(self, params: Params, state: Array, action: Array) -> Array:
        """The next state."""
        following = self.f(state, action, self.values(params))
        if self.correction is None:
            return following
        seen = normalizer.normalize(params.stats.obs, self.to_obs(state))
        return following + params.stats.change * self.correction.apply(params.weights["correction"], seen, action)

    def mean(self, params: Params, obs: Array, action: Array) -> Array:
        """The next observation."""
        return self.to_obs(self.advance(params, self.to_state(obs), action))

    def expect(self, params: Params, beliefs: Array, actions: Array) -> tuple[Array, Outcome]:
        return self._outcome(params, beliefs, actions, jax.vmap(self.mean, (None, 0, 0))(params, beliefs, actions))

    def step_many(self, key: Key, params: Params, beliefs: Array, actions: Array) -> tuple[Array, Outcome]:
        mean = jax.vmap(self.mean, (None, 0, 0))(params, beliefs, actions)
        noise = self.spread(params, "log_std") * fast_normal(key, mean.shape)
        return self._outcome(params, beliefs, actions, mean + noise)

    def step(self, key: Key, params: Params, belief: Array, action: Array) -> tuple[Array, Outcome]:
        checks.same_shape("action", jnp.shape(action), self.frame.spec.action.shape, "the model's spec")
        return jax.tree.map(lambda x: x[0], self.step_many(key, params, belief[None], jnp.asarray(action)[None]))

    def predict(self, params: Params, belief: Array, action: Array) -> Prediction:
        mean = self.mean(params, belief, jnp.asarray(action))
        reward = jnp.nan if self.frame.reward is None else self.frame.reward(belief, action, mean)
        return Prediction(mean, self.spread(params, "log_std"), jnp.asarray(reward, jnp.float32), jnp.zeros(()))

    def _outcome(self, params: Params, obs: Array, actions: Array, following: Array) -> tuple[Array, Outcome]:
        target = following
        if self.frame.reward is None:  # unknown, not zero: a planner has to notice
            target = jnp.concatenate([following, jnp.full((obs.shape[0], 1), jnp.nan)], axis=1)
        return self.frame.outcome(params.stats, obs, actions, target, jnp.zeros(obs.shape[0]))  # pyright: ignore[reportArgumentType]

    # ------------------------------------------------------------------------------------------- learning

    def loss(self, key: Key, params: Params, batch: Sequence) -> tuple[Array, dict[str, Array]]:
        del key
        rows = jnp.maximum(params.stats.count, 1.0)
        priors = penalty(params.weights["theta"], params.stats.bounds, dict(self.parameters), PACE)
        spread, error = self.spread_loss(params, batch)
        info = {"mse": error, "prior": priors}
        fit = spread + priors / rows
        joint = params
        if self.correction is not None:
            fit = fit + self.correction.penalty(params.weights["correction"]) / rows
            if self.correction.apart:
                alone = params.weights | {"log_noise": params.weights["log_misfit"]}
                fit = fit + dataclasses.replace(self, correction=None).path_loss(Params(alone, params.stats), batch)[0]
                held = jax.lax.stop_gradient(params.weights["theta"])
                joint = Params(params.weights | {"theta": held}, params.stats)
        likelihood, more = self.path_loss(joint, batch)
        return fit + likelihood, info | more

    def path_loss(self, params: Params, batch: Sequence) -> tuple[Array, dict[str, Array]]:
        """The mean over readings of their negative log-likelihood, given their paths."""
        paths = cut(batch, self.steps, params.stats.obs.mean)
        # The best start is a minimum of the same errors: by the envelope theorem its derivative adds nothing.
        starts = jax.lax.stop_gradient(jax.vmap(self.start, (None, 0))(params, paths))
        errors, weight = jax.vmap(self.errors, (None, 0, 0))(params, starts, paths)
        terms = 0.5 * errors**2 + jnp.log(_relative(params, "log_noise"))
        total = jnp.maximum(jnp.sum(weight), 1.0)
        nll = jnp.sum(weight[..., None] * terms) / total
        return nll, {"nll": nll, "path_error": jnp.sqrt(jnp.sum(weight[..., None] * errors**2) / total)}

    def errors(self, params: Params, start: Array, path: Paths) -> tuple[Array, Array]:
        """``[k + 1, D]``, readings minus the path from ``start``, in standard deviations of a reading; ``[k + 1]``."""

        def body(state: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
            action, alive = inputs
            following = jnp.where(alive, self.advance(params, state, action), state)
            return following, self.to_obs(following)

        _, seen = jax.lax.scan(body, start, (path.actions, path.alive))
        seen = jnp.concatenate([self.to_obs(start)[None], seen])
        read = jnp.concatenate([path.first[None], path.later])
        # The first reading counts where its path has a second one.
        weight = jnp.concatenate([path.alive[:1], path.alive]).astype(jnp.float32)
        errors = jnp.where(weight[:, None] > 0, read - seen, 0.0)
        return errors / self.spread(params, "log_noise"), weight

    def start(self, params: Params, path: Paths) -> Array:
        """The first state of a path: what was measured or, where it is estimated, the likeliest."""
        measured = self.to_state(path.first)
        if not self.estimate_start:
            return measured
        return likeliest(measured, lambda state: self.errors(params, state, path)[0].ravel())

    def spread_loss(self, params: Params, batch: Sequence) -> tuple[Array, Array]:
        """What teaches ``predict`` its spread: errors of one step from a measured state; and their mean square."""
        rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch.transition)
        mask = batch.mask.reshape(-1).astype(jnp.float32)
        mean = jax.lax.stop_gradient(jax.vmap(self.mean, (None, 0, 0))(params, rows.obs, rows.action))
        square = jnp.where(mask[:, None] > 0, (rows.next_obs - mean) ** 2, 0.0)
        square = jnp.sum(square, axis=0) / jnp.maximum(jnp.sum(mask), 1.0)
        spread = self.spread(params, "log_std")
        return jnp.sum(0.5 * square / spread**2 + jnp.log(_relative(params, "log_std"))), jnp.mean(square)

    def model(self) -> Model:
        belief: dict[str, Any] = state_space.identity_belief(self.frame.dim)
        return Model(
            init=self.init, step=self.step, step_many=self.step_many, loss=self.loss, set_stats=self.set_stats,
            predict=self.predict, expect=self.expect, data_kind=DataKind.SEQUENCES, **belief,
        )  # fmt: skip


def _relative(params: Params, name: str) -> Array:
    """A spread as a share of the data's."""
    return jnp.exp(PACE * params.weights[name]) + _LEAST_SPREAD
