"""Planning by gradient ascent on action sequences, through the model."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jmbrl import checks
from jmbrl.planners.sampling import ranked, refuse_no_gradient, shift
from jmbrl.types import Array, Key, Objective, Planner, PyTree, Spec


class _Search(NamedTuple):
    actions: Array  # [R, H, A]
    opt: PyTree
    best: Array  # [R, H, A]
    value: Array  # [R], of best


def gradient(
    spec: Spec,
    *,
    horizon: int = 20,
    restarts: int = 16,
    steps: int = 50,
    learning_rate: float | Array = 0.1,
    derivative: str = "exact",
    difference: float = 0.5,
) -> Planner:
    r"""Adam on action sequences from several starts, all in one batch; the best sequence seen is the plan.

    .. math:: a^{(r)} \leftarrow \operatorname{clip}\big(a^{(r)} + \eta_i \operatorname{Adam}(
              \nabla J(a^{(r)}) / \|\nabla J(a^{(r)})\|_\infty)\big), \qquad
              \eta_i = \eta\,\tfrac12 (1 + \cos(\pi i / \text{steps}))

    One start is the plan before, shifted; the others are uniform. Every step uses the same key, so that a stochastic
    model is one function to climb (common random numbers). Sequences are projected into the action box rather than
    squashed by tanh: optima often lie on the bounds, which tanh never reaches and near which its slope vanishes.
    Only the gradient's direction is used: backpropagation through many steps explodes and vanishes from decision to
    decision, and beyond a budget it is that of another function.

    Args:
      spec: the environment's; continuous actions.
      horizon: steps looked ahead, at least 1.
      restarts: starts, at least 1.
      steps: updates, at least 1; the objective is evaluated ``steps + 1`` times.
      learning_rate: :math:`\eta > 0`, in units of the action box ``[-1, 1]``: about how far one step moves an action.
      derivative: ``"exact"``, by automatic differentiation of the model; ``"differences"``, central differences,
        ``2 H A`` sequences per start and step in one batch, for models without a useful derivative.
      difference: how far each action is moved to either side (less at the bounds), in ``(0, 2]``. Large where the model
        is a step function of the action, small near a tight budget, which both sides would leave.

    Returns:
      A ``Planner``; ``info`` holds ``return`` (of the plan), ``nonfinite`` (broken returns), ``nonfinite_grad``
      (starts whose gradient was broken and left out, summed over steps) and the objective's means.

    Raises:
      ValueError: a number outside its range; discrete actions; when traced, exact derivatives of an objective that
        says why it has none (``no_gradient``).

    Source: Henaff et al. 2017 (arXiv 1705.07177); Bharadhwaj et al. 2020 (arXiv 2004.08746) for the comparison.
    """
    space = checks.continuous("gradient", spec.action, "cem, icem, mppi or random_shooting")
    horizon = checks.integer("horizon", horizon, 1)
    restarts = checks.integer("restarts", restarts, 1)
    steps = checks.integer("steps", steps, 1)
    learning_rate = checks.number("learning_rate", learning_rate, 1e-9)
    derivative = checks.choice("derivative", derivative, ("exact", "differences"))
    difference = checks.number("difference", difference, 1e-6, 2.0)
    shape = (horizon, space.dim)
    optimizer = optax.adam(lambda i: learning_rate * 0.5 * (1 + jnp.cos(jnp.pi * i / steps)))
    slope = _exact if derivative == "exact" else lambda f, key, actions: _differences(f, key, actions, difference)

    def init() -> Array:
        return jnp.zeros(shape)

    def plan(key: Key, state: Array, objective: Objective) -> tuple[Array, Array, dict]:
        refuse_no_gradient("gradient", objective, derivative)
        key_start, key_eval = jax.random.split(key)

        def climb(search: _Search, _: None) -> tuple[_Search, tuple]:
            returns, info, gradients = slope(objective.returns, key_eval, search.actions)
            safe, broken = ranked(returns)
            better = safe > search.value
            best = jnp.where(better[:, None, None], search.actions, search.best)
            # One number that is not finite makes Adam's memory of that start so for good.
            usable = jnp.all(jnp.isfinite(gradients), axis=(1, 2), keepdims=True)
            largest = jnp.max(jnp.abs(gradients), axis=(1, 2), keepdims=True)
            direction = jnp.where(usable & (largest > 0), gradients / jnp.where(largest > 0, largest, 1.0), 0.0)
            updates, opt = optimizer.update(-direction, search.opt)
            actions = jnp.clip(jax.tree.map(jnp.add, search.actions, updates), -1.0, 1.0)
            counts = broken, jnp.sum(~usable, dtype=jnp.int32)
            return _Search(actions, opt, best, jnp.maximum(safe, search.value)), (counts, info)

        starts = jax.random.uniform(key_start, (restarts, *shape), minval=-1.0, maxval=1.0).at[0].set(state)
        search = _Search(starts, optimizer.init(starts), starts, jnp.full(restarts, -jnp.inf))
        search, (counts, infos) = jax.lax.scan(climb, search, None, length=steps + 1)
        chosen = jnp.where(jnp.any(jnp.isfinite(search.value)), search.best[jnp.argmax(search.value)], state)
        broken, broken_slopes = jax.tree.map(lambda x: jnp.sum(x, dtype=jnp.int32), counts)
        info = jax.tree.map(lambda x: jnp.mean(x, axis=0), infos)
        info |= {"return": jnp.max(search.value), "nonfinite": broken, "nonfinite_grad": broken_slopes}
        return chosen, chosen, info

    return Planner(init, plan, lambda state, k: shift(state, k, 0.0), horizon)


def _exact(evaluate: Callable, key: Key, actions: Array) -> tuple[Array, dict, Array]:
    """Returns, info and the gradient of each return by its own actions."""

    def total(actions: Array) -> tuple[Array, tuple]:
        returns, _, info = evaluate(jax.random.clone(key), actions)
        return jnp.sum(jnp.where(jnp.isfinite(returns), returns, 0.0)), (returns, info)

    (_, (returns, info)), gradients = jax.value_and_grad(total, has_aux=True)(actions)
    # A broken return had no part in the sum: its gradient would be a 0 that means nothing.
    return returns, info, jnp.where(jnp.isfinite(returns)[:, None, None], gradients, jnp.nan)


def _differences(evaluate: Callable, key: Key, actions: Array, step: float) -> tuple[Array, dict, Array]:
    """The same by central differences that stay in the action box."""
    restarts, horizon, dim = actions.shape
    units = jnp.eye(horizon * dim).reshape(-1, 1, horizon, dim)
    sides = jnp.stack([jnp.clip(actions + step * units, -1.0, 1.0), jnp.clip(actions - step * units, -1.0, 1.0)])
    batches = jnp.concatenate([actions[None], sides.reshape(-1, restarts, horizon, dim)])
    # The key is not mapped: each start meets the same noise in all its variants.
    returns, _, info = jax.vmap(lambda rows: evaluate(jax.random.clone(key), rows))(batches)
    info = jax.tree.map(lambda x: jnp.mean(x, axis=0), info)
    up, down = returns[1:].reshape(2, -1, restarts)
    width = jnp.sum(sides[0] - sides[1], axis=(2, 3))
    slopes = (up - down) / jnp.where(width > 0, width, 1.0)
    return returns[0], info, slopes.T.reshape(actions.shape)
