"""Proximal policy optimisation with a clipped objective (Schulman et al. 2017, arXiv 1707.06347), on trajectories."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from jmbrl import checks
from jmbrl.data.replay import Replay
from jmbrl.data.windows import windows_at
from jmbrl.learners.advantages import gae, paths, settle, standardised, weighted_mean
from jmbrl.learners.auxiliary import Auxiliary, Reading, reading
from jmbrl.learners.baselines import shuffled
from jmbrl.learners.policies import ActorCritic, actor_critic
from jmbrl.types import ActionSpace, Array, Key, Learner, PyTree, Transition
from jmbrl.types import Sequence as Window


class PPOState(NamedTuple):
    """``policy`` and ``value``: weights. ``opt``: of both. With an ``Auxiliary`` its encoder is part of ``policy`` and
    ``slow`` what its losses keep; ``()`` without."""

    policy: PyTree
    value: PyTree
    opt: PyTree
    slow: PyTree = ()


class _Rows(NamedTuple):
    """What a minibatch needs, ``[N, ...]``; ``log_prob`` and ``value`` as they were before the update."""

    obs: Array
    past: PyTree
    action: Array
    log_prob: Array
    value: Array
    advantage: Array
    target: Array
    weight: Array


def clipped_gain(ratio: Array, advantage: Array, clip: float | Array) -> Array:
    r"""What PPO maximises (eq. 7): :math:`\min(\rho A, \operatorname{clip}(\rho, 1 - \epsilon, 1 + \epsilon) A)`."""
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantage)


def value_error(value: Array, old: Array, target: Array, clip: float | Array | None) -> Array:
    r"""Squared error per row; with ``clip`` the larger of it and that of the value kept within ``clip`` of ``old``."""
    error = (value - target) ** 2
    if clip is None:
        return error
    return jnp.maximum(error, (old + jnp.clip(value - old, -clip, clip) - target) ** 2)


def ppo(
    action: ActionSpace,
    features: int,
    *,
    hidden: Sequence[int] = (64, 64),
    activation: Callable[[Array], Array] = jnp.tanh,
    initial_std: float | Array = 1.0,
    learning_rate: float | Array = 3e-4,
    decay_updates: int | None = None,
    gamma: float | Array = 0.99,
    lam: float | Array = 0.95,
    clip: float | Array = 0.2,
    value_clip: float | Array | None = None,
    value_weight: float | Array = 0.5,
    entropy: float | Array = 0.0,
    epochs: int = 10,
    minibatches: int = 32,
    max_grad_norm: float | Array = 0.5,
    normalize_advantages: bool = True,
    reward_scale: float | Array = 1.0,
    auxiliary: Auxiliary | None = None,
) -> Learner:
    r"""Several passes of minibatch gradient steps on one batch, with no gain from moving far.

    .. math:: L = -E[\min(\rho \hat A, \operatorname{clip}(\rho, 1 - \epsilon, 1 + \epsilon) \hat A)]
              + c_1 E[(V - \hat R)^2] - c_2 E[H(\pi)], \qquad \rho = \pi(a|s) / \pi_0(a|s)

    ``update(key, state, data, mask=None)`` and ``act`` are those of ``learners.trpo``. Advantages and targets
    :math:`\hat R = \hat A + V` are computed once, :math:`\pi_0` is the policy at the update's start.

    With ``auxiliary`` both networks read one latent, and :math:`L` has the losses of the batch's windows besides, those
    that begin with the minibatch's rows; all of it trains the encoder.

    Args:
      action: any space.
      features: ``F``, the width of the features.
      hidden, activation: of the policy's and of the value's network; they share nothing.
      initial_std: of a continuous policy at the start, in units of the box ``[-1, 1]``, above 0.
      learning_rate: of Adam, at least 0.
      decay_updates: the learning rate falls in a straight line to 0 over this many updates; None: it stays.
      gamma, lam: discount and trace decay, in ``[0, 1]``.
      clip: :math:`\epsilon`, above 0.
      value_clip: how far the value may move in one update before its loss stops rewarding it, in scaled returns; None:
        as far as it likes.
      value_weight: :math:`c_1`.
      entropy: :math:`c_2`.
      epochs: passes over the batch.
      minibatches: per pass, of ``T B / minibatches`` rows (rounded down) in a new random order.
      max_grad_norm: longer gradients, of all weights together, are shortened to this.
      normalize_advantages: to mean 0 and standard deviation 1 in each minibatch.
      reward_scale: rewards are multiplied by it; values near 1 learn fastest.
      auxiliary: an encoder of the features and its losses (``learners.auxiliary``).

    Returns:
      A ``Learner`` with state ``PPOState``. ``info``, scalars, means over the gradient steps: ``policy_loss``,
      ``value_loss``, each auxiliary loss, ``entropy`` (nats), ``kl`` (nats, estimated:
      :math:`E[\rho - 1 - \log \rho]`), ``clipped`` (share of rows with :math:`|\rho - 1| > \epsilon`); ``value`` (mean,
      before the update); the counters ``nonfinite_loss``, ``nonfinite_grad``, ``skipped`` and ``updates``. An update
      with a number that is not finite changes nothing; one without any row neither, and is not counted.

    Raises:
      ValueError: a number outside its range; fewer rows than minibatches.

    Source: Schulman et al. 2017; details as in OpenAI baselines (Adam's epsilon 1e-5, orthogonal weights).
    """
    features = checks.integer("features", features, 1)
    hidden = tuple(checks.integer("hidden", width, 1) for width in hidden)
    checks.number("initial_std", initial_std, 1e-3)
    read = reading(features, auxiliary)
    net = actor_critic(action, read.features, hidden=hidden, activation=activation, initial_std=initial_std)
    net = encoded(net, read)
    init, update = improvement(
        net, features, read, learning_rate=learning_rate, decay_updates=decay_updates, gamma=gamma, lam=lam, clip=clip,
        value_clip=value_clip, value_weight=value_weight, entropy=entropy, epochs=epochs, minibatches=minibatches,
        max_grad_norm=max_grad_norm, normalize_advantages=normalize_advantages, reward_scale=reward_scale,
    )  # fmt: skip

    def act(key: Key, state: PPOState, x: Array, explore: bool) -> tuple[Array, Array]:
        checks.same_shape("features", jnp.shape(x)[-1:], (features,), "ppo")
        return net.act(key, state.policy, x, explore)

    return Learner(init, act, update)


def encoded(net: ActorCritic, read: Reading) -> ActorCritic:
    """``net`` of what ``read`` makes of observations. The encoder is among the policy's weights; the value reads it."""

    def init(key: Key) -> tuple[PyTree, PyTree]:
        policy, value = net.init(key)
        return read.attach(key, policy), value

    def act(key: Key, policy: PyTree, x: Array, explore: bool) -> tuple[Array, Array]:
        return net.act(key, read.own(policy), read.see(policy, x), explore)

    def judge(weights: tuple[PyTree, PyTree], rows: Transition, past: PyTree) -> tuple[Array, Array, Array]:
        policy, value = weights
        rows = rows._replace(obs=read.see(policy, rows.obs), next_obs=read.see(policy, rows.next_obs))
        return net.judge((read.own(policy), value), rows, past)

    def distribution_and_value(weights: tuple[PyTree, PyTree], obs: Array, past: PyTree) -> tuple:
        policy, value = weights
        return net.read((read.own(policy), value), read.see(policy, obs), past)

    return net._replace(init=init, act=act, judge=judge, read=distribution_and_value)


def improvement(
    net: ActorCritic,
    features: int,
    read: Reading | None = None,
    *,
    learning_rate: float | Array = 3e-4,
    decay_updates: int | None = None,
    gamma: float | Array = 0.99,
    lam: float | Array = 0.95,
    clip: float | Array = 0.2,
    value_clip: float | Array | None = None,
    value_weight: float | Array = 0.5,
    entropy: float | Array = 0.0,
    epochs: int = 10,
    minibatches: int = 32,
    max_grad_norm: float | Array = 0.5,
    normalize_advantages: bool = True,
    reward_scale: float | Array = 1.0,
) -> tuple[Callable, Callable]:
    """``(init, update)`` of ``ppo`` for any policy and value; ``update(key, state, data, mask=None, past=None)``.

    ``past``: what ``net`` knows of the time before each row, ``[T, B, ...]``. A minibatch is drawn from ``net.pieces``,
    which are rows where ``read``, how ``net`` reads observations, has losses.
    """
    read = reading(features, None) if read is None else read
    checks.number("learning_rate", learning_rate, 0.0)
    for name, value in (("gamma", gamma), ("lam", lam)):
        checks.number(name, value, 0.0, 1.0)
    for name, value in (("clip", clip), ("max_grad_norm", max_grad_norm)):
        checks.number(name, value, 1e-12)
    for name, value in (("value_weight", value_weight), ("entropy", entropy)):
        checks.number(name, value, 0.0)
    if value_clip is not None:
        checks.number("value_clip", value_clip, 1e-12)
    checks.number("reward_scale", reward_scale)
    epochs = checks.integer("epochs", epochs, 1)
    parts = checks.integer("minibatches", minibatches, 1)
    rate = learning_rate
    if decay_updates is not None:
        last = checks.integer("decay_updates", decay_updates, 1) * epochs * parts
        rate = lambda count: learning_rate * jnp.maximum(1.0 - count / last, 0.0)  # noqa: E731
    optimizer = optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.adam(rate, eps=1e-5))

    def init(key: Key) -> PPOState:
        actor, critic = net.init(key)
        return PPOState(actor, critic, optimizer.init((actor, critic)), read.slow(actor))

    def judged(state: PPOState, data: Transition, weight: Array, past: PyTree) -> _Rows:
        log_prob, value, following = net.judge((state.policy, state.value), data, past)
        reward = reward_scale * data.reward
        advantage = gae(reward, value, following, data.terminated, data.truncated, gamma, lam)
        return _Rows(data.obs, past, data.action, log_prob, value, advantage, advantage + value, weight)

    def loss(
        weights: tuple[PyTree, PyTree], rows: _Rows, slow: PyTree, window: Window | None
    ) -> tuple[Array, dict[str, Array]]:
        mean = lambda x: weighted_mean(x, rows.weight)  # noqa: E731
        new, value = net.read(weights, rows.obs, rows.past)
        change = new.log_prob(rows.action) - rows.log_prob
        ratio = jnp.exp(change)
        gain = standardised(rows.advantage, rows.weight) if normalize_advantages else rows.advantage
        info = {
            "policy_loss": -mean(clipped_gain(ratio, gain, clip)),
            "value_loss": mean(value_error(value, rows.value, rows.target, value_clip)),
            "entropy": mean(new.entropy()),
            "kl": mean(ratio - 1.0 - change),
            "clipped": mean((jnp.abs(ratio - 1.0) > clip).astype(jnp.float32)),
        }
        more, terms = read.loss(weights[0], slow, window)
        own = info["policy_loss"] + value_weight * info["value_loss"] - entropy * info["entropy"]
        return own + more, info | terms

    def update(
        key: Key, state: PPOState, data: Transition, mask: Array | None = None, past: PyTree = None
    ) -> tuple[PPOState, dict[str, Array]]:
        seen, weight = paths(data, mask, features, "ppo")
        rows, ring = net.pieces(judged(state, seen, weight, past)), _ring(seen, weight)
        count = rows.weight.shape[net.axis]
        if count < parts:
            what = "segments" if net.axis else "rows"
            raise ValueError(f"minibatches must be at most the number of {what} {count}, got {parts}")

        drawn = lambda index: (slice(None),) * net.axis + (index,)  # noqa: E731

        def step(now: PPOState, index: Array) -> tuple[PPOState, tuple]:
            weights = now.policy, now.value
            part = jax.tree.map(lambda x: x[drawn(index)], rows)
            window = windows_at(ring, index, read.steps) if read.steps else None
            (total, info), grads = jax.value_and_grad(loss, has_aux=True)(weights, part, now.slow, window)
            steps, opt = optimizer.update(grads, now.opt, weights)
            new_policy, new_value = cast(tuple, optax.apply_updates(weights, steps))
            slow = read.renew(new_policy, now.slow)
            return PPOState(new_policy, new_value, opt, slow), (total, optax.tree.norm(grads), info)

        order = shuffled(key, count, epochs, parts)
        new, (totals, norms, info) = jax.lax.scan(step, state, order)
        state, health = settle(new, state, (totals, seen), norms, weight)
        info = {name: jnp.mean(values) for name, values in info.items()}
        return state, info | {"value": weighted_mean(rows.value, rows.weight)} | health

    return init, update


def _ring(rows: Transition, weight: Array) -> Replay:
    """A batch of paths ``[T, B]`` as a full replay, row ``t`` of path ``b`` at the place ``t * B + b``."""
    ended = rows.terminated | rows.truncated  # also before a row that does not count
    is_first = jnp.concatenate([jnp.ones_like(ended[:1]), ended[:-1]])
    none = jnp.zeros((), jnp.int32)
    return Replay(rows, weight > 0, is_first, none, jnp.asarray(len(ended), jnp.int32), none)
