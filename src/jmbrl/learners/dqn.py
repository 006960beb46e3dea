"""Deep Q-learning (Mnih et al. 2015) and what Rainbow adds to it (Hessel et al. 2018), on batches of features."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from jmbrl import checks
from jmbrl.data.n_step import NStepRows
from jmbrl.health import accept, exploded
from jmbrl.learners.auxiliary import Auxiliary, reading
from jmbrl.learners.categorical import expected, project, shifted
from jmbrl.networks import QNetwork
from jmbrl.networks.q_network import image_of
from jmbrl.types import ActionSpace, Array, Key, Learner, PyTree, Transition
from jmbrl.types import Sequence as Window


class DQNState(NamedTuple):
    """``online``, ``target``: weights; ``updates``: ``int32``, how many were made; ``largest``: magnitude of a reward
    so far; ``slow``: of the auxiliary losses, ``()`` without."""

    online: PyTree
    target: PyTree
    opt: PyTree
    updates: Array
    largest: Array
    slow: PyTree = ()


def q_target(reward: Array, terminated: Array, discount: Array | float, values: Array, choosing: Array) -> Array:
    r""":math:`y = r + \gamma (1 - \mathrm{terminated})\, Q(s', \arg\max_a Q'(s', a))`.

    Args:
      reward, terminated, discount: ``[B]``.
      values: ``float32[B, A]``, the target network's :math:`Q(s', \cdot)`.
      choosing: ``float32[B, A]``, :math:`Q'`: the online network's for double Q-learning, else ``values`` again.

    Source: van Hasselt, Guez & Silver 2016 (arXiv 1509.06461), equations 2 and 4.
    """
    return reward + discount * jnp.where(terminated, 0.0, _taken(values, jnp.argmax(choosing, axis=-1)))


def dqn(
    action: ActionSpace,
    features: int,
    *,
    hidden: Sequence[int] = (256, 256),
    learning_rate: float | Array = 1e-3,
    adam_eps: float | Array = 1e-8,
    gamma: float | Array = 0.99,
    double: bool = False,
    dueling: bool = False,
    noisy: bool = False,
    atoms: int = 1,
    v_min: float | Array = -10.0,
    v_max: float | Array = 10.0,
    loss: str = "huber",
    tau: float | Array = 1.0,
    target_every: int | Array = 100,
    epsilon: tuple[float | Array, float | Array] | None = None,
    epsilon_updates: float | Array = 10_000,
    sigma: float = 0.5,
    conv: int = 0,
    image: tuple[int, int, int] | None = None,
    activation: Callable[[Array], Array] = jax.nn.relu,
    auxiliary: Auxiliary | None = None,
) -> Learner:
    r"""Q-learning with a network and a target network, off-policy, from batches of rows.

    ``update(key, state, batch)`` takes ``Transition[B]`` whose ``obs`` and ``next_obs`` are features ``float32[B, F]``,
    or a ``data.NStepRows`` of them: then ``gamma`` is not read, a row's loss counts by its weight, and ``info`` has
    ``priority``, ``float32[B]``: how wrong each row was, :math:`|\delta|` or with ``atoms`` the divergence (NaN in an
    update that was skipped).
    ``truncated`` is not read: a cut-off row still bootstraps. ``act(key, state, features[F], explore)`` is
    epsilon-greedy and, with ``noisy``, draws the noise anew at each step; without ``explore`` both are off.

    With ``auxiliary`` the network and its target read a latent, each through an encoder of its own, and
    ``update(key, state, batch, window)`` adds the losses of windows ``Sequence[B, steps]``, which begin with the rows,
    to that of the values: one gradient step for all. A window counts as its row does.

    ``double``, ``dueling``, ``noisy``, ``atoms=51``, fed by ``data.n_step`` and ``data.prioritized_replay``: Rainbow.

    Args:
      action: a discrete space.
      features: ``F``, the width of the features.
      hidden: widths of the hidden layers (``networks.QNetwork``).
      learning_rate, adam_eps: of Adam, at least 0.
      gamma: discount, in ``[0, 1]``.
      double: the online network chooses the action whose value the target network gives.
      dueling: values and advantages in two streams.
      noisy: noisy layers in the place of epsilon.
      atoms: 1, or how many atoms the distribution of the return has.
      v_min, v_max: its ends, in units of the return.
      loss: ``"huber"`` (linear beyond an error of 1) or ``"squared"``, halved; of one atom.
      tau: share of the online network in the target at each renewal, in ``[0, 1]``; 1 copies it.
      target_every: updates between renewals of the target, at least 1.
      epsilon: chance of a random action at first and at last, in ``[0, 1]``; None: from 1 to 0.05, or 0 with ``noisy``.
      epsilon_updates: updates during which it falls, linearly.
      sigma: scale of the noise at first.
      conv: filters of a convolution of 3 by 3 before the hidden layers, 0: none. MinAtar's network is 16 filters and a
        hidden layer of 128 (Young & Tian 2019, arXiv 1903.03176).
      image: ``(H, W, C)`` of the image that the features are, for ``conv``.
      activation: of the hidden layers.
      auxiliary: an encoder of the features and its losses (``learners.auxiliary``); ``conv`` is then the encoder's.

    Returns:
      A ``Learner`` with state ``DQNState``. ``info``, scalars: ``loss`` (of the values), ``q`` (mean value of the
      actions taken), ``epsilon``, each auxiliary loss, and the counters ``nonfinite_loss``, ``nonfinite_grad``,
      ``skipped``, ``updates`` and ``exploded`` (``health.exploded``). An update with a number that is not finite
      changes nothing.

    Raises:
      ValueError: continuous actions, a number outside its range, or ``conv`` without an image of 3 by 3 pixels or more.

    Source: Mnih et al. 2015; van Hasselt et al. 2016 (``double``), Wang et al. 2016 (``dueling``), Bellemare et al.
    2017 (``atoms``), Fortunato et al. 2018 (``noisy``), Hessel et al. 2018 (arXiv 1710.02298: all of them).
    """
    choices = checks.discrete("dqn", action, "sac, or envs.discretise with action_bins").n
    features = checks.integer("features", features, 1)
    hidden = tuple(checks.integer("hidden", width, 1) for width in hidden)
    atoms = checks.integer("atoms", atoms, 1)
    checks.choice("loss", loss, ("huber", "squared"))
    first, last = ((0.0, 0.0) if noisy else (1.0, 0.05)) if epsilon is None else epsilon
    for name, value in (("gamma", gamma), ("tau", tau), ("epsilon", first), ("epsilon", last)):
        checks.number(name, value, 0.0, 1.0)
    for name, value in (("learning_rate", learning_rate), ("adam_eps", adam_eps), ("sigma", sigma)):
        checks.number(name, value, 0.0)
    for name, value in (("target_every", target_every), ("epsilon_updates", epsilon_updates)):
        checks.number(name, value, 1.0)
    for name, value, low in (("v_min", v_min, None), ("v_max - v_min", v_max - v_min, 1e-6)):
        checks.number(name, value, low)
    support = jnp.linspace(v_min, v_max, atoms) if atoms > 1 else jnp.zeros(1)
    read = reading(features, auxiliary)
    image = image_of(conv, image, read.features)
    net = QNetwork(choices, hidden, atoms, dueling, noisy, sigma, image, conv, activation)
    optimizer = optax.adam(learning_rate, eps=adam_eps)

    def init(key: Key) -> DQNState:
        online = read.attach(key, net.init(key, jnp.zeros(read.features)))
        # Copied: a buffer that is in the state twice could not be donated.
        opt, none = optimizer.init(online), jnp.zeros((), jnp.int32)
        return DQNState(online, jax.tree.map(jnp.copy, online), opt, none, jnp.zeros(()), read.slow(online))

    def outputs(weights: PyTree, x: Array, key: Key | None) -> Array:
        """``float32[..., A, atoms]``; ``key``: of the noise, None: without."""
        return cast(Array, net.apply(read.own(weights), read.see(weights, x), key))

    def values(outputs: Array) -> Array:
        return expected(outputs, support) if atoms > 1 else outputs[..., 0]

    def chance(state: DQNState) -> Array:
        return first + (last - first) * jnp.minimum(state.updates / epsilon_updates, 1.0)

    def act(key: Key, state: DQNState, x: Array, explore: bool) -> tuple[Array, Array]:
        checks.same_shape("features", jnp.shape(x)[-1:], (features,), "dqn")
        key_noise, key_chance, key_action = jax.random.split(key, 3)
        best = jnp.argmax(values(outputs(state.online, x, key_noise if explore else None))).astype(jnp.int32)
        if not explore:
            return best, jnp.zeros(())
        eps = chance(state)
        chosen = jnp.where(
            jax.random.uniform(key_chance) < eps, jax.random.randint(key_action, (), 0, choices), best
        ).astype(jnp.int32)
        return chosen, jnp.log(eps / choices + (1.0 - eps) * (chosen == best))

    def targets(key: Key, state: DQNState, batch: NStepRows) -> Array:
        """What the taken actions' outputs are compared with: ``[B]``, with atoms ``[B, K]``."""
        rows, discount = batch.rows, batch.discount
        key_choosing, key_target = jax.random.split(key)
        after = outputs(state.target, rows.next_obs, key_target)
        choosing = values(outputs(state.online, rows.next_obs, key_choosing) if double else after)
        if atoms == 1:
            return q_target(rows.reward, rows.terminated, discount, values(after), choosing)
        logits = _taken(after, jnp.argmax(choosing, axis=-1))
        return project(*shifted(rows.reward, rows.terminated, discount, logits, support), support)

    def objective(
        online: PyTree, key: Key, target: Array, batch: NStepRows, slow: PyTree, window: Window | None
    ) -> tuple[Array, tuple]:
        out = _taken(outputs(online, batch.rows.obs, key), batch.rows.action)
        if atoms > 1:
            losses = wrong = optax.losses.kl_divergence(jax.nn.log_softmax(out), target)
        else:
            error = out[:, 0] - target
            losses, wrong = (optax.huber_loss(error) if loss == "huber" else 0.5 * error**2), jnp.abs(error)
        own, (more, terms) = jnp.mean(batch.weight * losses), read.loss(online, slow, window, batch.weight)
        return own + more, (wrong, jnp.mean(values(out)), {"loss": own} | terms)

    def update(
        key: Key, state: DQNState, data: Transition | NStepRows, window: Window | None = None
    ) -> tuple[DQNState, dict[str, Array]]:
        batch = data if isinstance(data, NStepRows) else _one_step(data, gamma)
        checks.same_shape("obs", batch.rows.obs.shape[1:], (features,), "dqn")
        key_target, key_online = jax.random.split(key)
        target = jax.lax.stop_gradient(targets(key_target, state, batch))
        slope = jax.value_and_grad(objective, has_aux=True)
        (total, (wrong, q, terms)), grads = slope(state.online, key_online, target, batch, state.slow, window)
        steps, opt = optimizer.update(grads, state.opt, state.online)
        online = optax.apply_updates(state.online, steps)
        updates = state.updates + 1
        share = jnp.where(updates % target_every == 0, tau, 0.0)
        largest = jnp.maximum(state.largest, jnp.max(jnp.abs(batch.rows.reward)))
        target, slow = optax.incremental_update(online, state.target, share), read.renew(online, state.slow)
        new = DQNState(online, target, opt, updates, largest, slow)
        # The projection would take an infinite reward for the largest there is.
        state, health = accept(new, state, (total, batch.rows.reward), grads)
        info = terms | {"q": q, "epsilon": chance(state)} | health
        info["exploded"] = exploded(q, state.largest, gamma)
        if isinstance(data, NStepRows):  # nothing was learned from the rows of an update that was skipped
            info["priority"] = jnp.where(health["skipped"] > 0, jnp.nan, wrong)
        return state, info

    return Learner(init, act, update)


def _taken(outputs: Array, actions: Array) -> Array:
    """Of ``[B, A, ...]`` what belongs to ``actions[B]``."""
    return outputs[jnp.arange(actions.shape[0]), actions]


def _one_step(rows: Transition, gamma: float | Array) -> NStepRows:
    return NStepRows(rows, jnp.full(rows.reward.shape, gamma), jnp.ones_like(rows.reward))
