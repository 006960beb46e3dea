"""Meta-policy optimisation: a policy one gradient step away from good ones in every task (Clavera et al. 2018).

A task is a world (one member of an ensemble); each adapts the policy by one step on its own paths, and what is improved
is how well the adapted policies do.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jmbrl import checks
from jmbrl.learners.advantages import elapsed, flat, gae, paths, returns, settle, standardised, weighted_mean
from jmbrl.learners.baselines import linear_baseline
from jmbrl.learners.natural import natural_step
from jmbrl.learners.policies import Policy, policy
from jmbrl.types import ActionSpace, Array, Key, Learner, PyTree, Transition


class MetaState(NamedTuple):
    """``policy``: the weights before adaptation. ``adapted``: those of each task's policy, leaves ``[tasks, ...]``."""

    policy: PyTree
    adapted: PyTree


class Rows(NamedTuple):
    """What a policy gradient is taken of: ``obs[N, F]``, ``action[N, ...]``, the advantages ``gain[N]`` (constants) and
    ``weight[N]``, 1 where a row counts, else 0."""

    obs: Array
    action: Array
    gain: Array
    weight: Array


def adapt(pi: Policy, weights: PyTree, rows: Rows, learning_rate: float | Array) -> PyTree:
    r"""The inner step, one of vanilla policy gradient on the paths of one task:

    .. math:: \theta' = \theta + \alpha \nabla_\theta E[\log \pi_\theta(a|s) \hat A]

    Source: Clavera et al. 2018, equation 4.
    """

    def gain(weights: PyTree) -> Array:
        return weighted_mean(pi.distribution(weights, rows.obs).log_prob(rows.action) * rows.gain, rows.weight)

    return jax.tree.map(lambda w, slope: w + learning_rate * slope, weights, jax.grad(gain)(weights))


class MetaObjective(NamedTuple):
    """``surrogate(theta)``, to be raised; ``kl(theta)``, to be kept small; ``fisher(v)``: the latter's Hessian at the
    start, times ``v``."""

    surrogate: Callable
    kl: Callable
    fisher: Callable


def meta_objective(pi: Policy, adapted: Callable, start: PyTree, after: Rows) -> MetaObjective:
    r"""What the outer step is taken on, differentiated through the inner one:

    .. math:: \frac1K \sum_k E\left[\frac{\pi_{\theta'_k}(a|s)}{\pi_{\theta'_{0k}}(a|s)} \hat A\right], \qquad
              \frac1K \sum_k E[KL(\pi_{\theta'_{0k}} || \pi_{\theta'_k})], \qquad \theta'_k = g_k(\theta)

    The divergence has no slope at its minimum, so that its Hessian is :math:`J^T H J` with :math:`J = dg / d\theta`
    and :math:`H` that by the adapted weights: nothing is differentiated thrice.

    Args:
      pi: the policy.
      adapted: :math:`g`, ``(theta) -> weights``, leaves ``[K, ...]``.
      start: :math:`\theta_0`, any pytree.
      after: rows collected by ``adapted(start)``, leaves ``[K, N, ...]``.

    Source: Clavera et al. 2018, equation 5; the divergence as in its code.
    """

    def chosen(weights: PyTree) -> Any:
        return jax.vmap(pi.distribution)(weights, after.obs)

    def mean(x: Array) -> Array:
        return jnp.mean(jax.vmap(weighted_mean)(x, after.weight))

    center, push = jax.linearize(adapted, start)
    pull = jax.linear_transpose(push, start)
    old = chosen(center)
    old_log_prob = old.log_prob(after.action)

    def surrogate(theta: PyTree) -> Array:
        ratio = jnp.exp(chosen(adapted(theta)).log_prob(after.action) - old_log_prob)
        return mean(ratio * after.gain)

    def away(weights: PyTree) -> Array:
        return mean(old.kl(chosen(weights)))

    bend = jax.linearize(jax.grad(away), center)[1]
    return MetaObjective(surrogate, lambda theta: away(adapted(theta)), lambda v: pull(bend(push(v)))[0])


def meta_policy(
    action: ActionSpace,
    features: int,
    tasks: int = 5,
    *,
    hidden: Sequence[int] = (32, 32),
    activation: Callable[[Array], Array] = jnp.tanh,
    initial_std: float | Array = 1.0,
    inner_learning_rate: float | Array = 1e-3,
    gamma: float | Array = 0.99,
    lam: float | Array = 1.0,
    max_kl: float | Array = 0.01,
    slack: float | Array = 1.0,
    damping: float | Array = 1e-5,
    cg_iterations: int = 10,
    shrink: float | Array = 0.8,
    backtracks: int = 15,
) -> Learner:
    r"""One meta step: paths of every task before and after adaptation, then a natural gradient step on
    ``meta_objective``.

    ``update(key, state, imagine)`` takes ``imagine(key, policies) -> (Transition[tasks, T, B], mask[tasks, T, B],
    info)``: the paths of each task by its own of ``policies`` (leaves ``[tasks, ...]``), of features, time-major; rows
    outside the mask may hold anything. ``info`` of the adapted policies' paths is passed on. Advantages are those of a
    linear baseline that is fitted to the same paths, nothing follows a cut (paths have the horizon's length), and they
    have mean 0 and standard deviation 1 in each task.

    ``act`` uses ``state.policy``; to act as task ``k`` does, put its weights there.

    Args:
      action, features, hidden, activation, initial_std: as in ``learners.trpo``.
      tasks: :math:`K`.
      inner_learning_rate: :math:`\alpha` of ``adapt``, at least 0; 0: one policy for all tasks, TRPO.
      gamma, lam: of the advantages, in ``[0, 1]``.
      max_kl, slack, damping, cg_iterations, shrink, backtracks: as in ``learners.natural.natural_step``.

    Returns:
      A ``Learner`` with state ``MetaState``, whose ``adapted`` are those of the new policy on the last paths. ``info``:
      ``surrogate``, ``kl``, ``accepted``, ``backtracks``, ``entropy`` and the counters as in ``learners.trpo``;
      ``return_before`` and ``return_after``, the mean sum of rewards of a path before and after adaptation.

    Raises:
      ValueError: a number outside its range.

    Source: Clavera et al. 2018 (arXiv 1809.05214), algorithm 1; the step's settings as in its code.
    """
    features, tasks = checks.integer("features", features, 1), checks.integer("tasks", tasks, 1)
    hidden = tuple(checks.integer("hidden", width, 1) for width in hidden)
    checks.number("initial_std", initial_std, 1e-3)
    for name, value in (("gamma", gamma), ("lam", lam), ("shrink", shrink)):
        checks.number(name, value, 0.0, 1.0)
    nonnegative = {"inner_learning_rate": inner_learning_rate, "max_kl": max_kl, "slack": slack, "damping": damping}
    for name, value in nonnegative.items():
        checks.number(name, value, 0.0)
    checks.integer("cg_iterations", cg_iterations, 1)
    checks.integer("backtracks", backtracks, 1)
    pi = policy(action, features, hidden=hidden, activation=activation, initial_std=initial_std)
    baseline = linear_baseline(features)

    def for_all(weights: PyTree) -> PyTree:
        return jax.tree.map(lambda w: jnp.broadcast_to(w, (tasks, *w.shape)), weights)

    def init(key: Key) -> MetaState:
        weights = pi.init(key)
        return MetaState(weights, jax.tree.map(jnp.copy, for_all(weights)))

    def act(key: Key, state: MetaState, x: Array, explore: bool) -> tuple[Array, Array]:
        checks.same_shape("features", jnp.shape(x)[-1:], (features,), "meta_policy")
        return pi.act(key, state.policy, x, explore)

    def judged(data: Transition, mask: Array) -> tuple[Rows, Array]:
        """One task's rows and the sum of rewards of its mean path."""
        rows, weight = paths(data, mask, features, "meta_policy")
        time, cut = elapsed(rows.terminated | rows.truncated), rows.truncated.at[-1].set(True)
        nothing = jnp.zeros_like(rows.reward)
        target = returns(rows.reward, nothing, rows.terminated, cut, gamma)
        known = baseline.init(jax.random.key(0))
        known, _ = baseline.fit(jax.random.key(0), known, *flat((rows.obs, time, target, weight)))
        value = baseline.values(known, rows.obs, time)
        following = jnp.where(cut, 0.0, baseline.values(known, rows.next_obs, time + 1))
        advantage = gae(rows.reward, value, following, rows.terminated, cut, gamma, lam)
        obs, chosen, advantage, flat_weight = flat((rows.obs, rows.action, advantage, weight))
        total = jnp.mean(jnp.sum(weight * rows.reward, axis=0))
        return Rows(obs, chosen, standardised(advantage, flat_weight), flat_weight), total

    def update(key: Key, state: MetaState, imagine: Callable) -> tuple[MetaState, dict[str, Array]]:
        start, unravel = ravel_pytree(state.policy)

        def adapted(theta: Array, rows: Rows) -> PyTree:
            return jax.vmap(lambda rows: adapt(pi, unravel(theta), rows, inner_learning_rate))(rows)

        def half(policies: PyTree, key: Key) -> tuple[PyTree, tuple]:
            data, mask, seen = imagine(key, policies)
            rows, total = jax.vmap(judged)(data, mask)
            return adapted(start, rows), (rows, jnp.mean(total), seen)

        # Both halves are one loop, which compiles once.
        _, (rows, totals, seen) = jax.lax.scan(half, for_all(state.policy), jax.random.split(key))
        before, after = jax.tree.map(lambda x: x[0], rows), jax.tree.map(lambda x: x[1], rows)
        chosen = partial(adapted, rows=before)
        goal = meta_objective(pi, chosen, start, after)
        end, step = natural_step(
            goal.surrogate, goal.kl, start, max_kl=max_kl, damping=damping, iterations=cg_iterations, shrink=shrink,
            backtracks=backtracks, slack=slack, fisher=goal.fisher,
        )  # fmt: skip
        new = MetaState(unravel(end), chosen(end))
        state, health = settle(new, state, rows, (step.gradient, step.direction), after.weight)
        entropy = jax.vmap(weighted_mean)(pi.distribution(new.policy, after.obs).entropy(), after.weight)
        info = {
            "surrogate": step.improvement,
            "kl": step.kl,
            "accepted": step.accepted.astype(jnp.float32),
            "backtracks": step.backtracks.astype(jnp.float32),
            "entropy": jnp.mean(entropy),
            "return_before": totals[0],
            "return_after": totals[1],
        }
        return state, {name: values[1] for name, values in seen.items()} | info | health

    return Learner(init, act, update)
