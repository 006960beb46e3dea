"""A recurrent model of observations: a deterministic memory and a Gaussian over the next observation."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.models import heads, state_space
from jmbrl.models.multistep import begins, masked_mean, valid_rows
from jmbrl.networks import apply_dense, fast_normal, gru, init_dense, swish
from jmbrl.types import Array, DataKind, Key, Model, Outcome, Params, Prediction, Spec, Transition
from jmbrl.types import Sequence as Window


class RecurrentBelief(NamedTuple):
    """``memory``: ``float32[..., memory]``, of all that was seen, ``obs`` included. ``obs``: the last observation."""

    memory: Array
    obs: Array


def recurrent(
    spec: Spec,
    *,
    memory: int = 128,
    hidden: Sequence[int] = (128,),
    reward: Callable | None = None,
    termination: Callable | str | None = None,
    predict_change: bool = True,
    absolute: tuple[int, ...] = (),
    angles: tuple[int, ...] = (),
    exogenous: tuple[int, ...] = (),
    forecast: Callable | None = None,
    normalize_targets: bool = True,
    preprocess: Callable | None = None,
    postprocess: Callable | None = None,
    activation: Callable = swish,
    weight_decay: float | Sequence[float] = 0.0,
    learn_logvar_bounds: bool = True,
    clip_range: float | None = 2.0,
) -> Model:
    r"""A gated recurrent unit that filters observations, and a network that predicts the next one from its memory.

    .. math:: h_t = \mathrm{GRU}(h_{t-1}, [o_t, a_{t-1}]), \quad
              y_t \sim N(\mu(h_t, o_t, a_t), \sigma^2(h_t, o_t, a_t)), \quad h_{-1} = 0,\ a_{-1} = 0

    with the targets ``y`` of ``gaussian_mlp`` (the change of the observation, and the reward where it is learned),
    divided by their spread in the data. ``encode`` feeds the memory what was seen, imagination the observation it has
    just drawn itself: both do the same. There is no latent variable: noise enters through the drawn observation alone.

    The loss is ``gaussian_mlp``'s on every valid row of a window (teacher forcing: ``h_t`` filters what was seen),
    its gradient through time as long as the window; the last row of an episode trains its step as any other. A window
    that begins inside an episode begins with an empty memory, as if the agent had just woken up there.

    Memories of different weights do not understand each other, while an ensemble has one belief for all its members,
    so it refuses this model: put ``history`` into an ensemble instead.

    Args:
      spec: the environment's; vector observations, any actions.
      memory: entries of the memory. hidden: widths of the prediction's hidden layers.
      weight_decay: of the prediction's layers, one number or ``len(hidden) + 1``.
      others: as in ``gaussian_mlp``.

    Returns:
      A ``Model`` with belief ``RecurrentBelief`` for ``models.sequence_trainer``.

    Raises:
      ValueError: ``memory`` below 1, and what ``gaussian_mlp`` refuses.

    Source: Cho et al. 2014 (arXiv 1406.1078) for the unit; Chiappa et al. 2017, Recurrent environment simulators (arXiv
    1704.02254), for observation- and prediction-dependent transitions.
    """
    frame = state_space.frame(
        "recurrent", spec, reward, termination, predict_change, absolute, preprocess, postprocess, clip_range,
        angles, exogenous, forecast, normalize_targets,
    )  # fmt: skip
    memory = checks.integer("memory", memory, 1)
    decay = heads.decays(weight_decay, len(hidden))
    n = frame.targets
    inputs, *rest = heads.sizes(frame, hidden, 2 * n)
    features = frame.inputs - frame.actions
    bounds = heads.LogVarianceBounds(n, learn_logvar_bounds)

    def init(key: Key) -> Params:
        key_in, key_memory, key_head = jax.random.split(key, 3)
        weights = {
            "input": init_dense(key_in, (inputs, 3 * memory)),
            "recurrent": init_dense(key_memory, (memory, 3 * memory)),
            "layers": init_dense(key_head, (memory + inputs, *rest)),
        }
        return Params(weights | bounds.init(), frame.empty_stats())

    def seen(params: Params, action: Array, obs: Array, first: Array) -> Array:
        """The gates' part that does not depend on the memory, ``[N, 3 memory]``; no action where ``first``."""
        x = frame.normalized_inputs(params.stats, obs, action)
        acted = jnp.where(first[:, None], 0.0, x[:, features:])
        return apply_dense(params.weights["input"], jnp.concatenate([x[:, :features], acted], axis=-1))

    def forward(params: Params, memories: Array, obs: Array, action: Array) -> tuple[Array, Array, Array]:
        x = jnp.concatenate([memories, frame.normalized_inputs(params.stats, obs, action)], axis=-1)
        out = apply_dense(params.weights["layers"], x, activation)
        return out[:, :n], out[:, n : 2 * n], out[:, -1]

    def initial(params: Params) -> RecurrentBelief:
        del params
        return RecurrentBelief(jnp.zeros(memory), jnp.zeros(frame.dim))

    def encode(key: Key, params: Params, belief: RecurrentBelief, action: Array, obs: Array, is_first: Array):
        del key
        checks.same_shape("obs", obs.shape, spec.obs_shape, "the model's spec")
        before = jnp.where(is_first, 0.0, belief.memory)
        gates = seen(params, jnp.asarray(action)[None], obs[None], jnp.asarray(is_first)[None])
        return RecurrentBelief(gru(params.weights["recurrent"][0], before[None], gates)[0], obs)

    def follow(params: Params, beliefs: RecurrentBelief, actions: Array, y: Array, logit: Array):
        obs, outcome = frame.outcome(params.stats, beliefs.obs, actions, frame.unscaled(params.stats, y), logit)
        gates = seen(params, actions, obs, jnp.zeros(obs.shape[0], bool))
        return RecurrentBelief(gru(params.weights["recurrent"][0], beliefs.memory, gates), obs), outcome

    def step_many(key: Key, params: Params, beliefs: RecurrentBelief, actions: Array):
        mean, raw, logit = forward(params, beliefs.memory, beliefs.obs, actions)
        y = mean + jnp.sqrt(bounds.variance(params.weights, raw)) * fast_normal(key, mean.shape)
        return follow(params, beliefs, actions, y, logit)

    def expect(params: Params, beliefs: RecurrentBelief, actions: Array):
        mean, _, logit = forward(params, beliefs.memory, beliefs.obs, actions)
        return follow(params, beliefs, actions, mean, logit)

    def step(key: Key, params: Params, belief: RecurrentBelief, action: Array) -> tuple[RecurrentBelief, Outcome]:
        checks.same_shape("action", jnp.shape(action), spec.action.shape, "the model's spec")
        rows = jax.tree.map(lambda x: jnp.asarray(x)[None], (belief, action))
        return jax.tree.map(lambda x: x[0], step_many(key, params, *rows))

    def predict(params: Params, belief: RecurrentBelief, action: Array) -> Prediction:
        obs, act = belief.obs[None], jnp.asarray(action)[None]
        mean, raw, _ = forward(params, belief.memory[None], obs, act)
        std = jnp.sqrt(bounds.variance(params.weights, raw))
        moments = frame.unscaled(params.stats, mean), frame.unscaled(params.stats, std)
        return jax.tree.map(lambda x: x[0], frame.prediction(obs, act, *moments))

    def filtered(params: Params, batch: Window) -> Array:
        """``float32[B, T, memory]``: the memory after each row's ``obs``."""
        rows, first = batch.transition, begins(batch)
        previous = jnp.concatenate([jnp.zeros_like(rows.action[:, :1]), rows.action[:, :-1]], axis=1)
        gates = seen(params, *(_flat(x) for x in (previous, rows.obs, first))).reshape(*first.shape, -1)

        def body(before: Array, inputs: tuple) -> tuple[Array, Array]:
            gates, first = inputs
            after = gru(params.weights["recurrent"][0], jnp.where(first[:, None], 0.0, before), gates)
            return after, after

        empty = jnp.zeros((first.shape[0], memory))
        _, memories = jax.lax.scan(body, empty, (jnp.moveaxis(gates, 1, 0), first.T))
        return jnp.moveaxis(memories, 0, 1)

    def loss(key: Key, params: Params, batch: Window) -> tuple[Array, dict]:
        del key
        batch = valid_rows(batch)
        mask = _flat(batch.mask)
        rows: Transition = jax.tree.map(_flat, batch.transition)
        mean, raw, logit = forward(params, _flat(filtered(params, batch)), rows.obs, rows.action)
        var = bounds.variance(params.weights, raw)
        error = (mean - frame.scaled(params.stats, frame.target(rows))) ** 2
        nll = masked_mean(jnp.mean(error / var + jnp.log(var), axis=-1), mask)
        end = jnp.zeros(())
        if frame.learns_end:
            end = masked_mean(jax.nn.softplus(logit) - rows.terminated.astype(jnp.float32) * logit, mask)
        info = {"mse": masked_mean(jnp.mean(error, axis=-1), mask), "nll": nll, "end_loss": end}
        penalty = heads.penalty(params.weights["layers"], decay)
        return nll + penalty + bounds.width(params.weights) + end, info

    return Model(
        init=init, initial=initial, encode=encode, step=step, step_many=step_many, features=_features,
        decode=lambda params, belief: belief.obs, loss=loss, set_stats=frame.fit_stats, predict=predict, expect=expect,
        data_kind=DataKind.SEQUENCES, own_belief=True,
    )  # fmt: skip


def _features(params: Params, belief: RecurrentBelief) -> Array:
    del params
    return jnp.concatenate([belief.memory, belief.obs], axis=-1)


def _flat(x: Array) -> Array:
    return x.reshape(-1, *x.shape[2:])
