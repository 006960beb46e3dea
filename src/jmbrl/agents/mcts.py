"""Plain Monte-Carlo tree search in the true simulator: nothing is learned, leaves are judged by random play."""

import dataclasses

import jax
import jax.numpy as jnp

from jmbrl import checks, envs, models
from jmbrl.agents.system import System, numbered_actions
from jmbrl.planners.tree import FORBIDDEN, Judged, playouts, search, search_settings
from jmbrl.rollout import no_action
from jmbrl.types import Agent, Array, Env, Key, Params, PyTree


@dataclasses.dataclass(frozen=True)
class MCTSConfig:
    """Settings: the search, and the play that judges a leaf."""

    simulations: int = 100
    method: str = "puct"
    exploration: float = 5.0  # of puct: more than MuZero's 1.25, as no learned prior says where to look
    considered: int = 16
    playout: int | None = None  # random steps; None: to the end of the episode
    gamma: float = 1.0
    action_bins: int | tuple[int, ...] | None = None  # values per dimension of continuous actions, as numbers


def mcts(env: Env, config: MCTSConfig = MCTSConfig()) -> Agent:
    """JAX environments seen ``with_state``; in a game of two it plays both sides. ``mpc`` with the planner
    ``tree_search`` does the like in a learned model, and for continuous actions as they are.

    Source: Kocsis & Szepesvari 2006; Coulom 2006; with the uniform policy as mctx's prior.
    """
    spec = env.spec
    choices = checks.discrete("mcts", spec.action, "mpc with planner=tree_search, or action_bins").n
    own = ("simulations", "method", "exploration", "considered")
    settings = search_settings(dirichlet_fraction=0.0, **{name: getattr(config, name) for name in own})
    steps = spec.max_steps if config.playout is None else checks.integer("playout", config.playout, 1)
    gamma = checks.number("gamma", config.gamma, 0.0, 1.0)
    model, params = models.simulator(env), Params((), ())

    def allowed(obs: Array) -> Array:
        """``float32[N, n]``: logits of even chances for all allowed moves."""
        if env.legal is None:
            return jnp.zeros((obs.shape[0], choices))
        return jnp.where(jax.vmap(env.legal)(obs), 0.0, FORBIDDEN)

    def step_many(key: Key, beliefs: PyTree, actions: Array) -> tuple:
        return model.step_many(key, params, beliefs, actions)

    def play(key: Key, beliefs: PyTree) -> Array:
        return jax.random.categorical(key, allowed(beliefs[1])).astype(jnp.int32)

    def judge(key: Key, beliefs: PyTree) -> Judged:
        value = playouts(key, step_many, play, beliefs, steps, gamma, players=spec.players)
        return Judged(None, allowed(beliefs[1]), value)

    def act(key: Key, state: tuple, carry: tuple, obs: PyTree, is_first: Array, explore: bool) -> tuple:
        key_see, key_search = jax.random.split(key)
        belief = model.encode(key_see, params, model.initial(params), no_action(spec), obs, is_first)
        roots = jax.tree.map(lambda x: jnp.asarray(x)[None], belief)
        legal = None if env.legal is None else env.legal(roots[1][0])[None]
        found = search(
            key_search, step_many, judge, roots, settings, explore=explore, gamma=gamma, players=spec.players,
            allowed=legal,
        )  # fmt: skip
        return found.action[0], carry, {"search_value": found.value[0]}

    return Agent(
        lambda key, num_envs: (), lambda state: (), act, lambda state, carry, rows, valid: state, model=model,
        params=lambda state: params, players=2,
    )  # fmt: skip


SYSTEMS = (
    System(
        "mcts",
        MCTSConfig,
        mcts,
        "tree search in the true simulator, judged by random play (Kocsis & Szepesvari 2006)",
        lambda env, config: envs.with_state(numbered_actions(env, config)),
    ),
)
