"""PILCO: Gaussian processes and a policy improved by the exact gradient of its cost in them (Deisenroth 2011)."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jmbrl import checks, data, learners, models
from jmbrl.agents.imagination import ImaginationState, imagination
from jmbrl.agents.pilco_cost import expected, long_term, saturating
from jmbrl.agents.system import System
from jmbrl.learners.quasi_newton import Minimum, bfgs
from jmbrl.models import gp_moments
from jmbrl.models.coordinates import coordinates
from jmbrl.models.double import in_double, narrow, widen
from jmbrl.models.gaussian_moments import Gaussian
from jmbrl.types import Agent, Array, Env, Key, Learner, PyTree


@dataclasses.dataclass(frozen=True)
class PILCOConfig:
    """Settings; defaults are the cart pole's in the original code (reference sheet 2.12), but for the state's meaning.

    What the policy and the processes read of a state is ``[entries that are no angles, sines, cosines]``; the cost is
    given there. Without ``target`` it is minus the environment's reward function, whose mean is then approximated.

    What differs from that code: the processes' hyper-parameters have priors and are found by Adam (``models.gp``); up
    to ``points`` rows are used as they are, with none of its sparse approximation.
    """

    # state and cost
    angles: tuple[int, ...] = ()
    target: tuple[float, ...] | None = None
    rows: tuple[tuple[float, ...], ...] | None = None  # of the distance; None: Euclidean
    width: float = 0.25
    start_mean: tuple[float, ...] | None = None  # None: the mean of the starts seen
    start_std: tuple[float, ...] = (0.1,)  # one for all entries, or one each
    horizon: int | None = None  # None: an episode
    # model
    points: int = 300
    search_points: int = 300
    fit_steps: int = 200
    noise_floor: float = 1e-3  # of a target's spread; trap: without it no Cholesky factor exists
    # Add the processes' noise to each predicted state: the paper's equations do; its code takes noise for the sensors'.
    process_noise: bool = False
    # policy
    centres: int = 10
    lengths: tuple[float, ...] = (1.0,)  # one for all features, or one each
    spread: float = 0.1  # of the first targets
    searches: int = 150  # line searches per improvement
    evaluations: int = 300  # of cost and gradient, at most
    restarts: int = 0  # fresh policies that are improved beside the last one; the best of all is kept
    # schedule, in environment steps; None is one episode
    fit_every: int | None = None
    warmup: int | None = None
    capacity: int = 10_000


class Situation(NamedTuple):
    """What the policy is improved on: the model's parameters, and ``mean[D], std[D]`` of starts; ``fresh``: no policy
    was placed yet."""

    params: PyTree
    mean: Array
    std: Array
    fresh: Array


def pilco(env: Env, config: PILCOConfig = PILCOConfig()) -> Agent:
    """Algorithm 1: after each episode fit a process per entry of the state, then minimise the policy's cost in them."""
    spec = env.spec
    checks.continuous("pilco", spec.action, "dyna_q or dqn")
    if len(spec.obs_shape) != 1:
        raise ValueError(f"pilco needs a vector observation, got shape {spec.obs_shape}")
    dim = spec.obs_shape[0]
    if config.start_mean is not None:
        checks.same_shape("start_mean", (len(config.start_mean),), (dim,), "the environment's spec")
    if len(config.start_std) not in (1, dim):
        raise ValueError(f"start_std must be one number or one per entry ({dim}), got {len(config.start_std)}")
    std = jnp.broadcast_to(jnp.asarray([checks.number("start_std", x, 0.0) for x in config.start_std]), (dim,))
    cost, reward = cost_of(env, config)
    model = models.gp(
        spec,
        points=config.points,
        search_points=config.search_points,
        steps=config.fit_steps,
        noise_floor=config.noise_floor,
        two_starts=True,
        reward=reward,
        termination=env.termination_fn,
        angles=config.angles,
    )
    trainer = models.trainer(model)
    horizon = checks.integer("horizon", spec.max_steps if config.horizon is None else config.horizon, 1)
    checks.integer("searches", config.searches, 0)
    checks.integer("evaluations", config.evaluations, 1)
    checks.integer("restarts", config.restarts, 0)
    learner = improver(env, config, cost, horizon)

    def improve(key: Key, state: ImaginationState, step: Array) -> tuple[ImaginationState, dict]:
        del step
        key_fit, key_policy = jax.random.split(key)
        params, opt, info = trainer.fit(key_fit, state.params, state.opt, state.replay)
        mean = starts(state.replay) if config.start_mean is None else jnp.asarray(config.start_mean)
        situation = Situation(params, mean, std, state.memory == 0)
        policy, found = learner.update(key_policy, state.learner, situation)
        info = {f"model/{name}": x for name, x in info.items()} | {f"policy/{name}": x for name, x in found.items()}
        return state._replace(params=params, opt=opt, learner=policy, memory=state.memory + 1), info

    every = spec.max_steps if config.fit_every is None else config.fit_every
    phases = ((checks.integer("fit_every", every, 1), improve),)
    return imagination(
        spec,
        model,
        trainer,
        learner,
        phases,
        memory=lambda key: jnp.zeros((), jnp.int32),
        warmup=config.warmup,
        capacity=config.capacity,
    )


def improver(env: Env, config: PILCOConfig, cost: Callable, horizon: int) -> Learner:
    """The policy of observations; its ``update`` takes a ``Situation``.

    The first policy's centres are drawn from the distribution of starts. A policy is kept where no better one was
    found; the policy that is improved is the last.
    """
    space = checks.continuous("pilco", env.spec.action, "dyna_q or dqn")
    dim = env.spec.obs_shape[0]
    frame = coordinates(dim, True, (), config.angles, (), None)
    own = {"centres": config.centres, "spread": config.spread, "lengths": config.lengths}
    policy = learners.rbf_policy(space, dim + len(frame.angles), **own)
    expect = long_term(policy, cost, frame.angles, horizon)

    def placed(key: Key, mean: Array, std: Array) -> PyTree:
        key_start, key_policy = jax.random.split(key)
        obs = mean + std * jax.random.normal(key_start, (config.centres, dim))
        return policy.init(key_policy, frame.features(obs))

    def init(key: Key) -> PyTree:
        return placed(key, jnp.zeros(dim), jnp.ones(dim))

    @in_double
    def action(weights: PyTree, obs: Array) -> Array:
        weights, obs = widen((weights, obs))
        return policy.act(weights, frame.features(obs[None])[0])

    def act(key: Key, weights: PyTree, obs: Array, explore: bool) -> tuple[Array, Array]:
        del key, explore  # a deterministic policy: what it does not know yet is in the model's uncertainty
        return jnp.clip(action(weights, obs), -1.0, 1.0), jnp.zeros(())

    @in_double
    def better(candidates: PyTree, situation: Situation) -> tuple[PyTree, dict[str, Array]]:
        params = situation.params
        given = gp_moments.fitted(params.weights, params.stats, config.noise_floor)
        given = given if config.process_noise else given._replace(noise=jnp.zeros_like(given.noise))
        mean, std = widen((situation.mean, situation.std))
        start = Gaussian(mean, jnp.diag(std**2))
        candidates = widen(candidates)
        _, unravel = ravel_pytree(jax.tree.map(lambda x: x[0], candidates))
        points = jax.vmap(lambda one: ravel_pytree(one)[0])(candidates)

        def total(x: Array) -> Array:
            return jnp.sum(expect(unravel(x), given, start).cost)

        limits = {"searches": config.searches, "evaluations": config.evaluations}

        def attempt(best: Minimum, x: Array) -> tuple[Minimum, tuple]:
            found = bfgs(jax.value_and_grad(total), x, **limits)
            lower = found.value < best.value
            best = jax.tree.map(lambda new, old: jnp.where(lower, new, old), found, best)
            return best, (found.first, found.evaluations, found.nonfinite, lower)

        none, nowhere = jnp.zeros((), jnp.int32), jnp.full((), jnp.inf, points.dtype)
        begin = Minimum(points[0], nowhere, nowhere, none, none, none)
        best, (first, evaluations, nonfinite, lower) = jax.lax.scan(attempt, begin, points)
        info = {
            "cost_before": first[0] / horizon,
            "cost": best.value / horizon,
            "searches": best.searches,
            "evaluations": jnp.sum(evaluations),
            "nonfinite_loss": jnp.sum(nonfinite),
            "skipped": ~jnp.isfinite(best.value),
            "restarted": jnp.any(lower[1:]),
        }
        # A cost that never was finite is reported as 0, and counted as skipped.
        info = {name: jnp.where(jnp.isfinite(x), x, 0.0).astype(jnp.float32) for name, x in info.items()}
        return narrow(unravel(best.x)), info

    def update(key: Key, weights: PyTree, situation: Situation) -> tuple[PyTree, dict[str, Array]]:
        keys = jax.random.split(key, 1 + config.restarts)
        fresh = jax.vmap(placed, in_axes=(0, None, None))(keys, situation.mean, situation.std)
        keep = (jnp.arange(1 + config.restarts) == 0) & ~situation.fresh
        where = lambda new, old: jnp.where(keep.reshape(-1, *[1] * old.ndim), old, new)  # noqa: E731
        return better(jax.tree.map(where, fresh, weights), situation)

    return Learner(init, act, update)


def cost_of(env: Env, config: PILCOConfig) -> tuple[Callable, Callable]:
    """The expected cost as ``long_term`` wants it, and the reward it belongs to."""
    dim = env.spec.obs_shape[0]
    frame = coordinates(dim, True, (), config.angles, (), None)
    if config.target is None:
        if config.rows is not None:
            raise ValueError("rows need a target to be a distance from, got target=None")
        if env.reward_fn is None:
            raise ValueError(f"{env.spec.name} has no reward function: pilco needs a target, or one in its place")
        return expected(env.reward_fn, env.spec), env.reward_fn
    given = learners.saturating_cost(config.target, config.rows, config.width)
    checks.same_shape("target", given.target.shape, (dim + len(frame.angles),), "the features of the state")

    def reward(obs: Array, action: Array, next_obs: Array) -> Array:
        del obs, action
        return 1.0 - given.value(frame.features(next_obs[None])[0])

    return saturating(given, frame.angles), reward if env.reward_fn is None else env.reward_fn


def starts(replay: data.Replay) -> Array:
    """The mean of the observations that episodes began with, ``[D]``."""
    first = replay.valid & replay.is_first
    total = jnp.sum(jnp.where(first[..., None], replay.data.obs, 0.0), axis=(0, 1))
    return total / jnp.maximum(jnp.sum(first), 1)


SYSTEMS = (System("pilco", PILCOConfig, pilco, "Gaussian processes, moment matching, RBF policy (Deisenroth 2011)"),)
