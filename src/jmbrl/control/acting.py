"""The part of an agent that acts, its weights apart: what the loop compiles and what is exported."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmbrl import policy
from jmbrl.envs.spaces import strong
from jmbrl.types import Agent, Array, Env, Key, PyTree, Spec

Weights = dict[int, Array]


class Acting:
    """``act`` as a function of the weights that reach it.

    Args:
      agent, state: who acts, and a state of it.
      spec: of the plant.
      explore: whether the agent's exploration is added.

    Attributes:
      places: the leaves of the flattened state that acting needs.
    """

    def __init__(self, agent: Agent, spec: Spec, state: PyTree, explore: bool):
        self.spec = spec
        fixed = agent._replace(
            act=lambda key, state, carry, obs, first, _: agent.act(key, state, carry, obs, first, explore)
        )
        self.places = policy.leaves_for_acting(fixed, _shown(spec))
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.asarray(x).dtype), state)
        self._policy = policy.Policy(agent, spec, self.weights(state), shapes, explore)
        self._agent, self._explore = agent, explore

    def weights(self, state: PyTree) -> Weights:
        """Those leaves of a state, not copied."""
        flat = jax.tree.leaves(state)
        return {place: jnp.asarray(flat[place]) for place in self.places}

    def reset(self, weights: Weights) -> PyTree:
        """What the agent remembers at the beginning of an episode."""
        return strong(self._agent.reset(self._policy.state(weights)))

    def act(self, key: Key, weights: Weights, carry: PyTree, obs: PyTree, is_first: Array) -> tuple[Array, PyTree]:
        """``(action, carry)`` for one observation; pure, to be compiled."""
        state = self._policy.state(weights)
        action, carry, _ = self._agent.act(key, state, carry, obs, is_first, self._explore)
        return action, strong(carry)

    def compiled(self, key: Key, weights: Weights) -> tuple[Callable, PyTree]:
        """``(program, carry)``: ``program(tick, weights, carry, obs, is_first) -> (NumPy action, carry)``.

        Compiled, and run twice, so that no later call compiles, and a carry that changes its type is refused here.
        """

        def step(key: Key, tick: Array, weights: Weights, carry: PyTree, obs: Array, first: Array) -> tuple:
            return self.act(jax.random.fold_in(key, tick), weights, carry, obs, first)

        fresh = jax.jit(self.reset)(weights)
        obs = np.zeros(self.spec.obs_shape, self.spec.obs_dtype)
        program = jax.jit(step).lower(key, np.uint32(0), weights, fresh, obs, np.bool_(True)).compile()

        def call(tick: int, weights: Weights, carry: PyTree, obs: np.ndarray, first: bool) -> tuple[np.ndarray, PyTree]:
            action, carry = jax.block_until_ready(program(key, np.uint32(tick), weights, carry, obs, np.bool_(first)))
            return np.asarray(action), carry

        _, carry = call(0, weights, fresh, obs, True)
        call(0, weights, carry, obs, False)
        return call, fresh


def told(carry: PyTree, action: Any) -> PyTree:
    """A carry that knows which action led to the next observation, where it keeps one (a field ``action``)."""
    if "action" not in getattr(carry, "_fields", ()):
        return carry
    return carry._replace(action=np.asarray(action, carry.action.dtype))


def _shown(spec: Spec) -> Env:
    """An environment that is only looked at: ``leaves_for_acting`` asks it for an observation's shape."""
    none: Any = None
    return Env(spec, lambda key: ((), jnp.zeros(spec.obs_shape, spec.obs_dtype)), none, none)
