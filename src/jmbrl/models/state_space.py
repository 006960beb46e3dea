"""What every model of an observed state shares: its inputs, its targets, and an imagined step's outcome.

The belief of such a model is the observation itself, ``float32[D]``.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.data import normalizer
from jmbrl.data.normalizer import Normalizer
from jmbrl.models.coordinates import Coordinates, coordinates
from jmbrl.types import Array, Continuous, Outcome, Params, Prediction, PyTree, Spec, Transition


class Stats(NamedTuple):
    """``inputs``: of what the network reads. ``obs``: of the observations, whose range bounds predictions.
    ``targets``: of what is predicted, where targets are normalised (only its ``std`` is used), else ``()``."""

    inputs: Normalizer
    obs: Normalizer
    targets: Normalizer | tuple = ()


@dataclasses.dataclass(frozen=True)
class Frame:
    """Static facts of one state-space model. Methods take rows, ``[N, ...]``; made by ``frame``.

    Attributes:
      spec: the environment's.
      preprocess, postprocess, reward, termination, clip_range: as in ``models.gaussian_mlp``.
      coordinates: which entries are angles, given from outside, predicted by their change.
      inputs, targets: widths of the network's input and of its regression target.
      normalize_targets: whether a network predicts targets divided by their standard deviation in the data.
    """

    spec: Spec
    preprocess: Callable | None
    postprocess: Callable | None
    reward: Callable | None
    termination: Callable | str | None
    clip_range: float | None
    coordinates: Coordinates
    inputs: int
    targets: int
    normalize_targets: bool = False

    @property
    def dim(self) -> int:
        return self.spec.obs_shape[0]

    @property
    def actions(self) -> int:
        """Entries of an action as the network reads it: the last columns of its input."""
        return self.spec.action.dim if isinstance(self.spec.action, Continuous) else self.spec.action.n

    @property
    def predicted(self) -> int:
        """Entries of the observation that are predicted: the first columns of a target."""
        return len(self.coordinates.predicted)

    @property
    def learns_end(self) -> bool:
        return self.termination == "learned"

    def raw_inputs(self, obs: Array, action: Array) -> Array:
        """``float32[N, inputs]``: preprocessed observations and actions (one-hot when discrete)."""
        features = self.coordinates.features(obs) if self.preprocess is None else jax.vmap(self.preprocess)(obs)
        action = action if isinstance(self.spec.action, Continuous) else jax.nn.one_hot(action, self.spec.action.n)
        return jnp.concatenate([features, action], axis=-1)

    def normalized_inputs(self, stats: Stats, obs: Array, action: Array) -> Array:
        return normalizer.normalize(stats.inputs, self.raw_inputs(obs, action))

    def target(self, rows: Transition) -> Array:
        """``float32[N, targets]``: the change (or the next value) and, where it is learned, the reward."""
        change = self.coordinates.change(rows.obs, rows.next_obs)
        return change if self.reward is not None else jnp.concatenate([change, rows.reward[:, None]], axis=-1)

    def scaled(self, stats: Stats, target: Array) -> Array:
        """A target in the network's units."""
        return target / stats.targets.std if isinstance(stats.targets, Normalizer) else target

    def unscaled(self, stats: Stats, output: Array) -> Array:
        """A network's output, or a spread of it, in the units of ``target``."""
        return output * stats.targets.std if isinstance(stats.targets, Normalizer) else output

    def next_obs(self, obs: Array, prediction: Array) -> Array:
        """The next observation that a predicted target stands for."""
        return self.coordinates.advance(obs, prediction[:, : self.predicted])

    def prediction(self, obs: Array, action: Array, mean: Array, std: Array) -> Prediction:
        """``Prediction`` per row from the moments of the targets (in their own units)."""
        following = self.next_obs(obs, mean)
        spread = self.coordinates.deviation(std[:, : self.predicted])
        if self.reward is None:
            return Prediction(following, spread, mean[:, self.predicted], std[:, self.predicted])
        return Prediction(following, spread, jax.vmap(self.reward)(obs, action, following), jnp.zeros(obs.shape[0]))

    def outcome(
        self, stats: Stats, obs: Array, action: Array, prediction: Array, logit: Array
    ) -> tuple[Array, Outcome]:
        """The next beliefs and outcomes for predicted targets; ``logit``: of termination, where it is learned."""
        following, clipped = self._clip(stats, self.next_obs(obs, prediction))
        if self.postprocess is not None:
            following = jax.vmap(self.postprocess)(following)
        reward = prediction[:, self.predicted] if self.reward is None else jax.vmap(self.reward)(obs, action, following)
        cost = jnp.zeros((obs.shape[0], 0))
        return following, Outcome(reward, self._discount(obs, action, following, logit), cost, clipped)

    def fit_stats(self, params: Params, rows: Transition, mask: Array) -> Params:
        """``Model.set_stats``."""
        inputs = normalizer.fit(self.raw_inputs(rows.obs, rows.action), mask, params.stats.inputs)
        both = jnp.concatenate([rows.obs, rows.next_obs])
        obs = normalizer.fit(both, jnp.concatenate([mask, mask]), params.stats.obs)
        targets = params.stats.targets
        if self.normalize_targets:
            targets = normalizer.fit(self.target(rows), mask, targets)
        return params._replace(stats=Stats(inputs, obs, targets))

    def empty_stats(self) -> Stats:
        targets = normalizer.identity(self.targets) if self.normalize_targets else ()
        return Stats(normalizer.identity(self.inputs), normalizer.identity(self.dim), targets)

    def _clip(self, stats: Stats, following: Array) -> tuple[Array, Array]:
        if self.clip_range is None:
            return following, jnp.zeros(following.shape[0], bool)
        low, high = normalizer.bounds(stats.obs, self.clip_range)
        if not all(self.coordinates.bounded):
            bounded = jnp.asarray(self.coordinates.bounded)
            low, high = jnp.where(bounded, low, -jnp.inf), jnp.where(bounded, high, jnp.inf)
        # Not "outside" but "not inside": a NaN counts as clipped, and stays a NaN for the planner to see.
        inside = jnp.all((following >= low) & (following <= high), axis=-1)
        return jnp.clip(following, low, high), ~inside

    def _discount(self, obs: Array, action: Array, following: Array, logit: Array) -> Array:
        if self.termination is None:
            return jnp.ones(obs.shape[0])
        if self.learns_end:
            return jax.nn.sigmoid(-logit)
        assert not isinstance(self.termination, str)  # frame takes no other text
        return 1.0 - jax.vmap(self.termination)(obs, action, following).astype(jnp.float32)


def frame(
    user: str,
    spec: Spec,
    reward: Callable | None,
    termination: Callable | str | None,
    predict_change: bool,
    absolute: tuple[int, ...],
    preprocess: Callable | None,
    postprocess: Callable | None,
    clip_range: float | None,
    angles: tuple[int, ...] = (),
    exogenous: tuple[int, ...] = (),
    forecast: Callable | None = None,
    normalize_targets: bool = False,
) -> Frame:
    """Checks the options shared by the state-space models and works out the widths."""
    if len(spec.obs_shape) != 1 or spec.obs_dtype != "float32":
        raise ValueError(
            f"{user} needs a vector observation of float32, got shape {spec.obs_shape} of {spec.obs_dtype}; "
            "use a latent model for images"
        )
    dim = spec.obs_shape[0]
    entries = coordinates(dim, predict_change, absolute, angles, exogenous, forecast)
    if clip_range is not None:
        checks.number("clip_range", clip_range, low=0.0)
    if not callable(termination) and termination is not None:
        checks.choice("termination", termination, ("learned",))
    for name, function in (("reward", reward), ("termination", termination)):
        if callable(function):
            checks.row_function(name, function, spec)
    features = dim + len(angles)
    if preprocess is not None:
        shape = jax.eval_shape(preprocess, jax.ShapeDtypeStruct((dim,), jnp.float32)).shape
        if len(shape) != 1:
            raise ValueError(f"preprocess must return a vector, got shape {shape} for an observation of {dim}")
        features = shape[0]
    actions = spec.action.dim if isinstance(spec.action, Continuous) else spec.action.n
    targets = len(entries.predicted) + (reward is None)
    return Frame(
        spec, preprocess, postprocess, reward, termination, clip_range, entries, features + actions, targets,
        normalize_targets,
    )  # fmt: skip


def identity_belief(dim: int) -> dict[str, Callable]:
    """The ``Model`` functions of a model whose belief is the observation."""

    def initial(params: Params) -> Array:
        del params
        return jnp.zeros(dim)

    def encode(key: Array, params: Params, belief: Array, action: Array, obs: Array, is_first: Array) -> Array:
        del key, params, belief, action, is_first
        checks.same_shape("obs", obs.shape, (dim,), "the model's spec")
        return obs

    def read(params: Params, belief: PyTree) -> PyTree:
        del params
        return belief

    return {"initial": initial, "encode": encode, "features": read, "decode": read}
