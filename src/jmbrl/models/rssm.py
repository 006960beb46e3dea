"""The recurrent state-space model of PlaNet and of Dreamer v1, v2 and v3: one model, their differences as options.

Its belief is a memory and a latent, not the observation. ``models/rssm_core.py`` holds the parts that remember,
``models/codec.py`` those that see, ``models/rssm_losses.py`` what a sequence teaches.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jmbrl import checks, data
from jmbrl.data import Frames, normalizer
from jmbrl.models.codec import codec
from jmbrl.models.multistep import masked_mean
from jmbrl.models.rssm_core import PATHS, RSSMBelief, expected, latents, memory
from jmbrl.models.rssm_losses import Scales, divergence, ends, overshoot
from jmbrl.networks import scalar_head
from jmbrl.types import (
    Array,
    Continuous,
    DataKind,
    Key,
    Model,
    Outcome,
    Params,
    PyTree,
    Sequence,
    Spec,
    Transition,
    Watched,
)

ACTIVATIONS: dict[str, Callable] = {"relu": jax.nn.relu, "elu": jax.nn.elu, "silu": jax.nn.silu}
DEFAULT_SCALES = Scales()


def rssm(
    spec: Spec,
    *,
    memory_kind: str = "gru",
    deter: int = 200,
    stoch: int = 30,
    classes: int = 0,
    hidden: int = 200,
    blocks: int = 8,
    prior_layers: int = 1,
    posterior_layers: int = 1,
    norm: str = "none",
    activation: str = "relu",
    min_std: float = 0.1,
    mix: float = 0.0,
    paths: str = "both",
    sight: dict | None = None,
    reward_kind: str = "normal",
    reward_layers: int = 2,
    reward_units: int = 200,
    learn_termination: bool = False,
    end_layers: int = 1,
    end_smoothing: float = 0.0,
    scales: Scales | dict = DEFAULT_SCALES,
    free_nats: float = 3.0,
    free_mean: bool = False,
    overshooting: int = 1,
    task_gradient: bool = True,
) -> Model:
    r"""A recurrent state-space model: a deterministic and a stochastic path.

    .. math:: h_t = f(h_{t-1}, z_{t-1}, a_{t-1}), \quad \hat z_t \sim p(z \mid h_t) \text{ (prior)}, \quad
              z_t \sim q(z \mid h_t, o_t) \text{ (posterior)}

    and heads for the observation, the reward and the continuation of :math:`(h_t, z_t)`. The loss on frames is the mean
    over those that hold data of

    .. math:: -\log p(o_t \mid \cdot) - \beta_r \log p(r_t \mid \cdot) - \beta_c \log p(c_t \mid \cdot)
              + \beta_d K[\mathrm{sg}(q), p] + \beta_q K[q, \mathrm{sg}(p)]

    with ``K`` the divergence beyond the free nats. :math:`\beta_d = \beta_q = 1` has the gradient of PlaNet's and
    Dreamer v1's single divergence. The reward and the end of frame ``t`` are those of the action that led there, so an
    imagined step's outcome is read from the belief it reaches.

    Args:
      spec: the environment's: vectors, images or both (``models.codec``), any actions.
      memory_kind: ``"gru"`` (PlaNet, v1), ``"layer_norm_gru"`` (v2) or ``"block_gru"`` (v3, in ``blocks`` parts).
      deter: entries of the memory. stoch: of the latent, Gaussian or, with ``classes``, each one of so many classes.
      hidden: units of the layers around the memory, of the prior and of the posterior, with so many layers each.
      norm, activation: of those layers and of the heads: ``networks.init_normed``'s norms; relu, elu or silu.
      min_std: least standard deviation of Gaussian latents. mix: uniform share of categorical ones (v3: 0.01).
      paths: ``"both"``; ``"deterministic"`` takes means for draws; ``"stochastic"`` forgets the memory each step.
      sight: options of ``models.codec``; its ``norm`` and ``activation`` are those above unless named.
      reward_kind, reward_layers, reward_units: of the heads, as in ``networks.scalar_head``. A ``"normal"`` reward is
        normalised by the data, so that its weight means the same on every task (the papers: raw).
      learn_termination: a head of ``end_layers`` layers, taught by ``terminated`` alone; otherwise nothing ever ends.
      end_smoothing: a frame that does not end teaches ``1 - end_smoothing`` (v3: its discount, 1/333), which imagined
        continuations are divided by again: users multiply ``gamma``.
      scales: weights of the loss's terms.
      free_nats: divergence that costs nothing, per frame or, with ``free_mean`` (v1, v2), of the batch's mean.
      overshooting: steps that the prior is also asked to look ahead, at least 1 (PlaNet's latent overshooting, its
        weight shared by all distances).
      task_gradient: whether what is learned of rewards and ends shapes the latents. False: their heads only read them,
        so that a model explores without a reward and any reward can be put on it later (Plan2Explore).

    Returns:
      A ``Model`` with belief ``RSSMBelief``, which is trained by ``watch`` (sequences of frames) or ``loss``
      (``Sequence[B, T]``).

    Raises:
      ValueError: a size below 1 or a word that is none of the above; what ``models.codec`` refuses.

    Source: Hafner et al. 2019 (arXiv 1811.04551) equations 3 to 7, 2020 (1912.01603), 2021 (2010.02193), 2023
    (2301.04104), and their released code.
    """
    checks.choice("paths", paths, PATHS)
    checks.choice("activation", activation, tuple(ACTIVATIONS))
    deter, stoch, hidden = (
        checks.integer(name, x, 1) for name, x in (("deter", deter), ("stoch", stoch), ("hidden", hidden))
    )
    classes, overshooting = checks.integer("classes", classes, 0), checks.integer("overshooting", overshooting, 1)
    checks.number("end_smoothing", end_smoothing, 0.0, 0.5)
    checks.number("free_nats", free_nats, 0.0)
    scales = Scales(**scales) if isinstance(scales, dict) else scales
    act = ACTIVATIONS[activation]
    size = stoch * classes if classes else stoch
    width = size if paths == "stochastic" else deter + size
    actions = spec.action.dim if isinstance(spec.action, Continuous) else spec.action.n
    sees = codec(spec, width, **({"norm": norm, "activation": act} | (sight or {})))
    remembers = memory(memory_kind, deter, size, actions, hidden=hidden, activation=act, blocks=blocks)
    layers = {"hidden": hidden, "norm": norm, "activation": act, "min_std": min_std, "mix": mix}
    guesses = latents(deter, stoch, classes, layers=prior_layers, **layers)
    looks = latents(deter + sees.units, stoch, classes, layers=posterior_layers, **layers)
    head = {"units": reward_units, "norm": norm, "activation": act}
    pays = scalar_head(width, kind=reward_kind, layers=reward_layers, **head)
    goes_on = scalar_head(width, kind="normal", layers=end_layers, **head)  # its number is a logit
    normalises = reward_kind == "normal"

    def init(key: Key) -> Params:
        parts = {"codec": sees, "memory": remembers, "prior": guesses, "posterior": looks, "reward": pays}
        parts |= {"continue": goes_on} if learn_termination else {}
        weights = {name: part.init(k) for (name, part), k in zip(parts.items(), jax.random.split(key, 6), strict=False)}
        stats = {"obs": sees.empty_stats(), "reward": normalizer.identity(1) if normalises else ()}
        return Params(weights, stats)

    def set_stats(params: Params, rows: Transition, mask: Array) -> Params:
        stats = {"obs": sees.fit_stats(params.stats["obs"], rows, mask), "reward": params.stats["reward"]}
        if normalises:
            stats["reward"] = normalizer.fit(rows.reward[:, None], mask, params.stats["reward"])
        return params._replace(stats=stats)

    def initial(params: Params) -> RSSMBelief:
        del params
        return RSSMBelief(jnp.zeros(deter), jnp.zeros(size))

    def as_input(action: Array) -> Array:
        return action if isinstance(spec.action, Continuous) else jax.nn.one_hot(action, spec.action.n)

    def drawn(key: Key, latent: PyTree) -> Array:
        return expected(latent) if paths == "deterministic" else latent.sample(key)

    def recur(params: Params, belief: RSSMBelief, x: Array) -> Array:
        kept = belief._replace(deter=jnp.zeros_like(belief.deter)) if paths == "stochastic" else belief
        return remembers.recur(params.weights["memory"], kept, x)

    def foresee(params: Params, belief: RSSMBelief, action: Array) -> tuple[Array, PyTree]:
        """The next memory and the prior of the next latent."""
        h = recur(params, belief, remembers.prepare(params.weights["memory"], as_input(action)))
        return h, guesses.of(params.weights["prior"], h)

    def posterior(params: Params, h: Array, tokens: Array) -> PyTree:
        return looks.of(params.weights["posterior"], jnp.concatenate([h, tokens], -1))

    def features(params: Params, belief: RSSMBelief) -> Array:
        del params
        return belief.stoch if paths == "stochastic" else jnp.concatenate([belief.deter, belief.stoch], axis=-1)

    def encode(key: Key, params: Params, belief: RSSMBelief, action: Array, obs: Array, is_first: Array) -> RSSMBelief:
        checks.same_shape("obs", obs.shape, spec.obs_shape, "the model's spec")
        before = jax.tree.map(lambda x: jnp.where(is_first, 0.0, x), belief)
        x = remembers.prepare(params.weights["memory"], jnp.where(is_first, 0.0, as_input(action)))
        h = recur(params, before, x)
        tokens = sees.encode(params.weights["codec"], params.stats["obs"], obs)
        return RSSMBelief(h, drawn(key, posterior(params, h, tokens)))

    def outcome(params: Params, belief: RSSMBelief) -> Outcome:
        seen = features(params, belief)
        reward = pays.predict(params.weights["reward"], seen).mean()
        if normalises:
            reward = normalizer.denormalize(params.stats["reward"], reward[..., None])[..., 0]
        lead = reward.shape
        going = jnp.ones(lead)
        if learn_termination:
            chance = jax.nn.sigmoid(goes_on.predict(params.weights["continue"], seen).mean())
            going = jnp.minimum(chance / (1.0 - end_smoothing), 1.0)
        return Outcome(reward, going, jnp.zeros((*lead, 0)), jnp.zeros(lead, bool))

    def step(key: Key, params: Params, belief: RSSMBelief, action: Array) -> tuple[RSSMBelief, Outcome]:
        h, prior = foresee(params, belief, action)
        reached = RSSMBelief(h, drawn(key, prior))
        return reached, outcome(params, reached)

    def expect(params: Params, belief: RSSMBelief, action: Array) -> tuple[RSSMBelief, Outcome]:
        h, prior = foresee(params, belief, action)
        reached = RSSMBelief(h, prior.mode())
        return reached, outcome(params, reached)

    def decode(params: Params, belief: RSSMBelief) -> Array:
        parts = sees.decode(params.weights["codec"], params.stats["obs"], features(params, belief))
        return sees.restore(params.stats["obs"], parts)

    def filtered(key: Key, params: Params, frames: Frames, start: RSSMBelief) -> tuple[RSSMBelief, PyTree]:
        """Beliefs and posteriors ``[B, F, ...]`` of frames, the first of which follows ``start [B, ...]``."""
        tokens = sees.encode(params.weights["codec"], params.stats["obs"], frames.obs)
        fresh = frames.is_first[..., None]
        x = remembers.prepare(params.weights["memory"], jnp.where(fresh, 0.0, as_input(frames.action)))

        def body(before: RSSMBelief, inputs: tuple) -> tuple[RSSMBelief, tuple]:
            key, tokens, x, fresh = inputs
            h = recur(params, jax.tree.map(lambda y: jnp.where(fresh, 0.0, y), before), x)
            seen = posterior(params, h, tokens)
            belief = RSSMBelief(h, drawn(key, seen))
            return belief, (belief, seen)

        by_time = jax.tree.map(lambda y: jnp.moveaxis(y, 1, 0), (tokens, x, fresh))
        out = jax.lax.scan(body, start, (jax.random.split(key, tokens.shape[1]), *by_time))[1]
        return jax.tree.map(lambda y: jnp.moveaxis(y, 0, 1), out)

    def watch(key: Key, params: Params, frames: Frames, context: RSSMBelief | None = None) -> Watched:
        key_filter, key_ahead = jax.random.split(key)
        count = frames.mask.shape[0]
        if context is None:
            start = jax.tree.map(lambda x: jnp.zeros((count, *x.shape)), initial(params))
        else:
            start, frames = context, jax.tree.map(lambda x: x[:, 1:], frames)
        beliefs, seen = filtered(key_filter, params, frames, start)
        prior = guesses.of(params.weights["prior"], beliefs.deter)
        x, mask = features(params, beliefs), frames.mask
        shown = jax.lax.stop_gradient(x) if scales.reconstruction == 0 else x  # pictures, for whoever looks
        parts = sees.decode(params.weights["codec"], params.stats["obs"], shown)
        reward = frames.reward
        if normalises:
            reward = normalizer.normalize(params.stats["reward"], reward[..., None])[..., 0]
        losses, info = divergence(seen, prior, mask, scales, free_nats, free_mean)
        losses["reconstruction"] = masked_mean(sees.loss(params.stats["obs"], parts, frames.obs), mask)
        read = x if task_gradient else jax.lax.stop_gradient(x)
        paid = pays.predict(params.weights["reward"], read).log_prob(reward)
        losses["reward"] = -scales.reward * masked_mean(paid, mask)
        if learn_termination:
            logit = goes_on.predict(params.weights["continue"], read).mean()
            losses["continuation"] = scales.continuation * masked_mean(ends(logit, frames, end_smoothing), mask)
        if overshooting > 1:
            ahead = lambda key, belief, action: _ahead(key, foresee, drawn, params, belief, action)  # noqa: E731
            losses["overshooting"] = scales.overshooting * overshoot(
                key_ahead, ahead, beliefs, seen, frames, overshooting, free_nats
            )
        return Watched(beliefs, seen, prior, frames, losses, info)

    def loss(key: Key, params: Params, batch: Sequence) -> tuple[Array, dict]:
        watched = watch(key, params, data.frames(batch)[0])
        return sum(watched.losses.values(), start=jnp.zeros(())), {**watched.losses, **watched.info}

    return Model(
        init=init,
        initial=initial,
        encode=encode,
        step=step,
        step_many=step,  # every function takes any leading axes
        features=features,
        decode=decode,
        loss=loss,
        set_stats=set_stats,
        expect=expect,
        data_kind=DataKind.SEQUENCES,
        own_belief=True,
        watch=watch,
    )


def _ahead(
    key: Key, foresee: Callable, drawn: Callable, params: Params, belief: RSSMBelief, action: Array
) -> tuple[RSSMBelief, PyTree]:
    """One imagined step and the prior it was drawn from."""
    h, prior = foresee(params, belief, action)
    return RSSMBelief(h, drawn(key, prior)), prior
