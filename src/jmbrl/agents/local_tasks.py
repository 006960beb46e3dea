"""What iLQG and guided policy search share: a local linear-quadratic task made of the last episodes, and its update."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks, data, models
from jmbrl.envs.wrappers import vector_size
from jmbrl.learners import LocalTask, Quadratic, trajectory_update
from jmbrl.learners.trajectory_update import adapted_step, expected_cost
from jmbrl.models import LinearGaussian, cholesky, polynomial
from jmbrl.models.local_linear import moments_by_time
from jmbrl.planners.quadratic import expand
from jmbrl.types import Array, Env, Key, Transition


@dataclasses.dataclass(frozen=True)
class LocalConfig:
    """Settings that both systems have: those of mbbl-GPS and the authors' code (reference sheet 2.14)."""

    samples: int = 5  # episodes per iteration
    kl_step: float = 1.0  # nats per time step, times a factor that adapts
    step_span: tuple[float, float] = (0.5, 3.0)  # range of the factor
    initial_std: float = 0.5  # of the first policy, in units of the action box
    min_std: float = 0.1  # of exploration, so that the next model has something to see
    # local models
    clusters: int = 20  # of the prior's mixture, at most
    cluster_rows: int = 40  # rows of one iteration per cluster
    past: int = 20  # episodes that the prior sees
    strength: float = 1.0  # rows the prior is worth
    floor: float = 1e-6
    em_iterations: int = 20
    warmup: int | None = None  # environment steps of random actions; None: one iteration


class Progress(NamedTuple):
    """How the updates went.

    Attributes:
      eta: multiplier of the last one, where the next search begins.
      factor: of the next step's size.
      before, promised: expected cost at the last update of the controllers that had acted and of those it made.
      count: updates so far.
    """

    eta: Array
    factor: Array
    before: Array
    promised: Array
    count: Array


class Seen(NamedTuple):
    """Rows ``[R]`` of a replay, their time in the episode, and as 0 or 1 whether they belong to the last iteration and
    whether they can be used at all."""

    rows: Transition
    time: Array
    recent: Array
    known: Array


class LocalTasks(NamedTuple):
    """What both systems do with their episodes.

    Attributes:
      period: environment steps of an iteration; warmup: of random actions.
      options: of ``models.local_regression``.
      replay: ``(num_envs) -> Replay``, empty.
      task: ``(key, Seen) -> (LocalTask, info)``.
      improve: ``(LocalTask, controllers that acted, Progress) -> (controllers, Progress, info)``.
    """

    period: int
    warmup: int
    options: dict
    replay: Callable
    task: Callable
    improve: Callable


def local_tasks(user: str, env: Env, config: LocalConfig) -> LocalTasks:
    """The shared part of ``ilqg`` and ``gps``; ``initial_std`` is theirs to read.

    Raises:
      ValueError: discrete actions, image observations, a number outside its range.
    """
    spec, steps = env.spec, env.spec.max_steps
    checks.continuous(user, spec.action, "dqn, or a planner that samples (mpc)")
    size = vector_size(user, spec)
    samples = checks.integer("samples", config.samples, 1)
    past = checks.integer("past", config.past, samples)
    kl_step = checks.number("kl_step", config.kl_step, 1e-9)
    least_std = checks.number("min_std", config.min_std, 1e-3, 1.0)
    span = config.step_span
    checks.number("step_span", span[0], 1e-6, span[1])
    clusters = checks.integer("clusters", config.clusters, 1)
    most = samples * steps // checks.integer("cluster_rows", config.cluster_rows, 1)
    period = samples * steps
    warmup = checks.integer("warmup", period if config.warmup is None else config.warmup, 0)
    options = {
        "clusters": max(1, min(clusters, most)),
        "strength": checks.number("strength", config.strength, 0.0),
        "floor": checks.number("floor", config.floor, 1e-9),
        "iterations": checks.integer("em_iterations", config.em_iterations, 1),
    }

    def replay(num_envs: int) -> data.Replay:
        return data.empty(spec, -(-past * steps // num_envs), num_envs)

    def task(key: Key, seen: Seen) -> tuple[LocalTask, dict]:
        dynamics, centre, info = models.local_linear(
            key, seen.rows, seen.time, seen.recent, seen.known, steps, **options
        )
        reward = env.reward_fn or quadratic_reward(seen)
        # All starts that are known, as they do not depend on what was done.
        count, mean, scatter = moments_by_time(seen.rows.obs, seen.time, seen.known, steps)
        spread = scatter[0] / jnp.maximum(count[0], 1.0) + 1e-6 * jnp.eye(size)
        info = {f"model/{name}": value for name, value in info.items()}
        return LocalTask(dynamics, expanded(dynamics, centre, reward), mean[0], spread), info

    def improve(task: LocalTask, acted: LinearGaussian, past: Progress) -> tuple[LinearGaussian, Progress, dict]:
        cost = expected_cost(task, acted)
        factor, _ = adapted_step(past.factor, past.before - past.promised, past.before - cost, span)
        factor = jnp.where(past.count > 0, factor, 1.0)
        new, info = trajectory_update(task, acted, kl_step * steps * factor, eta=past.eta)
        # Its mean actions are what the box lets through, and its noise is enough to learn from.
        spread = jax.vmap(lambda x: eigenvalues_above(x, least_std**2))(new.covariance)
        new = within_box(task, new)._replace(covariance=spread)
        promised = expected_cost(task, new)
        info |= {"cost": cost, "promised": promised, "factor": factor}
        after = Progress(info["eta"], factor, cost, promised, past.count + 1)
        return new, after, {f"controller/{name}": value for name, value in info.items()}

    return LocalTasks(period, warmup, options, replay, task, improve)


def no_progress() -> Progress:
    """Before the first update."""
    one, zero = jnp.ones(()), jnp.zeros(())
    return Progress(one, one, zero, zero, jnp.zeros((), jnp.int32))


def timed(replay: data.Replay, recent: int, steps: int) -> Seen:
    """All rows of a ring with their time in the episode; ``recent``: how many, over all environments, are the last
    iteration's. Rows whose episode began before the ring, or last longer than ``steps``, are not known."""
    places = jnp.arange(replay.capacity)
    order = (replay.cursor - replay.size + places) % replay.capacity
    rows = jax.tree.map(lambda x: x[order], replay.data)
    here = (places < replay.size)[:, None]
    first = jnp.where(replay.is_first[order] & here, places[:, None], -1)
    began = jax.lax.cummax(first, axis=0)
    time = places[:, None] - began
    known = replay.valid[order] & here & (began >= 0) & (time < steps)
    late = (places >= replay.size - recent // replay.num_envs)[:, None]
    flat = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
    time = jnp.where(known, time, 0)
    weights = ((known & late).astype(jnp.float32), known.astype(jnp.float32))
    return Seen(jax.tree.map(flat, rows), flat(time), *map(flat, weights))


def expanded(dynamics: LinearGaussian, centre: Array, reward: Callable) -> Quadratic:
    """Minus the reward around ``centre[T, D]`` to the second order, without its negative curvature; what the reward
    says of the next state is taken where the dynamics expect it."""
    size = dynamics.offset.shape[1]

    def one(matrix: Array, offset: Array, z: Array) -> tuple[Array, Array, Array]:
        def f(z: Array) -> tuple[Array, Array]:
            following = matrix @ z + offset
            return following, -reward(z[:size], z[size:], following)

        around = expand(f, z)
        return f(z)[1], around.slope, eigenvalues_above(around.hessian, 0.0)

    return Quadratic(*jax.vmap(one)(dynamics.matrix, dynamics.offset, centre), centre)


def within_box(task: LocalTask, controller: LinearGaussian) -> LinearGaussian:
    """The controller with offsets such that the actions along its mean trajectory lie in ``[-1, 1]``."""

    def body(x: Array, row: tuple[LinearGaussian, LinearGaussian]) -> tuple[Array, Array]:
        controller, dynamics = row
        wanted = controller.matrix @ x + controller.offset
        action = jnp.clip(wanted, -1.0, 1.0)
        following = dynamics.matrix @ jnp.concatenate([x, action]) + dynamics.offset
        return following, controller.offset + action - wanted

    return controller._replace(offset=jax.lax.scan(body, task.mean, (controller, task.dynamics))[1])


def eigenvalues_above(matrix: Array, least: float) -> Array:
    """A symmetric matrix with all eigenvalues at least ``least``."""
    values, vectors = jnp.linalg.eigh(0.5 * (matrix + matrix.T))
    return (vectors * jnp.maximum(values, least)) @ vectors.T


def quadratic_reward(seen: Seen, ridge: float = 1e-4) -> Callable:
    """``(obs, action, next_obs) -> reward`` fitted to all known rows: quadratic in state and action."""
    z = jnp.concatenate([seen.rows.obs, seen.rows.action], axis=1)
    z = jnp.where(seen.known[:, None] > 0, z, 0.0)
    share = seen.known / jnp.maximum(jnp.sum(seen.known), 1.0)
    mean = share @ z
    scale = jnp.sqrt(share @ (z - mean) ** 2)
    scale = jnp.where(scale > 1e-6 * (1.0 + jnp.abs(mean)), scale, 1.0)
    basis = polynomial(2)
    phi = basis.apply((), (z - mean) / scale)
    factor, _ = cholesky.cholesky(phi.T @ (share[:, None] * phi), ridge)
    theta = cholesky.solve(factor, phi.T @ (share * jnp.where(seen.known > 0, seen.rows.reward, 0.0)))

    def reward(obs: Array, action: Array, next_obs: Array) -> Array:
        del next_obs
        return basis.apply((), ((jnp.concatenate([obs, action]) - mean) / scale)[None])[0] @ theta

    return reward
