"""iLQG with learned local models: linear controllers, improved within a divergence (Levine & Abbeel 2014)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jmbrl import checks, data
from jmbrl.agents.local_tasks import LocalConfig, Progress, local_tasks, no_progress, timed
from jmbrl.agents.system import System
from jmbrl.health import all_finite
from jmbrl.models import LinearGaussian
from jmbrl.types import Agent, Array, Env, Key, PyTree, Transition


@dataclasses.dataclass(frozen=True)
class ILQGConfig(LocalConfig):
    """Settings; those of the model, the step and the search are the sheet's of guided policy search (2.14).

    An iteration is ``samples`` episodes. Where the environment has no function for its reward, one is learned: a
    quadratic function of state and action.
    """


class ILQGState(NamedTuple):
    """``controller``: ``u = matrix_t x + offset_t + N(0, covariance_t)``."""

    replay: data.Replay
    controller: LinearGaussian
    progress: Progress


def ilqg(env: Env, config: ILQGConfig = ILQGConfig()) -> Agent:
    """Act with a linear-Gaussian controller for each time step of an episode; after every few episodes fit a linear
    model to each time step, expand the reward along their mean and improve the controllers by ``trajectory_update``.

    What it cannot do: the controllers are one trajectory's. They know of other starts only through the linear feedback
    around it, so that starts far apart get what is best for their mean (guided policy search has the same limit in
    its teacher; ``mpc`` with ``planners.ilqr`` plans from where it is). Nothing sees that an episode may end early:
    later costs count as if it went on. Actions are clipped by the box, and linear models do not know it; the mean
    action is kept inside. Negative curvature of the cost is cut.

    Exploitation acts by the mean.

    Raises:
      ValueError: discrete actions, image observations, a number outside its range.

    Metrics, one row an iteration: ``model/...`` of ``models.local_regression``; ``controller/cost`` (expected, of what
    acted), ``controller/promised`` (expected, of what was made), ``controller/kl``, ``controller/eta``,
    ``controller/found``, ``controller/factor`` of the step, and ``controller/skipped``: iterations that changed nothing
    because there were no rows or a number was not finite.

    Source: Levine & Abbeel 2014, Learning neural network policies with guided policy search under unknown dynamics.
    """
    local = local_tasks("ilqg", env, config)
    spec, steps, size = env.spec, env.spec.max_steps, env.spec.action.shape[0]
    initial = checks.number("initial_std", config.initial_std, config.min_std)

    def init(key: Key, num_envs: int) -> ILQGState:
        del key
        shape = steps, size, spec.obs_shape[0]
        spread = jnp.broadcast_to(jnp.eye(size) * initial**2, (steps, size, size))
        controller = LinearGaussian(jnp.zeros(shape), jnp.zeros(shape[:2]), spread)
        return ILQGState(local.replay(num_envs), controller, no_progress())

    def act(key: Key, state: ILQGState, carry: Array, obs: Array, is_first: Array, explore: bool) -> tuple:
        t = jnp.where(is_first, 0, carry)
        matrix, offset, covariance = jax.tree.map(lambda x: x[jnp.minimum(t, steps - 1)], state.controller)
        action = matrix @ obs + offset
        if explore:
            action = action + jnp.linalg.cholesky(covariance) @ jax.random.normal(key, action.shape)
        return jnp.clip(action, -1.0, 1.0), t + 1, {}

    def improve(key: Key, state: ILQGState, step: Array) -> tuple[ILQGState, dict]:
        del step
        seen = timed(state.replay, local.period, steps)
        task, info = local.task(key, seen)
        controller, progress, more = local.improve(task, state.controller, state.progress)
        proposal = state._replace(controller=controller, progress=progress)
        ok = all_finite((controller, progress)) & jnp.any(seen.recent > 0)
        state = jax.tree.map(lambda a, b: jnp.where(ok, a, b), proposal, state)
        return state, info | more | {"controller/skipped": (~ok).astype(jnp.float32)}

    def record(state: ILQGState, carry: PyTree, rows: Transition, valid: Array) -> ILQGState:
        return state._replace(replay=data.add(state.replay, rows, valid))

    reset = lambda state: jnp.zeros((), jnp.int32)  # noqa: E731
    return Agent(init, reset, act, record, ((local.period, improve),), local.warmup)


SYSTEMS = (System("ilqg", ILQGConfig, ilqg, "linear controllers on learned local models (Levine & Abbeel 2014)"),)
