"""Policies improved by the derivative of imagined returns: backpropagation through time, SVG(H) and SVG(inf)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jmbrl import checks
from jmbrl.health import accept, all_finite
from jmbrl.learners.lambda_returns import lambda_returns
from jmbrl.learners.policies import squashed_policy
from jmbrl.networks import scalar_head
from jmbrl.rollout import discounts, imagine
from jmbrl.types import ActionSpace, Array, Key, Outcome, PyTree


class BPTTState(NamedTuple):
    """``value``: the terminal value's weights and ``slow``, those it is taught towards; ``()`` where there is none.
    ``opt``: of (policy, value)."""

    policy: PyTree
    value: PyTree
    slow: PyTree
    opt: tuple[PyTree, PyTree]


class World(NamedTuple):
    """What a policy is improved in: ``step_many(key, beliefs[N], actions[N]) -> (beliefs[N], Outcome[N])``, a model
    with its parameters bound; ``look(belief) -> float32[F]``, one row."""

    step_many: Callable
    look: Callable


class Path(NamedTuple):
    """Of imagined trajectories: features ``[H + 1, N, F]``, actions ``[H, N, A]``, outcomes ``[H, N]`` and ``gains[H +
    1, N]``, what each step adds to the return, the terminal value last."""

    features: Array
    actions: Array
    outcome: Outcome
    gains: Array


class Record(NamedTuple):
    """Of trajectories that really happened: the standard normals ``noise[H, N, A]`` that made their actions, and
    ``weight[H, N]``, how likely these still are: at most 1."""

    noise: Array
    weight: Array


class BPTT(NamedTuple):
    """A policy and the derivative of its imagined return.

    Attributes:
      init: ``(key) -> BPTTState``.
      act: ``(key, state, features[F], explore) -> (action, log_prob)``.
      distribution: ``(policy, features[..., F])``, of the actions.
      returns: ``(key, policy, slow, world, beliefs[N], record=None, each=False) -> (float32[N], Path)``: what is
        climbed, as a function of the policy's weights. A ``Record``'s noise takes the place of the policy's own draws.
        ``each``: every trajectory has weights of its own, leaves ``[N, ...]``.
      record: ``(policy, behaviour, features[H, N, F], actions[H, N, A]) -> Record`` of actions that a policy of weights
        ``behaviour`` took.
      update: ``(key, state, world, beliefs[N], record=None) -> (state, info)``: one step of the policy, and of the
        terminal value where there is one.
      horizon: imagined steps.
    """

    init: Callable
    act: Callable
    distribution: Callable
    returns: Callable
    record: Callable
    update: Callable
    horizon: int


def bptt(
    action: ActionSpace,
    features: int,
    *,
    hidden: Sequence[int] = (64, 64),
    activation: Callable[[Array], Array] = jnp.tanh,
    stochastic: bool = True,
    initial_std: float | Array = 0.5,
    horizon: int = 20,
    truncation: int | None = None,
    gamma: float | Array = 0.99,
    terminal_value: bool = False,
    lam: float | Array = 0.95,
    slow_rate: float | Array = 0.02,
    reward_scale: float | Array = 1.0,
    learning_rate: float | Array = 1e-3,
    value_learning_rate: float | Array = 1e-3,
    max_grad_norm: float | Array = 10.0,
    rematerialise: bool = False,
) -> BPTT:
    r"""Climbs the imagined return of ``horizon`` steps by its derivative through model and policy.

    .. math:: J(\theta) = \tfrac1N \sum_n \Big[ \sum_{t<H} w_t\, c\, r(b_t, a_t) + w_H V(b_H) \Big], \quad
              a_t = \tanh(\mu_\theta(x_t) + \sigma_\theta(x_t) \epsilon_t), \quad w_t = \prod_{s<t} \gamma d_s

    ``terminal_value=False`` drops ``V`` (plain BPTT); with it this is SVG(H), and ``V`` learns from the
    :math:`\lambda`-returns of the same trajectories, bootstrapped by a slow copy of itself. Along recorded
    trajectories (``learners.recorded`` and a ``record``) it is SVG(1) and SVG(:math:`\infty`), where a step counts by
    :math:`\prod_{s \le t} \min(1, \pi_\theta(a_s) / \pi_b(a_s))`: derivatives are taken at the recorded actions, and
    without that weight nothing would stop a policy that has long left them.

    The derivative of a long trajectory vanishes or explodes (``diagnostics.gradients`` measures which). ``truncation``
    lets it pass at most so many steps: each reward then teaches the actions shortly before it, and those alone.

    Args:
      action: continuous. features: entries ``F`` of what policy and value read.
      hidden, activation: of the policy; the value has as many layers (one at least), all as wide as the widest.
      stochastic: learn a spread, its draws reparameterised; False: :math:`\epsilon = 0` everywhere.
      initial_std: of the Gaussian before the squash, above 0.
      horizon: imagined steps, at least 1.
      truncation: steps that a derivative passes, in ``[1, horizon]``; None: all.
      gamma, lam, slow_rate: in ``[0, 1]``.
      reward_scale: :math:`c`.
      learning_rate, value_learning_rate: of two Adam optimisers.
      max_grad_norm: the policy's gradient is scaled down to it, above 0.
      rematerialise: keep only the beliefs of a trajectory and compute each step again on the way back: less memory for
        long horizons, about a third more work.

    ``info``: ``return`` (mean J), ``grad_norm`` (before it is cut), ``clipped`` (share of imagined steps that left the
    data's range or were not finite), ``std`` (mean, before the squash) of a stochastic policy, ``value_loss``
    where there is a value, and the counters of ``health.accept``.

    Raises:
      ValueError: discrete actions, or a number outside its range.

    Source: Heess et al. 2015 (arXiv 1510.09142), equations 8 to 11; Kurutach et al. 2018 (arXiv 1802.10592), whose
    BPTT has Adam at 1e-3 and gradients cut at 10.
    """
    space = checks.continuous("bptt", action, "learners.trpo or learners.dqn")
    features, horizon = checks.integer("features", features, 1), checks.integer("horizon", horizon, 1)
    cut = horizon if truncation is None else checks.integer("truncation", truncation, 1, horizon)
    for name, x in (("gamma", gamma), ("lam", lam), ("slow_rate", slow_rate)):
        checks.number(name, x, 0.0, 1.0)
    for name, x in (("initial_std", initial_std), ("max_grad_norm", max_grad_norm)):
        checks.number(name, x, 1e-9)
    hidden = tuple(checks.integer("hidden", width, 1) for width in hidden)
    actor = squashed_policy(space.dim, features, hidden=hidden, activation=activation, initial_std=initial_std)
    critic = scalar_head(
        features,
        kind="normal",
        layers=max(len(hidden), 1),
        units=max(hidden, default=64),
        norm="none",
        activation=activation,
    )
    climb = optax.chain(optax.clip_by_global_norm(max_grad_norm), optax.adam(learning_rate))  # type: ignore[arg-type]
    teach = optax.adam(value_learning_rate)

    def init(key: Key) -> BPTTState:
        key_policy, key_value = jax.random.split(key)
        policy = actor.init(key_policy)
        value = critic.init(key_value) if terminal_value else ()
        slow = jax.tree.map(jnp.copy, value)
        return BPTTState(policy, value, slow, (climb.init(policy), teach.init(value)))

    def act(key: Key, state: BPTTState, x: Array, explore: bool) -> tuple[Array, Array]:
        checks.same_shape("features", jnp.shape(x)[-1:], (features,), "bptt")
        return actor.act(key, state.policy, x, explore and stochastic)

    def value_of(weights: PyTree, x: Array) -> Array:
        return critic.predict(weights, x).mean() if terminal_value else jnp.zeros(x.shape[:-1])

    def returns(
        key: Key,
        policy: PyTree,
        slow: PyTree,
        world: World,
        beliefs: PyTree,
        record: Record | None = None,
        each: bool = False,
    ) -> tuple[Array, Path]:
        distribution = jax.vmap(actor.distribution) if each else actor.distribution

        def here(carried: tuple) -> PyTree:
            """The belief; every ``cut`` steps one without a past."""
            belief, t = carried
            return jax.tree.map(lambda x: jnp.where(t % cut == 0, jax.lax.stop_gradient(x), x), belief)

        def choose(key: Key, carried: tuple, t: Array) -> tuple[Array, Array]:
            x = jax.vmap(world.look)(here(carried))
            pi = distribution(policy, x)
            if record is not None:
                return jnp.tanh(pi.mean + pi.std * record.noise[t]), x
            return (pi.sample(key) if stochastic else pi.mode()), x

        def step_many(key: Key, carried: tuple, actions: Array) -> tuple[tuple, Outcome]:
            now = here(carried)
            following, outcome = world.step_many(key, now, actions)
            # One broken trajectory would break the gradient of all: it ends before the step that broke it.
            whole = jax.vmap(all_finite)((following, outcome.reward))
            keep = lambda x, y: jnp.where(whole.reshape(-1, *(1,) * (x.ndim - 1)), x, jax.lax.stop_gradient(y))  # noqa: E731
            reward, discount = (jnp.where(whole, x, 0.0) for x in (outcome.reward, outcome.discount))
            outcome = outcome._replace(reward=reward, discount=discount, clipped=outcome.clipped | ~whole)
            return (jax.tree.map(keep, following, now), carried[1] + 1), outcome

        if rematerialise:
            choose, step_many = jax.checkpoint(choose), jax.checkpoint(step_many)
        (last, _), path = imagine(key, step_many, (beliefs, jnp.zeros((), jnp.int32)), choose, horizon)
        outcome = path.outcome
        x_last = jax.vmap(world.look)(last)
        weight = counted(outcome, record)
        final = weight[-1] * gamma * outcome.discount[-1]
        gains = jnp.concatenate([weight * reward_scale * outcome.reward, (final * value_of(slow, x_last))[None]])
        return jnp.sum(gains, axis=0), Path(jnp.concatenate([path.aux, x_last[None]]), path.action, outcome, gains)

    def counted(outcome: Outcome, record: Record | None) -> Array:
        """How much each imagined step counts, ``[H, N]``."""
        weight = discounts(outcome, gamma)
        return weight if record is None else weight * jnp.cumprod(record.weight, axis=0)

    def record(policy: PyTree, behaviour: PyTree, x: Array, actions: Array) -> Record:
        pi, old = actor.distribution(policy, x), actor.distribution(behaviour, x)
        raw = jnp.arctanh(jnp.clip(actions, -1.0 + 1e-6, 1.0 - 1e-6))
        likely = jnp.exp(jnp.minimum(pi.log_prob(actions) - old.log_prob(actions), 0.0))
        return jax.lax.stop_gradient(Record((raw - pi.mean) / pi.std, likely))

    def update(
        key: Key, state: BPTTState, world: World, beliefs: PyTree, record: Record | None = None
    ) -> tuple[BPTTState, dict[str, Array]]:
        def loss(policy: PyTree) -> tuple[Array, Path]:
            total, path = returns(key, policy, state.slow, world, beliefs, record)
            return -jnp.mean(total), path

        (cost, path), slope = jax.value_and_grad(loss, has_aux=True)(state.policy)
        x, outcome = jax.lax.stop_gradient((path.features, path.outcome))
        moved, opt = climb.update(slope, state.opt[0], state.policy)
        new = state._replace(policy=optax.apply_updates(state.policy, moved), opt=(opt, state.opt[1]))
        info: dict[str, Any] = {"return": -cost, "grad_norm": optax.tree.norm(slope)}
        info["clipped"] = jnp.mean(outcome.clipped, dtype=jnp.float32)
        if stochastic:
            info["std"] = jnp.mean(actor.distribution(state.policy, x[:-1]).std)
        lessons: tuple = ((), ())
        if terminal_value:
            taught, lessons = taught_value(state, x, outcome, counted(outcome, record))
            new, info["value_loss"] = new._replace(value=taught[0], slow=taught[1], opt=(opt, taught[2])), lessons[0]
        state, health = accept(new, state, (cost, lessons[0]), (slope, lessons[1]))
        return state, jax.lax.stop_gradient(info) | health

    def taught_value(state: BPTTState, x: Array, outcome: Outcome, weight: Array) -> tuple[tuple, tuple]:
        """A step of the value towards the trajectories' returns."""
        reward, discount = reward_scale * outcome.reward, gamma * outcome.discount
        target = lambda_returns(reward, discount, value_of(state.slow, x[1:]), lam)

        def loss(value: PyTree) -> Array:
            return -jnp.mean(weight * critic.predict(value, x[:-1]).log_prob(target))

        cost, slope = jax.value_and_grad(loss)(state.value)
        moved, opt = teach.update(slope, state.opt[1], state.value)
        value = optax.apply_updates(state.value, moved)
        return (value, optax.incremental_update(value, state.slow, slow_rate), opt), (cost, slope)

    return BPTT(init, act, actor.distribution, returns, record, update, horizon)
