"""A latent model that never reconstructs what it sees: its latents need only predict each other and what they pay."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.models.multistep import masked_mean, valid_rows
from jmbrl.networks.mish_mlp import apply_mish_mlp, init_mish_mlp
from jmbrl.networks.symlog_two_hot import SymlogTwoHot
from jmbrl.types import Array, Continuous, DataKind, Key, Model, Outcome, Params, Sequence, Spec, Transition


class Unrolled(NamedTuple):
    """Windows seen at their first row and imagined from there, time-major.

    Attributes:
      latents: ``float32[T + 1, B, L]``: the first encoded, the others predicted one from another.
      targets: ``float32[T, B, L]``: the rows' ``next_obs`` encoded, without gradient.
      rows: ``Transition[T, B]``, the window's; zeros in rows outside its mask.
      alive: ``bool[T, B]``: rows that a chain of valid rows of one episode connects to the window's first.
    """

    latents: Array
    targets: Array
    rows: Transition
    alive: Array


class DecoderFree(NamedTuple):
    """The model, and what those need who learn more from the same windows.

    Attributes:
      model: the ``Model``; its weights are ``"encoder"``, ``"dynamics"``, ``"reward"`` and perhaps ``"end"``.
      unroll: ``(weights, batch: Sequence[B, T]) -> Unrolled``.
      losses: ``(weights, unrolled) -> (loss, info)``, the model's own.
      average: ``(values[T, B], mask[T, B]) -> float32``, the mean over time of ``rho^t`` times the mean where ``mask``.
    """

    model: Model
    unroll: Callable
    losses: Callable
    average: Callable


def no_decoder(name: str) -> Callable:
    """The ``decode`` of a model that has none: refuses, and says what needs one."""

    def decode(params: Params, belief: Array) -> Array:
        raise ValueError(
            f"{name} has no decoder: its latents cannot be turned back into observations. Rewards and "
            "terminations of observations, pictures and errors of predicted observations need a model that has one"
        )

    return decode


def decoder_free(spec: Spec, **options) -> Model:
    """The model of ``decoder_free_parts``, which tells its options."""
    return decoder_free_parts(spec, **options).model


def decoder_free_parts(
    spec: Spec,
    *,
    latent: int = 512,
    encoder_hidden: int = 256,
    hidden: int = 512,
    group: int = 8,
    bins: int = 101,
    limit: float | Array = 10.0,
    learn_termination: bool = False,
    rho: float | Array = 0.5,
    consistency_scale: float | Array = 20.0,
    reward_scale: float | Array = 0.1,
    termination_scale: float | Array = 1.0,
) -> DecoderFree:
    r"""The world model of TD-MPC2: an encoder, latent dynamics and a reward, none of which sees observations again.

    .. math:: z_0 = h(o_0), \quad z_{t+1} = d(z_t, a_t), \quad \hat r_t = R(z_t, a_t)

    All latents are groups of softmaxes (``networks.simnorm``), so they cannot shrink to nothing. Over a window of ``T``
    rows that starts at any step of an episode,

    .. math:: L = \frac{1}{T} \sum_t \rho^t \big( c_z \operatorname{mean}_i (z_{t+1} - \operatorname{sg} h(o'_t))_i^2
              + c_r\, \mathrm{CE}(\hat r_t, r_t) \big) + c_d\, \mathrm{BCE}(e(z_{t+1}), \mathrm{terminated}_t)

    where the reward is a softmax over bins of its symlog. Each term is the mean over the windows that have not left
    their first row's episode at ``t`` (a terminal row still counts); the last is a mean over all such rows.

    The belief is the latent ``float32[L]``, a function of one observation. There is no ``decode``: asked for it, the
    model refuses. Alone, without a value function on the same latents, its plans see no further than their horizon.

    Args:
      spec: the environment's; vector observations, any actions.
      latent: entries of ``z``, a multiple of ``group``.
      encoder_hidden: width of the encoder's hidden layer. hidden: of the two of every other network.
      group: entries of one softmax.
      bins, limit: of the reward, as in ``learners.q_ensemble``.
      learn_termination: add a head trained on ``terminated`` only; otherwise imagination never ends.
      rho: weight of a step against the one before it, in ``[0, 1]``.
      consistency_scale, reward_scale, termination_scale: :math:`c_z, c_r, c_d`.

    Raises:
      ValueError: an observation that is no vector of floats, or a number outside its range.

    Source: Hansen et al. 2024 (TD-MPC2, arXiv 2310.16828), equations 2 to 5 and the released code. There a planned
    episode ends where the head says it is likelier than not; here ``discount`` is the probability that it goes on.
    """
    if len(spec.obs_shape) != 1 or spec.obs_dtype != "float32":
        raise ValueError(
            f"decoder_free needs vector observations of float32, got shape {spec.obs_shape} of {spec.obs_dtype}"
        )
    latent, group = checks.integer("latent", latent, 1), checks.integer("group", group, 2)
    if latent % group:
        raise ValueError(f"latent must be a multiple of group={group}, got {latent}")
    hidden, bins = checks.integer("hidden", hidden, 1), checks.integer("bins", bins, 2)
    encoder_hidden = checks.integer("encoder_hidden", encoder_hidden, 1)
    checks.number("limit", limit, 1e-6)
    checks.number("rho", rho, 0.0, 1.0)
    scales = {"consistency": consistency_scale, "reward": reward_scale, "termination": termination_scale}
    for name, value in scales.items():
        checks.number(f"{name}_scale", value, 0.0)
    width = latent + (spec.action.dim if isinstance(spec.action, Continuous) else spec.action.n)

    def init(key: Key) -> Params:
        keys = jax.random.split(key, 4)
        weights = {
            "encoder": init_mish_mlp(keys[0], (spec.obs_shape[0], encoder_hidden, latent), simplicial=True),
            "dynamics": init_mish_mlp(keys[1], (width, hidden, hidden, latent), simplicial=True),
            "reward": init_mish_mlp(keys[2], (width, hidden, hidden, bins), zero=True),
        }
        if learn_termination:
            weights["end"] = init_mish_mlp(keys[3], (latent, hidden, hidden, 1))
        return Params(weights, ())

    def see(weights: dict, obs: Array) -> Array:
        return apply_mish_mlp(weights["encoder"], obs, group=group)

    def pair(z: Array, action: Array) -> Array:
        given = action if isinstance(spec.action, Continuous) else jax.nn.one_hot(action, spec.action.n)
        return jnp.concatenate([z, given], axis=-1)

    def encode(key: Key, params: Params, belief: Array, action: Array, obs: Array, is_first: Array) -> Array:
        del key, belief, action, is_first
        checks.same_shape("obs", obs.shape[-1:], spec.obs_shape, "the model's spec")
        return see(params.weights, obs)

    def step(key: Key, params: Params, belief: Array, action: Array) -> tuple[Array, Outcome]:
        del key
        rows = pair(belief, action)
        following = apply_mish_mlp(params.weights["dynamics"], rows, group=group)
        reward = SymlogTwoHot(apply_mish_mlp(params.weights["reward"], rows), limit).mean()
        lead = reward.shape
        discount = jax.nn.sigmoid(-ends(params.weights, following)) if learn_termination else jnp.ones(lead)
        return following, Outcome(reward, discount, jnp.zeros((*lead, 0)), jnp.zeros(lead, bool))

    def ends(weights: dict, z: Array) -> Array:
        return apply_mish_mlp(weights["end"], z)[..., 0]

    def unroll(weights: dict, batch: Sequence) -> Unrolled:
        batch = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), valid_rows(batch))
        rows = batch.transition

        def body(z: Array, action: Array) -> tuple[Array, Array]:
            z = apply_mish_mlp(weights["dynamics"], pair(z, action), group=group)
            return z, z

        first = see(weights, rows.obs[0])
        later = jax.lax.scan(body, first, rows.action)[1]
        going = batch.mask & ~batch.is_first.at[0].set(False)
        alive = jnp.cumprod(going, axis=0, dtype=jnp.int32).astype(bool)
        targets = jax.lax.stop_gradient(see(weights, rows.next_obs))
        return Unrolled(jnp.concatenate([first[None], later]), targets, rows, alive)

    def average(values: Array, mask: Array) -> Array:
        weight = rho ** jnp.arange(len(values), dtype=jnp.float32)
        return jnp.mean(weight * jax.vmap(masked_mean)(values, mask))

    def losses(weights: dict, path: Unrolled) -> tuple[Array, dict]:
        rows = path.rows
        logits = apply_mish_mlp(weights["reward"], pair(path.latents[:-1], rows.action))
        consistency = jnp.mean((path.latents[1:] - path.targets) ** 2, axis=-1)
        reward = -SymlogTwoHot(logits, limit).log_prob(rows.reward)
        parts = {"consistency": average(consistency, path.alive), "reward": average(reward, path.alive)}
        if learn_termination:
            logit = ends(weights, path.latents[1:])
            parts["termination"] = masked_mean(jax.nn.softplus(logit) - rows.terminated * logit, path.alive)
        total = sum((scales[name] * value for name, value in parts.items()), jnp.zeros(()))
        return total, {f"{name}_loss": value for name, value in parts.items()}

    model = Model(
        init=init,
        initial=lambda params: jnp.zeros(latent),
        encode=encode,
        step=step,
        step_many=step,  # every function here takes any leading axes
        features=lambda params, belief: belief,
        decode=no_decoder("decoder_free"),
        loss=lambda key, params, batch: losses(params.weights, unroll(params.weights, batch)),
        set_stats=lambda params, rows, mask: params,
        data_kind=DataKind.SEQUENCES,
        own_belief=True,
    )
    return DecoderFree(model, unroll, losses, average)
