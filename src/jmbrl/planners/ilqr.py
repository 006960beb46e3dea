"""Iterative linear-quadratic regulation with control limits (iLQG, box-DDP)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.planners.quadratic import Expansion, box_qp, expand, expand_by_differences, solve_free, vector_of
from jmbrl.planners.sampling import ranked, refuse_no_gradient, shift
from jmbrl.rollout import discounts
from jmbrl.types import Array, Key, Objective, Outcome, Planner, PyTree, Spec

MU, FACTOR, MU_LOW, MU_HIGH = 0.1, 1.6, 1e-3, 1e10  # mbbl's ilqr_config.py
STEP_SIZES = tuple(5.0**-i for i in range(6))


class _Gains(NamedTuple):
    """The affine control law ``u = u_nominal + alpha k + K (x - x_nominal)`` and what it should gain."""

    k: Array  # [H, A]
    K: Array  # [H, A, n]
    linear: Array  # expected change of the loss is alpha * linear + alpha^2 * quadratic
    quadratic: Array
    positive: Array  # bool: every step's Hessian by the action was positive definite


class _Problem(NamedTuple):
    objective: Objective
    noise: Key  # [H], the same in every rollout and derivative
    flatten: Callable
    replace: Callable


class _Search(NamedTuple):
    actions: Array  # [H, A], the nominal plan
    score: Array  # of it, -inf where broken
    costs: Array  # [C], of it
    mu: Array
    delta: Array


def ilqr(
    spec: Spec,
    *,
    horizon: int = 30,
    iterations: int = 10,
    derivative: str = "exact",
    difference: float = 0.5,
    belief_difference: float = 1e-2,
) -> Planner:
    r"""Newton-like improvement of one action sequence from the model's derivatives.

    Around the plan, with the loss :math:`\ell = -w_t r`, ``x`` the belief's real numbers and the model's noise held
    fixed, backwards from the terminal value:

    .. math:: Q_x = \ell_x + f_x^\top V_x', \quad Q_u = \ell_u + f_u^\top V_x', \quad
              Q_{xx} = \ell_{xx} + f_x^\top V_{xx}' f_x, \quad \tilde Q_{uu} = \ell_{uu} + f_u^\top V_{xx}' f_u
              + \mu (f_u^\top f_u + I), \quad \tilde Q_{ux} = \ell_{ux} + f_u^\top V_{xx}' f_x + \mu f_u^\top f_x

    :math:`k = \arg\min_{l \le u + k \le h} \tfrac12 k^\top \tilde Q_{uu} k + Q_u^\top k` and
    :math:`K = -\tilde Q_{uu}^{-1} \tilde Q_{ux}` in the entries that no bound holds. :math:`\mu` starts at 0.1 and
    moves within ``[1e-3, 1e10]`` (or to 0) by powers of 1.6: up, at once, while some :math:`\tilde Q_{uu}` is not
    positive definite or when no step size helps, else down. The step sizes 1, 1/5, 1/25, ... are tried in one batch;
    the best is taken if the objective improves by more than 1 % of what was expected.

    The weights :math:`w_t = \gamma^t \prod_{s<t} d_s` are held constant: it does not see that an action could end the
    episode, though candidates are compared by the full objective, particles and attitude to risk included. While the
    plan is over the objective's ``budget``, :math:`\ell` is the sum of the costs that are. The term :math:`\mu I` is
    not in the source: without it a last action that moves nothing rewarded leaves :math:`\tilde Q_{uu}` singular.
    One start, the plan before, shifted: where the slope is 0 there, it stays. Leaves of the belief that are not
    real numbers (an environment's step counter) keep the plan's values in the derivatives.

    Args:
      spec: the environment's; continuous actions.
      horizon: steps looked ahead, at least 1.
      iterations: at least 1.
      derivative: ``"exact"``, by automatic differentiation of the model's step; ``"differences"``, central ones.
      difference: how far an action is moved to either side, in ``(0, 1]``, for ``"differences"``; it may leave the box.
      belief_difference: how far an entry ``x`` of the belief is moved, in units of ``max(1, |x|)``.

    Returns:
      A ``Planner``; ``info`` holds ``return`` (of the plan), ``accepted`` (share of the iterations that improved it),
      ``mu`` (the last), ``nonfinite`` (broken returns) and the objective's means.

    Raises:
      ValueError: a number outside its range; discrete actions; when traced, a belief without real numbers, or exact
        derivatives of an objective that says why it has none (``no_gradient``).

    Source: Tassa, Erez & Todorov 2012; Tassa, Mansard & Todorov 2014, section III; constants of mbbl (Wang et al.
    2019, arXiv 1907.02057).
    """
    space = checks.continuous("ilqr", spec.action, "cem, icem, mppi or random_shooting")
    horizon = checks.integer("horizon", horizon, 1)
    iterations = checks.integer("iterations", iterations, 1)
    derivative = checks.choice("derivative", derivative, ("exact", "differences"))
    difference = checks.number("difference", difference, 1e-6, 1.0)
    belief_difference = checks.number("belief_difference", belief_difference, 1e-6)
    alphas = jnp.asarray(STEP_SIZES)

    def expansion(f: Callable, z: Array) -> Expansion:
        if derivative == "exact":
            return expand(f, z)
        steps = belief_difference * jnp.maximum(1.0, jnp.abs(z))
        return expand_by_differences(f, z, steps.at[-space.dim :].set(difference))

    def init() -> Array:
        return jnp.zeros((horizon, space.dim))

    def plan(key: Key, state: Array, objective: Objective) -> tuple[Array, Array, dict]:
        refuse_no_gradient("ilqr", objective, derivative)
        key_roll, key_eval = jax.random.split(key)
        noise = jax.random.split(key_roll, horizon)
        problem = _Problem(objective, noise, *vector_of(objective.belief, "ilqr"))

        def evaluate(actions: Array) -> tuple[Array, Array, Array, dict]:
            returns, costs, info = objective.returns(jax.random.clone(key_eval), actions)
            safe, broken = ranked(returns)
            return safe, costs, broken, info

        def iterate(search: _Search, _: None) -> tuple[_Search, tuple]:
            x, steps, slope, hessian = _expanded(problem, search, expansion)
            gains, mu, delta = _regularised(steps, slope, hessian, search)
            candidates = jax.vmap(lambda alpha: _controlled(problem, search.actions, x, gains, alpha))(alphas)
            scores, costs, broken, info = evaluate(candidates)
            best = jnp.argmax(scores)
            gain = scores[best] - search.score
            expected = -(alphas[best] * gains.linear + alphas[best] ** 2 * gains.quadratic)
            accept = (gain > 0) & (gain > 0.01 * expected)
            up, down = _more(mu, delta), _less(mu, delta)
            mu, delta = jax.tree.map(lambda a, b: jnp.where(accept, a, b), down, up)
            new = _Search(candidates[best], scores[best], costs[best], mu, delta)
            kept = search._replace(mu=mu, delta=delta)
            return jax.tree.map(lambda a, b: jnp.where(accept, a, b), new, kept), (accept, broken, info)

        scores, costs, broken, _ = evaluate(state[None])
        search = _Search(state, scores[0], costs[0], jnp.asarray(MU), jnp.asarray(1.0))
        search, (accepted, more, infos) = jax.lax.scan(iterate, search, None, length=iterations)
        info = jax.tree.map(lambda x: jnp.mean(x, axis=0), infos)
        info |= {"return": search.score, "accepted": jnp.mean(accepted, dtype=jnp.float32), "mu": search.mu}
        info["nonfinite"] = broken + jnp.sum(more, dtype=jnp.int32)
        return search.actions, search.actions, info

    return Planner(init, plan, lambda state, k: shift(state, k, state[-1]), horizon)


def _follow(problem: _Problem, policy: Callable, inputs: PyTree) -> tuple[PyTree, PyTree, Outcome, Array]:
    """Roll ``policy(belief, row of inputs) -> action``: beliefs ``[H]``, the last one, outcomes and actions ``[H]``."""

    def body(belief: PyTree, now: tuple) -> tuple[PyTree, tuple]:
        action = policy(belief, now[1])
        following, outcome = problem.objective.step(now[0], belief, action)
        return following, (belief, outcome, action)

    inputs = jax.random.clone(problem.noise), inputs
    last, (beliefs, outcomes, actions) = jax.lax.scan(body, problem.objective.belief, inputs)
    return beliefs, last, outcomes, actions


def _controlled(problem: _Problem, actions: Array, x: Array, gains: _Gains, alpha: Array) -> Array:
    """The actions ``[H, A]`` of the control law with step size ``alpha``."""

    def law(belief: PyTree, row: tuple) -> Array:
        action, k, K, x = row
        new = action + alpha * k + K @ (problem.flatten(belief) - x)
        return jnp.clip(jnp.where(jnp.isfinite(new), new, action), -1.0, 1.0)

    return _follow(problem, law, (actions, gains.k, gains.K, x))[3]


def _expanded(problem: _Problem, search: _Search, expansion: Callable) -> tuple[Array, Expansion, Array, Array]:
    """The nominal trajectory ``x[H, n]``, each step around it, and slope and Hessian of the loss at the end."""
    objective, noise, flatten, replace = problem
    beliefs, last, outcomes, _ = _follow(problem, lambda belief, action: action, search.actions)
    weight = discounts(outcomes, objective.gamma)
    budget = objective.budget or ()
    over = search.costs[: len(budget)] > jnp.asarray(budget, jnp.float32)

    def loss_of(reward: Array, costs: Array) -> Array:
        return jnp.where(jnp.any(over), jnp.sum(jnp.where(over, costs[: len(budget)], 0.0)), -reward)

    def one(key: Key, belief: PyTree, action: Array, weight: Array) -> Expansion:
        x = flatten(belief)

        def f(z: Array) -> tuple[Array, Array]:
            following, outcome = objective.step(jax.random.clone(key), replace(belief, z[: len(x)]), z[len(x) :])
            return flatten(following), weight * loss_of(outcome.reward, outcome.cost)

        # After the end nothing counts, and what is imagined there may be infinite.
        return jax.tree.map(lambda x: jnp.where(weight == 0, 0.0, x), expansion(f, jnp.concatenate([x, action])))

    steps = jax.vmap(one)(jax.random.clone(noise), beliefs, search.actions, weight)
    xs, x_last = jax.vmap(flatten)(beliefs), flatten(last)
    if objective.value is None:
        return xs, steps, jnp.zeros_like(x_last), jnp.zeros((len(x_last), len(x_last)))
    final = weight[-1] * objective.gamma * outcomes.discount[-1]

    def value(x: Array) -> Array:
        batch = jax.tree.map(lambda leaf: leaf[None], replace(last, x))
        return final * loss_of(objective.value(batch)[0], jnp.zeros_like(search.costs))

    ends = jax.grad(value)(x_last), jax.hessian(value)(x_last)
    return xs, steps, *jax.tree.map(lambda x: jnp.where(final == 0, 0.0, x), ends)


def _regularised(steps: Expansion, slope: Array, hessian: Array, search: _Search) -> tuple[_Gains, Array, Array]:
    """The backward pass with enough regularisation, and the ``mu`` and ``delta`` that were."""

    def failed(loop: tuple) -> Array:
        gains, mu, _, tries = loop
        return ~gains.positive & (tries < 10) & (mu < MU_HIGH)

    def again(loop: tuple) -> tuple:
        mu, delta = _more(loop[1], loop[2])
        return _backward(steps, slope, hessian, search.actions, mu), mu, delta, loop[3] + 1

    first = _backward(steps, slope, hessian, search.actions, search.mu)
    gains, mu, delta, _ = jax.lax.while_loop(failed, again, (first, search.mu, search.delta, 0))
    return gains, mu, delta


def _backward(steps: Expansion, slope: Array, hessian: Array, actions: Array, mu: Array) -> _Gains:
    n = len(slope)

    def body(carry: tuple, row: tuple) -> tuple[tuple, tuple]:
        v, vv, linear, quadratic, positive = carry
        step, action = row
        fx, fu = step.jacobian[:, :n], step.jacobian[:, n:]
        q = step.slope + step.jacobian.T @ v
        qq = step.hessian + step.jacobian.T @ vv @ step.jacobian
        qx, qu, qxx, qux, quu = q[:n], q[n:], qq[:n, :n], qq[n:, :n], qq[n:, n:]
        safe = quu + mu * (fu.T @ fu + jnp.eye(len(qu)))
        positive = positive & jnp.all(jnp.isfinite(jnp.linalg.cholesky(safe)))
        k, free = box_qp(safe, qu, -1.0 - action, 1.0 - action)
        K = -solve_free(safe, qux + mu * fu.T @ fx, free)
        linear, quadratic = linear + k @ qu, quadratic + 0.5 * k @ quu @ k
        v = qx + K.T @ quu @ k + K.T @ qu + qux.T @ k
        vv = qxx + K.T @ quu @ K + K.T @ qux + qux.T @ K
        return (v, 0.5 * (vv + vv.T), linear, quadratic, positive), (k, K)

    start = slope, hessian, jnp.zeros(()), jnp.zeros(()), jnp.asarray(True)
    (_, _, linear, quadratic, positive), (k, K) = jax.lax.scan(body, start, (steps, actions), reverse=True)
    return _Gains(k, K, linear, quadratic, positive)


def _more(mu: Array, delta: Array) -> tuple[Array, Array]:
    delta = jnp.maximum(FACTOR, delta * FACTOR)
    return jnp.clip(mu * delta, MU_LOW, MU_HIGH), delta


def _less(mu: Array, delta: Array) -> tuple[Array, Array]:
    delta = jnp.minimum(1 / FACTOR, delta / FACTOR)
    return jnp.where(mu * delta >= MU_LOW, mu * delta, 0.0), delta
