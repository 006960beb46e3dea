"""Guided policy search: a network taught by linear controllers that stay close to it (Montgomery & Levine 2016)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jmbrl import checks, data, models
from jmbrl.agents.local_tasks import LocalConfig, Progress, Seen, eigenvalues_above, local_tasks, no_progress, timed
from jmbrl.agents.off_policy import summary
from jmbrl.agents.system import System
from jmbrl.data import running
from jmbrl.health import accept, all_finite
from jmbrl.learners.policies import policy
from jmbrl.models import LinearGaussian
from jmbrl.types import Agent, Array, Env, Key, PyTree, Transition


@dataclasses.dataclass(frozen=True)
class GPSConfig(LocalConfig):
    """Settings; defaults are those of mbbl-GPS and the authors' code (reference sheet 2.14).

    What differs from that code: the first samples are of uniform random actions rather than of an initial controller;
    the observations' mean and spread are taken anew in each iteration, from all rows kept, rather than once; costs are
    expanded along the mean of the samples and without negative curvature; the mean actions of the local controllers
    are kept in the box.
    """

    # policy
    hidden: tuple[int, ...] = (64, 64)
    clock: bool = False  # whether the network reads the time in the episode too
    learning_rate: float = 1e-3
    updates: int = 3000  # per iteration
    batch_size: int = 25
    weight_decay: float = 0.005


class GPSState(NamedTuple):
    """``policy``: as in ``learners.cloning``; ``seen``: mean and spread of the observations it reads."""

    replay: data.Replay
    policy: PyTree
    opt: PyTree
    seen: running.Running
    progress: Progress


def gps(env: Env, config: GPSConfig = GPSConfig()) -> Agent:
    r"""Mirror descent guided policy search.

    After every few episodes of the network: fit local models; fit linear controllers to what the network does along
    its episodes (``models.local_regression``); improve them within a divergence of these fits (C-step,
    ``learners.trajectory_update``); teach the network their actions in the states that it saw (S-step),

    .. math:: \min_\theta \sum_{i,t} \tfrac12 (\mu_\theta(x) - K_t x - k_t)^\top C_t^{-1} (\mu_\theta(x) - K_t x - k_t)
              + \tfrac{c}{2} \sum_l \|W_l\|^2

    with the teachers' covariances :math:`C_t`; its own variance becomes the inverse of their mean precision. How far
    the next step may go depends on how much of the promised improvement came true (``adapted_step``).

    The teachers know one mean trajectory and linear feedback around it, see ``agents.ilqg`` for what follows from
    that; without ``clock`` the network averages over times that ask for different actions in the same state.

    Raises:
      ValueError: discrete actions, image observations, a number outside its range.

    Metrics, one row an iteration: those of ``agents.ilqg`` (``controller/cost``: expected of the policy's linear fit);
    ``policy/loss`` (mean over the updates), ``policy/std`` and the counters of the S-step.

    Source: Montgomery & Levine 2016, Guided policy search via approximate mirror descent (arXiv 1607.04614).
    """
    local = local_tasks("gps", env, config)
    spec, steps, size = env.spec, env.spec.max_steps, env.spec.obs_shape[0]
    hidden = tuple(checks.integer("hidden", width, 1) for width in config.hidden)
    updates = checks.integer("updates", config.updates, 1)
    batch_size = checks.integer("batch_size", config.batch_size, 1)
    initial = checks.number("initial_std", config.initial_std, config.min_std)
    decay = checks.number("weight_decay", config.weight_decay, 0.0)
    optimizer = optax.adam(checks.number("learning_rate", config.learning_rate, 0.0))
    pi = policy(spec.action, size + config.clock, hidden=hidden, initial_std=initial)

    def read(norm: running.Running, obs: Array, time: Array) -> Array:
        """What the network sees of ``obs[..., X]`` at ``time[...]``."""
        x = running.standardise(norm, obs)
        if not config.clock:
            return x
        return jnp.concatenate([x, (2.0 * time / steps - 1.0)[..., None]], axis=-1)

    def init(key: Key, num_envs: int) -> GPSState:
        weights = pi.init(key)
        opt = optimizer.init(weights["net"])
        return GPSState(local.replay(num_envs), weights, opt, running.nothing_seen(size), no_progress())

    def act(key: Key, state: GPSState, carry: Array, obs: Array, is_first: Array, explore: bool) -> tuple:
        t = jnp.where(is_first, 0, carry)
        return pi.act(key, state.policy, read(state.seen, obs, t), explore)[0], t + 1, {}

    def linearised(key: Key, state: GPSState, seen: Seen) -> LinearGaussian:
        """The policy around its episodes: ``u`` given ``x`` at each time."""
        guess = pi.distribution(state.policy, read(state.seen, seen.rows.obs, seen.time))
        fit, _, _ = models.local_regression(
            key, seen.rows.obs, guess.mean, seen.time, seen.recent, seen.known, steps, **local.options
        )
        own = jnp.diag(guess.std[0] ** 2)
        return fit._replace(
            covariance=jax.vmap(lambda x: eigenvalues_above(x + own, config.min_std**2))(fit.covariance)
        )

    def taught(key: Key, state: GPSState, seen: Seen, teacher: LinearGaussian) -> tuple[GPSState, dict]:
        """The S-step, on the last iteration's rows."""
        norm = running.observe(running.nothing_seen(size), seen.rows.obs, seen.known > 0)
        precision = jax.vmap(jnp.linalg.inv)(teacher.covariance)
        target = jnp.einsum("rij,rj->ri", teacher.matrix[seen.time], seen.rows.obs) + teacher.offset[seen.time]
        target = jnp.clip(target, -1.0, 1.0)
        recent = seen.recent > 0
        count = jnp.sum(recent, dtype=jnp.int32)
        places = jnp.nonzero(recent, size=len(recent), fill_value=0)[0]

        def loss(net: PyTree, rows: Array) -> Array:
            x = read(norm, seen.rows.obs[rows], seen.time[rows])
            apart = pi.distribution(state.policy | {"net": net}, x).mean - target[rows]
            penalty = 0.5 * decay * sum(jnp.sum(w**2) for w in jax.tree.leaves(net) if w.ndim > 1)
            return 0.5 * jnp.mean(jnp.einsum("bi,bij,bj->b", apart, precision[seen.time[rows]], apart)) + penalty

        def one(now: tuple, key: Key) -> tuple[tuple, dict]:
            net, opt = now
            rows = places[jax.random.randint(key, (batch_size,), 0, jnp.maximum(count, 1))]
            value, grads = jax.value_and_grad(loss)(net, rows)
            change, opt = optimizer.update(grads, opt, net)
            now, health = accept((optax.apply_updates(net, change), opt), now, value, grads)
            return now, {"loss": value} | health

        (net, opt), info = jax.lax.scan(one, (state.policy["net"], state.opt), jax.random.split(key, updates))
        mean = jnp.einsum("r,rii->i", seen.recent, precision[seen.time]) / jnp.maximum(count, 1)
        std = jnp.clip(1.0 / jnp.sqrt(jnp.maximum(mean, 1e-12)), config.min_std, 1.0)
        info = {f"policy/{name}": summary(name, x) for name, x in info.items()} | {"policy/std": jnp.mean(std)}
        return state._replace(policy={"net": net, "log_std": jnp.log(std)}, opt=opt, seen=norm), info

    def improve(key: Key, state: GPSState, step: Array) -> tuple[GPSState, dict]:
        del step
        key_model, key_policy, key_teach = jax.random.split(key, 3)
        seen = timed(state.replay, local.period, steps)
        task, info = local.task(key_model, seen)
        # One regression after the other: side by side they can stand still, see ``models.mixture``.
        task, around = jax.lax.optimization_barrier((task, seen))
        teacher, progress, more = local.improve(task, linearised(key_policy, state, around), state.progress)
        proposal, taught_info = taught(key_teach, state._replace(progress=progress), seen, teacher)
        ok = all_finite((teacher, progress, proposal.policy)) & jnp.any(seen.recent > 0)
        state = jax.tree.map(lambda a, b: jnp.where(ok, a, b), proposal, state)
        return state, info | more | taught_info | {"controller/skipped": (~ok).astype(jnp.float32)}

    def record(state: GPSState, carry: PyTree, rows: Transition, valid: Array) -> GPSState:
        return state._replace(replay=data.add(state.replay, rows, valid))

    reset = lambda state: jnp.zeros((), jnp.int32)  # noqa: E731
    return Agent(init, reset, act, record, ((local.period, improve),), local.warmup)


SYSTEMS = (System("gps", GPSConfig, gps, "a network taught by local linear controllers (Montgomery & Levine 2016)"),)
