"""Plan2Explore's reward on any latent model: small networks that disagree about the next latent (Sekar et al. 2020)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks, data
from jmbrl.models.multistep import masked_mean
from jmbrl.networks import apply_dense, init_dense
from jmbrl.types import Array, Continuous, Key, Model, Outcome, Params, PyTree, Spec, Watched

MEASURES = ("std", "variance")


class CuriosityStats(NamedTuple):
    """``inner``: the model's own statistics. ``intrinsic``, ``extrinsic``: weights of the imagined rewards; here, so
    that a run can turn from exploring to a task without being compiled again (``rewarded``)."""

    inner: PyTree
    intrinsic: Array
    extrinsic: Array


def latent_curiosity(
    model: Model,
    spec: Spec,
    *,
    members: int = 10,
    hidden: Sequence[int] = (400, 400, 400, 400),
    measure: str = "std",
    intrinsic: float = 1.0,
    extrinsic: float = 0.0,
    target: Callable[[PyTree], Array] = lambda belief: belief.stoch,
) -> Model:
    r"""A latent model with an ensemble of one-step heads; its imagined reward is what these disagree about.

    .. math:: \mu_k(x_t, a_t) \approx \mathrm{sg}(z_{t+1}), \quad
              r_t = w_i \operatorname{mean}_j \operatorname{std}_k \mu_{k,j}(x_t, a_t) + w_e\, \hat r_t

    with :math:`x` the model's features, without gradient. The heads' loss (half the squared error, summed over the
    entries of the latent and over the heads: each is trained as if it were alone) joins the model's in ``watch`` and
    ``loss``. Heads differ by how they began; all see the same batches, as in the released code of Dreamer v2.

    Args:
      model: with ``watch`` (``models.rssm``).
      spec: the environment's.
      members: heads, at least 2.
      hidden: widths of their layers (ELU).
      measure: ``"std"``, as in Dreamer v2's code, or ``"variance"``, as in the paper (there times 10,000).
      intrinsic, extrinsic: :math:`w_i, w_e` at the start; ``rewarded`` changes them.
      target: ``(belief) -> float32[..., L]``, what the heads predict of the belief that follows.

    Returns:
      A ``Model`` with weights ``{"model", "heads"}`` and stats ``CuriosityStats``; everything else is ``model``'s.

    Raises:
      ValueError: a model without ``watch``, fewer than 2 heads, or a word or number outside its range.

    Source: Sekar et al. 2020, Plan2Explore (arXiv 2005.05960), equations 3 to 6; expl.py of Dreamer v2's code.
    """
    if model.watch is None:
        raise ValueError("model has no watch: latent_curiosity needs one that filters sequences, such as models.rssm")
    watch_inner: Callable = model.watch
    members = checks.integer("members", members, 2)
    hidden = tuple(checks.integer("hidden", width, 1) for width in hidden)
    checks.choice("measure", measure, MEASURES)
    checks.number("intrinsic", intrinsic)
    checks.number("extrinsic", extrinsic)
    actions = spec.action.dim if isinstance(spec.action, Continuous) else spec.action.n

    def inner(params: Params) -> Params:
        return Params(params.weights["model"], params.stats.inner)

    def init(key: Key) -> Params:
        key_model, key_heads = jax.random.split(key)
        params = model.init(key_model)
        belief = model.initial(params)
        sizes = (model.features(params, belief).shape[-1] + actions, *hidden, target(belief).shape[-1])
        heads = jax.vmap(lambda key: init_dense(key, sizes))(jax.random.split(key_heads, members))
        mix = (jnp.asarray(w, jnp.float32) for w in (intrinsic, extrinsic))
        return Params({"model": params.weights, "heads": heads}, CuriosityStats(params.stats, *mix))

    def guesses(heads: PyTree, x: Array, action: Array) -> Array:
        """``float32[members, ..., L]``."""
        given = action if isinstance(spec.action, Continuous) else jax.nn.one_hot(action, actions)
        pair = jnp.concatenate([x, given], axis=-1)
        rows = pair.reshape(-1, pair.shape[-1])
        said = jax.vmap(lambda layers: apply_dense(layers, rows, jax.nn.elu))(heads)
        return said.reshape(members, *pair.shape[:-1], -1)

    def paid(params: Params, belief: PyTree, action: Array, outcome: Outcome) -> Outcome:
        said = guesses(params.weights["heads"], model.features(inner(params), belief), action)
        spread = jnp.var(said, axis=0)
        if measure == "std":  # the slope of a root is infinite at 0
            spread = jnp.sqrt(spread + 1e-12)
        stats = params.stats
        reward = stats.intrinsic * jnp.mean(spread, axis=-1) + stats.extrinsic * outcome.reward
        return outcome._replace(reward=reward)

    def stepped(function: Callable) -> Callable:
        def step(key: Key, params: Params, belief: PyTree, action: Array) -> tuple[PyTree, Outcome]:
            following, outcome = function(key, inner(params), belief, action)
            return following, paid(params, belief, action, outcome)

        return step

    def expect(params: Params, beliefs: PyTree, actions: Array) -> tuple[PyTree, Outcome]:
        following, outcome = model.expect(inner(params), beliefs, actions)
        return following, paid(params, beliefs, actions, outcome)

    def watch(key: Key, params: Params, frames: data.Frames, context: PyTree | None = None) -> Watched:
        seen = watch_inner(key, inner(params), frames, context)
        beliefs, frames = jax.lax.stop_gradient(seen.beliefs), seen.frames
        # A frame's action led to it: the pair is the belief before it and that action.
        before = jax.lax.stop_gradient(model.features(inner(params), beliefs))[:, :-1]
        said = guesses(params.weights["heads"], before, frames.action[:, 1:])
        error = 0.5 * jnp.sum((said - target(beliefs)[:, 1:]) ** 2, axis=-1)
        follows = frames.mask[:, 1:] & frames.mask[:, :-1] & ~frames.is_first[:, 1:]
        loss = jnp.sum(jax.vmap(masked_mean, in_axes=(0, None))(error, follows))
        info = seen.info | {"disagreement": masked_mean(jnp.mean(jnp.std(said, axis=0), axis=-1), follows)}
        return seen._replace(losses=seen.losses | {"heads": loss}, info=info)

    def loss(key: Key, params: Params, batch: Any) -> tuple[Array, dict]:
        seen = watch(key, params, data.frames(batch)[0])
        return sum(seen.losses.values(), start=jnp.zeros(())), {**seen.losses, **seen.info}

    def set_stats(params: Params, rows: PyTree, mask: Array) -> Params:
        fitted = model.set_stats(inner(params), rows, mask)
        return params._replace(stats=params.stats._replace(inner=fitted.stats))

    return model._replace(
        init=init,
        initial=lambda params: model.initial(inner(params)),
        encode=lambda key, params, *rest: model.encode(key, inner(params), *rest),
        step=stepped(model.step),
        step_many=stepped(model.step_many),
        features=lambda params, belief: model.features(inner(params), belief),
        decode=lambda params, belief: model.decode(inner(params), belief),
        loss=loss,
        set_stats=set_stats,
        expect=model.expect and expect,
        watch=watch,
    )


def rewarded(stats: CuriosityStats, intrinsic: float | Array, extrinsic: float | Array) -> CuriosityStats:
    """The statistics with other weights of the imagined rewards: from exploring to a task and back."""
    cast = lambda new, old: jnp.asarray(new, old.dtype)  # noqa: E731
    return stats._replace(intrinsic=cast(intrinsic, stats.intrinsic), extrinsic=cast(extrinsic, stats.extrinsic))
