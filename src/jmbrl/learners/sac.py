"""Soft actor-critic with automatic temperature (Haarnoja et al. 2018, arXiv 1812.05905), on batches of features."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from jmbrl import checks
from jmbrl.health import accept, exploded
from jmbrl.learners.auxiliary import Auxiliary, reading
from jmbrl.learners.policies import squashed_policy
from jmbrl.networks import MLP
from jmbrl.types import ActionSpace, Array, Key, Learner, PyTree, Transition
from jmbrl.types import Sequence as Window


class SACState(NamedTuple):
    """``critics`` and ``targets``: leaves ``[2, ...]``, the twins. ``opt``: of (policy, critics, log_alpha).
    ``largest``: magnitude of a step's soft reward so far. With an ``Auxiliary`` its encoder is part of ``critics`` and
    ``targets``, one for both twins, and ``slow`` what its losses keep; ``()`` without."""

    policy: PyTree
    critics: PyTree
    targets: PyTree
    log_alpha: Array
    opt: tuple[PyTree, PyTree, PyTree]
    largest: Array
    slow: PyTree = ()


def soft_value(q: Array, log_prob: Array, alpha: float | Array) -> Array:
    r"""Soft value of a state, one sample: :math:`V = \min_i Q_i(s, a) - \alpha \log \pi(a|s)`, ``q``: ``[2, ...]``."""
    return jnp.min(q, axis=0) - alpha * log_prob


def td_target(
    reward: Array, terminated: Array, next_value: Array, gamma: float | Array, reward_scale: float | Array = 1.0
) -> Array:
    r"""What the critics are regressed on: :math:`y = c\, r + \gamma (1 - \mathrm{terminated}) V(s')` (eq. 3).

    A time limit is no end of the world: there is no argument for ``truncated``.
    """
    return reward_scale * reward + gamma * jnp.where(terminated, 0.0, next_value)


def temperature_loss(log_alpha: Array, log_prob: Array, target_entropy: float | Array) -> Array:
    r""":math:`-\log\alpha \cdot E[\log \pi(a|s) + \bar H]`: its gradient raises the temperature where the policy's
    entropy is below :math:`\bar H` (eq. 18 with :math:`\log \alpha` in the place of :math:`\alpha`, as in the
    authors' code)."""
    return -log_alpha * jnp.mean(jax.lax.stop_gradient(log_prob) + target_entropy)


def sac(
    action: ActionSpace,
    features: int,
    *,
    hidden: Sequence[int] = (256, 256),
    learning_rate: float | Array = 3e-4,
    gamma: float | Array = 0.99,
    tau: float | Array = 0.005,
    target_entropy: float | Array | None = None,
    alpha: float | Array = 1.0,
    learn_alpha: bool = True,
    reward_scale: float | Array = 1.0,
    activation: Callable[[Array], Array] = jax.nn.relu,
    auxiliary: Auxiliary | None = None,
) -> Learner:
    r"""Maximises :math:`E \sum_t \gamma^t (c\, r_t + \alpha H(\pi(\cdot | s_t)))` off-policy, from batches of rows.

    ``update(key, state, batch)`` takes ``Transition[B]`` whose ``obs`` and ``next_obs`` are features ``float32[B, F]``
    and does one step of the critics, then of the policy against the new critics, of the temperature and of the target
    critics. ``truncated`` is not read: a cut-off row still bootstraps. ``act(key, state, features[F], explore)``
    samples, or takes the mode where not ``explore``; the action is in ``[-1, 1]``.

    With ``auxiliary`` all networks read a latent. ``update(key, state, batch, window)`` adds the losses of windows
    ``Sequence[B, steps]``, which begin with the rows, to the critics', which train the encoder with them; the policy
    reads the latent without gradient, the target critics through an encoder of their own (as in SAC-AE, Yarats 2021).

    Args:
      action: a continuous space.
      features: ``F``, the width of the features.
      hidden: widths of the policy's and of each critic's hidden layers.
      learning_rate: of three Adam optimisers, at least 0.
      gamma: discount, in ``[0, 1]``.
      tau: share of the new critics in the targets at each update, in ``[0, 1]``.
      target_entropy: :math:`\bar H` in nats; None: ``-action.dim``.
      alpha: the temperature at the start, above 0, in units of the scaled reward.
      learn_alpha: False keeps it there.
      reward_scale: :math:`c`; rewards are multiplied by it.
      activation: of the hidden layers.
      auxiliary: an encoder of the features and its losses (``learners.auxiliary``).

    Returns:
      A ``Learner`` with state ``SACState``. ``info``, scalars: ``critic_loss`` (without the auxiliary losses, which are
      there by name), ``policy_loss``, ``alpha_loss``, ``alpha``, ``entropy`` (nats, estimated), ``q`` (mean), and the
      counters ``nonfinite_loss``, ``nonfinite_grad``,
      ``skipped``, ``updates`` and ``exploded`` (``health.exploded``). An update with a number that is not finite
      changes nothing.

    Raises:
      ValueError: discrete actions, or a number outside its range.

    Source: Haarnoja et al. 2018 (arXiv 1801.01290, 1812.05905); settings as in their table 1.
    """
    space = checks.continuous("sac", action, "a planner: agents.mpc with cem or random_shooting")
    features = checks.integer("features", features, 1)
    hidden = tuple(checks.integer("hidden", width, 1) for width in hidden)
    checks.number("learning_rate", learning_rate, 0.0)
    checks.number("gamma", gamma, 0.0, 1.0)
    checks.number("tau", tau, 0.0, 1.0)
    checks.number("alpha", alpha, 1e-12)
    checks.number("reward_scale", reward_scale)
    goal = -float(space.dim) if target_entropy is None else checks.number("target_entropy", target_entropy)
    read = reading(features, auxiliary)
    actor = squashed_policy(space.dim, read.features, hidden=hidden, activation=activation)
    distribution = actor.distribution
    critic_net = MLP(hidden, 1, activation, kernel_init=jax.nn.initializers.glorot_uniform())
    optimizer = optax.adam(learning_rate)

    def init(key: Key) -> SACState:
        key_policy, key_critics = jax.random.split(key)
        policy = actor.init(key_policy)
        row = jnp.zeros(read.features + space.dim)
        twins = jax.vmap(critic_net.init, in_axes=(0, None))(jax.random.split(key_critics), row)
        critics = read.attach(key, twins)
        log_alpha = jnp.log(jnp.asarray(alpha, jnp.float32))
        opt = optimizer.init(policy), optimizer.init(critics), optimizer.init(log_alpha)
        # Copied: a buffer that is in the state twice could not be donated.
        targets, slow = jax.tree.map(jnp.copy, critics), read.slow(critics)
        return SACState(policy, critics, targets, log_alpha, opt, jnp.zeros(()), slow)

    def q_values(critics: PyTree, x: Array, action: Array) -> Array:
        """``float32[2, ...]``."""
        rows = jnp.concatenate([read.see(critics, x), action], axis=-1)
        return cast(Array, jax.vmap(critic_net.apply, in_axes=(0, None))(read.own(critics), rows))[..., 0]

    def act(key: Key, state: SACState, x: Array, explore: bool) -> tuple[Array, Array]:
        checks.same_shape("features", jnp.shape(x)[-1:], (features,), "sac")
        return actor.act(key, state.policy, read.see(state.critics, x), explore)

    def critic_loss(
        critics: PyTree, key: Key, state: SACState, batch: Transition, window: Window | None
    ) -> tuple[Array, tuple]:
        then = read.see(state.critics, batch.next_obs)
        following, log_prob = distribution(state.policy, then).sample_and_log_prob(key)
        value = soft_value(q_values(state.targets, batch.next_obs, following), log_prob, jnp.exp(state.log_alpha))
        target = jax.lax.stop_gradient(td_target(batch.reward, batch.terminated, value, gamma, reward_scale))
        q = q_values(critics, batch.obs, batch.action)
        own, (more, terms) = 0.5 * jnp.sum(jnp.mean((q - target) ** 2, axis=1)), read.loss(critics, state.slow, window)
        return own + more, (jnp.mean(q), {"critic_loss": own} | terms)

    def policy_loss(policy: PyTree, key: Key, critics: PyTree, alpha: Array, x: Array) -> tuple[Array, Array]:
        chosen, log_prob = distribution(policy, read.see(critics, x)).sample_and_log_prob(key)
        return -jnp.mean(soft_value(q_values(critics, x, chosen), log_prob, alpha)), log_prob

    def update(
        key: Key, state: SACState, batch: Transition, window: Window | None = None
    ) -> tuple[SACState, dict[str, Array]]:
        checks.same_shape("obs", batch.obs.shape[1:], (features,), "sac")
        key_critic, key_policy = jax.random.split(key)
        opt_policy, opt_critic, opt_alpha = state.opt
        slope = jax.value_and_grad(critic_loss, has_aux=True)
        (loss_q, (q, terms)), grad_q = slope(state.critics, key_critic, state, batch, window)
        critics, opt_critic = _apply(optimizer, grad_q, opt_critic, state.critics)

        now = jnp.exp(state.log_alpha)
        (loss_pi, log_prob), grad_pi = jax.value_and_grad(policy_loss, has_aux=True)(
            state.policy, key_policy, critics, now, batch.obs
        )
        policy, opt_policy = _apply(optimizer, grad_pi, opt_policy, state.policy)

        loss_alpha, grad_alpha = jax.value_and_grad(temperature_loss)(state.log_alpha, log_prob, goal)
        log_alpha = state.log_alpha
        if learn_alpha:
            log_alpha, opt_alpha = _apply(optimizer, grad_alpha, opt_alpha, log_alpha)

        targets = optax.incremental_update(critics, state.targets, tau)
        soft = jnp.max(jnp.abs(reward_scale * batch.reward)) + now * jnp.max(jnp.abs(log_prob))
        largest = jnp.maximum(state.largest, soft)
        slow, opt = read.renew(critics, state.slow), (opt_policy, opt_critic, opt_alpha)
        new = SACState(policy, critics, targets, log_alpha, opt, largest, slow)
        state, health = accept(new, state, (loss_q, loss_pi, loss_alpha), (grad_q, grad_pi, grad_alpha))
        info = terms | {"policy_loss": loss_pi, "alpha_loss": loss_alpha, "q": q}
        info |= {"alpha": jnp.exp(state.log_alpha), "entropy": -jnp.mean(log_prob)}
        info["exploded"] = exploded(q, state.largest, gamma)
        return state, info | health

    return Learner(init, act, update)


def _apply(optimizer: optax.GradientTransformation, grads: PyTree, opt: PyTree, params: PyTree) -> tuple:
    updates, opt = optimizer.update(grads, opt, params)
    return optax.apply_updates(params, updates), opt
