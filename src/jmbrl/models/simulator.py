"""The environment itself as a model: planning without model error."""

import jax
import jax.numpy as jnp

from jmbrl.types import Array, Env, Key, Model, Outcome, Params, PyTree


def simulator(env: Env) -> Model:
    """The true dynamics of a JAX environment. The belief is ``(env_state, obs)``.

    Its state comes from the observation, so the agent must act in ``envs.with_state(env)``, whose observations are
    ``StateObs(obs, state)``. Imagined rewards and terminations are the environment's own; its time limit is not
    imagined.

    Args:
      env: the environment, with or without ``with_state``.

    Raises:
      ValueError: the environment runs on the host: its state cannot be copied into a plan.
    """
    spec = env.spec
    if spec.host:
        raise ValueError(
            f"simulator needs a JAX environment, but {spec.name} runs on the host and its state cannot be copied "
            "into a plan; learn a model instead"
        )

    def init(key: Key) -> Params:
        del key
        return Params((), ())

    def initial(params: Params) -> PyTree:
        del params
        # Overwritten at the first observation; only its structure matters. A reset makes every state valid.
        state, obs = env.reset(jax.random.key(0))
        return state, _plain(obs)

    def encode(key: Key, params: Params, belief: PyTree, action: Array, obs: PyTree, is_first: Array) -> PyTree:
        del key, params, belief, action, is_first
        if not hasattr(obs, "state"):
            raise ValueError(
                "simulator reads the state from the observation: interact with envs.with_state(env), got an "
                f"observation of type {type(obs).__name__}"
            )
        return obs.state, obs.obs

    def step(key: Key, params: Params, belief: PyTree, action: Array) -> tuple[PyTree, Outcome]:
        del params
        state, seen = env.step(key, belief[0], action)
        reward = jnp.asarray(seen.reward, jnp.float32)
        discount = 1.0 - jnp.asarray(seen.terminated, jnp.float32)
        return (state, _plain(seen.obs)), Outcome(reward, discount, jnp.zeros(0), jnp.zeros((), bool))

    def step_many(key: Key, params: Params, beliefs: PyTree, actions: Array) -> tuple[PyTree, Outcome]:
        keys = jax.random.split(key, actions.shape[0])
        return jax.vmap(step, in_axes=(0, None, 0, 0))(keys, params, beliefs, actions)

    def features(params: Params, belief: PyTree) -> Array:
        del params
        return belief[1]

    def set_stats(params: Params, transitions: PyTree, mask: Array) -> Params:
        del transitions, mask
        return params

    return Model(
        init=init, initial=initial, encode=encode, step=step, step_many=step_many, features=features, decode=features,
        loss=None, set_stats=set_stats, no_gradient=env.no_gradient,
    )  # fmt: skip


def _plain(obs: PyTree) -> PyTree:
    """What the environment shows, without the state that ``with_state`` added."""
    return obs.obs if hasattr(obs, "state") else obs
