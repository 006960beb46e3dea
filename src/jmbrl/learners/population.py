"""What candidates are worth: their episodes in the true world, side by side."""

from collections.abc import Callable

import jax

from jmbrl import checks
from jmbrl.rollout import evaluate
from jmbrl.types import Agent, Array, Env, Key, PyTree


def fitness(
    key: Key,
    env: Env,
    act: Callable,
    carry: PyTree,
    policies: Array,
    rollouts: int,
    *,
    num_envs: int | None = None,
    common: bool = True,
    max_steps: int | None = None,
) -> Array:
    """Returns of whole episodes of every candidate, undiscounted and without exploration.

    Copies of a JAX environment run side by side; a host environment's candidates follow one another, each with its
    rollouts side by side. What ends early is not waited for.

    Args:
      key: consumed.
      env: the environment.
      act: ``(key, policy, carry, obs, is_first) -> (action, carry, info)``, one environment; as ``Agent.act`` it
        restarts its carry where ``is_first``. It closes over the agent's parameters.
      carry: what one environment's loop remembers at the start, as ``Agent.reset`` gives it.
      policies: ``[P, ...]``, or a pytree of such leaves.
      rollouts: episodes of each, ``R``, at least 1.
      num_envs: copies of the environment at a time at most, at least 1; below ``rollouts`` a divisor of it. None: all
        ``P * R``, and ``R`` of a host environment.
      common: the same worlds and noise for every candidate, so that luck does not rank them. False: each draws its own,
        as the workers of World Models do.
      max_steps: as in ``rollout.evaluate``.

    Returns:
      ``float32[P, R]``; the mean of each row is a candidate's fitness.

    Raises:
      ValueError: a number outside its range, ``num_envs`` below ``rollouts`` that does not divide it.

    Source: Ha & Schmidhuber 2018 (arXiv 1803.10122), 16 rollouts of 64 candidates; common random numbers are ours.
    """
    rollouts = checks.integer("rollouts", rollouts, 1)
    count = jax.tree.leaves(policies)[0].shape[0]
    room = count * rollouts if num_envs is None else checks.integer("num_envs", num_envs, 1)
    copies = min(rollouts, room)
    if rollouts % copies:
        raise ValueError(f"num_envs must divide rollouts or be above, got num_envs {room} for {rollouts} rollouts")

    def returns(key: Key, policy: PyTree) -> Array:
        """One candidate's, ``[R]``."""

        def step(key: Key, state: None, carry: PyTree, obs: PyTree, is_first: Array, explore: bool) -> tuple:
            return act(key, policy, carry, obs, is_first)

        def some(key: Key) -> Array:
            return evaluate(key, env, player, None, copies, max_steps)["returns"]

        player = Agent(init=None, reset=lambda state: carry, act=step, record=None)  # type: ignore[arg-type]
        return jax.lax.map(some, jax.random.split(key, rollouts // copies)).reshape(rollouts)

    def candidate(inputs: tuple) -> Array:
        own, policy = inputs
        # The same key is not an operand: mapped over candidates, the first states are made once for all.
        return returns(key if own is None else own, policy)

    inputs = (None if common else jax.random.split(key, count), policies)
    if env.spec.host:
        return jax.lax.map(candidate, inputs)
    group = max(n for n in range(1, count + 1) if count % n == 0 and n * copies <= room)
    if group == count:
        return jax.vmap(candidate)(inputs)
    return jax.lax.map(candidate, inputs, batch_size=group)
