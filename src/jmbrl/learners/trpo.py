"""Trust region policy optimisation (Schulman et al. 2015, arXiv 1502.05477), on trajectories of features."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jmbrl import checks
from jmbrl.learners.advantages import elapsed, flat, gae, paths, returns, settle, standardised, weighted_mean
from jmbrl.learners.baselines import Baseline, linear_baseline, network_baseline
from jmbrl.learners.natural import natural_step
from jmbrl.learners.policies import policy
from jmbrl.types import ActionSpace, Array, Key, Learner, PyTree, Transition


class TRPOState(NamedTuple):
    """``policy``: its weights. ``baseline``: (weights, optimiser) of the network, or the linear one's coefficients."""

    policy: PyTree
    baseline: PyTree


def trpo(
    action: ActionSpace,
    features: int,
    *,
    hidden: Sequence[int] = (32, 32),
    activation: Callable[[Array], Array] = jnp.tanh,
    initial_std: float | Array = 1.0,
    gamma: float | Array = 0.99,
    lam: float | Array = 0.95,
    max_kl: float | Array = 0.01,
    slack: float | Array = 1.5,
    damping: float | Array = 0.1,
    cg_iterations: int = 10,
    shrink: float | Array = 0.5,
    backtracks: int = 10,
    entropy: float | Array = 0.0,
    normalize_advantages: bool = True,
    bootstrap: bool = True,
    baseline: str = "network",
    value_hidden: Sequence[int] = (64, 64),
    value_learning_rate: float | Array = 1e-3,
    value_epochs: int = 5,
    value_batch_size: int = 128,
) -> Learner:
    r"""The largest natural gradient step that raises the surrogate and keeps the policy near.

    .. math:: \max_\theta E\left[\frac{\pi_\theta(a|s)}{\pi_0(a|s)} \hat A\right] + c\, E[H(\pi_\theta)]
              \quad \text{with} \quad E[KL(\pi_0 || \pi_\theta)] \le \delta

    ``update(key, state, data, mask=None)`` takes ``Transition[T, B]``, time-major, of features ``float32[T, B, F]``,
    collected by the policy of ``state``, from the world or from a model; ``next_obs`` is the true successor. Rows
    follow each other until one is ``terminated`` (nothing comes after) or ``truncated`` (what comes after is valued,
    not seen, as after the last row). ``mask``: ``bool[T, B]``, rows outside it do not count and may hold anything. The
    step uses the advantages under the value function as it was; then that is fitted. ``act(key, state, features[F],
    explore)`` samples, or takes the mode; actions are in ``[-1, 1]`` (the Gaussian is clipped: ``learners.policies``).

    Args:
      action: any space.
      features: ``F``, the width of the features.
      hidden, activation: of the policy's network.
      initial_std: of a continuous policy at the start, in units of the box ``[-1, 1]``, above 0.
      gamma, lam: discount and trace decay of the advantages (``learners.gae``), in ``[0, 1]``.
      max_kl, slack, damping, cg_iterations, shrink, backtracks: as in ``learners.natural.natural_step``.
      entropy: :math:`c`, in units of the (normalised) advantage per nat.
      normalize_advantages: to mean 0 and standard deviation 1 over the batch.
      bootstrap: False: nothing follows a cut, as in finite-horizon tasks whose paths all have the horizon's length.
      baseline: ``"network"``, fitted by Adam to the TD(lambda) targets, or ``"linear"`` in the observation, its square
        and a cubic in time, solved for the returns (``learners.baselines``). Time counts from a path's first row in
        the batch.
      value_hidden, value_learning_rate, value_epochs, value_batch_size: of the network.

    Returns:
      A ``Learner`` with state ``TRPOState``. ``info``, scalars: ``surrogate`` (how far the step raised it), ``kl``
      (nats), ``accepted`` (0 where no step of the line search would do), ``backtracks``, ``entropy`` (nats), ``value``
      (mean), ``value_loss``, and the counters ``nonfinite_loss``, ``nonfinite_grad``, ``skipped`` and ``updates``. An
      update with a number that is not finite changes nothing; one without any row neither, and is not counted.

    Raises:
      ValueError: a number outside its range, an unknown baseline.

    Source: Schulman et al. 2015; settings as in SLBO (Luo et al. 2019, arXiv 1807.03858), its code. ME-TRPO (Kurutach
    et al. 2018, arXiv 1802.10592) is ``gamma=1, lam=1, baseline="linear", bootstrap=False``.
    """
    features = checks.integer("features", features, 1)
    hidden = tuple(checks.integer("hidden", width, 1) for width in hidden)
    checks.number("initial_std", initial_std, 1e-3)
    for name, value in (("gamma", gamma), ("lam", lam), ("shrink", shrink)):
        checks.number(name, value, 0.0, 1.0)
    for name, value in (("max_kl", max_kl), ("slack", slack), ("damping", damping), ("entropy", entropy)):
        checks.number(name, value, 0.0)
    checks.integer("cg_iterations", cg_iterations, 1)
    checks.integer("backtracks", backtracks, 1)
    linear = checks.choice("baseline", baseline, ("network", "linear")) == "linear"
    pi = policy(action, features, hidden=hidden, activation=activation, initial_std=initial_std)
    values = linear_baseline(features) if linear else _network(
        features, value_hidden, value_learning_rate, value_epochs, value_batch_size
    )  # fmt: skip

    def init(key: Key) -> TRPOState:
        key_policy, key_value = jax.random.split(key)
        return TRPOState(pi.init(key_policy), values.init(key_value))

    def act(key: Key, state: TRPOState, x: Array, explore: bool) -> tuple[Array, Array]:
        checks.same_shape("features", jnp.shape(x)[-1:], (features,), "trpo")
        return pi.act(key, state.policy, x, explore)

    def judged(state: TRPOState, rows: Transition) -> tuple[Array, Array, Array, Array]:
        """Time in the path, value, advantage and the value's target, each ``[T, B]``."""
        time = elapsed(rows.terminated | rows.truncated)
        value = values.values(state.baseline, rows.obs, time)
        following = values.values(state.baseline, rows.next_obs, time + 1)
        if not bootstrap:
            following = jnp.where(rows.truncated.at[-1].set(True), 0.0, following)
        advantage = gae(rows.reward, value, following, rows.terminated, rows.truncated, gamma, lam)
        if linear:
            return time, value, advantage, returns(rows.reward, following, rows.terminated, rows.truncated, gamma)
        return time, value, advantage, advantage + value

    def update(
        key: Key, state: TRPOState, data: Transition, mask: Array | None = None
    ) -> tuple[TRPOState, dict[str, Array]]:
        rows, weight = paths(data, mask, features, "trpo")
        time, value, advantage, target, weight = flat((*judged(state, rows), weight))
        rows = flat(rows)
        gain = standardised(advantage, weight) if normalize_advantages else advantage
        old = pi.distribution(state.policy, rows.obs)
        old_log_prob = old.log_prob(rows.action)
        start, unravel = ravel_pytree(state.policy)

        def surrogate(theta: Array) -> Array:
            new = pi.distribution(unravel(theta), rows.obs)
            ratio = jnp.exp(new.log_prob(rows.action) - old_log_prob)
            return weighted_mean(ratio * gain + entropy * new.entropy(), weight)

        def kl(theta: Array) -> Array:
            return weighted_mean(old.kl(pi.distribution(unravel(theta), rows.obs)), weight)

        end, step = natural_step(
            surrogate, kl, start, max_kl=max_kl, damping=damping, iterations=cg_iterations, shrink=shrink,
            backtracks=backtracks, slack=slack,
        )  # fmt: skip
        fitted, value_loss = values.fit(key, state.baseline, rows.obs, time, target, weight)
        new = TRPOState(unravel(end), fitted)
        state, health = settle(new, state, (value_loss, rows, old_log_prob), (step.gradient, step.direction), weight)
        info = {
            "surrogate": step.improvement,
            "kl": step.kl,
            "accepted": step.accepted.astype(jnp.float32),
            "backtracks": step.backtracks.astype(jnp.float32),
            "entropy": weighted_mean(old.entropy(), weight),
            "value": weighted_mean(value, weight),
            "value_loss": value_loss,
        }
        return state, info | health

    return Learner(init, act, update)


def _network(features: int, hidden: Sequence[int], learning_rate: float | Array, epochs: int, batch: int) -> Baseline:
    widths = tuple(checks.integer("value_hidden", width, 1) for width in hidden)
    checks.number("value_learning_rate", learning_rate, 0.0)
    epochs = checks.integer("value_epochs", epochs, 1)
    batch = checks.integer("value_batch_size", batch, 1)
    return network_baseline(features, hidden=widths, learning_rate=learning_rate, epochs=epochs, batch_size=batch)
