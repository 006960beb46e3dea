"""Numbers for what is continuous, so that tables can be used."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jmbrl import checks
from jmbrl.cells import check_action_bins, grid, levels
from jmbrl.envs import spaces
from jmbrl.envs.wrappers import vector_size
from jmbrl.types import Array, Continuous, Discrete, Env, Key, PyTree, TimeStep, VectorEnv


def discretise(
    env: Env,
    *,
    low: Sequence[float] | float,
    high: Sequence[float] | float,
    bins: Sequence[int] | int,
    action_bins: Sequence[int] | int | None = None,
) -> Env:
    """The same environment with a grid over its observations, and with numbered actions where they were continuous.

    Observations stay as they are: only ``cells`` says in which cell of the grid one lies. What is outside counts to the
    outermost cell. Continuous actions become ``Discrete(n)``: the ``n`` combinations of ``action_bins`` evenly spaced
    values from -1 to 1 in each dimension, ends included, the last dimension counting fastest. Ends rather than middles
    of cells, because controls are often best at their limits (2 values are full left and full right, 3 have rest
    between them); one value is 0.

    ``reward_fn`` and ``termination_fn`` take the new, numbered actions. ``with_state`` goes outside of this.

    Args:
      env: a JAX or a host environment whose observation is a vector; ``cells`` that it has are replaced.
      low, high: where the grid begins and ends, one per dimension of the observation or one for all.
      bins: cells per dimension.
      action_bins: values per dimension of a continuous action; None where actions are discrete already.

    Raises:
      ValueError: an image, ``low`` not below ``high``, ``bins`` or ``action_bins`` below 1 or with more than 2^31 - 1
        combinations, ``action_bins`` missing for continuous actions or given for discrete ones.
    """
    cells = grid(vector_size("discretise", env.spec), low, high, bins)
    check_action_bins(env.spec.action, action_bins)
    env = env._replace(cells=cells)
    return env if action_bins is None else number_actions(env, action_bins)


def number_actions(env: Env, action_bins: Sequence[int] | int) -> Env:
    """The same environment with its continuous actions numbered, as ``discretise`` does it.

    Raises:
      ValueError: the actions are discrete already, or ``action_bins`` is below 1 or has too many combinations.
    """
    action = env.spec.action
    check_action_bins(action, action_bins)
    assert isinstance(action, Continuous)  # others are refused above
    points = levels(action.dim, action_bins)
    spec = dataclasses.replace(env.spec, action=Discrete(points.count))

    def point(number: Array) -> Array:
        # A compiled program cannot raise, so that a number outside is clipped (``spaces.to_env``).
        return points.centre(jnp.clip(number, 0, points.count - 1))

    def check(number: Array) -> Array:
        return spaces.check_action(spec.name, spec.action, number)

    def step(key: Key, state: PyTree, action: Array) -> tuple[PyTree, TimeStep]:
        return env.step(key, state, point(check(action)))

    def vector(num_envs: int) -> VectorEnv:
        inner = env.vector(num_envs)

        def step_many(key: Key, states: PyTree, actions: Array) -> tuple[PyTree, TimeStep]:
            actions = jnp.asarray(actions)
            checks.same_shape("actions", actions.shape, (num_envs,), f"{num_envs} x the spec of {spec.name}")
            return inner.step(key, states, point(jax.vmap(check)(actions)))

        return inner._replace(spec=spec, step=step_many)

    def translated(fn: Callable | None) -> Callable | None:
        return fn and (lambda obs, action, next_obs: fn(obs, point(action), next_obs))

    return env._replace(
        spec=spec,
        step=step,
        vector=vector,
        reward_fn=translated(env.reward_fn),
        termination_fn=translated(env.termination_fn),
        no_gradient=env.no_gradient or "discretise made numbers of its actions",
    )
